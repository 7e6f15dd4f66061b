"""The filter tree, and ``F`` that builds it from Python operators.

Nodes are frozen and hashable: a bound filter is a cache key. Expressions made with ``F`` wrap a node and are
not hashable, and refuse ``bool()``, because ``and``, ``or`` and ``not`` would silently drop half of a filter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NoReturn

import numpy as np

from gingham.errors import InvalidArgument
from gingham.query.values import Arithmetic, FieldValue, Recency, Truth, ValueExpression, ValueNode

Value = int | float | bool | str | datetime
Operator = Literal["==", "!=", "<", "<=", ">", ">="]

OPERATORS: tuple[Operator, ...] = ("==", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Compare:
    """``field op value``; null never compares."""

    field: str
    op: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of the values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field has no value."""

    field: str


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The text begins with a prefix; SQL ``LIKE 'prefix%'``."""

    field: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Contains:
    """The list holds at least one of the values; SQL ``field CONTAINS value``."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All hold; ``And(())`` is true."""

    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one holds; ``Or(())`` is false."""

    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Does not hold; the negation of null is null."""

    arg: Node


Node = Compare | In | IsNull | StartsWith | Contains | And | Or | Not


class Expression(Arithmetic):
    """A filter under construction; combine with ``&``, ``|`` and ``~``."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node) -> None:
        self.node = node

    def __and__(self, other: Expression) -> Expression:
        return Expression(_joined(And, self.node, _node(other)))

    def __or__(self, other: Expression) -> Expression:
        return Expression(_joined(Or, self.node, _node(other)))

    def __invert__(self) -> Expression:
        return Expression(Not(self.node))

    def __bool__(self) -> NoReturn:
        raise InvalidArgument("a filter has no truth value; combine filters with & | ~ instead of and, or, not")

    def _value(self) -> ValueNode:
        return Truth(self.node)

    def __repr__(self) -> str:
        return f"<filter {to_sql(self.node)}>"


class FieldRef(Arithmetic):
    """A payload field in a filter or a boost, such as ``F.year``."""

    __slots__ = ("_name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: object) -> Expression:
        return self._compare("<", value)

    def __le__(self, value: object) -> Expression:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Expression:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Expression:
        return self._compare(">=", value)

    def _compare(self, op: Operator, value: object) -> Expression:
        if value is None:
            raise InvalidArgument(f"null does not compare; write F.{self._name}.is_null() or .is_not_null()")
        return Expression(Compare(self._name, op, to_value(value)))

    def is_in(self, *values: object) -> Expression:
        """One of the values; takes them one by one or as one list."""
        return Expression(In(self._name, _values(values)))

    def is_null(self) -> Expression:
        """No value."""
        return Expression(IsNull(self._name))

    def is_not_null(self) -> Expression:
        """Some value."""
        return Expression(Not(IsNull(self._name)))

    def between(self, low: object, high: object) -> Expression:
        """From low to high, both included."""
        return self._compare(">=", low) & self._compare("<=", high)

    def startswith(self, prefix: str) -> Expression:
        """Text that begins with a prefix."""
        if not isinstance(prefix, str):
            raise InvalidArgument(f"startswith() expects text, found {prefix!r}")
        return Expression(StartsWith(self._name, prefix))

    def contains(self, *values: object) -> Expression:
        """A list that holds at least one of the values."""
        return Expression(Contains(self._name, _values(values)))

    def recency(self, *, half_life: timedelta, origin: datetime | None = None) -> ValueExpression:
        """1 for an instant at ``origin`` (default now) or after it, halved for every ``half_life`` before it."""
        seconds = half_life.total_seconds() if isinstance(half_life, timedelta) else 0.0
        if seconds <= 0:
            raise InvalidArgument(f"recency(half_life=) expects a timedelta above 0, found {half_life!r}")
        instant = None if origin is None else to_value(origin)
        if instant is not None and not isinstance(instant, datetime):
            raise InvalidArgument(f"recency(origin=) expects a datetime, found {origin!r}")
        return ValueExpression(Recency(self._name, seconds, instant))

    def _value(self) -> ValueNode:
        return FieldValue(self._name)

    def __bool__(self) -> NoReturn:
        raise InvalidArgument(f"F.{self._name} has no truth value; compare it, as in F.{self._name} == 1")

    def __repr__(self) -> str:
        return f"F.{self._name}"


class _FieldFactory:
    """Makes field references: ``F.year`` or ``F["year"]``."""

    def __getattr__(self, name: str) -> FieldRef:
        if name.startswith("__"):
            raise AttributeError(name)
        return FieldRef(name)

    def __getitem__(self, name: str) -> FieldRef:
        return FieldRef(name)

    def __repr__(self) -> str:
        return "F"


F = _FieldFactory()


def to_value(value: object) -> Value:
    """A value as the tree holds it: NumPy and Arrow scalars become Python's, dates and naive datetimes UTC.

    Raises
    ------
    InvalidArgument : NaN, NaT, an instant outside the years 1 to 9999, or another type
    """
    if value is not None and hasattr(value, "as_py"):
        value = value.as_py()
    if isinstance(value, np.datetime64) and not np.isnat(value):
        value = value.astype("datetime64[us]").item()
    elif isinstance(value, np.generic):
        value = value.item()
    if type(value).__name__ in ("NaTType", "NAType") or value != value:
        raise InvalidArgument(
            f"a filter value expects a value that compares, found {value!r}; use IS NULL or is_null()"
        )
    if isinstance(value, datetime):
        return as_utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise InvalidArgument(f"a filter value expects a number, text, bool or datetime, found {value!r:.80}")


def as_utc(value: datetime) -> datetime:
    """An instant in UTC, naive ones taken as such; raises InvalidArgument outside the years 1 to 9999."""
    try:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidArgument(f"an instant expects the years 1 to 9999 in UTC, found {value!s}") from None
    if getattr(value, "nanosecond", 0):
        raise InvalidArgument(f"an instant expects whole microseconds, found {value!s}; round it")
    # Of a subclass such as pandas' a plain datetime, which prints as the grammar reads it.
    return datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, UTC
    )  # fmt: skip


def _values(values: tuple[object, ...]) -> tuple[Value, ...]:
    if len(values) == 1 and isinstance(values[0], Iterable) and not isinstance(values[0], (str, bytes, FieldRef)):
        values = tuple(values[0])
    return tuple(to_value(value) for value in values)


def _node(other: object) -> Node:
    if isinstance(other, Expression):
        return other.node
    raise InvalidArgument(f"a filter combines with another filter, found {other!r:.80}; add parentheses around it")


def _joined(kind: type[And | Or], left: Node, right: Node) -> Node:
    """Both in one node of a kind: a tree of many filters stays flat, where Python's stack would not hold it."""
    args = [arg for node in (left, right) for arg in (node.args if isinstance(node, kind) else (node,))]
    return kind(tuple(args))


