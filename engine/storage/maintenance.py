"""The maintenance thread of a writing process: seals, merges, sweeps, syncs."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from gingham.config import SYNC_INTERVAL_SECONDS
from gingham.deadline import CancelScope
from gingham.errors import Cancelled, GinghamError, Unavailable
from gingham.parallel import start_thread
from gingham.storage import generation
from gingham.storage.gate import FileLock
from gingham.storage.holds import POLL_SECONDS, Flag
from gingham.storage.rewrite import due_merge, rewrite
from gingham.storage.staging import sweep
from gingham.types import finite

if TYPE_CHECKING:
    from gingham.storage.store import Store

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Shortest time between two passes: a burst of small writes costs one look at the catalog, not one each."""
QUIET_SECONDS = 0.2
"""Merging waits until no write came for so long, so that it does not take the disk from a bulk ingest."""
CROWDED_SEGMENTS = 64
"""Segments above which a write waits for maintenance."""
CROWDED_WAIT_SECONDS = 30.0
RETRY_SECONDS = 60.0
"""Longest pause after a failed pass while nothing is written."""


class Stopped(Exception):
    """Maintenance was asked to end."""


class Maintenance:
    """Keeps tails and segments few, in a thread started by the first write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = Flag()
        self._stop = Flag()
        self._count = threading.Lock()
        self._asked = 0
        self._done = 0
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._swept = False
        self._last_write = 0.0
        self._hurry = False
        self._pausing = False
        self._working = threading.Lock()
        self._scope = CancelScope()
        self.lease = FileLock(store.root / generation.MAINTENANCE_LOCK)
        self._retry_at = 0.0
        self._retry_seconds = SYNC_INTERVAL_SECONDS
        self._sync_due = time.monotonic() + SYNC_INTERVAL_SECONDS
        self.last_error: GinghamError | None = None

    def wake(self, *, hurry: bool = False) -> None:
        """Look for work soon; with ``hurry`` merge at once instead of when writes pause."""
        if threading.current_thread() is self._thread:
            return
        with self._start:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="gingham-maintenance", daemon=True)
                start_thread(self._thread)
        with self._count:
            self._asked += 1
            self._last_write = time.monotonic()
            self._hurry |= hurry
        self._wake.set()

    def ask(self, *, wait: bool, timeout: float | None) -> bool:
        """Do what is due, now or soon; False where that was waited for and took longer than ``timeout`` seconds."""
        seconds = None if timeout is None else finite("maintain(timeout=)", timeout)
        if wait:
            return self.wait(seconds)
        self.wake()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Run until nothing is due; False where that took longer than ``timeout`` seconds."""
        self.wake(hurry=True)
        asked = self._asked
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._done < asked and not self._stop.is_set():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def make_room(self, cid: int) -> None:
        """Hold a writer back while a collection has far more segments than it should and they can be merged."""
        deadline = time.monotonic() + CROWDED_WAIT_SECONDS
        while time.monotonic() < deadline and not self._stop.is_set():
            with self._store.read() as session:
                record = session.collection_by_id(cid)
                if len(record.segments) < CROWDED_SEGMENTS or not due_merge(self._store, session, record):
                    return
            if self.wait(1.0) and self.last_error is not None:
                return

    def stop(self) -> None:
        """End within a second; what was staged is swept by the next writer."""
        self._stop.set()
        self._scope.cancel()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def check(self) -> None:
        """Raise Stopped where the thread is asked to end, or to give up what it does."""
        if self._stop.is_set() or self._pausing:
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Have the work given up within a blob and begin no other: no session of it is open then."""
        self._pausing = True
        self._scope.cancel()
        if not self._working.acquire(timeout=seconds):
            self._pausing = False

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        if self._pausing:
            self._pausing = False
            self._working.release()
            self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(SYNC_INTERVAL_SECONDS)
            self._wake.clear()
            asked = self._asked
            try:
                self._round(work=asked > self._done or time.monotonic() >= self._retry_at)
            except Stopped:
                if self._stop.is_set():
                    break
                self._hurry = True
                continue
            except Exception as error:
                if self._stop.is_set():
                    break
                self._failed(error)
            self._done = max(self._done, asked)
            self._stop.wait(PAUSE_SECONDS)
        self.lease.close()

    def _failed(self, error: Exception) -> None:
        """Remember what went wrong, and try again at the next write, or after ever longer pauses."""
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS)
        if isinstance(error, GinghamError):
            known, self.last_error = self.last_error, error
            if not isinstance(error, Unavailable) and str(known) != str(error):
                logger.warning("maintenance of %s stopped: %s", self._store.root, error)
            return
        self.last_error = Unavailable(
            f"maintenance of {self._store.root} stopped with {type(error).__name__}: {error}; it begins again by itself"
        )
        self.last_error.__cause__ = error
        logger.error("maintenance of %s stopped", self._store.root, exc_info=error)

    def _round(self, *, work: bool) -> None:
        """Sync, and do what is due where no other process does it."""
        if self._store.options.durability == "interval" and time.monotonic() >= self._sync_due:
            self._store.sync()
            self._sync_due = time.monotonic() + SYNC_INTERVAL_SECONDS
        if work:
            if self.lease.try_acquire():
                try:
                    with self._working:
                        self._cancellable_pass()
                finally:
                    self.lease.release()
            self.last_error, self._retry_seconds = None, SYNC_INTERVAL_SECONDS

    def _cancellable_pass(self) -> None:
        """A pass that ends between two blocks of a long computation once the thread is asked to end or to pause."""
        self._scope = CancelScope()
        self.check()
        try:
            with self._scope:
                self._pass()
        except Cancelled:
            raise Stopped from None

    def _pass(self) -> None:
        with self._store.read() as session:
            session.env.clear_dead_readers()
            staged = not self._swept and session.txn.stat(session.env.table("staged"))["entries"]
            cids = list(session.store.names.values())
        if staged:
            self._store.write(sweep)
        self._swept = True
        hurry, self._hurry = self._hurry, False
        failed: Exception | None = None
        for cid in cids:
            try:
                while rewrite(self._store, cid, self.check, quiet=hurry or self._quiet()):
                    self.check()
            except (Stopped, Cancelled):
                raise
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _quiet(self) -> bool:
        return time.monotonic() - self._last_write >= QUIET_SECONDS
