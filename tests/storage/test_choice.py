"""What the vectors of a segment get where nobody said."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gingham as gg
from gingham.index import graph_search
from gingham.schema import Schema
from gingham.storage import choice
from gingham.storage import codes as stored_codes

GIB = 1 << 30
DIM, ROWS = 32, 3000


def test_few_vectors_are_scanned_more_get_a_graph_and_more_than_memory_allows_get_lists() -> None:
    dense = gg.Dense(384)
    assert choice.chosen(dense, 20_000, GIB) == dense
    assert (choice.chosen(dense, 300_000, GIB).index, choice.chosen(dense, 300_000, GIB).codec) == ("HNSW16", "LVQ4x8")
    large = choice.chosen(dense, 1_500_000, GIB)
    assert (large.index, large.codec) == ("IVF", "RaBitQ1")
    assert choice.chosen(dense, 2_000_000, GIB // 64) == dense
    assert choice.chosen(gg.Dense(384, dtype="float16"), 40_000, GIB).index is None


@pytest.mark.parametrize("said", [{"index": "Flat"}, {"codec": "LVQ8"}, {"index": "HNSW8"}, {"index": "IVF"}])
def test_what_was_said_stays(said: Any) -> None:
    dense = gg.Dense(384, **said)
    assert choice.chosen(dense, 10_000_000, 1 << 40) == dense


@given(st.integers(1, 4000), st.integers(1, 40))
def test_what_is_made_fits_the_memory(dim: int, power: int) -> None:
    memory = 1 << power
    for dense in (gg.Dense(dim), gg.Dense(dim, index="HNSW16"), gg.Dense(dim, index="IVF"), gg.Dense(dim, codec="SQ8")):
        rows = choice.most_rows(Schema.of(vectors={"v": dense}), memory)
        made = choice.chosen(dense, rows, memory)
        if rows > stored_codes.CODED_ROWS and made.codec is not None:
            assert choice.memory_bytes(made, rows) <= memory


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    monkeypatch.setattr(choice, "CODED_ROWS", 256)
    monkeypatch.setattr(choice, "SCANNED_BYTES", 100_000)
    monkeypatch.setattr(graph_search, "SCANNED", 1 / 5)


def filled(db: gg.Database, rows: int = ROWS, **options: Any) -> gg.Collection:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, **options)})
    docs.upsert(ids=list(range(rows)), vectors={"v": np.random.default_rng(0).standard_normal((rows, DIM))})
    docs.maintain()
    return docs


def how(docs: gg.Collection, **options: Any) -> str:
    hits = docs.search(np.random.default_rng(1).standard_normal(DIM), **options)
    assert len(hits.ids) == 10
    return hits.explain().root.steps[1].detail


@pytest.mark.usefixtures("small")
def test_a_collection_gets_an_index_when_it_grows_and_explain_says_why(db: gg.Database) -> None:
    docs = filled(db, 500)
    assert how(docs).startswith("exact by size")
    docs.upsert(ids=list(range(ROWS)), vectors={"v": np.random.default_rng(0).standard_normal((ROWS, DIM))})
    docs.maintain()
    assert docs.stats().vectors["v"].indexed_rows == ROWS
    assert how(docs).startswith("graph HNSW16 of LVQ8")
    assert "for a recall of 0.99, chosen by size" in how(docs)
    assert "ef_search 40, chosen by size" in how(docs, ef_search=40)
    assert how(docs, exact=True).startswith("exact on")
    assert docs.recall(n=200).recall > 0.95
    assert docs.reindex("v", index="Flat").switched
    assert how(docs).startswith("exact on")
    assert docs.reindex("v", index=None).switched
    assert how(docs).startswith("graph HNSW16")
    assert not db.verify().damage


@pytest.mark.usefixtures("small")
def test_where_a_graph_takes_too_much_memory_there_are_lists(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = choice.memory_bytes
    monkeypatch.setattr(choice, "memory_bytes", lambda d, rows: 1 << 60 if d.m else real(d, rows))
    with gg.open(tmp_path / "db") as db:
        docs = filled(db)
        assert how(docs).startswith("lists IVF of LVQ8")
        assert "for a recall of 0.99" in how(docs)
        docs.delete(ids=list(range(0, ROWS, 3)))
        docs.maintain()
        assert docs.stats().dead_rows == 0
        assert how(docs).startswith("lists IVF of LVQ8")


@pytest.mark.usefixtures("small")
def test_flat_is_never_indexed(db: gg.Database) -> None:
    docs = filled(db, index="flat")
    assert docs.stats().vectors["v"].index == "Flat"
    assert how(docs).startswith("exact on")
    assert docs.stats().vectors["v"].indexed_rows == 0
