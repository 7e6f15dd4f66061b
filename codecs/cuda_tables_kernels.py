"""Rows of 8-bit codes scored by tables of each query on an NVIDIA device, and the best of them.

Rows are columns of 4-byte words, (words, rows), as :mod:`gingham.codecs.cuda_kernels` has them: first a float32 that is
added to the score, where codecs have one, then four codes a word. A block scores a span of rows for one query, several
rows a thread, whose sums stay in registers while tables pass through shared memory; it keeps the best as in
:mod:`gingham.codecs.cuda_select_kernels`.

Tables of float32 are summed from the first code to the last, then what the row adds, then the bias: so scores have the
bits of :mod:`gingham.codecs.table_kernels`. Tables of uint8 take a quarter of the room: their sums are exact integers
of rounded entries, for candidates.

Roofline: 32 threads that look up 256 float32 at random hit the busiest of 32 banks 3.5 times, so a multiprocessor looks
up 9 entries a cycle. 1M rows of 48 bytes: an A100 (108 multiprocessors, 1.41 GHz, 1.56 TB/s) reads them in 31 us and
looks up for 35 us a query; an H100 (132, 1.7 GHz, 3.35 TB/s) in 14 us and for 24 us. Looking up bounds always; queries
of a batch that scan the same span read its rows from the second-level cache.
"""

from numba import cuda, float32, int32, int64, uint8, uint64

from gingham.codecs.cuda_intrinsics import add, barrier_any, float_of, multiply
from gingham.codecs.cuda_kernels import key_of
from gingham.codecs.cuda_select_kernels import selection

ENTRIES = 1024
"""Of the tables of the four codes of a word."""


def tables_kernel(small: bool, staged: int, rows: int, capacity: int, threads: int):
    """The kernel for float32 tables, or small ones of uint8; grid (n_queries, spans of rows).

    Parameters
    ----------
    staged : words whose tables lie in shared memory at once, 4 KiB each of float32 and 1 KiB of uint8
    rows : of a thread, at most 31

    Notes
    -----
    ``scan_tables(words, header, n, tables, scales, allow, span, keys)`` writes the best keys of each query in each span
    of rows. words int32 (header + width, rows padded to whole blocks); tables (n_queries, width, 1024); scales float32
    (n_queries, 2), the factor of sums of small tables, and the bias; allow uint8 (n,), or (0,) for all; span a multiple
    of the rows of a block; keys uint64 (n_queries, spans, k), 0 where there are fewer.
    """
    clear, offer, cut = selection(1, capacity, threads)
    entry, total = (uint8, int32) if small else (float32, float32)

    @cuda.jit(device=True, inline=True)
    def summed(sum_, value):
        return sum_ + int32(value) if small else add(sum_, value)

    @cuda.jit
    def scan_tables(words, header, n, tables, scales, allow, span, keys):
        table = cuda.shared.array((staged, ENTRIES), entry)
        held = cuda.shared.array(capacity, uint64)
        bars = cuda.shared.array(1, uint64)
        counts = cuda.shared.array(1, int32)
        sums = cuda.local.array(rows, total)
        thread, i, part = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
        width, k = tables.shape[1], keys.shape[2]
        begin, end = part * span, min(n, part * span + span)
        clear(thread, bars, counts)
        for first in range(begin, end, rows * threads):
            row = first + thread
            for r in range(rows):
                sums[r] = 0
            for start in range(0, width, staged):
                if width > staged or first == begin:
                    cuda.syncthreads()
                    for place in range(thread, min(staged, width - start) * ENTRIES, threads):
                        table[place // ENTRIES, place % ENTRIES] = tables[i, start + place // ENTRIES, place % ENTRIES]
                    cuda.syncthreads()
                for w in range(min(staged, width - start)):
                    for r in range(rows):
                        x = words[header + start + w, row + r * threads]
                        for part_of in range(4):
                            code = int64((x >> int32(8 * part_of)) & int32(255)) + 256 * part_of
                            sums[r] = summed(sums[r], table[w, code])
            pending = 0
            for r in range(rows):
                at = row + r * threads
                if at < end and (allow.shape[0] == 0 or allow[at] != 0):
                    pending |= 1 << r
            while True:
                for r in range(rows):
                    if pending & (1 << r):
                        at = row + r * threads
                        score = multiply(scales[i, 0], float32(sums[r])) if small else sums[r]
                        if header == 1:
                            score = add(score, float_of(words[0, at]))
                        if not offer(key_of(add(score, scales[i, 1]), at), 0, held, bars, counts):
                            pending &= ~(1 << r)
                if barrier_any(int32(pending)) == 0:
                    break
                cut(thread, k, held, bars, counts)
        cut(thread, k, held, bars, counts)
        for j in range(thread, k, threads):
            keys[i, part, j] = held[j] if j < counts[0] else uint64(0)

    return scan_tables
