"""Sessions: one LMDB transaction and what has been decoded under it."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gingham.errors import CollectionNotFound, Corrupt, FormatTooNew
from gingham.schema import unknown_name
from gingham.storage.blobs import read_blob
from gingham.storage.catalog import BlobRef, CollectionRecord, SegmentRecord, StoreRecord
from gingham.storage.environment import TABLES
from gingham.storage.records import (
    FORMAT_VERSION,
    STORE_KEY,
    child_key,
    collection_key,
    open_record,
    seal_record,
)
from gingham.storage.segment import SegmentPart
from gingham.storage.tail import TailPart

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gingham.codecs.devices import Attempt
    from gingham.index.device_copies import DeviceCopies, Resident
    from gingham.schema import Dense
    from gingham.storage.environment import Environment
    from gingham.storage.holds import Use
    from gingham.storage.part import Part

T = TypeVar("T")

KEPT_BYTES = 256 << 20
"""Decoded immutable values (segment records, tombstones, tail batches, filter masks) kept per environment."""
MOST_PLANS = 64
"""Plans of searches kept for a transaction id; more start anew."""
_ENTRY_BYTES = 1024


class KeptCache:
    """Decoded values that own their memory, under keys that name their content; least recently used go first."""

    def __init__(self, nbytes: int = KEPT_BYTES) -> None:
        self._room = nbytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Value under ``key``, made on the first call."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                value: T = self._values[key]
                return value
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._room -= _size(value)
                while self._room < 0 and len(self._values) > 1:
                    self._room += _size(self._values.popitem(last=False)[1])
        return value


def _size(value: object) -> int:
    return _ENTRY_BYTES + int(getattr(value, "nbytes", 0))


class Shared:
    """What sessions of one transaction id share: catalog records and views on the map."""

    def __init__(self, txn_id: int) -> None:
        self.txn_id = txn_id
        self.store: StoreRecord | None = None
        self.collections: dict[int, CollectionRecord] = {}
        self.views: dict[Hashable, Any] = {}
        self.plans: dict[Hashable, Any] = {}


class Session:
    """A transaction and typed access to what it sees. Views are valid while the session is open."""

    def __init__(self, env: Environment, txn: Any, shared: Shared, kept: KeptCache) -> None:
        self.env = env
        self.txn = txn
        self.shared = shared
        self.cache = kept
        self.copies: DeviceCopies | None = None
        """Rows on a device, where there may be one."""
        self.use: Use | None = None
        """Keeps the file mapped for as long as this object lives."""
        self.scope: Any = None
        """A bound filter: to queries of this session, rows that it does not select are as if they were not there."""

    def scoped(self, scope: Any) -> Session:
        """The same transaction for queries of the rows that a bound filter selects."""
        same = copy.copy(self)
        same.scope = scope
        return same

    def end(self) -> None:
        """End a read transaction and the use of the map; may be called twice."""
        self.txn.abort()
        if self.use is not None:
            self.use.resource.leave(self.use)

    def look_up_tables(self) -> None:
        """Find the root of every table, so that what follows changes nothing in the transaction."""
        for table in TABLES:
            self.txn.stat(self.env.table(table))

    @property
    def store(self) -> StoreRecord:
        """The store record; raises FormatTooNew."""
        if self.shared.store is None:
            value = self.txn.get(STORE_KEY, db=self.env.table("catalog"))
            if value is None:
                raise Corrupt(f"{self.env.folder} has no store record; restore a backup")
            payload = open_record("catalog", STORE_KEY, value)
            version = msgspec.msgpack.decode(payload, type=_Format).format
            if version > FORMAT_VERSION:
                raise FormatTooNew(
                    f"{self.env.folder} has file format {version}, this Gingham reads up to {FORMAT_VERSION}; upgrade"
                )
            self.shared.store = decode(payload, StoreRecord, "store record")
        return self.shared.store

    def collection_id(self, name: str) -> int:
        """Number of a collection; raises CollectionNotFound."""
        try:
            return self.store.names[name]
        except (KeyError, TypeError):
            raise CollectionNotFound(unknown_name("collection", name, self.store.names)) from None

    def collection(self, name: str) -> CollectionRecord:
        """Record of a collection; raises CollectionNotFound."""
        return self.collection_by_id(self.collection_id(name))

    def collection_by_id(self, cid: int) -> CollectionRecord:
        """Record of a collection; raises CollectionNotFound."""
        if cid not in self.shared.collections:
            key = collection_key(cid)
            value = self.txn.get(key, db=self.env.table("catalog"))
            if value is None:
                raise CollectionNotFound(f"collection number {cid} has been dropped; open it again by name")
            payload = open_record("catalog", key, value)
            self.shared.collections[cid] = decode(payload, CollectionRecord, f"record of collection {cid}")
        return self.shared.collections[cid]

    def vector_of(self, cid: int, name: str) -> Dense:
        """Type of a vector field."""
        return self.collection_by_id(cid).schema.dense[name]

    def segment_record(self, cid: int, sid: int, schema_epoch: int) -> SegmentRecord:
        """Record of a segment."""
        return self.kept(("segment", sid, schema_epoch), lambda: self._read_segment(cid, sid))

    def _read_segment(self, cid: int, sid: int) -> SegmentRecord:
        key = child_key(cid, sid)
        value = self.txn.get(key, db=self.env.table("segments"))
        if value is None:
            raise Corrupt(f"segment {sid} of collection {cid} is missing; restore a backup")
        return decode(open_record("segments", key, value), SegmentRecord, f"record of segment {sid}")

    def segments(self, record: CollectionRecord) -> list[SegmentPart]:
        """Segments of a collection."""
        return [SegmentPart(self, record.cid, ref, record.schema_epoch) for ref in record.segments]

    def parts(self, record: CollectionRecord) -> list[Part]:
        """Segments and tail of a collection."""
        parts: list[Part] = [*self.segments(record)]
        return [*parts, TailPart(self, record)] if record.tail else parts

    def mapped(self, ref: BlobRef, decode_view: Callable[[memoryview], T]) -> T:
        """Decoded view of a blob, shared by the sessions of this transaction id."""
        view = self.shared.views.get(ref.key)
        if view is None:
            view = self.shared.views[ref.key] = decode_view(read_blob(self.env, self.txn, ref))
        found: T = view
        return found

    def planned(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, kept by the sessions of this transaction id: it must not hold a session."""
        plans, key = self.shared.plans, (self.scope, key)
        found: T | None = plans.get(key)
        if found is None:
            found = make()
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[key] = found
        return found

    def resident(self, key: Hashable) -> Resident | None:
        """Rows that may be on a device, under a key that names their content."""
        return None if self.copies is None else self.copies.of((str(self.env.folder), key))

    @property
    def attempt(self) -> Attempt | None:
        """What runs work on a device, where there may be one."""
        return None if self.copies is None else self.copies.attempt

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """Decoded value that owns its memory, shared across transactions."""
        return self.cache.get(key, make)


