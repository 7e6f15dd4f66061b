"""Searching lists of coded rows: the nearest lists are scanned, and candidates are scored precisely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gingham import deadline
from gingham.codecs.protocol import BLOCK_ROWS
from gingham.index.two_stage import QUERY_BLOCK, SLICE_BYTES, search_codes
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.codecs.protocol import Codec, SpanCodec
    from gingham.index.coarse import Coarse
    from gingham.index.code_lists import CodeLists

    Array = np.ndarray[Any, Any]
    Rescore = Callable[[Array, Array], Array]


@dataclass(frozen=True, eq=False)
class _Probing:
    """Lists that queries probe, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: SpanCodec
    lists: CodeLists
    coarse: Coarse
    nprobe: int
    queries: int = QUERY_BLOCK
    exact: bool = True

    @property
    def most(self) -> int:
        return self.lists.codes.n

    def scan(self, queries: Array, prepared: Any, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        from gingham.codecs import topk_kernels

        spans = self.lists.spans(self.coarse.probe(queries, self.nprobe))
        scores, rows = np.repeat(floors[:, None], k, axis=1), np.full((len(queries), k), -1, np.int64)
        mask = 0 if allow is None else allow.ctypes.data
        for part in _slices(spans, max(1, SLICE_BYTES // self.codec.code_size)):
            deadline.check()
            self.codec.scan_spans(prepared, self.lists.codes, part, mask, scores, rows)
        topk_kernels.sort_heaps(scores, rows)
        return scores, rows


@dataclass(frozen=True, eq=False)
class ListSearch:
    """Lists of coded rows.

    Attributes
    ----------
    codec, coarse, lists : of the rows
    n : rows
    rescore : from queries and their listed rows, int64 (n_queries, m) with -1 for none, to precise scores; None takes
        the second level of the codec where there is one, else the scores of the codes
    """

    codec: Codec
    coarse: Coarse
    lists: CodeLists
    n: int
    rescore: Rescore | None = None

    def run(
        self, queries: Array, k: int, nprobe: int, *, oversample: float | None = None, allow: Array | None = None
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine; at least one
        k : at least 1, at most the rows that are allowed
        nprobe : lists scanned for each; more where ``allow`` leaves out rows, and all where these hold too few
        oversample : candidates rescored, times k; None takes 4 k + 64
        allow : bool (n,); None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads
        """
        eligible = self.n if allow is None else int(np.count_nonzero(allow))
        nlist, places = len(self.lists.sizes), self.lists.rows
        # Of the rows near a query fewer are allowed: as many lie within a radius that grows with the root of the share.
        wide = min(nlist, int(np.ceil(nprobe / np.sqrt(eligible / self.n))))
        allowed = None if allow is None else allow[places] & (places >= 0)

        def block(part: slice) -> tuple[Array, Array]:
            scores, rows = self._searched(queries[part], k, wide, oversample, allowed)
            lacking = np.flatnonzero(rows[:, -1] < 0)
            if len(lacking) and wide < nlist:
                again = np.ascontiguousarray(queries[part][lacking])
                scores[lacking], rows[lacking] = self._searched(again, k, nlist, oversample, allowed)
            return scores, rows

        blocks = [slice(start, start + QUERY_BLOCK) for start in range(0, len(queries), QUERY_BLOCK)]
        pieces = run_blocks(block, blocks)
        return np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces])

    def _searched(
        self, queries: Array, k: int, nprobe: int, oversample: float | None, allow: Array | None
    ) -> tuple[Array, Array]:
        """The best rows of a block of queries among the allowed places of their lists."""
        lists, precise = self.lists, self.rescore

        def rescore(asked: Array, places: Array) -> Array:
            assert precise is not None
            return precise(asked, np.where(places < 0, -1, lists.rows[places]))

        scanner = _Probing(cast("SpanCodec", self.codec), lists, self.coarse, nprobe)
        scores, places = search_codes(
            self.codec, lists.codes, queries, k, rescore=None if precise is None else rescore, oversample=oversample,
            allow=allow, scanner=scanner,
        )  # fmt: skip
        rows = np.where(places < 0, -1, lists.rows[places])
        if (scores[:, 1:] == scores[:, :-1]).any():
            order = np.lexsort((np.where(rows < 0, np.iinfo(np.int64).max, rows), -scores))
            scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        return scores, rows


def _slices(spans: Array, most: int) -> Iterator[Array]:
    """Spans of at most so many rows together, longer ones cut at whole blocks."""
    sizes = spans[:, 2] - spans[:, 1]
    if sizes.sum() <= most:
        yield spans
        return
    piece = max(1, most // BLOCK_ROWS) * BLOCK_ROWS
    counts = np.maximum(1, -(-sizes // piece))
    cut = np.repeat(spans, counts, axis=0)
    within = np.arange(len(cut)) - np.repeat(np.cumsum(counts) - counts, counts)
    cut[:, 1] += within * piece
    cut[:, 2] = np.minimum(cut[:, 2], cut[:, 1] + piece)
    ends = np.cumsum(cut[:, 2] - cut[:, 1]) // piece
    for part in np.split(cut, np.flatnonzero(np.diff(ends)) + 1):
        yield np.ascontiguousarray(part)
