"""What requests read: the newest commit, or one that a client has pinned."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from gingham.errors import ResourceExhausted, SnapshotExpired
from gingham.server.access import keyed, known_by

if TYPE_CHECKING:
    from gingham.database import Database, Snapshot
    from gingham.view import CollectionView

MOST_SNAPSHOTS = 64
"""Open at once; each keeps pages from being used again."""
MOST_OF_A_KEY = 16
"""Of these, those of one key."""


class Views:
    """A database and its open snapshots, which end when they are given up, expire, or the database is closed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._snapshots: dict[str, tuple[bytes, Snapshot]] = {}

    def count(self) -> int:
        """How many snapshots are open."""
        with self._lock:
            return sum(not one._pin.closed for _, one in self._snapshots.values())

    def open(self) -> tuple[str, int]:
        """Pin the newest commit; its name, which cannot be guessed, and its number."""
        caller = known_by("snapshots")
        with self._lock:
            if len(self._snapshots) >= min(MOST_SNAPSHOTS, MOST_OF_A_KEY):
                self._snapshots = {name: held for name, held in self._snapshots.items() if not held[1]._pin.closed}
            if len(self._snapshots) >= MOST_SNAPSHOTS:
                raise ResourceExhausted(_one_more(MOST_SNAPSHOTS, "open snapshots"))
            if keyed() and sum(whose == caller for whose, _ in self._snapshots.values()) >= MOST_OF_A_KEY:
                raise ResourceExhausted(_one_more(MOST_OF_A_KEY, "open snapshots of a key"))
            name, snapshot = secrets.token_hex(16), self.database.snapshot()
            self._snapshots[name] = caller, snapshot
        return name, snapshot.version

    def close(self, name: str) -> None:
        """Give a snapshot up."""
        with self._lock:
            held = self._snapshots.pop(name, None)
        if held is not None:
            held[1].close()

    def of(self, request: Any) -> Database | Snapshot:
        """The commit that a request reads; raises SnapshotExpired."""
        if not request.HasField("snapshot"):
            return self.database
        with self._lock:
            held = self._snapshots.get(request.snapshot)
        if held is None:
            raise SnapshotExpired("the snapshot is closed; take a new one")
        return held[1]

    def collection(self, request: Any) -> CollectionView:
        """The collection that a request reads."""
        return self.of(request)[request.collection]

    def close_all(self) -> None:
        """Give all snapshots up."""
        with self._lock:
            snapshots, self._snapshots = self._snapshots, {}
        for _, snapshot in snapshots.values():
            snapshot.close()


def _one_more(most: int, of_what: str) -> str:
    return f"the server expected at most {most} {of_what}, found one more; close those that are not read any more"
