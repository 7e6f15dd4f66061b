"""What the door refuses, and what it takes: each wrong value is one clear error, and nothing is changed."""

from __future__ import annotations

import datetime as dt
import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gingham as gg
from gingham import F, errors
from gingham.query.ast import to_sql
from gingham.query.bind import bind
from gingham.sparse_vectors import sparse_query

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    "make",
    [
        lambda: gg.Int(many=1),  # type: ignore[arg-type]
        lambda: gg.Keyword(many="yes"),  # type: ignore[arg-type]
        lambda: gg.Text(bm25=1),  # type: ignore[arg-type]
        lambda: gg.Text(bm25=True, positions=1),  # type: ignore[arg-type]
        lambda: gg.Text(language=None),  # type: ignore[arg-type]
        lambda: gg.Text(k1=True),
        lambda: gg.Text(k1=10**30),
        lambda: gg.Dense(2, source=1),  # type: ignore[arg-type]
    ],
)
def test_a_field_option_of_another_type_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match="expects"):
        make()


def test_a_schema_that_could_not_be_read_back_is_refused(db: gg.Database) -> None:
    class Special(gg.Int, frozen=True, tag="int"):
        pass

    for wrong in ({"a": Special()}, ["a"], {"a": "int"}):
        with pytest.raises(errors.InvalidArgument, match="expects"):
            db.create_collection("p", fields=wrong)  # type: ignore[arg-type]
    db.create_collection("p", fields={"a": gg.Text(bm25=True, k1=np.float64(1.2), b=1)})
    path = db.path
    db.close()
    with gg.open(path) as again:
        assert again["p"].schema.fields["a"] == gg.Text(bm25=True, k1=1.2, b=1.0)


def test_a_transaction_keeps_the_rows_as_they_were_given(db: gg.Database) -> None:
    docs = db.create_collection("c", fields={"n": gg.Int()}, vectors={"v": gg.Dense(2)})
    vectors, numbers = np.ones((3000, 2), np.float32), np.ones(3000, np.int64)
    with db.transaction() as change:
        change["c"].upsert(ids=list(range(3000)), vectors={"v": vectors}, fields={"n": numbers})
        change["c"].update(ids=[0], vectors={"v": vectors[:1]}, fields={"n": numbers[:1]})
        vectors[:], numbers[:] = np.nan, 7
    assert docs.count(where="n = 1") == 3000
    assert len(docs.search([1.0, 1.0], k=3000)) == 3000


def deep(levels: int) -> dict[str, Any]:
    node: dict[str, Any] = {"op": "is_null", "field": "f"}
    for _ in range(levels):
        node = {"op": "not", "args": [node]}
    return node


@pytest.fixture
def odd(db: gg.Database) -> gg.Collection:
    """A collection with a field of each kind and no rows."""
    fields: dict[str, Any] = {
        "i": gg.Int(), "f": gg.Float(), "b": gg.Bool(), "k": gg.Keyword(), "t": gg.Text(), "w": gg.Timestamp(),
        "j": gg.Json(), "ks": gg.Keyword(many=True), "ints": gg.Int(many=True),
    }  # fmt: skip
    return db.create_collection("odd", fields=fields, vectors={"v": gg.Dense(2)})


