"""Kernels for NVIDIA devices: scan packed rows for many queries at once, and keep the best rows of each.

Rows are those of :mod:`gingham.codecs.affine_row_kernels`, as words of 4 bytes, (words, rows): so 32 threads that
score 32 rows read 32 words in line. Queries are the integers prepared for the CPU, 4 bytes at a time.

A candidate is a key of 64 bits, greater for what is better: the bits of its score, in an order that integers have too,
over the complement of its row. Keys are unique, so the best are the same whatever order threads run in.

Roofline: a pass of :data:`QUERIES` queries reads the codes once and adds two words of a row to each query with one
instruction each (8 bits) or one (4 bits), at 64 a cycle and multiprocessor. On a device of 132 multiprocessors at
1.7 GHz and 3 TB/s, 1M rows of 384 bytes take 128 us to read, and 13 us a query to add: from 10 queries on, adding
is what bounds.
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
QUERIES = 16
"""Queries of a block, whose sums for two rows stay in 32 registers."""
STAGED = 64
"""Words of each query that lie in shared memory at once: 4 KiB of all."""
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


@cuda.jit(device=True, inline=True)
def _stage(queries, i, start, width, staged):
    """Copy words of the queries from i on into shared memory, zeros where there are none."""
    for place in range(cuda.threadIdx.x, STAGED * QUERIES, THREADS):
        word, query = start + place // QUERIES, i + place % QUERIES
        inside = word < width and query < queries.shape[0]
        staged[place // QUERIES, place % QUERIES] = queries[query, word] if inside else int32(0)


@cuda.jit(device=True, inline=True)
def _add_plane(x, y, span, parts, mask, shift, word, staged, sums_x, sums_y):
    """Add one word of a plane of two rows: ``parts`` fields of each byte, which belong to words of queries in turn."""
    for part in range(parts):
        a = ((x >> int32(span * part)) & int32(mask)) << int32(shift)
        b = ((y >> int32(span * part)) & int32(mask)) << int32(shift)
        for q in range(QUERIES):
            w = staged[word + part * (16 // parts), q]
            sums_x[q] = add_quads(w, a, sums_x[q])
            sums_y[q] = add_quads(w, b, sums_y[q])


@cuda.jit(device=True, inline=True)
def _finish(sums_x, sums_y, words, row, last, factors, parameters, i, allow, bars, counts, keys):
    """Score two rows for all queries of the block, and offer them."""
    for side in range(2):
        x = row + side * THREADS
        if x < last and (allow.shape[0] == 0 or allow[x] != 0):
            for q in range(QUERIES):
                if i + q < parameters.shape[0]:
                    s = sums_x[q] if side == 0 else sums_y[q]
                    _offer(key_of(_score(s, words, x, factors, parameters, i + q), x), i + q, bars, counts, keys)


@cuda.jit
def scan_bytes(words, factors, first, last, queries, parameters, allow, bars, counts, keys):
    """Offer rows first to last of 8 bits to all queries; grid (rows / ROWS, queries / QUERIES)."""
    staged = cuda.shared.array((STAGED, QUERIES), int32)
    sums_x = cuda.local.array(QUERIES, int32)
    sums_y = cuda.local.array(QUERIES, int32)
    row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * QUERIES
    for q in range(QUERIES):
        sums_x[q] = 0
        sums_y[q] = 0
    width = queries.shape[1]
    for start in range(0, width, STAGED):
        cuda.syncthreads()
        _stage(queries, i, start, width, staged)
        cuda.syncthreads()
        for j in range(0, min(STAGED, width - start), 2):
            place = factors + (start + j) // 2
            x, y = words[place, row], words[place, row + THREADS]
            for q in range(QUERIES):
                low, high = staged[j, q], staged[j + 1, q]
                sums_x[q] = add_pairs_high(high, x, add_pairs_low(low, x, sums_x[q]))
                sums_y[q] = add_pairs_high(high, y, add_pairs_low(low, y, sums_y[q]))
    _finish(sums_x, sums_y, words, row, last, factors, parameters, i, allow, bars, counts, keys)


@cuda.jit
def scan_planes(words, factors, bits, first, last, queries, parameters, allow, bars, counts, keys):
    """As :func:`scan_bytes`, of fewer bits: planes of nibbles, crumbs and single bits of 64 dimensions each."""
    staged = cuda.shared.array((STAGED, QUERIES), int32)
    sums_x = cuda.local.array(QUERIES, int32)
    sums_y = cuda.local.array(QUERIES, int32)
    row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * QUERIES
    for q in range(QUERIES):
        sums_x[q] = 0
        sums_y[q] = 0
    width, place = queries.shape[1], factors
    for start in range(0, width, STAGED):
        cuda.syncthreads()
        _stage(queries, i, start, width, staged)
        cuda.syncthreads()
        for j in range(0, min(STAGED, width - start), 16):
            shift = 0
            if bits & 4:
                for w in range(8):
                    x, y = words[place, row], words[place, row + THREADS]
                    _add_plane(x, y, 4, 2, 0x0F0F0F0F, 0, j + w, staged, sums_x, sums_y)
                    place += 1
                shift = 4
            if bits & 2:
                for w in range(4):
                    x, y = words[place, row], words[place, row + THREADS]
                    _add_plane(x, y, 2, 4, 0x03030303, shift, j + w, staged, sums_x, sums_y)
                    place += 1
                shift += 2
            if bits & 1:
                for w in range(2):
                    x, y = words[place, row], words[place, row + THREADS]
                    _add_plane(x, y, 1, 8, 0x01010101, shift, j + w, staged, sums_x, sums_y)
                    place += 1
    _finish(sums_x, sums_y, words, row, last, factors, parameters, i, allow, bars, counts, keys)


@cuda.jit(device=True, inline=True)
def _value(kind, words, place, part, row):
    """A number of a row of floats: float32, or half a word of float16 or bfloat16."""
    word = words[place, row]
    if kind == 1:
        return float_of(word)
    if kind == 2:
        return low_half(word) if part == 0 else high_half(word)
    return float_of(word << int32(16)) if part == 0 else float_of(word & int32(-65536))


@cuda.jit
def scan_floats(words, kind, metric, first, last, queries, parameters, allow, bars, counts, keys):
    """As :func:`scan_bytes`, of rows of float32, float16 and bfloat16 (kind 1, 2, 3), for dot (metric 0) and l2 (2)."""
    staged = cuda.shared.array((STAGED, QUERIES), int32)
    sums_x = cuda.local.array(QUERIES, float32)
    sums_y = cuda.local.array(QUERIES, float32)
    row, i = first + cuda.blockIdx.x * ROWS + cuda.threadIdx.x, cuda.blockIdx.y * QUERIES
    for q in range(QUERIES):
        sums_x[q] = 0
        sums_y[q] = 0
    width, halves = queries.shape[1], 1 if kind == 1 else 2
    for start in range(0, width, STAGED):
        cuda.syncthreads()
        _stage(queries, i, start, width, staged)
        cuda.syncthreads()
        for j in range(min(STAGED, width - start)):
            place, part = (start + j) // halves, (start + j) % halves
            x, y = _value(kind, words, place, part, row), _value(kind, words, place, part, row + THREADS)
            for q in range(QUERIES):
                w = float_of(staged[j, q])
                if metric == 2:
                    sums_x[q] -= (w - x) * (w - x)
                    sums_y[q] -= (w - y) * (w - y)
                else:
                    sums_x[q] += w * x
                    sums_y[q] += w * y
    for side in range(2):
        x = row + side * THREADS
        if x < last and (allow.shape[0] == 0 or allow[x] != 0):
            for q in range(QUERIES):
                if i + q < parameters.shape[0]:
                    s = sums_x[q] if side == 0 else sums_y[q]
                    _offer(key_of(s + parameters[i + q, 0], x), i + q, bars, counts, keys)


def keep_best_kernel(capacity: int, threads: int):  # type: ignore[no-untyped-def]
    """The kernel that sorts the candidates of each query, of which there is room for ``capacity``, a power of two."""

    @cuda.jit
    def keep_best(k, bars, counts, keys, overflowed):
        """Keep the k best keys of each query, best first, and raise its bar to the k-th; a block for each query."""
        held = cuda.shared.array(capacity, uint64)
        i, thread = cuda.blockIdx.x, cuda.threadIdx.x
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
        for j in range(thread, min(int64(k), n), threads):
            keys[i, j] = held[j]
        if thread == 0:
            if counts[i] > capacity:
                overflowed[0] = 1
            counts[i] = min(int64(k), n)
            if n >= k:
                bars[i] = max(bars[i], held[k - 1])

    return keep_best
