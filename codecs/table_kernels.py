"""Kernels over rows of codes that look partial scores up in tables of a query.

A row is a header of ``header`` bytes and ``m`` codes of 8, 12 or 16 bits, least bits first. Its score is the sum of its
table entries from the first code to the last, then what the header says, plus the bias of the query, in float32 and in
that order: the same bits alone, in a batch and listed. Headers: nothing; 4 bytes, a float32 that is added; 1 byte, the
number of one of 256 float32 ``lengths`` (an address, not read otherwise), which multiplies the sum.

Tables are float32 (groups, m, k, lanes): a group holds ``lanes`` queries, 1 or 8, side by side, so that one load serves
eight queries. Addresses are raw: the caller has checked shapes, types and contiguity.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.intrinsics import (
    add,
    greater_mask,
    inline,
    kernel,
    load_f32,
    load_one_f32,
    load_one_u8,
    load_one_u16,
    lowest_bit,
    mul,
    multiply_add,
    prefetch,
    splat,
    store_f32,
    sub,
    zeros,
)
from gingham.codecs.topk_kernels import sift


@inline
def _code(codes, j, bits):
    if bits == 8:
        return uint64(load_one_u8(codes + uint64(j)))
    if bits == 16:
        return uint64(load_one_u16(codes + uint64(2 * j)))
    pair = uint64(load_one_u16(codes + uint64((3 * j) >> 1)))
    return (pair >> uint64(4)) if j & 1 else (pair & uint64(4095))


@kernel("void(uint64, int64, int64, uint64, int64, int64, int64, float32, uint64)")
def fill_tables(queries, groups, lanes, codebooks, m, k, dsub, times, tables):
    """Partial scores of every centroid.

    Parameters
    ----------
    queries : address of float32 (groups, m * dsub, lanes)
    codebooks : address of float32, by centroid (m, k, dsub) for 8 lanes and by dimension (m, dsub, k) for one, where k
        is a multiple of 8
    times : 0 for minus the squared distance, else a factor of inner products
    """
    out = tables
    for group in range(groups):
        query = queries + uint64(4 * group * m * dsub * lanes)
        for s in range(m):
            q = query + uint64(4 * s * dsub * lanes)
            own = codebooks + uint64(4 * s * k * dsub)
            for c in range(0, k, 1 if lanes == 8 else 8):
                a = zeros()
                for j in range(dsub):
                    if lanes == 8:
                        x, y = splat(load_one_f32(own + uint64(4 * (c * dsub + j)))), load_f32(q + uint64(32 * j))
                    else:
                        x, y = load_f32(own + uint64(4 * (j * k + c))), splat(load_one_f32(q + uint64(4 * j)))
                    if times == 0:
                        v = sub(x, y)
                        a = multiply_add(v, v, a)
                    else:
                        a = multiply_add(x, y, a)
                store_f32(out, mul(a, splat(float32(-1.0) if times == 0 else times)))
                out += uint64(32)


@inline
def _finish(s, x, header, lengths):
    """The sum of a row's table entries after its header."""
    if header == 1:
        return s * load_one_f32(lengths + (uint64(load_one_u8(x)) << uint64(2)))
    if header == 4:
        return s + load_one_f32(x)
    return s


@inline
def _offer(scores, rows, q, s, row):
    if s > scores[q, 0]:
        scores[q, 0] = s
        rows[q, 0] = row
        sift(scores, rows, q, int64(scores.shape[1]))


@inline
def _scan_one(codes, stride, header, m, k, bits, start, stop, table, lengths, bias, allow, scores, rows):
    """Rows of four at once, whose sums do not wait for each other."""
    for row in range(start, stop, 4):
        a = codes + uint64(row) * stride
        b = a + (stride if row + 1 < stop else uint64(0))
        c = b + (stride if row + 2 < stop else uint64(0))
        d = c + (stride if row + 3 < stop else uint64(0))
        h = uint64(header)
        s0, s1, s2, s3 = float32(0.0), float32(0.0), float32(0.0), float32(0.0)
        t = table
        for j in range(m):
            s0 += load_one_f32(t + (_code(a + h, j, bits) << uint64(2)))
            s1 += load_one_f32(t + (_code(b + h, j, bits) << uint64(2)))
            s2 += load_one_f32(t + (_code(c + h, j, bits) << uint64(2)))
            s3 += load_one_f32(t + (_code(d + h, j, bits) << uint64(2)))
            t += uint64(4 * k)
        s0 = _finish(s0, a, header, lengths) + bias
        s1 = _finish(s1, b, header, lengths) + bias
        s2 = _finish(s2, c, header, lengths) + bias
        s3 = _finish(s3, d, header, lengths) + bias
        root = scores[0, 0]
        if s0 > root or s1 > root or s2 > root or s3 > root:
            for i in range(min(int64(4), stop - row)):
                if allow == 0 or load_one_u8(allow + uint64(row + i)) != 0:
                    _offer(scores, rows, 0, s0 if i == 0 else (s1 if i == 1 else (s2 if i == 2 else s3)), row + i)


