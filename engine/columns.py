"""Checked columns: vectors as matrices, payload as Arrow arrays.

One rule for every container: a value is stored as it is or refused with its row named. None, Arrow nulls, NaT and
pandas' NA are null; NaN is a number and refused, except in a pandas column, where pandas writes it for missing.
"""

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
from gingham.types import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.schema import Column, Field

Array = np.ndarray[Any, Any]

_CHECK_ROWS = 4096
MAX_SQUARE = 2.0**125
"""Greatest squared length of a vector, so that inner products and squared distances of two stay within float32."""
MIN_SQUARE = 2.0**-126
"""Least squared length of a vector that cosine takes for nonzero, the least normal float32."""
_FIRST_INSTANT, _LAST_INSTANT = (datetime(*day, tzinfo=UTC) for day in ((1, 1, 1), (9999, 12, 31)))
_WHOLE_UNITS = ("s", "ms", "us", "ns", "D")
"""Units of NumPy times that Arrow knows."""


def null_column(n: int, field: Column) -> pa.Array:
    """Column of n nulls."""
    return pa.nulls(n, field.arrow_type)


def plain(values: Any) -> Any:
    """A column of any container as a NumPy array, an Arrow array or a list, None where pandas has a missing value."""
    package = type(values).__module__.partition(".")[0]
    if package == "pandas" and hasattr(values, "isna"):
        if values.dtype == object:
            missing = np.asarray(values.isna())
            return [None if gone else value for value, gone in zip(values, missing, strict=True)]
        values = pa.array(values, from_pandas=True)
    elif package == "polars" and hasattr(values, "to_arrow"):
        values = values.to_arrow()
    elif not isinstance(values, (pa.Array, pa.ChunkedArray, np.ndarray)):
        if hasattr(values, "__array__"):
            values = np.asarray(values)
        elif hasattr(values, "__dlpack__"):
            values = np.from_dlpack(values)
    if isinstance(values, np.ndarray):
        if values.dtype == object:
            return list(values)
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def vector_column(name: str, value: Any, dense: Dense, n: int, first: int = 0) -> Array:
    """Vectors as a C-contiguous (n, dim) array of the field's dtype; not copied where it is one already.

    Parameters
    ----------
    first : number of row 0 in messages

    Raises
    ------
    DimensionMismatch : another width, the row is named
    InvalidArgument : another number of rows; NaN, infinity, overflow or an extreme length, the row is named
    """
    matrix, present = _matrix(name, plain(value), dense, n, first)
    if len(matrix) != n:
        raise InvalidArgument(f"vector {name!r} expects {n} rows, one for each id, found {len(matrix)}")
    if matrix.shape[1] != dense.dim:
        raise DimensionMismatch(
            f"vector {name!r} expects {dense.dim} dimensions, found {matrix.shape[1]} in row {first}"
        )
    with np.errstate(all="ignore"):
        out = np.ascontiguousarray(matrix, np.dtype(dense.dtype))
    check_lengths(f"vector {name!r}", out, matrix, dense, present=present, row="in row", first=first)
    if present is not None:
        out[~present] = np.nan
    return out


def check_lengths(
    what: str, stored: Array, given: Array, dense: Dense, *, present: Array | None, row: str, first: int
) -> None:
    """Raise InvalidArgument where a vector is not finite, or too long or short for its score to be a number.

    Notes
    -----
    A squared length is finite only where all numbers are, so that one pass over the rows finds both.
    """
    for start in range(0, len(stored), _CHECK_ROWS):
        block = stored[start : start + _CHECK_ROWS].astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            squares = np.einsum("ij,ij->i", block, block)
            good = squares <= MAX_SQUARE
            if dense.metric == "cosine":
                short = np.flatnonzero(squares < MIN_SQUARE)
                good[short] &= ~given[start + short].astype(bool).any(axis=1)
        if present is not None:
            good |= ~present[start : start + _CHECK_ROWS]
        if not good.all():
            at = int(np.argmin(good))
            where = f"{row} {first + start + at}"
            if not np.isfinite(block[at]).all():
                raise InvalidArgument(
                    f"{what} expects finite {dense.dtype} numbers, found NaN, infinity or overflow {where}"
                )
            least = "0 or from 1.1e-19" if dense.metric == "cosine" else "0"
            raise InvalidArgument(
                f"{what} expects a length of {least} to 6.5e18, found another {where}; scale the vectors"
            )


