"""Pinned sessions: a state of the store that stays readable until it is closed or expires."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from gingham.errors import SnapshotExpired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.storage.session import Session
    from gingham.storage.store import Store


class Pin:
    """A session that outlives the call that opened it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._age = store.options.snapshot_timeout
        self.expires = time.monotonic() + self._age
        self._open: bool = True
        self._mapped, self._session = store.begin(pinned=True)
        store.maintenance.pins.add(self)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """The pinned session; raises SnapshotExpired."""
        with self._lock:
            if self._pid != os.getpid():
                raise SnapshotExpired("the snapshot belongs to the process that forked this one; take a new one")
            if time.monotonic() >= self.expires:
                self.close()
            if not self._open:
                raise SnapshotExpired(
                    f"the snapshot is closed or older than {self._age:g} s; take a new one, or raise snapshot_timeout"
                )
            yield self._session

    def close(self) -> None:
        """Give the state up; may be called twice."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._open:
                self._open = False
                self._store.maintenance.pins.discard(self)
                self._store.end(self._mapped, self._session, pinned=True)
