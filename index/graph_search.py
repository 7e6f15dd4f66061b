"""Searching a graph over codes: how a filter is applied, the walk, and precise scores for what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from gingham import deadline
from gingham.errors import InvalidArgument
from gingham.index.graph import NONE_HIDDEN
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from gingham.codecs.protocol import Codec, Codes
    from gingham.codecs.row_scores import RowScores
    from gingham.index.graph import Graph

    Array = np.ndarray[Any, Any]
    Rescore = Callable[[Array, Array], Array]

QUERY_BLOCK = 64
"""Queries prepared and searched at once, and the least that a second thread is asked for."""
BLOCK_CANDIDATES = 1 << 14
"""Candidates of one block: fewer queries where each looks at more, so that a kernel call takes some milliseconds."""
SCANNED, FILTERED = 1 / 90, 3.0
"""Cost of scanning a row, and of one candidate of a filtered walk, in candidates of a plain walk of 64: 13 ns, 3.6 us
and 1.2 us (LVQ4x8 of 384 dimensions)."""
SPARE = 2.0
"""Times k: allowed rows that a plain walk should meet, so that it seldom meets fewer than k."""
WIDER = 4
"""Times more candidates of a scan where the codes cannot tell which rows are the best."""
SCAN_ROWS = 1 << 20
"""Rows times queries scored by one call of a scan: about 15 ms."""
SAMPLE, NEAR_SHARE = 512, 1 / 16
"""Random rows that are scored before a filter is applied, and the share of them that lies near the query."""
ENTRIES = 16
"""Allowed rows that a filtered walk begins at, beside the nearest of the layers: the best of the sample."""
FAR_SHARE = 3 / 4
"""Rows near a query are allowed less often than others by this factor where what is allowed lies far from it, in a
shell around rows that are not, where no link leads nearer."""
FAR_SCAN = 1.5
"""Filtered walks that a scan may cost which takes the place of one for such a query."""


class Walker(Protocol):
    """What may walk over the graph in place of the CPU."""

    def takes(self, n_queries: int, ef: int) -> bool:
        """Whether it is to be asked."""
        ...

    def walk(self, coded: RowScores, ef: int) -> Array | None:
        """The best nodes of each query, int64 (n_queries, ef), best first, -1 pads; None where the CPU is to walk."""
        ...


@dataclass(frozen=True)
class Plan:
    """How a search goes about a filter.

    Attributes
    ----------
    way : ``"graph"``: a walk, and what is not allowed is dropped; ``"filtered"``: a walk over allowed rows that looks
        through the others; ``"scan"``: all allowed rows are scored
    ef : width of the beam
    narrow : width that was asked for
    """

    way: Literal["graph", "filtered", "scan"]
    ef: int
    narrow: int

    def far(self, eligible: int) -> Plan:
        """What to do for a query that what is allowed lies far from, so that a plain walk meets little of it."""
        if SCANNED * eligible <= FAR_SCAN * FILTERED * self.narrow:
            return Plan("scan", self.narrow, self.narrow)
        return Plan("filtered", self.narrow, self.narrow)

    def lacking(self, eligible: int) -> Plan:
        """What to do for a query that this found too few rows for."""
        return self.far(eligible) if self.way == "graph" else Plan("scan", self.narrow, self.narrow)

    def pays(self, n: int) -> bool:
        """Whether it is cheaper than scanning the codes of all n rows."""
        return self.way == "scan" or (FILTERED if self.way == "filtered" else 1.0) * self.ef < SCANNED * n


def plan_search(n: int, eligible: int, k: int, ef: int) -> Plan:
    """Choose the cheapest way to search n rows of which some are eligible.

    Notes
    -----
    Recall of a plain walk that drops what is not allowed is that of ef where its beam is wider by the square root of
    what is left out (measured at shares of 0.1 to 0.5).
    """
    if eligible == n:
        return Plan("graph", ef, ef)
    share = max(eligible, 1) / n
    wide = int(min(n, max(np.ceil(ef / np.sqrt(share)), np.ceil(SPARE * k / share))))
    costs = {"scan": SCANNED * eligible, "graph": float(wide), "filtered": FILTERED * ef}
    if eligible <= k or min(costs, key=costs.__getitem__) == "scan":
        return Plan("scan", ef, ef)
    return Plan("graph", wide, ef) if costs["graph"] <= costs["filtered"] else Plan("filtered", ef, ef)


class _Allowed:
    """Rows that may be found."""

    def __init__(self, mask: Array) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @cached_property
    def rows(self) -> Array:
        """Ascending uint32."""
        return np.flatnonzero(self.mask).astype(np.uint32)


class GraphSearch:
    """A graph whose nodes are coded rows.

    Parameters
    ----------
    codec, codes : whose rows can be scored one by one
    rescore : from queries and their listed rows, int64 (n_queries, m) with -1 for none, to precise scores; None takes
        the second level of the codec where there is one, else the scores of the codes
    present : bool (n,), the rows that the graph leads to; None where they are all
    """

    def __init__(
        self, graph: Graph, codec: Codec, codes: Codes, rescore: Rescore | None = None, *, present: Array | None = None
    ) -> None:
        self._present = present
        self._graph = graph
        self._codec = codec
        self._codes = codes
        self._rescore = rescore

    def run(
        self,
        queries: Array,
        k: int,
        ef: int,
        *,
        allow: Array | None = None,
        hidden: Array | None = None,
        walker: Walker | None = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine
        k : at most the rows
        ef : candidates scored precisely, at least k
        allow : bool (n,), C-contiguous; None allows all
        hidden : int64 (n_queries,), a row for each query that it is not to find, without ``allow``
        walker : may walk in place of the CPU, where all rows may be found; what it finds is scored as what the CPU does

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads where there
            are fewer allowed rows

        Notes
        -----
        A walk that finds fewer rows than are eligible, or none of those near the query, is followed by a scan.
        """
        n = len(self._graph)
        allowed = None if allow is None else _Allowed(allow)
        eligible = n if allowed is None else allowed.count
        if eligible == 0 or not len(queries):
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        plan = plan_search(n, eligible, k, ef)
        size = max(1, min(QUERY_BLOCK, BLOCK_CANDIDATES // plan.ef))
        asked = walker is not None and allow is None and hidden is None and walker.takes(len(queries), ef)
        if len(queries) <= size and not asked:
            deadline.check()
            return self._search(queries, k, plan, allowed, hidden)
        nodes = walker.walk(self._row_scores(self._codec.prepare(queries)), ef) if asked and walker else None
        blocks = [slice(start, start + size) for start in range(0, len(queries), size)]
        if nodes is not None:
            pieces = run_blocks(lambda part: self._of_nodes(queries[part], nodes[part], k, plan.ef), blocks)
        else:
            pieces = run_blocks(
                lambda part: self._search(queries[part], k, plan, allowed, None if hidden is None else hidden[part]),
                blocks,
            )
        return np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces])

    def _search(
        self, queries: Array, k: int, plan: Plan, allowed: _Allowed | None, hidden: Array | None
    ) -> tuple[Array, Array]:
        prepared = self._codec.prepare(queries)
        if plan.way == "scan":
            assert allowed is not None
            return self._scan(queries, prepared, k, plan.ef, allowed.rows)
        if allowed is not None:
            return self._search_allowed(queries, prepared, k, plan, allowed)
        hide = NONE_HIDDEN if hidden is None else hidden
        found = self._graph.search(self._row_scores(prepared), plan.ef, hidden=hide)
        best = self._best(queries, prepared, *found, k)
        return best if hidden is not None else self._completed(best, queries, k, plan.ef)

    def _completed(self, best: tuple[Array, Array], queries: Array, k: int, ef: int) -> tuple[Array, Array]:
        """What was found, and for queries of which that is fewer than k rows, what a scan finds."""
        if len(queries) == 1 and best[1][0, -1] >= 0:
            return best
        lacking = np.flatnonzero(best[1][:, -1] < 0)
        if len(lacking):
            some = np.ascontiguousarray(queries[lacking])
            best[0][lacking], best[1][lacking] = self._scan(some, self._codec.prepare(some), k, ef, self._everything)
        return best

    def _of_nodes(self, queries: Array, nodes: Array, k: int, ef: int) -> tuple[Array, Array]:
        """The best of nodes that a walker found."""
        prepared, nodes = self._codec.prepare(queries), np.ascontiguousarray(nodes)
        scores = self._precise(queries, prepared, nodes)
        if scores is None:
            scores = np.empty(nodes.shape, np.float32)
            self._codec.score(prepared, self._codes, nodes, scores)
        return self._completed(_best_of(scores, nodes, k), queries, k, ef)

    def _search_allowed(
        self, queries: Array, prepared: Any, k: int, plan: Plan, allowed: _Allowed
    ) -> tuple[Array, Array]:
        """Search among some rows: queries that these lie far from have a plan of their own."""
        far, entries = self._around(queries, prepared, allowed)
        best = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for chosen, way in ((~far, plan), (far, plan.far(allowed.count))):
            which = np.flatnonzero(chosen)
            if not len(which):
                continue
            some = queries if len(which) == len(queries) else np.ascontiguousarray(queries[which])
            theirs = prepared if len(which) == len(queries) else self._codec.prepare(some)
            best[0][which], best[1][which] = self._search_by(way, some, theirs, k, allowed, entries[which])
        return best

    def _search_by(
        self, way: Plan, queries: Array, prepared: Any, k: int, allowed: _Allowed, entries: Array
    ) -> tuple[Array, Array]:
        """What one way finds; for queries of which it finds fewer rows than there are, what another does."""
        if way.way == "scan":
            return self._scan(queries, prepared, k, way.ef, allowed.rows)
        found = self._best(queries, prepared, *self._walk(prepared, way, allowed, entries), k)
        lacking = np.flatnonzero(found[1][:, min(k, allowed.count) - 1] < 0)
        if len(lacking):
            some = np.ascontiguousarray(queries[lacking])
            other = way.lacking(allowed.count)
            best = self._search_by(other, some, self._codec.prepare(some), k, allowed, entries[lacking])
            found[0][lacking], found[1][lacking] = best
        return found

    def _around(self, queries: Array, prepared: Any, allowed: _Allowed) -> tuple[Array, Array]:
        """For each query whether what is allowed lies far from it, and allowed rows to begin at, uint32."""
        sample, m = self._graph.nodes[-SAMPLE:], len(queries)
        may = allowed.mask[sample]
        if not may.any():
            places = np.linspace(0, allowed.count - 1, min(ENTRIES, allowed.count)).astype(np.int64)
            return np.zeros(m, np.bool_), np.tile(allowed.rows[places], (m, 1))
        scores = np.empty((m, len(sample)), np.float32)
        self._codec.score(prepared, self._codes, np.tile(sample.astype(np.int64), (m, 1)), scores)
        near = max(1, int(NEAR_SHARE * len(sample)))
        nearest = np.argpartition(scores, -near, axis=1)[:, -near:] if near < len(sample) else np.arange(near)[None]
        met = np.count_nonzero(may[nearest], axis=1)
        scores[:, ~may] = -np.inf
        width = min(ENTRIES, int(np.count_nonzero(may)))
        begin = np.argpartition(scores, -width, axis=1)[:, -width:]
        expected = near * allowed.count / len(self._graph)
        return met < FAR_SHARE * expected, np.ascontiguousarray(sample[begin])

    def _walk(self, prepared: Any, plan: Plan, allowed: _Allowed, entries: Array) -> tuple[Array, Array]:
        coded = self._row_scores(prepared)
        if plan.way == "filtered":
            return self._graph.search(coded, plan.ef, allow=allowed.mask, entries=entries)
        scores, rows = self._graph.search(coded, plan.ef)
        out = (rows >= 0) & ~allowed.mask[rows]
        scores[out], rows[out] = -np.inf, -1
        return scores, rows

    def _row_scores(self, prepared: Any) -> RowScores:
        coded = self._codec.row_scores(prepared, self._codes)
        if coded is None:
            raise InvalidArgument(f"a graph expects a codec whose rows are scored one by one, found {self._codec.spec}")
        return coded

    @property
    def _everything(self) -> Array:
        rows: Array = np.arange(len(self._graph)) if self._present is None else np.flatnonzero(self._present)
        return rows.astype(np.uint32)

    def _scan(self, queries: Array, prepared: Any, k: int, ef: int, listed: Array) -> tuple[Array, Array]:
        """Score every listed row.

        Notes
        -----
        Candidates are as many as a walk has, unless a row left out could be among the k best if its code were as far
        off as those of the candidates are at most: then four times as many. Rows about as far away as each other,
        such as all that are far from a query of many dimensions, are told apart by precise scores alone.
        """
        coded, m = self._row_scores(prepared), len(queries)
        width, per_call = min(max(k, ef), len(listed)), max(1, SCAN_ROWS // m)
        pieces = []
        for start in range(0, len(listed), per_call):
            deadline.check()
            part = listed[start : start + per_call]
            wide = min(width, len(part))
            scores, rows = np.empty((m, wide), np.float32), np.empty((m, wide), np.int64)
            _graph_kernels().scan_nodes(
                coded.kind, coded.address, coded.stride, coded.factors, coded.width, coded.bits, coded.queries,
                coded.parameters, part, np.empty((m, wide + 1), np.uint64), np.empty(64, np.uint64), scores, rows,
            )  # fmt: skip
            pieces.append((scores, rows))
        scores, rows = pieces[0]
        left_out = scores[:, -1]
        if len(pieces) > 1:
            left_out = np.max([some[:, -1] for some, _ in pieces], axis=0)
            scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*pieces, strict=True))
        precise = self._precise(queries, prepared, rows)
        best = _best_of(scores if precise is None else precise, rows, k)
        if precise is not None and width < len(listed):
            short = np.flatnonzero(left_out + np.abs(precise - scores).max(axis=1) > best[0][:, -1])
            if len(short):
                some = np.ascontiguousarray(queries[short])
                again = self._scan(some, self._codec.prepare(some), k, WIDER * width, listed)
                best[0][short], best[1][short] = again
        return best

    def _best(self, queries: Array, prepared: Any, scores: Array, rows: Array, k: int) -> tuple[Array, Array]:
        """Precise scores of candidates, and the best of them."""
        precise = self._precise(queries, prepared, rows)
        if precise is None and scores.shape[1] == k:
            return scores, rows
        return _best_of(scores if precise is None else precise, rows, k)

    def _precise(self, queries: Array, prepared: Any, rows: Array) -> Array | None:
        """Precise scores of candidates; None where there are none but those of the codes."""
        if self._rescore is not None:
            return self._rescore(queries, rows)
        if self._codec.levels != 2:
            return None
        precise = np.empty(rows.shape, np.float32)
        self._codec.refine(prepared, self._codes, rows, precise)
        return precise


def _best_of(scores: Array, rows: Array, k: int) -> tuple[Array, Array]:
    best = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
    _kernels().keep_best(scores, rows, *best)
    return best


@cache
def _kernels() -> ModuleType:
    from gingham.codecs import topk_kernels

    return topk_kernels


@cache
def _graph_kernels() -> ModuleType:
    from gingham.index import graph_kernels

    return graph_kernels
