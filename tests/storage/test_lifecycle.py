"""Opening, closing, snapshots, forks and interrupts: whatever happens between calls, the store stays usable."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import errors
from gingham.parallel import start_thread
from gingham.storage import generation
from gingham.storage.boot import boot_id
from gingham.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def child_of(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def in_fork(work: Callable[[], object]) -> str:
    """What ``work`` returns or raises in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def in_time(work: Callable[[], object], seconds: float = 8.0) -> None:
    """Fail where ``work`` does not end, instead of hanging."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store of five rows."""
    with gg.open(tmp_path / "db") as db:
        db.create_collection("c", fields={"x": gg.Int()}).upsert(ids=list(range(5)), fields={"x": list(range(5))})
    return tmp_path / "db"


# opening ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "generation-000009\n", "generation-000001.new\n", "\udcff", None])
def test_a_store_whose_current_names_nothing_opens_and_the_next_write_mends_it(path: Path, text: str | None) -> None:
    current = path / "CURRENT"
    if text is None:
        current.unlink()
    else:
        current.write_bytes(text.encode("utf-8", "surrogateescape"))
    for mode in ("r", "w"):
        with gg.open(path, mode=mode) as db:  # type: ignore[arg-type]
            assert db["c"].count() == 5
    with gg.open(path) as db:
        db["c"].upsert(ids=[7])
    assert current.read_text() == "generation-000001\n"
    assert sorted(p.name for p in path.iterdir() if p.name.startswith("CURRENT")) == ["CURRENT"]


def test_a_newer_generation_that_nothing_superseded_is_not_taken_for_the_one_in_use(path: Path) -> None:
    import shutil

    shutil.copytree(path / "generation-000001", path / "generation-000002")
    with gg.open(path) as db:
        db["c"].upsert(ids=[7])
    (path / "CURRENT").unlink()
    with gg.open(path) as db:
        assert db["c"].count() == 6


def test_opening_after_a_stopped_compaction_changes_nothing_and_the_next_write_does(path: Path) -> None:
    code = f"import gingham as gg; gg.open({str(path)!r}).compact()"
    done = subprocess.run(child_of(code), env={**os.environ, "GINGHAM_CRASH_AT": "compact superseded"}, check=False)
    assert done.returncode == -signal.SIGKILL
    for mode in ("r", "w"):
        with gg.open(path, mode=mode) as db:  # type: ignore[arg-type]
            assert db["c"].count() == 5
    assert generation.named_generation(path) == "generation-000001"
    with gg.open(path) as db:
        db["c"].upsert(ids=[7])
        assert generation.named_generation(path) == "generation-000002"
        db.compact()
        assert db["c"].count() == 6


def test_a_store_opens_at_any_moment_of_compactions_in_another_process(path: Path) -> None:
    code = f"""
        import gingham as gg, time
        end, opened = time.monotonic() + 2.0, 0
        while time.monotonic() < end or opened < 12:
            for mode in ("r", "w"):
                with gg.open({str(path)!r}, mode=mode) as db:
                    assert db["c"].count() == 5
                    opened += 1
        print(opened)
    """
    with gg.open(path) as db, subprocess.Popen(child_of(code), stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            db.compact()
        assert child.stdout is not None
        assert int(child.stdout.read()) >= 12
        assert db["c"].count() == 5
    assert [p.name for p in path.glob("generation-*")] == [generation.named_generation(path)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("file/db", errors.NotAStore),
        ("n" * 300, errors.InvalidArgument),
        ("a\0b", errors.InvalidArgument),
        (3, errors.InvalidArgument),
    ],
)
def test_a_path_that_cannot_be_a_folder_gets_one_clear_error(tmp_path: Path, name: Any, kind: Any) -> None:
    (tmp_path / "file").touch()
    target = f"{tmp_path}/{name}" if isinstance(name, str) else name
    with pytest.raises(kind):
        gg.open(target)
    with pytest.raises(errors.GinghamError):
        gg.restore(target, tmp_path / "x")


@pytest.mark.parametrize(
    "setting",
    [
        {"max_size": "1GB"},
        {"max_size": 5e6},
        {"max_size": True},
        {"lock_timeout": None},
        {"lock_timeout": float("nan")},
        {"memory_budget": 1.5},
        {"snapshot_timeout": "1"},
    ],
)
def test_a_setting_of_another_type_gets_one_clear_error(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match=next(iter(setting))):
        gg.open(tmp_path / "db", **setting)


def test_a_backup_where_nothing_can_be_written_gets_one_clear_error(path: Path) -> None:
    with gg.open(path) as db, pytest.raises(errors.GinghamError):
        db.backup("/proc/nowhere/backup")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", ["generation-000001/data.mdb", "generation-000001", "."])
def test_files_that_may_not_be_read_get_one_clear_error(path: Path, closed: str) -> None:
    for folder in path.parents:
        if folder.name.startswith(("pytest-", "test_")):
            folder.chmod(0o755)
    (path / "generation-000001" / "lock.mdb").chmod(0o666)
    (path / closed).chmod(0o700 if (path / closed).is_dir() else 0o600)

    def read() -> object:
        os.setuid(65534)
        return gg.open(path, mode="r")

    assert in_fork(read).startswith("PermissionDenied")


