"""Pinned sessions: a state of the store that stays readable until it is closed or expires."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from gingham.errors import Closed, SnapshotExpired
from gingham.parallel import start_thread
from gingham.storage.holds import Resource, Use, Weakly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.storage.session import Session
    from gingham.storage.store import Store

EXPIRY_SECONDS = 1.0
"""Longest time by which an expired pin keeps its pages too long."""


class Pin(Resource):
    """A session that outlives the call that opened it; several threads may read it at once.

    Notes
    -----
    LMDB lets a read transaction wander between threads, and gets and cursors only read it once each table has
    been looked up, which is done here. It ends when the last reader has left.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._age = store.options.snapshot_timeout
        self._why = "is closed"
        self._session: Session | None = None
        self.expires = time.monotonic() + self._age
        store.pins.add(self)
        self._session = store.begin(pinned=True)
        self._session.look_up_tables()
        if self.closed:
            self._end()
            raise Closed(f"the database {store.root} is closed; open it again")
        _watch(self)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """The pinned session; raises SnapshotExpired."""
        use = self._begin()
        try:
            assert self._session is not None
            yield self._session
        finally:
            self.leave(use)

    def _begin(self) -> Use:
        if self._pid != os.getpid():
            raise SnapshotExpired("the snapshot belongs to the process that forked this one; take a new one")
        self.expire()
        use = self.enter()
        if use is None:
            raise SnapshotExpired(f"the snapshot {self._why}; take a new one")
        return use

    def expire(self) -> None:
        """Close it where its time has come."""
        if not self.closed and time.monotonic() >= self.expires:
            self.end_because(f"is older than snapshot_timeout={self._age:g} s")

    def end_because(self, why: str) -> None:
        """Close it and say why to those who read it later."""
        if not self.closed:
            self._why = why
        self.close()

    def close(self) -> None:
        """Give the state up; may be called twice."""
        if self._pid == os.getpid():
            super().close()

    def forget(self) -> None:
        """Let go of the session in the child of a fork: ending it here would free the parent's reader slot."""
        self._session = None

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()


_watched: Weakly[Pin] = Weakly()
_watcher: threading.Thread | None = None


def _watch(pin: Pin) -> None:
    """Have a thread close the pin in time, though nobody reads it and nothing is written."""
    global _watcher
    _watched.add(pin)
    if _watcher is None or not _watcher.is_alive():
        _watcher = threading.Thread(target=_expire_in_time, name="gingham-expiry", daemon=True)
        start_thread(_watcher)


def _expire_in_time() -> None:
    global _watcher
    while True:
        wait = EXPIRY_SECONDS
        for pin in _watched.members():
            pin.expire()
            if not pin.closed:
                wait = max(0.01, min(wait, pin.expires - time.monotonic()))
            else:
                _watched.discard(pin)
        pin = None  # type: ignore[assignment]  # the loop's name would keep a dropped snapshot alive
        time.sleep(wait)
        if not _watched.members():
            _watcher = None
            if not _watched.members():  # one that is pinned from here on starts another thread
                return
