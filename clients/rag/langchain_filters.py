"""Filters of LangChain as filters of Gingham: dicts with operators, and structured queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gingham.clients.rag.metadata import Key
from gingham.errors import InvalidArgument
from gingham.query.ast import And, Node, Not, Or
from gingham.query.bind import filter_node

if TYPE_CHECKING:
    from gingham.query.ast import Operator

_ORDER: dict[str, Operator] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def langchain_filter(given: Any) -> Node | None:
    """A filter of LangChain as one of Gingham.

    Parameters
    ----------
    given : a dict such as ``{"year": {"$gte": 2020}, "lang": "en"}`` with ``$eq $ne $gt $gte $lt $lte $in $nin
        $contains $exists $like`` below a key and ``$and $or $not`` above them; a comparison or operation of
        ``langchain_core.structured_query``; a filter of Gingham, which passes; or None

    Raises
    ------
    InvalidArgument : an operator or value that has no counterpart

    Notes
    -----
    A row without the key meets ``$ne``, ``$nin`` and None alone. ``$contains`` finds an element of a list; ``$like``
    takes text with one ``%`` at its end. Text is ordered by code points, and a date of a structured query by time.
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    if isinstance(given, Mapping):
        return _group(given)
    if hasattr(given, "comparator"):
        return _condition(Key(given.attribute), given.comparator.value, given.value)
    if hasattr(given, "operator") and hasattr(given, "arguments"):
        return _joined(given.operator.value, [_needed(argument) for argument in given.arguments])
    return filter_node(given)


def _needed(given: Any) -> Node:
    node = langchain_filter(given)
    return And(()) if node is None else node


def _group(given: Mapping[str, Any]) -> Node:
    nodes: list[Node] = []
    for name, value in given.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"a filter dict expects keys of the metadata or operators, found {name!r:.60}")
        if name in ("$and", "$or", "$not"):
            several = value if isinstance(value, (list, tuple)) else [value]
            nodes.append(_joined(name[1:], [_needed(one) for one in several]))
        elif name.startswith("$"):
            raise InvalidArgument(f"a filter dict expects $and, $or, $not or a key of the metadata, found {name!r:.60}")
        elif isinstance(value, Mapping):
            nodes.append(And(tuple(_condition(Key(name), _operator(op), limit) for op, limit in value.items())))
        else:
            nodes.append(Key(name).equals(value))
    return nodes[0] if len(nodes) == 1 else And(tuple(nodes))


def _operator(op: object) -> str:
    if isinstance(op, str) and op.startswith("$"):
        return op[1:]
    raise InvalidArgument(
        f"below a key a filter dict expects operators such as $eq, found {op!r:.60}; write a.b for nested"
    )


def _joined(op: str, nodes: list[Node]) -> Node:
    if op == "not":
        return Not(Or(tuple(nodes)) if len(nodes) > 1 else nodes[0])
    return And(tuple(nodes)) if op == "and" else Or(tuple(nodes))


def _condition(key: Key, op: str, value: Any) -> Node:
    as_time = isinstance(value, Mapping) and value.get("type") in ("date", "datetime")
    if as_time:
        value = value.get("date") or value.get("datetime")
    if op in _ORDER:
        return key.compare(_ORDER[op], value, as_time=as_time)
    if op in ("eq", "ne"):
        node = key.equals(value, as_time=as_time)
        return node if op == "eq" else Not(node)
    if op in ("in", "nin") and isinstance(value, (list, tuple, set, frozenset)):
        node = key.is_in(value)
        return node if op == "in" else Not(node)
    if op in ("contain", "contains"):
        return key.contains_any(value if isinstance(value, (list, tuple)) else [value])
    if op == "exists" and isinstance(value, bool):
        return key.present() if value else Not(key.present())
    if op == "like" and isinstance(value, str) and value.endswith("%") and not set("%_") & set(value[:-1]):
        return key.starts_with(value[:-1])
    raise InvalidArgument(
        "a filter of LangChain expects eq, ne, gt, gte, lt, lte, in and nin with a list, contains, exists with a bool "
        f"or like with 'prefix%', found {op} {value!r:.60} of the key {key.name!r}"
    )
