"""Whatever a user hands over, as checked rows."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.columns import field_column, null_column, vector_column
from gingham.errors import DimensionMismatch, InvalidArgument, SchemaMismatch
from gingham.index.flat import row_norms, unusable_rows
from gingham.schema import Dense, Schema, Sparse, unknown_name
from gingham.sparse_vectors import sparse_column
from gingham.types import MAX_ID_BYTES, RowBatch, encode_id

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_ROWS = 10_000
"""Rows of one commit where rows arrive as a stream."""

Array = np.ndarray[Any, Any]


def from_columns(
    schema: Schema,
    *,
    ids: Any,
    vectors: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
    partial: bool = False,
) -> RowBatch:
    """Check columns.

    Parameters
    ----------
    ids : sequence of user ids, or an Arrow array or NumPy array of them
    vectors : per name an array-like of shape (n, dim), or a sequence with None where a row has no vector
    fields : per name n values
    partial : leave columns out that are not given; otherwise they are filled with null

    Raises
    ------
    SchemaMismatch : an unknown name, or a value of another type
    InvalidArgument : NaN or infinity, columns of unequal length, an unusable id
    DimensionMismatch : vectors of another width

    Notes
    -----
    Of several rows with the same id the last wins.
    """
    encoded = encode_ids(ids)
    n = len(encoded)
    given_vectors, given_fields = dict(vectors or {}), dict(fields or {})
    _check_known(schema, given_vectors, given_fields)
    vector_columns, field_columns = {}, {}
    for name, value in given_vectors.items():
        kind = schema.vectors[name]
        if isinstance(kind, Sparse):
            field_columns[name] = sparse_column(name, value, n)
        else:
            vector_columns[name] = vector_column(name, value, kind, n)
    field_columns |= {name: field_column(name, v, schema.fields[name], n) for name, v in given_fields.items()}
    if not partial:
        vector_columns = {
            name: vector_columns[name] if name in vector_columns else np.full((n, d.dim), np.nan, d.dtype)
            for name, d in schema.dense.items()
        }
        field_columns = {
            name: field_columns[name] if name in field_columns else null_column(n, f)
            for name, f in schema.columns.items()
        }
    return _last_wins(RowBatch(encoded, vector_columns, field_columns))


def _check_known(schema: Schema, vectors: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    for name in vectors:
        if name not in schema.vectors:
            raise SchemaMismatch(unknown_name("vector", name, schema.vectors))
    for name in fields:
        if name not in schema.fields:
            raise SchemaMismatch(unknown_name("field", name, schema.fields))


def encode_ids(ids: Any) -> list[bytes]:
    """Encode a column of user ids."""
    if isinstance(ids, (pa.Array, pa.ChunkedArray)):
        ids = ids.to_pylist()
    elif isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"ids= expects a sequence of ids, found {ids!r:.60}; put a single id in a list")
    out: list[bytes] = []
    for row, user_id in enumerate(ids):
        if type(user_id) is str and 0 < len(user_id) < MAX_ID_BYTES // 4:
            try:
                out.append(b"s" + user_id.encode())
                continue
            except UnicodeEncodeError:
                pass
        try:
            out.append(encode_id(user_id))
        except InvalidArgument as error:
            raise InvalidArgument(f"row {row}: {error}") from None
    return out


def _last_wins(batch: RowBatch) -> RowBatch:
    last = {encoded: row for row, encoded in enumerate(batch.ids)}
    if len(last) == len(batch.ids):
        return batch
    keep = np.sort(np.fromiter(last.values(), np.int64, len(last)))
    take = pa.array(keep)
    return RowBatch(
        [batch.ids[row] for row in keep],
        {name: matrix[keep] for name, matrix in batch.vectors.items()},
        {name: column.take(take) for name, column in batch.fields.items()},
    )


def owned(batch: RowBatch) -> RowBatch:
    """Copy of rows that shares no memory with the caller, who may change his arrays before they are written."""
    every = pa.array(np.arange(len(batch)))
    return RowBatch(
        batch.ids,
        {name: matrix.copy() for name, matrix in batch.vectors.items()},
        {name: column.take(every) for name, column in batch.fields.items()},
    )


def batches(source: Any, schema: Schema, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[RowBatch]:
    """Check rows of any kind.

    Parameters
    ----------
    source : a dict or a list of dicts, an Arrow table, record batch or reader, a pandas or polars frame, a
        path of a Parquet file, or any iterable of dicts or record batches
    chunk_rows : rows of each batch where the source is a stream; anything else is one batch
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _parquet(source, schema, chunk_rows)
    elif isinstance(source, Mapping):
        yield _from_dicts([source], schema)
    elif (table := _as_table(source)) is not None:
        yield from_table(table, schema)
    elif isinstance(source, pa.RecordBatchReader):
        yield from _chunks(source, schema, chunk_rows)
    elif isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
        if source and isinstance(source[0], pa.RecordBatch):
            yield from_table(pa.Table.from_batches(source), schema)
        else:
            yield _from_dicts(source, schema)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, np.ndarray)):
        yield from _stream(iter(source), schema, chunk_rows)
    else:
        raise InvalidArgument(
            f"upsert() expects dicts, an Arrow table, a frame, a Parquet path or an iterable, "
            f"found {type(source).__name__}"
        )


def _from_pandas(frame: Any) -> pa.Table:
    """A frame with its named indexes as columns, so that an index ``id`` gives the ids."""
    if not hasattr(frame, "columns"):
        raise InvalidArgument(f"upsert() expects a frame, found a {type(frame).__name__}; put it in a frame or columns")
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise InvalidArgument(f"upsert() expects a frame with columns of one type each, found {error}") from error


