"""Which codes and which index the vectors of a segment get, and what these take."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gingham.codecs.spec import parse_codec
from gingham.index.coarse import list_count, sample_count
from gingham.index.graph_build import SLACK
from gingham.index.working_rows import HEADER
from gingham.storage.blobs import MAX_BLOB_BYTES, MAX_SEGMENT_ROWS
from gingham.storage.codes import CODED_ROWS

if TYPE_CHECKING:
    from gingham.schema import Dense, Schema

SCANNED_BYTES = 32 << 20
"""Bytes of vectors of a segment up to which they are scanned where nothing is said: that takes 1 ms on one core where
they are in memory, and finds all."""
CHOICES = ("HNSW16", "IVF")
"""What larger segments get, the first that can be built within the memory budget: a graph answers a query in fewer
reads than lists at any recall, and lists take a tenth of its memory (README, "Which index")."""
_LINK_BYTES, _PLACE_BYTES = 4, 4


def chosen(dense: Dense, rows: int, memory: int) -> Dense:
    """The type of a vector with the index and the codec that a segment of so many rows gets.

    Parameters
    ----------
    memory : bytes that making them may take; with 0 nothing is chosen
    """
    if not dense.by_size or rows * dense.dim * np.dtype(dense.dtype).itemsize <= SCANNED_BYTES:
        return dense
    for index in CHOICES:
        one = msgspec.structs.replace(dense, index=index)
        if memory_bytes(one, rows) <= memory:
            return one
    return dense


def stored_row_bytes(dense: Dense) -> int:
    """Bytes of a row's codes and links in the file, about: the layers take a seventh more at 2 * 16 links.

    Notes
    -----
    In lists, of 64 rows in the mean, half a block of 32 places is left over.
    """
    if dense.codec is None:
        return 0
    codec = parse_codec(dense.codec, dense.dim, dense.metric)
    if dense.in_lists:
        return int(1.25 * (codec.code_size + _PLACE_BYTES) * (1 + dense.soar)) + dense.dim // 8
    return int(codec.code_size + 2 * dense.m * _LINK_BYTES * (1 + 1 / max(dense.m - 1, 1)))


def memory_bytes(dense: Dense, rows: int) -> int:
    """Bytes of memory while the codes and then the index of a segment are made, about.

    Notes
    -----
    Codes are there twice, and once beside the graph, which is built on a byte a dimension, with spare room for links,
    and then copied without. Centroids of lists are trained on a sample of float32 rows, which k-means copies.
    """
    if dense.codec is None:
        return 0
    codes = parse_codec(dense.codec, dense.dim, dense.metric).code_size
    if dense.in_lists:
        sample = sample_count(rows, dense.nlist or list_count(rows))
        places = (2 + dense.soar) * (codes + 2 * _PLACE_BYTES)
        return places * rows + 2 * 4 * dense.dim * sample
    if not dense.m:
        return 2 * codes * rows
    width = HEADER + -(-dense.dim // 32) * 32
    return (codes + max(codes, width + (int(SLACK * 2 * dense.m) + 2 * dense.m) * _LINK_BYTES)) * rows


def most_rows(schema: Schema, memory: int) -> int:
    """Rows of a segment whose codes and indexes fit into blobs, and into memory while they are made.

    Notes
    -----
    So few that a segment gets no codes at all would cost more than the memory that they save.
    """
    return max(CODED_ROWS, min([MAX_SEGMENT_ROWS, *(_most(dense, memory) for dense in schema.dense.values())]))


def _most(dense: Dense, memory: int) -> int:
    kind = msgspec.structs.replace(dense, index=CHOICES[-1]) if dense.by_size else dense
    if kind.codec is None:
        return MAX_SEGMENT_ROWS
    most = bisect_right(range(1, MAX_SEGMENT_ROWS + 1), memory, key=lambda rows: memory_bytes(kind, rows))
    if dense.by_size and not chosen(dense, most, memory).indexed:
        return MAX_SEGMENT_ROWS
    return min(most, MAX_BLOB_BYTES // _blob_row_bytes(kind))


def _blob_row_bytes(dense: Dense) -> int:
    """Bytes of a row in the largest blob of its codes and its index, about."""
    assert dense.codec is not None
    code_size = parse_codec(dense.codec, dense.dim, dense.metric).code_size
    return max((1 + dense.soar) * max(code_size, _PLACE_BYTES), 2 * dense.m * _LINK_BYTES)
