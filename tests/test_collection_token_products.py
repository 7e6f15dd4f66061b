"""Product codes of tokens inside a collection: written, searched, reranked, changed, merged, reopened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import gingham as gg
from gingham.storage import rewrite, token_codes, writes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DIM, ROWS = 32, 600
RNG = np.random.default_rng(2)
CENTRES = 2 * RNG.standard_normal((30, DIM))
SIZES = RNG.integers(1, 12, ROWS)
GIVEN = [(CENTRES[RNG.integers(0, 30, n)] + RNG.standard_normal((n, DIM))).astype(np.float32) for n in SIZES]
QUERIES = [(CENTRES[RNG.integers(0, 30, 5)] + RNG.standard_normal((5, DIM))).astype(np.float32) for _ in range(12)]


def by_codes(docs: gg.Collection) -> int:
    """Parts that are searched by codes."""
    detail = docs.search(QUERIES[0], using="t").explain().root.steps[1].detail
    return int(detail.split(" of them by PQ16")[0].split()[-1])


def share(docs: gg.Collection, alive: list[int]) -> float:
    """Of the ten best by floats; scores are exact."""
    found = []
    for query in QUERIES:
        hits = docs.query(gg.near("t", query))
        scores = {}
        for row in alive:
            stored = (GIVEN[row] / np.linalg.norm(GIVEN[row], axis=1, keepdims=True)).astype(np.float16)
            products = query / np.linalg.norm(query, axis=1, keepdims=True) @ stored.astype(np.float32).T
            scores[row] = products.max(axis=1).sum()
        np.testing.assert_allclose(hits.scores, [scores[i] for i in hits.ids], rtol=1e-4)
        found.append(len(set(hits.ids) & set(sorted(scores, key=lambda i: -scores[i])[:10])) / 10)
        again = docs.query(gg.match("body", "word").limit(ROWS).rerank(gg.maxsim("t", query), k=ROWS).limit(10))
        assert again.ids == sorted(scores, key=lambda i: -scores[i])[:10]
    return float(np.mean(found))


def test_product_codes_lead_to_rows_through_changes_merges_and_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_codes, "CODED_TOKENS", 500)
    for module in (writes, rewrite):
        monkeypatch.setattr(module, "SEAL_ROWS", 100)
    with gg.open(tmp_path / "db") as db:
        kinds = {"t": gg.Tokens(DIM, codec="PQ16")}
        docs = db.create_collection("docs", fields={"body": gg.Text(bm25=True)}, vectors=kinds)
        docs.upsert(ids=list(range(ROWS)), vectors={"t": GIVEN}, fields={"body": ["word"] * ROWS})
        docs.maintain()
        assert by_codes(docs) == 1
        assert share(docs, list(range(ROWS))) > 0.8
        GIVEN[7] = QUERIES[0]
        docs.update(ids=[7], vectors={"t": [GIVEN[7]]})
        docs.delete(ids=list(range(0, ROWS, 3)))
        assert docs.search(QUERIES[0], using="t", k=1).ids == [7]
        alive = [row for row in range(ROWS) if row % 3]
        assert share(docs, alive) > 0.8
        docs.maintain()
        assert docs.stats().dead_rows == 0
    with gg.open(tmp_path / "db") as db:
        docs = db["docs"]
        assert by_codes(docs) == 1
        assert share(docs, alive) > 0.8
        assert not db.verify().damage