@kernel(
    "void(uint64, int64, int64, int64, int64, int64, int64, int64, uint64, int64, uint64, float32[::1],"
    "uint64, float32[::1], float32[:,::1], int64[:,::1])"
)
def scan_tables(
    codes, stride, header, m, k, bits, start, stop, tables, lanes, lengths, biases, allow, sums, scores, rows
):
    """Put the best of rows start to stop into the heaps of all queries; ``allow`` 0 allows all.

    Parameters
    ----------
    biases : of each query, padded to whole groups
    sums : float32 of 8 * tile + 8, for the sums of a tile of rows
    """
    n_queries = scores.shape[0]
    size = uint64(stride)
    if lanes == 1:
        _scan_one(codes, size, header, m, k, bits, start, stop, tables, lengths, biases[0], allow, scores, rows)
        return
    place = uint64(sums.ctypes.data)
    limits = place + uint64(4 * (sums.size - 8))
    tile = (sums.size - 8) // 8
    wide = uint64(32 * k)
    for first in range(start, stop, tile):
        last = min(first + tile, stop)
        for group in range((n_queries + 7) // 8):
            own = tables + uint64(group * m) * wide
            for j in range(0, m, 2):
                t = own + uint64(j) * wide
                x = codes + uint64(first) * size + uint64(header)
                for row in range(last - first):
                    o = place + uint64(32 * row)
                    a = zeros() if j == 0 else load_f32(o)
                    a = add(a, load_f32(t + (_code(x, j, bits) << uint64(5))))
                    if j + 1 < m:
                        a = add(a, load_f32(t + wide + (_code(x, j + 1, bits) << uint64(5))))
                    store_f32(o, a)
                    x += size
            bias = load_f32(uint64(biases.ctypes.data) + uint64(32 * group))
            count = min(int64(8), n_queries - 8 * group)
            for lane in range(8):
                sums[sums.size - 8 + lane] = scores[8 * group + lane, 0] if lane < count else float32(np.inf)
            for row in range(first, last):
                o = place + uint64(32 * (row - first))
                a = load_f32(o)
                if header == 1:
                    code = uint64(load_one_u8(codes + uint64(row) * size))
                    a = mul(a, splat(load_one_f32(lengths + (code << uint64(2)))))
                elif header == 4:
                    a = add(a, splat(load_one_f32(codes + uint64(row) * size)))
                a = add(a, bias)
                mask = greater_mask(a, load_f32(limits))
                if mask != 0 and (allow == 0 or load_one_u8(allow + uint64(row)) != 0):
                    store_f32(o, a)
                    while mask != 0:
                        lane = lowest_bit(mask)
                        mask &= mask - uint32(1)
                        q = 8 * group + lane
                        _offer(scores, rows, q, load_one_f32(o + uint64(4 * lane)), row)
                        sums[sums.size - 8 + lane] = scores[q, 0]


@kernel(
    "void(uint64, int64, int64, int64, int64, int64, uint64, int64, uint64, float32[::1], int64[:,::1], float32[:,::1])"
)
def score_tables(codes, stride, header, m, k, bits, tables, lanes, lengths, biases, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    shift = uint64(5 if lanes == 8 else 2)
    for q in range(rows.shape[0]):
        table = tables + uint64(4 * ((q // lanes) * m * k * lanes + q % lanes))
        for i in range(rows.shape[1]):
            if i + 4 < rows.shape[1] and rows[q, i + 4] >= 0:
                prefetch(codes + uint64(rows[q, i + 4]) * uint64(stride))
            if rows[q, i] < 0:
                out[q, i] = float32(-np.inf)
                continue
            x = codes + uint64(rows[q, i]) * uint64(stride)
            s = float32(0.0)
            t = table
            for j in range(m):
                s += load_one_f32(t + (_code(x + uint64(header), j, bits) << shift))
                t += uint64(4 * k * lanes)
            out[q, i] = _finish(s, x, header, lengths) + biases[q]
