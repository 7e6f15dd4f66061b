"""Exact search over an array of vectors.

Scores are greater for nearer rows under every metric: q.x for dot, q.x / (|q| |x|) for cosine (0 where either
is zero), -|q - x|^2 for l2. Ties go to the lower row. A row of NaN has no vector and is never found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.index.warmup import ready_kernels
from gingham.parallel import get_threads, one_blas_thread, run_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

KERNELS = "gingham.codecs.float_kernels"
DIRECT_QUERIES = 4
"""Up to this many queries the scan kernel beats BLAS, which reads the rows once but writes all products."""
BLOCK_ROWS = 1024
BLOCK_QUERIES = 256
"""A block of products takes 1 MiB; of 256, 512 and 1024 rows the last was fastest by 1 to 2 % (bench/exact.py)."""
GATHER_SHARE = 0.1
"""Below this share of allowed rows they are scored one by one instead of masked."""
THREAD_ROWS = 16_384
"""Rows below which a second thread does not pay."""
SLICE_BYTES = 64 << 20
"""Vector bytes times queries that one kernel call reads, since nothing stops it: 2 ms at 384 dimensions, and 320 ms
where a disk has to bring them at 200 MB/s. Slices go on with the heaps of the one before, so that each costs a call
and no merging, and changes no bit of the result: cutting 100,000 rows of 384 dimensions cost 0 to 1 % of their time."""
ROW_BYTES = 64
"""A shorter row takes as long as one of so many bytes."""
NUMPY_VALUES = 1 << 22
"""Values that NumPy takes to float64 at once while kernels are cold."""
SLACK = 16
_LONGEST = float(np.sqrt(np.finfo(np.float32).max))
"""Longest vector whose squared length float32 holds, 1.8e19."""

METRIC_NUMBERS: dict[str, int] = {"dot": 0, "cosine": 1, "l2": 2}


def row_norms(vectors: Array, metric: Metric) -> Array:
    """What the metric needs of each row, float32 (n,): 1/|x| for cosine (0 for a zero row), |x|^2 for dot and l2.

    Notes
    -----
    Summed in float64 row by row, so a row's norm does not depend on the rows beside it.
    """
    out = np.empty(len(vectors), np.float32)
    if len(vectors) == 1 and metric == "cosine":
        square = float(np.square(vectors, dtype=np.float64).sum())
        if 1e-70 < square < 1e70:
            out[0] = 1 / math.sqrt(square)
            return out
    for start in range(0, len(vectors), 4096):
        deadline.check()
        block = vectors[start : start + 4096].astype(np.float64)
        np.multiply(block, block, out=block)
        squares = block.sum(axis=1)
        if metric == "cosine":
            roots = np.sqrt(squares)
            squares = np.divide(1.0, roots, out=roots.copy(), where=roots != 0)
        with np.errstate(over="ignore"):
            out[start : start + 4096] = squares
    return out


def unusable_rows(norms: Array, metric: Metric) -> Array:
    """Rows whose length float32 cannot compute with: too long to be squared, or, for cosine, too short to divide by.

    Parameters
    ----------
    norms : of :func:`row_norms`; NaN, where there is no vector, is usable
    """
    if metric == "cosine":
        return np.flatnonzero(np.isinf(norms) | ((norms > 0) & (norms < _LONGEST**-1)))
    return np.flatnonzero(np.isinf(norms))


def search_exact(
    queries: Array,
    vectors: Array,
    norms: Array,
    k: int,
    *,
    metric: Metric,
    allow: Array | None = None,
    base: int = 0,
    min_score: float | None = None,
) -> tuple[Array, Array]:
    """Find the k best rows of each query.

    Parameters
    ----------
    queries : float32 (n_queries, dim), C-contiguous and finite
    vectors : float32 or float16 (n, dim), C-contiguous, possibly read-only
    norms : float32 (n,) of :func:`row_norms`
    k : at least 1
    allow : bool (n,), the rows that may be found; None allows all
    base : added to the offsets
    min_score : rows below it are not found

    Returns
    -------
    tuple : scores float32 (n_queries, k), descending, and offsets int64 (n_queries, k); (-inf, -1) pads

    Notes
    -----
    Time O(n_queries * n * dim). BLAS only selects candidates; scores come from one fixed-order kernel. A
    query whose candidates are closer together than the rounding of BLAS is scanned by that kernel instead,
    so the result is exact.
    """
    queries = prepare_queries(queries, metric)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    if len(vectors) and len(queries):
        kernels = ready_kernels(KERNELS)
        if kernels is None:
            scores, rows = _search_numpy(queries, vectors, norms, k, metric, allow)
        else:
            scores, rows = _search_kernels(kernels, queries, vectors, norms, k, metric, allow)
    if min_score is not None:
        short = scores < np.float32(min_score)
        scores[short], rows[short] = -np.inf, -1
    rows[rows >= 0] += base
    return scores, rows


def prepare_queries(queries: Array, metric: Metric) -> Array:
    """Queries as the kernels take them: of length one for cosine, a zero query left as it is."""
    queries = np.ascontiguousarray(queries, np.float32)
    if metric != "cosine":
        return queries
    return queries * row_norms(queries, metric)[:, None]


def range_exact(
    query: Array,
    vectors: Array,
    norms: Array,
    *,
    metric: Metric,
    min_score: float,
    allow: Array | None = None,
    base: int = 0,
) -> tuple[Array, Array]:
    """Find all rows that score at least ``min_score``: scores descending, and their offsets."""
    rows = np.arange(len(vectors), dtype=np.int64) if allow is None else np.flatnonzero(allow)
    scores = score_rows(query, vectors, norms, rows, metric=metric)
    keep = scores >= np.float32(min_score)
    scores, rows = scores[keep], rows[keep]
    order = np.lexsort((rows, -scores))
    return scores[order], rows[order] + base


def score_rows(query: Array, vectors: Array, norms: Array, rows: Array, *, metric: Metric) -> Array:
    """Score listed rows against one query: float32 (m,); NaN for a row without a vector."""
    prepared = prepare_queries(query.reshape(1, -1), metric)
    kernels = ready_kernels(KERNELS)
    if kernels is None:
        return _score_numpy(prepared[0], vectors, norms, np.asarray(rows), metric)
    return _Rows(kernels, vectors, norms, metric).score(prepared[0], np.ascontiguousarray(rows, np.int64))


def score_listed(queries: Array, vectors: Array, rows: Array, *, norms: Array, metric: Metric) -> Array:
    """Score listed rows of several queries.

    Parameters
    ----------
    queries : of :func:`prepare_queries`
    rows : int64 (n_queries, m), C-contiguous; -1 scores -inf
    norms : of :func:`row_norms`; only cosine reads them

    Returns
    -------
    numpy.ndarray : float32 (n_queries, m)
    """
    from gingham.codecs import float_kernels

    out = np.empty(rows.shape, np.float32)
    _Rows(float_kernels, vectors, norms, metric).score_candidates(queries, rows, out)
    return out


def merge_topk(pieces: Sequence[tuple[Array, Array]], k: int) -> tuple[Array, Array]:
    """Merge (scores, rows) of shape (n_queries, k_i) into the k best: by score, then by row."""
    scores = np.concatenate([s for s, _ in pieces], axis=1)
    rows = np.concatenate([r for _, r in pieces], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    missing = k - scores.shape[1]
    if missing > 0:
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
    return scores, rows


class _Rows:
    """Vectors and norms as the kernels take them."""

    def __init__(self, kernels: ModuleType, vectors: Array, norms: Array, metric: Metric) -> None:
        self.kernels = kernels
        self.vectors = vectors
        self.norms = norms
        self.metric = METRIC_NUMBERS[metric]
        self.kind = int(vectors.dtype == np.float16)
        self.address = vectors.ctypes.data
        self.norms_address = norms.ctypes.data
        self.dim = vectors.shape[1]

    def score(self, query: Array, rows: Array) -> Array:
        out = np.empty((1, len(rows)), np.float32)
        self.score_candidates(query.reshape(1, -1), rows.reshape(1, -1), out)
        scores: Array = out[0]
        return scores

    def score_candidates(self, queries: Array, rows: Array, scores: Array) -> None:
        """Score the listed rows of each query: several queries a call, or several calls a query."""
        wide = max(rows.shape[1], 1)
        biases = np.zeros(len(queries), np.float32)
        n_rows = _rows_per_call(self.vectors)
        for block in _slices(0, len(queries), max(1, n_rows // wide)):
            for part in _slices(0, wide, n_rows):
                self.kernels.score_candidates(
                    self.address, self.kind, queries[block].ctypes.data, self.dim, self.metric, self.norms_address,
                    biases[block], rows[block, part], scores[block, part],
                )  # fmt: skip

    def scan(self, queries: Array, start: int, stop: int, k: int, allow: int) -> tuple[Array, Array]:
        scores, rows = _heaps(len(queries), k)
        address, biases = queries.ctypes.data, np.zeros(len(queries), np.float32)
        for part in _slices(start, stop, _rows_per_call(self.vectors, len(queries))):
            self.kernels.scan_rows(
                self.address, self.kind, part.start, part.stop, address, self.dim, self.metric,
                self.norms_address, biases, allow, scores, rows,
            )  # fmt: skip
        for block in _slices(0, len(queries), BLOCK_QUERIES):
            self.kernels.sort_heaps(scores[block], rows[block])
        return scores, rows


def _rows_per_call(vectors: Array, n_queries: int = 1) -> int:
    row = max(int(vectors.itemsize) * int(vectors.shape[1]), ROW_BYTES)
    return max(1, SLICE_BYTES // (row * n_queries))


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Slices of at most ``step``, each given out once the work may go on."""
    for low in range(start, stop, step):
        deadline.check()
        yield slice(low, min(low + step, stop))


