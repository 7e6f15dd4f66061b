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

NO_COLUMNS = pa.table({})


def fetch(
    session: Session, record: CollectionRecord, rows: np.ndarray[Any, Any], fields: Sequence[str]
) -> tuple[list[bytes], pa.Table]:
    """Encoded ids and payload of rows, in the order asked.

    Parameters
    ----------
    rows : uint64 row ids that exist; one may be asked several times
    """
    found = locate(session.parts(record), rows)
    ids = [encoded for part, offsets, _ in found for encoded in take_ids(part, offsets)]
    columns_of = record.schema.columns
    columns = {
        name: concat(
            [take_field(part, name, columns_of[name], offsets) for part, offsets, _ in found],
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
