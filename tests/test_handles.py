"""Handles, processes, rights and full disks: who may open a database, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

import gingham as gg
from gingham import errors
from rows import fill

if TYPE_CHECKING:
    from pathlib import Path


def test_closed_handles_refuse_and_other_handles_go_on(db: gg.Database, docs: gg.Collection) -> None:
    second = gg.open(db.path)
    db.close()
    db.close()
    with pytest.raises(errors.Closed):
        docs.count()
    assert second["docs"].count() == 0
    second.close()


def test_folders_that_are_not_ours_and_newer_files_are_refused(tmp_path: Path, db: gg.Database) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(errors.NotAStore, match="file"):
        gg.open(tmp_path / "other")
    (tmp_path / "plain").touch()
    with pytest.raises(errors.NotAStore):
        gg.open(tmp_path / "plain")
    for kind in ({"mode": "r"}, {"create": False}):
        with pytest.raises(errors.NotFound):
            gg.open(tmp_path / "none", **kind)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument):
        gg.open(tmp_path / "none", durability="maybe")  # type: ignore[arg-type]
    db._store.write(lambda session: setattr(session.store, "format", 99))
    path = db.path
    db.close()
    with pytest.raises(errors.FormatTooNew, match="99"):
        gg.open(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_reader_needs_no_right_to_write_the_data(db: gg.Database, docs: gg.Collection) -> None:
    fill(docs)
    path = db.path
    db.close()
    for folder in path.parents:
        if folder.name.startswith(("pytest-", "test_")):
            folder.chmod(0o755)
    lock = next(path.glob("generation-*")) / "lock.mdb"
    lock.chmod(0o666)
    assert as_nobody(path) == "40 ReadOnly PermissionDenied"
    lock.chmod(0o644)
    assert as_nobody(path) == "PermissionDenied"


def as_nobody(path: Path) -> str:
    """What a process without rights gets."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = []
        try:
            os.setuid(65534)
            with gg.open(path, mode="r") as reader:
                said.append(str(reader["docs"].count()))
                try:
                    reader["docs"].delete(ids=["r000"])
                except errors.ReadOnly:
                    said.append("ReadOnly")
            gg.open(path)["docs"].delete(ids=["r000"])
        except Exception as error:
            said.append(type(error).__name__)
        finally:
            os.write(write, " ".join(said).encode())
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read()