def fields_of(node: Node) -> set[str]:
    """Names of the fields that a filter reads."""
    match node:
        case And(args) | Or(args):
            return set().union(*(fields_of(arg) for arg in args))
        case Not(arg):
            return fields_of(arg)
    return {node.field}


def to_sql(node: Node) -> str:
    """The filter as a string that :func:`gingham.query.parse.parse` reads back."""
    match node:
        case Compare(field, op, value):
            return f"{_quoted(field)} {'=' if op == '==' else op} {_literal(value)}"
        case In(field, values):
            return f"{_quoted(field)} IN ({', '.join(map(_literal, values))})"
        case IsNull(field):
            return f"{_quoted(field)} IS NULL"
        case StartsWith(field, prefix):
            return f"{_quoted(field)} LIKE {_literal(_escape(prefix) + '%')}"
        case Contains(field, values):
            return f"{_quoted(field)} CONTAINS ({', '.join(map(_literal, values))})"
        case And(args):
            return " AND ".join(f"({to_sql(arg)})" for arg in args) or "TRUE"
        case Or(args):
            return " OR ".join(f"({to_sql(arg)})" for arg in args) or "FALSE"
        case Not(arg):
            return f"NOT ({to_sql(arg)})"


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def _escape(prefix: str) -> str:
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat()}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float):
        # The grammar has no word for infinity: a number beyond float64 is read as it.
        return repr(float(value)).replace("inf", "1e999")
    return repr(value)


def to_json(node: Node) -> dict[str, Any]:
    """The filter as plain JSON values; :func:`from_json` inverts it."""
    match node:
        case Compare(field, op, value):
            return {"op": op, "field": field, "value": _plain(value)}
        case In(field, values):
            return {"op": "in", "field": field, "values": [_plain(v) for v in values]}
        case Contains(field, values):
            return {"op": "contains", "field": field, "values": [_plain(v) for v in values]}
        case IsNull(field):
            return {"op": "is_null", "field": field}
        case StartsWith(field, prefix):
            return {"op": "starts_with", "field": field, "value": prefix}
        case And(args):
            return {"op": "and", "args": [to_json(arg) for arg in args]}
        case Or(args):
            return {"op": "or", "args": [to_json(arg) for arg in args]}
        case Not(arg):
            return {"op": "not", "args": [to_json(arg)]}


def from_json(value: object) -> Node:
    """Invert :func:`to_json`; raises InvalidArgument."""
    try:
        return _from_json(value)
    except RecursionError:
        raise InvalidArgument("a JSON filter expects fewer nested conditions; use in for many values") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"a JSON filter expects what to_json() makes, found {value!r:.120}") from error


def _from_json(value: Any) -> Node:
    op = value["op"]
    if op in OPERATORS:
        return Compare(str(value["field"]), op, _value(value["value"]))
    if op == "in":
        return In(str(value["field"]), tuple(_value(v) for v in value["values"]))
    if op == "contains":
        return Contains(str(value["field"]), tuple(_value(v) for v in value["values"]))
    if op == "is_null":
        return IsNull(str(value["field"]))
    if op == "starts_with":
        return StartsWith(str(value["field"]), str(value["value"]))
    args = tuple(_from_json(arg) for arg in value["args"])
    if op == "not":
        (arg,) = args
        return Not(arg)
    if op not in ("and", "or"):
        raise ValueError(op)
    return And(args) if op == "and" else Or(args)


def _plain(value: Value) -> Any:
    return {"timestamp": value.isoformat()} if isinstance(value, datetime) else value


def _value(value: Any) -> Value:
    return to_value(datetime.fromisoformat(value["timestamp"]) if isinstance(value, dict) else value)
