"""Which rows of lists queries scan, and which rows were found."""

import numpy as np
from numba import int32, int64, uint64

from gingham.codecs.intrinsics import inline, kernel, load_one_u32


@inline
def _put(spans, at, query, start, size):
    spans[at, 0], spans[at, 1], spans[at, 2] = query, start, start + size
    return size


@kernel("int64(int64[:,::1], int64[::1], int64[::1], int64[:,::1])")
def order_spans(probes, starts, sizes, spans):
    """What queries scan that probe these lists (n, nprobe), -1 for none: spans (n * nprobe, 3), query, start, stop.

    In the order of lists, so that queries that share one follow each other and find it in the cache; empty spans fill
    the end. Returns the rows of all.
    """
    n, nprobe = probes.shape
    total = int64(0)
    if n == 1:
        lists = np.sort(probes[0])
        for j in range(nprobe):
            if lists[j] < 0:
                spans[j, 0], spans[j, 1], spans[j, 2] = 0, 0, 0
            else:
                total += _put(spans, j, 0, starts[lists[j]], sizes[lists[j]])
        return total
    ends = np.zeros(len(starts) + 2, np.int64)
    for i in range(n):
        for j in range(nprobe):
            number = probes[i, j] if probes[i, j] >= 0 else len(starts)
            ends[number + 1] += 1
    for number in range(len(starts) + 1):
        ends[number + 1] += ends[number]
    for i in range(n):
        for j in range(nprobe):
            number = probes[i, j]
            if number >= 0:
                total += _put(spans, ends[number], i, starts[number], sizes[number])
                ends[number] += 1
            else:
                _put(spans, ends[len(starts)], i, 0, 0)
                ends[len(starts)] += 1
    return total


@kernel("void(int64[:,::1], uint64, int64[:,::1])")
def rows_at(places, rows, out):
    """The rows int32 that lie in some places, -1 for none."""
    for i in range(places.shape[0]):
        for j in range(places.shape[1]):
            out[i, j] = int32(load_one_u32(rows + uint64(4 * places[i, j]))) if places[i, j] >= 0 else -1
