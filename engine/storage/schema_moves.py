"""Schema changes of a stored collection, online: old segments keep their bytes, new columns read as null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from gingham.schema import Schema, Text
from gingham.storage.catalog import CollectionRecord, SegmentRecord
from gingham.storage.codes import check_codecs
from gingham.storage.records import blob_key, child_key, collection_key
from gingham.storage.tail import read_tail_batch, write_tail_batch
from gingham.storage.tombstones import TAIL, write_dead
from gingham.storage.writes import remove_segment
from gingham.text.analyze import check_language

if TYPE_CHECKING:
    from gingham.embed.record import EmbedderRecord
    from gingham.schema import Field, Vector
    from gingham.storage.session import WriteSession


def create_collection(session: WriteSession, name: str, schema: Schema) -> CollectionRecord:
    """Enter an empty collection in the catalog; the caller has checked that the name is free."""
    _check_languages(schema)
    check_codecs(schema)
    cid = session.store.next_collection
    session.store.next_collection += 1
    session.store.names = {**session.store.names, name: cid}
    record = CollectionRecord(cid=cid, name=name, schema=schema)
    session.shared.collections[cid] = record
    return session.touch(cid)


def _check_languages(schema: Schema) -> None:
    for field in schema.fields.values():
        if isinstance(field, Text) and field.bm25:
            check_language(field.language)


def set_embedder(session: WriteSession, cid: int, embedder: EmbedderRecord) -> None:
    """Store what embeds a collection's text, and name the fields its vectors are made from."""
    record = session.touch(cid)
    record.embedder, record.schema = embedder, record.schema.with_sources()


def rename_collection(session: WriteSession, old: str, new: str) -> None:
    """Change the name; the number stays."""
    record = session.touch(session.collection_id(old))
    names = dict(session.store.names)
    names[new] = names.pop(old)
    session.store.names = names
    record.name = new


def drop_collection(session: WriteSession, name: str) -> None:
    """Remove a collection and everything it names."""
    record = session.collection(name)
    cid = record.cid
    for ref in list(record.segments):
        remove_segment(session, record, ref.sid)
    for entry in record.tail:
        session.txn.delete(child_key(cid, entry.seq), db=session.env.table("tail"))
    write_dead(session.env, session.txn, cid, TAIL, np.empty(0, np.int64))
    prefix = cid.to_bytes(4, "big")
    cursor = session.txn.cursor(db=session.env.table("ids"))
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()[:4]) == prefix:
        found = cursor.delete()
    session.txn.delete(collection_key(cid), db=session.env.table("catalog"))
    session.store.names = {n: c for n, c in session.store.names.items() if c != cid}
    session.dropped.add(cid)


def add_columns(session: WriteSession, cid: int, *, fields: dict[str, Field], vectors: dict[str, Vector]) -> None:
    """Add fields and vectors; rows that exist have none of them."""
    record = session.touch(cid)
    old = record.schema
    schema = Schema.of({**old.fields, **fields}, {**old.vectors, **vectors})
    _check_languages(schema)
    check_codecs(schema)
    record.schema = schema
    record.schema_epoch += 1


def drop_column(session: WriteSession, cid: int, name: str) -> None:
    """Remove a field or a vector with its blobs."""
    record = session.touch(cid)
    for ref in record.segments:
        segment = session.segment_record(cid, ref.sid, record.schema_epoch)
        kept = msgspec.structs.replace(
            segment,
            fields={n: b for n, b in segment.fields.items() if n != name},
            vectors={n: c for n, c in segment.vectors.items() if n != name},
            inverted={n: r for n, r in segment.inverted.items() if n != name},
            coded={n: c for n, c in segment.coded.items() if n != name},
        )
        store_segment(session, cid, ref.sid, segment, kept)
        ref.nbytes = sum(blob.length for blob in kept.blobs())
    for entry in record.tail:
        batch: Any = read_tail_batch(session, cid, entry)
        gone = [column for column in (f"f:{name}", f"v:{name}", f"n:{name}") if column in batch.schema.names]
        entry.nbytes = write_tail_batch(session, cid, entry.seq, batch.drop_columns(gone))
    schema = record.schema
    record.schema = Schema(
        {n: f for n, f in schema.fields.items() if n != name},
        {n: v for n, v in schema.vectors.items() if n != name},
    )
    record.schema_epoch += 1


def store_segment(session: WriteSession, cid: int, sid: int, old: SegmentRecord, new: SegmentRecord) -> None:
    """Replace the record of a segment, and remove the blobs that only the old one names."""
    kept = {ref.key for ref in new.blobs()}
    for ref in old.blobs():
        if ref.key not in kept:
            session.txn.delete(blob_key(ref.key), db=session.env.table("blobs"))
            session.env.checked.pop(ref, None)
            session.env.freed_bytes += ref.length
    session.put_record("segments", child_key(cid, sid), msgspec.msgpack.encode(new))