class WriteSession(Session):
    """A session that changes records; what it has read or written is private to it until it commits.

    ``fresh`` blobs and records may be aborted, so nothing is put into the shared caches.
    """

    def __init__(self, env: Environment, txn: Any) -> None:
        super().__init__(env, txn, Shared(-1), KeptCache())
        self.dropped: set[int] = set()
        self._touched: set[int] = set()
        self.superseded = False

    def touch(self, cid: int) -> CollectionRecord:
        """Record that will be stored at the end of the write."""
        self._touched.add(cid)
        return self.collection_by_id(cid)

    def next_version(self) -> int:
        """Version the write will have."""
        return self.store.version + 1

    def finish(self) -> None:
        """Store the changed records."""
        version = self.next_version()
        self.store.version = version
        for cid in self._touched - self.dropped:
            record = self.collection_by_id(cid)
            record.epoch = version
            self.put_record("catalog", collection_key(cid), msgspec.msgpack.encode(record))
        self.put_record("catalog", STORE_KEY, msgspec.msgpack.encode(self.store))

    def put_record(self, table: str, key: bytes, payload: bytes) -> None:
        """Store a sealed record."""
        self.txn.put(key, seal_record(key, payload), db=self.env.table(table))


class _Format(msgspec.Struct):
    format: int


def decode(payload: memoryview, kind: type[T], what: str) -> T:
    """Decode a record; raises Corrupt."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Corrupt(f"the {what} cannot be decoded ({error}); restore a backup") from error
