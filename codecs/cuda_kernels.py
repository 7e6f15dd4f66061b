"""Kernels for NVIDIA devices: scan packed rows for many queries at once, and keep the best rows of each.

Rows are those of :mod:`gingham.codecs.affine_row_kernels`, as words of 4 bytes, (words, rows): so 32 threads that
score 32 rows read 32 words in line. Queries are the integers prepared for the CPU, 4 bytes at a time.

A candidate is a key of 64 bits, greater for what is better: the bits of its score, in an order that integers have too,
over the complement of its row. Keys are unique, so the best are the same whatever order threads run in.

Kernels are made for a number of queries that a block scores together: each reads the codes once.

Roofline: an instruction adds two products of 8-bit codes, or four of fewer bits, at 64 a cycle and multiprocessor. On
a device of 132 multiprocessors at 1.7 GHz and 3 TB/s, 1M rows of 384 bytes take 128 us to read, and 13 us a query to
add (7 of 4 bits): from 10 queries on, adding is what bounds.
"""

from __future__ import annotations

from numba import cuda, float32, int32, int64, uint64

from gingham.codecs.cuda_intrinsics import (
    add,
    add_pairs_high,
    add_pairs_low,
    add_quads,
    bits_of,
    float_of,
    high_half,
    low_half,
    multiply,
)

THREADS = 128
"""Threads of a block; each scores two rows."""
ROWS = 2 * THREADS
STAGED = 64
"""Words of each query that lie in shared memory at once: 4 KiB of 16 queries."""
ONES = 0xFFFFFFFF


@cuda.jit
def transpose_words(words, first, out):
    """Copy words (n, width) to columns from ``first`` of out (width, capacity)."""
    i = cuda.grid(1)
    n, width = words.shape
    if i < n:
        for j in range(width):
            out[j, first + i] = words[i, j]


@cuda.jit(device=True, inline=True)
def key_of(score, row):
    """A key that orders by score, then by ascending row."""
    bits = bits_of(add(score, float32(0.0)))
    ordered = int64(bits) if bits >= 0 else int64(-1) - (int64(bits) + int64(0x80000000))
    # Of 33 bits with sign, moved to 32 without.
    return (uint64(ordered + int64(0x80000000)) << uint64(32)) | uint64(int64(ONES) - int64(row))


@cuda.jit(device=True, inline=True)
def _offer(key, i, bars, counts, keys):
    if key > bars[i]:
        place = cuda.atomic.add(counts, i, 1)
        if place < keys.shape[1]:
            keys[i, place] = key


@cuda.jit(device=True, inline=True)
def _score(product, words, row, factors, parameters, i):
    s = add(multiply(parameters[i, 0], float32(product)), parameters[i, 1])
    if factors == 1:
        return add(add(s, multiply(float_of(words[0, row]), parameters[i, 3])), parameters[i, 4])
    s = add(multiply(float_of(words[0, row]), s), multiply(float_of(words[1, row]), parameters[i, 2]))
    return add(add(s, multiply(float_of(words[2, row]), parameters[i, 3])), parameters[i, 4])


