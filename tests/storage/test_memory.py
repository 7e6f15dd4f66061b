"""Memory is bounded by what the user says, not by the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import gingham as gg
from gingham.storage import writes
from gingham.storage.columns import join, pack_column, unpack_column

SCRIPT = Path(__file__).with_name("memory.py")
LINUX = Path("/proc/self/status").exists()
MIB = 1 << 20


@pytest.mark.skipif(not LINUX, reason="anonymous memory is read from /proc")
@pytest.mark.parametrize(("budget", "total"), [(16, 120), pytest.param(64, 2000, marks=pytest.mark.soak)])
def test_merging_and_verifying_stay_within_the_memory_budget(tmp_path: Path, budget: int, total: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "db"), str(budget * MIB), str(total * MIB)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    merging, verifying, before, after, rows = map(int, done.stdout.split())
    assert rows * 2048 > 4 * budget * MIB
    assert after < before
    assert merging < (budget + 16) * MIB
    assert verifying < (budget + 16) * MIB


def test_a_batch_too_large_for_one_segment_becomes_several(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_SEGMENT_ROWS", 1000)
    monkeypatch.setattr(writes, "MAX_BLOB_BYTES", 50_000)
    docs = db.create_collection("c", fields={"t": gg.Text()}, vectors={"v": gg.Dense(2)})
    vectors = np.random.default_rng(0).standard_normal((2500, 2)).astype(np.float32)
    texts = [f"{i:05d}" * (40 if i < 500 else 2) for i in range(2500)]
    assert docs.upsert(ids=list(range(2500)), vectors={"v": vectors}, fields={"t": texts}).inserted == 2500
    assert docs.stats().segments > 4
    assert [row["t"] for row in docs.scan()] == texts
    assert docs.search(vectors[1234], k=1).ids == [1234]
    with db._store.read() as session:
        record = session.collection("c")
        for part in session.segments(record):
            assert part.record.fields["t"].length < 52_000
    assert db.verify().ok


def test_dictionaries_are_joined_without_being_decoded_and_lose_unused_values() -> None:
    a = pa.array(["x", None, "gone", "x"] * 5).dictionary_encode().take(pa.array([0, 1, 3, 4, 7]))
    b = pa.array(["y", "x", None])
    joined = join([a, b], pa.string())
    assert isinstance(joined, pa.DictionaryArray)
    stored = unpack_column(memoryview(pack_column(joined)))
    assert stored.to_pylist() == ["x", None, "x", "x", "x", "y", "x", None]
    assert stored.dictionary.to_pylist() == ["x", "y"]
    assert pack_column(join([b, b], pa.string())) is not None
    long = pa.array(["z" * 1000] * 6 + [str(i) for i in range(9)]).dictionary_encode()
    assert isinstance(unpack_column(memoryview(pack_column(long))), pa.DictionaryArray)
    nothing = pa.array([None, None], pa.string()).dictionary_encode()
    assert unpack_column(memoryview(pack_column(nothing))).to_pylist() == [None, None]


def test_ids_and_rows_that_do_not_fit_are_reported(db: gg.Database) -> None:
    docs = db.create_collection("c")
    docs.upsert(ids=list(range(100)))

    def swap(session: writes.WriteSession) -> None:
        cursor = session.txn.cursor(db=session.env.table("ids"))
        pairs = [(bytes(k), bytes(v)) for k, v in cursor]
        (a, _), (b, _) = pairs[:2]
        for key, row in ((a, 1), (b, 0)):
            session.txn.put(key, writes.seal_row(key, row), db=session.env.table("ids"))

    db._store.write(swap)
    assert "does not name its row" in str(db.verify().damage[0])


def test_ids_without_a_collection_are_reported(db: gg.Database) -> None:
    db.create_collection("c").upsert(ids=[1])

    def stray(session: writes.WriteSession) -> None:
        key = writes.id_key(77, b"sx")
        session.txn.put(key, writes.seal_row(key, 5), db=session.env.table("ids"))

    db._store.write(stray)
    assert [str(d) for d in db.verify().damage] == ["ids of collection number 77: no collection has this number"]