# handles ---------------------------------------------------------------------------------------------


def test_a_reading_handle_cannot_write_though_another_handle_may(path: Path) -> None:
    with gg.open(path) as db, gg.open(path, mode="r") as reader:
        docs = reader["c"]
        for write in (
            lambda: docs.upsert(ids=[9]),
            lambda: docs.delete(ids=[1]),
            lambda: docs.drop_field("x"),
            docs.maintain,
            reader.compact,
        ):
            with pytest.raises(errors.ReadOnly):
                write()
        assert docs.count() == db["c"].count() == 5
        assert len(list(docs.scan())) == 5


def test_a_second_writing_handle_is_told_of_settings_it_cannot_have(path: Path) -> None:
    with gg.open(path, lock_timeout=1):
        for setting in ({"max_size": 1 << 24}, {"lock_timeout": 2}, {"memory_budget": 1 << 20, "lock_timeout": 1}):
            with pytest.raises(errors.InvalidArgument, match="the other handle"):
                gg.open(path, **setting)  # type: ignore[arg-type]
        with gg.open(path, lock_timeout=1, snapshot_timeout=0.1) as db:
            snapshot = db.snapshot()
            time.sleep(0.15)
            with pytest.raises(errors.SnapshotExpired, match=r"0\.1 s"):
                snapshot.version


def test_a_reading_handle_goes_on_where_opening_to_write_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gg.open(path, mode="r") as reader:
        real = Store._open_current

        def fail(store: Store, successor: str | None = None) -> Any:
            if store.writable:
                raise errors.PermissionDenied("no")
            return real(store, successor)

        monkeypatch.setattr(Store, "_open_current", fail)
        with pytest.raises(errors.PermissionDenied):
            gg.open(path)
        assert reader["c"].count() == 5


def test_a_handle_may_be_collected_at_any_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(where: Path) -> Store:
        circle: list[Any] = [gg.open(where)]
        circle.append(circle)
        return circle[0]._store  # type: ignore[no-any-return]

    gc.collect()
    gc.disable()
    try:
        lose(path)
        real = Store._create
        monkeypatch.setattr(Store, "_create", lambda store: (gc.collect(), real(store)))
        in_time(lambda: gg.open(path.with_name("other")).close())

        store = lose(path)
        in_time(lambda: store.write(lambda session: gc.collect()))
    finally:
        gc.enable()
    with gg.open(path, durability="none") as db:
        assert db["c"].count() == 5


def test_a_store_that_was_stopped_unsynced_is_read_whole_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gg.open(path) as db:
        db._store.write(lambda session: setattr(session.store, "unsynced_boot", "another boot"))
    seen = []
    from gingham.storage import verify

    real = verify.verify_session
    monkeypatch.setattr(verify, "verify_session", lambda session: seen.append(1) or real(session))
    for _ in range(3):
        gg.open(path).close()
    assert seen == [1]
    with gg.open(path) as db:
        db._store.write(lambda session: setattr(session.store, "unsynced_boot", boot_id()))
        db["c"].upsert(ids=[7])
        with db._store.read() as session:
            assert session.store.unsynced_boot is None


# snapshots and scans ---------------------------------------------------------------------------------


def test_a_suspended_scan_expires_and_stops_nobody(path: Path) -> None:
    db = gg.open(path, snapshot_timeout=0.2)
    docs = db["c"]
    docs.upsert(ids=list(range(3000)))
    rows = docs.scan()
    next(rows)
    time.sleep(0.3)
    in_time(lambda: docs.upsert(ids=[1]))
    in_time(db.maintain)
    with pytest.raises(errors.SnapshotExpired, match="older than"):
        list(rows)
    left = docs.scan()
    next(left)
    in_time(db.close)
    with pytest.raises(errors.SnapshotExpired, match="closed"):
        list(left)


def test_threads_share_a_snapshot_and_finish_each_others_scans(path: Path) -> None:
    with gg.open(path) as db:
        db["c"].upsert(ids=list(range(3000)))
        snapshot = db.snapshot()
        rows = snapshot["c"].scan()
        next(rows)
        rest: list[Any] = []
        in_time(lambda: rest.append(snapshot["c"].count()))
        in_time(lambda: rest.append(len(list(rows))))
        assert rest == [3000, 2999]
        found: list[int] = []

        def read() -> None:
            for i in range(200):
                found.append(len(snapshot["c"].get([i, -1, i + 1])))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [3] * 800


def test_a_scan_keeps_the_fields_it_began_with(path: Path) -> None:
    with gg.open(path) as db:
        rows = db["c"].scan()
        db["c"].drop_field("x")
        assert [row["x"] for row in rows] == list(range(5))


def test_a_process_that_only_reads_lets_go_of_expired_and_dropped_snapshots(path: Path) -> None:
    with gg.open(path, mode="r", snapshot_timeout=0.1) as db:
        kept = db.snapshot()
        mapped = db._store._current()
        assert mapped.in_use()
        deadline = time.monotonic() + 5
        while mapped.in_use() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not mapped.in_use()
        with pytest.raises(errors.SnapshotExpired):
            kept.version
    with gg.open(path, mode="r") as db:
        kept = db.snapshot()
        del kept
        assert not db._store._current().in_use()


