"""The catalog: what the store, its collections and their segments consist of.

What the catalog does not name does not exist; a commit is a change of these records.
"""

from __future__ import annotations

import msgspec

from gingham.embed.record import EmbedderRecord
from gingham.schema import Schema


class StoreRecord(msgspec.Struct, kw_only=True):
    """The one record of the store itself.

    Attributes
    ----------
    format : version of the file format
    store_id : random hexadecimal name, kept by compaction, new after a restore
    version : number of commits so far
    next_collection, next_segment, next_blob : numbers never handed out yet
    superseded : name of the generation folder that replaced this one, or None
    unsynced_boot : boot id under which unsynced commits were made and not yet closed cleanly, or None
    names : collection name to collection number
    """

    format: int
    store_id: str
    version: int = 0
    next_collection: int = 1
    next_segment: int = 1
    next_blob: int = 1
    superseded: str | None = None
    unsynced_boot: str | None = None
    names: dict[str, int] = {}


class TailBatch(msgspec.Struct, array_like=True):
    """One tail batch: its sequence number, row count, stored bytes and contiguous row ids."""

    seq: int
    rows: int
    nbytes: int
    first_row: int


class SegmentRef(msgspec.Struct, array_like=True):
    """A segment as the collection names it."""

    sid: int
    rows: int
    dead: int
    first_row: int
    last_row: int
    nbytes: int


class CollectionRecord(msgspec.Struct, kw_only=True):
    """One collection.

    Attributes
    ----------
    cid : collection number, never reused
    schema_epoch : grows with every schema change
    next_row : row id never handed out yet
    epoch : store version of the last change
    tail_dead : dead rows among the tail
    embedder : what embeds its text, or None
    """

    cid: int
    name: str
    schema: Schema
    schema_epoch: int = 0
    next_row: int = 0
    epoch: int = 0
    next_seq: int = 1
    seal_floor: int = 0
    tail: list[TailBatch] = []
    tail_dead: int = 0
    segments: list[SegmentRef] = []
    embedder: EmbedderRecord | None = None

    @property
    def rows(self) -> int:
        """Live rows."""
        stored = sum(s.rows - s.dead for s in self.segments) + sum(b.rows for b in self.tail)
        return stored - self.tail_dead


class BlobRef(msgspec.Struct, array_like=True, frozen=True):
    """One blob: its key, length in bytes and the xxh3-64 of each 4 MiB piece."""

    key: int
    length: int
    checks: bytes


class ArrayRecord(msgspec.Struct, array_like=True, frozen=True):
    """One array: NumPy's name of its type, its shape, and its bytes, None where it is empty."""

    dtype: str
    shape: tuple[int, ...]
    blob: BlobRef | None


class VectorChunk(msgspec.Struct, array_like=True, frozen=True):
    """Consecutive rows of one vector column, with what the metric needs of each row."""

    rows: int
    vectors: BlobRef
    norms: BlobRef


class CalibrationRecord(msgspec.Struct, array_like=True, frozen=True):
    """Recall by candidates: queries it was measured with, candidates, and recalls per number of neighbours.

    Attributes
    ----------
    asked : the queries were given, and not rows of the segment
    """

    queries: int
    efs: tuple[int, ...]
    recalls: tuple[tuple[float, ...], ...]
    asked: bool = False


class GraphRecord(msgspec.Struct, array_like=True, frozen=True):
    """A graph over the rows of a vector column.

    Attributes
    ----------
    index : what it is
    arrays : of the graph, and ``queries``, sample queries where some were given
    unreachable : rows that no search can come to
    calibration : candidates that a target recall needs, None in segments that were made before there were any
    """

    index: str
    arrays: dict[str, ArrayRecord]
    unreachable: int = 0
    calibration: CalibrationRecord | None = None


class ListsRecord(msgspec.Struct, array_like=True, frozen=True):
    """The lists that the coded rows of a vector column lie in.

    Attributes
    ----------
    index : what it is
    arrays : of the lists, ``centroids``, and ``queries``, sample queries where some were given
    calibration : lists that a target recall needs, or None
    changes : rows that came or went since the centroids were trained
    """

    index: str
    arrays: dict[str, ArrayRecord]
    calibration: CalibrationRecord | None = None
    changes: int = 0


class CodedRecord(msgspec.Struct, array_like=True, frozen=True):
    """What searches of a vector column read in place of its vectors.

    Attributes
    ----------
    spec : of the codec
    learned, codes : arrays of the codec, and of all rows, or of all places of the lists
    graph : over the codes, or None
    lists : that the codes are in the order of, or None
    """

    spec: str
    learned: dict[str, ArrayRecord]
    codes: dict[str, ArrayRecord]
    graph: GraphRecord | None = None
    lists: ListsRecord | None = None

    @property
    def searched_by(self) -> GraphRecord | ListsRecord | None:
        """What there is over the codes."""
        return self.graph or self.lists

    def blobs(self) -> list[BlobRef]:
        """Every blob of it."""
        groups = [self.learned, self.codes, {} if self.searched_by is None else self.searched_by.arrays]
        return [array.blob for group in groups for array in group.values() if array.blob is not None]


class InvertedRecord(msgspec.Struct, array_like=True, frozen=True):
    """The inverted index of one column: the average length its bounds hold for, and its arrays that are not empty."""

    average_length: float
    blobs: dict[str, BlobRef]


class SegmentRecord(msgspec.Struct, kw_only=True, frozen=True):
    """The blobs of one segment; immutable but for schema moves."""

    sid: int
    rows: int
    row_ids: BlobRef
    ids: BlobRef
    vectors: dict[str, tuple[VectorChunk, ...]]
    fields: dict[str, BlobRef]
    inverted: dict[str, InvertedRecord]
    coded: dict[str, CodedRecord] = {}

    def blobs(self) -> list[BlobRef]:
        """Every blob of the segment."""
        chunks = [chunk for column in self.vectors.values() for chunk in column]
        norms = [chunk.norms for chunk in chunks]
        postings = [ref for record in self.inverted.values() for ref in record.blobs.values()]
        derived = [ref for coded in self.coded.values() for ref in coded.blobs()]
        vectors = [chunk.vectors for chunk in chunks]
        return [self.row_ids, self.ids, *vectors, *norms, *self.fields.values(), *postings, *derived]