@pytest.mark.parametrize(
    "where",
    [
        lambda: F.k == "\ud800",
        lambda: F.k.is_in("\ud800", "a"),
        lambda: F.ks.contains("\ud800"),
        lambda: F.t.startswith("\ud800"),
        lambda: "k = '\ud800'",
        lambda: "w > TIMESTAMP '0001-01-01T00:00:00+05:00'",
        lambda: "w > '0001-01-01T00:00:00+05:00'",
        lambda: F.w > dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5))),
        lambda: F.w >= pd.NaT,
        lambda: F.w >= np.datetime64("NaT"),
        lambda: F.w >= pd.Timestamp(1),
        lambda: F.f == float("nan"),
        lambda: F.k.is_in(b"ab"),
        lambda: deep(5000),
    ],
)
def test_a_filter_value_that_cannot_be_compared_is_refused(odd: gg.Collection, where: Callable[[], Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match="expects"):
        odd.count(where=where())


def test_zero_is_found_whatever_its_sign(odd: gg.Collection) -> None:
    odd.upsert(ids=[1, 2, 3], fields={"f": [0.0, -0.0, 1.0]})
    wheres: list[Any] = ["f = 0", "f = -0.0", "f IN (0)", "f IN (-0.0)", F.f.is_in(0, 5), F.f.is_in(-0.0)]
    assert [odd.count(where=where) for where in wheres] == [2] * 6
    assert odd.count(where="f NOT IN (0)") == 1


@pytest.mark.parametrize(
    "expression",
    [
        F.f < float("inf"), F.f > float("-inf"), F.f == np.float64(1.5), F.i == np.int64(3), F.k == np.str_("x"),
        F.w >= pd.Timestamp("2024-01-02T03:04:05.000006"), F.w >= np.datetime64("2024-01-01T00", "ns"),
    ],
)  # fmt: skip
def test_a_filter_of_numpy_or_pandas_values_survives_its_string(odd: gg.Collection, expression: Any) -> None:
    assert bind(to_sql(expression.node), odd.schema) == bind(expression, odd.schema)
    assert bind("f < 1e400", odd.schema) == bind(F.f < float("inf"), odd.schema)


def test_many_filters_are_joined_by_an_operator(odd: gg.Collection) -> None:
    odd.upsert(ids=list(range(10)), fields={"i": list(range(10))})
    assert odd.count(where=functools.reduce(operator.or_, [F.i == n for n in range(5, 2000)])) == 5
    assert odd.count(where=functools.reduce(operator.and_, [F.i != n for n in range(5, 2000)])) == 5
    assert odd.count(where=F.k.is_in(pa.array(["a"])) | F.i.is_in(pa.array([1, 2]))) == 2


ONES = [[1.0, 1.0]]
FLOAT_MAX = 3e38


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_vectors_too_long_to_be_scored_are_refused_by_row(db: gg.Database, metric: Any) -> None:
    docs = db.create_collection("c", vectors={"v": gg.Dense(2, metric)})
    with pytest.raises(errors.InvalidArgument, match=r"length .* in row 1"):
        docs.upsert(ids=[1, 2], vectors={"v": [[1.0, 1.0], [FLOAT_MAX, FLOAT_MAX]]})
    docs.upsert(ids=[1, 2, 3], vectors={"v": [[6e18, 0.0], [-6e18, 0.0], [0.0, 0.0]]})
    assert sorted(docs.search([6e18, 0.0]).ids) == [1, 2, 3]
    assert np.isfinite(docs.search([[6e18, 0.0], [-6e18, 0.0]]).arrow()["score"].to_numpy()).all()
    with pytest.raises(errors.InvalidArgument, match=r"length .* in query 0"):
        docs.search([FLOAT_MAX, FLOAT_MAX])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_vector_too_short_for_cosine_is_refused_and_zero_scores_zero(db: gg.Database, dtype: Any) -> None:
    docs = db.create_collection("c", vectors={"v": gg.Dense(2, "cosine", dtype)})
    for tiny in ([1e-40, 0.0], [1e-60, 0.0]):
        with pytest.raises(errors.InvalidArgument, match=r"length .* in row 0"):
            docs.upsert(ids=[1], vectors={"v": np.array([tiny])})
        with pytest.raises(errors.InvalidArgument, match=r"length .* in query 0"):
            docs.search(tiny)
    docs.upsert(ids=[1], vectors={"v": [[0.0, 0.0]]})
    assert docs.search([1.0, 0.0]).scores.tolist() == [0.0]
    with pytest.raises(errors.InvalidArgument, match="length"):
        sparse_query({1: FLOAT_MAX})


SERIES: Any = pd.Series


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("f", [1.0, float("nan")]),
        ("f", np.array([1.0, np.nan])),
        ("f", pa.array([1.0, float("nan")])),
        ("f", pl.Series([1.0, float("nan")])),
        ("f", [1.0, float("inf")]),
        ("f", np.array([1.0, -np.inf])),
        ("f", [0, 2**53 + 1]),
        ("f", np.array([0, 2**53 + 1])),
        ("f", pa.array([0, 2**53 + 1])),
        ("f", SERIES([0, 2**53 + 1])),
        ("f", np.array([1, 1 / np.longdouble(3)])),
        ("f", [1, 2j]),
        ("f", SERIES([1.0, "x"])),
        ("i", [1, 1.5]),
        ("i", np.array([1, 1.5])),
        ("i", np.array([1, 2**63], np.uint64)),
        ("i", SERIES([1, "x"])),
        ("ks", [["a"], ["a", None]]),
        ("ks", pa.array([["a"], ["a", None]])),
        ("ints", pa.array([[1], [None]])),
        ("w", [None, np.datetime64(1, "ns")]),
        ("w", np.array(["NaT", 1], "M8[ns]")),
        ("w", pa.array([None, 1], pa.timestamp("ns"))),
        ("w", SERIES([pd.NaT, pd.Timestamp(1)])),
        ("w", [None, pd.Timestamp(1)]),
        ("w", pa.array([None, 10**18], pa.timestamp("us"))),
        ("w", np.array([0, 1], "M8[ps]")),
    ],
)
def test_what_a_field_cannot_hold_is_refused_by_row_whatever_the_container(
    odd: gg.Collection, field: str, values: Any
) -> None:
    with pytest.raises(errors.SchemaMismatch, match=f"{field}' expects .* in row 1"):
        odd.upsert(ids=[1, 2], fields={field: values})
    assert odd.count() == 0


