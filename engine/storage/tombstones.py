"""Dead rows: one roaring bitmap a segment (row offsets) and one a tail (row ids)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
from pyroaring import BitMap64

from gingham.errors import Corrupt
from gingham.storage.records import child_key, open_record, seal_record

if TYPE_CHECKING:
    from gingham.storage.environment import Environment

TAIL = 0
"""Stands in for the segment number in the key of a tail's bitmap; segments count from 1."""


def read_dead(env: Environment, txn: Any, cid: int, sid: int) -> np.ndarray[Any, Any]:
    """Dead offsets of a segment, or dead row ids of a tail, ascending, as int64."""
    key = child_key(cid, sid)
    value = txn.get(key, db=env.table("tombstones"))
    if value is None:
        return np.empty(0, np.int64)
    payload = bytes(open_record("tombstones", key, value))
    try:
        return np.asarray(BitMap64.deserialize(payload).to_array(), np.int64)
    except ValueError as error:
        raise Corrupt(f"the tombstones of segment {sid} are no roaring bitmap ({error}); run verify()") from error


def write_dead(env: Environment, txn: Any, cid: int, sid: int, dead: np.ndarray[Any, Any]) -> None:
    """Replace a bitmap; an empty one is removed."""
    key = child_key(cid, sid)
    if len(dead) == 0:
        txn.delete(key, db=env.table("tombstones"))
        return
    payload = BitMap64(array("Q", dead.astype(np.uint64).tobytes())).serialize()
    txn.put(key, seal_record(key, payload), db=env.table("tombstones"))
