"""Whatever a user hands over, as checked rows."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from gingham.columns import check_lengths, field_column, null_column, plain, vector_column
from gingham.errors import DimensionMismatch, GinghamError, InvalidArgument, SchemaMismatch
from gingham.schema import Dense, Schema, Sparse, Tokens, unknown_name
from gingham.sparse_vectors import sparse_column
from gingham.token_vectors import tokens_column
from gingham.types import MAX_ID_BYTES, UUID_IDS, RowBatch, encode_id, shown

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
    first: int = 0,
) -> RowBatch:
    """Check columns.

    Parameters
    ----------
    ids : sequence of user ids, or an Arrow array or NumPy array of them
    vectors : per name an array-like of shape (n, dim), or a sequence with None where a row has no vector
    fields : per name n values
    partial : leave columns out that are not given; otherwise they are filled with null
    first : number of row 0 in messages, where the rows are part of a stream

    Raises
    ------
    SchemaMismatch : an unknown name, or a value of another type
    InvalidArgument : NaN or infinity, columns of unequal length, an unusable id
    DimensionMismatch : vectors of another width

    Notes
    -----
    Of several rows with the same id the last wins.
    """
    for what, given in (("vectors", vectors), ("fields", fields)):
        if not isinstance(given, (Mapping, type(None))):
            raise InvalidArgument(f"{what}= expects a dict of names and columns, found {type(given).__name__}")
    encoded = encode_ids(ids, first)
    n = len(encoded)
    given_vectors, given_fields = dict(vectors or {}), dict(fields or {})
    _check_known(schema, given_vectors, given_fields)
    vector_columns, field_columns = {}, {}
    for name, value in given_vectors.items():
        kind = schema.vectors[name]
        with _door(f"vector {name!r}"):
            if isinstance(kind, Sparse):
                field_columns[name] = sparse_column(name, value, n, first)
            elif isinstance(kind, Tokens):
                field_columns[name] = tokens_column(name, value, kind, n, first)
            else:
                vector_columns[name] = vector_column(name, value, kind, n, first)
    for name, value in given_fields.items():
        with _door(f"field {name!r}"):
            field_columns[name] = field_column(name, value, schema.fields[name], n, first)
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


@contextlib.contextmanager
def _door(what: str) -> Iterator[None]:
    """Make one typed error of whatever a library raises about a value that nothing here has foreseen."""
    try:
        yield
    except GinghamError:
        raise
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError,
            ValueError, BufferError) as error:  # fmt: skip
        reason = str(error).partition("\n")[0]
        raise InvalidArgument(
            f"{what} expects values that can be read, found {type(error).__name__}: {reason}"
        ) from error


def encode_ids(ids: Any, first: int = 0) -> list[bytes]:
    """Encode a column of user ids; ``first`` is the number of row 0 in messages."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"ids= expects a sequence of ids, found {shown(ids)}; put a single id in a list")
    if hasattr(ids, "to_pylist"):
        ids = ids.to_pylist()
    out: list[bytes] = []
    for row, user_id in enumerate(ids, first):
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


def given_rows(
    schema: Schema, rows: Any, *, ids: Any, vectors: Mapping[str, Any] | None, fields: Mapping[str, Any] | None
) -> Iterator[RowBatch]:
    """Check what an upsert is given: rows of any kind, or columns."""
    if rows is None:
        if ids is None:
            raise InvalidArgument("upsert() expects rows, or ids= with vectors= and fields=, found neither")
        return iter([from_columns(schema, ids=ids, vectors=vectors, fields=fields)])
    if ids is not None or vectors is not None or fields is not None:
        raise InvalidArgument("upsert() expects either rows or ids=, vectors= and fields=, found both")
    return batches(rows, schema)


def given_changes(
    schema: Schema, rows: Any, *, ids: Any, vectors: Mapping[str, Any] | None, fields: Mapping[str, Any] | None
) -> list[RowBatch]:
    """Check what an update is given: no row is in two of the batches, which are to be written in one commit."""
    if rows is None:
        if ids is None:
            raise InvalidArgument("update() expects rows, or ids= with vectors= or fields=, found neither")
        if all(given is None or (isinstance(given, Mapping) and not given) for given in (vectors, fields)):
            raise InvalidArgument("update() expects vectors= or fields= with what to change, found neither")
        return [from_columns(schema, ids=ids, vectors=vectors, fields=fields, partial=True)]
    if ids is not None or vectors is not None or fields is not None:
        raise InvalidArgument("update() expects either rows or ids=, vectors= and fields=, found both")
    columns = _columns_of(rows)
    if columns is None:
        if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes, bytearray, np.ndarray)):
            raise InvalidArgument(
                f"update() expects dicts, an Arrow table, a frame or an iterable of dicts, found {type(rows).__name__}"
            )
        listed = [rows] if isinstance(rows, Mapping) else list(rows)
        if not listed or not all(isinstance(item, pa.RecordBatch) for item in listed):
            return _changed_rows(listed, schema)
        with _door("a stream of record batches"):
            columns = _columns_of(pa.Table.from_batches(listed))
    return [_from_named(columns or [], schema, 0, partial=True)]


