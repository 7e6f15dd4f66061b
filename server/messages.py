"""How much a long message holds, counted before it is read: memory and time go with its fields more than its bytes."""

from __future__ import annotations

import functools
from typing import Any

from gingham.errors import InvalidArgument

SHORT_BYTES = 1 << 20
"""Shorter messages are read as they are."""
MOST_FIELDS = 1 << 21
"""Of a message, each of which takes up to 50 bytes once it is read, and 2 before."""
MOST_NAME_BYTES = 4096
"""Of a text that is not among the long ones; a name that is not there is compared with those that are."""
_LONG = frozenset(
    f"gingham.v1.{name}"
    for name in (
        "Texts.values", "MatchNode.text", "Passages.text", "Passages.passages", "Filter.expression", "Filter.json",
        "FuseNode.remarks",
    )
)  # fmt: skip
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def check_fields(raw: bytes, kind: Any) -> None:
    """Count the fields of a message, also in the messages within it.

    Parameters
    ----------
    kind : its descriptor

    Raises
    ------
    InvalidArgument : there are more than ``MOST_FIELDS``, a name is longer than ``MOST_NAME_BYTES``, or these are not
        the bytes of a message
    """
    if len(raw) <= SHORT_BYTES:
        return
    try:
        _count(raw, kind)
    except IndexError:
        raise InvalidArgument(f"a message expects whole fields, found {len(raw)} bytes that end within one") from None


def _count(raw: bytes, kind: Any) -> None:
    left, waiting = MOST_FIELDS, [(0, len(raw), _table(kind))]
    while waiting:
        at, end, table = waiting.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise _too_many()
            tag = raw[at]
            at += 1
            if tag >= 0x80:
                tag, at = _number(raw, at - 1)
            if tag & 7 == _BYTES:
                length = raw[at]
                at += 1
                if length >= 0x80:
                    length, at = _number(raw, at - 1)
                if at + length > end:
                    raise IndexError
                held = table.get(tag >> 3)
                if held is _PACKED:
                    left -= length >> 3
                elif held is _NAME and length > MOST_NAME_BYTES:
                    raise InvalidArgument(f"a name expects at most {MOST_NAME_BYTES} bytes, found {length}")
                elif length and held is not None and held is not _NAME:
                    waiting.append((at, at + length, _table(held)))
                at += length
            else:
                at = _after(raw, at, tag & 7)
    if left < 0:
        raise _too_many()


def _too_many() -> InvalidArgument:
    return InvalidArgument(f"a message expects at most {MOST_FIELDS} fields, found more; send it in parts")


def _after(raw: bytes, at: int, wire: int) -> int:
    """Where a value of another wire type ends."""
    if wire == _VARINT:
        return _number(raw, at)[1]
    if wire not in (_EIGHT_BYTES, _FOUR_BYTES):
        raise IndexError
    return at + (8 if wire == _EIGHT_BYTES else 4)


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends (Protocol Buffers, Encoding)."""
    byte = raw[at]
    if byte < 0x80:
        return byte, at + 1
    found, shift = byte & 0x7F, 7
    while shift < 70:
        at += 1
        byte = raw[at]
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at + 1
        shift += 7
    raise IndexError


_PACKED, _NAME = object(), object()


@functools.cache
def _table(kind: Any) -> dict[int, Any]:
    """By number of its fields: the message, that it holds numbers, or that it is a name; None for anything else."""
    found: dict[int, Any] = {}
    for field in kind.fields:
        if field.message_type is not None:
            found[field.number] = field.message_type
        elif field.type == field.TYPE_STRING:
            found[field.number] = None if field.full_name in _LONG else _NAME
        else:
            found[field.number] = _PACKED if field.is_repeated and field.type != field.TYPE_BYTES else None
    return found
