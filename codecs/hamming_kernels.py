"""Hamming distances of sign codes. Addresses are raw: the caller has checked shapes, types and contiguity.

A code is a number of 64-bit words. The score of a row is ``levels[i, h]`` for query i and h bits that differ; levels do
not rise with h, so a row enters a heap where h is below a limit.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import (
    count_ones,
    inline,
    kernel,
    load_one_u8,
    load_one_u64,
    lowest_bit,
    prefetch,
)
from gingham.codecs.topk_kernels import sift
from gingham.codecs.wide_intrinsics import (
    add_long_halves,
    add_longs,
    add_neighbours,
    count_differences,
    less_longs,
    load_longs,
    mask_longs,
    splat_longs,
    store_longs,
    zero_longs,
)

_AHEAD = 8192
"""Bytes ahead of the scan of one query that are asked for: hardware stops at the end of a page."""


@inline
def _distance(x, q, words):
    total = int64(0)
    for j in range(words):
        o = uint64(8 * j)
        total += count_ones(load_one_u64(x + o) ^ load_one_u64(q + o))
    return total


@inline
def _four_distances(x, stride, q, words, keep):
    """Distances of four rows. Words beyond a row are read where it has no multiple of four; ``keep`` drops them."""
    a, b, c, d = zero_longs(), zero_longs(), zero_longs(), zero_longs()
    second, third, fourth = x + stride, x + stride + stride, x + stride + stride + stride
    whole = words & ~3
    for j in range(0, whole, 4):
        o = uint64(8 * j)
        query = load_longs(q + o)
        a = add_longs(a, count_differences(load_longs(x + o), query))
        b = add_longs(b, count_differences(load_longs(second + o), query))
        c = add_longs(c, count_differences(load_longs(third + o), query))
        d = add_longs(d, count_differences(load_longs(fourth + o), query))
    if whole < words:
        o = uint64(8 * whole)
        kept = load_longs(keep)
        query = mask_longs(load_longs(q + o), kept)
        a = add_longs(a, count_differences(mask_longs(load_longs(x + o), kept), query))
        b = add_longs(b, count_differences(mask_longs(load_longs(second + o), kept), query))
        c = add_longs(c, count_differences(mask_longs(load_longs(third + o), kept), query))
        d = add_longs(d, count_differences(mask_longs(load_longs(fourth + o), kept), query))
    return add_long_halves(add_neighbours(a, b), add_neighbours(c, d))


@kernel("int64(float32[:,::1], int64, float32)")
def _limit(levels, i, root):
    """The number of distances that score above a root."""
    low, high = int64(0), int64(levels.shape[1])
    while low < high:
        middle = (low + high) >> 1
        if levels[i, middle] > root:
            low = middle + 1
        else:
            high = middle
    return low


@kernel("int64(int64, int64, int64, float32[:,::1], float32[:,::1], int64[:,::1])")
def _enter(h, row, i, levels, scores, rows):
    """Put a row in place of the root of heap i and return the new limit."""
    scores[i, 0] = levels[i, h]
    rows[i, 0] = row
    sift(scores, rows, i, int64(scores.shape[1]))
    return _limit(levels, i, scores[i, 0])


@kernel("void(uint64, int64, int64, int64, int64, uint64, float32[:,::1], uint64, float32[:,::1], int64[:,::1])")
def scan_signs(codes, words, start, stop, tile, queries, levels, allow, scores, rows):
    """Offer rows start to stop to the heaps of all queries, ``tile`` rows at a time; ``allow`` 0 allows all.

    ``tile`` is a multiple of four; queries have three words more than they need.
    """
    stride = uint64(8 * words)
    scratch = np.zeros(8, np.uint64)
    keep, room = uint64(scratch.ctypes.data), uint64(scratch.ctypes.data) + uint64(32)
    for j in range(words & 3):
        scratch[j] = uint64(0xFFFFFFFFFFFFFFFF)
    # Four rows are read together where three words more belong to other rows of this call.
    fours = stop - 3
    for low in range(start, stop, tile):
        high = min(low + tile, stop)
        for i in range(scores.shape[0]):
            q = queries + uint64(i) * stride
            limit = _limit(levels, i, scores[i, 0])
            limits = splat_longs(limit)
            row = low
            while row + 4 <= min(high, fours):
                x = codes + uint64(row) * stride
                if scores.shape[0] == 1 and words >= 8:
                    for o in range(0, 32 * words, 64):
                        prefetch(x + uint64(_AHEAD + o))
                near = _four_distances(x, stride, q, words, keep)
                mask = less_longs(near, limits)
                if mask != 0:
                    store_longs(room, near)
                    while mask != 0:
                        lane = lowest_bit(mask)
                        mask = uint32(mask & (mask - uint32(1)))
                        h = int64(scratch[4 + lane])
                        if h < limit and (allow == 0 or load_one_u8(allow + uint64(row + lane)) != 0):
                            limit = _enter(h, row + lane, i, levels, scores, rows)
                    limits = splat_longs(limit)
                row += 4
            while row < high:
                if allow == 0 or load_one_u8(allow + uint64(row)) != 0:
                    h = _distance(codes + uint64(row) * stride, q, words)
                    if h < limit:
                        limit = _enter(h, row, i, levels, scores, rows)
                row += 1


@kernel("void(uint64, int64, uint64, float32[:,::1], int64[:,::1], float32[:,::1])")
def score_signs(codes, words, queries, levels, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    stride = uint64(8 * words)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            if rows[i, j] < 0:
                out[i, j] = float32(-np.inf)
            else:
                row = codes + uint64(rows[i, j]) * stride
                out[i, j] = levels[i, _distance(row, queries + uint64(i) * stride, words)]
