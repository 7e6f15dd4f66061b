"""Sealing and merging: live rows of some parts become one new segment.

The copy is made outside any write transaction; one short transaction then switches the catalog and buries
what was deleted meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import CollectionNotFound
from gingham.storage import crash
from gingham.storage.blobs import MAX_BLOB_BYTES, MAX_SEGMENT_ROWS
from gingham.storage.choice import chosen, most_rows
from gingham.storage.live import LiveRows
from gingham.storage.recode import choose_coding, code_segment
from gingham.storage.records import child_key
from gingham.storage.room import largest_segment, room_left
from gingham.storage.segment import CHUNK_BYTES, payload_columns
from gingham.storage.staging import StagedBlobs
from gingham.storage.tail import SEAL_ROWS, TailPart
from gingham.storage.tombstones import TAIL, read_dead, write_dead
from gingham.storage.writes import drop_tail, name_segment, remove_segment, tail_share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gingham.storage.catalog import CollectionRecord, SegmentRecord, SegmentRef, TailBatch
    from gingham.storage.session import Session, WriteSession
    from gingham.storage.store import Store

MERGE_FANOUT = 8
"""Segments of one size tier that are merged into one of the next: rows are rewritten once per factor of 8."""
GROWTH_SHARE = 1 / 8
"""Share of a segment that smaller ones add at least when they are merged into it: a million rows with graphs end up in
at most four segments, and a row is written anew six times while its segment doubles."""
DEAD_SHARE = 0.2
"""Share of dead rows above which a segment is rewritten."""
BUSY_SEGMENTS = 32
"""Segments above which merging does not wait for writes to pause."""
COLUMN_COPIES = 4
"""Times a payload column is in memory while a segment is written: taken, joined, encoded, and in LMDB's pages."""
PIECE_SHARE = 8
ROW_BYTES = 128
"""Memory for each row of a merge, its columns aside."""
BUSY_CODING_ROWS = 65_536
"""Rows of a segment from which its graph does not wait for writes to pause, since it is not merged again soon."""


