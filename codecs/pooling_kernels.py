"""Ward's clustering of the tokens of a document by their cosines, cut into a given number of clusters.

Merges come from nearest-neighbour chains (Murtagh, "A survey of recent advances in hierarchical clustering algorithms",
The Computer Journal 26, 1983) in an order of their own, so they are sorted by height before the tree is cut. A cluster
lies in the row of its first member.
"""

import numpy as np
from numba import float64, int64

from gingham.codecs.intrinsics import inline, kernel

GRID = float(1 << 40)
"""Steps of a distance between 0 and 1: equal tokens are at equal distances, whatever rounding the products had."""
TILE = 32
"""Rows and columns turned into distances at once: both halves of the matrix stay in the first-level cache."""


@inline
def _square_distances(cosines):
    """Turn cosines into squared distances in place, exactly symmetric; the diagonal is infinite."""
    n = cosines.shape[0]
    for top in range(0, n, TILE):
        for left in range(top, n, TILE):
            for i in range(top, min(top + TILE, n)):
                for j in range(max(left, i + 1), min(left + TILE, n)):
                    distance = np.floor((1.0 - cosines[i, j]) * GRID + 0.5) / GRID
                    cosines[i, j] = distance * distance
                    cosines[j, i] = distance * distance
    for i in range(n):
        cosines[i, i] = np.inf


@inline
def _nearest(squares, active, count, row, previous):
    """The nearest cluster of one; of equal ones the previous of the chain, so that the chain ends, or the first."""
    near, least = previous, np.inf
    if previous >= 0:
        least = squares[row, previous]
    for place in range(count):
        other = active[place]
        if squares[row, other] < least:
            near, least = other, squares[row, other]
    return near


@inline
def _merge(squares, active, count, sizes, first, second):
    """Put a cluster into one before it, by the recurrence of Lance and Williams (1967) for Ward's criterion.

    No distance falls below both that it is made of, which exact numbers ensure: chains rely on it.
    """
    kept = int64(0)
    own, others, between = float64(sizes[first]), float64(sizes[second]), squares[first, second]
    for place in range(count):
        row = active[place]
        if row == second:
            continue
        active[kept] = row
        kept += 1
        if row != first:
            size, near, far = float64(sizes[row]), squares[first, row], squares[second, row]
            merged = ((own + size) * near + (others + size) * far - size * between) / (own + others + size)
            merged = max(merged, min(near, far))
            squares[first, row] = merged
            squares[row, first] = merged
    sizes[first] += sizes[second]


@inline
def _root(parents, row):
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@inline
def _cut(merges, heights, n_clusters, labels):
    """Labels of the clusters that the lowest merges leave, numbered by their first members."""
    n = labels.size
    parents = np.arange(n)
    order = np.argsort(heights, kind="mergesort")
    for place in range(n - n_clusters):
        first = _root(parents, merges[order[place], 0])
        second = _root(parents, merges[order[place], 1])
        parents[max(first, second)] = min(first, second)
    found = int64(0)
    for row in range(n):
        root = _root(parents, row)
        if root == row:
            labels[row] = found
            found += 1
        else:
            labels[row] = labels[root]


@kernel("void(float64[:,::1], int64, int64[::1])")
def ward_clusters(cosines, n_clusters, labels):
    """Cut the Ward tree over the distances ``1 - cosine``.

    Parameters
    ----------
    cosines : (n, n), n at least 1, of which only the part above the diagonal is read; destroyed
    n_clusters : from 1 to n
    labels : (n,), receives the cluster of each row; clusters are numbered by their first members

    Notes
    -----
    Time O(n^2). Ties go to the previous cluster of the chain, then to the one whose first member comes first; of merges
    of equal height the one found first is made first.
    """
    n = labels.size
    _square_distances(cosines)
    active, chain, sizes = np.arange(n), np.empty(n, np.int64), np.ones(n, np.int64)
    merges, heights = np.empty((n - 1, 2), np.int64), np.empty(n - 1, np.float64)
    length = int64(0)
    for step in range(n - 1):
        count = n - step
        if length == 0:
            chain[0] = active[0]
            length = int64(1)
        while True:
            tip = chain[length - 1]
            previous = chain[length - 2] if length > 1 else int64(-1)
            near = _nearest(cosines, active, count, tip, previous)
            if near == previous:
                break
            chain[length] = near
            length += 1
        length -= 2
        first, second = min(tip, near), max(tip, near)
        merges[step, 0], merges[step, 1], heights[step] = first, second, cosines[first, second]
        _merge(cosines, active, count, sizes, first, second)
    _cut(merges, heights, n_clusters, labels)
