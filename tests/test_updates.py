"""Updates change what they name and nothing else, however the changes are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham import errors
from gingham.embed import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = [{"id": i, "n": i, "t": f"text {i}", "v": [1.0, float(i)], "s": {i: 1.0}} for i in range(4)]


@pytest.fixture
def library(db: gg.Database) -> gg.Collection:
    docs = db.create_collection(
        "library", fields={"n": gg.Int(), "t": gg.Text(bm25=True)}, vectors={"v": gg.Dense(2), "s": gg.Sparse()}
    )
    docs.upsert(ROWS)
    return docs


def rows_of(docs: gg.CollectionView) -> list[dict[str, Any]]:
    rows = list(docs.scan(include_vectors=True))
    return [{**row, "v": None if row["v"] is None else row["v"].tolist()} for row in rows]


CHANGES = [
    {"id": 1, "n": 10},
    {"id": 0, "t": None},
    {"id": 9, "n": 1},
    {"id": 2, "v": [5, 6], "s": None},
    {"id": 1, "t": "x"},
]


@pytest.mark.parametrize("make", [list, tuple, iter, lambda rows: (row for row in rows)])
def test_each_dict_changes_what_it_names(library: gg.Collection, make: Callable[[Any], Any]) -> None:
    before = library.stats().version
    done = library.update(make(CHANGES))
    assert (done.updated, done.missing, done.inserted) == (3, 1, 0)
    assert done.version == before + 1
    assert rows_of(library) == [
        {**ROWS[0], "t": None}, {**ROWS[1], "n": 10, "t": "x"}, {**ROWS[2], "v": [5.0, 6.0], "s": None}, ROWS[3],
    ]  # fmt: skip
    assert library.update({"id": 3, "n": -3}).updated == 1
    assert library.get(3, fields=["n", "t"]) == {"id": 3, "n": -3, "t": "text 3"}
    assert library.update([]).updated == 0


def tables() -> list[Any]:
    table = pa.table({"id": [0, 3, 7], "n": [100, None, 7]})
    return [
        table, table.to_batches()[0], table.to_batches(), table.to_reader(), pd.DataFrame({"id": [0, 3, 7], "n": [100, np.nan, 7]}),
        pd.DataFrame({"n": [100, None, 7]}, index=pd.Index([0, 3, 7], name="id")), pl.from_arrow(table),
        pl.from_arrow(table).lazy(),  # type: ignore[union-attr]
    ]  # fmt: skip


@pytest.mark.parametrize("rows", tables(), ids=lambda rows: type(rows).__name__)
def test_a_table_changes_its_columns(library: gg.Collection, rows: Any) -> None:
    done = library.update(rows)
    assert (done.updated, done.missing) == (2, 1)
    assert rows_of(library) == [{**ROWS[0], "n": 100}, ROWS[1], ROWS[2], {**ROWS[3], "n": None}]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda d: d.update(), "expects rows, or ids="),
        (lambda d: d.update(ids=[1]), "with what to change"),
        (lambda d: d.update(ids=[1], fields={}, vectors={}), "with what to change"),
        (lambda d: d.update([{"id": 1, "n": 1}], ids=[1]), "either rows or ids="),
        (lambda d: d.update([{"id": 1, "n": 1}], fields={"n": [1]}), "either rows or ids="),
        (lambda d: d.update([{"id": 1, "n": 5}, {"n": 1}]), r"row 1 .* expects an id and what to change"),
        (lambda d: d.update([{"id": 1, "n": 5}, {"id": 2}]), r"row 1 .* expects an id and what to change"),
        (lambda d: d.update([{"id": 1, "n": 5}, 7]), "row 1 expects a dict"),
        (lambda d: d.update([{"id": 1, "n": 5}, {"id": 0.5, "n": 1}]), "row 1: an id expects"),
        (lambda d: d.update([{"id": 1, "n": 5}, {"id": 2, "t": "x"}, {"id": 2, "n": "x"}]), "'n' expects .* in row 2"),
        (lambda d: d.update([{"id": 1, "n": 5}, {"id": 2, "v": [1.0, np.nan]}]), "finite .* in row 1"),
        (lambda d: d.update([{"id": 1, "n": 5}, {"id": 2, "nn": 1}]), "did you mean 'n'"),
        (lambda d: d.update(pa.table({"n": [1]})), "column 'id' without nulls"),
        (lambda d: d.update(pa.table({"id": [1, None], "n": [1, 2]})), "column 'id' without nulls"),
        (lambda d: d.update(pa.table({"id": [1]})), "columns to change"),
        (lambda d: d.update("rows.parquet"), "expects dicts, an Arrow table"),
        (lambda d: d.update(np.ones(3)), "expects dicts, an Arrow table"),
        (lambda d: d.update(7), "expects dicts, an Arrow table"),
        (lambda d: d.update(pd.Series([1])), "expects a frame"),
    ],
)
def test_an_update_that_cannot_be_made_is_one_error_and_changes_nothing(
    db: gg.Database, library: gg.Collection, call: Any, said: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=said) as caught:
        call(library)
    assert len(str(caught.value).splitlines()) == 1
    with db.transaction() as change:
        with pytest.raises(errors.InvalidArgument, match=said):
            call(change["library"])
        change["library"].update(ids=[3], fields={"n": [3]})
    assert rows_of(library) == ROWS


def test_a_transaction_updates_rows_and_keeps_them_as_they_were_given(db: gg.Database, library: gg.Collection) -> None:
    vector = np.array([7.0, 8.0])
    with db.transaction() as change:
        change["library"].update([{"id": 0, "v": vector}, {"id": 1, "n": 11}])
        change["library"].update(pa.table({"id": [1], "t": ["one"]}))
        vector[:] = 0
    assert rows_of(library) == [{**ROWS[0], "v": [7.0, 8.0]}, {**ROWS[1], "n": 11, "t": "one"}, *ROWS[2:]]
    assert change.result is not None
    assert change.result.updated == 3


def test_a_transaction_takes_all_rows_of_a_call_or_none(db: gg.Database, library: gg.Collection) -> None:
    rows = ({"id": n, "n": n if n < 15_000 else "x"} for n in range(16_000))
    with db.transaction() as change, pytest.raises(errors.SchemaMismatch, match="in row 15000"):
        change["library"].upsert(rows)
    assert rows_of(library) == ROWS


def test_both_upserts_say_the_same_of_wrong_arguments(db: gg.Database, library: gg.Collection) -> None:
    with db.transaction() as change:
        for docs in (library, change["library"]):
            with pytest.raises(errors.InvalidArgument, match="found neither"):
                docs.upsert()
            for given_too in ({"ids": [1]}, {"fields": {"n": [1]}}, {"vectors": {}}):
                with pytest.raises(errors.InvalidArgument, match="found both"):
                    docs.upsert([{"id": 1}], **given_too)


def test_vectors_follow_texts_that_dicts_change(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        docs = db.create_collection(
            "c",
            fields={"a": gg.Text(), "b": gg.Text(), "n": gg.Int()},
            vectors={"v": gg.Dense(16, source=("a", "b"))},
            embedder=HashingEmbedder(16),
        )
        docs.upsert([{"id": i, "a": f"one{i}", "b": f"two{i}"} for i in range(3)])
        docs.update([{"id": 0, "a": "new"}, {"id": 0, "b": "newer"}, {"id": 1, "b": "other"}, {"id": 2, "n": 1}])
        for number, text in enumerate(("new\nnewer", "one1\nother", "one2\ntwo2")):
            assert docs.search(text, k=1).ids == [number]
            assert docs.search(text, k=1).scores[0] == pytest.approx(1.0)


VALUE = st.fixed_dictionaries(
    {"id": st.integers(0, 5)},
    optional={"n": st.none() | st.integers(-5, 5), "t": st.none() | st.sampled_from(["x", "y"]), "v": st.none() | st.just([3.0, 4.0])},
)  # fmt: skip


@given(changes=st.lists(VALUE.filter(lambda row: len(row) > 1), max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_dicts_change_rows_as_they_would_change_a_dict(
    changes: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with gg.open(tmp_path_factory.mktemp("u") / "db", durability="none") as db:
        docs = db.create_collection(
            "c", fields={"n": gg.Int(), "t": gg.Text()}, vectors={"v": gg.Dense(2), "s": gg.Sparse()}
        )
        docs.upsert(ROWS)
        done = docs.update(changes)
        model = {row["id"]: dict(row) for row in ROWS}
        for change in changes:
            if change["id"] in model:
                model[change["id"]].update(change)
        assert rows_of(docs) == list(model.values())
        assert done.updated == len({change["id"] for change in changes} & set(model))