def _changed_rows(rows: Sequence[Any], schema: Schema) -> list[RowBatch]:
    """A batch for each set of names that dicts have, so that a row keeps what its dict does not name."""
    for number, row in enumerate(rows):
        _check_dict(row, number)
        if row.get("id") is None or len(row) < 2:
            raise InvalidArgument(
                f"row {number} of an update expects an id and what to change, found the names {list(row)}"
            )
    merged: dict[bytes, dict[str, Any]] = {}
    for encoded, row in zip(encode_ids([row["id"] for row in rows]), rows, strict=True):
        merged[encoded] = {**merged.get(encoded, {}), **row}
    groups: dict[frozenset[str], list[dict[str, Any]]] = {}
    for row in merged.values():
        groups.setdefault(frozenset(row), []).append(row)
    try:
        return [_from_dicts(group, schema, 0, partial=True) for group in groups.values()]
    except GinghamError:
        for number, row in enumerate(rows):  # raises the error that names the row by its own number
            _from_dicts([row], schema, number, partial=True)
        raise


def batches(source: Any, schema: Schema, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[RowBatch]:
    """Check rows of any kind.

    Parameters
    ----------
    source : a dict or a list of dicts, an Arrow table, record batch or reader, a pandas or polars frame, a
        path of a Parquet file, or any iterable of dicts or record batches
    chunk_rows : rows of each batch where the source is a stream; anything else is one batch
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _tables(_parquet(source, chunk_rows), schema, chunk_rows)
    elif isinstance(source, Mapping):
        yield _from_dicts([source], schema, 0)
    elif (columns := _columns_of(source)) is not None:
        yield _from_named(columns, schema, 0)
    elif isinstance(source, pa.RecordBatchReader):
        yield from _tables(source, schema, chunk_rows)
    elif isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
        if source and isinstance(source[0], pa.RecordBatch):
            with _door("a list of record batches"):
                table = pa.Table.from_batches(source)
            yield _from_named(_columns_of(table) or [], schema, 0)
        else:
            yield _from_dicts(source, schema, 0)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, np.ndarray)):
        yield from _stream(iter(source), schema, chunk_rows)
    else:
        raise InvalidArgument(
            f"upsert() expects dicts, an Arrow table, a frame, a Parquet path or an iterable, "
            f"found {type(source).__name__}"
        )


def _parquet(source: str | os.PathLike[str], chunk_rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    what = f"the Parquet file {os.fspath(source)!r}"
    with contextlib.ExitStack() as stack:
        with _door(what):
            file = stack.enter_context(pq.ParquetFile(source))
            read = file.iter_batches(batch_size=chunk_rows)
        while True:
            with _door(what):
                batch = next(read, None)
            if batch is None:
                return
            yield batch


def _columns_of(source: Any) -> list[tuple[str, Any]] | None:
    """Names and columns of a table or frame, or None where it is neither."""
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        return [
            (field.name, _uuids(column) if field.name == "id" and _holds_uuids(field) else column)
            for field, column in zip(source.schema, source.columns, strict=True)
        ]
    package = type(source).__module__.partition(".")[0]
    if package not in ("pandas", "polars"):
        return None
    if hasattr(source, "collect"):
        with _door("a lazy frame"):
            source = source.collect()
    if not hasattr(source, "columns"):
        raise InvalidArgument(f"rows= expects a frame, found a {type(source).__name__}; call to_frame() or name it")
    columns = [(name, source[name] if package == "polars" else source.iloc[:, at])
               for at, name in enumerate(source.columns)]  # fmt: skip
    named = [] if package == "polars" else [name for name in source.index.names if name is not None]
    if named == ["id"]:
        return [("id", source.index), *columns]
    if named:
        raise SchemaMismatch(f"a frame expects an index named 'id' or none, found {named}; call reset_index()")
    return columns


def _holds_uuids(field: pa.Field) -> bool:
    # Parquet adds metadata of its own.
    return UUID_IDS.items() <= (field.metadata or {}).items()


def _uuids(column: pa.Array) -> list[uuid.UUID | None]:
    with _door("the column 'id'"):
        return [None if value is None else uuid.UUID(bytes=value) for value in column.to_pylist()]


def _tables(source: Iterable[Any], schema: Schema, chunk_rows: int) -> Iterator[RowBatch]:
    """Check a stream of record batches or tables."""
    start = 0
    for item in source:
        if not isinstance(item, (pa.RecordBatch, pa.Table)):
            raise InvalidArgument(f"the stream expects record batches, found {type(item).__name__}")
        for offset in range(0, len(item), chunk_rows):
            part = item.slice(offset, chunk_rows)
            yield _from_named(_columns_of(part) or [], schema, start)
            start += len(part)


def _from_named(columns: Sequence[tuple[str, Any]], schema: Schema, first: int, *, partial: bool = False) -> RowBatch:
    """Check a table with a column ``id`` and columns named like fields and vectors."""
    names = [name for name, _ in columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"a table expects each column once, found {twice!r} twice; rename or drop one")
    named = dict(columns)
    n = len(columns[0][1]) if columns else 0
    given = named.pop("id", None)
    with _door("the column 'id'"):
        column = None if given is None else plain(given)
        values = [None] * n if column is None else column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    kinds = sorted({type(value).__name__ for value in values if value is not None})
    if len(kinds) > 1:
        raise InvalidArgument(f"the column 'id' expects ids of one kind, found {kinds}; give rows as dicts")
    if partial and (not named or any(value is None for value in values)):
        raise InvalidArgument(
            f"an update expects a column 'id' without nulls and columns to change, found the columns {names}"
        )
    vectors, fields = _split(named, schema)
    return from_columns(schema, ids=_fill_ids(values), vectors=vectors, fields=fields, partial=partial, first=first)


def _fill_ids(ids: Sequence[Any]) -> list[Any]:
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
        yield from _tables(source, schema, chunk_rows)
        return
    start = 0
    while chunk := list(islice(source, chunk_rows)):
        yield _from_dicts(chunk, schema, start)
        start += len(chunk)


def _check_dict(row: Any, number: int) -> None:
    if not isinstance(row, Mapping):
        raise InvalidArgument(f"row {number} expects a dict, found {type(row).__name__} {shown(row)}")


def _from_dicts(rows: Sequence[Any], schema: Schema, start: int, *, partial: bool = False) -> RowBatch:
    names: dict[str, None] = {}
    for number, row in enumerate(rows, start):
        _check_dict(row, number)
        names.update(dict.fromkeys(row))
    names.pop("id", None)
    ids = _fill_ids([row.get("id") for row in rows])
    vectors, fields = _split({name: [row.get(name) for row in rows] for name in names}, schema)
    return from_columns(schema, ids=ids, vectors=vectors, fields=fields, partial=partial, first=start)


_USUAL = 1e-30, 1e30
"""A squared length in between needs no closer look: every number of the vector is finite, and so is every score."""


def query_matrix(query: Any, dense: Dense) -> tuple[Array, bool]:
    """Queries as float32 (n_queries, dim), and whether one vector was given.

    Raises
    ------
    DimensionMismatch : another width than the field
    InvalidArgument : NaN, infinity, or no numbers
    """
    if type(query) is np.ndarray and query.dtype != object:
        matrix = query
    else:
        with _door("a query vector"):
            value = plain(query)
            matrix = np.asarray(value.to_pylist() if isinstance(value, pa.Array) else value)
    if matrix.dtype.kind not in "fiu" or matrix.ndim not in (1, 2):
        raise InvalidArgument(
            f"a query expects numbers of shape ({dense.dim},) or (n, {dense.dim}), found {matrix.dtype} {matrix.shape}"
        )
    single = matrix.ndim == 1
    matrix = matrix.reshape(1, -1) if single else matrix
    if matrix.shape[1] != dense.dim:
        raise DimensionMismatch(f"a query expects {dense.dim} dimensions, found {matrix.shape[1]}")
    if matrix.dtype == np.float32 and matrix.flags.c_contiguous:
        queries = matrix
    else:
        with np.errstate(all="ignore"):
            queries = np.ascontiguousarray(matrix, np.float32)
    if not (single and _USUAL[0] < np.vdot(queries, queries) < _USUAL[1]):
        check_lengths("a query vector", queries, matrix, dense, present=None, row="in query", first=0)
    return queries, single
