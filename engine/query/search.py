"""Exact search over the parts of a collection: filter first, then scan, then one global merge."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.index.flat import merge_topk, range_flat, search_flat
from gingham.query.hits import BatchHits, Completeness, Explanation, Hits, Stage
from gingham.query.select import allowed
from gingham.storage.columns import concat
from gingham.storage.part import take_field, take_ids
from gingham.storage.writes import locate
from gingham.types import decode_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.ast import Node
    from gingham.schema import Dense, Schema
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.part import Part
    from gingham.storage.session import Session


@dataclass(frozen=True)
class Request:
    """A checked search.

    Attributes
    ----------
    vector : name of the vector field
    dense : its type
    queries : float32 (n_queries, dim)
    k : hits per query, or None for all that reach ``radius``
    where : bound filter
    radius : smallest score returned
    fields : payload columns returned
    """

    vector: str
    dense: Dense
    queries: np.ndarray[Any, Any]
    k: int | None
    where: Node | None
    radius: float | None
    fields: tuple[str, ...]


@dataclass
class _Clock:
    stages: list[Stage] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def note(self, name: str, detail: str, rows: int) -> None:
        now = time.perf_counter()
        self.stages.append(Stage(name, detail, now - self.started, rows))
        self.started = now


@dataclass(frozen=True)
class _Candidates:
    part: Part
    allow: np.ndarray[Any, Any] | None
    eligible: int


def search(session: Session, record: CollectionRecord, request: Request) -> BatchHits:
    """Run a search and copy what it found.

    Notes
    -----
    Time O(n_queries * rows * dim); rows a filter excludes are not scored.
    """
    clock = _Clock()
    candidates = _select(session, record, request.where)
    eligible = sum(c.eligible for c in candidates)
    total = record.rows
    chosen = "no filter" if request.where is None else f"filter selects {eligible / max(total, 1):.2%}"
    clock.note("select", chosen, total)
    found = _scan(candidates, request)
    clock.note(
        "scan",
        f"exact on {request.vector!r} ({request.dense.metric}), {len(candidates)} parts: there is no index",
        eligible,
    )
    results = _collect(session, record, request, found, eligible)
    clock.note("fetch", f"{len(request.fields)} fields", sum(len(r[0]) for r in results))
    explanation = Explanation(tuple(clock.stages))
    return BatchHits([Hits(ids, scores, table, why, explanation) for ids, scores, table, why in results])


def _select(session: Session, record: CollectionRecord, where: Node | None) -> list[_Candidates]:
    out = []
    for part in session.parts(record):
        mask = allowed(session, record, part, where)
        eligible = part.rows if mask is None else int(np.count_nonzero(mask))
        if eligible:
            out.append(_Candidates(part, mask, eligible))
    return out


def _scan(
    candidates: Sequence[_Candidates], request: Request
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Per query the scores and row ids found, best first, ties by ascending row."""
    if request.k is None:
        return [_scan_range(candidates, request, query) for query in request.queries]
    n_queries = len(request.queries)
    pieces = [(np.full((n_queries, 0), -np.inf, np.float32), np.full((n_queries, 0), -1, np.int64))]
    for candidate in candidates:
        row_ids = candidate.part.row_ids.astype(np.int64)
        for chunk in candidate.part.chunks(request.vector):
            stop = chunk.start + len(chunk.vectors)
            allow = None if candidate.allow is None else candidate.allow[chunk.start : stop]
            scores, offsets = search_flat(
                request.queries,
                chunk.vectors,
                chunk.norms,
                min(request.k, len(chunk.vectors)),
                metric=request.dense.metric,
                allow=allow,
                base=chunk.start,
                min_score=request.radius,
            )
            pieces.append((scores, np.where(offsets < 0, -1, row_ids[offsets])))
    scores, rows = merge_topk(pieces, request.k)
    return [(s[r >= 0], r[r >= 0]) for s, r in zip(scores, rows, strict=True)]


def _scan_range(
    candidates: Sequence[_Candidates], request: Request, query: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    scores, rows = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for candidate in candidates:
        row_ids = candidate.part.row_ids.astype(np.int64)
        for chunk in candidate.part.chunks(request.vector):
            stop = chunk.start + len(chunk.vectors)
            allow = None if candidate.allow is None else candidate.allow[chunk.start : stop]
            found, offsets = range_flat(
                query,
                chunk.vectors,
                chunk.norms,
                metric=request.dense.metric,
                min_score=float(request.radius if request.radius is not None else -np.inf),
                allow=allow,
                base=chunk.start,
            )
            scores.append(found)
            rows.append(row_ids[offsets])
    all_scores, all_rows = np.concatenate(scores), np.concatenate(rows)
    order = np.lexsort((all_rows, -all_scores))
    return all_scores[order], all_rows[order]


def _collect(
    session: Session,
    record: CollectionRecord,
    request: Request,
    found: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    eligible: int,
) -> list[tuple[list[Any], np.ndarray[Any, Any], pa.Table, Completeness]]:
    rows = np.concatenate([r for _, r in found]) if found else np.empty(0, np.int64)
    ids, table = fetch(session, record, rows.astype(np.uint64), request.fields)
    out = []
    start = 0
    for scores, mine in found:
        stop = start + len(mine)
        why = _why(len(mine), request, eligible, record.rows)
        out.append(([decode_id(e) for e in ids[start:stop]], scores, table.slice(start, stop - start), why))
        start = stop
    return out


def _why(found: int, request: Request, eligible: int, total: int) -> Completeness:
    if request.k is None or found >= request.k:
        return Completeness(True)
    limit = "" if request.radius is None else f", {found} of them with a score of at least {request.radius:g}"
    if request.where is None:
        return Completeness(True, f"asked for {request.k}, the collection has {total} rows{limit}")
    return Completeness(True, f"asked for {request.k}, the filter selects {eligible} of {total} rows{limit}")


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
    schema: Schema = record.schema
    columns = {
        name: concat(
            [take_field(part, name, schema.fields[name], offsets) for part, offsets, _ in found],
            schema.fields[name].arrow_type,
        ).take(pa.array(order))
        for name in fields
    }
    return [ids[i] for i in order], pa.table(columns)
