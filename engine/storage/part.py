"""What a query sees of stored rows: segments and the tail look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from gingham.storage.columns import no_vectors, plain

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gingham.codecs.protocol import Codec, Codes
    from gingham.index.calibration import Calibration
    from gingham.index.chunked_rows import ChunkedRows
    from gingham.index.device_copies import Resident
    from gingham.index.graph import Graph
    from gingham.index.list_search import ListSearch
    from gingham.index.token_search import TokenSearch
    from gingham.schema import Column, Dense, Schema, Sparse, Text, Tokens
    from gingham.text.postings import Postings

FEW_IDS = 64
"""Ids that are read one by one: ten in a third of the time that Arrow's ``take`` needs."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a vector column.

    Attributes
    ----------
    start : offset of the first row in the part
    vectors : array of shape (rows, dim), read-only, possibly on the map
    norms : float32 (rows,) as :func:`gingham.index.exact.row_norms` makes them
    resident : what may have them on a device, or None
    """

    start: int
    vectors: np.ndarray[Any, Any]
    norms: np.ndarray[Any, Any]
    resident: Resident | None = None


@dataclass(frozen=True)
class IndexedGraph:
    """The graph of a segment.

    Attributes
    ----------
    index : what it is, such as ``HNSW16``
    graph : its arrays
    calibration : candidates that a target recall needs, or None
    queries : sample queries that were given, float32 (m, dim), or None
    resident : what may have graph and codes on a device, or None
    """

    index: str
    graph: Graph
    calibration: Calibration | None
    queries: np.ndarray[Any, Any] | None
    resident: Resident | None = None


@dataclass(frozen=True)
class IndexedLists:
    """The lists of a segment.

    Attributes
    ----------
    index : what it is, such as ``IVF``
    search : of them
    calibration : lists that a target recall needs, or None
    queries : sample queries that were given, float32 (m, dim), or None
    changes : rows that came or went since the centroids were trained
    """

    index: str
    search: ListSearch
    calibration: Calibration | None
    queries: np.ndarray[Any, Any] | None
    changes: int


@dataclass(frozen=True)
class Coded:
    """What is searched in place of the vectors of a part.

    Attributes
    ----------
    codec, codes : of all rows, or of all places of the lists
    graph : over the codes, or None
    lists : that the codes lie in, without rows that have no vector, or None
    vectors : what the candidates of codes are scored from
    present : bool (rows,), which rows have a vector, since codes do not tell; None where all have one
    resident : what may have the codes on a device, or None
    """

    codec: Codec
    codes: Codes
    graph: IndexedGraph | None
    lists: IndexedLists | None
    vectors: ChunkedRows
    present: np.ndarray[Any, Any] | None
    resident: Resident | None = None


class Part(Protocol):
    """Rows with offsets 0..rows-1; dead ones included. Views are valid while their session is open."""

    @property
    def key(self) -> Hashable:
        """Names the content: two parts of equal key hold equal rows (dead rows aside)."""
        ...

    @property
    def rows(self) -> int:
        """Rows, dead ones included."""
        ...

    @property
    def dead(self) -> np.ndarray[Any, Any]:
        """Ascending int64 offsets of dead rows."""
        ...

    @property
    def row_ids(self) -> np.ndarray[Any, Any]:
        """Ascending uint64 row ids."""
        ...

    @property
    def ids(self) -> pa.Array:
        """Encoded user ids as a binary column."""
        ...

    def field(self, name: str, field: Column) -> pa.Array:
        """Payload column; all null where the part is older than the field."""
        ...

    def chunks(self, name: str) -> Sequence[Chunk]:
        """Chunks of a vector column; none where the part is older than the vector."""
        ...

    def coded(self, name: str) -> Coded | None:
        """Codes of a vector column and the graph over them, or None where its vectors are searched."""
        ...

    def token_codes(self, name: str, kind: Tokens) -> TokenSearch | None:
        """Codes of a token field, or None where its tokens are scored as they are."""
        ...

    def postings(self, name: str, kind: Text | Sparse) -> Sequence[tuple[int, Postings]]:
        """Postings of a column, each with the offset of its first row in the part."""
        ...


def live_mask(part: Part) -> np.ndarray[Any, Any] | None:
    """Bool (rows,) that is False at dead rows, or None where none is dead."""
    dead = part.dead
    if len(dead) == 0:
        return None
    mask = np.ones(part.rows, np.bool_)
    mask[dead] = False
    return mask


def take_vectors(part: Part, name: str, dense: Dense, offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy of the vectors at some offsets, shape (n, dim); NaN where a row has none."""
    out = no_vectors(len(offsets), dense.dim, dense.dtype)
    for chunk in part.chunks(name):
        inside = (offsets >= chunk.start) & (offsets < chunk.start + len(chunk.vectors))
        out[inside] = chunk.vectors[offsets[inside] - chunk.start]
    return out


def take_norms(part: Part, name: str, offsets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy of the norms at some offsets, float32; NaN where a row has no vector."""
    out = np.full(len(offsets), np.nan, np.float32)
    for chunk in part.chunks(name):
        inside = (offsets >= chunk.start) & (offsets < chunk.start + len(chunk.norms))
        out[inside] = chunk.norms[offsets[inside] - chunk.start]
    return out


def take_field(part: Part, name: str, field: Column, offsets: np.ndarray[Any, Any]) -> pa.Array:
    """Copy of the payload at some offsets in the field's Arrow type."""
    return plain(part.field(name, field).take(pa.array(offsets, pa.int64())), field.arrow_type)


def take_ids(part: Part, offsets: np.ndarray[Any, Any]) -> list[bytes]:
    """Encoded user ids at some offsets."""
    ids = part.ids
    if len(offsets) > FEW_IDS:
        taken: list[bytes] = ids.take(pa.array(offsets, pa.int64())).to_pylist()
        return taken
    _, ends, data = ids.buffers()
    bounds, at, values = memoryview(ends).cast("i"), ids.offset, memoryview(data)
    return [bytes(values[bounds[at + i] : bounds[at + i + 1]]) for i in offsets.tolist()]


def take_fields(part: Part, schema: Schema, names: Sequence[str], offsets: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Copies of several payload columns at some offsets."""
    return {name: take_field(part, name, schema.columns[name], offsets) for name in names}


def sample_queries(part: Part, name: str) -> np.ndarray[Any, Any] | None:
    """A copy of the sample queries kept with the index of a part, or None."""
    coded = part.coded(name)
    index = None if coded is None else coded.graph or coded.lists
    queries = None if index is None else index.queries
    return None if queries is None else np.array(queries)
