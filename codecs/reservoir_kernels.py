"""Lines of rows from which the best are chosen when they are full.

Source: Hoare, "Algorithm 65: find", CACM 4(7), 1961, with the median of three as pivot (Singleton, CACM 12(3), 1969).
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import inline, kernel, load_one_f32, lowest_bit

_STEPS = 256
_MASK = _STEPS - 1
_ALL = 0xFFFFFFFF


@inline
def _before(s, r, t, p):
    return s > t or (s == t and r < p)


@inline
def _swap(scores, rows, a, b):
    s, r = scores[a], rows[a]
    scores[a], rows[a] = scores[b], rows[b]
    scores[b], rows[b] = s, r


@kernel("void(float32[::1], int64[::1], int64, int64)")
def _split(scores, rows, n, k):
    """Move the k best of n entries to the front; k from 1 to n. Ties go to the lower row."""
    low, high, at = int64(0), n - 1, k - 1
    while high > low:
        middle = (low + high) >> 1
        if _before(scores[middle], rows[middle], scores[low], rows[low]):
            _swap(scores, rows, low, middle)
        if _before(scores[high], rows[high], scores[low], rows[low]):
            _swap(scores, rows, low, high)
        if _before(scores[high], rows[high], scores[middle], rows[middle]):
            _swap(scores, rows, middle, high)
        s, r = scores[middle], rows[middle]
        a, b = low, high
        while a <= b:
            while _before(scores[a], rows[a], s, r):
                a += 1
            while _before(s, r, scores[b], rows[b]):
                b -= 1
            if a <= b:
                _swap(scores, rows, a, b)
                a += 1
                b -= 1
        if at <= b:
            high = b
        elif at >= a:
            low = a
        else:
            break


@kernel("float32(float32[:,::1], int64[:,::1], int64, int64, int64)")
def _choose(scores, rows, i, n, k):
    """Move the k best of the first n entries of line i to its front, k below n, and return the worst score of them.

    What is left of the others is lost. Scores are counted in steps first, since a comparison whose outcome cannot be
    foretold costs as much as twenty steps of a count; only those of the step in which the k-th lies are compared.
    """
    least, greatest = scores[i, 0], scores[i, 0]
    for j in range(n):
        least, greatest = min(least, scores[i, j]), max(greatest, scores[i, j])
    width = greatest - least
    factor = float32(0)
    if width > float32(1e-30) and width < float32(np.inf):
        factor = float32(_STEPS - 1) / width
    counts = np.zeros(_STEPS, np.int32)
    for j in range(n):
        counts[int64((scores[i, j] - least) * factor) & _MASK] += 1
    edge, above = int64(_STEPS - 1), int64(0)
    while above + counts[edge] < k:
        above += counts[edge]
        edge -= 1
    doubtful, doubtful_rows = np.empty(n, np.float32), np.empty(n, np.int64)
    a, b = int64(0), int64(0)
    for j in range(n):
        s, r = scores[i, j], rows[i, j]
        step = int64((s - least) * factor) & _MASK
        doubtful[b], doubtful_rows[b] = s, r
        scores[i, a], rows[i, a] = s, r
        a += int64(step > edge)
        b += int64(step == edge)
    _split(doubtful, doubtful_rows, b, k - a)
    worst = doubtful[0]
    for j in range(k - a):
        worst = min(worst, doubtful[j])
        scores[i, a + j], rows[i, a + j] = doubtful[j], doubtful_rows[j]
    return worst


@kernel("void(float32[:,::1], int64[:,::1], int64[::1], float32[::1], int64, int64)")
def make_room(scores, rows, counts, floors, i, k):
    """Keep the k best of line i and raise its floor to the worst of them."""
    if counts[i] > k:
        floors[i] = _choose(scores, rows, i, counts[i], k)
        counts[i] = k


@inline
def gather_some(block, mask, row, i, scores, rows, counts):
    """Take the rows of a mask to line i, which has room for 32; ``block`` is the address of their scores."""
    count = counts[i]
    if mask == uint32(_ALL):
        for lane in range(32):
            scores[i, count + lane] = load_one_f32(block + uint64(4 * lane))
            rows[i, count + lane] = row + lane
        counts[i] = count + 32
        return
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
