"""What tests of indexes that go to faiss and come home share."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
METRICS = ("cosine", "dot", "l2")
DIM, ROWS = 24, 700


def clustered(n: int, seed: int, dim: int = DIM) -> Array:
    rng, centres = np.random.default_rng(seed), 3 * np.random.default_rng(99).standard_normal((14, dim))
    return (centres[rng.integers(0, 14, n)] + rng.standard_normal((n, dim))).astype(np.float32)


def asked(queries: Array, metric: str) -> Array:
    """Queries as faiss takes them."""
    return queries / np.linalg.norm(queries, axis=1, keepdims=True) if metric == "cosine" else queries


def by_row(scores: Array, rows: Array, n: int) -> Array:
    """Scores (n_queries, n) of rows that were all found, NaN of others."""
    out = np.full((len(scores), n), np.nan)
    for line, score, row in zip(out, scores, rows, strict=True):
        line[row[row >= 0]] = score[row >= 0]
    return out


def theirs(index: Any, queries: Array, metric: str, n: int, k: int | None = None) -> Array:
    distances, rows = index.search(asked(queries, metric), k or n)
    return by_row(-distances if metric == "l2" else distances, rows, n)


def same(found: Array, expected: Array) -> None:
    scale = np.nanmax(np.abs(expected), initial=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale)