def test_a_snapshot_that_outlives_its_database_says_so_and_blocks_nothing(path: Path) -> None:
    db = gg.open(path)
    snapshot = db.snapshot()
    db.close()
    with gg.open(path) as again:
        assert again["c"].count() == 5
        with pytest.raises(errors.SnapshotExpired, match="closed"):
            snapshot["c"]
        snapshot.close()
        assert again["c"].count() == 5


def test_a_search_that_outlives_close_keeps_the_map_and_a_new_handle_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gingham.storage import store

    monkeypatch.setattr(store, "CLOSE_WAIT_SECONDS", 0.1)
    db = gg.open(path)
    with db._store.read() as session:
        db.close()
        assert session.store.names == {"c": 1}
        with pytest.raises(errors.NotReady, match="still in use"):
            gg.open(path)
    with gg.open(path) as again:
        assert again["c"].count() == 5


# interrupts ------------------------------------------------------------------------------------------


def test_thousands_of_interrupts_leave_the_store_usable(path: Path) -> None:
    code = f"""
        import random, signal, threading, time, numpy as np, gingham as gg
        db = gg.open({str(path)!r}, durability="none")
        docs = db.create_collection("v", vectors={{"v": gg.Dense(4)}})
        query = np.ones((1, 4))
        docs.upsert(ids=[0], vectors={{"v": query}})
        docs.search(query[0])
        interrupts, end = 0, time.monotonic() + 4
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.5e-3))
                while True:
                    docs.count(); docs.get(0); docs.search(query[0]); list(docs.scan())
                    docs.upsert(ids=[0], vectors={{"v": query}})
                    with db.snapshot() as snapshot:
                        snapshot["v"].count()
            except KeyboardInterrupt:
                interrupts += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        closing = threading.Thread(target=db.close, daemon=True)
        closing.start()
        closing.join(15)
        assert not closing.is_alive(), "close hangs"
        with gg.open({str(path)!r}) as db:
            assert db["v"].count() == 1 and db.verify().ok
        print(interrupts)
    """
    done = subprocess.run(child_of(code), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500


def test_an_interrupt_of_a_starting_thread_is_an_interrupt() -> None:
    class Interrupted(threading.Thread):
        def start(self) -> None:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise RuntimeError("release unlocked lock")  # noqa: B904

    class Broken(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("cannot start new thread")

    with pytest.raises(KeyboardInterrupt):
        start_thread(Interrupted())
    with pytest.raises(RuntimeError, match="cannot start"):
        start_thread(Broken())


# forks -----------------------------------------------------------------------------------------------


def test_a_fork_during_a_merge_is_quick_and_its_child_reads(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gingham.storage.staging import StagedBlobs

    merging = threading.Event()
    real = StagedBlobs.put

    def slow(self: StagedBlobs, data: Any) -> Any:
        merging.set()
        time.sleep(0.1)
        return real(self, data)

    monkeypatch.setattr(StagedBlobs, "put", slow)
    with gg.open(tmp_path / "db") as db:
        docs = db.create_collection("c", vectors={"v": gg.Dense(4)})
        for first in range(0, 90, 30):
            docs.upsert(ids=list(range(first, first + 30)), vectors={"v": np.ones((30, 4))})
        db.maintain(wait=False)
        assert merging.wait(5)
        started = time.monotonic()
        assert in_fork(docs.count) == "90"
        assert time.monotonic() - started < 4
        assert db.maintain()
        assert docs.stats().segments == 1


def test_a_forked_child_may_close_and_open_again_and_its_parent_keeps_its_snapshot(path: Path) -> None:
    db = gg.open(path)
    snapshot = db.snapshot()

    def reopen() -> int:
        db.close()
        with gg.open(path) as mine:
            mine["c"].upsert(ids=[7])
            return mine["c"].count()

    assert in_fork(reopen) == "6"
    assert in_fork(lambda: gg.open(path, mode="r")["c"].count()) == "6"
    assert in_fork(lambda: snapshot["c"].count()).startswith("SnapshotExpired")
    assert (snapshot["c"].count(), db["c"].count()) == (5, 6)
    rows = db["c"].scan()
    next(rows)
    assert in_fork(db["c"].count).startswith("NotReady")
    assert len(list(rows)) == 5
    db.close()


def test_a_forked_child_does_not_hold_the_locks_of_its_killed_parent(path: Path) -> None:
    code = f"""
        import gingham as gg, os, time
        docs = gg.open({str(path)!r})["c"]
        docs.upsert(ids=[7])
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        print(pid, flush=True)
        os.environ["GINGHAM_CRASH_AT"] = "before commit"
        docs.upsert(ids=[8])
    """
    with subprocess.Popen(child_of(code), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            parent.wait()
            with gg.open(path, lock_timeout=1) as db:
                db["c"].upsert(ids=[9])
                assert db["c"].count() == 7
        finally:
            os.kill(child, signal.SIGKILL)
