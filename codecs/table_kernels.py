"""Kernels over rows of codes that are scored by tables: the sum of one entry of each table of a query.

A row is a head and m codes of 8, 12 or 16 bits, little-endian, two of 12 bits in three bytes. Heads: 0 bytes; 1 byte,
whose entry of ``lengths`` multiplies the sum; 4 bytes, a float32 added to it. A row is summed in one order wherever it
lies. Addresses are raw: the caller has checked shapes.
"""

import numpy as np
from numba import float32, int64, uint8, uint16, uint32, uint64

from gingham.codecs.intrinsics import inline, kernel, load_one_f32, load_one_u8, load_one_u16, load_one_u64, prefetch
from gingham.codecs.topk_kernels import sift


@inline
def _entry(table, code):
    return load_one_f32(table + (uint64(code) << uint64(2)))


@inline
def _sum_8(x, m, table):
    a, b, c, d = float32(0.0), float32(0.0), float32(0.0), float32(0.0)
    s = int64(0)
    while s + 8 <= m:
        w = load_one_u64(x + uint64(s))
        t = table + uint64(1024 * s)
        a += _entry(t, w & uint64(255))
        b += _entry(t + uint64(1024), (w >> uint64(8)) & uint64(255))
        c += _entry(t + uint64(2048), (w >> uint64(16)) & uint64(255))
        d += _entry(t + uint64(3072), (w >> uint64(24)) & uint64(255))
        a += _entry(t + uint64(4096), (w >> uint64(32)) & uint64(255))
        b += _entry(t + uint64(5120), (w >> uint64(40)) & uint64(255))
        c += _entry(t + uint64(6144), (w >> uint64(48)) & uint64(255))
        d += _entry(t + uint64(7168), w >> uint64(56))
        s += 8
    while s < m:
        a += _entry(table + uint64(1024 * s), load_one_u8(x + uint64(s)))
        s += 1
    return (a + b) + (c + d)


@inline
def _sum_12(x, m, table):
    a, b = float32(0.0), float32(0.0)
    s = int64(0)
    while s + 2 <= m:
        place = x + uint64(3 * (s >> 1))
        a += _entry(table + uint64(16384 * s), load_one_u16(place) & uint16(4095))
        b += _entry(table + uint64(16384 * (s + 1)), load_one_u16(place + uint64(1)) >> uint16(4))
        s += 2
    if s < m:
        a += _entry(table + uint64(16384 * s), load_one_u16(x + uint64(3 * (s >> 1))) & uint16(4095))
    return a + b


@inline
def _sum_16(x, m, table):
    a, b = float32(0.0), float32(0.0)
    s = int64(0)
    while s + 2 <= m:
        a += _entry(table + uint64(262144 * s), load_one_u16(x + uint64(2 * s)))
        b += _entry(table + uint64(262144 * (s + 1)), load_one_u16(x + uint64(2 * s + 2)))
        s += 2
    if s < m:
        a += _entry(table + uint64(262144 * s), load_one_u16(x + uint64(2 * s)))
    return a + b


@inline
def _score(x, head, m, bits, table, lengths):
    place = x + uint64(head)
    if bits == 8:
        s = _sum_8(place, m, table)
    elif bits == 12:
        s = _sum_12(place, m, table)
    else:
        s = _sum_16(place, m, table)
    if head == 1:
        s *= load_one_f32(lengths + uint64(4) * uint64(load_one_u8(x)))
    elif head == 4:
        s += load_one_f32(x)
    return s


@kernel(
    "void(uint64, int64, int64, int64, int64, int64, int64, int64, uint64, uint64, float32[::1], uint64,"
    "float32[:,::1], int64[:,::1])"
)
def scan_tables(codes, stride, head, m, bits, start, stop, tile, tables, lengths, biases, allow, scores, rows):
    """Put the best of rows start to stop into the heaps of all queries; ``allow`` 0 allows all.

    Parameters
    ----------
    codes : address of rows of ``stride`` bytes
    tile : rows that all queries pass over before the next ones
    tables : address of float32 (n_queries, m, 2^bits)
    lengths : address of float32 (256,), read where ``head`` is 1
    """
    size = uint64(4 * m) << uint64(bits)
    k = int64(scores.shape[1])
    for first in range(start, stop, tile):
        last = min(first + tile, stop)
        for q in range(scores.shape[0]):
            table = tables + uint64(q) * size
            bias, floor = biases[q], scores[q, 0]
            for row in range(first, last):
                if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                    continue
                s = _score(codes + uint64(row * stride), head, m, bits, table, lengths) + bias
                if s > floor:
                    scores[q, 0] = s
                    rows[q, 0] = row
                    sift(scores, rows, q, k)
                    floor = scores[q, 0]


@kernel(
    "void(uint64, int64, int64, int64, int64, uint64, uint64, float32[::1], int64[:,::1], float32[:,::1])"
)
def score_tables(codes, stride, head, m, bits, tables, lengths, biases, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    size = uint64(4 * m) << uint64(bits)
    n = rows.shape[1]
    for q in range(rows.shape[0]):
        table = tables + uint64(q) * size
        for i in range(n):
            if i + 4 < n and rows[q, i + 4] >= 0:
                ahead = codes + uint64(rows[q, i + 4] * stride)
                for line in range(0, stride, 64):
                    prefetch(ahead + uint64(line))
            if rows[q, i] < 0:
                out[q, i] = float32(-np.inf)
            else:
                x = codes + uint64(rows[q, i] * stride)
                out[q, i] = _score(x, head, m, bits, table, lengths) + biases[q]


@kernel("void(uint64, int64, int64, int64, int64, int64, uint16[:,::1])")
def unpack_codes(codes, n, stride, head, m, bits, out):
    """Codes of rows: uint16 (n, m)."""
    for row in range(n):
        x = codes + uint64(row * stride + head)
        for s in range(m):
            if bits == 8:
                out[row, s] = load_one_u8(x + uint64(s))
            elif bits == 12:
                pair = load_one_u16(x + uint64(3 * (s >> 1) + (s & 1)))
                out[row, s] = pair >> uint16(4) if s & 1 else pair & uint16(4095)
            else:
                out[row, s] = load_one_u16(x + uint64(2 * s))


@kernel("void(int32[:,::1], int64, int64, uint8[:,::1])")
def pack_codes(labels, head, bits, codes):
    """Write codes (n, m) behind the heads of rows."""
    for row in range(labels.shape[0]):
        for s in range(labels.shape[1]):
            c = uint32(labels[row, s])
            if bits == 8:
                codes[row, head + s] = uint8(c)
            elif bits == 12:
                place = head + 3 * (s >> 1)
                if s & 1:
                    codes[row, place + 1] |= uint8((c & uint32(15)) << uint32(4))
                    codes[row, place + 2] = uint8(c >> uint32(4))
                else:
                    codes[row, place] = uint8(c & uint32(255))
                    codes[row, place + 1] = uint8(c >> uint32(8))
            else:
                codes[row, head + 2 * s] = uint8(c & uint32(255))
                codes[row, head + 2 * s + 1] = uint8(c >> uint32(8))
