"""What requests read: the newest commit, or one that a client has pinned."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from gingham.errors import ResourceExhausted, SnapshotExpired

if TYPE_CHECKING:
    from gingham.database import Database, Snapshot
    from gingham.view import CollectionView

MOST_SNAPSHOTS = 64
"""Open at once; each keeps pages from being used again."""


class Views:
    """A database and its open snapshots, which end when they are given up, expire, or the database is closed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._snapshots: dict[str, Snapshot] = {}

    def count(self) -> int:
        """How many snapshots are open."""
        with self._lock:
            return sum(not one._pin.closed for one in self._snapshots.values())

    def open(self) -> tuple[str, int]:
        """Pin the newest commit; its name, which cannot be guessed, and its number."""
        with self._lock:
            if len(self._snapshots) >= MOST_SNAPSHOTS:
                self._snapshots = {name: one for name, one in self._snapshots.items() if not one._pin.closed}
            if len(self._snapshots) >= MOST_SNAPSHOTS:
                raise ResourceExhausted(
                    f"the server expected at most {MOST_SNAPSHOTS} open snapshots, found one more; close those that "
                    "are not read any more"
                )
            name, snapshot = secrets.token_hex(16), self.database.snapshot()
            self._snapshots[name] = snapshot
        return name, snapshot.version

    def close(self, name: str) -> None:
        """Give a snapshot up."""
        with self._lock:
            snapshot = self._snapshots.pop(name, None)
        if snapshot is not None:
            snapshot.close()

    def of(self, request: Any) -> Database | Snapshot:
        """The commit that a request reads; raises SnapshotExpired."""
        if not request.HasField("snapshot"):
            return self.database
        with self._lock:
            snapshot = self._snapshots.get(request.snapshot)
        if snapshot is None:
            raise SnapshotExpired("the snapshot is closed; take a new one")
        return snapshot

    def collection(self, request: Any) -> CollectionView:
        """The collection that a request reads."""
        return self.of(request)[request.collection]

    def close_all(self) -> None:
        """Give all snapshots up."""
        with self._lock:
            snapshots, self._snapshots = self._snapshots, {}
        for snapshot in snapshots.values():
            snapshot.close()