@pytest.mark.parametrize(
    ("field", "values", "stored"),
    [
        ("f", np.array([1, 2], ">f8"), [1.0, 2.0]),
        ("f", np.array([1, 2], ">i4"), [1.0, 2.0]),
        ("f", np.array([1, 2], np.longdouble), [1.0, 2.0]),
        ("f", [2**60, np.float32(0.5)], [2.0**60, 0.5]),
        ("f", np.array([2**60, 1]), [2.0**60, 1.0]),
        ("f", SERIES([1.0, float("nan")]), [1.0, None]),
        ("f", [pd.NA, 1], [None, 1.0]),
        ("i", [1.0, None], [1, None]),
        ("i", np.array([1.0, 2.0]), [1, 2]),
        ("w", np.array([24, "NaT"], "M8[h]"), [dt.datetime(1970, 1, 2, tzinfo=dt.UTC), None]),
        ("w", [pd.NaT, dt.date(1970, 1, 2)], [None, dt.datetime(1970, 1, 2, tzinfo=dt.UTC)]),
        ("w", pa.array([1, None], pa.date32()), [dt.datetime(1970, 1, 2, tzinfo=dt.UTC), None]),
        ("w", pa.array(["1970-01-02", None]), [dt.datetime(1970, 1, 2, tzinfo=dt.UTC), None]),
        ("k", SERIES(["a", float("nan")], dtype=object), ["a", None]),
        ("k", SERIES(["a", None], dtype="category"), ["a", None]),
        ("ks", pa.array([[], None], pa.list_(pa.null())), [[], None]),
    ],
)
def test_what_loses_nothing_is_stored_whatever_the_container(
    odd: gg.Collection, field: str, values: Any, stored: list[Any]
) -> None:
    odd.upsert(ids=[1, 2], fields={field: values})
    assert [row[field] for row in odd.scan()] == stored


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


