"""Changes of rows inside one write transaction: look ids up, bury the old version, append the new one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from gingham.config import DEFAULT_MEMORY_BYTES
from gingham.errors import Corrupt, InvalidArgument, SchemaMismatch
from gingham.index.exact import row_norms, unusable_rows
from gingham.storage.blobs import MAX_BLOB_BYTES, MAX_SEGMENT_ROWS, PendingBlobs
from gingham.storage.catalog import CollectionRecord, SegmentRecord, SegmentRef, TailBatch
from gingham.storage.choice import most_rows
from gingham.storage.codes import train_codec
from gingham.storage.columns import concat, no_vectors
from gingham.storage.live import LiveRows
from gingham.storage.part import Part, take_field, take_ids, take_vectors
from gingham.storage.records import blob_key, child_key, id_key, open_row, seal_row
from gingham.storage.room import claim, largest_segment
from gingham.storage.segment import move_record, segment_bytes, write_segment
from gingham.storage.tail import (
    HARD_FACTOR,
    REWRITE_BYTES,
    SEAL_BATCHES,
    SEAL_BYTES,
    SEAL_ROWS,
    TailPart,
    read_tail_batch,
    tail_batch,
    write_tail_batch,
)
from gingham.storage.tombstones import TAIL, read_dead, write_dead
from gingham.text.postings import make_postings
from gingham.types import RowBatch, WriteResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.codecs.protocol import Codec
    from gingham.schema import Dense, Schema
    from gingham.storage.session import WriteSession

DIRECT_ROWS = 2048
DIRECT_BYTES = 4 << 20
"""Batches this large become a segment at once instead of passing through the tail."""
_ROW_BYTES = 64


@dataclass(frozen=True)
class PreparedRows:
    """Rows of an upsert with everything computed that needs no transaction, and the schema they were checked by."""

    batch: RowBatch
    schema: Schema
    id_column: pa.Array
    norms: dict[str, np.ndarray[Any, Any]]
    segments: list[tuple[SegmentRecord, PendingBlobs]]
    memory: int = DEFAULT_MEMORY_BYTES

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take, about."""
        return _nbytes(self.batch)


def prepare_rows(batch: RowBatch, schema: Schema, memory: int = DEFAULT_MEMORY_BYTES) -> PreparedRows:
    """Compute norms, and blobs and checksums where the batch becomes a segment of its own.

    Parameters
    ----------
    batch : every column of the schema
    schema : the one that the batch was checked by
    memory : bytes that maintenance may take for making codes and the graph of a segment
    """
    column = pa.array(batch.ids, pa.binary())
    norms = {name: row_norms(m, schema.dense[name].metric) for name, m in batch.vectors.items()}
    _check_lengths(norms, schema)
    if len(batch) < DIRECT_ROWS and _nbytes(batch) < DIRECT_BYTES:
        return PreparedRows(batch, schema, column, norms, [], memory)
    step = min(_segment_rows(len(batch), [column, *batch.fields.values()]), most_rows(schema, memory))
    segments = []
    for start in range(0, len(batch), step):
        blobs, rows = PendingBlobs(), slice(start, start + step)
        record = write_segment(
            blobs,
            row_ids=np.arange(len(column[rows]), dtype=np.uint64),
            ids=column[rows],
            vectors=[(name, [(m[rows], norms[name][rows])]) for name, m in batch.vectors.items()],
            fields=((name, values[rows]) for name, values in batch.fields.items()),
            inverted=((n, make_postings(kind, batch.fields[n][rows])) for n, kind in schema.inverted.items()),
            codecs=_codecs(schema, batch, norms, rows),
        )
        segments.append((record, blobs))
    return PreparedRows(batch, schema, column, norms, segments, memory)


def _codecs(
    schema: Schema, batch: RowBatch, norms: dict[str, np.ndarray[Any, Any]], rows: slice
) -> dict[str, tuple[Codec, Dense]]:
    """Codecs trained on rows of a batch."""
    out = {}
    for name, dense in schema.dense.items():
        vectors, lengths = batch.vectors[name][rows], norms[name][rows]
        codec = train_codec(dense, len(vectors), partial(_at, vectors, lengths))
        if codec is not None:
            out[name] = (codec, dense)
    return out


