"""Running a query tree on a session: leaves find rows in the whole collection, steps above join and reorder them.

A node is asked for a number of rows and may be asked again for more: a step that drops rows deepens its
child until it has enough or there are no more, so scarcity never comes from a depth chosen too small.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.maxsim import QueryTokens
from gingham.embed.hyde import Written
from gingham.errors import InvalidArgument, NotFound, SchemaMismatch
from gingham.query import inverted, nodes
from gingham.query.ast import And
from gingham.query.ast import fields_of as filter_fields
from gingham.query.bind import bind
from gingham.query.effort import DEFAULT_EFFORT, Effort
from gingham.query.evaluate import evaluate
from gingham.query.expansion import late_interaction
from gingham.query.fetch import fetch
from gingham.query.fusion import diversify, fuse_lists, keep_per_group, ranked
from gingham.query.near import NearSearch, Served, without_vector
from gingham.query.neighbours import beside, check_places, in_reading_order
from gingham.query.read import read_vectors
from gingham.query.rerank import cross_encoded
from gingham.query.select import candidates, count, find
from gingham.query.tokens import how_tokens, maxsim_scores, search_tokens
from gingham.query.values import bind_value, evaluate_value
from gingham.query.values import fields_of as value_fields
from gingham.schema import Keyword, Sparse, Text, Tokens
from gingham.sparse_vectors import sparse_query
from gingham.token_vectors import tokens_query
from gingham.types import decode_id

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from gingham.query.ast import Node
    from gingham.query.explain import Trace
    from gingham.query.hits import Span
    from gingham.query.nodes import Query
    from gingham.query.select import Candidates
    from gingham.schema import Dense
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

DEFAULT_LIMIT = 10
FUSION_DEPTH = 1000
"""Rows of each branch that are fused by default, as in the evaluations of BEIR."""
REORDER_DEPTH = 100
"""Rows that boosts and diversity reorder by default."""
DEEPEN = 4


@dataclass(frozen=True)
class Ranked:
    """Rows found, best first.

    Attributes
    ----------
    scores, rows : float32 and int64 row ids
    exhausted : asking for more would give no more
    brought : of rows that came by ``expand`` alone, the row that brought each
    """

    scores: Array
    rows: Array
    exhausted: bool
    brought: dict[int, int] = field(default_factory=dict)


class Execution:
    """One query on one session."""

    def __init__(
        self,
        session: Session,
        record: CollectionRecord,
        trace: Trace,
        where: Node | None,
        queries_of: Callable[[Any, Any], Any],
    ) -> None:
        self._session = session
        self._record = record
        self._trace = trace
        self._where = where
        self._queries_of = queries_of
        self._candidates: dict[Node | None, list[Candidates]] = {}
        self._searched: dict[str, list[inverted.Terms]] = {}
        self._vectors: dict[str, None] = {}
        self.remarks: list[str] = []
        self.tokens: tuple[str, Tokens, Array] | None = None

    @property
    def highlighters(self) -> dict[str, Callable[[str], list[Span]]]:
        """For each text field that was searched, what finds its words in a text."""
        fields = self._record.schema.fields
        return {
            name: inverted.highlighter(kind, terms)
            for name, terms in self._searched.items()
            if isinstance(kind := fields[name], Text)
        }

    @property
    def eligible(self) -> int:
        """Rows that the filter of the whole query selects."""
        return sum(c.eligible for c in self._chosen())

    def lacking(self) -> dict[str, int]:
        """Rows that the filter of the whole query selects without a vector, per dense vector that was searched."""
        return {name: without_vector(self._chosen(), name) for name in self._vectors}

    def run(self, node: Query, want: int | None) -> Ranked:
        """Find the best rows of a node; ``want`` None asks for all."""
        match node:
            case nodes.Near():
                return self._near(node, want)
            case nodes.Match():
                return self._match(node, want)
            case nodes.NearSparse():
                return self._sparse(node, want)
            case nodes.Like():
                return self._like(node, want)
            case nodes.Fuse():
                return self._fuse(node, want)
            case nodes.Filtered():
                return self._filtered(node, want)
            case nodes.Boosted():
                return self._boosted(node, want)
            case nodes.Diversified():
                return self._diversified(node, want)
            case nodes.Reranked():
                return self._reranked(node, want)
            case nodes.Expanded():
                return self._expanded(node, want)
            case nodes.Grouped():
                return self._grouped(node, want)
            case nodes.Limited():
                return self._limited(node, want)
        raise InvalidArgument(f"a query expects near(), match(), sparse(), like() or fuse(), found {node!r:.80}")

    def _remark(self, source: object) -> None:
        """Remember once what a language model failed to add."""
        if isinstance(source, (Written, nodes.Fuse)):
            self.remarks += [remark for remark in source.remarks if remark not in self.remarks]

    def _chosen(self) -> list[Candidates]:
        if self._where not in self._candidates:
            with self._trace.step("select") as step:
                found = candidates(self._session, self._record, self._where)
                step.rows = sum(c.eligible for c in found)
                share = step.rows / max(count(self._session, self._record, None), 1)
                step.detail = "no filter" if self._where is None else f"filter selects {share:.2%}"
            self._candidates[self._where] = found
        return self._candidates[self._where]

    def _near(self, node: nodes.Near, want: int | None) -> Ranked:
        if isinstance(self._record.schema.vectors.get(node.field or ""), Tokens):
            return self._near_tokens(node, want)
        name, dense = self._record.schema.vector(node.field)
        self._remark(node.query)
        queries = self._queries_of(node.query, dense)
        if len(queries) != 1:
            raise InvalidArgument(f"near() expects one vector, found {len(queries)}; give query() a list of queries")
        depth = _depth(node.k, want)
        return self._near_vector(name, dense, queries, depth, node.radius, most=node.k, effort=node.effort)

    def _near_vector(
        self,
        name: str,
        dense: Dense,
        queries: Array,
        k: int | None,
        radius: float | None,
        *,
        most: int | None,
        effort: Effort = DEFAULT_EFFORT,
    ) -> Ranked:
        chosen = self._chosen()
        self._vectors[name] = None
        with self._trace.step("near") as step:
            step.rows = sum(c.eligible for c in chosen)
            near = NearSearch(chosen, name, dense, k, radius, effort)
            step.detail, served = near.detail, Served()
            ((scores, rows),) = near.run(queries, served)
            step.detail += served.detail
            return Ranked(scores, rows, _exhausted(len(rows), k, most))

    def _near_tokens(self, node: nodes.Near, want: int | None) -> Ranked:
        name, kind = self._record.schema.tokens(node.field)
        if isinstance(node.query, (str, Written)):
            self._remark(node.query)
            return self.run(late_interaction(node, self._queries_of(node.query, kind)), want)
        query, k = tokens_query(node.query, kind), _depth(node.k, want)
        self.tokens = (name, kind, query)
        chosen = self._chosen()
        with self._trace.step("near", how_tokens(chosen, name, kind)) as step:
            step.rows, served = sum(c.eligible for c in chosen), Served()
            scores, rows = search_tokens(chosen, name, kind, query, k, node.radius, served)
            step.detail += served.detail
            return Ranked(scores, rows, _exhausted(len(rows), k, node.k))

    def _reranked(self, node: nodes.Reranked, want: int | None) -> Ranked:
        by = node.by
        if isinstance(by, nodes.MaxSim):
            name, kind = self._record.schema.tokens(by.field)
            query = QueryTokens(tokens_query(by.query, kind))
            self.tokens = (name, kind, query.tokens)
            detail = f"MaxSim of {len(query.tokens)} tokens and those of {name!r}"
        else:
            name, text = by.field, self._record.schema.field(by.field)
            if not isinstance(text, (Text, Keyword)) or getattr(text, "many", False):
                raise SchemaMismatch(f"cross_encoder() expects a field of texts, found {name!r}, which is {text}")
            detail = f"{type(by.model).__name__} on {name!r}"
        with self._trace.step("rerank", detail) as step:
            child = self.run(node.child, node.k)
            found = child.rows[: node.k]
            step.rows = len(found)
            _, table = fetch(self._session, self._record, found.astype(np.uint64), (name,))
            column = table[name].combine_chunks()
            if isinstance(by, nodes.MaxSim):
                scores = maxsim_scores(column, kind, query)
            else:
                scores = cross_encoded(by, column.to_pylist())
            keep = scores > -np.inf
            return Ranked(*ranked(scores[keep], found[keep]), True, child.brought)

    def _match(self, node: nodes.Match, want: int | None) -> Ranked:
        name, kind = self._record.schema.searchable(node.field, Text)
        assert isinstance(kind, Text)
        if node.operator == "phrase":
            inverted.check_phrase(name, kind)
        k = _depth(node.k, want)
        self._remark(node.text)
        text = node.text.words if isinstance(node.text, Written) else node.text
        assert isinstance(text, str)
        chosen = self._chosen()
        with self._trace.step("match") as step:
            sources = inverted.sources_of(self._session, self._record, chosen, name, kind)
            terms = inverted.text_terms(text, kind, node.operator, sources)
            self._searched.setdefault(name, []).append(terms)
            step.rows = inverted.visited(sources, [terms])
            step.detail = f"BM25 of {node.operator} of {len(terms.clauses)} words in {name!r}, {len(sources)} parts"
            if not terms.clauses:
                self.remarks.append(f"the text has no words that {name!r} can be searched for")
            if sum(len(c.keys) for c in terms.clauses) > inverted.MAX_TERMS:
                self.remarks.append(f"of the text's words the {inverted.MAX_TERMS} rarest were searched for")
            ((scores, rows),) = inverted.search_terms(
                self._session, sources, name, kind, [terms], None, node.operator, k
            )
            return Ranked(scores, rows, _exhausted(len(rows), k, node.k))

    def _sparse(self, node: nodes.NearSparse, want: int | None) -> Ranked:
        name, kind = self._record.schema.searchable(node.field, Sparse)
        keys, weights = sparse_query(node.query)
        k = _depth(node.k, want)
        chosen = self._chosen()
        with self._trace.step("sparse") as step:
            sources = inverted.sources_of(self._session, self._record, chosen, name, kind)
            step.detail = f"inner product of {len(keys)} dimensions of {name!r}, {len(sources)} parts"
            terms = inverted.Terms(tuple(inverted.Clause((int(key),), (1.0,), 1, 0) for key in keys))
            step.rows = inverted.visited(sources, [terms])
            ((scores, rows),) = inverted.search_terms(self._session, sources, name, kind, [terms], [weights], "any", k)
            return Ranked(scores, rows, _exhausted(len(rows), k, node.k))

    def _like(self, node: nodes.Like, want: int | None) -> Ranked:
        name, dense = self._record.schema.vector(node.field)
        given = [*node.ids, *node.unlike]
        found = find(self._session, self._record, given)
        missing = [encoded for encoded in given if encoded not in found]
        if missing:
            raise NotFound(f"like() expects ids of stored rows, found none with id {decode_id(missing[0])!r}")
        examples = np.array([found[encoded] for encoded in given], np.uint64)
        vectors = read_vectors(self._session, self._record, name, examples).astype(np.float32)
        if np.isnan(vectors).any():
            raise InvalidArgument(f"like() expects rows that have a vector {name!r}, found one without")
        if dense.metric == "cosine":
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        query = vectors[: len(node.ids)].mean(axis=0)
        if node.unlike:
            query = 2 * query - vectors[len(node.ids) :].mean(axis=0)
        k = _depth(node.k, want)
        wide = None if k is None else k + len(examples)
        all_found = self._near_vector(name, dense, query.reshape(1, -1).astype(np.float32), wide, None, most=None)
        keep = ~np.isin(all_found.rows, examples.astype(np.int64))
        scores, rows = all_found.scores[keep][:k], all_found.rows[keep][:k]
        whole = all_found.exhausted and np.count_nonzero(keep) == len(rows)
        return Ranked(scores, rows, whole or (k is not None and k == node.k))

    def _fuse(self, node: nodes.Fuse, want: int | None) -> Ranked:
        self._remark(node)
        with self._trace.step("fuse") as step:
            depth = None if want is None else max(want, FUSION_DEPTH)
            branches = [self.run(branch, _leaf_depth(branch, depth)) for branch in node.branches]
            scores, rows = fuse_lists([(b.scores, b.rows) for b in branches], node.by)
            step.rows = len(rows)
            step.detail = f"{node.by}, {len(branches)} branches of up to {'all' if depth is None else depth} rows"
            return Ranked(scores, rows, all(b.exhausted for b in branches), _brought_alone(branches))

    def _filtered(self, node: nodes.Filtered, want: int | None) -> Ranked:
        outer = self._where
        inner = bind(node.condition, self._record.schema)
        self._where = both(outer, inner, self._record)
        try:
            return self.run(node.child, want)
        finally:
            self._where = outer

    def _boosted(self, node: nodes.Boosted, want: int | None) -> Ranked:
        value = bind_value(node.value, self._record.schema, bind)
        with self._trace.step("boost") as step:
            depth = _leaf_depth(node.child, None if want is None else max(want, REORDER_DEPTH))
            child = self.run(node.child, depth)
            step.detail = f"reorders the {len(child.rows)} rows below"
            names = sorted(value_fields(value, filter_fields))
            _, table = fetch(self._session, self._record, child.rows.astype(np.uint64), names)

            def column(name: str) -> pa.Array:
                return table[name].combine_chunks()

            def mask(filter_node: Node) -> Array:
                return evaluate(filter_node, column, len(child.rows))

            added = np.nan_to_num(evaluate_value(value, column, mask, len(child.rows)), posinf=0.0, neginf=0.0)
            step.rows = len(child.rows)
            scores, rows = ranked((child.scores + added).astype(np.float32), child.rows)
            return Ranked(scores, rows, child.exhausted, child.brought)

    def _diversified(self, node: nodes.Diversified, want: int | None) -> Ranked:
        name, _ = self._record.schema.vector(node.using)
        depth = node.candidates or _leaf_depth(node.child, None if want is None else max(want, REORDER_DEPTH))
        with self._trace.step("diversify", f"MMR by {name!r}, diversity {node.diversity:g}") as step:
            child = self.run(node.child, depth)
            step.rows = len(child.rows)
            vectors = read_vectors(self._session, self._record, name, child.rows.astype(np.uint64))
            order = diversify(child.scores, vectors, node.diversity, len(child.rows) if want is None else want)
            whole = child.exhausted or node.candidates is not None
            whole = whole and len(order) == len(child.rows)
            return Ranked(child.scores[order], child.rows[order], whole, child.brought)

    def _expanded(self, node: nodes.Expanded, want: int | None) -> Ranked:
        names = (node.parent, node.ordinal)
        check_places(self._record.schema, *names)
        with self._trace.step("expand", f"up to {node.neighbours} on each side by {node.ordinal!r}") as step:
            child = self.run(node.child, want)
            _, table = fetch(self._session, self._record, child.rows.astype(np.uint64), names)
            parents, ordinals = (table[name].combine_chunks() for name in names)
            runs = beside(self._session, self._chosen(), self._record.schema, names, parents, ordinals, node.neighbours)
            scores, rows, brought = in_reading_order(child.scores, child.rows, runs)
            step.rows = len(rows)
            return Ranked(scores, rows, child.exhausted, child.brought | brought)

    def _grouped(self, node: nodes.Grouped, want: int | None) -> Ranked:
        kind = self._record.schema.field(node.field)
        if getattr(kind, "many", False):
            raise SchemaMismatch(f"group() expects a field of single values, found the list field {node.field!r}")
        depth = None if want is None else want * DEEPEN
        while True:
            with self._trace.step("group", f"up to {node.per} for each value of {node.field!r}") as step:
                child = self.run(node.child, depth)
                step.rows = len(child.rows)
                _, table = fetch(self._session, self._record, child.rows.astype(np.uint64), (node.field,))
                codes = table[node.field].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
                keep = keep_per_group(codes, node.per)
            enough = want is None or np.count_nonzero(keep) >= want
            if enough or child.exhausted or depth is None:
                whole = child.exhausted or depth is None
                return Ranked(child.scores[keep], child.rows[keep], whole, child.brought)
            depth *= DEEPEN

    def _limited(self, node: nodes.Limited, want: int | None) -> Ranked:
        asked = want if node.count is None else node.count if want is None else min(want, node.count)
        child = self.run(node.child, None if asked is None else asked + node.skip)
        part = slice(node.skip, None if asked is None else node.skip + asked)
        scores, rows = child.scores[part], child.rows[part]
        whole = node.count is not None and len(rows) >= node.count
        whole = whole or (child.exhausted and len(child.rows) <= node.skip + len(rows))
        return Ranked(scores, rows, whole, child.brought)


def _depth(k: int | None, want: int | None) -> int | None:
    return k if want is None else want if k is None else min(k, want)


def _leaf_depth(node: Query, depth: int | None) -> int | None:
    """Rows asked of a node: those its leaf names, where they are more than the default."""
    while isinstance(node, (nodes.Filtered, nodes.Boosted)):
        node = node.child
    return depth if depth is None else max(depth, getattr(node, "k", None) or 0)


def _exhausted(found: int, k: int | None, most: int | None) -> bool:
    """Whether a leaf that was asked for ``k`` rows, and gives ``most`` at most, has no more."""
    return k is None or found < k or k == most


def _brought_alone(branches: list[Ranked]) -> dict[int, int]:
    """Rows that came by ``expand`` in every branch that has them."""
    brought = {row: by for branch in reversed(branches) for row, by in branch.brought.items()}
    if brought:
        for row in itertools.chain.from_iterable(set(b.rows.tolist()) - b.brought.keys() for b in branches):
            brought.pop(row, None)
    return brought


def both(first: Node | None, second: Node | None, record: CollectionRecord) -> Node | None:
    """The conjunction of two bound filters, in canonical form."""
    if first is None or second is None:
        return second if first is None else first
    return bind(And((first, second)), record.schema)
