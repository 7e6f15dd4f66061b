"""Rows that were checked before a schema change and are applied after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham import errors


def make(db: gg.Database) -> gg.Collection:
    docs = db.create_collection("c", fields={"x": gg.Int()}, vectors={"v": gg.Dense(4)})
    docs.upsert(ids=[0], fields={"x": [1]}, vectors={"v": np.ones((1, 4))})
    return docs


def retype(docs: gg.Collection) -> None:
    """The names stay and mean something else."""
    docs.drop_field("x")
    docs.add_field("x", gg.Text())
    docs.drop_vector("v")
    docs.add_vector("v", gg.Dense(8))


@pytest.mark.parametrize("rows", [3, 3000])
@pytest.mark.parametrize("columns", [{"x"}, {"v"}, {"x", "v"}])
def test_a_transaction_whose_rows_no_longer_fit_changes_nothing(db: gg.Database, rows: int, columns: set[str]) -> None:
    docs = make(db)
    given: dict[str, Any] = {}
    if "x" in columns:
        given["fields"] = {"x": list(range(rows))}
    if "v" in columns:
        given["vectors"] = {"v": np.ones((rows, 4))}
    with pytest.raises(errors.SchemaMismatch, match="schema changed"), db.transaction() as change:
        change["c"].upsert(ids=list(range(10, 10 + rows)), **given)
        retype(docs)
    assert [row["id"] for row in docs.scan()] == [0]
    assert len(docs.search(np.ones(8))) == 0
    assert docs.count(where="x = 'a'") == 0
    assert db.verify().ok


@pytest.mark.parametrize("rows", [3, 3000])
def test_rows_that_still_fit_are_prepared_again(db: gg.Database, rows: int) -> None:
    docs = make(db)
    with db.transaction() as change:
        change["c"].upsert(ids=list(range(rows)), fields={"x": list(range(rows))})
        docs.drop_vector("v")
        docs.add_vector("v", gg.Dense(8, "l2"))
        docs.add_field("y", gg.Keyword())
    assert docs.count(where="x >= 0 AND y IS NULL") == rows
    docs.update(ids=[1], vectors={"v": np.ones((1, 8))})
    assert docs.search(np.ones(8), k=3).ids == [1]
    assert db.verify().ok


def test_a_field_that_was_dropped_and_added_again_with_its_type_takes_the_rows(db: gg.Database) -> None:
    docs = make(db)
    with db.transaction() as change:
        change["c"].upsert(ids=[7], fields={"x": [7]}, vectors={"v": np.ones((1, 4))})
        docs.drop_field("x")
        docs.add_field("x", gg.Int())
    assert [row["x"] for row in docs.scan()] == [None, 7]


def test_an_update_that_no_longer_fits_changes_nothing(db: gg.Database) -> None:
    docs = make(db)
    for given in ({"fields": {"x": [5]}}, {"vectors": {"v": np.zeros((1, 4))}}):
        with pytest.raises(errors.SchemaMismatch, match="schema changed"), db.transaction() as change:
            change["c"].update(ids=[0], **given)
            retype(docs)
        docs.drop_field("x")
        docs.add_field("x", gg.Int())
        docs.drop_vector("v")
        docs.add_vector("v", gg.Dense(4))
    assert docs.get(0) == {"id": 0, "x": None}


def test_a_stream_whose_schema_changes_between_chunks_keeps_what_is_durable(db: gg.Database) -> None:
    docs = make(db)

    def rows() -> Any:
        for i in range(10_100):
            if i == 10_050:
                docs.drop_field("x")
            yield {"id": i, "x": i}

    with pytest.raises(errors.SchemaMismatch) as caught:
        docs.upsert(rows())
    assert caught.value.durable_rows == 10_000
    assert docs.count() == 10_000
    assert db.verify().ok
