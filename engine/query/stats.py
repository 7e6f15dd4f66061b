"""Figures of a collection: rows, segments, bytes, and what its vectors are searched by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gingham.storage.writes import tail_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gingham.schema import Dense
    from gingham.storage.catalog import BlobRef, CollectionRecord, SegmentRecord
    from gingham.storage.session import Session


@dataclass(frozen=True)
class VectorStats:
    """Figures of one dense vector field; rows count dead ones too.

    Attributes
    ----------
    index, codec : as the schema has them
    indexed_rows, coded_rows : rows of segments with a graph or lists, and with codes
    unindexed_rows : other rows than those with an index: of the tail, of segments of fewer than 4,096 rows, of those
        that maintenance has not come to or whose index does not fit ``memory_budget`` while it is built
    unreachable : indexed rows that no walk can come to
    vector_bytes, code_bytes, link_bytes : bytes of a row in all segments that have some; those of lists, their
        centroids included, are links
    """

    index: str | None
    codec: str | None
    indexed_rows: int
    coded_rows: int
    unindexed_rows: int
    unreachable: int
    vector_bytes: float
    code_bytes: float
    link_bytes: float


@dataclass(frozen=True)
class CollectionStats:
    """Figures of one collection.

    Attributes
    ----------
    rows : live rows
    dead_rows : rows deleted or replaced whose space is not yet given back
    segments : immutable segments
    tail_rows : rows not yet sealed into a segment
    tail_batches : batches they lie in
    unindexed_rows : rows outside of indexes, of the dense vector that has the most; all of them while there is no index
    nbytes : bytes of the segments and the tail
    version : commit that changed the collection last
    vectors : per dense vector field
    """

    rows: int
    dead_rows: int
    segments: int
    tail_rows: int
    tail_batches: int
    unindexed_rows: int
    nbytes: int
    version: int
    vectors: dict[str, VectorStats] = field(default_factory=dict)


def collection_stats(session: Session, record: CollectionRecord) -> CollectionStats:
    """Figures of a collection, from its records alone."""
    segments = [part.record for part in session.segments(record)]
    tail = tail_rows(record)
    vectors = {name: _vector_stats(name, dense, segments, tail) for name, dense in record.schema.dense.items()}
    indexed = any(one.indexed_rows for one in vectors.values())
    return CollectionStats(
        rows=record.rows,
        dead_rows=sum(ref.dead for ref in record.segments) + record.tail_dead,
        segments=len(record.segments),
        tail_rows=tail,
        tail_batches=len(record.tail),
        unindexed_rows=max(one.unindexed_rows for one in vectors.values()) if indexed else record.rows,
        nbytes=sum(ref.nbytes for ref in record.segments) + sum(entry.nbytes for entry in record.tail),
        version=record.epoch,
        vectors=vectors,
    )


def _vector_stats(name: str, dense: Dense, segments: list[SegmentRecord], tail: int) -> VectorStats:
    coded = [(one.rows, one.coded[name]) for one in segments if name in one.coded]
    indexes = [(rows, one.searched_by) for rows, one in coded if one.searched_by is not None]
    chunks = [chunk for one in segments for chunk in one.vectors.get(name, ())]
    indexed = sum(rows for rows, _ in indexes)
    coded_rows = sum(rows for rows, _ in coded)
    codes = [array.blob for _, one in coded for array in one.codes.values()]
    links = [array.blob for _, index in indexes for array in index.arrays.values()]
    return VectorStats(
        index=dense.index,
        codec=dense.codec,
        indexed_rows=indexed,
        coded_rows=coded_rows,
        unindexed_rows=sum(one.rows for one in segments) + tail - indexed,
        unreachable=sum(one.graph.unreachable for _, one in coded if one.graph is not None),
        vector_bytes=_bytes_each((chunk.vectors for chunk in chunks), sum(chunk.rows for chunk in chunks)),
        code_bytes=_bytes_each(codes, coded_rows),
        link_bytes=_bytes_each(links, indexed),
    )


def _bytes_each(blobs: Iterable[BlobRef | None], rows: int) -> float:
    return sum(blob.length for blob in blobs if blob is not None) / max(rows, 1)
