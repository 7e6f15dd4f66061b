"""Filters over Arrow columns, in SQL's three-valued logic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham.query.ast import And, Compare, Contains, In, IsNull, Node, Not, Or, StartsWith

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.query.ast import Operator, Value

_INT64 = range(-(1 << 63), 1 << 63)
_COMPARE: dict[Operator, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def evaluate(node: Node, column: Callable[[str], pa.Array], n_rows: int) -> np.ndarray[Any, Any]:
    """Evaluate a bound filter.

    Parameters
    ----------
    column : gives the Arrow column of a field, of length ``n_rows``
    n_rows : number of rows

    Returns
    -------
    bool array of shape (n_rows,), true where the filter is true; null counts as not true

    Notes
    -----
    A dictionary-encoded column is compared once per distinct value and mapped through its indices.
    """
    mask = _evaluate(node, column, n_rows)
    if mask.null_count:
        mask = mask.fill_null(False)
    out: np.ndarray[Any, Any] = mask.to_numpy(zero_copy_only=False)
    return out


def _evaluate(node: Node, column: Callable[[str], pa.Array], n: int) -> pa.BooleanArray:
    match node:
        case And(args):
            return _fold(pc.and_kleene, [_evaluate(arg, column, n) for arg in args], True, n)
        case Or(args):
            return _fold(pc.or_kleene, [_evaluate(arg, column, n) for arg in args], False, n)
        case Not(arg):
            return pc.invert(_evaluate(arg, column, n))
        case IsNull(name):
            return pc.is_null(column(name))
        case Compare(name, op, value):
            return _by_value(column(name), lambda values: _compare(values, op, value))
        case In(name, values):
            return _by_value(column(name), lambda known: _is_in(known, values))
        case StartsWith(name, prefix):
            return _by_value(column(name), lambda values: pc.starts_with(values, prefix))
        case Contains(name, values):
            return _contains(column(name), values)


def _fold(join: Callable[..., Any], masks: list[pa.BooleanArray], empty: bool, n: int) -> pa.BooleanArray:
    if not masks:
        return pa.array(np.full(n, empty))
    out = masks[0]
    for mask in masks[1:]:
        out = join(out, mask)
    return out


def _by_value(column: pa.Array, test: Callable[[pa.Array], pa.BooleanArray]) -> pa.BooleanArray:
    if not isinstance(column, pa.DictionaryArray):
        return test(column)
    table = test(column.dictionary).to_numpy(zero_copy_only=False)
    indices = column.indices
    if indices.null_count:
        known = indices.fill_null(0).to_numpy()
        missing = indices.is_null().to_numpy(zero_copy_only=False)
        hits = table[known] if len(table) else np.zeros(len(known), np.bool_)
        return pa.array(hits, mask=missing)
    return pa.array(table[indices.to_numpy()])


def _compare(column: pa.Array, op: Operator, value: Value) -> pa.BooleanArray:
    if pa.types.is_integer(column.type) and not isinstance(value, bool):
        return _compare_int(column, op, value)
    return _COMPARE[op](column, pa.scalar(value, column.type))


def _compare_int(column: pa.Array, op: Operator, value: Any) -> pa.BooleanArray:
    """Compare int64 with any real number exactly."""
    whole = isinstance(value, int)
    if whole and value in _INT64:
        return _COMPARE[op](column, pa.scalar(value, column.type))
    if op in ("==", "!="):
        return _constant(column, op == "!=")
    if not whole and math.isfinite(value):
        floor = math.floor(value)
        return _compare_int(column, "<=" if op in ("<", "<=") else ">", floor)
    return _constant(column, (value > 0) == (op in ("<", "<=")))


def _constant(column: pa.Array, value: bool) -> pa.BooleanArray:
    """One truth value where the column has a value, null elsewhere."""
    return pc.if_else(pc.is_valid(column), pa.scalar(value), pa.scalar(None, pa.bool_()))


def _is_in(column: pa.Array, values: tuple[Value, ...]) -> pa.BooleanArray:
    kind = column.type
    if pa.types.is_integer(kind):
        values = tuple(v for v in values if isinstance(v, int) and v in _INT64)
    if pa.types.is_floating(kind) and 0.0 in values:
        values = (*values, -0.0)  # equal as numbers, two keys to a hash set
    hits = pc.is_in(column, value_set=pa.array(values, kind))
    return pc.if_else(pc.is_valid(column), hits, pa.scalar(None, pa.bool_()))


def _contains(column: pa.ListArray, values: tuple[Value, ...]) -> pa.BooleanArray:
    """Whether each list holds one of the values; null for a null list."""
    flat = column.flatten()
    hits = _is_in(flat, values).fill_null(False).to_numpy(zero_copy_only=False)
    totals = np.concatenate([[0], np.cumsum(hits)])
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    ends = np.cumsum(lengths)
    found = totals[ends] > totals[ends - lengths]
    return pa.array(found, mask=column.is_null().to_numpy(zero_copy_only=False))
