"""Codes of vector columns, one for a segment: derived data, made from the vectors when it is written."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.spec import has_rows, parse_codec, scans_lists
from gingham.errors import Corrupt, InvalidArgument
from gingham.index.two_stage import encode_rows
from gingham.storage.blobs import array_of, rebased
from gingham.storage.catalog import ArrayRecord, CodedRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gingham.codecs.protocol import Codec, Codes
    from gingham.schema import Dense, Schema
    from gingham.storage.blobs import BlobSink
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

CODED_ROWS = 4096
"""Rows of a segment below which its vectors are scanned themselves: that takes under 1 ms."""
SAMPLE_ROWS = 65_536
"""Rows that a codec is trained on: 256 for each of 256 centroids, the most that k-means takes."""


def has_enough_rows(rows: int) -> bool:
    """Whether a segment of so many rows gets codes."""
    return rows >= CODED_ROWS


def check_codecs(schema: Schema) -> None:
    """Raise InvalidArgument unless every codec of the schema parses and fits its field and its index."""
    for dense in schema.dense.values():
        check_codec(dense)


def check_codec(dense: Dense) -> None:
    """Raise InvalidArgument unless the codec of a field parses and fits it and its index."""
    if dense.codec is None:
        return
    parse_codec(dense.codec, dense.dim, dense.metric)
    if dense.in_lists and not scans_lists(dense.codec):
        raise InvalidArgument(
            f"an index {dense.index!r} expects a codec that scans lists, such as 'LVQ8', 'RaBitQ1' or 'PQ16x4fs', "
            f"found {dense.codec!r}; choose another, or leave index= out"
        )
    if dense.m and not has_rows(dense.codec):
        raise InvalidArgument(
            f"an index {dense.index!r} expects a codec that scores rows one by one, such as 'LVQ4x8', 'SQ8' or "
            f"'RaBitQ4', found {dense.codec!r}; choose another, or leave index= out"
        )


def train_codec(dense: Dense, rows: int, sample: Callable[[Array], tuple[Array, Array]]) -> Codec | None:
    """A codec for a column of a new segment, or None where its vectors are scanned themselves.

    Parameters
    ----------
    rows : of the segment
    sample : from ascending positions to the vectors and norms there

    Notes
    -----
    A codec that needs more rows than there are is left out, as in a segment of few rows.
    """
    if dense.codec is None or not has_enough_rows(rows):
        return None
    positions = np.linspace(0, rows - 1, min(rows, SAMPLE_ROWS)).astype(np.int64)
    vectors, norms = sample(positions)
    present = ~np.isnan(norms)
    if not present.any():
        return None
    codec = parse_codec(dense.codec, dense.dim, dense.metric)
    try:
        return codec.train(as_coded(dense, vectors[present], norms[present]))
    except InvalidArgument:
        return None


def as_coded(dense: Dense, vectors: Array, norms: Array) -> Array:
    """Stored vectors as codecs take them: float32, of length one under cosine, zeros where a row has none."""
    rows = vectors.astype(np.float32)
    if dense.metric == "cosine":
        rows *= norms[:, None]
    rows[np.isnan(norms)] = 0
    return np.ascontiguousarray(rows)


class Encoding:
    """The codes of a column while its vectors come piece by piece.

    Parameters
    ----------
    codec : trained
    dense : type of the vectors
    """

    def __init__(self, codec: Codec, dense: Dense) -> None:
        self.codec = codec
        self._dense = dense
        self._parts: list[Codes] = []

    def add(self, vectors: Array, norms: Array) -> None:
        """Encode the next rows."""
        coded = partial(as_coded, self._dense)
        part = encode_rows(self.codec, len(vectors), lambda rows: coded(vectors[rows], norms[rows]))
        self._parts.append(part)

    def codes(self) -> Codes:
        """Codes of all rows; they are in memory twice while they are joined."""
        if len(self._parts) > 1:
            self._parts = [self.codec.join(self._parts)]
        return self._parts[0]

    def write(self, sink: BlobSink) -> CodedRecord:
        """Store the codec and the codes of all rows."""
        learned = write_arrays(sink, self.codec.arrays())
        return CodedRecord(self.codec.spec, learned, write_arrays(sink, self.codes().arrays))


def write_arrays(sink: BlobSink, arrays: Mapping[str, Array]) -> dict[str, ArrayRecord]:
    """Store arrays as blobs."""
    out = {}
    for name, array in arrays.items():
        whole = np.ascontiguousarray(array)
        out[name] = ArrayRecord(whole.dtype.str, whole.shape, sink.put(whole) if whole.nbytes else None)
    return out


def moved_arrays(arrays: Mapping[str, ArrayRecord], base: int) -> dict[str, ArrayRecord]:
    """Records with relative blob keys moved to ``base``."""
    return {
        name: ArrayRecord(one.dtype, one.shape, None if one.blob is None else rebased(one.blob, base))
        for name, one in arrays.items()
    }


def read_codec(session: Session, record: CodedRecord, dense: Dense) -> Codec:
    """The trained codec of a column; raises Corrupt."""
    try:
        return parse_codec(record.spec, dense.dim, dense.metric).with_arrays(read_arrays(session, record.learned))
    except (InvalidArgument, KeyError) as error:
        raise Corrupt(f"codec {record.spec!r} cannot be read back: {error}; run verify()") from error


def read_arrays(session: Session, records: Mapping[str, ArrayRecord]) -> dict[str, Array]:
    """Arrays on the map; raises Corrupt."""
    return {name: _read_array(session, record) for name, record in records.items()}


def _read_array(session: Session, record: ArrayRecord) -> Array:
    if record.blob is None:
        return np.empty(record.shape, record.dtype)
    array: Array = session.mapped(record.blob, partial(array_of, dtype=record.dtype))
    if array.size != np.prod(record.shape, dtype=np.int64):
        raise Corrupt(f"blob {record.blob.key} expects shape {record.shape}, found {array.size} values; run verify()")
    return array.reshape(record.shape)
