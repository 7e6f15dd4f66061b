"""Blobs written before the catalog names them; what a crash leaves, the next writer sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.storage import crash
from gingham.storage.boot import process_lives, process_token
from gingham.storage.catalog import BlobRef
from gingham.storage.records import blob_key, open_record, piece_checks
from gingham.storage.room import claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.storage.session import WriteSession
    from gingham.storage.store import Store

STAGE_BYTES = 64 << 20
"""Bytes collected before they are written in a transaction of their own; a larger blob goes alone."""
STAGE_SHARE = 16
"""The memory budget is at least so many times what is collected: it is copied once more by LMDB."""
_KEYS_AT_ONCE = 64


class StagedBlobs:
    """A blob sink that stores blobs under final keys, each marked with this process as its owner."""

    def __init__(self, store: Store, *, check: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._check = check
        self._room = min(STAGE_BYTES, store.options.memory_budget // STAGE_SHARE)
        self._token = (process_token() or "0:?").encode()
        self._free: list[int] = []
        self._pending: list[tuple[int, bytes | memoryview]] = []
        self._pending_bytes = 0
        self.keys: list[int] = []

    def put(self, data: Any) -> BlobRef:
        """Accept a bytes-like object; it is copied where it is not written at once."""
        self._check()
        view = memoryview(data).cast("B")
        key = self._take_key()
        ref = BlobRef(key, len(view), piece_checks(view))
        self._pending.append((key, view if len(view) >= self._room else bytes(view)))
        self._pending_bytes += len(view)
        if self._pending_bytes >= self._room:
            self.flush()
        return ref

    def _take_key(self) -> int:
        if not self._free:

            def reserve(session: WriteSession) -> int:
                first = session.store.next_blob
                session.store.next_blob += _KEYS_AT_ONCE
                return first

            first = self._store.write(reserve)
            self._free = list(range(first + _KEYS_AT_ONCE - 1, first - 1, -1))
        return self._free.pop()

    def flush(self) -> None:
        """Write what is pending."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0

        def store_blobs(session: WriteSession) -> None:
            claim(session.env, sum(len(data) for _, data in pending), maintenance=True)
            for key, data in pending:
                session.put_record("staged", blob_key(key), self._token)
                session.txn.put(blob_key(key), data, db=session.env.table("blobs"))

        if pending:
            self._store.write(store_blobs)
            self.keys += [key for key, _ in pending]
            crash.point("staged")

    def adopt(self, session: WriteSession) -> None:
        """Drop the marks in the transaction that names the blobs."""
        for key in self.keys:
            session.txn.delete(blob_key(key), db=session.env.table("staged"))

    def discard(self) -> None:
        """Remove what was staged for nothing; what has been adopted stays."""
        self._pending.clear()
        if self.keys:
            self._store.write(lambda session: _remove(session, self.keys))
            self.keys = []


def sweep(session: WriteSession) -> int:
    """Remove blobs whose owner has ended; returns how many."""
    orphans = []
    for key, value in session.txn.cursor(db=session.env.table("staged")):
        token = bytes(open_record("staged", bytes(key), value)).decode()
        if not process_lives(token):
            orphans.append(int.from_bytes(bytes(key), "big"))
    _remove(session, orphans)
    return len(orphans)


def _remove(session: WriteSession, keys: list[int]) -> None:
    """Remove the blobs that still are marked: an interrupt may hide from the owner that they were adopted."""
    for key in keys:
        if session.txn.delete(blob_key(key), db=session.env.table("staged")):
            session.txn.delete(blob_key(key), db=session.env.table("blobs"))
