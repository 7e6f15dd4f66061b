"""The heap of the best rows, shared by the kernels of every index.

A heap is one line of ``scores`` and ``rows``: its root, entry 0, is the worst it holds. Rows are offered in
ascending order and enter only when they are better than the root, so ties go to the lower row.
"""

import numpy as np
from numba import int64

from gingham.codecs.intrinsics import inline, kernel


@inline
def sift(scores, rows, q, size):
    """Move the root of a heap whose root is the worst entry down to its place."""
    s, r, i = scores[q, 0], rows[q, 0], int64(0)
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            scores[q, other] < scores[q, child]
            or (scores[q, other] == scores[q, child] and rows[q, other] > rows[q, child])
        ):
            child = other
        if not (scores[q, child] < s or (scores[q, child] == s and rows[q, child] > r)):
            break
        scores[q, i] = scores[q, child]
        rows[q, i] = rows[q, child]
        i = child
    scores[q, i] = s
    rows[q, i] = r


@kernel("void(float32[:,::1], int64[:,::1])")
def sort_heaps(scores, rows):
    """Turn heaps into lists, best first, ties by ascending row."""
    k = scores.shape[1]
    for q in range(scores.shape[0]):
        for end in range(k - 1, 0, -1):
            s, r = scores[q, 0], rows[q, 0]
            scores[q, 0], rows[q, 0] = scores[q, end], rows[q, end]
            scores[q, end], rows[q, end] = s, r
            sift(scores, rows, q, int64(end))


@inline
def offer_any(s, row, scores, rows, q):
    """Offer a row to a heap to which rows come in any order: of equal scores the lower stays, -inf is not taken."""
    root = scores[q, 0]
    if s > root or (s == root and row < rows[q, 0]):
        scores[q, 0], rows[q, 0] = s, row
        sift(scores, rows, q, int64(scores.shape[1]))


@kernel("void(float32[:,::1], int64[:,::1], float32[:,::1], int64[:,::1])")
def keep_best(scores, rows, best_scores, best_rows):
    """The best of each line, as many as there are columns, best first, ties by ascending row; rows come in any order.

    Parameters
    ----------
    rows : -1 for none; nor are rows kept whose score is -inf
    """
    k = best_scores.shape[1]
    for q in range(scores.shape[0]):
        for j in range(k):
            best_scores[q, j], best_rows[q, j] = -np.inf, -1
        for j in range(scores.shape[1]):
            if rows[q, j] >= 0:
                offer_any(scores[q, j], rows[q, j], best_scores, best_rows, q)
    sort_heaps(best_scores, best_rows)
