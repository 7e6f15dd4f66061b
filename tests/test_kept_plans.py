"""How a search is planned is kept between commits: no search may see anything but the newest commit."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham.index import graph_search
from gingham.storage import codes as stored_codes

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM, ROWS = 16, 6000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    monkeypatch.setattr(graph_search, "SCANNED", 1 / 20)


def vectors(n: int = ROWS, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)


def filled(db: gg.Database) -> gg.Collection:
    docs = db.create_collection("docs", fields={"year": gg.Int()}, vectors={"v": gg.Dense(DIM, index="HNSW8")})
    docs.upsert(ids=list(range(ROWS)), vectors={"v": vectors()}, fields={"year": [1] * ROWS})
    docs.maintain()
    return docs


def plans(docs: gg.Collection) -> int:
    with docs._reader.session() as session:
        return len(session.shared.plans)


def test_equal_searches_share_a_plan_and_answer_alike(db: gg.Database) -> None:
    docs, queries = filled(db), vectors(50, 2)
    first = [docs.search(query, k=7) for query in queries]
    assert plans(docs) == 1
    again, batch = [docs.search(query, k=7) for query in queries], docs.search(queries, k=7)
    for one, other, third in zip(first, again, batch, strict=True):
        assert one.ids == other.ids == third.ids
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.scores, third.scores)
    assert first[0].explain().root.steps[1].detail == again[0].explain().root.steps[1].detail
    assert plans(docs) == 1
    for k in range(1, 200):
        assert len(docs.search(queries[0], k=k).ids) == k
    assert plans(docs) < 100


def test_a_search_sees_every_write_before_it(db: gg.Database) -> None:
    docs, query = filled(db), vectors(1, 2)[0]
    best = docs.search(query, k=3).ids
    docs.delete(ids=[best[0]])
    assert docs.search(query, k=3).ids[:2] == best[1:]
    docs.upsert(ids=["new"], vectors={"v": query[None]}, fields={"year": [2]})
    assert docs.search(query, k=3).ids == ["new", *best[1:]]
    docs.update([{"id": "new", "year": 3}])
    assert docs.search(query, k=1)[0]["year"] == 3
    docs.delete(ids=["new"])
    assert docs.search(query, k=2).ids == best[1:]
    docs.maintain()
    assert docs.search(query, k=2).ids == best[1:]
    docs.reindex("v", index=None)
    assert docs.search(query, k=2, exact=True).ids == docs.search(query, k=2).ids == best[1:]


def test_a_filter_and_other_efforts_are_not_taken_from_a_kept_plan(db: gg.Database) -> None:
    docs, query = filled(db), vectors(1, 2)[0]
    everything = docs.search(query, k=5)
    assert docs.search(query, k=5, where="year = 2").ids == []
    exact = docs.search(query, k=5, exact=True)
    assert "exact" in str(exact.explain())
    assert "ef_search 100" in str(docs.search(query, k=5, ef_search=100).explain())
    least = float(exact.scores[1])
    assert docs.search(query, k=5, radius=least).ids == exact.ids[:2]
    assert docs.search(query, k=5).ids == everything.ids


def test_a_snapshot_keeps_its_answers_beside_newer_ones(db: gg.Database) -> None:
    docs, query = filled(db), vectors(1, 2)[0]
    with db.snapshot() as snapshot:
        before = snapshot["docs"].search(query, k=3).ids
        docs.delete(ids=[before[0]])
        assert docs.search(query, k=3).ids[0] == before[1]
        assert snapshot["docs"].search(query, k=3).ids == before
        assert docs.search(query, k=3).ids[0] == before[1]


def test_a_search_sees_what_another_process_wrote(tmp_path: Path) -> None:
    query = vectors(1, 2)[0]
    with gg.open(tmp_path / "db") as db:
        best = filled(db).search(query, k=2).ids
    with gg.open(tmp_path / "db", mode="r") as reading:
        docs = reading["docs"]
        assert docs.search(query, k=2).ids == best
        code = f"import gingham as gg; gg.open({str(tmp_path / 'db')!r})['docs'].delete(ids=[{best[0]}])"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        assert docs.search(query, k=1).ids == best[1:]


def test_many_threads_search_one_plan(db: gg.Database) -> None:
    docs, queries = filled(db), vectors(200, 2)
    wanted = [docs.search(query, k=5).ids for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: docs.search(query, k=5).ids, queries)) == wanted


def test_no_session_outlives_its_search(db: gg.Database) -> None:
    docs = filled(db)
    docs.search(vectors(1, 2)[0], k=5)
    assert not db._store._mapped.in_use()  # type: ignore[union-attr]
