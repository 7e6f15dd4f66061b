"""Reading everything: every record, every blob piece, every page, and how they fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gingham.errors import CollectionNotFound, GinghamError
from gingham.storage import pages
from gingham.storage.blobs import piece_intact, read_blob
from gingham.storage.environment import DATA_FILE
from gingham.storage.part import take_ids
from gingham.storage.records import (
    PIECE_BYTES,
    blob_key,
    child_key,
    collection_key,
    id_key,
    open_record,
    open_row,
    receipt_key,
)
from gingham.storage.segment import SegmentPart
from gingham.storage.tail import TailPart
from gingham.storage.tombstones import TAIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gingham.storage.catalog import BlobRef, CollectionRecord
    from gingham.storage.part import Part
    from gingham.storage.session import Session


BLOCK_ROWS = 16_384
"""Rows whose ids are held in memory at once."""
_MIX = 0x9E37_79B9_7F4A_7C15


@dataclass(frozen=True)
class Damage:
    """One place where stored bytes are not what was written.

    Attributes
    ----------
    where : collection, segment, blob, record or page
    what : what was expected and what was found
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class VerifyReport:
    """Outcome of reading a store, or one collection of it.

    Attributes
    ----------
    damage : empty for a healthy store
    records : checksummed records read
    blob_bytes : bytes of blobs read
    """

    damage: list[Damage] = field(default_factory=list)
    records: int = 0
    blob_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.damage


def verify_session(session: Session, progress: Callable[[int], None] | None = None) -> list[Damage]:
    """Damage that :func:`verify` finds."""
    return verify(session, progress).damage


def verify(session: Session, progress: Callable[[int], None] | None = None, *, only: int | None = None) -> VerifyReport:
    """Read everything a session sees.

    Parameters
    ----------
    progress : called with the number of blob bytes read so far
    only : number of the collection to read; None reads all and looks for what none of them names

    Returns
    -------
    VerifyReport : all damage to live bytes
    """
    report = VerifyReport()
    # Also for one collection: they share the trees, and a damaged one cannot be walked.
    found = pages.check_trees(session.env.folder / DATA_FILE, pinned=session.txn.id(), free_pages=only is None)
    report.damage += [Damage(d.where, d.what) for d in found]
    if report.damage:
        return report
    names = session.store.names
    if only is not None:
        names = {name: cid for name, cid in names.items() if cid == only}
        if not names:
            raise CollectionNotFound(f"collection number {only} has been dropped; open it again by name")
    _Reader(session, report, progress, names, only).run()
    return report


