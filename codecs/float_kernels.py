"""Kernels over rows of floats. Addresses are raw: the caller has checked shapes, types and contiguity.

A row is scored by one sequence of operations wherever it lies, so its score has the same bits alone, in a
batch, in the tail and in a segment. Metrics: 0 dot, 1 cosine (the query is normalised), 2 squared L2. Kinds of
rows: 0 float32, 1 float16, 2 bfloat16. ``biases`` are added to the scores of each query.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import (
    add,
    greater_mask,
    inline,
    kernel,
    load_bf16,
    load_f16,
    load_f32,
    load_one_bf16,
    load_one_f16,
    load_one_f32,
    load_one_u8,
    lowest_bit,
    mul,
    multiply_add,
    prefetch,
    splat,
    sub,
    total,
    zeros,
)
from gingham.codecs.topk_kernels import sift
from gingham.codecs.topk_kernels import sort_heaps as sort_heaps


@inline
def _dot_f32(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(4 * j)
        a = multiply_add(load_f32(x + o), load_f32(q + o), a)
        b = multiply_add(load_f32(x + o + uint64(32)), load_f32(q + o + uint64(32)), b)
        c = multiply_add(load_f32(x + o + uint64(64)), load_f32(q + o + uint64(64)), c)
        d = multiply_add(load_f32(x + o + uint64(96)), load_f32(q + o + uint64(96)), d)
        j += 32
    while j + 8 <= dim:
        a = multiply_add(load_f32(x + uint64(4 * j)), load_f32(q + uint64(4 * j)), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        s += load_one_f32(x + uint64(4 * j)) * load_one_f32(q + uint64(4 * j))
        j += 1
    return s


@inline
def _dot_f16(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(2 * j)
        p = uint64(4 * j)
        a = multiply_add(load_f16(x + o), load_f32(q + p), a)
        b = multiply_add(load_f16(x + o + uint64(16)), load_f32(q + p + uint64(32)), b)
        c = multiply_add(load_f16(x + o + uint64(32)), load_f32(q + p + uint64(64)), c)
        d = multiply_add(load_f16(x + o + uint64(48)), load_f32(q + p + uint64(96)), d)
        j += 32
    while j + 8 <= dim:
        a = multiply_add(load_f16(x + uint64(2 * j)), load_f32(q + uint64(4 * j)), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        s += load_one_f16(x + uint64(2 * j)) * load_one_f32(q + uint64(4 * j))
        j += 1
    return s


@inline
def _dot_bf16(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(2 * j)
        p = uint64(4 * j)
        a = multiply_add(load_bf16(x + o), load_f32(q + p), a)
        b = multiply_add(load_bf16(x + o + uint64(16)), load_f32(q + p + uint64(32)), b)
        c = multiply_add(load_bf16(x + o + uint64(32)), load_f32(q + p + uint64(64)), c)
        d = multiply_add(load_bf16(x + o + uint64(48)), load_f32(q + p + uint64(96)), d)
        j += 32
    while j + 8 <= dim:
        a = multiply_add(load_bf16(x + uint64(2 * j)), load_f32(q + uint64(4 * j)), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        s += load_one_bf16(x + uint64(2 * j)) * load_one_f32(q + uint64(4 * j))
        j += 1
    return s


@inline
def _square(v, acc):
    return multiply_add(v, v, acc)


@inline
def _l2_f32(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(4 * j)
        a = _square(sub(load_f32(x + o), load_f32(q + o)), a)
        b = _square(sub(load_f32(x + o + uint64(32)), load_f32(q + o + uint64(32))), b)
        c = _square(sub(load_f32(x + o + uint64(64)), load_f32(q + o + uint64(64))), c)
        d = _square(sub(load_f32(x + o + uint64(96)), load_f32(q + o + uint64(96))), d)
        j += 32
    while j + 8 <= dim:
        a = _square(sub(load_f32(x + uint64(4 * j)), load_f32(q + uint64(4 * j))), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        t = load_one_f32(x + uint64(4 * j)) - load_one_f32(q + uint64(4 * j))
        s += t * t
        j += 1
    return s


@inline
def _l2_f16(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(2 * j)
        p = uint64(4 * j)
        a = _square(sub(load_f16(x + o), load_f32(q + p)), a)
        b = _square(sub(load_f16(x + o + uint64(16)), load_f32(q + p + uint64(32))), b)
        c = _square(sub(load_f16(x + o + uint64(32)), load_f32(q + p + uint64(64))), c)
        d = _square(sub(load_f16(x + o + uint64(48)), load_f32(q + p + uint64(96))), d)
        j += 32
    while j + 8 <= dim:
        a = _square(sub(load_f16(x + uint64(2 * j)), load_f32(q + uint64(4 * j))), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        t = load_one_f16(x + uint64(2 * j)) - load_one_f32(q + uint64(4 * j))
        s += t * t
        j += 1
    return s


@inline
def _l2_bf16(x, q, dim):
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = int64(0)
    while j + 32 <= dim:
        o = uint64(2 * j)
        p = uint64(4 * j)
        a = _square(sub(load_bf16(x + o), load_f32(q + p)), a)
        b = _square(sub(load_bf16(x + o + uint64(16)), load_f32(q + p + uint64(32))), b)
        c = _square(sub(load_bf16(x + o + uint64(32)), load_f32(q + p + uint64(64))), c)
        d = _square(sub(load_bf16(x + o + uint64(48)), load_f32(q + p + uint64(96))), d)
        j += 32
    while j + 8 <= dim:
        a = _square(sub(load_bf16(x + uint64(2 * j)), load_f32(q + uint64(4 * j))), a)
        j += 8
    s = total(add(add(a, b), add(c, d)))
    while j < dim:
        t = load_one_bf16(x + uint64(2 * j)) - load_one_f32(q + uint64(4 * j))
        s += t * t
        j += 1
    return s


@inline
def _score(x, kind, q, dim, metric, norms, row):
    if metric == 2:
        if kind == 0:
            return -_l2_f32(x, q, dim)
        if kind == 1:
            return -_l2_f16(x, q, dim)
        return -_l2_bf16(x, q, dim)
    if kind == 0:
        s = _dot_f32(x, q, dim)
    elif kind == 1:
        s = _dot_f16(x, q, dim)
    else:
        s = _dot_bf16(x, q, dim)
    if metric == 1:
        s *= load_one_f32(norms + uint64(4 * row))
    return s


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
            s = _score(x, kind, queries + uint64(4 * q * dim), dim, metric, norms, row) + biases[q]
            if s > scores[q, 0]:
                scores[q, 0] = s
                rows[q, 0] = row
                sift(scores, rows, q, int64(scores.shape[1]))


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
                for line in range(0, min(int64(width), int64(512)), 64):
                    prefetch(ahead + uint64(line))
            if rows[q, i] < 0:
                out[q, i] = float32(-np.inf)
            else:
                x = vectors + uint64(rows[q, i]) * width
                out[q, i] = _score(x, kind, query, dim, metric, norms, rows[q, i]) + biases[q]


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
