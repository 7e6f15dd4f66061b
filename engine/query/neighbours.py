"""Rows that stand beside those found: the chunks before and after a chunk in its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham import deadline
from gingham.errors import SchemaMismatch
from gingham.schema import Int, Keyword, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.select import Candidates
    from gingham.schema import Schema

    Array = np.ndarray[Any, Any]

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


def beside(
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
    Time O(rows of the collection): parents are compared one by one.
    """
    known = parents.drop_null().unique()
    pieces = [np.empty((3, 0), np.int64)]
    for one in candidates:
        deadline.check()
        column, places = (one.part.field(name, schema.field(name)) for name in names)
        wanted = pc.is_in(column, value_set=known, skip_nulls=True).to_numpy(zero_copy_only=False)
        wanted &= places.is_valid().to_numpy(zero_copy_only=False)
        at = np.flatnonzero(wanted if one.allow is None else wanted & one.allow)
        taken = pa.array(at)
        numbers = pc.index_in(column.take(taken), value_set=known).to_numpy()
        pieces.append(np.stack([numbers, places.take(taken).to_numpy(), one.part.row_ids[at].astype(np.int64)]))
    numbers, places, rows = np.concatenate(pieces, axis=1)
    order = np.lexsort((rows, places, numbers))
    numbers, places, rows = numbers[order], places[order], rows[order]
    bounds = np.searchsorted(numbers, np.arange(len(known) + 1))
    out = []
    for number, place in zip(pc.index_in(parents, value_set=known).to_pylist(), ordinals.to_pylist(), strict=True):
        if number is None or place is None:
            out.append(np.empty(0, np.int64))
            continue
        span = slice(bounds[number], bounds[number + 1])
        first, last = max(place - neighbours, _LEAST), min(place + neighbours, _MOST)
        start, stop = np.searchsorted(places[span], first, "left"), np.searchsorted(places[span], last, "right")
        out.append(rows[span][start:stop])
    return out


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
