"""Numbers computed from a row's fields, for boosts: ``0.1 * F.views.log1p() + F.date.recency(days=30)``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa

from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.schema import Bool, Float, Int, Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.query.ast import Node
    from gingham.schema import Schema

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A number, truth or instant in seconds of a field."""

    field: str


@dataclass(frozen=True, slots=True)
class Truth:
    """1 where a filter holds, 0 elsewhere."""

    node: Node


@dataclass(frozen=True, slots=True)
class Sum:
    """``left + right``."""

    left: ValueNode
    right: ValueNode


@dataclass(frozen=True, slots=True)
class Product:
    """``left * right``."""

    left: ValueNode
    right: ValueNode


@dataclass(frozen=True, slots=True)
class Log1p:
    """``ln(1 + arg)``; rows below 0 count as 0."""

    arg: ValueNode


@dataclass(frozen=True, slots=True)
class Recency:
    """``0.5 ** (age / half_life)`` of an instant, 1 at ``origin`` and after it."""

    field: str
    half_life: float
    origin: datetime | None


ValueNode = Number | FieldValue | Truth | Sum | Product | Log1p | Recency


class Arithmetic:
    """Operators that build a value; filters and field references have them too."""

    __slots__ = ()

    def _value(self) -> ValueNode:
        raise TypeError(type(self).__name__)

    def __add__(self, other: Arithmetic | float) -> ValueExpression:
        return ValueExpression(Sum(self._value(), _value_of(other)))

    def __radd__(self, other: float) -> ValueExpression:
        return ValueExpression(Sum(_value_of(other), self._value()))

    def __sub__(self, other: Arithmetic | float) -> ValueExpression:
        return ValueExpression(Sum(self._value(), Product(Number(-1.0), _value_of(other))))

    def __rsub__(self, other: float) -> ValueExpression:
        return ValueExpression(Sum(_value_of(other), Product(Number(-1.0), self._value())))

    def __mul__(self, other: Arithmetic | float) -> ValueExpression:
        return ValueExpression(Product(self._value(), _value_of(other)))

    def __rmul__(self, other: float) -> ValueExpression:
        return ValueExpression(Product(_value_of(other), self._value()))

    def __truediv__(self, other: float) -> ValueExpression:
        if isinstance(other, Arithmetic) or not other:
            raise InvalidArgument(f"a value is divided by a number that is not 0, found {other!r}")
        return ValueExpression(Product(self._value(), Number(1.0 / other)))

    def __neg__(self) -> ValueExpression:
        return ValueExpression(Product(Number(-1.0), self._value()))

    def log1p(self) -> ValueExpression:
        """``ln(1 + value)``: popularity that flattens; a value below 0 counts as 0."""
        return ValueExpression(Log1p(self._value()))


class ValueExpression(Arithmetic):
    """A value under construction."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: ValueNode) -> None:
        self.node = node

    def _value(self) -> ValueNode:
        return self.node

    def __bool__(self) -> NoReturn:
        raise InvalidArgument("a computed value has no truth value; give it to .boost()")

    def __repr__(self) -> str:
        return f"<value {self.node}>"


def _value_of(other: object) -> ValueNode:
    if isinstance(other, Arithmetic):
        return other._value()
    if isinstance(other, (int, float)) and not isinstance(other, bool) and math.isfinite(other):
        return Number(float(other))
    raise InvalidArgument(f"a value combines with finite numbers and fields, found {other!r:.80}")


def value_node(value: object) -> ValueNode:
    """The tree of what :meth:`boost` was given; raises InvalidArgument."""
    return _value_of(value)


def bind_value(node: ValueNode, schema: Schema, bind_filter: Callable[[Node, Schema], Node | None]) -> ValueNode:
    """Check a value against a schema; raises SchemaMismatch."""
    match node:
        case Number():
            return node
        case FieldValue(name):
            if not isinstance(schema.field(name), (Int, Float, Bool, Timestamp)) or _is_list(schema, name):
                raise SchemaMismatch(f"a boost expects fields of single numbers, truths or instants, found {name!r}")
            return node
        case Recency(name):
            if not isinstance(schema.field(name), Timestamp):
                raise SchemaMismatch(f"recency() expects a timestamp field, found {name!r}")
            return node
        case Truth(inner):
            bound = bind_filter(inner, schema)
            return Number(1.0) if bound is None else Truth(bound)
        case Log1p(arg):
            return Log1p(bind_value(arg, schema, bind_filter))
        case Sum(left, right):
            return Sum(bind_value(left, schema, bind_filter), bind_value(right, schema, bind_filter))
        case Product(left, right):
            return Product(bind_value(left, schema, bind_filter), bind_value(right, schema, bind_filter))


def _is_list(schema: Schema, name: str) -> bool:
    return bool(getattr(schema.field(name), "many", False))


def fields_of(node: ValueNode, filter_fields: Callable[[Node], set[str]]) -> set[str]:
    """Names of the fields that a value reads."""
    match node:
        case FieldValue(name) | Recency(name):
            return {name}
        case Truth(inner):
            return filter_fields(inner)
        case Log1p(arg):
            return fields_of(arg, filter_fields)
        case Sum(left, right) | Product(left, right):
            return fields_of(left, filter_fields) | fields_of(right, filter_fields)
    return set()


def evaluate_value(
    node: ValueNode, column: Callable[[str], pa.Array], mask: Callable[[Node], Array], n_rows: int
) -> Array:
    """Value of each row, float64 (n_rows,); NaN where a field that it needs is null."""
    match node:
        case Number(value):
            return np.full(n_rows, value)
        case Truth(inner):
            return mask(inner).astype(np.float64)
        case FieldValue(name):
            return _numbers(column(name))
        case Recency(name, half_life, origin):
            age = (origin or datetime.now(UTC)).timestamp() - _numbers(column(name))
            return np.exp2(-np.maximum(age, 0.0) / half_life)
        case Log1p(arg):
            return np.log1p(np.maximum(evaluate_value(arg, column, mask, n_rows), 0.0))
        case Sum(left, right):
            return evaluate_value(left, column, mask, n_rows) + evaluate_value(right, column, mask, n_rows)
        case Product(left, right):
            return evaluate_value(left, column, mask, n_rows) * evaluate_value(right, column, mask, n_rows)


def _numbers(column: pa.Array) -> Array:
    """A column as float64; instants in seconds; NaN for null."""
    scale = 1.0
    if pa.types.is_timestamp(column.type):
        column, scale = column.cast(pa.int64()), 1e-6
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    out: Array = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return out * scale
