"""Codes and graphs of stored vector fields made beside those in use; one transaction switches.

They are derived from the vectors: maintenance makes what a segment lacks or what is damaged, and a caller may ask for
another codec or index.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from gingham.errors import SchemaMismatch
from gingham.index.exact import prepare_queries
from gingham.schema import Dense, Schema, Tokens
from gingham.storage import crash
from gingham.storage.choice import chosen, memory_bytes, stored_row_bytes
from gingham.storage.codes import Encoding, has_enough_rows, train_codec, write_arrays
from gingham.storage.graph_recall import GraphRecall
from gingham.storage.graphs import (
    QUERIES,
    build_graph,
    calibration_record,
    write_graph,
)
from gingham.storage.lists import build_lists, measure_lists, write_lists
from gingham.storage.part import sample_queries, take_norms, take_vectors
from gingham.storage.records import blob_key
from gingham.storage.schema_moves import store_segment
from gingham.storage.staging import StagedBlobs
from gingham.storage.token_codes import make_token_codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.index.calibration import Calibration
    from gingham.storage.blobs import BlobSink
    from gingham.storage.catalog import CodedRecord, CollectionRecord, SegmentRecord
    from gingham.storage.segment import SegmentPart
    from gingham.storage.session import Session, WriteSession
    from gingham.storage.store import Store

    Array = np.ndarray[Any, Any]

MOST_QUERIES = 512
"""Sample queries measured with and kept: recall of 0.95 within 0.01."""


def is_due(part: SegmentPart, name: str, dense: Dense, memory: int) -> bool:
    """Whether the codes or the graph of a column are others than its type says, or damaged.

    Parameters
    ----------
    memory : bytes that making them may take; where that is not enough, what there is stays
    """
    dense = chosen(dense, part.rows, memory)
    if not has_enough_rows(part.rows) or memory_bytes(dense, part.rows) > memory or part.cannot_code(name, dense):
        return False
    known = part.record.coded.get(name)
    if part.damaged_kinds(name) & {"codes", "graph"}:
        return True
    if (None if known is None else known.spec) != dense.codec:
        return True
    index = None if known is None or known.searched_by is None else known.searched_by.index
    return known is not None and index != (dense.index if dense.indexed else None)


def make_coded(sink: BlobSink, part: SegmentPart, name: str, dense: Dense) -> CodedRecord | None:
    """Codes and index of a column as its type says, or None where it has none; what is there and fits is kept."""
    known = part.record.coded.get(name)
    damaged = "codes" in part.damaged_kinds(name)
    if known is not None and known.lists is not None and known.lists.index != dense.index:
        known = None  # codes in the order of lists are of no use to anything else
    if known is not None and (damaged or known.spec != dense.codec):
        known = msgspec.structs.replace(known, spec="")
    encoding = None
    if known is None or not known.spec:
        codec = train_codec(dense, part.rows, partial(_rows_of, part, name, dense))
        if codec is None:
            part.remember_uncoded(name, dense)
            return None
        encoding = Encoding(codec, dense)
        for chunk in part.chunks(name):
            encoding.add(chunk.vectors, chunk.norms)
    return (_listed if dense.in_lists else _graphed)(sink, part, name, dense, known, encoding)


def _graphed(
    sink: BlobSink, part: SegmentPart, name: str, dense: Dense, known: CodedRecord | None, encoding: Encoding | None
) -> CodedRecord:
    """Codes, those encoded or those known, and their graph if there is to be one."""
    if encoding is not None:
        made, rows = encoding.write(sink), (encoding.codec, encoding.codes())
    else:
        assert known is not None
        made, rows = msgspec.structs.replace(known, graph=None), None
    if not dense.indexed:
        return made
    coded, queries, vectors_of = part.coded(name), sample_queries(part, name), partial(_rows_of, part, name, dense)
    graph = None if known is None or "graph" in part.damaged_kinds(name) else known.graph
    if graph is None or graph.index != dense.index:
        if rows is None:
            if coded is None:
                return made
            rows = coded.codec, coded.codes
        graph = write_graph(sink, dense, build_graph(dense, part.rows, vectors_of, rows, queries=queries))
    elif rows is not None and coded is not None and coded.graph is not None:
        recall = GraphRecall(dense, part.rows, vectors_of, *rows, queries)
        recall.finish(coded.graph.graph)
        calibration = calibration_record(recall.found, asked=queries is not None)
        graph = msgspec.structs.replace(graph, calibration=calibration)
    return msgspec.structs.replace(made, graph=graph)


def _listed(
    sink: BlobSink, part: SegmentPart, name: str, dense: Dense, known: CodedRecord | None, encoding: Encoding | None
) -> CodedRecord:
    """Codes, those encoded or those known, in lists."""
    if encoding is not None:
        rows = encoding.codec, encoding.codes()
    else:
        assert known is not None
        coded = part.coded(name)
        if coded is None or known.lists is not None:
            return known
        rows = coded.codec, coded.codes
    norms = take_norms(part, name, np.arange(part.rows))
    vectors_of = partial(_rows_of, part, name, dense)
    built = build_lists(dense, norms, vectors_of, rows, queries=sample_queries(part, name), attempt=part.attempt)
    return write_lists(sink, dense, built)


def _rows_of(part: SegmentPart, name: str, dense: Dense, rows: Any) -> tuple[Array, Array]:
    """Vectors and norms at ascending offsets, or in a slice of them."""
    if isinstance(rows, slice):
        rows = range(part.rows)[rows]
        rows = np.arange(rows.start, rows.stop)
    return take_vectors(part, name, dense, rows), take_norms(part, name, rows)


def with_coded(record: SegmentRecord, made: Mapping[str, CodedRecord | None]) -> SegmentRecord:
    """The record of a segment with other codes of some vectors."""
    coded = {name: one for name, one in {**record.coded, **made}.items() if one is not None}
    return msgspec.structs.replace(record, coded=coded)


def choose_coding(
    session: Session, record: CollectionRecord, memory: int, rows: int, room: int
) -> tuple[int, list[str]] | None:
    """The largest segment that lacks codes or a graph, or has damaged ones, and its fields; None where none does.

    Parameters
    ----------
    memory : as of :func:`is_due`
    rows : of a segment, at least
    room : bytes that may be written
    """
    names = [name for name, dense in record.schema.dense.items() if dense.codec is not None or dense.by_size]
    tokens = {name: kind for name, kind in record.schema.vectors.items() if isinstance(kind, Tokens) and kind.codec}
    if not names and not tokens:
        return None
    due = []
    for part in (part for part in session.segments(record) if part.rows >= rows):
        fields = [name for name in names if is_due(part, name, record.schema.dense[name], memory)]
        kinds = [chosen(record.schema.dense[name], part.rows, memory) for name in fields]
        nbytes = part.rows * sum(map(stored_row_bytes, kinds))
        for name, kind in tokens.items():
            if _tokens_due(part, name, kind):
                fields.append(name)
                nbytes += part.record.fields[name].length // 2
        if fields and nbytes <= room:
            due.append((part.rows, part.ref.sid, fields))
    return max(due)[1:] if due else None


def _tokens_due(part: SegmentPart, name: str, kind: Tokens) -> bool:
    """Whether the codes of a token field are missing or damaged, or others than its type says."""
    known = part.record.coded.get(name)
    if name not in part.record.fields or part.cannot_code(name, kind):
        return False
    return known is None or known.spec != kind.codec or "codes" in part.damaged_kinds(name)


def code_segment(store: Store, cid: int, sid: int, names: list[str], sink: StagedBlobs) -> bool:
    """Make codes and graphs of fields of one segment; False where it changed meanwhile."""
    with store.read() as session:
        record = session.collection_by_id(cid)
        epoch = record.schema_epoch
        part = next((part for part in session.segments(record) if part.ref.sid == sid), None)
        if part is None:
            return False
        made: dict[str, CodedRecord | None] = {}
        for name in names:
            kind = record.schema.vectors[name]
            if isinstance(kind, Dense):
                dense = chosen(kind, part.rows, store.options.memory_budget)
                made[name] = make_coded(sink, part, name, dense)
            elif isinstance(kind, Tokens):
                made[name] = make_token_codes(sink, part.field(name, kind), kind)
                if made[name] is None:
                    part.remember_uncoded(name, kind)
    sink.flush()
    crash.point("index before switch")

    def switch(session: WriteSession) -> bool:
        record = session.touch(cid)
        if record.schema_epoch != epoch or all(ref.sid != sid for ref in record.segments):
            return False
        _name(session, record, {sid: made})
        record.schema_epoch += 1
        sink.adopt(session)
        return True

    done = store.write(switch)
    crash.point("index after switch")
    return done


def measure_indexes(store: Store, cid: int, name: str, queries: Array) -> int:
    """Measure the indexes of a vector with sample queries, float32 (m, dim), and keep these; returns how many they are.

    Notes
    -----
    One commit for each segment; one that is merged meanwhile takes over the queries of its parts.
    """
    with store.read() as session:
        sids = [ref.sid for ref in session.collection_by_id(cid).segments]
    return sum(_measure_index(store, cid, sid, name, queries) for sid in sids)


def _measure_index(store: Store, cid: int, sid: int, name: str, queries: Array) -> bool:
    """Measure the index of a segment; False where it has none, or is gone."""
    sink = StagedBlobs(store)
    with store.read() as session:
        record = session.collection_by_id(cid)
        epoch, dense = record.schema_epoch, record.schema.dense[name]
        part = next((part for part in session.segments(record) if part.ref.sid == sid), None)
        coded = None if part is None else part.coded(name)
        if part is None or coded is None:
            return False
        vectors_of = partial(_rows_of, part, name, dense)
        asked, known = prepare_queries(queries[:MOST_QUERIES], dense.metric), part.record.coded[name]
        if coded.graph is not None:
            recall = GraphRecall(dense, part.rows, vectors_of, coded.codec, coded.codes, asked)
            recall.finish(coded.graph.graph)
            made = {"graph": _measured(sink, known.graph, asked, recall.found)}
        elif coded.lists is not None:
            norms = take_norms(part, name, np.arange(part.rows))
            search = replace(coded.lists.search, vectors=None)
            made = {
                "lists": _measured(sink, known.lists, asked, measure_lists(dense, norms, vectors_of, search, asked))
            }
        else:
            return False
    sink.flush()

    def switch(session: WriteSession) -> bool:
        record = session.touch(cid)
        if record.schema_epoch != epoch or all(ref.sid != sid for ref in record.segments):
            return False
        _name(session, record, {sid: {name: msgspec.structs.replace(known, **made)}})
        record.schema_epoch += 1
        sink.adopt(session)
        return True

    done = store.write(switch)
    if not done:
        sink.discard()
    return done


def _measured(sink: BlobSink, record: Any, queries: Array, found: Calibration | None) -> Any:
    """The record of an index with what was measured with sample queries."""
    arrays = {**record.arrays, **write_arrays(sink, {QUERIES: queries})}
    return msgspec.structs.replace(record, arrays=arrays, calibration=calibration_record(found, asked=True))


def _name(
    session: WriteSession, record: CollectionRecord, made: Mapping[int, Mapping[str, CodedRecord | None]]
) -> None:
    """Enter codes in the records of segments; the caller changes the schema epoch, which those are known by."""
    for ref in record.segments:
        if ref.sid in made:
            old = session.segment_record(record.cid, ref.sid, record.schema_epoch)
            new = with_coded(old, made[ref.sid])
            store_segment(session, record.cid, ref.sid, old, new)
            ref.nbytes = sum(blob.length for blob in new.blobs())
            for name in made[ref.sid]:
                session.env.damaged -= {("codes", ref.sid, name), ("graph", ref.sid, name)}


class Recoding:
    """Another codec and index of a vector field, from the first blob that is staged to the switch.

    Parameters
    ----------
    name : the field
    field : its type, as the caller checked the codec by it
    target : its type with the new codec and index

    Attributes
    ----------
    made : by segment number, None where a segment gets no codes

    Raises
    ------
    SchemaMismatch : the field was dropped or replaced meanwhile
    """

    def __init__(self, store: Store, cid: int, name: str, field: Dense, target: Dense) -> None:
        self._store = store
        self._cid = cid
        self._name = name
        self._field = field
        self._target = target
        self._sink = StagedBlobs(store)
        self.made: dict[int, CodedRecord | None] = {}

    def stage(self) -> None:
        """Make codes and graphs for the segments that have others or none.

        Notes
        -----
        Runs in the calling thread, beside readers and writers. A segment made meanwhile is not seen.
        """
        with self._store.read() as session:
            record = session.collection_by_id(self._cid)
            self._check_field(record.schema.dense.get(self._name))
            for part in session.segments(record):
                if self._is_due(part):
                    dense = chosen(self._target, part.rows, self._store.options.memory_budget)
                    self.made[part.ref.sid] = make_coded(self._sink, part, self._name, dense)
        self._sink.flush()

    def _is_due(self, part: SegmentPart) -> bool:
        return is_due(part, self._name, self._target, self._store.options.memory_budget)

    def switch(self) -> None:
        """Name the staged codes, the codec and the index, in one transaction."""

        def change(session: WriteSession) -> None:
            record = session.touch(self._cid)
            self._check_field(record.schema.dense.get(self._name))
            self._drop_unfit(session, record)
            _name(session, record, {sid: {self._name: one} for sid, one in self.made.items()})
            dense = msgspec.structs.replace(
                record.schema.dense[self._name], codec=self._target.codec, index=self._target.index
            )
            record.schema = Schema(record.schema.fields, {**record.schema.vectors, self._name: dense})
            record.schema_epoch += 1
            self._sink.adopt(session)

        self._store.write(change)

    def _check_field(self, found: Dense | None) -> None:
        same = {"codec": self._field.codec, "index": self._field.index}
        if found is None or msgspec.structs.replace(found, **same) != self._field:
            raise SchemaMismatch(
                f"the dense vector {self._name!r} is expected to stay {self._field} while its codes are made, found it "
                f"{'dropped' if found is None else found} meanwhile; the codes made for it are discarded"
            )

    def _drop_unfit(self, session: WriteSession, record: CollectionRecord) -> None:
        """Remove the codes made for segments that are gone, or whose blobs that were to be kept are."""
        mine, sids = set(self._sink.keys), {ref.sid for ref in record.segments}
        for sid, made in list(self.made.items()):
            blobs = [] if made is None else made.blobs()
            kept = {blob.key for blob in blobs} - mine
            if sid in sids:
                old = session.segment_record(record.cid, sid, record.schema_epoch)
                if kept <= {blob.key for blob in old.blobs()}:
                    continue
            del self.made[sid]
            for blob in blobs:
                if blob.key in mine:
                    session.txn.delete(blob_key(blob.key), db=session.env.table("blobs"))

    def pending(self) -> bool:
        """Whether a segment has come up meanwhile that has other codes, or none though it could have some."""
        with self._store.read() as session:
            parts = session.segments(session.collection_by_id(self._cid))
            return any(part.ref.sid not in self.made and self._is_due(part) for part in parts)

    def discard(self) -> None:
        """Give up what was staged."""
        self._sink.discard()
