"""The best keys of each query, chosen by the threads of a block while they scan rows; kernels of other files share it.

A block has room for ``capacity`` keys of each query in shared memory, a count and a bar. A key above the bar is put in
the next place; where none is left it stays with its thread until the block has sorted the keys, kept the best and
raised the bar to the last of them. So the best are found whatever the order of the rows, in one pass.

Keys are those of :func:`gingham.codecs.cuda_kernels.key_of`: greater is better, and 0 is no key.

Roofline: of n rows in random order about ``k (1 + log(n / k))`` are put in a place, so that a block sorts a few times
only: 45 barriers for 512 keys. In the worst order it sorts once for every ``capacity - k`` rows.
"""

from numba import cuda, int32, int64, uint64

from gingham.codecs.cuda_intrinsics import barrier, next_place


def selection(queries: int, capacity: int, threads: int):
    """Functions that a block calls: ``clear`` before it offers, ``offer``, and ``cut``, which sorts and keeps the best.

    Parameters
    ----------
    queries : of a block
    capacity : keys of a query that there is room for, a power of two above k
    threads : of a block
    """

    @cuda.jit(device=True, inline=True)
    def clear(thread, bars, counts):
        for q in range(thread, queries, threads):
            bars[q] = uint64(0)
            counts[q] = 0
        barrier()

    @cuda.jit(device=True, inline=True)
    def offer(key, q, held, bars, counts):
        """Whether the key found no place and is to be offered again after a cut."""
        if key <= bars[q]:
            return False
        place = next_place(counts, q)
        if place < capacity:
            held[q * capacity + place] = key
            return False
        return True

    @cuda.jit(device=True, inline=True)
    def cut(thread, k, held, bars, counts):
        """Sort the keys of each query, descending, and keep k; as many as ``counts`` says are there then."""
        barrier()
        most, bits = 2, 1
        for q in range(queries):
            most = max(most, min(int64(counts[q]), capacity))
        # A power of two that is known only here, so that compilers do not unroll the loops.
        while (1 << bits) < most:
            bits += 1
        for j in range(thread, queries << bits, threads):
            q, place = j >> bits, j & ((1 << bits) - 1)
            if place >= counts[q]:
                held[q * capacity + place] = uint64(0)
        barrier()
        for length in range(1, bits + 1):
            for step in range(length - 1, -1, -1):
                for j in range(thread, queries << (bits - 1), threads):
                    q, place = j >> (bits - 1), j & ((1 << (bits - 1)) - 1)
                    place = 2 * place - (place & ((1 << step) - 1))
                    low = q * capacity + place
                    a, b = held[low], held[low + (1 << step)]
                    if (a < b) == ((place >> length) & 1 == 0):
                        held[low] = b
                        held[low + (1 << step)] = a
                barrier()
        for q in range(thread, queries, threads):
            if counts[q] >= k:
                counts[q] = k
                bars[q] = held[q * capacity + k - 1]
        barrier()

    return clear, offer, cut


def merge_kernel(capacity: int, threads: int):
    """The kernel that keeps the best keys of each query, of those that several blocks have found; a block a query."""
    clear, offer, cut = selection(1, capacity, threads)

    @cuda.jit
    def merge_keys(keys, best):
        """The greatest of keys (n_queries, any), as many as best (n_queries, k) has columns, descending."""
        held = cuda.shared.array(capacity, uint64)
        bars = cuda.shared.array(1, uint64)
        counts = cuda.shared.array(1, int32)
        thread, i, width, k = cuda.threadIdx.x, cuda.blockIdx.x, keys.shape[1], best.shape[1]
        clear(thread, bars, counts)
        for first in range(0, width, threads):
            pending = first + thread < width
            while True:
                if pending:
                    pending = offer(keys[i, first + thread], 0, held, bars, counts)
                if cuda.syncthreads_or(int32(pending)) == 0:
                    break
                cut(thread, k, held, bars, counts)
        cut(thread, k, held, bars, counts)
        for j in range(thread, k, threads):
            best[i, j] = held[j] if j < counts[0] else uint64(0)

    return merge_keys
