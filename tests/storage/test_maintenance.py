"""The maintenance thread, and what writes leave to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import gingham as gg
from gingham import errors

if TYPE_CHECKING:
    from pathlib import Path


def test_blobs_that_take_the_numbers_of_an_aborted_write_are_checked_anew(db: gg.Database) -> None:
    a = db.create_collection("a", vectors={"v": gg.Dense(4)})
    b = db.create_collection("b", fields={"t": gg.Text()})
    db.create_collection("gone")
    with pytest.raises(errors.CollectionNotFound), db.transaction() as change:
        change["a"].upsert(ids=list(range(3000)), vectors={"v": np.ones((3000, 4))})
        change["a"].delete(ids=[1])
        change["gone"].upsert(ids=[1])
        db.drop_collection("gone")
    texts = [f"{i:04d}" * 500 for i in range(3000)]
    b.upsert(ids=list(range(3000)), fields={"t": texts})
    assert a.count() == 0
    assert [row["t"] for row in b.scan()] == texts
    assert db.verify().ok
