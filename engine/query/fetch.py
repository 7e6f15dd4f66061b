"""Ids and payload of rows that are named by their row ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gingham.storage.columns import concat
from gingham.storage.part import take_field, take_ids
from gingham.storage.writes import locate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session


def fetch(
    session: Session, record: CollectionRecord, rows: np.ndarray[Any, Any], fields: Sequence[str]
) -> tuple[list[bytes], pa.Table]:
    """Encoded ids and payload of rows, in the order asked.

    Parameters
    ----------
    rows : uint64 row ids that exist; one may be asked several times
    """
    unique, back = np.unique(rows, return_inverse=True)
    found = locate(session.parts(record), unique)
    where = np.concatenate([w for _, _, w in found]) if found else np.empty(0, np.int64)
    place = np.empty(len(unique), np.int64)
    place[where] = np.arange(len(where))
    order = place[back]
    ids = [encoded for part, offsets, _ in found for encoded in take_ids(part, offsets)]
    columns_of = record.schema.columns
    columns = {
        name: concat(
            [take_field(part, name, columns_of[name], offsets) for part, offsets, _ in found],
            columns_of[name].arrow_type,
        ).take(pa.array(order))
        for name in fields
    }
    return [ids[i] for i in order], pa.table(columns)
