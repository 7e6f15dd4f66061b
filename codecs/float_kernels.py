"""Kernels over rows of floats, as :mod:`.float_row_kernels` scores them; ``biases`` are added to scores of queries.

Addresses are raw: the caller has checked shapes, types and contiguity.
"""

import numpy as np
from numba import float32, int32, int64, uint32, uint64

from gingham.codecs.float_row_kernels import score_float_row
from gingham.codecs.intrinsics import (
    greater_mask,
    inline,
    kernel,
    load_f32,
    load_one_f32,
    load_one_u8,
    load_one_u32,
    lowest_bit,
    mul,
    prefetch,
    splat,
    sub,
)
from gingham.codecs.reservoir_kernels import make_room
from gingham.codecs.topk_kernels import offer_any, sift
from gingham.codecs.topk_kernels import sort_heaps as sort_heaps


@kernel(
    "void(uint64, int64, int64, int64, uint64, int64, int64, uint64, float32[::1], uint64,float32[:,::1], int64[:,::1])"
)
def scan_rows(vectors, kind, start, stop, queries, dim, metric, norms, biases, allow, scores, rows):
    """Put the best of rows start to stop into the heaps of all queries; ``allow`` 0 allows all."""
    width = uint64(dim * (2 if kind else 4))
    for row in range(start, stop):
        if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
            continue
        x = vectors + uint64(row) * width
        for q in range(scores.shape[0]):
            s = score_float_row(x, kind, queries + uint64(4 * q * dim), dim, metric, norms, row) + biases[q]
            if s > scores[q, 0]:
                scores[q, 0] = s
                rows[q, 0] = row
                sift(scores, rows, q, int64(scores.shape[1]))


@kernel(
    "void(uint64, int64, int64[:,::1], uint64, int64, int64, float32[::1], uint64, float32[:,::1], int64[:,::1],"
    "int64[::1], float32[::1], int64)"
)
def scan_row_spans(vectors, kind, spans, queries, dim, metric, biases, allow, scores, rows, counts, floors, k):
    """Gather spans of rows into the line of one query each; spans (m, 3): a query, start and stop.

    Lines are those of :mod:`gingham.codecs.reservoir_kernels`.
    """
    width, none = uint64(dim * (2 if kind else 4)), uint64(0)
    for j in range(len(spans)):
        q = spans[j, 0]
        query = queries + uint64(4 * q * dim)
        for row in range(spans[j, 1], spans[j, 2]):
            if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                continue
            x = vectors + uint64(row) * width
            s = score_float_row(x, kind, query, dim, metric, none, row) + biases[q]
            # Not a function that is inlined: numba would count references of its arrays in every turn, for 35 ns.
            if s > floors[q]:
                count = counts[q]
                scores[q, count], rows[q, count] = s, row
                counts[q] = count + 1
                if count + 1 == scores.shape[1]:
                    make_room(scores, rows, counts, floors, q, k)


