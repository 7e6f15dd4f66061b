"""User ids as an Arrow column."""

from __future__ import annotations

import importlib
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gingham.errors import InvalidArgument, MissingExtra
from gingham.types import UUID_IDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

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


def schema_with_ids(ids: Sequence[UserId], columns: Mapping[str, Any]) -> pa.Schema:
    """Schema of columns one of which is ``id``; its metadata tells UUIDs from bytes, so that they come back as such."""
    uuids = UUID_IDS if ids and isinstance(ids[0], uuid.UUID) else None
    return pa.schema(
        [pa.field(name, column.type, metadata=uuids if name == "id" else None) for name, column in columns.items()]
    )


def data_frame(ids: Sequence[UserId], table: pa.Table) -> pd.DataFrame:
    """A table with a column ``id`` as a data frame; raises MissingExtra where pandas is not installed."""
    try:
        importlib.import_module("pandas")
    except ImportError as error:
        raise MissingExtra("hits.pandas() needs pandas; run: pip install pandas") from error
    frame = table.to_pandas()
    if ids and isinstance(ids[0], uuid.UUID):
        frame["id"] = list(ids)
    return frame