def _heaps(n_queries: int, k: int) -> tuple[Array, Array]:
    return np.full((n_queries, k), -np.inf, np.float32), np.full((n_queries, k), -1, np.int64)


def _search_kernels(
    kernels: ModuleType,
    queries: Array,
    vectors: Array,
    norms: Array,
    k: int,
    metric: Metric,
    allow: Array | None,
) -> tuple[Array, Array]:
    if allow is not None:
        chosen = np.flatnonzero(allow)
        if len(chosen) < GATHER_SHARE * len(vectors):
            return _search_listed(kernels, queries, vectors, norms, k, metric, chosen)
        allow = np.ascontiguousarray(allow)
    spans = _spans(len(vectors))
    data = _Rows(kernels, vectors, norms, metric)
    mask = 0 if allow is None else allow.ctypes.data
    if len(queries) <= DIRECT_QUERIES:
        pieces = run_blocks(lambda span: data.scan(queries, *span, k, mask), spans)
        return pieces[0] if len(pieces) == 1 else merge_topk(pieces, k)
    with one_blas_thread():
        pieces = run_blocks(lambda span: _search_blas(data, queries, *span, k, mask), spans)
    return pieces[0] if len(pieces) == 1 else merge_topk(pieces, k)


def _spans(n: int) -> list[tuple[int, int]]:
    threads = max(1, min(get_threads(), n // THREAD_ROWS))
    step = -(-n // threads // BLOCK_ROWS) * BLOCK_ROWS or BLOCK_ROWS
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def _search_listed(
    kernels: ModuleType,
    queries: Array,
    vectors: Array,
    norms: Array,
    k: int,
    metric: Metric,
    chosen: Array,
) -> tuple[Array, Array]:
    """Search few rows: they are copied together first."""
    scores, rows = _heaps(len(queries), k)
    if len(chosen):
        some = np.empty((len(chosen), vectors.shape[1]), vectors.dtype)
        for part in _slices(0, len(chosen), _rows_per_call(vectors)):
            np.take(vectors, chosen[part], axis=0, out=some[part], mode="clip")  # "raise" would take it twice
        some_norms = np.ascontiguousarray(norms[chosen])
        scores, rows = _search_kernels(kernels, queries, some, some_norms, k, metric, None)
        rows = np.where(rows >= 0, chosen[rows], -1)
    return scores, rows


def _search_blas(data: _Rows, queries: Array, start: int, stop: int, k: int, mask: int) -> tuple[Array, Array]:
    """Exact top k of rows start to stop: candidates by BLAS, scores by the kernel, doubtful queries by a scan."""
    wide = min(k + max(SLACK, k // 2), stop - start)
    scores, rows = _heaps(len(queries), wide)
    for block in _slices(0, len(queries), BLOCK_QUERIES):
        _collect(data, queries[block], start, stop, mask, scores[block], rows[block])
    floors = scores[:, 0].copy()
    data.score_candidates(queries, rows, scores)
    out_scores, out_rows = merge_topk([(scores, rows)], k)
    out_rows[np.isneginf(out_scores)] = -1
    doubtful = _doubtful(data, queries, start, stop, floors, out_scores[:, -1])
    if len(doubtful):
        again = data.scan(np.ascontiguousarray(queries[doubtful]), start, stop, k, mask)
        out_scores[doubtful], out_rows[doubtful] = again
    return out_scores, out_rows


def _collect(data: _Rows, queries: Array, start: int, stop: int, mask: int, scores: Array, rows: Array) -> None:
    """Fill the heaps of some queries; rows by columns of queries is the faster shape for BLAS."""
    turned = np.ascontiguousarray(queries.T)
    products = np.empty((BLOCK_ROWS, len(queries)), np.float32)
    limits = scores[:, 0].copy()
    for part in _slices(start, stop, BLOCK_ROWS):
        block = data.vectors[part]
        if data.kind:
            block = block.astype(np.float32)
        np.dot(block, turned, out=products[: len(block)])
        data.kernels.collect(
            products.ctypes.data, part.start, part.stop, data.metric, data.norms_address, mask, limits, scores, rows
        )


def _doubtful(data: _Rows, queries: Array, start: int, stop: int, floors: Array, kth: Array) -> Array:
    """Queries for which a row that BLAS ranked below all candidates could still belong to the result.

    Notes
    -----
    A computed inner product differs from the exact one by at most about dim * eps * |q| |x| (Higham, Accuracy
    and Stability of Numerical Algorithms, section 3.1).
    """
    eps = data.dim * np.finfo(np.float32).eps
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
    bound, error = floors.astype(np.float64), 2 * eps * lengths
    if data.metric != METRIC_NUMBERS["cosine"]:
        longest = float(np.sqrt(data.kernels.longest_square(data.norms_address, start, stop)))
        error = error * longest
        if data.metric == METRIC_NUMBERS["l2"]:
            bound = bound - lengths**2
            error = 2 * error + eps * (longest**2 + lengths**2)
    return np.flatnonzero(np.isfinite(floors) & ~(kth > bound + error))


def _score_numpy(query: Array, vectors: Array, norms: Array, rows: Array, metric: Metric) -> Array:
    out = np.empty(len(rows), np.float32)
    wide = query.astype(np.float64)
    for part in _slices(0, len(rows), max(1, NUMPY_VALUES // vectors.shape[1])):
        block = vectors[rows[part]].astype(np.float64)
        if metric == "l2":
            out[part] = -np.square(block - query).sum(axis=1)
        elif metric == "cosine":
            out[part] = (block @ wide) * norms[rows[part]]
        else:
            out[part] = block @ wide
    return out


def _search_numpy(
    queries: Array, vectors: Array, norms: Array, k: int, metric: Metric, allow: Array | None
) -> tuple[Array, Array]:
    """The same search while kernels are cold: float64 products, exact to float32 rounding."""
    chosen = np.arange(len(vectors)) if allow is None else np.flatnonzero(allow)
    scores, rows = _heaps(len(queries), k)
    for part in _slices(0, len(chosen), max(1, NUMPY_VALUES // vectors.shape[1])):
        listed = chosen[part]
        found = np.stack([_score_numpy(q, vectors, norms, listed, metric) for q in queries])
        found[np.isnan(found)] = -np.inf
        listed = np.where(np.isneginf(found), -1, np.broadcast_to(listed, found.shape))
        scores, rows = merge_topk([(scores, rows), (found, listed)], k)
    rows[np.isneginf(scores)] = -1
    return scores, rows
