"""How many candidates a target recall needs of the graph of a segment: measured while it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.index.calibration import HELD_OUT, KS, Calibration, calibrate, without
from gingham.index.exact import merge_topk, search_exact
from gingham.index.graph_search import GraphSearch
from gingham.storage.codes import as_coded

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.protocol import Codec, Codes
    from gingham.index.graph import Graph
    from gingham.schema import Dense

    Array = np.ndarray[Any, Any]

FEWEST = 64
"""Rows held out below which others are searched for: fewer tell recall of 0.95 within no less than 0.02."""
BLOCK_ROWS = 32_768
"""Rows whose vectors are read at once."""


class GraphRecall:
    """Measures the recall of a graph of coded rows.

    Parameters
    ----------
    dense : the vector field
    rows : of the segment
    vectors_of : from a slice of the rows, or ascending positions, to their vectors and norms
    codec, codes : what walks score
    queries : float32 (m, dim), of length one under cosine, that are like those to come; None takes rows

    Attributes
    ----------
    found : None until something was measured
    """

    def __init__(
        self,
        dense: Dense,
        rows: int,
        vectors_of: Callable[[Any], tuple[Array, Array]],
        codec: Codec,
        codes: Codes,
        queries: Array | None = None,
    ) -> None:
        self._dense = dense
        self._rows = rows
        self._vectors_of = vectors_of
        self._codec = codec
        self._codes = codes
        self._queries = queries
        self.found: Calibration | None = None

    def held_out(self, graph: Graph, rows: Array) -> None:
        """Measure with rows that are not linked yet."""
        if self._queries is not None or len(rows) < FEWEST:
            return
        nodes = np.sort(rows)
        absent = np.zeros(self._rows, np.bool_)
        absent[nodes] = True
        self.found = self._measured(graph, self._vectors(nodes), absent, None)

    def finish(self, graph: Graph) -> None:
        """Measure with sample queries; or, where too few rows were held out, with rows that walks pass over."""
        if self._queries is not None:
            self.found = self._measured(graph, self._queries, np.zeros(self._rows, np.bool_), None)
        elif self.found is None:
            nodes = np.unique(np.linspace(0, self._rows - 1, HELD_OUT).astype(np.int64))
            self.found = self._measured(graph, self._vectors(nodes), np.zeros(self._rows, np.bool_), nodes)

    def _vectors(self, rows: Any) -> Array:
        return as_coded(self._dense, *self._vectors_of(rows))

    def _measured(self, graph: Graph, queries: Array, absent: Array, hidden: Array | None) -> Calibration | None:
        """A calibration on queries, those hidden being rows, which are no neighbours of themselves."""
        exact = nearest_rows(self._dense, self._rows, self._vectors_of, queries, KS[-1] + (hidden is not None), absent)
        if hidden is not None:
            exact = without(exact, hidden)
        if not len(queries) or not (exact[:, 0] >= 0).all():
            return None
        search = GraphSearch(graph, self._codec, self._codes)
        most = self._rows - int(np.count_nonzero(absent)) - (hidden is not None)
        return calibrate(
            exact, lambda _, ef: search.run(queries, min(ef, most), min(ef, most), hidden=hidden)[1], among=True
        )


def nearest_rows(
    dense: Dense,
    rows: int,
    vectors_of: Callable[[Any], tuple[Array, Array]],
    queries: Array,
    k: int,
    absent: Array | None = None,
) -> Array:
    """Offsets int64 (n_queries, k) of the nearest rows that have a vector and are not absent, -1 for none.

    Parameters
    ----------
    vectors_of : from a slice of the rows to their vectors and norms
    absent : bool (rows,), or None
    """
    best = [(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))]
    for start in range(0, rows, BLOCK_ROWS):
        vectors, norms = vectors_of(slice(start, start + BLOCK_ROWS))
        allow = ~np.isnan(norms)
        if absent is not None:
            allow &= ~absent[start : start + BLOCK_ROWS]
        if allow.any():
            found = search_exact(
                queries, np.ascontiguousarray(vectors), norms, k, metric=dense.metric, allow=allow, base=start
            )
            best = [merge_topk([*best, found], k)]
    return best[0][1]
