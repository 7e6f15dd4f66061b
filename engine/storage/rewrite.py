"""Sealing and merging: live rows of some parts become one new segment.

The copy is made outside any write transaction; one short transaction then switches the catalog and buries
what was deleted meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import CollectionNotFound
from gingham.storage import crash
from gingham.storage.live import LiveRows
from gingham.storage.records import child_key
from gingham.storage.staging import StagedBlobs
from gingham.storage.tail import SEAL_BATCHES, SEAL_ROWS, TailPart
from gingham.storage.tombstones import TAIL, read_dead, write_dead
from gingham.storage.writes import drop_tail, name_segment, remove_segment, tail_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.storage.catalog import CollectionRecord, SegmentRecord, TailBatch
    from gingham.storage.session import WriteSession
    from gingham.storage.store import Store

MERGE_FANOUT = 8
"""Segments of one size tier that are merged into one of the next: rows are rewritten once per factor of 8."""
DEAD_SHARE = 0.2
"""Share of dead rows above which a segment is rewritten."""
BUSY_SEGMENTS = 32
"""Segments above which merging does not wait for writes to pause."""
MAX_SEGMENT_ROWS = 4_000_000


def wants_seal(record: CollectionRecord) -> bool:
    """Whether the tail is due to become a segment."""
    return len(record.tail) >= SEAL_BATCHES or tail_rows(record) >= SEAL_ROWS


def choose_merge(record: CollectionRecord) -> list[int]:
    """Numbers of the segments that are due to be merged or rewritten; empty where none is."""
    tiers: dict[int, list[int]] = {}
    for ref in record.segments:
        if ref.dead > DEAD_SHARE * ref.rows:
            return [ref.sid]
        live = max(ref.rows - ref.dead, SEAL_ROWS)
        tiers.setdefault(int(np.log(live / SEAL_ROWS) / np.log(MERGE_FANOUT) + 1e-9), []).append(ref.sid)
    rows = {ref.sid: ref.rows - ref.dead for ref in record.segments}
    for tier in sorted(tiers):
        sids = tiers[tier][:MERGE_FANOUT]
        if len(sids) == MERGE_FANOUT and sum(rows[sid] for sid in sids) <= MAX_SEGMENT_ROWS:
            return sids
    return []


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
        segment = live.write(sink) if len(live) else None
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


def merge(store: Store, cid: int, sids: list[int], sink: StagedBlobs) -> bool:
    """Merge segments into one; False where they changed under the copy."""
    with store.read() as session:
        record = session.collection_by_id(cid)
        parts = [part for part in session.segments(record) if part.ref.sid in sids]
        live = LiveRows(record, parts)
        segment = live.write(sink) if len(live) else None
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


def rewrite(store: Store, cid: int, check: Callable[[], None], *, quiet: bool) -> bool:
    """Do the most urgent seal or merge of a collection; False where nothing was due.

    Parameters
    ----------
    check : raises where the work should be given up
    quiet : no writes are going on; otherwise only a crowd of segments is merged
    """
    with store.read() as session:
        try:
            record = session.collection_by_id(cid)
        except CollectionNotFound:
            return False
        sealing = wants_seal(record)
        sids = choose_merge(record) if quiet or len(record.segments) >= BUSY_SEGMENTS else []
    if not sealing and not sids:
        return False
    sink = StagedBlobs(store, check=check)
    try:
        done = seal(store, cid, sink) if sealing else merge(store, cid, sids, sink)
    except CollectionNotFound:
        done = False
    except BaseException:
        sink.discard()
        raise
    if not done:
        sink.discard()
    return done
