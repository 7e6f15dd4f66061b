"""Metadata filters of LlamaIndex as filters of Gingham."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.clients.rag.metadata import FALSE, TRUE, Key
from gingham.errors import InvalidArgument
from gingham.query.ast import And, Node, Not, Or

if TYPE_CHECKING:
    from gingham.query.ast import Operator

_ORDER: dict[str, Operator] = {">": ">", ">=": ">=", "<": "<", "<=": "<="}


def llama_index_filter(given: Any) -> Node | None:
    """``MetadataFilters`` of LlamaIndex as a filter of Gingham; they may be nested.

    Raises
    ------
    InvalidArgument : ``text_match``, which searches inside words, or a value that has no counterpart

    Notes
    -----
    A node without the key meets ``!=``, ``nin`` and ``is_empty`` alone. ``contains``, ``any`` and ``all`` read lists.
    Several filters under ``not`` mean that none of them holds.
    """
    if given is None or not given.filters:
        return None
    nodes = [_one(each) for each in given.filters]
    condition = getattr(given.condition, "value", given.condition) or "and"
    if condition == "not":
        return Not(Or(tuple(nodes)))
    return Or(tuple(nodes)) if condition == "or" else And(tuple(nodes))


def _one(given: Any) -> Node:
    if hasattr(given, "filters"):
        node = llama_index_filter(given)
        return TRUE if node is None else node
    key, op, value = Key(given.key), getattr(given.operator, "value", given.operator), given.value
    if op == "is_empty":
        return key.empty()
    if op in ("==", "!="):
        node = FALSE if value is None else key.equals(value)
        return node if op == "==" else Not(node)
    if op in _ORDER:
        return key.compare(_ORDER[op], value)
    if op == "contains":
        return key.contains_any([value])
    if not isinstance(value, list) or op not in ("in", "nin", "any", "all"):
        raise InvalidArgument(
            "a filter of LlamaIndex expects ==, !=, >, >=, <, <=, contains, is_empty, or a list for in, nin, any and "
            f"all, found {op} {value!r:.60} of the key {given.key!r}; search words with mode='text_search'"
        )
    if op in ("in", "nin"):
        node = key.is_in(value)
        return node if op == "in" else Not(node)
    if op == "any":
        return key.contains_any(value)
    return And(tuple(key.contains_any([one]) for one in value)) if value else key.present()
