"""What the door refuses, and what it takes: each wrong value is one clear error, and nothing is changed."""

from __future__ import annotations

import datetime as dt
import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import gingham as gg
from gingham import F, errors
from gingham.query.ast import to_sql
from gingham.query.bind import bind

if TYPE_CHECKING:
    from collections.abc import Callable


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
