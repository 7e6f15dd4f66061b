"""Ids and payload of rows that are named by their row ids."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gingham.errors import ResourceExhausted
from gingham.storage.columns import concat
from gingham.storage.part import take_field, take_ids
from gingham.storage.writes import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from gingham.schema import Column
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.part import Part
    from gingham.storage.session import Session

NO_COLUMNS = pa.table({})
ROWS_AT_ONCE = 256
"""Rows that are copied between two looks at a limit of bytes."""


class _Room:
    """Bytes that may be copied yet; None for any."""

    def __init__(self, most: int | None) -> None:
        self._most, self._left = most, most or 0

    def taken(self, part: Part, name: str, kind: Column, offsets: np.ndarray[Any, Any]) -> Iterator[pa.Array]:
        """A column of some rows of a part, in pieces where there is a limit."""
        step = max(1, len(offsets)) if self._most is None else ROWS_AT_ONCE
        for start in range(0, max(1, len(offsets)), step):
            piece = take_field(part, name, kind, offsets[start : start + step])
            yield piece
            if self._most is not None:
                self._left -= piece.nbytes
                if self._left < 0:
                    raise ResourceExhausted(
                        f"an answer expects up to {self._most >> 20} MiB of payload, found more; ask for fewer rows, "
                        "or name what is needed with fields="
                    )


_NO_LIMIT = _Room(None)
_room: ContextVar[_Room] = ContextVar("gingham_payload", default=_NO_LIMIT)


@contextlib.contextmanager
def payload_within(most: int) -> Iterator[None]:
    """Let all :func:`fetch` of a block copy so many bytes, and some rows more; then they raise ResourceExhausted."""
    token = _room.set(_Room(most))
    try:
        yield
    finally:
        _room.reset(token)


def fetch(
    session: Session, record: CollectionRecord, rows: np.ndarray[Any, Any], fields: Sequence[str]
) -> tuple[list[bytes], pa.Table]:
    """Encoded ids and payload of rows, in the order asked.

    Parameters
    ----------
    rows : uint64 row ids that exist; one may be asked several times

    Raises
    ------
    ResourceExhausted : the payload is larger than :func:`payload_within` says
    """
    room = _room.get()
    found = locate(session.parts(record), rows)
    ids = [encoded for part, offsets, _ in found for encoded in take_ids(part, offsets)]
    columns_of = record.schema.columns
    columns = {
        name: concat(
            [one for part, offsets, _ in found for one in room.taken(part, name, columns_of[name], offsets)],
            columns_of[name].arrow_type,
        )
        for name in fields
    }
    table = pa.table(columns) if columns else NO_COLUMNS
    if len(found) > 1:
        order = np.argsort(np.concatenate([where for _, _, where in found]), kind="stable")
        ids = [ids[i] for i in order.tolist()]
        table = table.take(pa.array(order)) if columns else table
    return ids, table
