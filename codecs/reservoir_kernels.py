"""Lines of rows from which the best are chosen when they are full.

Source: Hoare, "Algorithm 65: find", CACM 4(7), 1961, with the median of three as pivot (Singleton, CACM 12(3), 1969).
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import inline, kernel, load_one_f32, lowest_bit


@inline
def _before(s, r, t, p):
    return s > t or (s == t and r < p)


@inline
def _swap(scores, rows, i, a, b):
    s, r = scores[i, a], rows[i, a]
    scores[i, a], rows[i, a] = scores[i, b], rows[i, b]
    scores[i, b], rows[i, b] = s, r


@kernel("void(float32[:,::1], int64[:,::1], int64, int64, int64)")
def _choose(scores, rows, i, n, k):
    """Move the k best of the first n entries of line i to its front, the worst of them to place k - 1; k below n.

    Ties go to the lower row.
    """
    low, high, at = int64(0), n - 1, k - 1
    while high > low:
        middle = (low + high) >> 1
        if _before(scores[i, middle], rows[i, middle], scores[i, low], rows[i, low]):
            _swap(scores, rows, i, low, middle)
        if _before(scores[i, high], rows[i, high], scores[i, low], rows[i, low]):
            _swap(scores, rows, i, low, high)
        if _before(scores[i, high], rows[i, high], scores[i, middle], rows[i, middle]):
            _swap(scores, rows, i, middle, high)
        s, r = scores[i, middle], rows[i, middle]
        a, b = low, high
        while a <= b:
            while _before(scores[i, a], rows[i, a], s, r):
                a += 1
            while _before(s, r, scores[i, b], rows[i, b]):
                b -= 1
            if a <= b:
                _swap(scores, rows, i, a, b)
                a += 1
                b -= 1
        if at <= b:
            high = b
        elif at >= a:
            low = a
        else:
            break


@kernel("void(float32[:,::1], int64[:,::1], int64[::1], float32[::1], int64, int64)")
def make_room(scores, rows, counts, floors, i, k):
    """Keep the k best of line i and raise its floor to the worst of them."""
    if counts[i] > k:
        _choose(scores, rows, i, counts[i], k)
        counts[i] = k
        floors[i] = scores[i, k - 1]


@inline
def gather(s, row, i, scores, rows, counts, floors, k):
    """Take one row to line i if it scores above the floor."""
    if s > floors[i]:
        count = counts[i]
        scores[i, count], rows[i, count] = s, row
        counts[i] = count + 1
        if count + 1 == scores.shape[1]:
            make_room(scores, rows, counts, floors, i, k)


@inline
def gather_some(block, mask, row, i, scores, rows, counts):
    """Take the rows of a mask to line i, which has room for 32; ``block`` is the address of their scores."""
    count = counts[i]
    while mask != 0:
        lane = lowest_bit(mask)
        mask = uint32(mask & (mask - uint32(1)))
        scores[i, count], rows[i, count] = load_one_f32(block + uint64(4 * lane)), row + lane
        count += 1
    counts[i] = count


@kernel("void(float32[:,::1], int64[:,::1], int64[::1], float32[:,::1], int64[:,::1])")
def take_best(scores, rows, counts, best_scores, best_rows):
    """The best rows of each line, as many as there are columns, in no order; (-inf, -1) pads."""
    k = best_scores.shape[1]
    for i in range(len(counts)):
        if counts[i] > k:
            _choose(scores, rows, i, counts[i], k)
        count = min(counts[i], k)
        for j in range(count):
            best_scores[i, j], best_rows[i, j] = scores[i, j], rows[i, j]
        for j in range(count, k):
            best_scores[i, j], best_rows[i, j] = float32(-np.inf), -1