def _at(
    vectors: np.ndarray[Any, Any], norms: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return vectors[rows], norms[rows]


def _check_lengths(norms: dict[str, np.ndarray[Any, Any]], schema: Schema) -> None:
    for name, values in norms.items():
        unusable = unusable_rows(values, schema.dense[name].metric)
        if len(unusable):
            raise InvalidArgument(
                f"vector {name!r} expects lengths that float32 can square and, for cosine, divide by, from 1e-38 to "
                f"1e19, found another in row {int(unusable[0])}; scale the vectors"
            )


def _segment_rows(rows: int, columns: Sequence[pa.Array]) -> int:
    """Rows of each segment of a batch: none has too many, and no column is larger than a blob may be."""
    step = min(rows, MAX_SEGMENT_ROWS)
    while step > 1 and any(c[at : at + step].nbytes > MAX_BLOB_BYTES for c in columns for at in range(0, rows, step)):
        step = -(-step // 2)
    return step


def _nbytes(batch: RowBatch) -> int:
    """Bytes of ids and columns, with what LMDB and the ids table add to a row."""
    own = len(batch) * _ROW_BYTES + 2 * sum(map(len, batch.ids))
    return own + sum(m.nbytes for m in batch.vectors.values()) + sum(int(c.nbytes) for c in batch.fields.values())


def refit(batch: RowBatch, checked: Schema, schema: Schema, *, partial: bool = False) -> RowBatch:
    """Rows that were checked by one schema, as the schema wants them that the collection has when they are applied.

    Parameters
    ----------
    partial : leave columns out that the batch does not bring; otherwise they are filled with null

    Raises
    ------
    SchemaMismatch : rows hold values in a column that is gone or has another type
    """
    if checked == schema:
        return batch
    before, now = checked.without_codecs, schema.without_codecs
    old, new = {**before.fields, **before.vectors}, {**now.fields, **now.vectors}
    empty = {name: bool(np.isnan(m).all()) for name, m in batch.vectors.items()}
    empty |= {name: column.null_count == len(column) for name, column in batch.fields.items()}
    for name in empty:
        if new.get(name) != old[name] and not empty[name]:
            raise SchemaMismatch(
                f"the schema changed while rows were on their way: they bring {name!r} as {old[name]}, "
                f"found {new.get(name, 'no such column')}; send them again as the schema is now"
            )
    vectors = {name: m for name, m in batch.vectors.items() if new.get(name) == old[name]}
    fields = {name: column for name, column in batch.fields.items() if new.get(name) == old[name]}
    if not partial:
        n = len(batch)
        vectors = {k: vectors[k] if k in vectors else no_vectors(n, d.dim, d.dtype) for k, d in schema.dense.items()}
        fields = {k: fields[k] if k in fields else pa.nulls(n, f.arrow_type) for k, f in schema.columns.items()}
    return RowBatch(batch.ids, vectors, fields)


def find_rows(session: Any, cid: int, ids: Sequence[bytes]) -> dict[bytes, int]:
    """Row id of each encoded user id that exists."""
    session.env.check_ids()
    cursor = session.txn.cursor(db=session.env.table("ids"))
    keys = sorted(id_key(cid, encoded) for encoded in ids)
    return {bytes(k)[4:]: open_row(bytes(k), v) for k, v in cursor.getmulti(keys)}


def upsert(session: WriteSession, cid: int, rows: PreparedRows) -> WriteResult:
    """Insert rows, replacing those of the same id; raises SchemaMismatch where they no longer fit."""
    record = session.touch(cid)
    ids = rows.batch.ids
    if not ids:
        return WriteResult(session.next_version())
    if rows.schema != record.schema:
        rows = prepare_rows(refit(rows.batch, rows.schema, record.schema), record.schema, rows.memory)
    claim(session.env, rows.nbytes)
    replaced = find_rows(session, cid, ids)
    if replaced:
        bury(session, record, np.fromiter(replaced.values(), np.uint64, len(replaced)))
    first = record.next_row
    record.next_row += len(ids)
    items = [(key := id_key(cid, e), seal_row(key, first + i)) for i, e in enumerate(ids)]
    items.sort()
    session.txn.cursor(db=session.env.table("ids")).putmulti(items)
    for segment, blobs in rows.segments:
        place_pending(session, record, segment, blobs, first_row=first)
        first += segment.rows
    if not rows.segments:
        append_tail(session, record, rows, first)
        if tail_share(record, largest_segment(session.env.max_size)) >= HARD_FACTOR:
            seal_now(session, record)
    return WriteResult(session.next_version(), len(ids) - len(replaced), len(replaced))


def delete_ids(session: WriteSession, cid: int, ids: Sequence[bytes]) -> WriteResult:
    """Remove rows by encoded id; unknown ids are counted as missing."""
    wanted = list(dict.fromkeys(ids))
    found = find_rows(session, cid, wanted)
    record = session.touch(cid)
    for encoded in found:
        session.txn.delete(id_key(cid, encoded), db=session.env.table("ids"))
    bury(session, record, np.fromiter(found.values(), np.uint64, len(found)))
    return WriteResult(session.next_version(), deleted=len(found), missing=len(wanted) - len(found))


def update_rows(session: WriteSession, cid: int, changes: RowBatch, checked: Schema) -> WriteResult:
    """Change some columns of existing rows; unknown ids are counted as missing.

    Parameters
    ----------
    checked : the schema that the changes were checked by; raises SchemaMismatch where they no longer fit
    """
    record = session.touch(cid)
    changes = refit(changes, checked, record.schema, partial=True)
    found = find_rows(session, cid, changes.ids)
    known = [i for i, encoded in enumerate(changes.ids) if encoded in found]
    missing = len(changes.ids) - len(known)
    if not known:
        return WriteResult(session.next_version(), missing=missing)
    ids = [changes.ids[i] for i in known]
    old = read_rows(session, record, np.array([found[e] for e in ids], np.uint64))
    at = np.array(known, np.int64)
    vectors = {n: changes.vectors[n][at] if n in changes.vectors else m for n, m in old.vectors.items()}
    fields = {n: changes.fields[n].take(pa.array(at)) if n in changes.fields else c for n, c in old.fields.items()}
    merged = prepare_rows(RowBatch(ids, vectors, fields), record.schema)
    upsert(session, cid, merged)
    return WriteResult(session.next_version(), updated=len(ids), missing=missing)


Located = list[tuple[Part, np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def locate(parts: Sequence[Part], rows: np.ndarray[Any, Any]) -> Located:
    """Where row ids are stored: per part the offsets, and the positions in ``rows`` they answer.

    Raises
    ------
    Corrupt : a row is stored nowhere, or twice
    """
    out: Located = []
    for part in parts:
        mine = part.row_ids
        if not len(mine):
            continue
        if int(mine[-1]) - int(mine[0]) == len(mine) - 1:
            at = rows - mine[0]
            hit = at < len(mine)
        else:
            at = np.minimum(mine.searchsorted(rows), len(mine) - 1)
            hit = mine[at] == rows
        if hit.all():
            out.append((part, at.astype(np.int64), np.arange(len(rows))))
        elif hit.any():
            out.append((part, at[hit].astype(np.int64), np.flatnonzero(hit)))
    found = sum(len(where) for _, _, where in out)
    if found != len(rows):
        raise Corrupt(f"expected {len(rows)} rows in the segments and the tail, found {found}; run verify()")
    return out


def read_rows(session: Any, record: CollectionRecord, rows: np.ndarray[Any, Any]) -> RowBatch:
    """Copy whole rows by row id, in the order asked."""
    schema = record.schema
    found = locate(session.parts(record), rows)
    order = np.argsort(np.concatenate([where for _, _, where in found]), kind="stable")
    take = pa.array(order)
    ids = [encoded for part, offsets, _ in found for encoded in take_ids(part, offsets)]
    vectors = {
        name: np.concatenate([take_vectors(part, name, dense, offsets) for part, offsets, _ in found])[order]
        for name, dense in schema.dense.items()
    }
    fields = {
        name: concat([take_field(part, name, f, o) for part, o, _ in found], f.arrow_type).take(take)
        for name, f in schema.columns.items()
    }
    return RowBatch([ids[i] for i in order], vectors, fields)


def bury(session: WriteSession, record: CollectionRecord, rows: np.ndarray[Any, Any]) -> None:
    """Mark rows dead where they are stored; a segment without a live row goes at once."""
    if not len(rows):
        return
    for part, offsets, _ in locate(session.parts(record), rows):
        if isinstance(part, TailPart):
            dead = read_dead(session.env, session.txn, record.cid, TAIL)
            dead = np.union1d(dead, part.row_ids[offsets].astype(np.int64))
            record.tail_dead = len(dead)
            if record.tail_dead == part.rows:
                drop_tail(session, record)
            else:
                write_dead(session.env, session.txn, record.cid, TAIL, dead)
        else:
            ref = next(r for r in record.segments if r.sid == part.key[0])  # type: ignore[index]
            dead = np.union1d(read_dead(session.env, session.txn, record.cid, ref.sid), offsets)
            ref.dead = len(dead)
            if ref.dead == ref.rows:
                remove_segment(session, record, ref.sid)
            else:
                write_dead(session.env, session.txn, record.cid, ref.sid, dead)


def append_tail(session: WriteSession, record: CollectionRecord, rows: PreparedRows, first: int) -> None:
    """Append rows to the last tail batch where that is small, or as a batch of their own."""
    batch = tail_batch(rows.id_column, rows.batch.vectors, rows.norms, rows.batch.fields)
    last = record.tail[-1] if record.tail else None
    if last is not None and last.seq >= record.seal_floor and last.first_row + last.rows == first:
        old = read_tail_batch(session, record.cid, last)
        if last.nbytes + rows.nbytes <= REWRITE_BYTES and old.schema.equals(batch.schema):
            batch = pa.Table.from_batches([old, batch]).combine_chunks().to_batches()[0]
            last.rows = batch.num_rows
            last.nbytes = write_tail_batch(session, record.cid, last.seq, batch)
            return
    nbytes = write_tail_batch(session, record.cid, record.next_seq, batch)
    record.tail.append(TailBatch(record.next_seq, batch.num_rows, nbytes, first))
    record.next_seq += 1


def tail_rows(record: CollectionRecord) -> int:
    """Rows in the tail, dead ones included."""
    return sum(entry.rows for entry in record.tail)


def tail_share(record: CollectionRecord, most: int) -> float:
    """Size of the tail against its bounds in batches, rows and bytes: from 1 it is due to become a segment.

    Parameters
    ----------
    most : bytes of a segment that may be made now
    """
    nbytes = sum(entry.nbytes for entry in record.tail)
    return max(len(record.tail) / SEAL_BATCHES, tail_rows(record) / SEAL_ROWS, nbytes / min(SEAL_BYTES, most))


def seal_now(session: WriteSession, record: CollectionRecord) -> None:
    """Turn the tail into a segment inside this transaction."""
    claim(session.env, sum(entry.nbytes for entry in record.tail), maintenance=True)
    live = LiveRows(record, [TailPart(session, record)])
    blobs = PendingBlobs()
    segment = live.write(blobs) if len(live) else None
    drop_tail(session, record)
    if segment is not None:
        place_pending(session, record, segment, blobs, first_row=None)


def drop_tail(session: WriteSession, record: CollectionRecord) -> None:
    """Remove every tail batch."""
    for entry in record.tail:
        session.txn.delete(child_key(record.cid, entry.seq), db=session.env.table("tail"))
    record.tail, record.tail_dead = [], 0
    write_dead(session.env, session.txn, record.cid, TAIL, np.empty(0, np.int64))


def place_pending(
    session: WriteSession,
    record: CollectionRecord,
    segment: SegmentRecord,
    blobs: PendingBlobs,
    *,
    first_row: int | None,
) -> SegmentRef:
    """Store pending blobs and name them; ``first_row`` replaces row ids that count from 0."""
    base = session.store.next_blob
    session.store.next_blob += len(blobs.data)
    segment = move_record(segment, sid=0, base=base)
    if first_row is not None:
        row_ids = PendingBlobs()
        ref = row_ids.put(np.arange(first_row, first_row + segment.rows, dtype=np.uint64))
        blobs.data[segment.row_ids.key - base] = row_ids.data[0]
        segment = msgspec.structs.replace(segment, row_ids=type(ref)(segment.row_ids.key, ref.length, ref.checks))
    table = session.env.table("blobs")
    for number, data in enumerate(blobs.data):
        session.txn.put(blob_key(base + number), data, db=table)
    return name_segment(session, record, segment, row_ids=np.frombuffer(blobs.data[segment.row_ids.key - base], "<u8"))


def name_segment(
    session: WriteSession, record: CollectionRecord, segment: SegmentRecord, *, row_ids: np.ndarray[Any, Any]
) -> SegmentRef:
    """Give a segment whose blobs are stored its number and enter it in the catalog."""
    sid = session.store.next_segment
    session.store.next_segment += 1
    segment = msgspec.structs.replace(segment, sid=sid)
    session.put_record("segments", child_key(record.cid, sid), msgspec.msgpack.encode(segment))
    ref = SegmentRef(sid, segment.rows, 0, int(row_ids[0]), int(row_ids[-1]), segment_bytes(segment))
    record.segments.append(ref)
    return ref


def remove_segment(session: WriteSession, record: CollectionRecord, sid: int) -> None:
    """Remove a segment with its blobs and tombstones."""
    segment = session.segment_record(record.cid, sid, record.schema_epoch)
    for ref in segment.blobs():
        session.txn.delete(blob_key(ref.key), db=session.env.table("blobs"))
        session.env.checked.pop(ref, None)
    session.env.freed_bytes += segment_bytes(segment)
    session.txn.delete(child_key(record.cid, sid), db=session.env.table("segments"))
    write_dead(session.env, session.txn, record.cid, sid, np.empty(0, np.int64))
    record.segments = [ref for ref in record.segments if ref.sid != sid]