class _Rows:
    """A set of rows, in so far as two sets can be told apart by their size and a sum."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, *rows: int) -> None:
        self.count += len(rows)
        self.sum += sum((row * _MIX) ^ (row >> 7) for row in rows)


class _Reader:
    """One pass over a session, or over one collection in it."""

    def __init__(
        self,
        session: Session,
        report: VerifyReport,
        progress: Callable[[int], None] | None,
        names: Mapping[str, int],
        only: int | None,
    ) -> None:
        self._session = session
        self._report = report
        self._progress = progress
        self._names = names
        self._only = only
        self._named: set[int] = set()
        self._ids: dict[int, _Rows] = {}

    def run(self) -> None:
        for table in ("catalog", "tail", "segments", "tombstones", "staged"):
            self._read_table(table)
        self._read_ids()
        for name, cid in sorted(self._names.items()):
            with self._noting(f"collection {name!r}"):
                record = self._session.collection_by_id(cid)
                if record.name != name or record.cid != cid:
                    self._note(f"collection {name!r}", f"its record is that of {record.name!r}")
                self._read_collection(record)
        if self._only is None:
            self._find_nameless()
        self._find_strays()

    def _note(self, where: str, what: str) -> None:
        self._report.damage.append(Damage(where, what))

    def _noting(self, where: str) -> _Noting:
        return _Noting(self, where)

    def _records(self, table: str) -> Iterator[tuple[bytes, memoryview]]:
        """Records of a table: all, or those of the one collection."""
        prefix = b""
        if self._only is not None:
            if table == "staged":  # by blob: it is not yet known which collection will name it
                return
            prefix = collection_key(self._only) if table == "catalog" else id_key(self._only, b"")
        cursor = self._session.txn.cursor(db=self._session.env.table(table))
        if cursor.set_range(prefix):
            for key, value in cursor:
                if bytes(key[: len(prefix)]) != prefix:
                    return
                yield bytes(key), value

    def _read_table(self, table: str) -> None:
        for key, value in self._records(table):
            with self._noting(f"record {key.hex()} of table {table!r}"):
                open_record(table, key, value)
            self._report.records += 1

    def _read_ids(self) -> None:
        """Read the ids table, and count and sum up the rows of each collection that it names."""
        for encoded, value in self._records("ids"):
            with self._noting(f"ids record {encoded.hex()}"):
                self._ids.setdefault(int.from_bytes(encoded[:4], "big"), _Rows()).add(open_row(encoded, value))
            self._report.records += 1
        for cid in self._ids.keys() - set(self._names.values()):
            self._note(f"ids of collection number {cid}", "no collection has this number")

    def _read_collection(self, record: CollectionRecord) -> None:
        stored = _Rows()
        for part in self._session.parts(record):
            name = "tail" if isinstance(part, TailPart) else f"segment {part.ref.sid}"  # type: ignore[attr-defined]
            with self._noting(f"{name} of {record.name!r}"):
                if isinstance(part, SegmentPart):
                    self._read_blobs(part)
                self._read_part(record, part, stored)
        named = self._ids.get(record.cid, _Rows())
        if (stored.count, stored.sum) != (named.count, named.sum) or stored.count != record.rows:
            self._note(
                f"collection {record.name!r}",
                f"expects {record.rows} rows, found {stored.count} stored and {named.count} named",
            )

    def _read_blobs(self, part: SegmentPart) -> None:
        for ref in part.record.blobs():
            self._named.add(ref.key)
            with self._noting(f"blob {ref.key} of segment {part.ref.sid}"):
                self._read_blob(ref)

    def _read_blob(self, ref: BlobRef) -> None:
        view = read_blob(self._session.env, self._session.txn, ref, check=False)
        for piece in range(len(ref.checks) // 8):
            if not piece_intact(ref, view, piece):
                self._note(f"blob {ref.key}", f"piece {piece} at byte {piece * PIECE_BYTES} has another checksum")
        self._report.blob_bytes += ref.length
        if self._progress is not None:
            self._progress(self._report.blob_bytes)

    def _read_part(self, record: CollectionRecord, part: Part, stored: _Rows) -> None:
        """Every live row has the id that names it; rows are compared in blocks, so that memory is bounded."""
        row_ids = part.row_ids
        if len(row_ids) != part.rows or np.any(row_ids[:-1] >= row_ids[1:]):
            self._note(f"collection {record.name!r}", "row ids of a part are not ascending")
        for name in record.schema.dense:
            part.chunks(name)
            part.coded(name)
        for name, column in record.schema.columns.items():
            part.field(name, column)
        for name, kind in record.schema.inverted.items():
            part.postings(name, kind)
        live = np.setdiff1d(np.arange(part.rows), part.dead, assume_unique=True)
        cursor = self._session.txn.cursor(db=self._session.env.table("ids"))
        for start in range(0, len(live), BLOCK_ROWS):
            at = live[start : start + BLOCK_ROWS]
            keys = {
                id_key(record.cid, encoded): int(row)
                for encoded, row in zip(take_ids(part, at), row_ids[at], strict=True)
            }
            stored.add(*row_ids[at].tolist())
            found = {bytes(k): int.from_bytes(bytes(v)[:8], "little") for k, v in cursor.getmulti(sorted(keys))}
            wrong = [key for key, row in keys.items() if found.get(key) != row]
            if wrong or len(keys) != len(at):
                self._note(f"collection {record.name!r}", f"id {min(wrong, default=b'')[4:]!r} does not name its row")

    def _find_nameless(self) -> None:
        """Blobs that nothing names are staged, or were left behind."""
        txn, env = self._session.txn, self._session.env
        for key, _ in txn.cursor(db=env.table("blobs")):
            number = int.from_bytes(bytes(key), "big")
            if number not in self._named and txn.get(blob_key(number), db=env.table("staged")) is None:
                self._note(f"blob {number}", "no segment names it")
        known = {collection_key(cid) for cid in self._names.values()} | {b"store"}
        for key, _ in txn.cursor(db=env.table("catalog")):
            if bytes(key) not in known and bytes(key[:1]) != receipt_key(b""):
                self._note(f"catalog record {bytes(key).hex()}", "no name leads to it")

    def _find_strays(self) -> None:
        """Segments and tombstones that no collection names."""
        expected = set()
        for cid in self._names.values():
            try:
                record = self._session.collection_by_id(cid)
            except GinghamError:
                continue
            expected |= {child_key(cid, ref.sid) for ref in record.segments}
            expected |= {child_key(cid, TAIL)} if record.tail_dead else set()
        for table in ("segments", "tombstones"):
            for key, _ in self._records(table):
                if key not in expected:
                    self._note(f"record {key.hex()} of table {table!r}", "no collection names it")


class _Noting:
    """Turns errors of a block into damage."""

    def __init__(self, reader: _Reader, where: str) -> None:
        self._reader = reader
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, (GinghamError, CollectionNotFound)):
            self._reader._note(self._where, str(error))
            return True
        return False
