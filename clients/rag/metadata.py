"""Metadata of any shape as typed columns, and conditions on its keys as filters.

A key has a column for each type of value that was seen under it: ``year`` has ``year__int``, and ``year__str`` too
where a row has text there. A path of nested dicts is a key with dots in it. Lists are columns of lists.
``metadata_keys`` holds the keys of a row, those with dots too, whatever their values are. Conditions are true or false
of every row, never unknown: a row without the key meets no comparison, and so meets its negation.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from gingham.errors import InvalidArgument
from gingham.query.ast import And, Compare, Contains, In, IsNull, Node, Not, Or, StartsWith
from gingham.schema import Bool, Float, Int, Keyword, Text, Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gingham.query.ast import Operator, Value
    from gingham.schema import Field, Schema

Kind = Literal["str", "int", "float", "bool", "time", "strs", "ints"]

KEYS = "metadata_keys"
"""Column of the keys that a row has, and of those whose value is empty with a mark behind them."""
EMPTY_MARK = "\x1fempty"
TRUE, FALSE = And(()), Or(())

FIELDS: dict[Kind, Field] = {
    "str": Keyword(), "int": Int(), "float": Float(), "bool": Bool(), "time": Timestamp(), "strs": Keyword(many=True),
    "ints": Int(many=True),
}  # fmt: skip
_PLAIN = re.compile(r"(?!key_)[A-Za-z_][A-Za-z0-9_]{0,55}\Z")
_INT64 = range(-(1 << 63), 1 << 63)
_SAME: dict[Kind, tuple[type, ...]] = {
    "str": (Keyword, Text), "int": (Int, Float), "float": (Int, Float), "bool": (Bool,), "time": (Timestamp,),
    "strs": (Keyword,), "ints": (Int,),
}  # fmt: skip
"""Types of fields that a collection may have had before, under the key itself, for each kind."""


def column_name(key: str, kind: Kind) -> str:
    """Column of the values of a kind under a key: ``key__kind``, or a digest where the key is no short identifier."""
    plain = key if _PLAIN.match(key) else f"key_{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return f"{plain}__{kind}"


def field_of(column: str) -> Field | None:
    """Type of a column that :func:`column_name` made; None for other fields."""
    return FIELDS.get(cast("Kind", column.rpartition("__")[2])) if "__" in column else None


def columns_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the columns of one row.

    Parameters
    ----------
    metadata : keys and JSON values

    Returns
    -------
    dict : column names and values, among them ``metadata_keys``; None, and elements of lists that are neither text nor
        whole numbers, have no column

    Raises
    ------
    InvalidArgument : a key is no text
    """
    keys: list[str] = []
    out: dict[str, Any] = {KEYS: keys}
    for key, value in _leaves(metadata, ""):
        keys.append(key)
        if isinstance(value, (list, tuple)):
            for kind, element in (("strs", str), ("ints", int)):
                chosen = [one for one in value if isinstance(one, element) and _is_stored(one)]
                if chosen:
                    out[column_name(key, cast("Kind", kind))] = chosen
        elif not isinstance(value, dict):
            out.update({column_name(key, kind): stored for kind, stored in _typed(value)})
        if value in ("", [], ()):
            keys.append(key + EMPTY_MARK)
    return out


def _leaves(metadata: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"metadata expects text as keys, found {name!r:.60}; convert it with str()")
        if value is not None:
            yield before + name, value
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")


def _is_stored(element: object) -> bool:
    return isinstance(element, str) or (isinstance(element, int) and type(element) is not bool and element in _INT64)


def _typed(value: object) -> list[tuple[Kind, Value]]:
    """Kinds and stored values of one value; text that is a date or time is both."""
    if isinstance(value, bool):
        return [("bool", value)]
    if isinstance(value, str):
        instant = as_instant(value)
        return [("str", value)] if instant is None else [("str", value), ("time", instant)]
    if isinstance(value, datetime):
        return [("time", value)]
    return _number(value) if isinstance(value, (int, float)) else []


def _number(value: float) -> list[tuple[Kind, Value]]:
    """Whole numbers of 64 bits are integers, also 2.0; others are the nearest float64."""
    if (isinstance(value, int) or value.is_integer()) and int(value) in _INT64:
        return [("int", int(value))]
    try:
        number = float(value)
    except OverflowError:
        return []
    return [("float", number)] if abs(number) < float("inf") else []


