"""Filters of Haystack as filters of Gingham."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.clients.rag.documents import DOCUMENT_ID
from gingham.clients.rag.metadata import FALSE, Key
from gingham.errors import InvalidArgument
from gingham.query.ast import And, Node, Not, Or

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.query.ast import Operator

_ORDER: dict[str, Operator] = {">": ">", ">=": ">=", "<": "<", "<=": "<="}
_UNFILTERED = ("blob", "score", "embedding", "sparse_embedding", "meta")


def haystack_filter(given: Mapping[str, Any] | None, *, text_field: str = "text") -> Node | None:
    """A filter dict of Haystack as a filter of Gingham.

    Parameters
    ----------
    given : comparisons (``field``, ``operator``, ``value``) and ``AND``, ``OR``, ``NOT`` of ``conditions``
    text_field : field of the collection that has the content

    Raises
    ------
    InvalidArgument : a malformed filter, or a field or value that has no counterpart

    Notes
    -----
    Fields are ``meta.KEY``, ``content`` and ``id``. Text is ordered, and also equal, as the ISO 8601 date or time that
    it names, in UTC where it names no zone. ``NOT`` of several conditions means that not all of them hold.
    """
    return _node(given, text_field) if given else None


def _node(given: Any, text_field: str) -> Node:
    if not isinstance(given, dict):
        raise InvalidArgument(f"a filter of Haystack expects dicts, found {type(given).__name__} {given!r:.60}")
    if "field" in given:
        return _comparison(given, text_field)
    op, conditions = given.get("operator"), given.get("conditions")
    if op not in ("AND", "OR", "NOT") or not isinstance(conditions, list):
        raise InvalidArgument(
            "a filter of Haystack expects field, operator and value, or AND, OR or NOT as operator with a list of "
            f"conditions, found {given!r:.120}"
        )
    nodes = tuple(_node(condition, text_field) for condition in conditions)
    return Or(nodes) if op == "OR" else And(nodes) if op == "AND" else Not(And(nodes))


def _comparison(given: dict[str, Any], text_field: str) -> Node:
    if "operator" not in given or "value" not in given:
        raise InvalidArgument(f"a comparison of Haystack expects field, operator and value, found {given!r:.120}")
    key, op, value = _key(given["field"], text_field), given["operator"], given["value"]
    if op in ("==", "!="):
        node = key.equals(value, as_time=True)
        return node if op == "==" else Not(node)
    if op in _ORDER:
        return FALSE if value is None else key.compare(_ORDER[op], value, as_time=True)
    if op in ("in", "not in") and isinstance(value, list):
        node = key.is_in(value, as_time=True)
        return node if op == "in" else Not(node)
    raise InvalidArgument(
        "a comparison of Haystack expects ==, !=, >, >=, <, <=, or in and not in with a list, "
        f"found {op!r:.60} {value!r:.60} of {given['field']!r:.60}"
    )


def _key(field: Any, text_field: str) -> Key:
    if field == "content":
        return Key("content", text_field)
    if field == "id":
        return Key("id", DOCUMENT_ID)
    if not isinstance(field, str) or field in _UNFILTERED:
        raise InvalidArgument(f"a filter of Haystack expects meta.KEY, content or id as field, found {field!r:.60}")
    return Key(field.removeprefix("meta."))
