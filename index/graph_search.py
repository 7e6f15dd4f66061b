"""Searching a graph over codes: how a filter is applied, the walk, and precise scores for what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.errors import InvalidArgument
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from gingham.codecs.protocol import Codec, Codes
    from gingham.index.graph import Graph

    Array = np.ndarray[Any, Any]
    Rescore = Callable[[Array, Array], Array]

QUERY_BLOCK = 64
"""Queries prepared and searched at once, and the least that a second thread is asked for."""
BLOCK_CANDIDATES = 1 << 14
"""Candidates of one block: fewer queries where each looks at more, so that a kernel call takes some milliseconds."""
SCAN_PER_EF = 32
"""A filter that leaves fewer rows than this times ef is scanned: a walk scores about so many for each candidate."""
EXCLUDE_SHARE = 0.7
"""Share of allowed rows from which a walk over all rows, whose beam is wider by what is left out, beats looking through
the others."""
ENTRIES = 16
"""Allowed rows that a filtered walk begins at, beside the nearest of the layers."""
SCAN_ROWS = 1 << 18
"""Rows times queries scored by one call of a scan."""


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


def plan_search(n: int, eligible: int, k: int, ef: int) -> Plan:
    """Choose how to search n rows of which some are eligible."""
    if eligible <= max(k, SCAN_PER_EF * ef) and eligible < n:
        return Plan("scan", ef)
    if eligible >= EXCLUDE_SHARE * n:
        return Plan("graph", min(n, -(-ef * n // eligible)))
    return Plan("filtered", ef)


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

    def run(self, queries: Array, k: int, ef: int, *, allow: Array | None = None) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine
        k : at most the rows
        ef : candidates scored precisely, at least k
        allow : bool (n,), C-contiguous; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads where there
            are fewer allowed rows

        Notes
        -----
        A walk that finds fewer rows than are eligible is followed by a scan of them.
        """
        n = len(self._graph)
        eligible = n if allow is None else int(np.count_nonzero(allow))
        plan = Plan("graph", ef) if allow is None else plan_search(n, eligible, k, ef)
        if eligible == 0 or not len(queries):
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        size = max(1, min(QUERY_BLOCK, BLOCK_CANDIDATES // plan.ef))
        blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
        pieces = run_blocks(lambda some: self._search(some, k, plan, allow, eligible), blocks)
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces])

    def _search(self, queries: Array, k: int, plan: Plan, allow: Array | None, eligible: int) -> tuple[Array, Array]:
        prepared = self._codec.prepare(queries)
        if plan.way == "scan":
            assert allow is not None
            return self._scan(queries, prepared, k, plan.ef, allow)
        found = self._walk(prepared, plan, allow)
        scores, rows = self._best(queries, prepared, *found, k)
        if allow is None and rows[:, k - 1].min() >= 0:
            return scores, rows
        short = np.flatnonzero(rows[:, min(k, eligible) - 1] < 0)
        if allow is not None and plan.way == "graph":
            # A beam that is mostly not allowed saw too little of what is.
            few = np.count_nonzero(found[1] >= 0, axis=1) < max(k, plan.ef // 4)
            short = np.union1d(short, np.flatnonzero(few))
        if len(short):
            everything = np.ones(len(self._graph), np.bool_) if self._present is None else self._present
            everything = everything if allow is None else allow
            again = np.ascontiguousarray(queries[short])
            if plan.way == "graph" and allow is not None:
                scores[short], rows[short] = self._search(again, k, Plan("filtered", plan.ef), allow, eligible)
            else:
                scores[short], rows[short] = self._scan(again, self._codec.prepare(again), k, plan.ef, everything)
        return scores, rows

    def _walk(self, prepared: Any, plan: Plan, allow: Array | None) -> tuple[Array, Array]:
        coded = self._codec.row_scores(prepared, self._codes)
        if coded is None:
            raise InvalidArgument(f"a graph expects a codec whose rows are scored one by one, found {self._codec.spec}")
        if allow is None or plan.way == "graph":
            scores, rows = self._graph.search(coded, plan.ef)
            if allow is not None:
                out = (rows >= 0) & ~allow[rows]
                scores[out], rows[out] = -np.inf, -1
            return scores, rows
        scores, rows = self._graph.search(coded, plan.ef, allow=allow, entries=self._entries(allow))
        return scores, rows

    def _entries(self, allow: Array) -> Array:
        """Allowed rows, those of the layers first, which are a random sample."""
        nodes = self._graph.nodes[::-1][: 64 * QUERY_BLOCK]
        found = nodes[allow[nodes]][:ENTRIES]
        if not len(found):
            allowed = np.flatnonzero(allow)
            found = allowed[np.linspace(0, len(allowed) - 1, min(ENTRIES, len(allowed))).astype(np.int64)]
        return np.unique(found).astype(np.uint32)

    def _scan(self, queries: Array, prepared: Any, k: int, ef: int, allow: Array) -> tuple[Array, Array]:
        """Score every allowed row."""
        allowed = np.flatnonzero(allow)
        width = min(max(k, ef), len(allowed))
        scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        step = max(1, SCAN_ROWS // len(queries))
        for start in range(0, len(allowed), step):
            part = allowed[start : start + step]
            listed = np.repeat(part[None], len(queries), axis=0)
            found = np.empty(listed.shape, np.float32)
            self._codec.score(prepared, self._codes, listed, found)
            scores, listed = np.concatenate([scores, found], axis=1), np.concatenate([rows, listed], axis=1)
            kept = np.empty((len(queries), width), np.float32), np.empty((len(queries), width), np.int64)
            _kernels().keep_best(scores, listed, *kept)
            scores, rows = kept
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
