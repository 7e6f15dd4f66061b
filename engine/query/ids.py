"""User ids as an Arrow column."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow as pa

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.types import UserId

_INT64 = range(-(1 << 63), 1 << 63)


def id_column(ids: Sequence[UserId]) -> pa.Array:
    """Ids of one kind as string, int64, fixed 16-byte binary (UUID) or binary.

    Raises
    ------
    InvalidArgument : ids of several kinds, or an int that int64 cannot hold
    """
    kinds = {type(i) for i in ids}
    if len(kinds) > 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise InvalidArgument(f"an Arrow id column expects ids of one kind, found {names}; read them as dicts")
    kind = kinds.pop() if kinds else str
    if kind is int:
        wide = next((i for i in ids if i not in _INT64), None)
        if wide is not None:
            raise InvalidArgument(f"an Arrow id column expects ints of 64 bits, found {wide!r}; read the rows as dicts")
        return pa.array(ids, pa.int64())
    if kind is uuid.UUID:
        return pa.array([i.bytes for i in ids if isinstance(i, uuid.UUID)], pa.binary(16))
    return pa.array(ids, pa.binary() if kind is bytes else pa.string())
