"""Lists that the coded rows of vector columns lie in: derived data like codes, and what making them takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from gingham.codecs.spec import parse_codec
from gingham.index.calibration import KS, Calibration, without
from gingham.index.coarse import ROWS_PER_LIST, Coarse
from gingham.index.code_lists import CodeLists
from gingham.index.list_build import RETRAINED_CHANGES, choose_lists, held_out, measure
from gingham.index.list_search import ListSearch
from gingham.index.second_lists import second_lists
from gingham.storage.catalog import CodedRecord, ListsRecord
from gingham.storage.codes import as_coded, read_arrays, write_arrays
from gingham.storage.graph_recall import nearest_rows
from gingham.storage.graphs import QUERIES, calibration_record
from gingham.storage.part import IndexedLists

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gingham.codecs.devices import Attempt
    from gingham.codecs.protocol import Codec, Codes, SpanCodec
    from gingham.index.chunked_rows import ChunkedRows
    from gingham.schema import Dense
    from gingham.storage.blobs import BlobSink
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

CENTROIDS, SPREADS = "centroids", "spreads"


class KnownLists(NamedTuple):
    """Centroids to go on with, float32 (nlist, dim), and rows that came or went since they were trained."""

    centroids: Array
    changes: int


class BuiltLists(NamedTuple):
    """Lists, what a target recall takes of them, the queries that told, and rows since the centroids were trained."""

    search: ListSearch
    calibration: Calibration | None
    queries: Array | None
    changes: int


def build_lists(
    dense: Dense,
    norms: Array,
    vectors_of: Callable[[Any], tuple[Array, Array]],
    coded: tuple[Codec, Codes],
    known: KnownLists | None = None,
    queries: Array | None = None,
    attempt: Attempt | None = None,
) -> BuiltLists:
    """Make the lists of a column.

    Parameters
    ----------
    norms : float32 (rows,), NaN where a row has no vector; one at least has
    vectors_of : from a slice of the rows, or positions, to their vectors and norms; called by several threads
    coded : codec and codes of the rows
    known : centroids that serve again while few rows came or went
    queries : sample queries to measure recall with in place of rows, float32 (m, dim), of length one under cosine
    attempt : of a device, to train centroids there

    Raises
    ------
    Cancelled : between blocks of rows

    Notes
    -----
    The same bytes for any number of threads. Rows without a vector are in no list.
    """
    codec, rows, present = cast("SpanCodec", coded[0]), len(norms), np.flatnonzero(~np.isnan(norms))
    nlist = dense.nlist and max(1, min(dense.nlist, len(present) // ROWS_PER_LIST))
    if known is not None and known.changes >= RETRAINED_CHANGES * len(present):
        known = None

    def coded_from(at: Array) -> Array:
        return as_coded(dense, *vectors_of(present[at]))

    coarse, lists = choose_lists(
        codec, len(present), coded_from, nlist=nlist,
        known=None if known is None else Coarse(known.centroids, codec), attempt=attempt,
    )  # fmt: skip
    coarse = coarse.spread(lists, coded_from)
    of_rows = np.full(rows, -1, np.int64)
    of_rows[present], second = lists, None
    if dense.soar:
        second = np.full(rows, -1, np.int64)
        second[present] = second_lists(coarse.centroids, lists, coded_from)
    in_order = CodeLists(coded[1], np.arange(rows, dtype=np.int32), np.zeros(1, np.int64), np.full(1, rows))
    search = ListSearch(codec, coarse, in_order.with_lists(of_rows, len(coarse.centroids), second), rows)
    found = measure_lists(dense, norms, vectors_of, search, queries)
    return BuiltLists(search, found, queries, 0 if known is None else known.changes)


def measure_lists(
    dense: Dense,
    norms: Array,
    vectors_of: Callable[[Any], tuple[Array, Array]],
    search: ListSearch,
    queries: Array | None,
) -> Calibration | None:
    """What a target recall takes of lists; parameters as of :func:`build_lists`."""
    hidden = None
    if queries is None:
        hidden = held_out(np.flatnonzero(~np.isnan(norms)))
        queries = as_coded(dense, *vectors_of(hidden))
    exact = nearest_rows(dense, len(norms), vectors_of, queries, KS[-1] + (hidden is not None))
    if hidden is not None:
        exact = without(exact, hidden)
    return measure(search, queries, exact, hidden, among=True)


def write_lists(sink: BlobSink, dense: Dense, built: BuiltLists) -> CodedRecord:
    """Store a codec, and codes in the order of their lists."""
    assert dense.index is not None
    search = built.search
    arrays = search.lists.arrays() | search.coarse.arrays()
    codes = {name: arrays.pop(name) for name in list(arrays) if name.startswith("codes.")}
    if built.queries is not None:
        arrays[QUERIES] = built.queries
    calibration = calibration_record(built.calibration, asked=built.queries is not None)
    lists = ListsRecord(dense.index, write_arrays(sink, arrays), calibration, built.changes)
    coded = write_arrays(sink, {name.removeprefix("codes."): array for name, array in codes.items()})
    return CodedRecord(search.codec.spec, write_arrays(sink, search.codec.arrays()), coded, None, lists)


def read_lists(
    session: Session, record: CodedRecord, dense: Dense, rows: int, vectors: ChunkedRows, key: Hashable
) -> IndexedLists:
    """Lists on the map, with their codec and centroids in memory of their own; raises Corrupt.

    Parameters
    ----------
    key : what names the column of the segment
    """
    assert record.lists is not None
    arrays = read_arrays(session, record.lists.arrays)
    queries, known = arrays.pop(QUERIES, None), record.lists.calibration
    own = {name: arrays.pop(name) for name in (CENTROIDS, SPREADS) if name in arrays}
    blob = record.lists.arrays[CENTROIDS].blob if own else None

    def owned() -> Coarse:
        copied = {name: np.array(array) for name, array in own.items()}
        return Coarse.from_arrays(copied, _owned_codec(session, record, dense))

    coarse = session.kept(("centroids", key, None if blob is None else blob.key), owned)
    codes = {f"codes.{name}": array for name, array in read_arrays(session, record.codes).items()}
    lists = CodeLists.from_arrays({**arrays, **codes}, rows, len(coarse.centroids))
    calibration = None if known is None else Calibration.of(known.queries, known.efs, known.recalls)
    search = ListSearch(coarse.codec, coarse, lists, rows, None, vectors)
    return IndexedLists(record.lists.index, search, calibration, queries, record.lists.changes)


def _owned_codec(session: Session, record: CodedRecord, dense: Dense) -> SpanCodec:
    """The codec with arrays that outlive the session."""
    learned = {name: np.array(array) for name, array in read_arrays(session, record.learned).items()}
    return cast("SpanCodec", parse_codec(record.spec, dense.dim, dense.metric).with_arrays(learned))
