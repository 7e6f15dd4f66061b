"""Searching lists of coded rows: the nearest lists are scanned, and candidates are scored precisely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.reservoirs import Reservoirs
from gingham.index.single_search import SingleSearch
from gingham.index.two_stage import OVERSAMPLE, QUERY_BLOCK, SLICE_BYTES, SPARE
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from gingham.codecs.protocol import SpanCodec
    from gingham.index.chunked_rows import ChunkedRows
    from gingham.index.coarse import Coarse
    from gingham.index.code_lists import CodeLists

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ListSearch:
    """Lists of coded rows.

    Attributes
    ----------
    codec, coarse, lists : of the rows
    n : rows
    live : bool (n,), those that may be found; None for all
    vectors : of all rows, to score candidates from; None takes the second level of the codec where there is one, else
        the scores of the codes
    """

    codec: SpanCodec
    coarse: Coarse
    lists: CodeLists
    n: int
    live: Array | None = None
    vectors: ChunkedRows | None = None

    def run(
        self,
        queries: Array,
        k: int,
        nprobe: int,
        *,
        oversample: float | None = None,
        allow: Array | None = None,
        fill: bool = True,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine; at least one
        k : at least 1, at most the rows that are allowed
        nprobe : lists scanned for each; more where ``allow`` leaves out rows
        oversample : candidates rescored, times k; None takes 4 k + 64
        allow : bool (n,), of live rows only; None allows all of these
        fill : scan all lists where those hold too few

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads
        """
        nlist, allowed = len(self.lists.sizes), self._live_places
        if allow is not None:
            # Of the rows near a query fewer are allowed: as many lie within a radius that grows with the root of that.
            nprobe = math.ceil(nprobe / np.sqrt(np.count_nonzero(allow) / self.n))
            allowed = self._places(allow)
        wide = min(nlist, nprobe)

        def block(part: slice) -> tuple[Array, Array]:
            scores, rows = self._searched(queries[part], k, wide, oversample, allowed)
            if fill and wide < nlist and (rows[:, -1] < 0).any():
                lacking = np.flatnonzero(rows[:, -1] < 0)
                again = np.ascontiguousarray(queries[part][lacking])
                scores[lacking], rows[lacking] = self._searched(again, k, nlist, oversample, allowed)
            return scores, rows

        if len(queries) <= QUERY_BLOCK:
            return block(slice(None))
        blocks = [slice(start, start + QUERY_BLOCK) for start in range(0, len(queries), QUERY_BLOCK)]
        pieces = run_blocks(block, blocks)
        return np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces])

    def _places(self, allow: Array) -> Array:
        places = self.lists.rows
        allowed: Array = allow[places] & (places >= 0)
        return allowed

    @cached_property
    def _live_places(self) -> Array | None:
        return None if self.live is None else self._places(self.live)

    @cached_property
    def _single(self) -> SingleSearch | None:
        if self.vectors is None:
            return None
        return SingleSearch(self.coarse, self.lists, self.vectors, max(1, SLICE_BYTES // self.codec.code_size))

    def _searched(
        self, queries: Array, k: int, nprobe: int, oversample: float | None, allow: Array | None
    ) -> tuple[Array, Array]:
        """The best rows of a block of queries among the allowed places of their lists."""
        from gingham.codecs import topk_kernels

        prepared = self.codec.prepare(queries)
        candidates = OVERSAMPLE * k + SPARE if oversample is None else math.ceil(max(k, k * oversample))
        if len(queries) == 1 and self._single is not None:
            found = self._single.run(queries, prepared, k, nprobe, min(self.n, candidates), allow)
            if found is not None:
                return found
        probes = self.coarse.probe(queries, nprobe, prepared)
        precise = self.vectors is not None or self.codec.levels == 2
        wanted, twice = min(self.n, candidates) if precise else k, self.lists.firsts is not None
        gathered = Reservoirs.empty(len(queries), 2 * wanted if twice else wanted)
        mask = 0 if allow is None else allow.ctypes.data
        for spans in self.lists.spans(probes, max(1, SLICE_BYTES // self.codec.code_size)):
            deadline.check()
            self.codec.scan_spans(prepared, self.lists.codes, spans, mask, gathered)
        scores, places = gathered.best()
        if twice:
            # A row has the same code in both of its lists, so that the best places hold half as many rows at least.
            counts = self.lists.drop_repeated(scores, places)
            scores, places = Reservoirs(wanted, scores, places, counts, gathered.floors).best()
        if self.vectors is not None:
            return self.vectors.nearest(queries, places, self.lists.rows, k)
        if precise:
            self.codec.refine(prepared, self.lists.codes, places, scores)
        rows = self.lists.rows_at(places)
        best, chosen = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        topk_kernels.keep_best(scores, rows, best, chosen)
        return best, chosen