@kernel("void(uint64, int64, uint64, int64, int64, uint64, float32[::1], int64[:,::1], float32[:,::1])")
def score_candidates(vectors, kind, queries, dim, metric, norms, biases, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    width = uint64(dim * (2 if kind else 4))
    for q in range(rows.shape[0]):
        query = queries + uint64(4 * q * dim)
        m = rows.shape[1]
        for i in range(m):
            if i + 2 < m and rows[q, i + 2] >= 0:
                ahead = vectors + uint64(rows[q, i + 2]) * width
                for line in range(0, min(int64(width), int64(2048)), 64):
                    prefetch(ahead + uint64(line))
            if rows[q, i] < 0:
                out[q, i] = float32(-np.inf)
            else:
                x = vectors + uint64(rows[q, i]) * width
                out[q, i] = score_float_row(x, kind, query, dim, metric, norms, rows[q, i]) + biases[q]


@kernel("void(uint64[::1], uint64[::1], int64, int64, uint64, int64, int64, int64[:,::1], float32[:,::1])")
def score_chunks(vectors, norms, chunk_rows, kind, queries, dim, metric, rows, out):
    """As :func:`score_candidates`, of rows that lie in chunks of ``chunk_rows`` each, the last of fewer."""
    width = uint64(dim * (2 if kind else 4))
    for q in range(rows.shape[0]):
        query = queries + uint64(4 * q * dim)
        m = rows.shape[1]
        for i in range(m):
            if i + 2 < m and rows[q, i + 2] >= 0:
                number = rows[q, i + 2] // chunk_rows
                ahead = vectors[number] + uint64(rows[q, i + 2] - number * chunk_rows) * width
                for line in range(0, min(int64(width), int64(2048)), 64):
                    prefetch(ahead + uint64(line))
            if rows[q, i] < 0:
                out[q, i] = float32(-np.inf)
            else:
                number = rows[q, i] // chunk_rows
                at = rows[q, i] - number * chunk_rows
                x = vectors[number] + uint64(at) * width
                out[q, i] = score_float_row(x, kind, query, dim, metric, norms[number], at)


@kernel(
    "void(uint64[::1], uint64[::1], int64, int64, uint64, int64, int64, int64[:,::1], int64, int64, uint64,"
    "float32[:,::1], int64[:,::1])",
    allocates=False,
)
def nearest_in_chunks(
    vectors, norms, chunk_rows, kind, queries, dim, metric, places, start, stop, row_at, scores, rows
):
    """Keep the best of listed rows: those in the columns ``start`` to ``stop`` of ``places``, -1 for none.

    Columns come in turn: the first ones empty the lines of ``scores`` and ``rows``, the last ones sort them. ``row_at``
    holds int32, the row in each place; vectors lie as in :func:`score_chunks`.
    """
    width, m = uint64(dim * (2 if kind else 4)), places.shape[1]
    for q in range(places.shape[0]):
        query = queries + uint64(4 * q * dim)
        if start == 0:
            for j in range(scores.shape[1]):
                scores[q, j], rows[q, j] = float32(-np.inf), -1
        for i in range(start, stop):
            if i + 2 < m and places[q, i + 2] >= 0:
                row = int64(int32(load_one_u32(row_at + uint64(4 * places[q, i + 2]))))
                number = row // chunk_rows
                ahead = vectors[number] + uint64(row - number * chunk_rows) * width
                for line in range(0, min(int64(width), int64(2048)), 64):
                    prefetch(ahead + uint64(line))
            if places[q, i] >= 0:
                row = int64(int32(load_one_u32(row_at + uint64(4 * places[q, i]))))
                number = row // chunk_rows
                x = vectors[number] + uint64(row - number * chunk_rows) * width
                s = score_float_row(x, kind, query, dim, metric, norms[number], row - number * chunk_rows)
                offer_any(s, row, scores, rows, q)
    if stop == m:
        sort_heaps(scores, rows)


@kernel("float32(uint64, int64, int64)")
def longest_square(norms, start, stop):
    """Greatest of the squared lengths of rows start to stop; rows without a vector do not count."""
    best = float32(0.0)
    for row in range(start, stop):
        norm = load_one_f32(norms + uint64(4 * row))
        if norm > best:
            best = norm
    return best


@inline
def _offer(scores, rows, q, s, row, limits):
    if s > scores[q, 0]:
        scores[q, 0] = s
        rows[q, 0] = row
        sift(scores, rows, q, int64(scores.shape[1]))
        limits[q] = scores[q, 0]


@kernel("void(uint64, int64, int64, int64, uint64, uint64, float32[::1], float32[:,::1], int64[:,::1])")
def collect(products, start, stop, metric, norms, allow, limits, scores, rows):
    """Put the best of a block of inner products (rows, queries) into the heaps, whose roots are the limits.

    Compared are q.x, q.x * norm for cosine, and 2 q.x - norm for L2, which orders like -|q - x|^2.
    """
    n_queries = scores.shape[0]
    two = splat(float32(2.0))
    bounds = uint64(limits.ctypes.data)
    for row in range(start, stop):
        if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
            continue
        line = products + uint64(4 * (row - start) * n_queries)
        norm = load_one_f32(norms + uint64(4 * row))
        many = splat(norm)
        q = int64(0)
        while q + 8 <= n_queries:
            v = load_f32(line + uint64(4 * q))
            if metric == 1:
                v = mul(v, many)
            elif metric == 2:
                v = sub(mul(v, two), many)
            mask = greater_mask(v, load_f32(bounds + uint64(4 * q)))
            while mask != 0:
                lane = lowest_bit(mask)
                mask &= mask - uint32(1)
                s = load_one_f32(line + uint64(4 * (q + lane)))
                if metric == 1:
                    s *= norm
                elif metric == 2:
                    s = s * float32(2.0) - norm
                _offer(scores, rows, q + lane, s, row, limits)
            q += 8
        while q < n_queries:
            s = load_one_f32(line + uint64(4 * q))
            if metric == 1:
                s *= norm
            elif metric == 2:
                s = s * float32(2.0) - norm
            _offer(scores, rows, q, s, row, limits)
            q += 1