def test_a_second_writer_is_told_who_writes(db: gg.Database, docs: gg.Collection) -> None:
    code = f"""
        import gingham as gg, sys, time
        db = gg.open({str(db.path)!r})
        db._store.gate.acquire(1)
        print("held", flush=True)
        sys.stdin.readline()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "held\n"
        db._store.options = msgspec_replace(db._store.options, lock_timeout=0.2)
        with pytest.raises(errors.Locked, match=str(child.pid)) as caught:
            docs.upsert(ids=["a"])
        assert caught.value.pid == child.pid
        assert docs.count() == 0
        child.stdin.write("\n")
        child.stdin.close()
        child.wait()
    docs.upsert(ids=["a"])


def msgspec_replace(options: Any, **changes: Any) -> Any:
    import dataclasses

    assert not isinstance(options, msgspec.Struct)
    return dataclasses.replace(options, **changes)


def test_a_full_store_says_so_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db", max_size=4 << 20) as db:
        docs = db.create_collection("c", vectors={"v": gg.Dense(128)})
        vectors = np.random.default_rng(0).standard_normal((500, 128)).astype(np.float32)
        stored = 0
        with pytest.raises(errors.StoreFull, match="max_size"):
            for first in range(0, 100_000, 500):
                docs.upsert(ids=list(range(first, first + 500)), vectors={"v": vectors})
                stored += 500
        assert 2000 < stored < 10_000
        assert docs.count() == stored
        assert db.verify().ok
        docs.delete(ids=list(range(stored)))
        docs.maintain()
        assert docs.upsert(ids=list(range(500)), vectors={"v": vectors}).inserted == 500
        assert docs.search(vectors[7], k=1).ids == [7]


def test_a_full_disk_says_so_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    code = f"""
        import resource, signal, numpy as np, gingham as gg
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        db = gg.open({str(tmp_path / "db")!r})
        docs = db.create_collection("c", vectors={{"v": gg.Dense(128)}})
        v = np.random.default_rng(0).standard_normal((500, 128)).astype("f4")
        docs.upsert(ids=list(range(500)), vectors={{"v": v}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
        stored = 500
        try:
            while True:
                docs.upsert(ids=list(range(stored, stored + 500)), vectors={{"v": v}})
                stored += 500
        except gg.errors.StoreFull:
            print("full")
        assert docs.count() == stored, (docs.count(), stored)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        docs.upsert(ids=list(range(stored, stored + 500)), vectors={{"v": v}})
        assert docs.count() == stored + 500 and db.verify().ok
        db.close()
        print("good")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["full", "good"], done.stderr


def test_fifty_cycles_of_adding_and_deleting_keep_the_file_small(db: gg.Database) -> None:
    docs = db.create_collection("c", vectors={"v": gg.Dense(64)})
    vectors = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    sizes = []
    for _ in range(51):
        docs.upsert(ids=list(range(3000)), vectors={"v": vectors})
        docs.delete(ids=list(range(3000)))
        sizes.append(db.stats().file_bytes)
    assert sizes[-1] <= 1.3 * sizes[0]


def test_a_snapshot_expires_and_says_so(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db", snapshot_timeout=0.2) as db:
        db.create_collection("c").upsert(ids=[1])
        snapshot = db.snapshot()
        assert snapshot["c"].count() == 1
        time.sleep(0.25)
        with pytest.raises(errors.SnapshotExpired, match="take a new one"):
            snapshot["c"]


def test_a_forked_child_reads_and_writes_and_its_parent_goes_on(docs: gg.Collection) -> None:
    fill(docs)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            docs.delete(ids=["r000"])
            os.write(write, str(docs.count()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"39"
    assert docs.count() == 39
    assert docs.delete(ids=["r001"]).deleted == 1


def test_threads_that_write_small_rows_share_commits_and_lose_none(docs: gg.Collection, db: gg.Database) -> None:
    def work(name: int) -> None:
        for i in range(40):
            docs.upsert(ids=[f"{name}-{i}"], fields={"year": [i]})
            assert docs.get(f"{name}-{i}") is not None

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert docs.count() == 160
    assert db.verify().ok


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_unsynced_stores_open_again_and_are_verified_after_an_unclean_boot(
    tmp_path: Path, durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db"
    with gg.open(path, durability=durability) as db:
        db.create_collection("c").upsert(ids=[1])
        with pytest.raises(errors.InvalidArgument, match="durability"):
            gg.open(path)
    with gg.open(path) as db:
        assert db["c"].count() == 1
        db._store.write(lambda session: setattr(session.store, "unsynced_boot", "another boot"))
    seen = []
    from gingham.storage import verify

    real = verify.verify_session
    monkeypatch.setattr(verify, "verify_session", lambda session: seen.append(1) or real(session))
    with gg.open(path) as db:
        assert db["c"].count() == 1
    assert seen == [1]


def test_backup_and_restore_refuse_a_taken_path_and_a_damaged_source(
    db: gg.Database, docs: gg.Collection, tmp_path: Path
) -> None:
    fill(docs)
    backup = db.backup(tmp_path / "backup")
    with pytest.raises(errors.AlreadyExists):
        db.backup(backup)
    with pytest.raises(errors.AlreadyExists):
        gg.restore(backup, backup)
    with pytest.raises(errors.NotFound):
        gg.restore(tmp_path / "none", tmp_path / "x")
    data = next(backup.glob("generation-*")) / "data.mdb"
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(errors.Corrupt):
        gg.restore(backup, tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "x"))) == []
