"""The maintenance thread, and what writes leave to it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gingham as gg
from gingham import errors
from gingham.storage import maintenance, rewrite, writes
from gingham.storage.gate import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gingham.storage.store import Store


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


def killed_reader(path: Path) -> None:
    """A process that dies with a snapshot open; its slot pins the pages of that commit."""
    code = f"""
        import gingham as gg, os, signal
        db = gg.open({str(path)!r}, mode="r")
        snapshot = db.snapshot()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_reader_does_not_let_the_file_grow(db: gg.Database) -> None:
    docs = db.create_collection("c", vectors={"v": gg.Dense(64)})
    vectors = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)

    def cycles(count: int) -> int:
        for _ in range(count):
            docs.upsert(ids=list(range(3000)), vectors={"v": vectors})
            docs.delete(ids=list(range(3000)))
            db.maintain()
        return db.stats().file_bytes

    cycles(3)
    killed_reader(db.path)
    before = cycles(3)
    assert cycles(12) <= 1.3 * before


def test_slots_of_dead_readers_are_cleared_when_a_store_is_opened(db: gg.Database) -> None:
    db.create_collection("c").upsert(ids=[1])
    path = db.path
    db.close()
    with gg.open(path, mode="r") as first:
        assert first["c"].count() == 1
        killed_reader(path)
        code = f"import gingham as gg; gg.open({str(path)!r}, mode='r')"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert first._store._current().env.clear_dead_readers() == 0


def test_maintenance_outlives_any_error_and_says_what_it_was(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    docs = db.create_collection("c")
    docs.upsert(ids=[1])
    assert db.maintain(timeout=10)

    def broken(*_: object, **__: object) -> bool:
        raise OSError(errno.ENFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "rewrite", broken)
        assert db.maintain(timeout=10)
        error = db._store.maintenance.last_error
        assert isinstance(error, errors.Unavailable)
        assert "too many open files" in str(error)
        assert isinstance(error.__cause__, OSError)
    docs.upsert(ids=[2])
    assert db.maintain(timeout=10)
    assert db._store.maintenance.last_error is None
    caplog.clear()


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, errors.StoreFull), (errno.EMFILE, errors.Unavailable)])
@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_lock_file_that_cannot_be_used_is_a_typed_error_and_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(error, match="lock" if code == errno.EMFILE else "full"):
            lock.try_acquire()
    assert other.try_acquire()
    assert not lock.try_acquire()
    other.release()
    assert lock.try_acquire()
    for one in (lock, other):
        one.close()


