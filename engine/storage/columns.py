"""Columns as bytes: Arrow IPC for payload, raw little-endian arrays for numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

DICTIONARY_SHARE = 0.5
"""Keyword columns are dictionary-encoded while fewer than this share of their rows are distinct."""

_COLUMN = "c"


def pack_column(column: pa.Array) -> pa.Buffer:
    """Encode one column as an Arrow IPC file with one record batch."""
    if pa.types.is_string(column.type) and len(column):
        encoded = column.dictionary_encode()
        if len(encoded.dictionary) <= DICTIONARY_SHARE * len(column):
            column = encoded
    return pack_batch(pa.record_batch([column], names=[_COLUMN]))


def unpack_column(view: memoryview) -> pa.Array:
    """Invert :func:`pack_column` without copying."""
    return unpack_batch(view).column(0)


def pack_batch(batch: pa.RecordBatch) -> pa.Buffer:
    """Encode a record batch as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def unpack_batch(view: memoryview | pa.Buffer) -> pa.RecordBatch:
    """Invert :func:`pack_batch` without copying."""
    try:
        return pa.ipc.open_file(pa.py_buffer(view)).get_batch(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise Corrupt(f"a stored column is no Arrow IPC file ({error}); run verify()") from error


def plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column in its logical type, decoded where it is dictionary-encoded."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def concat(columns: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """One plain column of several."""
    if len(columns) == 1:
        return plain(columns[0], kind)
    return pa.concat_arrays([plain(column, kind) for column in columns]) if columns else pa.array([], kind)


def vector_list(matrix: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    """Matrix of shape (n, dim) as an Arrow column."""
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def vector_matrix(column: pa.FixedSizeListArray, dim: int) -> np.ndarray[Any, Any]:
    """Invert :func:`vector_list` without copying."""
    values: np.ndarray[Any, Any] = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(-1, dim)


def no_vectors(rows: int, dim: int, dtype: str) -> np.ndarray[Any, Any]:
    """Rows that have no vector: NaN throughout."""
    return np.full((rows, dim), np.nan, dtype)
