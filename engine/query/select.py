"""Which stored rows a filter selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.query.evaluate import evaluate
from gingham.storage.part import live_mask, take_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.query.ast import Node
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.part import Part
    from gingham.storage.session import Session


def allowed(session: Session, record: CollectionRecord, part: Part, node: Node | None) -> np.ndarray[Any, Any] | None:
    """Bool (rows,) that is True at live rows the filter selects, or None where all rows are.

    Notes
    -----
    Filter masks are kept per segment: a segment never changes, so its mask holds for every later commit.
    """
    live = live_mask(part)
    if node is None:
        return live
    fields = record.schema.columns

    def make() -> np.ndarray[Any, Any]:
        return evaluate(node, lambda name: part.field(name, fields[name]), part.rows)

    mask: np.ndarray[Any, Any] = session.kept(("mask", part.key, node), make)
    return mask if live is None else mask & live


@dataclass(frozen=True)
class Candidates:
    """The rows of a part that a search may find.

    Attributes
    ----------
    part : segment or tail
    allow : bool (rows,), or None where all rows may be found
    eligible : how many that are
    """

    part: Part
    allow: np.ndarray[Any, Any] | None
    eligible: int


def candidates(session: Session, record: CollectionRecord, node: Node | None) -> list[Candidates]:
    """Live rows that a filter selects, for each part that has some."""
    out = []
    for part in session.parts(record):
        mask = allowed(session, record, part, node)
        eligible = part.rows if mask is None else int(np.count_nonzero(mask))
        if eligible:
            out.append(Candidates(part, mask, eligible))
    return out


def selected(
    session: Session, record: CollectionRecord, node: Node | None
) -> Iterator[tuple[Part, np.ndarray[Any, Any]]]:
    """Per part the ascending offsets of the rows a filter selects."""
    for part in session.parts(record):
        mask = allowed(session, record, part, node)
        yield part, np.arange(part.rows, dtype=np.int64) if mask is None else np.flatnonzero(mask)


def count(session: Session, record: CollectionRecord, node: Node | None) -> int:
    """Rows that a filter selects."""
    if node is None:
        return record.rows
    return sum(len(offsets) for _, offsets in selected(session, record, node))


def selected_ids(session: Session, record: CollectionRecord, node: Node | None) -> list[bytes]:
    """Encoded ids of the rows a filter selects."""
    return [encoded for part, offsets in selected(session, record, node) for encoded in take_ids(part, offsets)]
