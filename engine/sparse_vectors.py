"""Sparse vectors as users write them, as Arrow columns and as query terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.columns import MAX_SQUARE, plain
from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.schema import Sparse
from gingham.types import shown

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MAX_DIMENSION = (1 << 32) - 1


def sparse_column(name: str, values: Any, n: int, first: int = 0) -> pa.Array:
    """Sparse vectors as an Arrow column.

    Parameters
    ----------
    values : n vectors as :class:`gingham.Sparse` takes them, None where a row has none; a SciPy sparse matrix of
        n rows; or an Arrow column as ``scan`` returns it
    first : number of row 0 in messages

    Raises
    ------
    SchemaMismatch : something else, the row is named
    InvalidArgument : another number of rows, a dimension or weight out of range, a dimension twice
    """
    rows = _rows_of(values if hasattr(values, "tocsr") else plain(values))
    if len(rows) != n:
        raise InvalidArgument(f"vector {name!r} expects {n} rows, one for each id, found {len(rows)}")
    dimensions, weights, counts = [], [], np.zeros(n, np.int64)
    for number, row in enumerate(rows):
        if row is not None:
            found, weight = _pair(f"vector {name!r}", row, first + number)
            dimensions.append(found)
            weights.append(weight)
            counts[number] = len(found)
    struct = pa.StructArray.from_arrays(
        [
            pa.array(np.concatenate(dimensions) if dimensions else np.empty(0, np.uint32), pa.uint32()),
            pa.array(np.concatenate(weights) if weights else np.empty(0, np.float32), pa.float32()),
        ],
        names=["index", "weight"],
    )
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    missing = pa.array([row is None for row in rows])
    return pa.ListArray.from_arrays(pa.array(offsets), struct, mask=missing).cast(Sparse().arrow_type)


def _rows_of(values: Any) -> Sequence[Any]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        listed: list[Any] = values.to_pylist()
        return listed
    if hasattr(values, "tocsr"):
        matrix = values.tocsr()
        spans = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        return [(matrix.indices[a:b], matrix.data[a:b]) for a, b in spans]
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        raise SchemaMismatch(f"a column of sparse vectors expects a sequence, found {type(values).__name__}")
    return list(values)


def _pair(what: str, value: Any, row: int) -> tuple[Array, Array]:
    """Ascending uint32 dimensions and float32 weights of one vector."""
    dimensions, weights = _parts(what, value, row)
    if dimensions.shape != weights.shape or dimensions.ndim != 1:
        raise InvalidArgument(
            f"{what} expects as many weights as dimensions, found {weights.shape} and {dimensions.shape} in row {row}"
        )
    if len(dimensions) and (dimensions.min() < 0 or dimensions.max() > MAX_DIMENSION):
        raise InvalidArgument(f"{what} expects dimensions from 0 to {MAX_DIMENSION}, found others in row {row}")
    order = np.argsort(dimensions, kind="stable")
    dimensions = dimensions[order].astype(np.uint32)
    with np.errstate(over="ignore"):
        weights = weights[order].astype(np.float32)
    if np.any(dimensions[1:] == dimensions[:-1]):
        raise InvalidArgument(f"{what} expects each dimension once, found one twice in row {row}")
    if not (np.isfinite(weights).all() and np.all(weights >= 0)):
        raise InvalidArgument(f"{what} expects finite weights above 0, found others in row {row}")
    if np.square(weights, dtype=np.float64).sum() > MAX_SQUARE:
        raise InvalidArgument(f"{what} expects a length up to 6.5e18, found a greater one in row {row}")
    return dimensions[weights > 0], weights[weights > 0]


def _parts(what: str, value: Any, row: int) -> tuple[Array, Array]:
    try:
        if isinstance(value, Mapping):
            found: tuple[Any, Any] = (list(value.keys()), list(value.values()))
        elif hasattr(value, "indices") and hasattr(value, "values"):
            found = (value.indices, value.values)
        elif hasattr(value, "indices") and hasattr(value, "data"):
            found = (value.indices, value.data)
        elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
            found = ([entry["index"] for entry in value], [entry["weight"] for entry in value])
        else:
            first, second = value
            found = (first, second)
        arrays = np.asarray(found[0]), np.asarray(found[1])
    except (TypeError, ValueError, KeyError):
        arrays = np.empty(0, object), np.empty(0, object)
    numbers = [a if len(a) else a.astype(np.int64) for a in (np.atleast_1d(a) for a in arrays)]
    if arrays[0].dtype == object or numbers[0].dtype.kind not in "iu" or numbers[1].dtype.kind not in "iuf":
        raise SchemaMismatch(
            f"{what} expects a dict of dimension to weight or (dimensions, weights), found {shown(value)} in row {row}"
        )
    return numbers[0], numbers[1]


def sparse_query(value: Any) -> tuple[Array, Array]:
    """Dimensions as uint64 and weights as float32 of a query; raises like :func:`sparse_column`."""
    dimensions, weights = _pair("a sparse query", value, 0)
    return dimensions.astype(np.uint64), weights


def sparse_dict(entries: list[dict[str, Any]] | None) -> dict[int, float] | None:
    """A stored vector as a dict of dimension to weight."""
    return None if entries is None else {entry["index"]: entry["weight"] for entry in entries}
