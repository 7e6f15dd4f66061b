"""Joining ranked lists into one, and reordering one list: fusion, diversity, groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.query.nodes import DBSF, RRF, MinMax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.nodes import Fusion

    Array = np.ndarray[Any, Any]


def fuse_lists(lists: Sequence[tuple[Array, Array]], by: Fusion) -> tuple[Array, Array]:
    """Fuse ranked lists.

    Parameters
    ----------
    lists : float32 scores, descending, and int64 row ids, each once in a list

    Returns
    -------
    tuple : float32 scores, descending, and row ids, ties ascending
    """
    rows, place = np.unique(np.concatenate([r for _, r in lists]), return_inverse=True)
    parts = np.concatenate([_parts(scores, by) for scores, _ in lists])
    weights = by.weights or (1.0,) * len(lists)
    if not isinstance(by, RRF):
        weights = tuple(weight / sum(weights) for weight in weights)
    shares = np.repeat(np.array(weights), [len(r) for _, r in lists])
    total = np.zeros(len(rows))
    np.add.at(total, place, parts * shares)
    return ranked(total.astype(np.float32), rows)


def _parts(scores: Array, by: Fusion) -> Array:
    """What each entry of a list adds, before its weight."""
    values = scores.astype(np.float64)
    if isinstance(by, RRF):
        out: Array = 1.0 / (by.k + np.arange(1, len(values) + 1))
        return out
    if not len(values):
        return values
    if isinstance(by, MinMax):
        low, high = values.min(), values.max()
        scaled: Array = np.ones(len(values)) if high == low else (values - low) / (high - low)
        return scaled
    assert isinstance(by, DBSF)
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    if deviation == 0:
        return np.full(len(values), 0.5)
    spread: Array = (values - (values.mean() - 3 * deviation)) / (6 * deviation)
    return spread


def ranked(scores: Array, rows: Array) -> tuple[Array, Array]:
    """Order by descending score, ties by ascending row."""
    order = np.lexsort((rows, -scores))
    return scores[order], rows[order]


def diversify(scores: Array, vectors: Array, diversity: float, n: int) -> Array:
    """Order of n entries by maximal marginal relevance.

    Parameters
    ----------
    scores : float32 (m,), scaled to 0..1 here
    vectors : float32 (m, dim); similarity is their cosine, 0 where a row has no vector
    diversity : weight of the greatest similarity to an entry chosen before; relevance has the rest

    Notes
    -----
    Carbonell and Goldstein 1998, SIGIR, with lambda = 1 - diversity. Time O(n m dim).
    """
    spread = float(scores.max() - scores.min()) if len(scores) else 0.0
    relevance = (scores.astype(np.float64) - scores.min()) / spread if spread else np.ones(len(scores))
    matrix = np.nan_to_num(vectors.astype(np.float32))
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), np.bool_)
    chosen = []
    for _ in range(min(n, len(scores))):
        value = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, matrix @ matrix[best])
    return np.array(chosen, np.int64)


def keep_per_group(groups: Array, per: int) -> Array:
    """Mask of the first ``per`` entries of each group, in the order given."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(groups) else np.empty(0, np.int64)
    rank = np.arange(len(groups)) - np.repeat(first, np.diff(np.append(first, len(groups))))
    mask = np.empty(len(groups), np.bool_)
    mask[order] = rank < per
    return mask