FRAME = pd.DataFrame({"k": ["a"]})


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"i": [1, "x"]}),
        pd.DataFrame([[1, 2]], columns=["i", "i"]),
        pd.DataFrame({"i": [1]}, index=pd.Index(["a"], name="key")),
        pa.table([pa.array([1]), pa.array([2])], names=["i", "i"]),
        pd.Series([1]),
        pl.Series([1]),
        [pa.record_batch({"i": [1]}), pa.record_batch({"k": ["a"]})],
        "/",
        "/nope",
        [{"j": nested(100_000)}],
        [{"v": [1.0, None]}],
        [{"v": nested(100_000)}],
        [{"i": nested(100_000)}],
        [1],
        7,
        b"x",
    ],
)
def test_rows_that_cannot_be_taken_are_one_typed_error(odd: gg.Collection, rows: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="expects") as caught:
        odd.upsert(rows)
    assert len(str(caught.value).splitlines()) == 1
    assert odd.count() == 0


@pytest.mark.parametrize(
    "given",
    [
        {"fields": ["i"]},
        {"vectors": ["v"]},
        {"vectors": {"v": np.array([[1, 2j]])}},
        {"vectors": {"v": np.array([[1, 2]], dtype="M8[s]")}},
        {"fields": {"i": {1, 2}}},
        {"fields": {"f": np.array([1j])}},
        {"ids": 3},
        {"ids": [pd.NaT]},
    ],
)
def test_columns_that_cannot_be_taken_are_one_typed_error(odd: gg.Collection, given: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match="expects"):
        odd.upsert(**{"ids": [1], **given})
    assert odd.count() == 0


def test_a_frame_gives_its_index_named_id_and_its_missing_values(odd: gg.Collection) -> None:
    frame = pd.DataFrame({"id": ["a", "b", None], "v": [ONES[0], None, ONES[0]]})
    assert odd.upsert(frame).inserted == 3
    assert odd.get(["a", "b"], include_vectors=True)[1]["v"] is None  # type: ignore[index]
    odd.upsert(pd.DataFrame({"id": ["i"], "i": [5]}).set_index("id"))
    assert odd.get("i", fields=["i"]) == {"id": "i", "i": 5}
    odd.upsert(pl.DataFrame({"id": ["p"], "v": ONES}))
    assert odd.search(np.array([1, 1], ">f4"), k=9).ids.count("p") == 1


def test_ids_are_taken_from_any_array(odd: gg.Collection) -> None:
    odd.upsert(ids=["a", "b"], fields={"i": [1, 2]})
    for ids in (pa.array(["b", "x"]), np.array(["b", "x"]), SERIES(["b", "x"]), pl.Series(["b", "x"])):
        assert odd.get(ids, fields=[]) == [{"id": "b"}, None]  # type: ignore[arg-type]
    assert odd.update(ids=pa.array(["b"]), fields={"i": [3]}).updated == 1
    assert odd.delete(ids=pa.array(["b", "x"])).missing == 1
    assert odd.count(where=F.i.is_in(pa.array([1, 3]))) == 1


def test_errors_in_a_stream_name_the_row_of_the_whole_stream(odd: gg.Collection, tmp_path: Path) -> None:
    table = pa.table({"i": pa.array([1.0] * 10_002 + [1.5])})
    pq.write_table(table, tmp_path / "rows.parquet")
    streams: list[Any] = [
        table.to_reader(max_chunksize=700), iter(table.to_batches(max_chunksize=700)), tmp_path / "rows.parquet",
        ({"i": value} for value in table["i"].to_pylist()),
    ]  # fmt: skip
    for stream in streams:
        with pytest.raises(errors.SchemaMismatch, match="in row 10002"):
            odd.upsert(stream)
    with pytest.raises(errors.InvalidArgument, match="row 10000: an id"):
        odd.upsert({"id": n if n < 10_000 else 0.5} for n in range(10_001))
    with pytest.raises(errors.InvalidArgument, match="in row 10000"):
        odd.upsert({"v": ONES[0] if n < 10_000 else [np.nan, 1.0]} for n in range(10_001))
