"""The live rows of some parts, ready to be written as one segment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.index.graph_build import REBUILD_GROWTH
from gingham.storage.choice import chosen
from gingham.storage.codes import train_codec
from gingham.storage.columns import join
from gingham.storage.graphs import build_graph
from gingham.storage.lists import KnownLists, build_lists
from gingham.storage.part import Part, sample_queries, take_norms, take_vectors
from gingham.storage.segment import CHUNK_BYTES, write_segment
from gingham.text.postings import merge_postings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.codecs.devices import Attempt
    from gingham.codecs.protocol import Codec, Codes
    from gingham.index.graph import Graph
    from gingham.schema import Dense, Sparse, Text
    from gingham.storage.blobs import BlobSink
    from gingham.storage.catalog import CollectionRecord, SegmentRecord
    from gingham.storage.graphs import BuiltGraph
    from gingham.storage.lists import BuiltLists
    from gingham.text.postings import Postings


ALIVE_SHARE = 0.5
"""Share of live rows below which the graph of a part is not gone on with: too many neighbours would be chosen anew."""


class LiveRows:
    """The live rows of some parts, in ascending order of row id.

    Parameters
    ----------
    memory : bytes that making their codes and indexes may take; 0 leaves those that are chosen by size for later
    attempt : of a device, to train centroids there
    """

    def __init__(
        self, record: CollectionRecord, parts: Sequence[Part], memory: int = 0, attempt: Attempt | None = None
    ) -> None:
        self._attempt = attempt
        self._record = record
        self._parts = parts
        self._live = [np.setdiff1d(np.arange(p.rows, dtype=np.int64), p.dead, assume_unique=True) for p in parts]
        row_ids = [p.row_ids[at] for p, at in zip(parts, self._live, strict=True)]
        joined = np.concatenate(row_ids) if row_ids else np.empty(0, np.uint64)
        self._order = np.argsort(joined, kind="stable")
        self._ends = np.cumsum([len(at) for at in self._live])
        self.row_ids: np.ndarray[Any, Any] = joined[self._order]
        self._dense = {name: chosen(dense, len(self), memory) for name, dense in record.schema.dense.items()}

    def __len__(self) -> int:
        return len(self.row_ids)

    def _spread(self, rows: Any) -> Iterator[tuple[Part, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Per part the offsets to copy for output rows, a slice or their numbers, and where they go."""
        order = self._order[rows]
        owner = np.searchsorted(self._ends, order, side="right")
        for number, part in enumerate(self._parts):
            where = np.flatnonzero(owner == number)
            if len(where):
                first = int(self._ends[number]) - len(self._live[number])
                yield part, self._live[number][order[where] - first], where

    def ids(self) -> pa.Array:
        """Encoded user ids."""
        return self._column(lambda part, at: part.ids.take(pa.array(at)), pa.binary())

    def field(self, name: str) -> pa.Array:
        """A payload column."""
        field = self._record.schema.columns[name]
        return self._column(lambda part, at: part.field(name, field).take(pa.array(at)), field.arrow_type)

    def _column(self, take: Any, kind: pa.DataType) -> pa.Array:
        spread = list(self._spread(slice(None)))
        joined = join([take(part, at) for part, at, _ in spread], kind)
        where = np.concatenate([w for _, _, w in spread])
        if np.all(where[:-1] < where[1:]):
            return joined
        return joined.take(pa.array(np.argsort(where, kind="stable")))

    def _vectors(self, name: str, piece_bytes: int) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """A vector column with its norms, in pieces of one blob each."""
        dense = self._dense[name]
        step = max(1, piece_bytes // (dense.dim * np.dtype(dense.dtype).itemsize))
        for start in range(0, len(self), step):
            yield self._some_vectors(name, slice(start, start + step))

    def _some_vectors(self, name: str, rows: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Vectors and norms of output rows, a slice or their numbers."""
        dense = self._dense[name]
        n = len(self._order[rows])
        matrix, norms = np.empty((n, dense.dim), dense.dtype), np.empty(n, np.float32)
        for part, at, where in self._spread(rows):
            matrix[where] = take_vectors(part, name, dense, at)
            norms[where] = take_norms(part, name, at)
        return matrix, norms

    def _codecs(self) -> dict[str, tuple[Codec, Dense]]:
        """Codecs trained on these rows."""
        out = {}
        for name, dense in self._dense.items():
            codec = train_codec(dense, len(self), partial(self._some_vectors, name))
            if codec is not None:
                out[name] = (codec, dense)
        return out

    def _index(self, name: str, codec: Codec, codes: Codes) -> BuiltGraph | BuiltLists:
        """The index of a vector column, which goes on with that of the part that most rows come from."""
        dense = self._dense[name]
        queries = next((found for part in self._parts if (found := sample_queries(part, name)) is not None), None)
        vectors_of = partial(self._some_vectors, name)
        if dense.in_lists:
            norms = np.empty(len(self), np.float32)
            for part, at, where in self._spread(slice(None)):
                norms[where] = take_norms(part, name, at)
            return build_lists(
                dense, norms, vectors_of, (codec, codes), self._known_lists(name), queries, self._attempt
            )
        return build_graph(dense, len(self), vectors_of, (codec, codes), self._known_graph(name), queries)

    def _known_graph(self, name: str) -> tuple[Graph, np.ndarray[Any, Any]] | None:
        """The graph of the largest part with the new number of each row, -1 for dead ones, if it is of use."""
        number, part, live = self._largest
        coded = part.coded(name)
        if coded is None or coded.graph is None or coded.graph.index != self._dense[name].index:
            return None
        if live < ALIVE_SHARE * part.rows or len(self) >= REBUILD_GROWTH * live:
            return None
        return coded.graph.graph, self._new_numbers()[number]

    def _known_lists(self, name: str) -> KnownLists | None:
        """The centroids of the largest part."""
        _, part, live = self._largest
        coded = part.coded(name)
        if coded is None or coded.lists is None or coded.lists.index != self._dense[name].index:
            return None
        changes = coded.lists.changes + (part.rows - live) + (len(self) - live)
        return KnownLists(coded.lists.search.coarse.centroids, changes)

    @property
    def _largest(self) -> tuple[int, Part, int]:
        """Number of the part that most rows come from, the part, and these."""
        number = int(np.argmax([len(at) for at in self._live]))
        return number, self._parts[number], len(self._live[number])

    def _new_numbers(self) -> list[np.ndarray[Any, Any]]:
        """Per part the output row of each of its rows, -1 for dead ones."""
        places = np.empty(len(self), np.int64)
        places[self._order] = np.arange(len(self))
        out = []
        for number, part in enumerate(self._parts):
            new = np.full(part.rows, -1, np.int64)
            first = int(self._ends[number]) - len(self._live[number])
            new[self._live[number]] = places[first : int(self._ends[number])]
            out.append(new)
        return out

    def _postings(self, name: str, kind: Text | Sparse) -> Postings:
        """The inverted index of a column."""
        sources = []
        for part, new in zip(self._parts, self._new_numbers(), strict=True):
            for start, postings in part.postings(name, kind):
                sources.append((postings, new[start : start + postings.index.n_rows]))
        return merge_postings(kind, sources, len(self))

    def write(self, sink: BlobSink, piece_bytes: int = CHUNK_BYTES, *, indexes: bool = False) -> SegmentRecord:
        """Write the rows as a segment.

        Parameters
        ----------
        piece_bytes : bytes of vectors copied at once
        indexes : build the indexes of vectors too, which takes most of the time there
        """
        schema, codecs = self._record.schema, self._codecs()
        indexed = [name for name, (_, dense) in codecs.items() if dense.indexed and indexes]
        return write_segment(
            sink,
            row_ids=self.row_ids,
            ids=self.ids(),
            vectors=((name, self._vectors(name, piece_bytes)) for name in schema.dense),
            fields=((name, self.field(name)) for name in schema.columns),
            inverted=((name, self._postings(name, kind)) for name, kind in schema.inverted.items()),
            codecs=codecs,
            indexes={name: partial(self._index, name) for name in indexed},
        )
