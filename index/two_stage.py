"""Search over encoded rows in two stages: codes find candidates, a more precise score decides among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gingham import deadline
from gingham.codecs.protocol import BLOCK_ROWS
from gingham.index.exact import merge_topk
from gingham.parallel import get_threads, run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.protocol import Codec, Codes

    Array = np.ndarray[Any, Any]
    Rescore = Callable[[Array, Array], Array]

ENCODE_ROWS = 4096
"""Rows encoded at once; a fixed number, so that codes have the same bytes for any number of threads."""
OVERSAMPLE, SPARE = 4, 64
"""Candidates that are scored precisely where the caller does not say: 4 k + 64. Those of the codes of 4 bits miss up to
2 % of 10 neighbours with 4 k alone (bench/matrix.py, decaying spectrum); 64 more cost 2 to 10 us."""
QUERY_BLOCK = 64
"""Queries prepared at once: their tables of a PQ of 96 bytes take 6 MiB."""
SLICE_BYTES = 64 << 20
"""Code bytes times queries that one kernel call reads, since nothing stops it: about 30 ms of the slowest codec."""
THREAD_BYTES = 4 << 20
"""Code bytes times queries below which a second thread does not pay."""


class Scanner(Protocol):
    """What scans codes in place of :meth:`gingham.codecs.protocol.Codec.scan`: a device, or lists that are probed.

    Attributes
    ----------
    queries : scanned at once
    most : rows that a scan finds for each query
    exact : whether scores have the bits of those of the codec
    """

    @property
    def queries(self) -> int:
        """At once."""
        ...

    @property
    def most(self) -> int:
        """Rows of a query."""
        ...

    @property
    def exact(self) -> bool:
        """Same bits."""
        ...

    def scan(self, queries: Array, prepared: Any, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        """The k best rows of each query that score above its floor, best first; (floor, -1) pads."""
        ...


def encode_rows(codec: Codec, n: int, rows_of: Callable[[slice], Array]) -> Codes:
    """Encode rows in the thread pool; the same bytes for any number of threads.

    Parameters
    ----------
    n : rows, at least 1
    rows_of : from a slice to float32 (rows, dim), C-contiguous
    """
    parts = run_blocks(
        lambda start: codec.encode(rows_of(slice(start, start + ENCODE_ROWS))), list(range(0, n, ENCODE_ROWS))
    )
    return parts[0] if len(parts) == 1 else codec.join(parts)


def search_codes(
    codec: Codec,
    codes: Codes,
    queries: Array,
    k: int,
    *,
    rescore: Rescore | None = None,
    oversample: float | None = None,
    bounded: bool = False,
    allow: Array | None = None,
    scanner: Scanner | None = None,
) -> tuple[Array, Array]:
    """Find the k best rows of each query.

    Parameters
    ----------
    codec, codes : trained, and what it encoded
    queries : float32 (n_queries, dim), C-contiguous and finite, of length one under cosine
    k : at least 1
    rescore : from a block of queries and their listed rows, int64 (n, m) with -1 for none, to precise scores; None
        takes the second level of the codec where there is one, else the scores of the codes
    oversample : candidates rescored, times k; None takes 4 k + 64
    bounded : rescore every row whose score could reach the k-th, by the codec's bound, in place of ``oversample``
    allow : bool (n,), C-contiguous; None allows all
    scanner : scans in place of the codec, unless more candidates are wanted than it can find

    Returns
    -------
    tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads

    Notes
    -----
    Time O(n_queries * n * code_size), and rescoring O(n_queries * k * oversample * dim).
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    k_found = min(k, codes.n)
    if k_found:
        step = QUERY_BLOCK if scanner is None else scanner.queries
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            search = _TwoStages(codec, codes, queries[block], rescore, allow, scanner)
            found = search.bounded(k_found) if bounded else search.fixed(k_found, oversample)
            scores[block, :k_found], rows[block, :k_found] = found
    return scores, rows


