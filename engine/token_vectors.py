"""Token matrices as users write them, as Arrow columns, and as queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.codecs.pooling import pool_tokens
from gingham.columns import plain
from gingham.errors import DimensionMismatch, InvalidArgument, SchemaMismatch
from gingham.parallel import run_blocks
from gingham.schema import Tokens
from gingham.token_arrays import token_arrays
from gingham.types import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]


class GivenTokens(Tokens, frozen=True, tag="given"):
    """Tokens that are checked here and scaled and pooled elsewhere: their columns are float32."""


POOLED_ROWS = 16
"""Rows pooled by a thread at once."""
_MOST = float(np.finfo(np.float16).max)


def tokens_column(name: str, values: Any, kind: Tokens, n: int, first: int = 0) -> pa.Array:
    """Token matrices as an Arrow column, pooled as the field says.

    Parameters
    ----------
    values : n array-likes of shape (tokens, dim), None where a row has none; or an Arrow column of lists of lists
    first : number of row 0 in messages

    Raises
    ------
    SchemaMismatch : something else, the row is named
    DimensionMismatch : tokens of another width
    InvalidArgument : another number of rows, no token, NaN or infinity; row and token are named
    """
    rows = _rows_of(plain(values) if hasattr(values, "to_pylist") else values)
    if len(rows) != n:
        raise InvalidArgument(f"vector {name!r} expects {n} rows, one for each id, found {len(rows)}")
    what = f"vector {name!r}"
    checked = [None if row is None else _matrix(what, row, kind, first + at) for at, row in enumerate(rows)]
    if isinstance(kind, GivenTokens):
        return token_column(checked, kind.dim, np.float32)
    stored = run_blocks(
        lambda start: [_stored(one, kind) for one in checked[start : start + POOLED_ROWS]],
        list(range(0, n, POOLED_ROWS)),
    )
    return token_column([one for block in stored for one in block], kind.dim)


def token_column(matrices: Sequence[Array | None], dim: int, dtype: Any = np.float16) -> pa.Array:
    """An Arrow column of matrices (tokens, dim)."""
    found = [one for one in matrices if one is not None]
    flat = np.concatenate([np.empty((0, dim), dtype), *found])
    counts = [0 if one is None else len(one) for one in matrices]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32))
    tokens = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
    return pa.ListArray.from_arrays(offsets, tokens, mask=pa.array([one is None for one in matrices], pa.bool_()))


def token_matrices(column: pa.Array, dim: int) -> list[Array | None]:
    """Copies of the matrices of a column, None where a row has none."""
    flat, starts = token_arrays(column, dim)
    return [
        flat[a:b].copy() if valid else None
        for a, b, valid in zip(starts[:-1], starts[1:], column.is_valid().to_pylist(), strict=True)
    ]


def tokens_query(value: Any, kind: Tokens) -> Array:
    """Tokens float32 (n, dim) of a query, of length one under cosine; raises like :func:`tokens_column`."""
    return _scaled(_matrix("a query of tokens", value, kind, 0), kind)


def tokens_queries(value: Any, kind: Tokens) -> tuple[list[Array], bool]:
    """One query (n, dim), or a sequence of such, checked, and whether it was one."""
    several = isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(value[0]) > 1
    if several or (isinstance(value, np.ndarray) and value.ndim == 3):
        return [tokens_query(one, kind) for one in value], False
    return [tokens_query(value, kind)], True


def _rows_of(values: Any) -> Sequence[Any]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        listed: list[Any] = values.to_pylist()
        return listed
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        raise SchemaMismatch(f"a column of tokens expects a sequence of matrices, found {type(values).__name__}")
    return list(values)


def _matrix(what: str, value: Any, kind: Tokens, row: int) -> Array:
    """Checked tokens float32 (n, dim)."""
    try:
        matrix = np.asarray(value)
        if matrix.dtype.kind not in "iuf":
            matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise SchemaMismatch(
            f"{what} expects a matrix of numbers of {kind.dim} columns, found {shown(value)} in row {row}"
        ) from None
    if matrix.ndim == 1 and not len(matrix):
        matrix = matrix.reshape(0, kind.dim)
    if matrix.ndim != 2:
        raise SchemaMismatch(
            f"{what} expects a matrix (tokens, {kind.dim}), found {matrix.ndim} dimensions in row {row}; put a single "
            "token in a list"
        )
    if not len(matrix):
        raise InvalidArgument(
            f"{what} expects at least one token, found none in row {row}; give None for a row without"
        )
    if matrix.shape[1] != kind.dim:
        raise DimensionMismatch(f"{what} expects tokens of width {kind.dim}, found {matrix.shape[1]} in row {row}")
    with np.errstate(over="ignore"):
        tokens: Array = np.ascontiguousarray(matrix, np.float32)
    bad = ~np.isfinite(tokens).all(axis=1)
    if kind.metric == "dot":
        bad |= np.abs(tokens).max(axis=1) > _MOST
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InvalidArgument(
            f"{what} expects finite numbers that fit float16, found others in token {at} of row {row}"
        )
    return tokens


def _scaled(tokens: Array, kind: Tokens) -> Array:
    if kind.metric == "dot":
        return tokens
    lengths = np.linalg.norm(tokens.astype(np.float64), axis=1, keepdims=True)
    scaled: Array = np.divide(tokens, lengths, out=np.zeros(tokens.shape), where=lengths > 0).astype(np.float32)
    return scaled


def _stored(tokens: Array | None, kind: Tokens) -> Array | None:
    """Tokens float16 as they are stored."""
    if tokens is None:
        return None
    scaled = _scaled(tokens[: kind.max_tokens], kind)
    if kind.pool_factor != 1:
        scaled, _ = pool_tokens(
            scaled, factor=kind.pool_factor, protected=kind.protected, renormalize=kind.metric == "cosine"
        )
    return scaled.astype(np.float16)
