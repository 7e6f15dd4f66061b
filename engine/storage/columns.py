"""Columns as bytes: Arrow IPC for payload, raw little-endian arrays for numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

DICTIONARY_SHARE = 0.5
"""Keyword columns are dictionary-encoded while fewer than this share of their rows are distinct."""

_COLUMN = "c"


def pack_column(column: pa.Array) -> pa.Buffer:
    """Encode one column as an Arrow IPC file with one record batch."""
    if isinstance(column, pa.DictionaryArray):
        column = _used_values(column)
    elif pa.types.is_string(column.type) and len(column):
        encoded = column.dictionary_encode()
        if len(encoded.dictionary) <= DICTIONARY_SHARE * len(column):
            column = encoded
    return pack_batch(pa.record_batch([column], names=[_COLUMN]))


def _used_values(column: pa.DictionaryArray) -> pa.Array:
    """The column without values that no row has, decoded where that makes it hardly larger."""
    codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
    absent = column.is_null().to_numpy(zero_copy_only=False)
    used, new = np.unique(codes[~absent], return_inverse=True)
    indices = np.zeros(len(codes), np.int32)
    indices[~absent] = new
    values = column.dictionary.take(pa.array(used))
    column = pa.DictionaryArray.from_arrays(pa.array(indices, mask=absent), values)
    if len(values) > DICTIONARY_SHARE * len(column):
        lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
        if lengths[new].sum(dtype=np.int64) <= 2 * values.nbytes:
            return column.dictionary_decode()
    return column


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


def join(columns: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """One column of several, dictionary-encoded where one of them is: decoded it may be larger than memory."""
    if not any(isinstance(column, pa.DictionaryArray) for column in columns):
        return concat(columns, kind)
    encoded = [c if isinstance(c, pa.DictionaryArray) else plain(c, kind).dictionary_encode() for c in columns]
    joined = pa.chunked_array(encoded).unify_dictionaries().combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined


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
