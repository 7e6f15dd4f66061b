"""Searching a graph over codes: how a filter is applied, the walk, and precise scores for what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

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
SCANNED, FILTERED = 1 / 54, 3.0
"""Cost of scanning a row, and of one candidate of a filtered walk, in candidates of a plain walk: 13 ns, 2.1 us and
0.7 us (LVQ4x8 of 384 dimensions)."""
SPARE = 2.0
"""Times k: allowed rows that a plain walk should meet, so that it seldom meets fewer than k."""
SCAN_ROWS = 1 << 20
"""Rows times queries scored by one call of a scan: about 15 ms."""
ENTRIES = 16
"""Allowed rows that a filtered walk begins at, beside the nearest of the layers."""
SAMPLE, FAR_SHARE = 256, 0.02
"""A filtered walk whose k-th row is beaten by more than this share of so many random rows met none of the rows near the
query, which are not allowed: what is allowed lies in a shell around them, where no link leads nearer. It is scanned."""


@dataclass(frozen=True)
class Plan:
    """How a search goes about a filter.

    Attributes
    ----------
    way : ``"graph"``: a walk, and what is not allowed is dropped; ``"filtered"``: a walk over allowed rows that looks
        through the others; ``"scan"``: all allowed rows are scored
    ef : width of the beam
    """

    way: Literal["graph", "filtered", "scan"]
    ef: int

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
        return Plan("graph", ef)
    share = max(eligible, 1) / n
    wide = int(min(n, max(np.ceil(ef / np.sqrt(share)), np.ceil(SPARE * k / share))))
    costs = {"scan": SCANNED * eligible, "graph": float(wide), "filtered": FILTERED * ef}
    if eligible <= k or min(costs, key=costs.__getitem__) == "scan":
        return Plan("scan", ef)
    return Plan("graph", wide) if costs["graph"] <= costs["filtered"] else Plan("filtered", ef)


_NONE: Array = np.empty(0, np.int64)


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
        self, queries: Array, k: int, ef: int, *, allow: Array | None = None, hidden: Array | None = None
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine
        k : at most the rows
        ef : candidates scored precisely, at least k
        allow : bool (n,), C-contiguous; None allows all
        hidden : int64 (n_queries,), a row for each query that it is not to find, without ``allow``

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
        if len(queries) <= size:
            deadline.check()
            return self._search(queries, k, plan, allowed, hidden)
        blocks = [slice(start, start + size) for start in range(0, len(queries), size)]
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
        found = self._walk(prepared, plan, allowed, hidden)
        again = self._unsure(prepared, *found, k, plan, allowed) if hidden is None else _NONE
        best = self._best(queries, prepared, *found, k)
        if len(again):
            some = np.ascontiguousarray(queries[again])
            rows = self._everything if allowed is None else allowed.rows
            best[0][again], best[1][again] = self._scan(some, self._codec.prepare(some), k, plan.ef, rows)
        return best

    def _unsure(self, prepared: Any, scores: Array, rows: Array, k: int, plan: Plan, allowed: _Allowed | None) -> Array:
        """Queries whose walk found fewer rows than there are, or none of those near."""
        wanted = k if allowed is None else min(k, allowed.count)
        if allowed is None and len(rows) == 1 and rows[0, k - 1] >= 0:
            return _NONE
        if plan.way == "graph":
            lacking: Array = np.count_nonzero(rows >= 0, axis=1) < wanted if allowed is not None else rows[:, k - 1] < 0
            return np.flatnonzero(lacking)
        sample = np.tile(self._graph.nodes[-SAMPLE:].astype(np.int64), (len(rows), 1))
        theirs = np.empty(sample.shape, np.float32)
        self._codec.score(prepared, self._codes, sample, theirs)
        beaten = np.count_nonzero(theirs > scores[:, wanted - 1, None], axis=1)
        return np.flatnonzero((rows[:, wanted - 1] < 0) | (beaten > FAR_SHARE * sample.shape[1]))

    def _walk(self, prepared: Any, plan: Plan, allowed: _Allowed | None, hidden: Array | None) -> tuple[Array, Array]:
        coded = self._row_scores(prepared)
        if plan.way == "filtered":
            assert allowed is not None
            return self._graph.search(coded, plan.ef, allow=allowed.mask, entries=self._entries(allowed))
        scores, rows = self._graph.search(coded, plan.ef, hidden=NONE_HIDDEN if hidden is None else hidden)
        if allowed is not None:
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

    def _entries(self, allowed: _Allowed) -> Array:
        """Allowed rows, those of the layers first, which are a random sample."""
        nodes = self._graph.nodes[::-1][: 64 * QUERY_BLOCK]
        found = nodes[allowed.mask[nodes]][:ENTRIES]
        if not len(found):
            places = np.linspace(0, allowed.count - 1, min(ENTRIES, allowed.count)).astype(np.int64)
            found = allowed.rows[places]
        return np.unique(found)

    def _scan(self, queries: Array, prepared: Any, k: int, ef: int, listed: Array) -> tuple[Array, Array]:
        """Score every listed row."""
        coded, m = self._row_scores(prepared), len(queries)
        width, per_call = min(max(k, ef), len(listed)), max(1, SCAN_ROWS // m)
        pieces = []
        for start in range(0, len(listed), per_call):
            deadline.check()
            part = listed[start : start + per_call]
            scores, rows = np.empty((m, width), np.float32), np.empty((m, width), np.int64)
            _graph_kernels().scan_nodes(
                coded.kind, coded.address, coded.stride, coded.factors, coded.width, coded.bits, coded.queries,
                coded.parameters, part, np.empty((m, width + 1), np.uint64), np.empty(64, np.uint64), scores, rows,
            )  # fmt: skip
            pieces.append((scores, rows))
        scores, rows = pieces[0]
        if len(pieces) > 1:
            scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*pieces, strict=True))
        return self._best(queries, prepared, scores, rows, k)

    def _best(self, queries: Array, prepared: Any, scores: Array, rows: Array, k: int) -> tuple[Array, Array]:
        """Precise scores of candidates, and the best of them."""
        if self._rescore is not None:
            scores = self._rescore(queries, rows)
        elif self._codec.levels == 2:
            scores = np.empty(rows.shape, np.float32)
            self._codec.refine(prepared, self._codes, rows, scores)
        elif scores.shape[1] == k:
            return scores, rows
        best = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
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
