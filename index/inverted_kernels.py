"""Kernels of the inverted index. Addresses are raw: the caller has checked shapes, types and contiguity.

The score of a row is a float32 sum over the terms of the query in their order, whichever way the row was
found, so it has the same bits in every segment and under every filter.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import (
    count_bits,
    greater_mask,
    inline,
    kernel,
    load_f32,
    load_one_f32,
    load_one_u8,
    load_one_u32,
    lowest_bit,
    splat,
)
from gingham.codecs.topk_kernels import sift
from gingham.codecs.topk_kernels import sort_heaps as sort_heaps

WINDOW = 4096
"""Rows accumulated at once: 16 KiB of scores stay in the first-level cache."""
BLOCK = 128
"""Postings that share one bound."""
LEFT_OUT = 4
"""Terms are left out of a window where they have so many times the postings of the others."""
LOOKUP = 8
"""Looking a row up in one list costs about as much as adding so many postings (bench/text.py)."""
ROUNDING = np.float32(2.0**-23)
"""Relative error that one addition of float32 may leave, twice over."""
NO_ROW = 1 << 32


@inline
def _impact(values, lengths, base, slope, at, row):
    """What a posting adds to the score of its row, before the weight of the term."""
    value = load_one_f32(values + uint64(4 * at))
    if lengths != 0:
        return value / (value + (base + slope * load_one_f32(lengths + uint64(4 * row))))
    return value


@inline
def _first_at_least(rows, start, stop, row):
    """First posting from ``start`` on whose row is ``row`` or later: steps double, then halve."""
    if start >= stop or load_one_u32(rows + uint64(4 * start)) >= row:
        return start
    low, step = start, int64(1)
    while low + step < stop and load_one_u32(rows + uint64(4 * (low + step))) < row:
        low += step
        step *= 2
    high = min(low + step, stop)
    low += 1
    while low < high:
        middle = (low + high) // 2
        if load_one_u32(rows + uint64(4 * middle)) < row:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def _window_bound(bounds, first_block, first, start, stop):
    """Greatest bound of the blocks that hold postings ``start`` to ``stop`` of a term that begins at ``first``."""
    best = float32(0.0)
    for block in range((start - first) // BLOCK, (stop - 1 - first) // BLOCK + 1):
        bound = load_one_f32(bounds + uint64(4 * (first_block + block)))
        if bound > best:
            best = bound
    return best


@inline
def _enter_window(
    rows, bounds, term_starts, term_ends, term_blocks, weights, slack, first, terms, stop, starts, ends, bound
):
    """Where the postings of each term end in a window, and what they can give at most."""
    for t in range(terms):
        ends[t] = _first_at_least(rows, starts[t], term_ends[first + t], stop)
        bound[t] = float32(0.0)
        if ends[t] > starts[t]:
            top = _window_bound(bounds, term_blocks[first + t], term_starts[first + t], starts[t], ends[t])
            bound[t] = weights[first + t] * top * slack


@inline
def _score(rows, values, lengths, base, slope, starts, ends, weights, first, terms, row):
    """Score of one row: its postings are looked up in the window's part of each list."""
    s = float32(0.0)
    for t in range(terms):
        at = _first_at_least(rows, starts[t], ends[t], row)
        if at < ends[t] and load_one_u32(rows + uint64(4 * at)) == row:
            s += weights[first + t] * _impact(values, lengths, base, slope, at, row)
    return s


@inline
def _accumulate(rows, values, lengths, base, slope, start, end, weight, origin, sums):
    """Add what a term gives to the rows of a window."""
    for at in range(start, end):
        row = load_one_u32(rows + uint64(4 * at))
        sums[uint64(row) - origin] += weight * _impact(values, lengths, base, slope, at, row)


@inline
def _cut(limit, rest, terms):
    """What a row's sum must exceed to reach the heap with the help of the terms left out; rounding is allowed for."""
    return max(float32(0.0), limit - ROUNDING * float32(terms + 8) * abs(limit) - rest)


@inline
def _count_above(sums, cut):
    """How many of a window's sums are greater than ``cut``."""
    address = uint64(sums.ctypes.data)
    many = splat(cut)
    count = int64(0)
    for j in range(0, WINDOW, 8):
        count += count_bits(greater_mask(load_f32(address + uint64(4 * j)), many))
    return count


