"""Checked columns: vectors as matrices, payload as Arrow arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham.errors import DimensionMismatch, InvalidArgument, SchemaMismatch
from gingham.schema import Bool, Dense, Float, Int, Json, Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.schema import Column, Field

Array = np.ndarray[Any, Any]

_CHECK_ROWS = 4096


def null_column(n: int, field: Column) -> pa.Array:
    """Column of n nulls."""
    return pa.nulls(n, field.arrow_type)


def vector_column(name: str, value: Any, dense: Dense, n: int) -> Array:
    """Vectors as a C-contiguous (n, dim) array of the field's dtype; not copied where it is one already.

    Raises
    ------
    DimensionMismatch : another width, the row is named
    InvalidArgument : another number of rows, NaN, infinity or overflow, the row is named
    """
    matrix, present = _matrix(name, value, dense, n)
    if len(matrix) != n:
        raise InvalidArgument(f"vector {name!r} expects {n} rows, one for each id, found {len(matrix)}")
    if matrix.shape[1] != dense.dim:
        raise DimensionMismatch(f"vector {name!r} expects {dense.dim} dimensions, found {matrix.shape[1]} in row 0")
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.ascontiguousarray(matrix, np.dtype(dense.dtype))
    for start in range(0, n, _CHECK_ROWS):
        finite = np.isfinite(out[start : start + _CHECK_ROWS]).all(axis=1)
        if present is not None:
            finite |= ~present[start : start + _CHECK_ROWS]
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise InvalidArgument(
                f"vector {name!r} expects finite {dense.dtype} numbers, found NaN, infinity or overflow in row {row}"
            )
    if present is not None:
        out[~present] = np.nan
    return out


def _matrix(name: str, value: Any, dense: Dense, n: int) -> tuple[Array, Array | None]:
    """Matrix of any number type, and which rows have a vector (None: all)."""
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.FixedSizeListArray) and not value.null_count and not value.values.null_count:
        return value.flatten().to_numpy(zero_copy_only=False).reshape(-1, value.type.list_size), None
    if isinstance(value, pa.Array):
        value = value.to_pylist()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    if isinstance(value, Sequence) and any(row is None for row in value):
        present = np.array([row is not None for row in value])
        filled = [np.zeros(dense.dim) if row is None else row for row in value]
        return _numbers(name, filled, dense), present
    if n == 0 and not hasattr(value, "shape"):
        return np.empty((0, dense.dim), dense.dtype), None
    return _numbers(name, value, dense), None


def _numbers(name: str, value: Any, dense: Dense) -> Array:
    try:
        matrix = np.asarray(value)
    except ValueError:
        matrix = np.empty(0, object)
    if matrix.dtype.kind in "fiu" and matrix.ndim == 2:
        return matrix
    if not isinstance(value, (str, bytes, Mapping)) and hasattr(value, "__len__"):
        for row, vector in enumerate(value):
            try:
                single = np.asarray(vector)
            except ValueError:
                single = np.empty(0, object)
            if single.dtype.kind not in "fiu" or single.ndim != 1:
                raise SchemaMismatch(f"vector {name!r} expects a list of numbers in row {row}, found {vector!r:.60}")
            if len(single) != dense.dim:
                raise DimensionMismatch(
                    f"vector {name!r} expects {dense.dim} dimensions, found {len(single)} in row {row}"
                )
        if matrix.dtype == object and len(value):
            return np.stack([np.asarray(vector, np.float64) for vector in value])
    raise SchemaMismatch(
        f"vector {name!r} expects numbers of shape (n, {dense.dim}), "
        f"found {type(value).__name__} of shape {matrix.shape}"
    )


def field_column(name: str, values: Any, field: Field, n: int) -> pa.Array:
    """Values as an Arrow array of the field's type.

    Raises
    ------
    SchemaMismatch : a value of another type, the row is named
    InvalidArgument : another number of values
    """
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(column, np.ndarray):
        column = _from_numpy(name, column, field)
    elif not isinstance(column, pa.Array) and type(column).__module__.partition(".")[0] in (
        "pandas",
        "polars",
    ):
        column = pa.array(column) if not hasattr(column, "to_arrow") else column.to_arrow()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(column, pa.Array):
        if isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__"):
            raise InvalidArgument(f"field {name!r} expects a sequence of {n} values, found {column!r:.60}")
        column = _from_values(name, column, field)
    else:
        column = _from_arrow(name, column, field)
    if len(column) != n:
        raise InvalidArgument(f"field {name!r} expects {n} values, one for each id, found {len(column)}")
    return column


def _mismatch(name: str, field: Field, row: int, value: object) -> SchemaMismatch:
    kind = type(field).__name__.lower()
    many = " lists" if getattr(field, "many", False) else ""
    return SchemaMismatch(
        f"field {name!r} expects {kind}{many}, found {type(value).__name__} {value!r:.60} in row {row}"
    )


def _from_numpy(name: str, column: Array, field: Field) -> Any:
    if column.dtype == object or column.dtype.kind in "US" or column.ndim != 1:
        return column.tolist()
    return pa.array(column)


def _from_values(name: str, values: Sequence[Any], field: Field) -> pa.Array:
    convert = _converter(field)
    if getattr(field, "many", False):
        single = convert

        def convert(value: Any) -> Any:
            if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
                raise TypeError
            return [single(one) for one in value]

    out = []
    for row, value in enumerate(values):
        try:
            out.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError):
            raise _mismatch(name, field, row, value) from None
    return pa.array(out, field.arrow_type)


def _converter(field: Field) -> Callable[[Any], Any]:
    if isinstance(field, Int):
        return _int
    if isinstance(field, Float):
        return _float
    if isinstance(field, Bool):
        return _bool
    if isinstance(field, Timestamp):
        return _timestamp
    if isinstance(field, Json):
        return _json
    return _text


def _int(value: Any) -> int:
    if type(value) is int or isinstance(value, np.integer):
        if not -(1 << 63) <= value < 1 << 63:
            raise OverflowError
        return int(value)
    raise TypeError


def _float(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError
    number = float(value)
    if number != number:
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError


def _text(value: Any) -> str:
    if isinstance(value, str):
        value.encode()
        return str(value)
    raise TypeError


def _timestamp(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise TypeError


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()
    return text


def _from_arrow(name: str, column: pa.Array, field: Field) -> pa.Array:
    """An Arrow column in the field's type; only casts that lose nothing."""
    kind, wanted = column.type, field.arrow_type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), wanted)
    if isinstance(field, Json):
        return _from_values(name, _parsed(name, column), field)
    if not _castable(kind, wanted):
        row = next((i for i in range(len(column)) if column[i].is_valid), 0)
        raise _mismatch(name, field, row, column[row].as_py() if len(column) else None)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if pa.types.is_timestamp(kind) and kind.tz is None:
        column = column.cast(pa.timestamp(kind.unit, tz="UTC"))
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatch(f"field {name!r} expects {wanted}, found a column of {kind}: {error}") from error


def _castable(kind: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_list(wanted):
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return is_list and _castable(kind.value_type, wanted.value_type)
    if types.is_boolean(wanted):
        return bool(types.is_boolean(kind))
    if types.is_integer(wanted):
        return bool(types.is_integer(kind) or types.is_floating(kind))
    if types.is_floating(wanted):
        return bool(types.is_integer(kind) or types.is_floating(kind))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(kind) or types.is_date(kind))
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _parsed(name: str, column: pa.Array) -> list[Any]:
    """Values of a JSON column: text is parsed, structs and lists are taken as they are."""
    values: list[Any] = column.to_pylist()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return values
    out = []
    for row, text in enumerate(values):
        try:
            out.append(None if text is None else json.loads(text))
        except ValueError:
            raise SchemaMismatch(f"field {name!r} expects JSON text, found {text!r:.60} in row {row}") from None
    return out
