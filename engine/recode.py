"""Another codec for a vector field of a collection: made, compared, and switched to where it is good enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.protocol import Codes
from gingham.codecs.spec import parse_codec
from gingham.query.effort import DEFAULT_EFFORT, Effort
from gingham.query.near import search_near
from gingham.query.select import Candidates, candidates
from gingham.storage.codes import read_arrays, read_codec
from gingham.storage.part import take_vectors
from gingham.storage.recode import NewCodes, Recoding
from gingham.storage.segment import SegmentPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.schema import Dense
    from gingham.storage.part import Chunk
    from gingham.storage.session import Session
    from gingham.storage.store import Store

    Array = np.ndarray[Any, Any]

QUERIES = 200
"""Stored vectors that are searched for to compare codecs."""
K = 10


@dataclass(frozen=True)
class RecodeReport:
    """What :meth:`gingham.Collection.recode` found.

    Attributes
    ----------
    old, new : specs of the codecs, None for none
    old_recall, new_recall : mean share of the exact 10 nearest rows that a search finds, for up to 200 stored vectors
    switched : whether the new codec is in use
    """

    old: str | None
    new: str | None
    old_recall: float
    new_recall: float
    switched: bool


def recode(store: Store, cid: int, name: str, codec: str | None, min_recall: float) -> RecodeReport:
    """See :meth:`gingham.Collection.recode`."""
    with store.read() as session:
        dense = session.collection_by_id(cid).schema.vector(name)[1]
    if codec is not None:
        codec = parse_codec(codec, dense.dim, dense.metric).spec
    work = Recoding(store, cid, name, dense, codec)
    try:
        work.stage()
        old_recall, new_recall = _compare(store, cid, name, work.made)
        if new_recall < min_recall:
            work.discard()
            return RecodeReport(dense.codec, codec, old_recall, new_recall, False)
        work.switch()
        while work.pending():
            work = Recoding(store, cid, name, dense, codec)
            work.stage()
            work.switch()
    except BaseException:
        work.discard()
        raise
    return RecodeReport(dense.codec, codec, old_recall, new_recall, True)


def _compare(store: Store, cid: int, name: str, made: dict[int, NewCodes]) -> tuple[float, float]:
    """Recall with the codes in use and with those made."""
    with store.read() as session:
        record = session.collection_by_id(cid)
        dense = record.schema.dense[name]
        now = candidates(session, record, None)
        queries = _stored_queries(now, name, dense)
        if not len(queries):
            return 1.0, 1.0
        then = [_with_new(session, one, name, dense, made) for one in now]
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
    """A part whose chunks have other codes."""

    def __init__(self, part: Any, chunks: list[Chunk]) -> None:
        self._part = part
        self._chunks = chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def chunks(self, name: str) -> list[Chunk]:
        return self._chunks


def _with_new(session: Session, one: Candidates, name: str, dense: Dense, made: dict[int, NewCodes]) -> Candidates:
    part = one.part
    if not isinstance(part, SegmentPart) or part.ref.sid not in made:
        return one
    new = made[part.ref.sid]
    chunks = [replace(chunk, coded=None) for chunk in part.chunks(name)]
    if new.codec is not None:
        codec = read_codec(session, new.codec, dense)
        chunks = [
            replace(chunk, coded=(codec, Codes(len(chunk.vectors), read_arrays(session, arrays))))
            for chunk, arrays in zip(chunks, new.chunks, strict=True)
        ]
    return replace(one, part=_Recoded(part, chunks))
