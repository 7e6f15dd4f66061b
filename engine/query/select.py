"""Which stored rows a filter selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.query.ast import fields_of
from gingham.query.evaluate import evaluate
from gingham.storage.part import live_mask, take_field, take_ids
from gingham.storage.writes import find_rows, locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    mask = live_mask(part)
    for condition in (session.scope, node):
        if condition is not None:
            one = _mask(session, record, part, condition)
            mask = one if mask is None else mask & one
    return mask


def _mask(session: Session, record: CollectionRecord, part: Part, node: Node) -> np.ndarray[Any, Any]:
    fields = record.schema.columns

    def make() -> np.ndarray[Any, Any]:
        return evaluate(node, lambda name: part.field(name, fields[name]), part.rows)

    mask: np.ndarray[Any, Any] = session.kept(("mask", part.key, node), make)
    return mask


def selects(session: Session, record: CollectionRecord, node: Node, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bool (rows,) that is True at row ids that a filter selects, evaluated at these rows alone."""
    out, fields = np.zeros(len(rows), np.bool_), record.schema.columns
    for part, offsets, at in locate(session.parts(record), rows) if len(rows) else ():
        columns = {name: take_field(part, name, fields[name], offsets) for name in fields_of(node)}
        out[at] = evaluate(node, columns.__getitem__, len(offsets))
    return out


def find(session: Session, record: CollectionRecord, ids: Sequence[bytes]) -> dict[bytes, int]:
    """Row id of each encoded user id that exists in the scope of the session."""
    found = find_rows(session, record.cid, ids)
    if session.scope is None or not found:
        return found
    inside = selects(session, record, session.scope, np.fromiter(found.values(), np.uint64, len(found)))
    return {encoded: row for (encoded, row), seen in zip(found.items(), inside, strict=True) if seen}


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
    if node is None and session.scope is None:
        return record.rows
    return sum(len(offsets) for _, offsets in selected(session, record, node))


def selected_ids(session: Session, record: CollectionRecord, node: Node | None) -> list[bytes]:
    """Encoded ids of the rows a filter selects."""
    return [encoded for part, offsets in selected(session, record, node) for encoded in take_ids(part, offsets)]
