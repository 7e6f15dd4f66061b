"""Graphs over the rows of vector columns: derived data like codes, and what building them takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham.index.calibration import Calibration
from gingham.index.graph import Graph
from gingham.index.graph_build import GraphBuilder
from gingham.index.working_rows import WorkingRows
from gingham.storage.catalog import CalibrationRecord, GraphRecord
from gingham.storage.codes import as_coded, read_arrays, write_arrays
from gingham.storage.graph_recall import GraphRecall
from gingham.storage.part import IndexedGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gingham.codecs.protocol import Codec, Codes
    from gingham.schema import Dense
    from gingham.storage.blobs import BlobSink
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

EF_CONSTRUCTION = 128
"""Candidates that the links of a row are chosen from, as of :class:`gingham.index.HNSW`."""
MEAN_ROWS = 65_536
QUERIES = "queries"


class BuiltGraph(NamedTuple):
    """A graph, rows that no search can come to, candidates that a target recall needs, and the queries that told."""

    graph: Graph
    unreachable: int
    calibration: Calibration | None
    queries: Array | None


def build_graph(
    dense: Dense,
    rows: int,
    vectors_of: Callable[[Any], tuple[Array, Array]],
    coded: tuple[Codec, Codes],
    known: tuple[Graph, Array] | None = None,
    queries: Array | None = None,
) -> BuiltGraph:
    """Build the graph of a column.

    Parameters
    ----------
    rows : at least 1
    vectors_of : from a slice of the rows, or ascending positions, to their vectors and norms; called by several threads
    coded : codec and codes of the rows, which its recall is measured with
    known : a graph of some of the rows to go on with, and the row of each of its nodes, int64, -1 for one that is gone
    queries : sample queries to measure it with in place of rows, float32 (m, dim), of length one under cosine

    Raises
    ------
    Cancelled : between blocks of 64 rows

    Notes
    -----
    The same bytes for any number of threads. Rows without a vector are nodes of zeros.
    """
    sample, norms = vectors_of(np.linspace(0, rows - 1, min(rows, MEAN_ROWS)).astype(np.int64))
    mean = as_coded(dense, sample, norms).mean(axis=0, dtype=np.float64)
    working = WorkingRows(dense.dim, dense.metric, mean)
    working.append(rows, lambda part: as_coded(dense, *vectors_of(part)))
    options: Any = {"m": dense.m, "ef_construction": max(EF_CONSTRUCTION, dense.m)}
    if known is None:
        builder = GraphBuilder(working, **options)
    else:
        builder = GraphBuilder.of_graph(known[0], working, places=known[1], **options)
    recall = GraphRecall(dense, rows, vectors_of, *coded, queries)
    builder.grow(held_out=recall.held_out)
    graph = builder.freeze()
    recall.finish(graph)
    return BuiltGraph(graph, builder.unreachable, recall.found, queries)


def write_graph(sink: BlobSink, dense: Dense, built: BuiltGraph) -> GraphRecord:
    """Store a graph."""
    assert dense.index is not None
    arrays = built.graph.arrays() if built.queries is None else {**built.graph.arrays(), QUERIES: built.queries}
    calibration = calibration_record(built.calibration, asked=built.queries is not None)
    return GraphRecord(dense.index, write_arrays(sink, arrays), built.unreachable, calibration)


def calibration_record(found: Calibration | None, *, asked: bool) -> CalibrationRecord | None:
    """A calibration as it is stored."""
    if found is None:
        return None
    recalls = tuple(tuple(row) for row in found.recalls.tolist())
    return CalibrationRecord(found.queries, tuple(found.efs.tolist()), recalls, asked)


def read_graph(session: Session, record: GraphRecord, rows: int, codes: Hashable = None) -> IndexedGraph:
    """A graph on the map; raises Corrupt.

    Parameters
    ----------
    codes : names the content of the codes that it is walked over with
    """
    arrays = read_arrays(session, record.arrays)
    queries, known = arrays.pop(QUERIES, None), record.calibration
    calibration = None if known is None else Calibration.of(known.queries, known.efs, known.recalls)
    resident = session.resident((codes, tuple(array.blob for array in record.arrays.values())))
    return IndexedGraph(record.index, Graph.from_arrays(arrays, rows), calibration, queries, resident)