@dataclass(frozen=True)
class Bounds:
    """What one merge may take.

    Attributes
    ----------
    nbytes : bytes of the segment it makes
    room : bytes that the store's cap leaves now
    column : bytes of its largest payload column, which is held in memory
    rows : its rows
    memory : bytes that making it may take
    """

    nbytes: int
    room: int
    column: int
    rows: int
    memory: int

    @classmethod
    def of(cls, store: Store, session: Session, record: CollectionRecord) -> Bounds:
        """Bounds by the memory budget and the size cap of a store, and what its vectors take."""
        memory = store.options.memory_budget
        return cls(
            nbytes=largest_segment(session.env.max_size),
            room=room_left(session.env, maintenance=True),
            column=min(MAX_BLOB_BYTES, memory // COLUMN_COPIES),
            rows=min(MAX_SEGMENT_ROWS, memory // ROW_BYTES, most_rows(record.schema, memory)),
            memory=memory,
        )

    def allow(self, refs: Sequence[SegmentRef], columns: Callable[[SegmentRef], dict[str, int]]) -> bool:
        """Whether the segments may become one."""
        sizes: dict[str, int] = {}
        for ref in refs:
            for name, nbytes in columns(ref).items():
                sizes[name] = sizes.get(name, 0) + nbytes
        return (
            sum(map(_live_bytes, refs)) <= min(self.nbytes, self.room)
            and sum(ref.rows - ref.dead for ref in refs) <= self.rows
            and max(sizes.values(), default=0) <= self.column
        )


def _piece_bytes(store: Store) -> int:
    """Vectors that a rewrite copies at once: they are in memory up to three times."""
    return min(CHUNK_BYTES, max(1, store.options.memory_budget // PIECE_SHARE))


def _fits(session: Session, record: CollectionRecord) -> bool:
    """Whether there is room to seal the tail; where there is none it waits."""
    return sum(entry.nbytes for entry in record.tail) <= room_left(session.env, maintenance=True)


def _live_bytes(ref: SegmentRef) -> int:
    return ref.nbytes * (ref.rows - ref.dead) // ref.rows


def choose_merge(session: Session, record: CollectionRecord, bounds: Bounds, *, quiet: bool = False) -> list[int]:
    """Numbers of the segments that are due to be merged or rewritten; empty where none is, or none may be.

    Parameters
    ----------
    quiet : no writes are going on

    Notes
    -----
    A segment with many dead rows, or with a damaged inverted index, is rewritten alone; damage found in this
    process counts. Of a tier with enough segments the smallest are merged, as many as the bounds allow; with graphs,
    which take nearly as long to search when they are small, all that are smaller than one are merged into it sooner.
    """
    tiers: dict[int, list[SegmentRef]] = {}
    damaged = {sid for kind, sid, _ in session.env.damaged if kind == "postings"}
    for ref in record.segments:
        due = ref.dead > DEAD_SHARE * ref.rows or ref.sid in damaged
        if due and _live_bytes(ref) <= bounds.room:
            return [ref.sid]
        live = max(ref.rows - ref.dead, SEAL_ROWS)
        tiers.setdefault(int(np.log(live / SEAL_ROWS) / np.log(MERGE_FANOUT) + 1e-9), []).append(ref)

    def columns(ref: SegmentRef) -> dict[str, int]:
        return payload_columns(session.segment_record(record.cid, ref.sid, record.schema_epoch))

    rows = sum(ref.rows - ref.dead for ref in record.segments)
    if quiet and any(chosen(dense, rows, bounds.memory).indexed for dense in record.schema.dense.values()):
        return _choose_smaller(record.segments, bounds, columns)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= MERGE_FANOUT:
            refs = sorted(tiers[tier], key=lambda ref: ref.rows - ref.dead)[:MERGE_FANOUT]
            while len(refs) > 1 and not bounds.allow(refs, columns):
                refs.pop()
            if len(refs) > 1:
                return [ref.sid for ref in refs]
    return []


def _choose_smaller(
    refs: Sequence[SegmentRef], bounds: Bounds, columns: Callable[[SegmentRef], dict[str, int]]
) -> list[int]:
    """The largest segment to which those that are smaller would add a :data:`GROWTH_SHARE`, and these."""
    order = sorted(refs, key=lambda ref: ref.rows - ref.dead, reverse=True)
    rows = [ref.rows - ref.dead for ref in order]
    for at in range(len(order) - 1):
        if sum(rows[at + 1 :]) >= GROWTH_SHARE * rows[at] and bounds.allow(order[at:], columns):
            return [ref.sid for ref in order[at:]]
    return []


def due_merge(store: Store, session: Session, record: CollectionRecord, *, quiet: bool = False) -> list[int]:
    """What :func:`choose_merge` says within the bounds of a store."""
    return choose_merge(session, record, Bounds.of(store, session, record), quiet=quiet)


def seal(store: Store, cid: int, sink: StagedBlobs) -> bool:
    """Turn the tail into a segment; False where it changed under the copy."""

    def raise_floor(session: WriteSession) -> None:
        record = session.touch(cid)
        record.seal_floor = record.next_seq

    store.write(raise_floor)
    with store.read() as session:
        record = session.collection_by_id(cid)
        batches = [(entry.seq, entry.rows) for entry in record.tail]
        live = LiveRows(record, [TailPart(session, record)])
        segment = live.write(sink, _piece_bytes(store)) if len(live) else None
        epoch = record.schema_epoch
    sink.flush()
    crash.point("seal before switch")

    def switch(session: WriteSession) -> bool:
        record = session.touch(cid)
        present = {(entry.seq, entry.rows): entry for entry in record.tail}
        if record.schema_epoch != epoch or any(batch not in present for batch in batches):
            return False
        sealed = [present[batch] for batch in batches]
        dead = read_dead(session.env, session.txn, cid, TAIL)
        _drop_batches(session, record, sealed, dead)
        if segment is not None:
            _place(session, record, segment, live.row_ids, dead.astype(np.uint64))
        sink.adopt(session)
        return True

    done = store.write(switch)
    crash.point("seal after switch")
    return done


def _drop_batches(
    session: WriteSession, record: CollectionRecord, sealed: list[TailBatch], dead: np.ndarray[Any, Any]
) -> None:
    if len(sealed) == len(record.tail):
        drop_tail(session, record)
        return
    gone = {entry.seq for entry in sealed}
    for seq in gone:
        session.txn.delete(child_key(record.cid, seq), db=session.env.table("tail"))
    record.tail = [entry for entry in record.tail if entry.seq not in gone]
    rest = dead[dead >= record.tail[0].first_row]
    record.tail_dead = len(rest)
    write_dead(session.env, session.txn, record.cid, TAIL, rest)


def merge(store: Store, cid: int, sids: list[int], sink: StagedBlobs, *, quiet: bool) -> bool:
    """Merge segments into one; False where they changed under the copy.

    Parameters
    ----------
    quiet : build indexes too; otherwise only where one of the segments has some, whose rows stay indexed then
    """
    with store.read() as session:
        record = session.collection_by_id(cid)
        parts = [part for part in session.segments(record) if part.ref.sid in sids]
        live = LiveRows(record, parts, store.options.memory_budget, session.attempt)
        indexes = quiet or any(coded.searched_by for part in parts for coded in part.record.coded.values())
        segment = live.write(sink, _piece_bytes(store), indexes=indexes) if len(live) else None
        epoch = record.schema_epoch
    sink.flush()
    crash.point("merge before switch")

    def switch(session: WriteSession) -> bool:
        record = session.touch(cid)
        sources = [part for part in session.segments(record) if part.ref.sid in sids]
        if record.schema_epoch != epoch or len(sources) != len(sids):
            return False
        dead = np.concatenate([part.row_ids[part.dead] for part in sources])
        for sid in sids:
            remove_segment(session, record, sid)
        if segment is not None:
            _place(session, record, segment, live.row_ids, dead)
        sink.adopt(session)
        return True

    done = store.write(switch)
    crash.point("merge after switch")
    return done


def _place(
    session: WriteSession,
    record: CollectionRecord,
    segment: SegmentRecord,
    row_ids: np.ndarray[Any, Any],
    dead: np.ndarray[Any, Any],
) -> None:
    """Name a staged segment and bury its rows that died since it was copied."""
    ref = name_segment(session, record, segment, row_ids=row_ids)
    offsets = np.flatnonzero(np.isin(row_ids, dead, assume_unique=True))
    if len(offsets) == len(row_ids):
        remove_segment(session, record, ref.sid)
    elif len(offsets):
        ref.dead = len(offsets)
        write_dead(session.env, session.txn, record.cid, ref.sid, offsets)


def _due_coding(
    store: Store, session: Session, record: CollectionRecord, *, quiet: bool
) -> tuple[int, list[str]] | None:
    """A segment to make codes and graphs for, and the fields."""
    room = room_left(session.env, maintenance=True)
    return choose_coding(session, record, store.options.memory_budget, 0 if quiet else BUSY_CODING_ROWS, room)


def rewrite(store: Store, cid: int, check: Callable[[], None], *, quiet: bool) -> bool:
    """Do the most urgent seal or merge of a collection, or make codes and graphs; False where nothing was due.

    Parameters
    ----------
    check : raises where the work should be given up
    quiet : no writes are going on; otherwise only a crowd of segments is merged, and only large ones get graphs
    """
    with store.read() as session:
        try:
            record = session.collection_by_id(cid)
        except CollectionNotFound:
            return False
        tail_bytes = min(largest_segment(session.env.max_size), store.options.memory_budget // PIECE_SHARE)
        sealing = bool(record.tail) and tail_share(record, tail_bytes) >= 1 and _fits(session, record)
        merging = not sealing and (quiet or len(record.segments) >= BUSY_SEGMENTS)
        sids = due_merge(store, session, record, quiet=quiet) if merging else []
        coding = None if sealing or sids else _due_coding(store, session, record, quiet=quiet)
    if not sealing and not sids and coding is None:
        return False
    sink = StagedBlobs(store, check=check)
    try:
        if coding is not None:
            done = code_segment(store, cid, *coding, sink)
        else:
            done = seal(store, cid, sink) if sealing else merge(store, cid, sids, sink, quiet=quiet)
    except CollectionNotFound:
        done = False
    except BaseException:
        sink.discard()
        raise
    if not done:
        sink.discard()
    return done
