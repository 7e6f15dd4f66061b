"""The nearest sign codes of many queries on an NVIDIA device, by the bits that differ.

Rows are columns of 64-bit words, (words, rows), so that 32 threads read 32 words in line. A block scores a tile of
queries against a span of rows, a row a thread, and keeps the best of each query as in
:mod:`gingham.codecs.cuda_select_kernels`.

Roofline: counting the bits of 64 takes two instructions of which a multiprocessor does 16 a cycle, so it compares 8
words a cycle. 1M rows of 96 bytes, 12 words: an A100 (108 multiprocessors, 1.41 GHz, 1.56 TB/s) reads them in 62 us and
counts for 9.9 us a query; an H100 (132, 1.7 GHz, 3.35 TB/s) in 29 us and for 6.7 us. Tiles of 8 queries read rows once
for 79 and 54 us of counting: counting bounds from a tile on, reading below it.
"""

from numba import cuda, int32, int64, uint64

from gingham.codecs.cuda_intrinsics import barrier_any
from gingham.codecs.cuda_select_kernels import selection

STAGED = 32
"""Words of each query that lie in shared memory at once: codes of up to 2,048 bits are copied there only once."""
ONES = 0xFFFFFFFF


@cuda.jit(device=True, inline=True)
def distance_key(distance, row):
    """A key that is greater for a smaller distance, then for a smaller row."""
    return (uint64(int64(ONES) - int64(distance)) << uint64(32)) | uint64(int64(ONES) - int64(row))


def signs_kernel(queries: int, capacity: int, threads: int):
    """The kernel for tiles of queries; grid (spans of rows, tiles)."""
    (clear, offer, cut), room = selection(queries, capacity, threads), queries * capacity

    @cuda.jit
    def scan_signs(columns, n, prepared, allow, span, keys):
        """Write the best keys of each query in each span of rows.

        columns uint64 (words, at least n); prepared uint64 (n_queries, words); allow uint8 (n,), or (0,) for all;
        keys uint64 (n_queries, spans, k), 0 where there are fewer
        """
        staged = cuda.shared.array((STAGED, queries), uint64)
        held = cuda.shared.array(room, uint64)
        bars = cuda.shared.array(queries, uint64)
        counts = cuda.shared.array(queries, int32)
        apart = cuda.local.array(queries, int32)
        thread, part, i = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y * queries
        n_queries, words, k = prepared.shape[0], prepared.shape[1], keys.shape[2]
        begin, end = part * span, min(n, part * span + span)
        clear(thread, bars, counts)
        for first in range(begin, end, threads):
            row = min(first + thread, end - 1)
            for q in range(queries):
                apart[q] = 0
            for start in range(0, words, STAGED):
                if words > STAGED or first == begin:
                    cuda.syncthreads()
                    for place in range(thread, STAGED * queries, threads):
                        w, query = start + place // queries, i + place % queries
                        inside = w < words and query < n_queries
                        staged[place // queries, place % queries] = prepared[query, w] if inside else uint64(0)
                    cuda.syncthreads()
                for w in range(min(STAGED, words - start)):
                    x = columns[start + w, row]
                    for q in range(queries):
                        apart[q] += int32(cuda.popc(x ^ staged[w, q]))
            pending = 0
            if first + thread < end and (allow.shape[0] == 0 or allow[row] != 0):
                pending = (1 << min(queries, n_queries - i)) - 1
            while True:
                for q in range(queries):
                    if pending & (1 << q) and not offer(distance_key(apart[q], row), q, held, bars, counts):
                        pending &= ~(1 << q)
                if barrier_any(int32(pending)) == 0:
                    break
                cut(thread, k, held, bars, counts)
        cut(thread, k, held, bars, counts)
        for q in range(min(queries, n_queries - i)):
            for j in range(thread, k, threads):
                keys[i + q, part, j] = held[q * capacity + j] if j < counts[q] else uint64(0)

    return scan_signs