def _matrix(name: str, value: Any, dense: Dense, n: int, first: int) -> tuple[Array, Array | None]:
    """Matrix of any number type, and which rows have a vector (None: all)."""
    if isinstance(value, pa.Array):
        width = _list_width(value)
        if width is not None:
            return value.flatten().to_numpy(zero_copy_only=False).reshape(-1, width), None
        value = value.to_pylist()
    if isinstance(value, Sequence) and any(row is None for row in value):
        present = np.array([row is not None for row in value])
        filled = [np.zeros(dense.dim) if row is None else row for row in value]
        return _numbers(name, filled, dense, first), present
    if n == 0 and not hasattr(value, "shape"):
        return np.empty((0, dense.dim), dense.dtype), None
    return _numbers(name, value, dense, first), None


def _list_width(column: pa.Array) -> int | None:
    """Width of the lists of numbers of a column, where all rows have one of the same."""
    kind = column.type
    if column.null_count or not len(column) or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)
                                                    or pa.types.is_fixed_size_list(kind)):  # fmt: skip
        return None
    numbers = pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    if not numbers or column.flatten().null_count:
        return None
    ends = pc.min_max(pc.list_value_length(column)).as_py()
    return int(ends["min"]) if ends["min"] == ends["max"] > 0 else None


def _numbers(name: str, value: Any, dense: Dense, first: int) -> Array:
    try:
        matrix = np.asarray(value)
    except ValueError:
        matrix = np.empty(0, object)
    if matrix.dtype.kind in "fiu" and matrix.ndim == 2:
        return matrix
    if not isinstance(value, (str, bytes, Mapping)) and hasattr(value, "__len__"):
        for row, vector in enumerate(value, first):
            try:
                single = np.asarray(vector)
            except ValueError:
                single = np.empty(0, object)
            if single.dtype.kind not in "fiu" or single.ndim != 1:
                raise SchemaMismatch(f"vector {name!r} expects a list of numbers, found {shown(vector)} in row {row}")
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


def field_column(name: str, values: Any, field: Field, n: int, first: int = 0) -> pa.Array:
    """Values as an Arrow array of the field's type.

    Parameters
    ----------
    first : number of row 0 in messages

    Raises
    ------
    SchemaMismatch : a value of another type, or that the field cannot hold exactly; the row is named
    InvalidArgument : another number of values
    """
    column = _arrow_of(plain(values))
    if isinstance(column, pa.Array):
        column = _from_arrow(name, column, field, first)
    elif isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__"):
        raise InvalidArgument(f"field {name!r} expects a sequence of {n} values, found {shown(column)}")
    else:
        column = _from_values(name, column, field, first)
    if len(column) != n:
        raise InvalidArgument(f"field {name!r} expects {n} values, one for each id, found {len(column)}")
    return column


def _mismatch(name: str, field: Field, row: int, value: object) -> SchemaMismatch:
    kind = type(field).__name__.lower()
    many = " lists" if getattr(field, "many", False) else ""
    return SchemaMismatch(
        f"field {name!r} expects {kind}{many}, found {type(value).__name__} {shown(value)} in row {row}"
    )


def _arrow_of(column: Any) -> Any:
    """A NumPy array of a type that Arrow has as an Arrow array, of another as a list; anything else as it is."""
    if not isinstance(column, np.ndarray):
        return column
    if column.ndim != 1:
        return column.tolist()
    kind, unit = column.dtype.kind, np.datetime_data(column.dtype)[0] if column.dtype.kind == "M" else ""
    known = kind in "biu" or (kind == "f" and column.dtype.itemsize <= 8) or (unit in _WHOLE_UNITS)
    return pa.array(column) if known else list(column)


