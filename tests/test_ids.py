"""Ids of every type come back as what they were, whatever carries the rows."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

import gingham as gg
from gingham import errors
from gingham.types import decode_ids, encode_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDS: dict[str, list[Any]] = {
    "str": ["a", "1", str(uuid.UUID(int=7)), "ä" * 50],
    "int": [0, -1, 2**63 - 1, -(2**63)],
    "uuid": [uuid.UUID(int=n) for n in (0, 1, 2**128 - 1, 0x61626364656667686970 << 40)],
    "bytes": [b"a", b"\xff\x00", bytes(16), uuid.UUID(int=1).bytes],
}


@pytest.fixture(params=IDS)
def given(request: pytest.FixtureRequest, db: gg.Database) -> tuple[gg.Collection, gg.Collection, list[Any]]:
    """A collection with ids of one type, an empty one of the same schema, and the ids."""
    ids = IDS[request.param]
    schema: dict[str, Any] = {"fields": {"n": gg.Int()}, "vectors": {"v": gg.Dense(2), "s": gg.Sparse()}}
    source, target = db.create_collection("source", **schema), db.create_collection("target", **schema)
    sparse = [{1: 0.5}, None, {}, {2: 1.0, 9: 0.25}]
    source.upsert(ids=ids, vectors={"v": [[1, 2], None, [3, 4], [5, 6]], "s": sparse}, fields={"n": [1, None, 3, 4]})
    return source, target, ids


def rows_of(docs: gg.Collection) -> list[dict[str, Any]]:
    rows = list(docs.scan(include_vectors=True))
    return [{**row, "v": None if row["v"] is None else row["v"].tolist()} for row in rows]


WAYS: dict[str, Callable[[gg.Collection, Path], Any]] = {
    "path": lambda docs, path: docs.to_parquet(path) and path,
    "table": lambda docs, path: docs.to_parquet(path) and pq.read_table(path),
    "batches": lambda docs, path: docs.scan(include_vectors=True, batch_size=3),
    "reader": lambda docs, path: pa.RecordBatchReader.from_batches(
        next(docs.scan(include_vectors=True, batch_size=3)).schema, docs.scan(include_vectors=True, batch_size=3)
    ),
    "dicts": lambda docs, path: docs.scan(include_vectors=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_leave_come_back_the_same(given: Any, tmp_path: Path, way: str) -> None:
    source, target, ids = given
    assert target.upsert(WAYS[way](source, tmp_path / "rows.parquet")).inserted == 4
    assert rows_of(target) == rows_of(source)
    assert [target.get(i, fields=["n"]) for i in ids] == [source.get(i, fields=["n"]) for i in ids]


def test_hits_in_a_table_or_a_frame_keep_their_ids(given: Any) -> None:
    source, target, _ = given
    hits = source.search([1.0, 0.0])
    batch = source.search([[1.0, 0.0], [0.0, 1.0]], k=2)
    assert hits.pandas()["id"].tolist() == hits.ids
    assert batch.pandas()["id"].tolist() == [i for ids in batch.ids for i in ids]
    for table in (hits.arrow().drop_columns("score"), batch.arrow().drop_columns(["query", "score"])):
        target.delete(where="n IS NULL OR n IS NOT NULL")
        target.upsert(table)
        assert {row["id"] for row in target.scan()} == set(hits.ids)
    assert source.search([1.0, 0.0], where="n > 9").arrow().num_rows == 0


def test_an_id_column_that_says_uuid_and_holds_others_is_refused(given: Any) -> None:
    _, target, _ = given
    field = pa.field("id", pa.binary(), metadata={"gingham.id": "uuid"})
    with pytest.raises(errors.InvalidArgument, match="the column 'id' expects"):
        target.upsert(pa.table([pa.array([b"ab"], pa.binary())], schema=pa.schema([field])))
    made = pa.table([pa.array([None, bytes(16)], pa.binary())], schema=pa.schema([field]))
    target.upsert(made)
    assert [type(row["id"]) for row in target.scan()] == [uuid.UUID] * 2


def test_ids_of_several_types_are_not_exported_and_nothing_is_left(given: Any, tmp_path: Path) -> None:
    source, _, ids = given
    source.upsert(ids=["x" if not isinstance(ids[0], str) else 1])
    with pytest.raises(errors.InvalidArgument, match="ids of one kind"):
        source.to_parquet(tmp_path / "rows.parquet")
    assert list(tmp_path.glob("*.parquet")) == []


def test_a_file_of_ingest_keeps_uuids(tmp_path: Path, db: gg.Database) -> None:
    from gingham.files import infer_schema, read_rows

    docs = db.create_collection("docs", vectors={"v": gg.Dense(2)})
    docs.upsert(ids=IDS["uuid"], vectors={"v": np.ones((4, 2))})
    docs.to_parquet(tmp_path / "rows.parquet")
    copy = db.create_collection("copy", vectors=infer_schema(tmp_path / "rows.parquet", "cosine").vectors)
    copy.upsert(read_rows(tmp_path / "rows.parquet"))
    assert [row["id"] for row in copy.scan()] == sorted(IDS["uuid"])


@drawn(
    st.lists(st.integers(0, 2**64 - 1), min_size=33, max_size=50), st.sampled_from([-1, 2**64, "a" * 9, b"b" * 9, "c"])
)
def test_many_ids_decode_as_each_of_them_alone(numbers: list[int], other: Any) -> None:
    for ids in (numbers, [*numbers, other]):
        assert decode_ids([encode_id(one) for one in ids]) == ids
