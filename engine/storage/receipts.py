"""Receipts: what writes of clients did, kept in the commits of these writes, so that none is done twice.

A job has one receipt, which each of its commits replaces; any other write has one of its own. Of either kind the
store keeps as many as fit in a ring, and forgets the oldest.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gingham.storage.records import open_record, receipt_key
from gingham.storage.session import decode
from gingham.types import WriteResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.storage.session import WriteSession
    from gingham.storage.store import Store

MOST_JOBS = 1024
"""A receipt takes about 100 bytes, and the slot that leads to it 50."""
MOST_WRITES = 4096


class ReceiptRecord(msgspec.Struct, array_like=True):
    """How far a job has come, or that a write is done.

    Attributes
    ----------
    sequence : last batch of a job; 0 for any other write
    counts : version, inserted, updated, deleted and missing of all that it did
    """

    sequence: int
    counts: tuple[int, int, int, int, int]

    @property
    def result(self) -> WriteResult:
        """What it did."""
        return WriteResult(*self.counts)


@dataclass(frozen=True)
class Receipts:
    """The receipts of a kind.

    Parameters
    ----------
    kind : one byte of their keys
    most : receipts kept
    """

    kind: bytes
    most: int

    def find(self, session: Any, digest: bytes) -> ReceiptRecord | None:
        """The receipt of a job or a write; None where there is none, or it is forgotten.

        Parameters
        ----------
        digest : 16 bytes that the job or the write is known by
        """
        packed = self._read(session, b"i" + digest)
        return None if packed is None else decode(packed, ReceiptRecord, "receipt")

    def keep(self, session: WriteSession, digest: bytes, sequence: int, result: WriteResult) -> None:
        """Write a receipt, in place of the one of the same digest, or else of the oldest one."""
        record = ReceiptRecord(sequence, astuple(result))
        if self._read(session, b"i" + digest) is None:
            self._enter(session, digest)
        self._write(session, b"i" + digest, msgspec.msgpack.encode(record))

    def _enter(self, session: WriteSession, digest: bytes) -> None:
        packed = self._read(session, b"n")
        slot = 0 if packed is None else int.from_bytes(packed, "big")
        name = b"s" + slot.to_bytes(4, "big")
        oldest = self._read(session, name)
        if oldest is not None:
            session.txn.delete(receipt_key(self.kind + b"i" + bytes(oldest)), db=session.env.table("catalog"))
        self._write(session, name, digest)
        self._write(session, b"n", ((slot + 1) % self.most).to_bytes(4, "big"))

    def _read(self, session: Any, name: bytes) -> memoryview | None:
        key = receipt_key(self.kind + name)
        value = session.txn.get(key, db=session.env.table("catalog"))
        return None if value is None else open_record("catalog", key, value)

    def _write(self, session: WriteSession, name: bytes, payload: bytes) -> None:
        session.put_record("catalog", receipt_key(self.kind + name), payload)


JOBS = Receipts(b"j", MOST_JOBS)
WRITES = Receipts(b"w", MOST_WRITES)


class OnceStore:
    """A store in which the next change is made once: where there is a receipt of it, its result is that one's.

    Parameters
    ----------
    digest : 16 bytes that the change is known by
    """

    def __init__(self, store: Store, digest: bytes) -> None:
        self._store = store
        self._digest = digest

    def write(self, change: Callable[[WriteSession], WriteResult]) -> WriteResult:
        """Make a change, unless it has been made."""

        def once(session: WriteSession) -> WriteResult:
            receipt = WRITES.find(session, self._digest)
            if receipt is not None:
                return receipt.result
            result = change(session)
            WRITES.keep(session, self._digest, 0, result)
            return result

        return self._store.write(once)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
