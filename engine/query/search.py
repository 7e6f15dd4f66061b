"""Searches from the door to the hits: one field for many queries, or a query tree."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.index.warmup import all_ready
from gingham.query import inverted
from gingham.query.execute import DEFAULT_LIMIT, Execution
from gingham.query.explain import Trace
from gingham.query.fetch import fetch
from gingham.query.hits import BatchHits, Completeness, Hits
from gingham.query.near import NearSearch, Served, without_vector
from gingham.query.nodes import Expanded, Limited, Query
from gingham.query.select import candidates, count
from gingham.query.tokens import how_tokens, matcher, search_tokens
from gingham.schema import Dense, Json, Sparse, Text, Tokens
from gingham.types import decode_id, decode_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gingham.query.ast import Node
    from gingham.query.effort import Effort
    from gingham.query.explain import Explanation, Step
    from gingham.query.hits import Span
    from gingham.query.select import Candidates
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]
    Found = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Request:
    """A checked search of one field.

    Attributes
    ----------
    name, kind : the field
    queries : float32 (n_queries, dim) for a dense vector, texts, (dimensions, weights) of sparse vectors, or tokens
        float32 (n, dim)
    k : hits per query, or None for all that reach ``radius``
    where : bound filter
    radius : smallest score returned, or None
    effort : how hard a dense vector is looked for
    fields : payload columns returned
    remarks : what the hits should say of how the queries came about
    """

    name: str
    kind: Dense | Text | Sparse | Tokens
    queries: Any
    k: int | None
    where: Node | None
    radius: float | None
    effort: Effort
    fields: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def search(session: Session, record: CollectionRecord, request: Request) -> BatchHits:
    """Run a search of one field and copy what it found."""
    trace = Trace("search")
    highlighters: list[Mapping[str, Callable[[str], list[Span]]]] = [{}] * len(request.queries)
    if isinstance(request.kind, Dense):
        with trace.step("select") as step:
            eligible, near = _near(session, record, request, request.kind)
            _selected(step, count(session, record, None), request, eligible)
        with trace.step("near", near.detail) as step:
            step.rows, served = eligible, Served()
            found = near.run(request.queries, served)
            step.detail += served.detail
    else:
        with trace.step("select") as step:
            chosen = candidates(session, record, request.where)
            eligible = sum(one.eligible for one in chosen)
            _selected(step, count(session, record, None), request, eligible)
        if isinstance(request.kind, Tokens):
            found = _search_tokens(request, request.kind, chosen, trace)
        else:
            found, highlighters = _search_inverted(session, record, request, chosen, trace)
    k = request.k
    if k is not None and all(len(rows) >= k for _, rows in found):
        whys = [Completeness(True)] * len(found)
    else:
        lacking = {}
        if k is not None and isinstance(request.kind, Dense):
            lacking[request.name] = without_vector(candidates(session, record, request.where), request.name)
        filtered = None if request.where is None else eligible
        asked = _Asked(k, count(session, record, None), filtered, request.radius, lacking)
        whys = [asked.why(len(rows)) for _, rows in found]
    if request.remarks:
        whys = [_remarked(why, request.remarks) for why in whys]
    explained = None
    if isinstance(request.kind, Tokens):
        explained = [(request.name, request.kind, query) for query in request.queries]
    return _collect(session, record, found, request.fields, whys, highlighters, trace, explained)


def _selected(step: Step, rows: int, request: Request, eligible: int) -> None:
    step.rows = eligible
    step.detail = "no filter" if request.where is None else f"filter selects {eligible / max(rows, 1):.2%}"


def _near(session: Session, record: CollectionRecord, request: Request, dense: Dense) -> tuple[int, NearSearch]:
    """How many rows may be found, and their search; without a filter it is kept for as long as nothing is committed."""

    def make() -> tuple[int, NearSearch]:
        chosen = candidates(session, record, request.where)
        near = NearSearch(chosen, request.name, dense, request.k, request.radius, request.effort)
        return sum(one.eligible for one in chosen), near

    if request.where is not None or not all_ready():
        return make()
    return session.planned((record.cid, request.name, request.k, request.radius, request.effort), make)


def _search_tokens(request: Request, kind: Tokens, chosen: list[Candidates], trace: Trace) -> Found:
    with trace.step("near", how_tokens(chosen, request.name, kind)) as step:
        step.rows, served = sum(one.eligible for one in chosen), Served()
        found = [
            search_tokens(chosen, request.name, kind, q, request.k, request.radius, served) for q in request.queries
        ]
        step.detail += served.detail
        return found


def _search_inverted(
    session: Session, record: CollectionRecord, request: Request, chosen: list[Candidates], trace: Trace
) -> tuple[Found, list[Mapping[str, Callable[[str], list[Span]]]]]:
    assert isinstance(request.kind, (Text, Sparse))
    kind = request.kind
    highlighters: list[Mapping[str, Callable[[str], list[Span]]]] = [{}] * len(request.queries)
    with trace.step("match" if isinstance(kind, Text) else "sparse") as step:
        sources = inverted.sources_of(session, record, chosen, request.name, kind)
        step.detail = f"inverted index of {request.name!r}, {len(sources)} parts"
        weights = None
        if isinstance(kind, Text):
            terms = [inverted.text_terms(text, kind, "any", sources) for text in request.queries]
            highlighters = [{request.name: inverted.highlighter(kind, [one])} for one in terms]
        else:
            terms = [
                inverted.Terms(tuple(inverted.Clause((int(key),), (1.0,), 1, 0) for key in keys))
                for keys, _ in request.queries
            ]
            weights = [w for _, w in request.queries]
        step.rows = inverted.visited(sources, terms)
        found = inverted.search_terms(session, sources, request.name, kind, terms, weights, "any", request.k)
    if request.radius is not None:
        found = [(s[s >= request.radius], r[s >= request.radius]) for s, r in found]
    return found, highlighters


def run_query(
    session: Session,
    record: CollectionRecord,
    query: Query,
    *,
    where: Node | None,
    fields: Sequence[str],
    queries_of: Callable[[Any, Dense], Array],
) -> Hits:
    """Run a query tree and copy what it found; without a limit it returns 10 rows."""
    trace = Trace("query")
    limited, limit = _limited(query)
    execution = Execution(session, record, trace, where, queries_of)
    result = execution.run(limited, None)
    found_rows = len(result.rows)
    if isinstance(query, Expanded):
        found_rows -= sum(row in result.brought for row in result.rows.tolist())
    short = limit is not None and found_rows < limit
    eligible = None if where is None else execution.eligible
    asked = _Asked(limit, count(session, record, None), eligible, lacking=execution.lacking() if short else {})
    why = asked.why(found_rows)
    if execution.remarks:
        why = _remarked(why, execution.remarks)
    found = [(result.scores, result.rows)]
    explained = None if execution.tokens is None else [execution.tokens]
    hits = _collect(session, record, found, fields, [why], [execution.highlighters], trace, explained)[0]
    if result.brought:
        bringing = np.unique(list(result.brought.values()))
        ids = dict(zip(bringing.tolist(), fetch(session, record, bringing.astype(np.uint64), ())[0], strict=True))
        by = [result.brought.get(row) for row in result.rows.tolist()]
        hits.brought_by = [None if row is None else decode_id(ids[row]) for row in by]
    return hits


def _limited(query: Query) -> tuple[Query, int | None]:
    """A query that returns 10 rows where it says no other number, before any are brought; and that number."""
    if isinstance(query, Expanded):
        child, limit = _limited(query.child)
        return replace(query, child=child), limit
    limited = query if isinstance(query, Limited) and query.count is not None else query.limit(DEFAULT_LIMIT)
    return limited, None if limited.skip else limited.count


def _remarked(why: Completeness, remarks: Sequence[str]) -> Completeness:
    return Completeness(why.complete, "; ".join([*remarks, *([why.why] if why.why else [])]))


def query_rows(
    session: Session,
    record: CollectionRecord,
    query: Query,
    *,
    where: Node | None,
    queries_of: Callable[[Any, Dense], Array],
) -> Array:
    """Row ids of all rows that a query finds, best first: uint64."""
    execution = Execution(session, record, Trace("query"), where, queries_of)
    return execution.run(query, None).rows.astype(np.uint64)


def _collect(
    session: Session,
    record: CollectionRecord,
    found: Found,
    fields: Sequence[str],
    whys: Sequence[Completeness],
    highlighters: Sequence[Mapping[str, Callable[[str], list[Span]]]],
    trace: Trace,
    explained: Sequence[tuple[str, Tokens, Array]] | None = None,
) -> BatchHits:
    """Copy ids and payload, and the tokens that explain hits: the field of each query, its type and the query."""
    with trace.step("fetch", f"{len(fields)} fields") as step:
        rows = found[0][1] if len(found) == 1 else np.concatenate([np.empty(0, np.int64), *(r for _, r in found)])
        step.rows = len(rows)
        ids, table = fetch(session, record, rows.view(np.uint64), fields)
    explanation: Explanation = trace.finish(len(rows))
    json_fields = [name for name in fields if isinstance(record.schema.fields[name], Json)]
    users = decode_ids(ids)
    out, start = [], 0
    for number, ((scores, mine), why, find) in enumerate(zip(found, whys, highlighters, strict=True)):
        stop = start + len(mine)
        matches = None if explained is None else matcher(session, record, *explained[number], mine)
        payload = table.slice(start, stop - start) if fields else table
        out.append(Hits(users[start:stop], scores, payload, why, explanation, find, json_fields, matches))
        start = stop
    return BatchHits(out)


@dataclass(frozen=True)
class _Asked:
    """What a result is measured by.

    Attributes
    ----------
    k : hits asked for; None is all
    rows : those of the collection
    eligible : those that the filter selects, or None where there is no filter
    radius : smallest score, or None
    lacking : eligible rows without a vector, per dense vector that was searched
    """

    k: int | None
    rows: int
    eligible: int | None
    radius: float | None = None
    lacking: Mapping[str, int] = field(default_factory=dict)

    def why(self, found: int) -> Completeness:
        """Why there are fewer hits than asked for."""
        if self.k is None or found >= self.k:
            return Completeness(True)
        if self.eligible is None:
            parts = [f"asked for {self.k}, the collection has {self.rows} rows"]
        else:
            parts = [f"asked for {self.k}, the filter selects {self.eligible} of {self.rows} rows"]
        parts += [f"{count} of them without a vector {name!r}" for name, count in self.lacking.items() if count]
        if self.radius is not None:
            parts.append(f"{found} of them with a score of at least {self.radius:g}")
        elif found != (self.rows if self.eligible is None else self.eligible) - sum(self.lacking.values()):
            parts.append(f"{found} of them match")
        return Completeness(True, ", ".join(parts))