class _TwoStages:
    """One block of queries."""

    def __init__(
        self, codec: Codec, codes: Codes, queries: Array, rescore: Rescore | None, allow: Array | None,
        scanner: Scanner | None,
    ) -> None:  # fmt: skip
        self.codec = codec
        self.codes = codes
        self.queries = queries
        self.prepared = codec.prepare(queries)
        self.rescore = rescore
        self.allow = allow
        self.scanner = scanner

    def fixed(self, k: int, oversample: float | None) -> tuple[Array, Array]:
        """Rescore a fixed number of candidates."""
        precise = self.rescore is not None or self.codec.levels == 2 or not (self.scanner is None or self.scanner.exact)
        candidates = OVERSAMPLE * k + SPARE if oversample is None else max(k, k * oversample)
        wide = int(np.ceil(min(self.codes.n, candidates))) if precise else k
        scores, rows = self._scan(self.prepared, np.full((len(self.queries), wide), -np.inf, np.float32))
        return self._best(rows, k) if precise else (scores, rows)

    def bounded(self, k: int) -> tuple[Array, Array]:
        """Rescore all rows that could belong to the result.

        Notes
        -----
        The k-th precise score of the first candidates is a floor: a row that cannot score above it is not wanted.
        Heaps that start at the floor hold every other row, once they are not full.
        """
        optimistic = self.codec.optimistic(self.prepared)
        best = self.fixed(k, OVERSAMPLE)
        floors, wide = best[0][:, -1:], OVERSAMPLE * k
        if optimistic is None or wide >= self.codes.n:
            return best
        while wide < self.codes.n:
            wide = min(4 * wide, self.codes.n)
            _, rows = self._scan(optimistic, np.repeat(floors, wide, axis=1))
            if (rows[:, -1] < 0).all():
                break
        for mine, known in zip(rows, best[1], strict=True):
            mine[np.isin(mine, known)] = -1
        return merge_topk([best, self._best(rows, k)], k)

    def _best(self, rows: Array, k: int) -> tuple[Array, Array]:
        """Score listed rows precisely and keep the best."""
        from gingham.codecs import topk_kernels

        rows = np.sort(rows, axis=1)
        if self.rescore is not None:
            scores = self.rescore(self.queries, rows)
        else:
            scores = np.empty(rows.shape, np.float32)
            self.codec.refine(self.prepared, self.codes, rows, scores)
        best, chosen = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
        topk_kernels.keep_best(scores, rows, best, chosen)
        return best, chosen

    def _scan(self, prepared: Any, scores: Array) -> tuple[Array, Array]:
        """Rows above the given scores, best first, in heaps of that width."""
        wide = scores.shape[1]
        if self.scanner is not None and wide <= self.scanner.most:
            return self.scanner.scan(self.queries, prepared, scores[:, 0], wide, self.allow)
        pieces = run_blocks(lambda span: self._scan_span(prepared, scores.copy(), *span), self._spans())
        return pieces[0] if len(pieces) == 1 else merge_topk(pieces, wide)

    def _scan_span(self, prepared: Any, scores: Array, start: int, stop: int) -> tuple[Array, Array]:
        from gingham.codecs import topk_kernels

        rows = np.full(scores.shape, -1, np.int64)
        allow = 0 if self.allow is None else self.allow.ctypes.data
        step = _multiple(SLICE_BYTES // (self.codec.code_size * len(self.queries)))
        for low in range(start, stop, step):
            deadline.check()
            self.codec.scan(prepared, self.codes, low, min(low + step, stop), allow, scores, rows)
        topk_kernels.sort_heaps(scores, rows)
        return scores, rows

    def _spans(self) -> list[tuple[int, int]]:
        n = self.codes.n
        work = n * self.codec.code_size * len(self.queries)
        step = _multiple(-(-n // max(1, min(get_threads(), work // THREAD_BYTES))))
        return [(start, min(start + step, n)) for start in range(0, n, step)]


def _multiple(rows: int) -> int:
    return max(1, -(-rows // BLOCK_ROWS)) * BLOCK_ROWS
