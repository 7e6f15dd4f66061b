"""Graphs over the rows of vector columns: derived data like codes, and what building them takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.spec import parse_codec
from gingham.index.graph import Graph
from gingham.index.graph_build import SLACK, GraphBuilder
from gingham.index.working_rows import HEADER, WorkingRows
from gingham.storage.blobs import MAX_BLOB_BYTES, MAX_SEGMENT_ROWS
from gingham.storage.catalog import GraphRecord
from gingham.storage.codes import CODED_ROWS, as_coded, read_arrays, write_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.schema import Dense, Schema
    from gingham.storage.blobs import BlobSink
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

EF_CONSTRUCTION = 128
"""Candidates that the links of a row are chosen from, as of :class:`gingham.index.HNSW`."""
MEAN_ROWS = 65_536
_LINK_BYTES = 4


def blob_row_bytes(dense: Dense) -> int:
    """Bytes of a row in the largest blob of its codes and its graph, about; 0 where there are none."""
    if dense.codec is None:
        return 0
    return max(parse_codec(dense.codec, dense.dim, dense.metric).code_size, 2 * dense.m * _LINK_BYTES)


def stored_row_bytes(dense: Dense) -> int:
    """Bytes of a row's codes and links in the file, about: the layers take a seventh more at 2 * 16 links."""
    if dense.codec is None:
        return 0
    codec = parse_codec(dense.codec, dense.dim, dense.metric)
    return int(codec.code_size + 2 * dense.m * _LINK_BYTES * (1 + 1 / max(dense.m - 1, 1)))


def memory_row_bytes(dense: Dense) -> int:
    """Bytes of memory for each row while its codes and then its graph are made, about.

    Notes
    -----
    Codes are there twice. A graph is built on a byte a dimension, with spare room for links, and then copied without.
    """
    if dense.codec is None:
        return 0
    codes = 2 * parse_codec(dense.codec, dense.dim, dense.metric).code_size
    if not dense.m:
        return codes
    width = HEADER + -(-dense.dim // 32) * 32
    return max(codes, width + (int(SLACK * 2 * dense.m) + 2 * dense.m) * _LINK_BYTES)


def most_rows(schema: Schema, memory: int) -> int:
    """Rows of a segment whose codes and graphs fit into blobs, and into memory while they are made.

    Notes
    -----
    So few that a segment gets no codes at all would cost more than the memory that they save.
    """
    kinds = [dense for dense in schema.dense.values() if dense.codec is not None]
    most = [MAX_BLOB_BYTES // blob_row_bytes(dense) for dense in kinds]
    most += [memory // memory_row_bytes(dense) for dense in kinds]
    return max(CODED_ROWS, min([MAX_SEGMENT_ROWS, *most]))


def build_graph(
    dense: Dense,
    rows: int,
    vectors_of: Callable[[Any], tuple[Array, Array]],
    known: tuple[Graph, Array] | None = None,
) -> tuple[Graph, int]:
    """Build the graph of a column.

    Parameters
    ----------
    rows : at least 1
    vectors_of : from a slice of the rows, or ascending positions, to their vectors and norms; called by several threads
    known : a graph of some of the rows to go on with, and the row of each of its nodes, int64, -1 for one that is gone

    Returns
    -------
    tuple : the graph, and how many rows no search can come to

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
    builder.grow()
    return builder.freeze(), builder.unreachable


def write_graph(sink: BlobSink, dense: Dense, graph: Graph, unreachable: int) -> GraphRecord:
    """Store a graph."""
    assert dense.index is not None
    return GraphRecord(dense.index, write_arrays(sink, graph.arrays()), unreachable)


def read_graph(session: Session, record: GraphRecord, rows: int) -> Graph:
    """A graph on the map; raises Corrupt."""
    return Graph.from_arrays(read_arrays(session, record.arrays), rows)