def test_writes_and_maintenance_go_on_once_a_full_disk_has_room(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    docs = db.create_collection("c")
    assert db.maintain(timeout=10)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(errors.StoreFull):
            docs.upsert(ids=[1])
        assert db.maintain(timeout=10)
        assert isinstance(db._store.maintenance.last_error, errors.StoreFull)
    docs.upsert(ids=[1])
    assert db.maintain(timeout=10)
    assert db._store.maintenance.last_error is None
    caplog.clear()


def test_a_crowd_of_segments_is_merged_in_parts_that_are_allowed(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rewrite, writes):
        monkeypatch.setattr(module, "SEAL_ROWS", 5)
    monkeypatch.setattr(writes, "DIRECT_ROWS", 10)
    monkeypatch.setattr(rewrite, "MAX_SEGMENT_ROWS", 400)
    docs = db.create_collection("c")
    for i in range(20):
        docs.upsert(ids=list(range(i * 64, i * 64 + 64)))
    assert db.maintain(timeout=20)
    assert docs.stats().segments <= 7 + 1280 // 384 + 1
    assert docs.count() == 1280
    assert db.verify().ok


def test_a_bulk_write_does_not_wait_for_merges_that_cannot_be_made(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "DIRECT_ROWS", 10)
    monkeypatch.setattr(rewrite, "MAX_SEGMENT_ROWS", 15)
    monkeypatch.setattr(rewrite, "BUSY_SEGMENTS", 4)
    monkeypatch.setattr(maintenance, "CROWDED_SEGMENTS", 8)
    docs = db.create_collection("c")
    started = time.monotonic()
    for i in range(16):
        docs.upsert(ids=list(range(i * 10, i * 10 + 10)))
    assert time.monotonic() - started < 5
    assert docs.stats().segments == 16


def test_a_bulk_write_waits_while_a_crowd_of_segments_is_merged(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "DIRECT_ROWS", 10)
    monkeypatch.setattr(rewrite, "MERGE_FANOUT", 3)
    monkeypatch.setattr(rewrite, "BUSY_SEGMENTS", 1000)
    monkeypatch.setattr(maintenance, "CROWDED_SEGMENTS", 8)
    monkeypatch.setattr(maintenance, "QUIET_SECONDS", 1000)
    docs = db.create_collection("c")
    for i in range(40):
        docs.upsert(ids=list(range(i * 10, i * 10 + 10)))
        assert docs.stats().segments < 8
    assert docs.count() == 400


def test_calls_that_wait_for_the_writer_share_a_commit(db: gg.Database) -> None:
    docs = db.create_collection("c", fields={"n": gg.Int()})
    store, writers = db._store, 24

    def commits() -> int:
        with store.read() as session:
            return int(session.txn.id())

    threads = [threading.Thread(target=docs.upsert, kwargs={"ids": [n], "fields": {"n": [n]}}) for n in range(writers)]
    before = commits()
    store.writer.pause()
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    store.writer.resume()
    for thread in threads:
        thread.join()
    assert docs.count() == writers
    assert 1 <= commits() - before <= writers // 3


def test_one_process_at_a_time_does_maintenance_and_the_next_takes_over_from_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "SEAL_ROWS", 20)
    monkeypatch.setattr(writes, "SEAL_ROWS", 20)
    with gg.open(tmp_path / "db") as db:
        docs = db.create_collection("c")
        code = f"""
            import pathlib, sys, gingham as gg
            from gingham.storage.gate import FileLock
            lease = FileLock(pathlib.Path({str(db.path)!r}) / "maintenance.lock")
            while not lease.try_acquire():
                pass
            print("held", flush=True)
            sys.stdin.read()
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            docs.upsert(ids=list(range(50)))
            assert db.maintain(timeout=10)
            assert (docs.stats().segments, docs.stats().tail_rows) == (0, 50)
            child.kill()
        assert db.maintain(timeout=10)
        assert (docs.stats().segments, docs.stats().tail_rows) == (1, 0)


def test_a_damaged_collection_does_not_keep_the_others_from_being_sealed(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = db.create_collection("a"), db.create_collection("b")
    monkeypatch.setattr(rewrite, "SEAL_ROWS", 20)
    monkeypatch.setattr(writes, "SEAL_ROWS", 20)
    real = maintenance.rewrite

    def broken(store: Store, cid: int, check: Callable[[], None], *, quiet: bool) -> bool:
        if cid == first._cid:
            raise errors.ChecksumMismatch("blob 1")
        return real(store, cid, check, quiet=quiet)

    monkeypatch.setattr(maintenance, "rewrite", broken)
    second.upsert(ids=list(range(50)))
    assert db.maintain(timeout=10)
    assert (second.stats().segments, second.stats().tail_rows) == (1, 0)
    assert isinstance(db._store.maintenance.last_error, errors.ChecksumMismatch)
    caplog.clear()


@pytest.mark.parametrize(("mib", "dim", "batch"), [(1, 8, 50), (4, 128, 500), (24, 256, 3000)])
def test_a_full_store_stays_under_its_cap_and_can_delete_and_shrink(
    tmp_path: Path, mib: int, dim: int, batch: int
) -> None:
    cap = mib << 20
    vectors = np.random.default_rng(0).standard_normal((batch, dim)).astype(np.float32)
    with gg.open(tmp_path / "db", max_size=cap) as db:
        docs = db.create_collection("c", fields={"n": gg.Int()}, vectors={"v": gg.Dense(dim)})

        def fill(first: int) -> int:
            count = 0
            with pytest.raises(errors.StoreFull, match="max_size"):
                while True:
                    ids = list(range(first + count, first + count + batch))
                    docs.upsert(ids=ids, vectors={"v": vectors}, fields={"n": ids})
                    count += batch
            assert db.stats().file_bytes <= cap
            return count

        rows = fill(0)
        assert rows * dim * 4 > cap // 8
        with pytest.raises(errors.StoreFull):
            for n in range(200):
                docs.update(ids=list(range(batch)), fields={"n": [n] * batch})
        assert db.stats().file_bytes <= cap
        assert docs.count() == rows
        for start in range(0, rows, 500):
            docs.delete(ids=list(range(start, min(rows, start + 500))))
        assert docs.count() == 0
        db.maintain(timeout=20)
        assert fill(rows) > 0
        assert db.verify().ok
        assert db.stats().file_bytes <= cap
    assert (next((tmp_path / "db").glob("gen*")) / "data.mdb").stat().st_size <= cap
