"""Slow references: what a query means, in plain Python and NumPy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from gingham.text.analyze import analyzer

Scores = dict[Hashable, float]


def bm25(texts: Mapping[Any, str | None], query: str, *, k1: float = 0.9, b: float = 0.4) -> Scores:
    """BM25 of the rows that have a word of the query."""
    analyze = analyzer("english")
    words = {
        i: [t for s in analyze.surfaces(text) if (t := analyze.term_of(s))]
        for i, text in texts.items()
        if text is not None
    }
    average = sum(map(len, words.values())) / max(len(words), 1) or 1.0
    out: Scores = {}
    for term, count in Counter(t for s in analyze.surfaces(query) if (t := analyze.term_of(s))).items():
        df = sum(term in w for w in words.values())
        idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
        for i, w in words.items():
            if tf := w.count(term):
                out[i] = out.get(i, 0.0) + count * idf * tf / (tf + k1 * (1 - b + b * len(w) / average))
    return out


def product(vectors: Mapping[Any, Mapping[int, float] | None], query: Mapping[int, float]) -> Scores:
    """Inner products above 0."""
    scores = {i: sum(w * (v or {}).get(d, 0.0) for d, w in query.items()) for i, v in vectors.items()}
    return {i: s for i, s in scores.items() if s > 0}


def cosine(vectors: Mapping[Any, Any], query: Any) -> Scores:
    """Cosine of every row that has a vector."""
    unit = np.asarray(query, np.float64) / np.linalg.norm(query)
    return {i: float(np.asarray(v, np.float64) @ unit / np.linalg.norm(v)) for i, v in vectors.items() if v is not None}


def rrf(lists: Sequence[Scores], *, k: float = 60.0, weights: Sequence[float] | None = None) -> Scores:
    """Reciprocal rank fusion of lists without ties."""
    out: Scores = {}
    for scores, weight in zip(lists, weights or [1.0] * len(lists), strict=True):
        for rank, i in enumerate(sorted(scores, key=lambda i: -scores[i]), 1):
            out[i] = out.get(i, 0.0) + weight / (k + rank)
    return out


def same_ranking(hits: Any, expected: Scores, limit: int, *, tolerance: float = 1e-5) -> None:
    """Hits have the best scores in order, and each hit its own score; rows of equal score may change places."""
    best = sorted(expected.values(), reverse=True)[:limit]
    np.testing.assert_allclose(hits.scores, best, rtol=tolerance, atol=tolerance)
    assert len(set(hits.ids)) == len(hits.ids)
    for i, score in zip(hits.ids, hits.scores, strict=True):
        assert math.isclose(expected[i], score, rel_tol=tolerance, abs_tol=tolerance)


def only(scores: Scores, keep: Callable[[Any], bool]) -> Scores:
    """Scores of the rows to keep."""
    return {i: s for i, s in scores.items() if keep(i)}