def _staging(queries: int):
    """The function that copies words of the queries from i on into shared memory, zeros where there are none."""

    @cuda.jit(device=True, inline=True)
    def stage(words, i, start, staged):
        for place in range(cuda.threadIdx.x, STAGED * queries, THREADS):
            word, query = start + place // queries, i + place % queries
            inside = word < words.shape[1] and query < words.shape[0]
            staged[place // queries, place % queries] = words[query, word] if inside else int32(0)

    return stage


def _finishing(factors: int, queries: int):
    """The function that scores two rows for all queries of the block, and offers them."""

    @cuda.jit(device=True, inline=True)
    def finish(sums_x, sums_y, words, row, last, parameters, i, allow, bars, counts, keys):
        for side in range(2):
            x = row + side * THREADS
            if x < last and (allow.shape[0] == 0 or allow[x] != 0):
                for q in range(queries):
                    if i + q < parameters.shape[0]:
                        s = sums_x[q] if side == 0 else sums_y[q]
                        score = (
                            s + parameters[i + q, 0]
                            if factors == 0
                            else _score(s, words, x, factors, parameters, i + q)
                        )
                        _offer(key_of(score, x), i + q, bars, counts, keys)

    return finish


def bytes_kernel(factors: int, queries: int):
    """The kernel that offers rows first to last of 8 bits to all queries; grid (rows / ROWS, all / queries)."""
    stage, finish = _staging(queries), _finishing(factors, queries)

    @cuda.jit
    def scan_bytes(words, first, last, prepared, parameters, allow, bars, counts, keys):
        staged = cuda.shared.array((STAGED, queries), int32)
        sums_x = cuda.local.array(queries, int32)
        sums_y = cuda.local.array(queries, int32)
        row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * queries
        for q in range(queries):
            sums_x[q] = 0
            sums_y[q] = 0
        width, end = prepared.shape[1], words.shape[0] - 1
        place = factors
        x, y = words[place, row], words[place, row + THREADS]
        for start in range(0, width, STAGED):
            cuda.syncthreads()
            stage(prepared, i, start, staged)
            cuda.syncthreads()
            for j in range(0, min(STAGED, width - start), 2):
                # Words are read a turn before they are added: reading takes longer than adding.
                place = min(place + 1, end)
                next_x, next_y = words[place, row], words[place, row + THREADS]
                for q in range(queries):
                    low, high = staged[j, q], staged[j + 1, q]
                    sums_x[q] = add_pairs_high(high, x, add_pairs_low(low, x, sums_x[q]))
                    sums_y[q] = add_pairs_high(high, y, add_pairs_low(low, y, sums_y[q]))
                x, y = next_x, next_y
        finish(sums_x, sums_y, words, row, last, parameters, i, allow, bars, counts, keys)

    return scan_bytes


def _planing(span: int, parts: int, shift: int, queries: int):
    """The function that adds a plane of 64 dimensions of two rows.

    ``parts`` fields of ``span`` bits in each byte belong to words of the queries in turn. It is given the first words
    of the rows, and returns the place after the plane and the words there.
    """
    mask = ((1 << span) - 1) * 0x01010101
    count = 16 // parts

    @cuda.jit(device=True, inline=True)
    def add_plane(words, row, place, end, x, y, first, staged, sums_x, sums_y):
        for w in range(count):
            place = min(place + 1, end)
            next_x, next_y = words[place, row], words[place, row + THREADS]
            for part in range(parts):
                a = ((x >> int32(span * part)) & int32(mask)) << int32(shift)
                b = ((y >> int32(span * part)) & int32(mask)) << int32(shift)
                for q in range(queries):
                    word = staged[first + w + part * count, q]
                    sums_x[q] = add_quads(word, a, sums_x[q])
                    sums_y[q] = add_quads(word, b, sums_y[q])
            x, y = next_x, next_y
        return place, x, y

    return add_plane


def planes_kernel(factors: int, bits: int, queries: int):
    """As :func:`bytes_kernel`, of fewer bits: planes of nibbles, crumbs and single bits of 64 dimensions each."""
    stage, finish = _staging(queries), _finishing(factors, queries)
    nibbles, crumbs = _planing(4, 2, 0, queries), _planing(2, 4, bits & 4, queries)
    singles = _planing(1, 8, bits & 6, queries)

    @cuda.jit
    def scan_planes(words, first, last, prepared, parameters, allow, bars, counts, keys):
        staged = cuda.shared.array((STAGED, queries), int32)
        sums_x = cuda.local.array(queries, int32)
        sums_y = cuda.local.array(queries, int32)
        row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * queries
        for q in range(queries):
            sums_x[q] = 0
            sums_y[q] = 0
        width, end = prepared.shape[1], words.shape[0] - 1
        place = factors
        x, y = words[place, row], words[place, row + THREADS]
        for start in range(0, width, STAGED):
            cuda.syncthreads()
            stage(prepared, i, start, staged)
            cuda.syncthreads()
            for j in range(0, min(STAGED, width - start), 16):
                if bits & 4:
                    place, x, y = nibbles(words, row, place, end, x, y, j, staged, sums_x, sums_y)
                if bits & 2:
                    place, x, y = crumbs(words, row, place, end, x, y, j, staged, sums_x, sums_y)
                if bits & 1:
                    place, x, y = singles(words, row, place, end, x, y, j, staged, sums_x, sums_y)
        finish(sums_x, sums_y, words, row, last, parameters, i, allow, bars, counts, keys)

    return scan_planes


def _opening(kind: int):
    """The function that gives the one or two numbers of a word: of float32, float16 or bfloat16 (kind 1, 2, 3)."""

    @cuda.jit(device=True, inline=True)
    def value(word, part):
        if kind == 1:
            return float_of(word)
        if kind == 2:
            return low_half(word) if part == 0 else high_half(word)
        return float_of(word << int32(16)) if part == 0 else float_of(word & int32(-65536))

    return value


def floats_kernel(kind: int, metric: int, queries: int):
    """As :func:`bytes_kernel`, of rows of floats, for dot (metric 0) and l2 (2)."""
    stage, finish, value = _staging(queries), _finishing(0, queries), _opening(kind)
    halves = 1 if kind == 1 else 2

    @cuda.jit
    def scan_floats(words, first, last, prepared, parameters, allow, bars, counts, keys):
        staged = cuda.shared.array((STAGED, queries), int32)
        sums_x = cuda.local.array(queries, float32)
        sums_y = cuda.local.array(queries, float32)
        row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * queries
        for q in range(queries):
            sums_x[q] = 0
            sums_y[q] = 0
        width, place, end = prepared.shape[1], 0, words.shape[0] - 1
        x, y = words[0, row], words[0, row + THREADS]
        for start in range(0, width, STAGED):
            cuda.syncthreads()
            stage(prepared, i, start, staged)
            cuda.syncthreads()
            for j in range(0, min(STAGED, width - start), halves):
                place = min(place + 1, end)
                next_x, next_y = words[place, row], words[place, row + THREADS]
                for part in range(halves):
                    a, b = value(x, part), value(y, part)
                    for q in range(queries):
                        # Past an odd width the query is 0; a row of l2 is, too, being filled with zeros.
                        w = float_of(staged[j + part, q])
                        if metric == 2:
                            sums_x[q] -= (w - a) * (w - a)
                            sums_y[q] -= (w - b) * (w - b)
                        else:
                            sums_x[q] += w * a
                            sums_y[q] += w * b
                x, y = next_x, next_y
        finish(sums_x, sums_y, words, row, last, parameters, i, allow, bars, counts, keys)

    return scan_floats


def keep_best_kernel(capacity: int, threads: int):
    """The kernel that sorts the candidates of each query, of which there is room for ``capacity``, a power of two."""

    @cuda.jit
    def keep_best(bars, counts, keys, best):
        """Keep the best keys of each query, as many as ``best`` has columns, and raise its bar to the last of them.

        A block for each query. The last of ``counts``, of one more than there are queries, is set where there were
        more candidates than room.
        """
        held = cuda.shared.array(capacity, uint64)
        i, thread, k = cuda.blockIdx.x, cuda.threadIdx.x, best.shape[1]
        n = min(int64(counts[i]), int64(capacity))
        size = 2
        while size < n:
            size *= 2
        for j in range(thread, size, threads):
            held[j] = keys[i, j] if j < n else uint64(0)
        cuda.syncthreads()
        length = 2
        while length <= size:
            step = length // 2
            while step > 0:
                for j in range(thread, size // 2, threads):
                    low = 2 * step * (j // step) + j % step
                    high = low + step
                    a, b = held[low], held[high]
                    if (a < b) == ((low & length) == 0):
                        held[low], held[high] = b, a
                cuda.syncthreads()
                step //= 2
            length *= 2
        for j in range(thread, min(k, n), threads):
            keys[i, j] = held[j]
            best[i, j] = held[j]
        if thread == 0:
            if counts[i] > capacity:
                counts[cuda.gridDim.x] = 1
            counts[i] = min(k, n)
            if n >= k:
                bars[i] = max(bars[i], held[k - 1])

    return keep_best
