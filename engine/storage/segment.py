"""Segments: immutable sets of column blobs."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from gingham.codecs.protocol import Codes
from gingham.errors import Corrupt
from gingham.index.chunked_rows import ChunkedRows, equal_chunks
from gingham.index.inverted import DTYPES, InvertedIndex
from gingham.storage.blobs import BlobSink, array_of, rebased
from gingham.storage.catalog import (
    BlobRef,
    CodedRecord,
    GraphRecord,
    InvertedRecord,
    SegmentRecord,
    SegmentRef,
    VectorChunk,
)
from gingham.storage.codes import Encoding, moved_arrays, read_arrays, read_codec
from gingham.storage.columns import pack_column, plain, unpack_column
from gingham.storage.graphs import BuiltGraph, read_graph, write_graph
from gingham.storage.lists import BuiltLists, read_lists, write_lists
from gingham.storage.part import Chunk, Coded, IndexedGraph
from gingham.storage.token_codes import read_token_codes
from gingham.storage.tombstones import read_dead
from gingham.text.postings import Postings, make_postings, no_postings

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from gingham.codecs.devices import Attempt
    from gingham.codecs.protocol import Codec
    from gingham.index.token_search import TokenSearch
    from gingham.schema import Column, Dense, Sparse, Text, Tokens
    from gingham.storage.session import Session

logger = logging.getLogger(__name__)

_WORDS, _WORD_KEYS = "words", "word_keys"
_NO_INDEXES: Mapping[str, Callable[[Codec, Codes], BuiltGraph | BuiltLists]] = {}
_NO_WORDS = pa.array([], pa.large_string())

CHUNK_BYTES = 128 << 20
"""Vectors are cut into blobs of this size; LMDB commits values of 64-500 MB at full disk speed."""


def write_segment(
    sink: BlobSink,
    *,
    row_ids: np.ndarray[Any, Any],
    ids: pa.Array,
    vectors: Iterable[tuple[str, Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]]],
    fields: Iterable[tuple[str, pa.Array]],
    inverted: Iterable[tuple[str, Postings]],
    codecs: Mapping[str, tuple[Codec, Dense]],
    indexes: Mapping[str, Callable[[Codec, Codes], BuiltGraph | BuiltLists]] = _NO_INDEXES,
) -> SegmentRecord:
    """Encode columns into blobs, one after the other, and describe them.

    Parameters
    ----------
    sink : takes the blobs
    row_ids : uint64 (n,), ascending
    ids : binary column of n encoded user ids
    vectors : per name the consecutive (vectors, norms) pieces of the column
    fields : per name the Arrow column
    inverted : per name the postings of a column
    codecs : trained, with their vector types, for the vectors that get codes
    indexes : per name of some of these what builds the graph over its codes, or the lists of them

    Returns
    -------
    SegmentRecord : with segment number 0, to be set when the segment is placed
    """
    columns, coded = {}, {}
    for name, pieces in vectors:
        encoding = Encoding(*codecs[name]) if name in codecs else None
        columns[name] = tuple(_write_chunks(sink, pieces, encoding))
        if encoding is not None:
            coded[name] = write_coded(sink, *codecs[name], encoding, indexes.get(name))
    return SegmentRecord(
        sid=0,
        rows=len(row_ids),
        row_ids=sink.put(np.ascontiguousarray(row_ids, np.uint64)),
        ids=sink.put(pack_column(ids)),
        vectors=columns,
        fields={name: sink.put(pack_column(column)) for name, column in fields},
        inverted={name: write_postings(sink, postings) for name, postings in inverted},
        coded=coded,
    )


def write_coded(
    sink: BlobSink,
    codec: Codec,
    dense: Dense,
    encoding: Encoding,
    build: Callable[[Codec, Codes], BuiltGraph | BuiltLists] | None,
) -> CodedRecord:
    """Store codes and what is built over them; codes are written before a graph is built, so that they can leave."""
    if build is None:
        return encoding.write(sink)
    if dense.in_lists:
        return write_lists(sink, dense, cast("BuiltLists", build(codec, encoding.codes())))
    record = encoding.write(sink)
    graph = write_graph(sink, dense, cast("BuiltGraph", build(codec, encoding.codes())))
    return msgspec.structs.replace(record, graph=graph)


def write_postings(sink: BlobSink, postings: Postings) -> InvertedRecord:
    """Encode postings into blobs."""
    arrays = {name: np.ascontiguousarray(a, DTYPES[name]) for name, a in postings.index.arrays().items()}
    arrays[_WORD_KEYS] = postings.word_keys
    blobs = {name: sink.put(array) for name, array in arrays.items() if len(array)}
    if len(postings.words):
        blobs[_WORDS] = sink.put(pack_column(postings.words))
    return InvertedRecord(postings.index.average_length, blobs)


def read_postings(session: Session, record: InvertedRecord, rows: int) -> Postings:
    """Invert :func:`write_postings` without copying; raises Corrupt."""
    found = {
        name: session.mapped(record.blobs[name], partial(array_of, dtype=dtype))
        if name in record.blobs
        else np.empty(0, dtype)
        for name, dtype in {**DTYPES, _WORD_KEYS: "<u8"}.items()
    }
    keys = found.pop(_WORD_KEYS)
    words = session.mapped(record.blobs[_WORDS], unpack_column) if _WORDS in record.blobs else _NO_WORDS
    index = InvertedIndex.from_arrays(rows, record.average_length, found)
    index.check()
    if len(words) != len(keys):
        raise Corrupt(f"an inverted index expects {len(keys)} words, found {len(words)}")
    return Postings(index, words, keys)


def _write_chunks(
    sink: BlobSink,
    pieces: Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    encoding: Encoding | None,
) -> Iterable[VectorChunk]:
    for matrix, norms in pieces:
        step = max(1, CHUNK_BYTES // max(1, matrix.itemsize * matrix.shape[1]))
        for start in range(0, len(matrix), step):
            part = np.ascontiguousarray(matrix[start : start + step])
            part_norms = np.ascontiguousarray(norms[start : start + step])
            norm_blob = sink.put(part_norms)
            if encoding is not None:
                encoding.add(part, part_norms)
            yield VectorChunk(len(part), sink.put(part), norm_blob)


def move_record(record: SegmentRecord, *, sid: int, base: int) -> SegmentRecord:
    """Give a record its segment number and move its relative blob keys to ``base``."""

    def moved(chunk: VectorChunk) -> VectorChunk:
        return VectorChunk(chunk.rows, rebased(chunk.vectors, base), rebased(chunk.norms, base))

    def moved_coded(one: CodedRecord) -> CodedRecord:
        graph = one.graph and msgspec.structs.replace(one.graph, arrays=moved_arrays(one.graph.arrays, base))
        lists = one.lists and msgspec.structs.replace(one.lists, arrays=moved_arrays(one.lists.arrays, base))
        return CodedRecord(one.spec, moved_arrays(one.learned, base), moved_arrays(one.codes, base), graph, lists)

    return msgspec.structs.replace(
        record,
        sid=sid,
        row_ids=rebased(record.row_ids, base),
        ids=rebased(record.ids, base),
        vectors={name: tuple(moved(c) for c in column) for name, column in record.vectors.items()},
        fields={name: rebased(ref, base) for name, ref in record.fields.items()},
        inverted={
            name: InvertedRecord(one.average_length, {n: rebased(ref, base) for n, ref in one.blobs.items()})
            for name, one in record.inverted.items()
        },
        coded={name: moved_coded(one) for name, one in record.coded.items()},
    )


def segment_bytes(record: SegmentRecord) -> int:
    """Bytes of all blobs."""
    return sum(ref.length for ref in record.blobs())


def payload_columns(record: SegmentRecord) -> dict[str, int]:
    """Bytes of each column that is written in one piece, and of each inverted index."""
    sizes = {"id": record.ids.length, **{f"f:{name}": ref.length for name, ref in record.fields.items()}}
    for name, postings in record.inverted.items():
        sizes[f"i:{name}"] = sum(ref.length for ref in postings.blobs.values())
    return sizes


class SegmentPart:
    """A segment as a :class:`~gingham.storage.part.Part` of an open session."""

    def __init__(self, session: Session, cid: int, ref: SegmentRef, schema_epoch: int) -> None:
        self._session = session
        self._cid = cid
        self._schema_epoch = schema_epoch
        self.ref = ref

    @property
    def key(self) -> Hashable:
        """Segment number and schema epoch."""
        return (self.ref.sid, self._schema_epoch)

    @property
    def rows(self) -> int:
        """Rows, dead ones included."""
        return self.ref.rows

    @property
    def record(self) -> SegmentRecord:
        """The blobs of the segment."""
        return self._session.segment_record(self._cid, self.ref.sid, self._schema_epoch)

    @property
    def dead(self) -> np.ndarray[Any, Any]:
        """Ascending offsets of dead rows."""
        if self.ref.dead == 0:
            return np.empty(0, np.int64)
        key = ("dead", self.ref.sid, self.ref.dead)
        found: np.ndarray[Any, Any] = self._session.kept(
            key, lambda: read_dead(self._session.env, self._session.txn, self._cid, self.ref.sid)
        )
        if len(found) != self.ref.dead or found[-1] >= self.rows:
            raise Corrupt(f"segment {self.ref.sid} expects {self.ref.dead} dead rows, found {len(found)}")
        return found

    @property
    def attempt(self) -> Attempt | None:
        """What runs work on a device, where there may be one."""
        return self._session.attempt

    @property
    def row_ids(self) -> np.ndarray[Any, Any]:
        """Ascending row ids."""
        return self._array(self.record.row_ids, "<u8", self.rows)

    @property
    def ids(self) -> pa.Array:
        """Encoded user ids."""
        return self._column(self.record.ids)

    def field(self, name: str, field: Column) -> pa.Array:
        """Payload column; all null where the segment is older than the field."""
        ref = self.record.fields.get(name)
        return pa.nulls(self.rows, field.arrow_type) if ref is None else self._column(ref)

    def chunks(self, name: str) -> list[Chunk]:
        """Chunks of a vector column; none where the segment is older than the vector."""
        out: list[Chunk] = []
        start = 0
        for chunk in self.record.vectors.get(name, ()):
            dense = self._session.vector_of(self._cid, name)
            matrix = self._array(chunk.vectors, dense.dtype, chunk.rows * dense.dim).reshape(-1, dense.dim)
            norms = self._array(chunk.norms, "<f4", chunk.rows)
            out.append(Chunk(start, matrix, norms, self._session.resident((chunk.vectors, dense.dim, dense.dtype))))
            start += chunk.rows
        if out and (start != self.rows or not equal_chunks([len(chunk.norms) for chunk in out])):
            raise Corrupt(f"vector {name!r} of segment {self.ref.sid} expects {self.rows} rows, found {start}")
        return out

    def damaged_kinds(self, name: str) -> set[str]:
        """Which derived data of a column were found damaged in this process: codes, graph, postings."""
        return {kind for kind, sid, column in self._session.env.damaged if (sid, column) == (self.ref.sid, name)}

    def cannot_code(self, name: str, dense: Dense | Tokens) -> bool:
        """Whether this process has found that the codec of a column cannot be trained on its rows."""
        return (self.ref.sid, name, dense.codec) in self._session.env.uncoded

    def remember_uncoded(self, name: str, dense: Dense | Tokens) -> None:
        """Not to be tried again: rows of a segment do not change."""
        if dense.codec is not None:
            self._session.env.uncoded.add((self.ref.sid, name, dense.codec))

    def coded(self, name: str) -> Coded | None:
        """Codes of a vector column and the graph over them; where they are damaged, what is left serves.

        Notes
        -----
        Both are derived data: the damage is logged, and the next maintenance makes them again.
        """
        views, key = self._session.shared.views, ("coded", self.ref.sid, name)
        if key not in views:
            views[key] = self.read_coded(name, self.record.coded.get(name))
        found: Coded | None = views[key]
        return found

    def read_coded(self, name: str, record: CodedRecord | None) -> Coded | None:
        """What a record says of a vector column, which need not be that of the segment."""
        if record is None or ("codes", self.ref.sid, name) in self._session.env.damaged:
            return None
        dense, chunks = self._session.vector_of(self._cid, name), self.chunks(name)
        vectors = ChunkedRows([(chunk.vectors, chunk.norms) for chunk in chunks], dense.metric)
        try:
            if record.lists is not None:
                lists = read_lists(self._session, record, dense, self.rows, vectors, self.ref.sid)
                found = lists.search
                return Coded(found.codec, found.lists.codes, None, lists, vectors, self._present(name, chunks))
            codec = read_codec(self._session, record, dense)
            codes = Codes(self.rows, read_arrays(self._session, record.codes))
        except Corrupt as error:
            logger.warning("%s; the vectors are searched without codes", error)
            self._session.env.damaged.add(("codes", self.ref.sid, name))
            return None
        named = record.spec, tuple(array.blob for array in record.codes.values())
        return Coded(
            codec, codes, self._read_graph(name, record.graph, named), None, vectors, self._present(name, chunks),
            self._session.resident(named),
        )  # fmt: skip

    def _present(self, name: str, chunks: list[Chunk]) -> np.ndarray[Any, Any] | None:
        def find() -> np.ndarray[Any, Any]:
            present: np.ndarray[Any, Any] = ~np.isnan(np.concatenate([chunk.norms for chunk in chunks]))
            return np.empty(0, np.bool_) if present.all() else present

        found = self._session.kept(("present", self.key, name), find)
        return found if len(found) else None

    def _read_graph(self, name: str, record: GraphRecord | None, codes: Hashable) -> IndexedGraph | None:
        key = ("graph", self.ref.sid, name)
        if record is None or key in self._session.env.damaged:
            return None
        try:
            return read_graph(self._session, record, self.rows, codes)
        except Corrupt as error:
            logger.warning("%s; the codes are searched without a graph", error)
            self._session.env.damaged.add(key)
            return None

    def token_codes(self, name: str, kind: Tokens) -> TokenSearch | None:
        """Codes of a token field, or None where its tokens are scored as they are; damaged ones are put aside."""
        record, damaged = self.record.coded.get(name), self._session.env.damaged
        if record is None or ("codes", self.ref.sid, name) in damaged:
            return None
        views, key = self._session.shared.views, ("token codes", self.ref.sid, name)
        if key not in views:
            try:
                views[key] = read_token_codes(self._session, record, self.field(name, kind), kind)
            except Corrupt as error:
                logger.warning("%s; the tokens are searched without codes", error)
                damaged.add(("codes", self.ref.sid, name))
                return None
        found: TokenSearch = views[key]
        return found

    def postings(self, name: str, kind: Text | Sparse) -> list[tuple[int, Postings]]:
        """Postings of a column; where they are damaged they are made again from the column.

        Notes
        -----
        Postings are derived data: the damage is logged, and the next maintenance rewrites the segment.
        """
        record = self.record.inverted.get(name)
        if record is None:
            return [(0, no_postings(self.rows))]
        key = ("postings", self.ref.sid, name)
        if key not in self._session.env.damaged:
            try:
                views = self._session.shared.views
                if key not in views:
                    views[key] = read_postings(self._session, record, self.rows)
                return [(0, views[key])]
            except Corrupt as error:
                logger.warning("%s; the index is made again from the column", error)
                self._session.env.damaged.add(key)
        return [
            (0, self._session.kept(key, lambda: make_postings(kind, plain(self.field(name, kind), kind.arrow_type))))
        ]

    def _array(self, ref: BlobRef, dtype: str, size: int) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = self._session.mapped(ref, lambda view: array_of(view, dtype))
        if len(array) != size:
            raise Corrupt(f"blob {ref.key} of segment {self.ref.sid} expects {size} values, found {len(array)}")
        return array

    def _column(self, ref: BlobRef) -> pa.Array:
        column = self._session.mapped(ref, unpack_column)
        if len(column) != self.rows:
            raise Corrupt(f"blob {ref.key} of segment {self.ref.sid} expects {self.rows} rows, found {len(column)}")
        return column