def as_instant(text: str) -> datetime | None:
    """The instant that ISO 8601 text with a whole date names, in UTC where it names no zone; else None."""
    if len(text) < 10 or text[4] != "-" or text[7] != "-":
        return None
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Key:
    """Conditions on a key of the metadata, or on a text field of the collection.

    Parameters
    ----------
    name : key, with dots for nested ones
    field : column in place of those of the metadata
    """

    name: str
    field: str | None = None

    def present(self) -> Node:
        """Rows that have a value there."""
        if self.field is not None:
            return Not(IsNull(self.field))
        return _known(KEYS, Contains(KEYS, (self.name,)))

    def empty(self) -> Node:
        """Rows without a value there, or with an empty text or list."""
        if self.field is not None:
            return Not(And((Not(IsNull(self.field)), Compare(self.field, "!=", ""))))
        return Or((Not(self.present()), _known(KEYS, Contains(KEYS, (self.name + EMPTY_MARK,)))))

    def equals(self, value: object, *, as_time: bool = False) -> Node:
        """Rows whose value is this one; for None those that have none.

        Parameters
        ----------
        as_time : whether a date or time also equals others that name the same instant
        """
        return self.is_in((value,), as_time=as_time)

    def is_in(self, values: Iterable[object], *, as_time: bool = False) -> Node:
        """Rows whose value is one of these."""
        found: list[Node] = []
        wanted: dict[Kind, list[Value]] = {}
        for value in values:
            if value is None:
                found.append(Not(self.present()))
                continue
            kinds = self._kinds(value)
            for kind, stored in kinds if as_time else kinds[:1]:
                wanted.setdefault(kind, []).append(stored)
        for kind, group in wanted.items():
            if kind == "bool":
                found += [self._of(kind, lambda name, one=one: Compare(name, "==", one)) for one in group]
            else:
                found.append(self._of(kind, lambda name, group=group: In(name, tuple(group))))
        return Or(tuple(found))

    def compare(self, op: Operator, value: object, *, as_time: bool = False) -> Node:
        """Rows whose value is less or greater; numbers with numbers, text with text, times with times.

        Parameters
        ----------
        as_time : whether text is compared as the date or time that it names
        """
        kinds = dict(self._kinds(value))
        if "bool" in kinds or (as_time and isinstance(value, str) and "time" not in kinds):
            raise InvalidArgument(
                f"{op} of the key {self.name!r} expects a number or an ISO 8601 date, found {value!r:.60}; use =="
            )
        if isinstance(value, (int, float)):
            compared: tuple[Kind, ...] = ("int", "float")
            limit: Value = value
        else:
            kind: Kind = "time" if "time" in kinds and (as_time or "str" not in kinds) else "str"
            compared, limit = (kind,), kinds[kind]
        return Or(tuple(self._of(kind, lambda name: Compare(name, op, limit)) for kind in compared))

    def contains_any(self, values: Iterable[object]) -> Node:
        """Rows whose list has one of these elements."""
        wanted: dict[Kind, list[Value]] = {}
        for value in values:
            kind = self._kinds(value)[0][0]
            if kind not in ("str", "int"):
                raise InvalidArgument(
                    f"a filter of lists under {self.name!r} expects text and whole numbers, found {value!r:.60}"
                )
            wanted.setdefault("strs" if kind == "str" else "ints", []).append(cast("Value", value))
        return Or(
            tuple(
                self._of(kind, lambda name, group=group: Contains(name, tuple(group))) for kind, group in wanted.items()
            )
        )

    def starts_with(self, prefix: str) -> Node:
        """Rows whose text begins with a prefix."""
        return self._of("str", lambda name: StartsWith(name, prefix))

    def _kinds(self, value: object) -> list[tuple[Kind, Value]]:
        kinds = _typed(value)
        if not kinds:
            raise InvalidArgument(
                f"a filter of the key {self.name!r} expects text, a finite number, a bool or a datetime, "
                f"found {type(value).__name__} {value!r:.60}"
            )
        return kinds

    def _of(self, kind: Kind, condition: Any) -> Node:
        if self.field is not None:
            return _known(self.field, condition(self.field)) if kind == "str" else FALSE
        name = column_name(self.name, kind)
        return _known(name, condition(name))


def _known(column: str, condition: Node) -> Node:
    """A condition that is false, not unknown, where the column has no value."""
    return And((Not(IsNull(column)), condition))


def for_schema(node: Node, schema: Schema, layout: frozenset[str]) -> Node:
    """A filter with the columns that a collection has.

    Parameters
    ----------
    node : made of conditions of :class:`Key`
    layout : fields that are no metadata

    Returns
    -------
    Node : a column that is not there is read as one without values, or as the field of the key itself where the
        collection was made with it
    """
    match node:
        case And((Not(IsNull(column)), Contains(_, (str(key),)))) if column == KEYS and key not in layout:
            kept = node if KEYS in schema.fields else FALSE
            return Or((kept, Not(IsNull(key)))) if key in schema.fields else kept
        case And(args):
            return And(tuple(for_schema(arg, schema, layout) for arg in args))
        case Or(args):
            return Or(tuple(for_schema(arg, schema, layout) for arg in args))
        case Not(arg):
            return Not(for_schema(arg, schema, layout))
    if node.field in schema.fields:
        return node
    key, _, kind = node.field.rpartition("__")
    field = None if key in layout else schema.fields.get(key)
    many = getattr(field, "many", False)
    if (
        field is not None
        and isinstance(field, _SAME.get(cast("Kind", kind), ()))
        and many == (kind in ("strs", "ints"))
    ):
        return type(node)(key, *(getattr(node, name) for name in node.__slots__[1:]))
    return TRUE if isinstance(node, IsNull) else FALSE
