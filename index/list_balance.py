"""Lists that stay alike while rows come and go: those that grew are split, those that shrank are dissolved.

Source: Xu et al., "SPFresh: incremental in-place update for billion-scale vector search", SOSP 2023, section 4 (LIRE).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import ROWS_PER_CENTROID, train_kmeans
from gingham.schema import MOST_LISTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.index.coarse import Coarse

    Array = np.ndarray[Any, Any]

GREATEST, LEAST = 3.0, 1 / 8
"""Sizes at which a list is split and dissolved, in those that lists would have if all were alike."""
NEAR = 32
"""Lists around a centroid that is new whose rows look for a nearer one."""
FEWEST, SPLIT_ROWS = 16, 128
"""Rows a list below which nothing is done, as where centroids were trained before most rows came, and rows of a list
that is split at least."""
BLOCK_ROWS = 16_384
ITERATIONS = 8


class Rebalanced(NamedTuple):
    """Centroids, the list of each row, and the number that each list has now, int64, -1 for one that is gone."""

    coarse: Coarse
    lists: Array
    numbers: Array


def rebalance(
    coarse: Coarse, lists: Array, vectors_of: Callable[[Array], Array], nlist: int, seed: int
) -> Rebalanced | None:
    """Split and dissolve lists, and let the rows around choose again.

    Parameters
    ----------
    lists : int64 (n,), the list of each row
    vectors_of : from positions int64 (m,) to vectors float32 (m, dim)
    nlist : lists that so many rows should have

    Returns
    -------
    Rebalanced : None where lists are alike enough

    Notes
    -----
    Time O(rows around * lists * dim): rows elsewhere have no new centroid nearer than their own (SPFresh, section 4.3).
    """
    known = len(coarse.centroids)
    if len(lists) < FEWEST * known:
        return None
    sizes, alike = np.bincount(lists, minlength=known), len(lists) / nlist
    large, small = np.flatnonzero(sizes > max(GREATEST * alike, SPLIT_ROWS)), np.flatnonzero(sizes < LEAST * alike)
    large = large[: max(0, MOST_LISTS - known)]
    if not len(large) and not len(small):
        return None
    parts = [_split(coarse, np.flatnonzero(lists == number), vectors_of, alike, seed) for number in large]
    stay = np.setdiff1d(np.arange(known), np.concatenate([large, small]))
    if not len(stay) and not parts:
        return None
    fresh = np.concatenate([*parts, np.empty((0, coarse.centroids.shape[1]), np.float32)])
    spreads = coarse.spreads
    if spreads is not None:
        spreads = np.concatenate([spreads[stay], np.full(len(fresh), np.nan, np.float32)])
    changed = replace(coarse, centroids=np.concatenate([coarse.centroids[stay], fresh]), spreads=spreads)
    numbers = np.full(known, -1, np.int64)
    numbers[stay] = np.arange(len(stay))
    moved = numbers[lists]
    touched = changed.nearest_lists(fresh, NEAR)
    around = np.flatnonzero((moved < 0) | np.isin(moved, touched))
    for start in range(0, len(around), BLOCK_ROWS):
        deadline.check()
        some = around[start : start + BLOCK_ROWS]
        moved[some] = changed.assign(vectors_of(some))
    return Rebalanced(changed.unspread(np.unique(moved[around])), moved, numbers)


def _split(coarse: Coarse, rows: Array, vectors_of: Callable[[Array], Array], alike: float, seed: int) -> Array:
    """Centroids in place of one; the same one where its rows do not differ."""
    deadline.check()
    k = max(2, round(len(rows) / alike))
    if len(rows) > ROWS_PER_CENTROID * k:
        rows = np.sort(np.random.default_rng(seed).choice(rows, ROWS_PER_CENTROID * k, replace=False))
    vectors = vectors_of(rows)
    unit = coarse.codec.metric == "cosine"
    centroids = train_kmeans(vectors, k, seed=seed, iterations=ITERATIONS, spherical=unit)
    return np.unique(centroids, axis=0)
