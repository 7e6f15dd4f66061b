"""The async twin: the same methods and results, cancellation that lets go, types that are up to date."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import aio, connect, errors
from gingham.deadline import check, within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ROWS = 3000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of one collection of 3000 rows."""
    with gg.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", fields={"year": gg.Int()}, vectors={"v": gg.Dense(16, "cosine")})
        vectors = np.random.default_rng(1).standard_normal((ROWS, 16)).astype(np.float32)
        docs.upsert(ids=list(range(ROWS)), vectors={"v": vectors}, fields={"year": [i % 50 for i in range(ROWS)]})
    return tmp_path / "db"


def drive(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def slow_search(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make a search hold a session until its checks end it; the event tells that it has begun."""
    begun = threading.Event()

    def search(self: Any, *_: Any, **__: Any) -> Any:
        with self._reader.session():
            begun.set()
            for _ in range(4000):
                time.sleep(0.005)
                check()
        raise AssertionError("nobody stopped it")

    monkeypatch.setattr(gg.Collection, "search", search)
    return begun


# shape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", aio.SYNC, ids=lambda cls: cls.__name__)
def test_every_public_method_has_a_twin_of_the_same_parameters(cls: type) -> None:
    twin = aio.TWINS[cls]
    assert twin.__name__ == f"Async{cls.__name__}"
    assert twin is getattr(aio, twin.__name__)
    for name, member in inspect.getmembers(cls, inspect.isfunction):
        if name[0] != "_":
            mine = getattr(twin, name)
            assert list(inspect.signature(mine).parameters.values()) == list(
                inspect.signature(member).parameters.values()
            )
            assert mine.__doc__ == member.__doc__
            expected = {"call": inspect.iscoroutinefunction(mine), "iterate": True, "open": True}
            assert expected[aio.kind_of(member)]
    properties = {name for name, _ in inspect.getmembers(cls, lambda m: isinstance(m, property))}
    assert properties == {name for name, _ in inspect.getmembers(twin, lambda m: isinstance(m, property))}


def test_every_class_of_the_api_that_a_twin_returns_has_one() -> None:
    assert {gg.Database, gg.Collection, gg.Snapshot, gg.Transaction} <= set(aio.SYNC)


def test_the_stub_is_what_the_sync_classes_say() -> None:
    script = runpy.run_path(str(Path(__file__).parent / "twin.py"))
    written = script["STUB"].read_text("utf-8") if script["STUB"].exists() else ""
    assert script["stub"]() == written, f"engine/aio.pyi is out of date; run: {script['COMMAND']}"


def test_a_method_added_to_a_sync_class_is_taken_up() -> None:
    class More(gg.Database):
        def shout(self, word: str, *, times: int = 2) -> str:
            """Say it."""
            return word.upper() * times

    assert list(aio.members(More)) == ["shout"]
    twin = aio._twin_class(More)
    assert asyncio.run(twin(object.__new__(More)).shout("a", times=3)) == "AAA"  # type: ignore[attr-defined]


def test_aopen_takes_what_open_takes() -> None:
    assert inspect.signature(connect.aopen).parameters == inspect.signature(connect.open).parameters


def test_opening_a_database_loads_asyncio_only_for_the_twin(tmp_path: Path) -> None:
    import subprocess

    code = f"import sys, gingham; gingham.open({str(tmp_path / 'x')!r}).close(); print('gingham.aio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# results ---------------------------------------------------------------------------------------------


def test_everything_gives_what_the_sync_calls_give(path: Path) -> None:
    queries = np.random.default_rng(2).standard_normal((50, 16)).astype(np.float32)

    async def main() -> None:
        async with gg.aopen(path) as db:
            docs = db["docs"]
            assert (docs.name, db.path, "docs" in db, list(db)) == ("docs", path, True, ["docs"])
            found = await asyncio.gather(*(docs.search(q, where="year < 25") for q in queries))
            assert await docs.count(where="year < 25") == ROWS // 2
            assert await docs.get(3) == {"id": 3, "year": 3}
            assert (await docs.get([5, -1]))[1] is None
            rows = [row["id"] async for row in docs.scan(where="year = 7")]
            batches = [batch.num_rows async for batch in docs.scan(batch_size=700)]
            other = await db.create_collection("other", fields={"n": gg.Int()})
            await asyncio.gather(*(other.upsert([{"id": i, "n": i}]) for i in range(50)))
            assert await other.count() == 50
            with pytest.raises(errors.CollectionNotFound):
                db["nothing"]
            with pytest.raises(errors.InvalidArgument):
                await docs.search(queries[0], k=0)
            with pytest.raises(TypeError):
                await docs.search()  # type: ignore[call-arg]
        with pytest.raises(errors.Closed):
            await docs.count()
        with gg.open(path) as sync:
            assert [h.ids for h in found] == [h.ids for h in sync["docs"].search(queries, where="year < 25")]
            assert [h.scores.tolist() for h in found] == [
                sync["docs"].search(q, where="year < 25").scores.tolist() for q in queries
            ]
            assert rows == [row["id"] for row in sync["docs"].scan(where="year = 7")]
            assert batches == [700, 700, 700, 700, 200]

    drive(main)


def test_a_transaction_applies_at_the_end_and_not_after_an_error(path: Path) -> None:
    async def main() -> None:
        db = await gg.aopen(path)
        async with db.transaction() as t:
            await t["docs"].delete(ids=[0, 1])
            assert await db["docs"].count() == ROWS
        assert t.result is not None
        assert t.result.deleted == 2
        with pytest.raises(ValueError, match="stop"):
            async with await db.transaction() as t:
                await t["docs"].delete(ids=[2])
                raise ValueError("stop")
        assert await db["docs"].count() == ROWS - 2
        await db.close()
        await db.close()

    drive(main)


def test_a_snapshot_answers_lookups_and_searches_while_a_scan_of_it_waits(path: Path) -> None:
    async def main() -> None:
        async with gg.aopen(path) as db, db.snapshot() as snapshot:
            await db["docs"].delete(ids=[0])
            view, version = snapshot["docs"], snapshot.version
            async with contextlib.aclosing(view.scan(batch_size=100)) as batches:
                await anext(batches)
                assert (view.name, list(view.schema.fields), snapshot.version) == ("docs", ["year"], version)
                assert await view.count() == ROWS
                assert (await view.search(np.ones(16))).complete
                assert snapshot["docs"] is view
                with pytest.raises(errors.CollectionNotFound):
                    snapshot["nothing"]
                assert 100 + sum([batch.num_rows async for batch in batches]) == ROWS
            await snapshot.close()
            with pytest.raises(errors.SnapshotExpired):
                await view.count()

    drive(main)


def test_a_scan_left_early_gives_its_session_back(path: Path) -> None:
    async def main() -> None:
        async with gg.aopen(path) as db:
            store = db._sync._store
            async for row in db["docs"].scan():
                assert row["id"] == 0
                break
            async with contextlib.aclosing(db["docs"].scan(batch_size=10)) as batches:
                await anext(batches)
                assert store._current().in_use()
            for _ in range(200):
                await asyncio.sleep(0.01)
                if not store._current().in_use():
                    return
            raise AssertionError("a session is still open")

    drive(main)


def test_an_error_of_a_scan_is_raised_where_it_is_awaited(path: Path) -> None:
    async def main() -> None:
        async with gg.aopen(path) as db:
            with pytest.raises(errors.SchemaMismatch):
                async for _ in db["docs"].scan(order_by="nothing"):
                    pass

    drive(main)


# the end ---------------------------------------------------------------------------------------------


def test_a_deadline_around_an_await_holds_in_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_search(monkeypatch)

    async def main() -> None:
        async with gg.aopen(path) as db:
            started = time.monotonic()
            with within(0.05), pytest.raises(errors.DeadlineExceeded):
                await db["docs"].search(np.ones(16))
            assert time.monotonic() - started < 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await db["docs"].search(np.ones(16))
            assert await db["docs"].count() == ROWS

    drive(main)


def test_cancelling_ends_the_work_before_the_task_ends_and_the_database_closes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = slow_search(monkeypatch)

    async def main() -> None:
        db = await gg.aopen(path)
        tasks = [asyncio.create_task(db["docs"].search(np.ones(16))) for _ in range(50)]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        started = time.monotonic()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in ended} == {asyncio.CancelledError}
        assert not db._sync._store._current().in_use()
        await db.close()
        assert time.monotonic() - started < 2

    drive(main)


def test_a_task_cancelled_while_a_real_search_runs_lets_the_database_close(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((60_000, 128), dtype=np.float32)
    with gg.open(tmp_path / "db") as sync:
        docs = sync.create_collection("docs", vectors={"v": gg.Dense(128, "l2")})
        docs.upsert(ids=list(range(len(vectors))), vectors={"v": vectors})

    async def main() -> None:
        for wait in (0.0, 0.001, 0.003, 0.01, 0.03):
            db = await gg.aopen(tmp_path / "db")
            task = asyncio.create_task(db["docs"].search(vectors[:5000], k=50))
            await asyncio.sleep(wait)
            task.cancel()
            started = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1
            await db.close()

    drive(main)


def test_what_a_cancelled_task_opened_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take, begun, go = gg.Database.snapshot, threading.Event(), threading.Event()
    pins: list[Any] = []

    def snapshot(self: Any) -> Any:
        begun.set()
        go.wait(10)
        made = take(self)
        pins.append(made._pin)
        return made

    monkeypatch.setattr(gg.Database, "snapshot", snapshot)

    async def main() -> None:
        async with gg.aopen(path) as db:
            task = asyncio.ensure_future(db.snapshot())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done(), "the thread still runs"
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [pin.closed for pin in pins] == [True]

    drive(main)


def test_a_cancelled_scan_and_a_cancelled_close_end_well(path: Path) -> None:
    async def main() -> None:
        db = await gg.aopen(path)
        reached = asyncio.Event()

        async def scan() -> None:
            async for _ in db["docs"].scan(include_vectors=True):
                reached.set()
                await asyncio.sleep(0)

        task = asyncio.create_task(scan())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        assert not db._sync._finalizer.alive

    drive(main)


def test_an_own_pool_may_do_the_work(path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool, gg.open(path) as sync:

        async def main() -> None:
            db: Any = aio.AsyncDatabase(sync, pool)
            names = await asyncio.gather(*(db["docs"].count() for _ in range(5)))
            assert names == [ROWS] * 5
            assert len([row async for row in db["docs"].scan(where="year = 1")]) == ROWS // 50
            async with db.snapshot() as snapshot:
                assert await snapshot["docs"].count() == ROWS

        drive(main)
