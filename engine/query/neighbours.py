"""Rows that stand beside those found: the chunks before and after a chunk in its text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham import deadline
from gingham.errors import SchemaMismatch
from gingham.schema import Int, Keyword, Text
from gingham.storage.segment import SegmentPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.select import Candidates
    from gingham.schema import Schema
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

ORDERED_ROWS = 1 << 15
"""Rows of a segment from which on they are put in order, once: the parents of fewer are read in half a millisecond."""
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def check_places(schema: Schema, parent: str, ordinal: str) -> None:
    """Raise SchemaMismatch unless one field can say which text a row is a piece of, and the other which piece."""
    kind = schema.field(parent)
    if not isinstance(kind, Keyword | Text | Int) or getattr(kind, "many", False):
        raise SchemaMismatch(
            f"expand(parent=) expects a field of single keywords, texts or integers, found {parent!r}, which is {kind}"
        )
    kind = schema.field(ordinal)
    if not isinstance(kind, Int):
        raise SchemaMismatch(f"expand(ordinal=) expects a field of integers, found {ordinal!r}, which is {kind}")


@dataclass(frozen=True)
class _Order:
    """Offsets of rows that have a place, uint32, ascending by parent, then by ordinal, then by offset."""

    rows: Array

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes)


def beside(
    session: Session,
    candidates: Sequence[Candidates],
    schema: Schema,
    names: tuple[str, str],
    parents: pa.Array,
    ordinals: pa.Array,
    neighbours: int,
) -> list[Array]:
    """Rows of the parent of each place given, up to so many ordinals before and after it.

    Parameters
    ----------
    candidates : rows that may be found
    names : fields of parents and ordinals
    parents, ordinals : places; where one is null there are no rows
    neighbours : difference of ordinals at most

    Returns
    -------
    list of ndarray : int64 row ids, by ordinals and then by row ids; the row of the place itself is among them

    Notes
    -----
    Time O(places log rows) in a large segment, whose rows are put in order once and kept so: a third of a second and
    4 MB for a million. A small one and the tail are read whole, as parents alone.
    """
    known = np.flatnonzero(_placed(parents, ordinals))
    parents, middles = parents.take(pa.array(known)), ordinals.take(pa.array(known)).to_pylist()
    first = np.array([max(one - neighbours, _LEAST) for one in middles], np.int64)
    last = np.array([min(one + neighbours, _MOST) for one in middles], np.int64)
    twice, bounds = pa.concat_arrays([parents, parents]), np.concatenate([first, last])
    after = np.repeat([False, True], len(known))
    pieces = [np.empty((3, 0), np.int64)]
    for one in candidates:
        deadline.check()
        columns = [one.part.field(name, schema.field(name)) for name in names]
        if isinstance(one.part, SegmentPart) and one.part.rows >= ORDERED_ROWS:
            order = session.kept(("places", one.part.key, names), partial(_ordered, *columns)).rows
        else:
            order = _ordered(*columns, among=parents).rows
        starts, stops = np.split(_cut(order, columns, twice, bounds, after), 2)
        counts = stops - starts
        at = order[np.repeat(stops - np.cumsum(counts), counts) + np.arange(counts.sum())]
        whose = np.repeat(known, counts)
        if one.allow is not None:
            whose, at = whose[one.allow[at]], at[one.allow[at]]
        places = columns[1].take(pa.array(at)).to_numpy()
        pieces.append(np.stack([whose, places, one.part.row_ids[at].astype(np.int64)]))
    whose, places, rows = np.concatenate(pieces, axis=1)
    by = np.lexsort((rows, places, whose))
    return np.split(rows[by], np.searchsorted(whose[by], np.arange(1, len(ordinals)))) if len(ordinals) else []


def _placed(parents: pa.Array, ordinals: pa.Array) -> Array:
    both: Array = pc.and_(parents.is_valid(), ordinals.is_valid()).to_numpy(zero_copy_only=False)
    return both


def _ordered(parents: pa.Array, ordinals: pa.Array, *, among: pa.Array | None = None) -> _Order:
    """Order the rows that have a place; of these parents alone, where some are given."""
    wanted = _placed(parents, ordinals)
    if among is not None:
        wanted &= pc.is_in(parents, value_set=among).to_numpy(zero_copy_only=False)
    at = np.flatnonzero(wanted).astype(np.uint32)
    encoded = parents.take(pa.array(at)).dictionary_encode()
    ranks = pc.rank(encoded.dictionary, tiebreaker="dense").to_numpy()[encoded.indices.to_numpy()]
    return _Order(at[np.lexsort((ordinals.take(pa.array(at)).to_numpy(), ranks))])


def _cut(order: Array, columns: Sequence[pa.Array], parents: pa.Array, ordinals: Array, after: Array) -> Array:
    """How many rows of an order come before each place, or at it too where it says after: bisection of all at once."""
    low, high = np.zeros(len(ordinals), np.int64), np.full(len(ordinals), len(order))
    while (low < high).any():
        open_, middle = low < high, np.minimum((low + high) // 2, len(order) - 1)
        found, numbers = (column.take(pa.array(order[middle])) for column in columns)
        numbers = numbers.to_numpy()
        before = pc.less(found, parents).to_numpy(zero_copy_only=False)
        same = pc.equal(found, parents).to_numpy(zero_copy_only=False)
        before |= same & ((numbers < ordinals) | (after & (numbers == ordinals)))
        low, high = np.where(open_ & before, middle + 1, low), np.where(open_ & ~before, middle, high)
    return low


def in_reading_order(scores: Array, rows: Array, runs: Sequence[Array]) -> tuple[Array, Array, dict[int, int]]:
    """Rows found, each among those beside it, and none twice.

    Parameters
    ----------
    scores, rows : found, best first
    runs : what stands beside each of them, and itself unless nothing does

    Returns
    -------
    tuple : float32 scores and int64 rows; and of rows that were not found, the row that brought each, whose score it
        has
    """
    own = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    brought: dict[int, int] = {}
    placed: dict[int, float] = {}
    for row, run in zip(rows.tolist(), runs, strict=True):
        for one in run.tolist() or [row]:
            if one not in placed:
                placed[one] = own[one] if one in own else own[row]
                if one not in own:
                    brought[one] = row
    return np.array(list(placed.values()), np.float32), np.array(list(placed), np.int64), brought
