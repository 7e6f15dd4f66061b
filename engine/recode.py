"""Another codec or index for a vector field: made, compared, and switched to where it is good enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from gingham.codecs.spec import parse_codec
from gingham.index.warmup import warmup
from gingham.query.effort import DEFAULT_EFFORT, Effort
from gingham.query.near import search_near
from gingham.query.select import Candidates, candidates
from gingham.storage.codes import check_codec
from gingham.storage.part import Part, take_vectors
from gingham.storage.recode import Recoding
from gingham.storage.segment import SegmentPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.schema import Dense
    from gingham.storage.catalog import CodedRecord
    from gingham.storage.part import Coded
    from gingham.storage.store import Store

    Array = np.ndarray[Any, Any]

QUERIES = 200
"""Stored vectors that are searched for to compare codecs."""
K = 10


@dataclass(frozen=True)
class RecodeReport:
    """What :meth:`gingham.Collection.recode` or :meth:`gingham.Collection.reindex` found.

    Attributes
    ----------
    old, new : specs of the codecs, None for none
    old_recall, new_recall : mean share of the exact 10 nearest rows that a search finds, for up to 200 stored vectors
    switched : whether the new codec and index are in use
    old_index, new_index : None for none
    """

    old: str | None
    new: str | None
    old_recall: float
    new_recall: float
    switched: bool
    old_index: str | None = None
    new_index: str | None = None


def recode(store: Store, cid: int, name: str, changes: Mapping[str, str | None], min_recall: float) -> RecodeReport:
    """See :meth:`gingham.Collection.recode` and :meth:`gingham.Collection.reindex`.

    Parameters
    ----------
    changes : the new ``codec`` or ``index`` of the field, or both
    """
    with store.read() as session:
        dense = session.collection_by_id(cid).schema.vector(name)[1]
    target = msgspec.structs.replace(dense, **changes)
    check_codec(target)
    if target.codec is not None:
        codec = parse_codec(target.codec, dense.dim, dense.metric).spec
        target = msgspec.structs.replace(target, codec=codec)
    work = Recoding(store, cid, name, dense, target)
    # While kernels are cold, searches are exact, and would compare a codec with itself.
    warmup()
    try:
        work.stage()
        old_recall, new_recall = _compare(store, cid, name, work.made)
        if new_recall < min_recall:
            work.discard()
            return RecodeReport(dense.codec, target.codec, old_recall, new_recall, False, dense.index, target.index)
        work.switch()
        if work.pending():  # once: what comes after the switch is made by the new type, and the rest by maintenance
            work = Recoding(store, cid, name, dense, target)
            work.stage()
            work.switch()
    except BaseException:
        work.discard()
        raise
    return RecodeReport(dense.codec, target.codec, old_recall, new_recall, True, dense.index, target.index)


def _compare(store: Store, cid: int, name: str, made: dict[int, CodedRecord | None]) -> tuple[float, float]:
    """Recall with the codes in use and with those made."""
    with store.read() as session:
        record = session.collection_by_id(cid)
        dense = record.schema.dense[name]
        now = candidates(session, record, None)
        queries = _stored_queries(now, name, dense)
        if not len(queries):
            return 1.0, 1.0
        then = [_with_new(one, name, made) for one in now]
        exact = search_near(now, name, dense, queries, K, None, Effort(exact=True))
        old = search_near(now, name, dense, queries, K, None, DEFAULT_EFFORT)
        new = search_near(then, name, dense, queries, K, None, DEFAULT_EFFORT)
    return _recall(exact, old), _recall(exact, new)


def _stored_queries(parts: Sequence[Candidates], name: str, dense: Dense) -> Array:
    """Vectors of rows that lie evenly over all parts, float32."""
    total = sum(one.part.rows for one in parts)
    picked = [np.empty((0, dense.dim), np.float32)]
    for one in parts:
        n = min(-(-QUERIES * one.part.rows // total), one.part.rows)
        at = np.linspace(0, one.part.rows - 1, n).astype(np.int64)
        picked.append(take_vectors(one.part, name, dense, at).astype(np.float32))
    queries = np.concatenate(picked)
    queries = queries[~np.isnan(queries).any(axis=1)]
    return np.ascontiguousarray(queries[:QUERIES])


def _recall(exact: list[tuple[Array, Array]], found: list[tuple[Array, Array]]) -> float:
    shares = [len(np.intersect1d(e, f)) / len(e) for (_, e), (_, f) in zip(exact, found, strict=True) if len(e)]
    return float(np.mean(shares)) if shares else 1.0


class _Recoded:
    """A part with other codes of a vector."""

    def __init__(self, part: SegmentPart, name: str, made: CodedRecord | None) -> None:
        self._part = part
        self._coded = part.read_coded(name, made)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def coded(self, name: str) -> Coded | None:
        return self._coded


def _with_new(one: Candidates, name: str, made: Mapping[int, CodedRecord | None]) -> Candidates:
    part = one.part
    if not isinstance(part, SegmentPart) or part.ref.sid not in made:
        return one
    return replace(one, part=cast("Part", _Recoded(part, name, made[part.ref.sid])))
