"""What contestants search: a data set with its exact answers, kept in ``bench/.data/ann``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from shared import datasets

import gingham as gg

if TYPE_CHECKING:
    from pathlib import Path

CACHE = datasets.MADE / "ann"
K = 10
QUERIES = 2000
TIE = 1e-5
"""Share of the score of the k-th neighbour within which a row counts as found: those of float32 sums in another order."""
CHUNK = 64


@dataclass(frozen=True)
class Task:
    """A data set, and the folder where its answers and indexes are kept.

    Attributes
    ----------
    data : rows float32 (n, dim) and queries float32 (m, dim), of length 1 for cosine
    scores : float64 (m,), of the k-th nearest row of each query; greater is better
    folder : named by the data set, its rows and a digest of them
    """

    data: datasets.Dataset
    scores: np.ndarray
    folder: Path

    def recall(self, found: np.ndarray, part: slice) -> float:
        """Share of the ``K`` nearest rows that were found; a row as near as the K-th counts, as in ann-benchmarks."""
        return recall(self.data, found, self.scores[part], part)


def recall(
    data: datasets.Dataset,
    found: np.ndarray,
    bars: np.ndarray,
    part: slice | np.ndarray,
    allowed: np.ndarray | None = None,
) -> float:
    """Share of rows found (m, K) by a part of the queries that score at least as its bars (m,), each row once.

    Rows outside of a mask ``allowed`` (n,) do not count.
    """
    queries, hits = data.queries[part], 0
    for first in range(0, len(queries), CHUNK):
        rows = found[first : first + CHUNK]
        sorted_rows = np.sort(rows, axis=1)
        ours = score(data, queries[first : first + CHUNK], sorted_rows)
        near = ours >= (bars[first : first + CHUNK] - TIE * np.abs(bars[first : first + CHUNK]))[:, None]
        fresh = np.diff(sorted_rows, axis=1, prepend=-1) > 0
        if allowed is not None:
            fresh &= allowed[sorted_rows]
        hits += int((near & fresh).sum())
    return hits / (len(queries) * found.shape[1])


def score(data: datasets.Dataset, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scores float64 of listed rows: products, or negative squared distances."""
    vectors = data.rows[np.maximum(rows, 0)].astype(np.float64)
    if data.metric == "l2":
        return -np.square(vectors - queries[:, None]).sum(axis=2)
    return np.einsum("qkd,qd->qk", vectors, queries.astype(np.float64))


def load(name: str, n_rows: int | None = None) -> Task | None:
    """A data set with its answers, which are computed once; None where it is not installed."""
    data = datasets.load(name, QUERIES, n_rows)
    if data is None:
        return None
    digest = xxhash.xxh64(data.rows)
    digest.update(data.queries)
    folder = CACHE / f"{name}-{len(data.rows)}-{digest.hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"scores{K}.npy"
    if not kept.exists():
        gg.warmup()
        nearest = data.nearest(K)
        np.save(folder / "queries.npy", data.queries)
        np.save(kept, kth_scores(data, nearest))
    return Task(data, np.load(kept), folder)


def kth_scores(data: datasets.Dataset, nearest: np.ndarray) -> np.ndarray:
    """Scores float64 (m,) of the last of the nearest rows (m, k) of each query."""
    starts = range(0, len(nearest), CHUNK)
    return np.concatenate([score(data, data.queries[i : i + CHUNK], nearest[i : i + CHUNK])[:, -1] for i in starts])
