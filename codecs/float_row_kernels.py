"""Inlined functions that score one row of floats: they stand inside the kernels of other files.

A row is scored by one sequence of operations wherever it lies, so its score has the same bits alone, in a batch, in
the tail and in a segment. Metrics: 0 dot, 1 cosine (the query is normalised), 2 squared L2. Kinds of rows: 0 float32,
1 float16, 2 bfloat16.
"""

from numba import int64, uint64

from gingham.codecs.intrinsics import (
    add,
    inline,
    load_bf16,
    load_f16,
    load_f32,
    load_one_bf16,
    load_one_f16,
    load_one_f32,
    multiply_add,
    sub,
    total,
    zeros,
)


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
def score_float_row(x, kind, q, dim, metric, norms, row):
    """The score of the floats at x; ``norms`` are read for cosine only."""
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
