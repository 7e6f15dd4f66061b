"""User ids and their stored form, and the plain values that cross layers."""

from __future__ import annotations

import operator
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

UserId = str | int | uuid.UUID | bytes

MAX_ID_BYTES = 480
"""Longest encoded id: LMDB keys end at 511 bytes and the key also carries the collection."""

_INT_BYTES = 9
_INT_BIAS = 1 << (8 * _INT_BYTES - 1)
_INT, _STR, _UUID, _BYTES = b"i", b"s", b"u", b"x"


def encode_id(user_id: object) -> bytes:
    """Encode an id so that byte order is id order within a kind: int < str < UUID < bytes.

    Parameters
    ----------
    user_id : str, int from -2**71 to 2**71 - 1, UUID or bytes; NumPy scalars of these kinds are taken too

    Returns
    -------
    bytes : one tag byte and the value, at most 480 bytes

    Raises
    ------
    InvalidArgument : another type, an id that is empty, too long or out of range
    """
    if isinstance(user_id, str):
        try:
            encoded = _STR + user_id.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"an id expects text that UTF-8 can hold, found {user_id!r}") from error
    elif isinstance(user_id, uuid.UUID):
        return _UUID + user_id.bytes
    elif isinstance(user_id, bytes):
        encoded = _BYTES + user_id
    else:
        return _encode_int(user_id)
    if not 1 < len(encoded) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"an id expects 1 to {MAX_ID_BYTES - 1} bytes, found {len(encoded) - 1} in {user_id!r:.60}; shorten it"
        )
    return encoded


def _encode_int(user_id: object) -> bytes:
    try:
        if isinstance(user_id, bool) or type(user_id).__name__ in ("bool", "bool_"):
            raise TypeError
        value = operator.index(user_id)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(
            f"an id expects str, int, UUID or bytes, found {type(user_id).__name__} {user_id!r:.60}"
        ) from None
    if not -_INT_BIAS <= value < _INT_BIAS:
        raise InvalidArgument(f"an int id expects -2**71 to 2**71 - 1, found {value}")
    return _INT + (value + _INT_BIAS).to_bytes(_INT_BYTES, "big")


def decode_id(encoded: bytes) -> UserId:
    """Invert :func:`encode_id`; raises ValueError on bytes that it cannot have made."""
    tag, body = encoded[:1], encoded[1:]
    if tag == _STR:
        return body.decode()
    if tag == _INT and len(body) == _INT_BYTES:
        return int.from_bytes(body, "big") - _INT_BIAS
    if tag == _UUID:
        return uuid.UUID(bytes=body)
    if tag == _BYTES:
        return body
    raise ValueError(f"no id starts with tag {tag!r}")


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did.

    Attributes
    ----------
    version : commit number the write is part of; later commits have greater numbers
    inserted : rows whose id was new
    updated : rows that replaced or changed a row of the same id
    deleted : rows removed
    missing : ids of an update or delete that no row has
    """

    version: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    missing: int = 0

    def __add__(self, other: WriteResult) -> WriteResult:
        """Sum the counts and keep the later version."""
        return WriteResult(
            max(self.version, other.version),
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.missing + other.missing,
        )


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Checked rows on their way into a collection.

    Attributes
    ----------
    ids : encoded ids, each once
    vectors : per vector name an array of shape (n, dim) in the field's dtype; a row of NaN has no vector
    fields : per field name an Arrow array of length n and the field's Arrow type

    Notes
    -----
    An upsert carries every column of the schema, an update only those it changes.
    """

    ids: list[bytes]
    vectors: dict[str, np.ndarray]
    fields: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.ids)
