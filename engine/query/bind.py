"""Filters checked against a schema, in a canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.query.ast import (
    And,
    Compare,
    Contains,
    Expression,
    In,
    IsNull,
    Node,
    Not,
    Or,
    StartsWith,
    Value,
    as_utc,
    from_json,
    to_sql,
)
from gingham.query.parse import parse
from gingham.schema import Bool, Float, Int, Json, Keyword, Text, Timestamp

if TYPE_CHECKING:
    from gingham.schema import Field, Schema

Where = str | Expression | Node | Mapping[str, Any] | None

_NODES = (Compare, In, IsNull, StartsWith, Contains, And, Or, Not)


def bind(where: Where, schema: Schema) -> Node | None:
    """Check a filter against a schema.

    Parameters
    ----------
    where : a string, an expression of ``F``, a node or its JSON form; None is no filter

    Returns
    -------
    Node or None : flattened and sorted, so that equal filters in another order are equal

    Raises
    ------
    FilterSyntaxError : a string is not in the grammar
    SchemaMismatch : a field is unknown or compared with a value of another type
    """
    node = filter_node(where)
    if node is None:
        return None
    try:
        return _bind(node, schema)
    except RecursionError:
        raise InvalidArgument("a filter expects fewer nested conditions; use IN for many values") from None


def filter_node(where: Where) -> Node | None:
    """The tree of a filter in any of its forms, not yet checked against a schema."""
    if where is None:
        return None
    if isinstance(where, str):
        return parse(where)
    if isinstance(where, Expression):
        return where.node
    if isinstance(where, _NODES):
        return where
    if isinstance(where, Mapping):
        return from_json(where)
    raise InvalidArgument(f"where= expects a filter string or an expression of F, found {where!r:.80}")


def _bind(node: Node, schema: Schema) -> Node:
    match node:
        case And(args):
            return _flat(And, [_bind(arg, schema) for arg in args])
        case Or(args):
            return _flat(Or, [_bind(arg, schema) for arg in args])
        case Not(arg):
            inner = _bind(arg, schema)
            return inner.arg if isinstance(inner, Not) else Not(inner)
        case Compare(name, op, value):
            field = _single(name, schema)
            if isinstance(field, Bool) and op not in ("==", "!="):
                raise SchemaMismatch(f"the bool field {name!r} expects = or !=, found {op}")
            return Compare(name, op, _value(name, field, value))
        case In(name, values):
            field = _single(name, schema)
            return In(name, _distinct(_value(name, field, value) for value in values))
        case IsNull(name):
            schema.field(name)
            return node
        case StartsWith(name, prefix):
            if not isinstance(_single(name, schema), (Keyword, Text)):
                raise SchemaMismatch(
                    f"LIKE expects a keyword or text field, found {_kind(schema.field(name))} {name!r}"
                )
            return StartsWith(name, _as_text(name, prefix))
        case Contains(name, values):
            field = schema.field(name)
            if not getattr(field, "many", False):
                raise SchemaMismatch(f"CONTAINS expects a field of lists, found {_kind(field)} {name!r}; use = or IN")
            return Contains(name, _distinct(_value(name, field, value) for value in values))


def _flat(kind: type[And | Or], args: list[Node]) -> Node:
    """Nested nodes of one kind joined, sorted, each once."""
    flat: dict[Node, None] = {}
    for arg in args:
        flat.update(dict.fromkeys(arg.args if isinstance(arg, kind) else (arg,)))
    if len(flat) == 1:
        return next(iter(flat))
    return kind(tuple(sorted(flat, key=to_sql)))


def _single(name: str, schema: Schema) -> Field:
    field = schema.field(name)
    if isinstance(field, Json):
        raise SchemaMismatch(f"the JSON field {name!r} is stored only; filter by a field of another type")
    if getattr(field, "many", False):
        raise SchemaMismatch(
            f"the field {name!r} holds lists; write {name} CONTAINS value, or F.{name}.contains(value)"
        )
    return field


def _distinct(values: Any) -> tuple[Value, ...]:
    return tuple(sorted(set(values)))


def _value(name: str, field: Field, value: Value) -> Value:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(field, (Int, Float)) and is_number:
        if value != value:
            raise SchemaMismatch(f"the field {name!r} expects a number, found NaN; use IS NULL")
        if isinstance(field, Float):
            return _as_float(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(field, Bool) and isinstance(value, bool):
        return value
    if isinstance(field, (Keyword, Text)) and isinstance(value, str):
        return _as_text(name, value)
    if isinstance(field, Timestamp):
        if isinstance(value, str):
            value = _as_time(name, value)
        if isinstance(value, datetime):
            return as_utc(value)
    raise SchemaMismatch(f"the {_kind(field)} field {name!r} expects a value of its type, found {value!r:.80}")


def _as_float(value: Any) -> float:
    try:
        return float(value) + 0.0  # -0.0 becomes 0.0, so that filters of equal meaning are equal
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _as_text(name: str, text: Any) -> str:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise SchemaMismatch(f"the field {name!r} expects text that UTF-8 can hold, found {text!r:.80}") from None
    return str(text)


def _as_time(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SchemaMismatch(f"the timestamp field {name!r} expects ISO 8601 text, found {text!r:.80}") from None


def _kind(field: Field) -> str:
    return type(field).__name__.lower()