@inline
def _split_terms(bound, order, starts, ends, terms, limit, essential):
    """Mark the terms to accumulate in a window; returns the sum of the bounds of the others.

    The others, taken from the weakest up, cannot lift a row over ``limit`` together. They are worth leaving
    out where they have most of the postings.
    """
    rest = float32(0.0)
    left_out, kept = int64(0), int64(0)
    for i in range(terms):
        t = order[i]
        essential[t] = kept > 0 or rest + bound[t] > limit
        if essential[t]:
            kept += ends[t] - starts[t]
        else:
            rest += bound[t]
            left_out += ends[t] - starts[t]
    if kept > 0 and left_out < LEFT_OUT * kept:
        for t in range(terms):
            essential[t] = True
        rest = float32(0.0)
    return rest


@inline
def _sort_bounds(bound, order, terms):
    """Order the terms of a window by ascending bound."""
    for t in range(terms):
        i = t
        while i > 0 and bound[order[i - 1]] > bound[t]:
            order[i] = order[i - 1]
            i -= 1
        order[i] = t


@inline
def _offer(
    rows, values, lengths, base, slope, allow, starts, ends, weights, first, terms, origin, sums, rest, again, q,
    scores, found,
):  # fmt: skip
    """Offer the rows of a window to the heap; ``again`` scores them anew, since terms were left out of their sums."""
    address = uint64(sums.ctypes.data)
    many = splat(_cut(scores[q, 0], rest, terms))
    for j in range(0, WINDOW, 8):
        mask = greater_mask(load_f32(address + uint64(4 * j)), many)
        while mask != 0:
            lane = j + lowest_bit(mask)
            mask &= mask - uint32(1)
            row = int64(origin) + lane
            if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                continue
            s = sums[lane]
            if again:
                s = _score(rows, values, lengths, base, slope, starts, ends, weights, first, terms, row)
            if s > scores[q, 0]:
                scores[q, 0] = s
                found[q, 0] = row
                sift(scores, found, q, int64(scores.shape[1]))
                many = splat(_cut(scores[q, 0], rest, terms))


@kernel(
    "void(uint64, uint64, uint64, float32, float32, uint64, uint64, int64[::1], int64[::1], int64[::1], float32[::1],"
    " float32,"
    " int64[::1], float32[:,::1], int64[:,::1])"
)
def search_postings(
    rows, values, lengths, base, slope, bounds, allow, term_starts, term_ends, term_blocks, weights, slack,
    query_starts, scores, found,
):  # fmt: skip
    """Put the best rows of each query into its heap.

    MaxScore (Turtle and Flood 1995, Information Processing & Management 31(6)) in windows of rows, with the
    bounds of blocks (Ding and Suel 2011, SIGIR). Terms left out of a window are looked up for the few rows
    that could reach the heap with their help, or accumulated after all where these rows are many.

    ``slack`` is at least 1: it covers rounding, and an average length that grew since the bounds were made.
    """
    most = int64(1)
    for q in range(scores.shape[0]):
        most = max(most, query_starts[q + 1] - query_starts[q])
    starts, ends, order = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    bound, essential = np.empty(most, np.float32), np.empty(most, np.bool_)
    sums = np.zeros(WINDOW, np.float32)
    for q in range(scores.shape[0]):
        first = query_starts[q]
        terms = query_starts[q + 1] - first
        for t in range(terms):
            starts[t] = term_starts[first + t]
        while True:
            lowest = int64(NO_ROW)
            for t in range(terms):
                if starts[t] < term_ends[first + t]:
                    lowest = min(lowest, int64(load_one_u32(rows + uint64(4 * starts[t]))))
            if lowest == NO_ROW:
                break
            origin = uint64(lowest // WINDOW * WINDOW)
            limit = scores[q, 0]
            _enter_window(
                rows, bounds, term_starts, term_ends, term_blocks, weights, slack, first, terms,
                int64(origin) + WINDOW, starts, ends, bound,
            )  # fmt: skip
            _sort_bounds(bound, order, terms)
            rest = _split_terms(bound, order, starts, ends, terms, limit, essential)
            some, left_out = False, int64(0)
            for t in range(terms):
                if ends[t] > starts[t]:
                    if essential[t]:
                        some = True
                        _accumulate(
                            rows, values, lengths, base, slope, starts[t], ends[t], weights[first + t], origin, sums
                        )
                    else:
                        left_out += ends[t] - starts[t]
            if some:
                again = rest > 0
                if again and LOOKUP * terms * _count_above(sums, _cut(limit, rest, terms)) > left_out:
                    for t in range(terms):
                        if not essential[t]:
                            _accumulate(
                                rows, values, lengths, base, slope, starts[t], ends[t], weights[first + t], origin, sums
                            )
                    rest = float32(0.0)
                _offer(
                    rows, values, lengths, base, slope, allow, starts, ends, weights, first, terms, origin, sums,
                    rest, again, q, scores, found,
                )  # fmt: skip
                sums[:] = 0
            for t in range(terms):
                starts[t] = ends[t]