@contextlib.contextmanager
def _rows_from(start: int) -> Iterator[None]:
    """Have errors of a chunk name the row of the whole stream, which has ``start`` rows before it."""
    try:
        yield
    except InvalidArgument as error:
        text = re.sub(r"(?<=^row )\d+|(?<=in row )\d+(?=$)", lambda m: str(int(m.group()) + start), str(error))
        error.args = (text,)
        raise


def _parquet(source: str | os.PathLike[str], schema: Schema, chunk_rows: int) -> Iterator[RowBatch]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
    except (FileNotFoundError, pa.ArrowInvalid, IsADirectoryError) as error:
        raise InvalidArgument(
            f"upsert() expects the path of a Parquet file, found {os.fspath(source)!r}: {error}"
        ) from error
    with file:
        yield from _chunks(file.iter_batches(batch_size=chunk_rows), schema, chunk_rows)


def _chunks(source: Iterable[Any], schema: Schema, chunk_rows: int) -> Iterator[RowBatch]:
    """Record batches and tables of a stream, cut into chunks."""
    start = 0
    for item in source:
        table = _as_table(item)
        if table is None:
            raise InvalidArgument(f"the stream expects record batches, found {type(item).__name__}")
        for at in range(0, len(table), chunk_rows):
            with _rows_from(start):
                batch = from_table(table.slice(at, chunk_rows), schema)
            yield batch
            start += len(table.slice(at, chunk_rows))


def _as_table(source: Any) -> pa.Table | None:
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    package = type(source).__module__.partition(".")[0]
    if package == "pandas":
        return _from_pandas(source)
    if package == "polars":
        return source.collect().to_arrow() if hasattr(source, "collect") else source.to_arrow()
    return None


def from_table(table: pa.Table, schema: Schema) -> RowBatch:
    """Check a table with a column ``id`` and columns named like fields and vectors."""
    columns = {name: table[name] for name in table.column_names}
    ids = columns.pop("id", None)
    encoded: Any = [uuid.uuid4() for _ in range(len(table))] if ids is None else _fill_ids(ids.to_pylist())
    vectors, fields = _split(columns, schema)
    return from_columns(schema, ids=encoded, vectors=vectors, fields=fields)


def _fill_ids(ids: list[Any]) -> list[Any]:
    return [uuid.uuid4() if user_id is None else user_id for user_id in ids]


def _split(columns: Mapping[str, Any], schema: Schema) -> tuple[dict[str, Any], dict[str, Any]]:
    vectors = {name: column for name, column in columns.items() if name in schema.vectors}
    fields = {name: column for name, column in columns.items() if name not in vectors}
    known = {"id": None, **schema.fields, **schema.vectors}
    for name in fields:
        if name not in schema.fields:
            raise SchemaMismatch(unknown_name("column", name, known))
    return vectors, fields


def _stream(source: Iterator[Any], schema: Schema, chunk_rows: int) -> Iterator[RowBatch]:
    first = next(source, None)
    if first is None:
        return
    source = chain([first], source)
    if isinstance(first, (pa.RecordBatch, pa.Table)):
        yield from _chunks(source, schema, chunk_rows)
        return
    start = 0
    while chunk := list(islice(source, chunk_rows)):
        with _rows_from(start):
            batch = _from_dicts(chunk, schema)
        yield batch
        start += len(chunk)


def _from_dicts(rows: Sequence[Any], schema: Schema) -> RowBatch:
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidArgument(f"row {number} expects a dict, found {type(row).__name__} {row!r:.60}")
        names.update(dict.fromkeys(row))
    names.pop("id", None)
    ids = _fill_ids([row.get("id") for row in rows])
    vectors, fields = _split({name: [row.get(name) for row in rows] for name in names}, schema)
    return from_columns(schema, ids=ids, vectors=vectors, fields=fields)


def query_matrix(query: Any, dense: Dense) -> tuple[Array, bool]:
    """Queries as float32 (n_queries, dim), and whether one vector was given.

    Raises
    ------
    DimensionMismatch : another width than the field
    InvalidArgument : NaN, infinity, or no numbers
    """
    try:
        matrix = _array_of(query)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"a query expects an array of numbers, found {type(query).__name__} ({error})") from error
    if matrix.dtype.kind not in "fiu" or matrix.ndim not in (1, 2):
        raise InvalidArgument(
            f"a query expects numbers of shape ({dense.dim},) or (n, {dense.dim}), found {matrix.dtype} {matrix.shape}"
        )
    single = matrix.ndim == 1
    matrix = matrix.reshape(1, -1) if single else matrix
    if matrix.shape[1] != dense.dim:
        raise DimensionMismatch(f"a query expects {dense.dim} dimensions, found {matrix.shape[1]}")
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(matrix, np.float32)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise InvalidArgument(f"query {row} expects finite numbers, found NaN or infinity")
    unusable = unusable_rows(row_norms(matrix, dense.metric), dense.metric)
    if len(unusable):
        raise InvalidArgument(
            f"query {int(unusable[0])} expects a length that float32 can square and, for cosine, divide by, "
            "from 1e-38 to 1e19, found another; scale it"
        )
    return matrix, single


def _array_of(value: Any) -> Array:
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return np.array(value.to_pylist())
    convert: Callable[[Any], Any] = np.from_dlpack if _only_dlpack(value) else np.asarray
    return np.asarray(convert(value))


def _only_dlpack(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
