"""The writer thread: LMDB binds a write transaction to one thread, so one thread runs them all.

Calls that wait while a commit is flushed share the next one: each runs in a child transaction, so that
one failure aborts one call.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gingham.errors import Closed
from gingham.parallel import start_thread
from gingham.storage import crash
from gingham.storage.boot import boot_id
from gingham.storage.environment import translated
from gingham.storage.session import WriteSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.storage.holds import Mapped
    from gingham.storage.store import Store

T = TypeVar("T")

TURN_OVER_BYTES = 256 << 10
GROUP_CALLS = 64
"""Calls that share one sync at most, so that the first one's wait stays short."""


@dataclass
class _Call:
    change: Callable[[Any], Any]
    exclusive: bool
    result: Any = None
    error: BaseException | None = None
    ended: bool = False
    running: threading.Lock = field(default_factory=threading.Lock)
    """Taken until the call has ended; an interrupt while waiting for it breaks nothing, unlike one in a Future."""

    def __post_init__(self) -> None:
        self.running.acquire()

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Hand the outcome to the thread that waits, once."""
        if not self.ended:
            self.result, self.error, self.ended = result, error, True
            self.running.release()

    def wait(self) -> Any:
        """Wait for the outcome; raises what the call raised."""
        self.running.acquire()
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            self.error = None


class Writer:
    """Runs changes one after the other in a thread of its own, started by the first one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._running = threading.Lock()
        self._paused = False
        self._stopped = False

    def submit(self, change: Callable[[Any], T], *, exclusive: bool = False) -> T:
        """Run a change and wait until it is committed.

        Parameters
        ----------
        change : called with the write session; what it raises aborts it and is raised here
        exclusive : call it with the store's mapped generation instead, gate held, no transaction open
        """
        call = _Call(change, exclusive)
        with self._start:
            if self._stopped:
                raise Closed(f"the database {self._store.root} is closed; open it again")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gingham-writer", daemon=True)
                start_thread(self._thread)
            self._calls.put(call)
        result: T = call.wait()
        return result

    def pause(self) -> None:
        """Wait for the running group and start no other."""
        self._running.acquire()
        self._paused = True

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        if self._paused:
            self._paused = False
            self._running.release()

    def stop(self) -> None:
        """Finish the calls that wait, then end the thread."""
        with self._start:
            self._stopped = True
            thread = self._thread
            if thread is not None:
                self._calls.put(None)
        if thread is not None:
            thread.join()
        elif self._store.writable and self._store.options.durability != "commit":
            self._finish_unsynced()

    def _run(self) -> None:
        last = False
        while not last:
            group: list[_Call] = []
            item = self._calls.get()
            while item is not None:
                group.append(item)
                if len(group) == GROUP_CALLS or item.exclusive:
                    break
                try:
                    item = self._calls.get_nowait()
                except queue.Empty:
                    break
            last = item is None
            if group:
                with self._running:
                    self._commit_group(group)
        self._finish_unsynced()

    def _commit_group(self, group: list[_Call]) -> None:
        store = self._store
        try:
            store.gate.acquire(store.options.lock_timeout)
        except BaseException as error:
            for call in group:
                call.end(error=error)
            return
        try:
            with store.writing() as mapped:
                ordinary = [call for call in group if not call.exclusive]
                if ordinary:
                    self._run_ordinary(mapped, ordinary)
                for call in group:
                    if call.exclusive:
                        call.end(call.change(mapped))
        except BaseException as error:
            for call in group:
                call.end(error=error)
        finally:
            store.gate.release()

    def _run_ordinary(self, mapped: Mapped, calls: list[_Call]) -> None:
        env = mapped.env
        env.check_free_pages()
        self._turn_over(mapped)
        env.claimed_bytes = 0
        results: list[tuple[_Call, Any]] = []
        with translated(env.folder):
            txn = env.begin(write=True)
            try:
                for call in calls:
                    self._run_call(mapped, txn, call, results, alone=len(calls) == 1)
                crash.point("before commit")
                if results:
                    txn.commit()
                else:
                    txn.abort()
            except BaseException:
                txn.abort()
                raise
        crash.point("after commit")
        for call, result in results:
            call.end(result)

    def _run_call(
        self, mapped: Mapped, parent: Any, call: _Call, results: list[tuple[_Call, Any]], *, alone: bool
    ) -> None:
        txn = parent if alone else mapped.env.child(parent)
        session = WriteSession(mapped.env, txn)
        try:
            with translated(mapped.env.folder):
                synced = self._store.options.durability == "commit"
                session.store.unsynced_boot = None if synced else boot_id()
                result = call.change(session)
                session.finish()
                if not alone:
                    txn.commit()
        except BaseException as error:
            if not alone:
                txn.abort()
            call.end(error=error)
        else:
            results.append((call, result))

    def _turn_over(self, mapped: Mapped) -> None:
        """Commit once without changes after much was freed: LMDB reuses pages only one commit later."""
        env = mapped.env
        if env.freed_bytes < TURN_OVER_BYTES:
            return
        with translated(env.folder):
            txn = env.begin(write=True)
            try:
                WriteSession(env, txn).finish()
                txn.commit()
            except BaseException:
                txn.abort()
                raise
        env.freed_bytes = 0

    def _finish_unsynced(self) -> None:
        """Flush, then record that nothing unsynced is left."""
        store = self._store
        if not store.writable or store.options.durability == "commit":
            return
        store.gate.acquire(store.options.lock_timeout)
        try:
            with store.writing() as mapped:
                mapped.env.sync()
                txn = mapped.env.begin(write=True)
                session = WriteSession(mapped.env, txn)
                session.store.unsynced_boot = None
                session.finish()
                txn.commit()
                mapped.env.sync()
        finally:
            store.gate.release()