def _from_values(name: str, values: Sequence[Any], field: Field, first: int) -> pa.Array:
    convert = _converter(field)
    if getattr(field, "many", False):
        single = convert

        def convert(value: Any) -> Any:
            if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
                raise TypeError
            return [single(one) for one in value]

    out = []
    for row, value in enumerate(values, first):
        try:
            out.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError, RecursionError):
            if not _is_missing(value):
                raise _mismatch(name, field, row, value) from None
            out.append(None)
    return pa.array(out, field.arrow_type)


def _is_missing(value: object) -> bool:
    return type(value).__name__ in ("NaTType", "NAType") or (isinstance(value, np.datetime64) and bool(np.isnat(value)))


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
    """Whole numbers of 64 bits; 2.0 is one, as it is in a column of floats."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError
    number = int(value)
    if number != value or not -(1 << 63) <= number < 1 << 63:
        raise OverflowError
    return number


def _float(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError
    number = float(value)
    if number != (int(value) if isinstance(value, np.integer) else value) or abs(number) == float("inf"):
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
        exact = value.astype("datetime64[us]")
        if exact != value:  # digits below a microsecond, or NaT
            raise ValueError
        value = exact.item()
    if isinstance(value, datetime):
        if value != value or int(getattr(value, "nanosecond", 0)):  # pandas' NaT, or its finer digits
            raise ValueError
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise TypeError


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()
    return text


def _from_arrow(name: str, column: pa.Array, field: Field, first: int) -> pa.Array:
    """An Arrow column in the field's type; what does not cast as a whole is taken value by value."""
    kind, wanted = column.type, field.arrow_type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), wanted)
    if isinstance(field, Json):
        return _from_values(name, _parsed(name, column, first), field, first)
    if isinstance(field, Timestamp) and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _instants(name, column, first)
    if _castable(kind, wanted):
        try:
            cast = column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            cast = None
        if cast is not None and _whole(cast):
            return cast
    return _from_values(name, column.to_pylist(), field, first)


def _castable(kind: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_list(wanted):
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return is_list and _castable(kind.value_type, wanted.value_type)
    if types.is_boolean(wanted):
        return bool(types.is_boolean(kind))
    if types.is_integer(wanted) or types.is_floating(wanted):
        return bool(types.is_integer(kind) or types.is_floating(kind))
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _whole(column: pa.Array) -> bool:
    """Whether all numbers are finite and no list has a null element."""
    if pa.types.is_floating(column.type):
        return bool(pc.all(pc.is_finite(column), min_count=0).as_py())
    return not pa.types.is_list(column.type) or not column.flatten().null_count


def _instants(name: str, column: pa.Array, first: int) -> pa.Array:
    """Times in UTC; those that are finer than a microsecond or outside the years 1 to 9999 are refused."""
    wanted = Timestamp().arrow_type
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    naive = pa.types.is_date(column.type)
    cast = (column.cast(pa.timestamp("us"), safe=False) if naive else column).cast(wanted, safe=False)
    back = (cast.cast(pa.timestamp("us")) if naive else cast).cast(column.type, safe=False)
    inside = pc.and_(
        pc.greater_equal(cast, pa.scalar(_FIRST_INSTANT, wanted)), pc.less(cast, pa.scalar(_LAST_INSTANT, wanted))
    )
    good = pc.and_(pc.equal(back, column), inside).fill_null(True)
    row = pc.index(good, pa.scalar(False)).as_py()
    if row >= 0:
        raise SchemaMismatch(
            f"field {name!r} expects whole microseconds of the years 1 to 9999, found others in row {first + row}; "
            "round them"
        )
    return cast


def _parsed(name: str, column: pa.Array, first: int) -> list[Any]:
    """Values of a JSON column: text is parsed, structs and lists are taken as they are."""
    values: list[Any] = column.to_pylist()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return values
    out = []
    for row, text in enumerate(values, first):
        try:
            out.append(None if text is None else json.loads(text))
        except (ValueError, RecursionError):
            raise SchemaMismatch(f"field {name!r} expects JSON text, found {text!r:.60} in row {row}") from None
    return out
