"""User ids and their stored form, and the plain values that cross layers."""

from __future__ import annotations

import math
import operator
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa

UserId = str | int | uuid.UUID | bytes

MAX_ID_BYTES = 480
"""Longest encoded id: LMDB keys end at 511 bytes and the key also carries the collection."""

UUID_IDS = {b"gingham.id": b"uuid"}
"""Metadata of an Arrow field ``id`` whose 16 bytes are UUIDs; bytes ids have none."""

_INT_BYTES = 9
_INT_BIAS = 1 << (8 * _INT_BYTES - 1)
_FEW = 32
"""Ids that are read one by one."""
_INT, _STR, _UUID, _BYTES = b"i", b"s", b"u", b"x"
_LARGEST_SCORE = float.fromhex("0x1.fffffep+127")
"""Greatest float32, which no score of stored vectors reaches."""


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
    if type(user_id) is int and -_INT_BIAS <= user_id < _INT_BIAS:  # most ids of searches over gRPC are
        return _INT + (user_id + _INT_BIAS).to_bytes(_INT_BYTES, "big")
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
            f"an id expects 1 to {MAX_ID_BYTES - 1} bytes, found {len(encoded) - 1} in {shown(user_id)}; shorten it"
        )
    return encoded


def _encode_int(user_id: object) -> bytes:
    try:
        if _is_bool(user_id):
            raise TypeError
        value = operator.index(user_id)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(
            f"an id expects str, int, UUID or bytes, found {type(user_id).__name__} {shown(user_id)}"
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


def decode_ids(encoded: Sequence[bytes]) -> list[UserId]:
    """The same of many at once: ints from 0 to 2**64 - 1 are read together, which takes a quarter of the time."""
    if len(encoded) > _FEW and {*map(len, encoded)} == {1 + _INT_BYTES}:
        import numpy as np

        table = np.frombuffer(b"".join(encoded), np.uint8).reshape(len(encoded), -1)
        # The tag of an int, and the first byte of one whose other eight bytes are the number itself.
        if (table[:, 0] == _INT[0]).all() and (table[:, 1] == _INT_BIAS >> 8 * (_INT_BYTES - 1)).all():
            numbers: list[UserId] = np.ascontiguousarray(table[:, 2:]).view(">u8").ravel().tolist()
            return numbers
    return [decode_id(one) for one in encoded]


def shown(value: object) -> str:
    """Short text of any value, for a message."""
    try:
        return f"{value!r:.60}"
    except Exception:  # of the value's own class, or too deeply nested, or a number of too many digits
        return "a value that cannot be shown"


def is_id(value: object) -> bool:
    """Whether a value is one id, and not a sequence of them."""
    return isinstance(value, (str, int, bytes, uuid.UUID)) or not isinstance(value, Iterable)


def _is_bool(value: object) -> bool:
    return type(value).__name__ in ("bool", "bool_")


def whole(what: str, value: object, least: int = 1, most: int | None = None) -> int:
    """An integer that a user gave; raises InvalidArgument unless it is at least ``least``, and at most ``most``."""
    try:
        number = least - 1 if _is_bool(value) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidArgument(f"{what} expects an integer {expected}, found {shown(value)}")
    return number


def finite(what: str, value: object, kind: str = "number") -> float:
    """A number that a user gave; raises InvalidArgument unless it is finite."""
    single = not _is_bool(value) and not isinstance(value, (str, bytes)) and not getattr(value, "ndim", 0)
    try:
        number = float(value) if single else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument(f"{what} expects a finite {kind}, found {shown(value)}")
    return number


def least_score(what: str, value: object) -> float:
    """A bound of scores that a user gave, within float32; raises InvalidArgument unless it is a finite number."""
    return max(-_LARGEST_SCORE, min(finite(what, value, "score"), _LARGEST_SCORE))


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
