"""A collection is verified alone: its own damage is found and that of others is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gingham as gg
from gingham import errors
from gingham.storage.records import child_key, collection_key, id_key, seal_record

if TYPE_CHECKING:
    import numpy as np

    from gingham.storage.writes import WriteSession

NAMES = ("first", "second", "third")


@pytest.fixture
def library(db: gg.Database, rng: np.random.Generator, small_bounds: None) -> gg.Database:
    """Three collections with segments, tombstones and a tail each."""
    for name in NAMES:
        docs = db.create_collection(name, fields={"n": gg.Int(), "t": gg.Text(bm25=True)}, vectors={"v": gg.Dense(4)})
        for start in range(0, 90, 18):
            ids = list(range(start, start + 18))
            docs.upsert(ids=ids, vectors={"v": rng.standard_normal((18, 4))}, fields={"t": [f"text {i}" for i in ids]})
        assert docs.maintain(timeout=60)
        docs.delete(ids=[3, 40])
        docs.upsert(ids=["tail"], fields={"n": [1]})
    return db


def keys_of(session: WriteSession, table: str, cid: int) -> list[bytes]:
    keys = (bytes(key) for key, _ in session.txn.cursor(db=session.env.table(table)))
    prefix = collection_key(cid) if table == "catalog" else id_key(cid, b"")
    return [key for key in keys if key.startswith(prefix)]


def flip(session: WriteSession, table: str, key: bytes) -> None:
    value = bytearray(session.txn.get(key, db=session.env.table(table)))
    value[-1] ^= 1
    session.txn.put(key, bytes(value), db=session.env.table(table))


def damage(session: WriteSession, kind: str, cid: int) -> None:
    if kind == "blob":
        (part, *_) = session.segments(session.collection_by_id(cid))
        flip(session, "blobs", next(iter(part.record.blobs())).key.to_bytes(8, "big"))
    elif kind == "stray":
        key = child_key(cid, 1 << 40)
        session.txn.put(key, seal_record(key, b"x"), db=session.env.table("segments"))
    elif kind == "lost id":
        session.txn.delete(keys_of(session, "ids", cid)[5], db=session.env.table("ids"))
    else:
        flip(session, kind, keys_of(session, kind, cid)[0])


def test_a_healthy_collection_reads_its_own_records(library: gg.Database) -> None:
    whole = library.verify()
    each = [library[name].verify() for name in NAMES]
    assert whole.ok
    assert all(report.ok for report in each)
    # What is left is the record of the store.
    assert sum(report.records for report in each) == whole.records - 1
    assert sum(report.blob_bytes for report in each) == whole.blob_bytes
    seen: list[int] = []
    library["second"].verify(progress=seen.append)
    assert seen[-1] == each[1].blob_bytes


@pytest.mark.parametrize("kind", ["catalog", "tail", "segments", "tombstones", "ids", "blob", "stray", "lost id"])
def test_damage_is_that_of_its_collection(library: gg.Database, kind: str) -> None:
    docs: dict[str, Any] = {name: library[name] for name in NAMES}
    library._store.write(lambda session: damage(session, kind, docs["second"]._cid))
    assert docs["first"].verify().ok
    assert docs["third"].verify().ok
    found = docs["second"].verify().damage
    assert found
    whole = library.verify().damage
    assert set(map(str, found)) <= set(map(str, whole))
    # Blobs of a collection that cannot be read have no name left; only the whole can tell.
    assert {d for d in map(str, whole) if not d.endswith("no segment names it")} == set(map(str, found))


def test_a_snapshot_verifies_what_it_sees_and_a_dropped_collection_is_gone(library: gg.Database) -> None:
    docs = library["second"]
    with library.snapshot() as then:
        docs.delete(where="n = 1")
        assert then["second"].verify().ok
    library.drop_collection("second")
    with pytest.raises(errors.CollectionNotFound, match="has been dropped"):
        docs.verify()
    assert library["third"].verify().ok
