"""What the door refuses, and what it takes: each wrong value is one clear error, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import errors

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
