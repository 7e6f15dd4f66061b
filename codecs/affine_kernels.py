"""Kernels over rows of packed integer codes, whose vectors are affine in the codes.

A row is a header of float32 factors and the codes c of its dimensions:

- ``factors`` 3: scale, second, third, then codes; ``factors`` 1: third, then codes (scale is 1, second 0).
- codes of 8 bits: one byte a dimension, padded to 16 dimensions; the query is int16.
- codes of ``bits`` < 8: blocks of 64 dimensions, each a plane of four bits if ``bits & 4`` (byte i: dimensions i and
  32 + i), then of two if ``bits & 2`` (byte i: dimensions i, 16 + i, 32 + i, 48 + i), then of one if ``bits & 1``
  (bit j of byte i: dimension 8 j + i). Planes that come first hold the lower bits. The query is int8.

Five parameters a query: ``score = scale (p0 <c, q> + p1) + second p2 + third p3 + p4``, in float32 and in that order,
with <c, q> exact in int32. So a score has the same bits on every CPU.
"""

import numpy as np
from numba import float32, int64, uint8, uint64

from gingham.codecs.intrinsics import (
    add_ints,
    add_words,
    first_bits,
    first_crumbs,
    high_nibbles,
    inline,
    kernel,
    load_8_bytes_four_times,
    load_16_bytes_twice,
    load_bytes,
    load_bytes_as_words,
    load_one_f32,
    load_one_u8,
    load_words,
    low_nibbles,
    merge_bytes,
    multiply_bytes,
    multiply_words,
    one_words,
    prefetch,
    second_bits,
    second_crumbs,
    sum_ints,
    times_4,
    times_16,
    zero_bytes,
    zero_ints,
)
from gingham.codecs.topk_kernels import sift


@inline
def _dot_bytes(x, q, width, ahead):
    a, b, c, d = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    j = int64(0)
    while j + 64 <= width:
        o = uint64(j)
        p = q + uint64(2 * j)
        prefetch(x + o + ahead)
        a = add_ints(a, multiply_words(load_bytes_as_words(x + o), load_words(p)))
        b = add_ints(b, multiply_words(load_bytes_as_words(x + o + uint64(16)), load_words(p + uint64(32))))
        c = add_ints(c, multiply_words(load_bytes_as_words(x + o + uint64(32)), load_words(p + uint64(64))))
        d = add_ints(d, multiply_words(load_bytes_as_words(x + o + uint64(48)), load_words(p + uint64(96))))
        j += 64
    while j < width:
        a = add_ints(a, multiply_words(load_bytes_as_words(x + uint64(j)), load_words(q + uint64(2 * j))))
        j += 16
    return sum_ints(add_ints(add_ints(a, b), add_ints(c, d)))


@inline
def _dot_nibbles(x, q, width, ahead):
    a, b = zero_ints(), zero_ints()
    ones = one_words()
    j = int64(0)
    while j + 128 <= width:
        p = q + uint64(j)
        prefetch(x + ahead)
        v = load_bytes(x)
        w = load_bytes(x + uint64(32))
        low = multiply_bytes(low_nibbles(v), load_bytes(p))
        a = add_ints(
            a, multiply_words(add_words(low, multiply_bytes(high_nibbles(v), load_bytes(p + uint64(32)))), ones)
        )
        low = multiply_bytes(low_nibbles(w), load_bytes(p + uint64(64)))
        b = add_ints(
            b, multiply_words(add_words(low, multiply_bytes(high_nibbles(w), load_bytes(p + uint64(96)))), ones)
        )
        x += uint64(64)
        j += 128
    if j < width:
        v = load_bytes(x)
        low = multiply_bytes(low_nibbles(v), load_bytes(q + uint64(j)))
        high = multiply_bytes(high_nibbles(v), load_bytes(q + uint64(j + 32)))
        a = add_ints(a, multiply_words(add_words(low, high), ones))
    return sum_ints(add_ints(a, b))


@inline
def _dot_planes(x, q, width, bits, ahead):
    a, b = zero_ints(), zero_ints()
    ones = one_words()
    for j in range(0, width, 64):
        first, second = zero_bytes(), zero_bytes()
        prefetch(x + ahead)
        if bits & 4:
            v = load_bytes(x)
            first, second = low_nibbles(v), high_nibbles(v)
            x += uint64(32)
        if bits & 2:
            v = load_16_bytes_twice(x)
            r, s = first_crumbs(v), second_crumbs(v)
            if bits & 4:
                r, s = times_16(r), times_16(s)
            first, second = merge_bytes(first, r), merge_bytes(second, s)
            x += uint64(16)
        if bits & 1:
            v = load_8_bytes_four_times(x)
            r, s = first_bits(v), second_bits(v)
            if bits & 4:
                r, s = times_16(r), times_16(s)
            if bits & 2:
                r, s = times_4(r), times_4(s)
            first, second = merge_bytes(first, r), merge_bytes(second, s)
            x += uint64(8)
        p = q + uint64(j)
        a = add_ints(a, multiply_words(multiply_bytes(first, load_bytes(p)), ones))
        b = add_ints(b, multiply_words(multiply_bytes(second, load_bytes(p + uint64(32))), ones))
    return sum_ints(add_ints(a, b))


@inline
def _four_dots_bytes(x, q, width, step):
    """Products of one row with four queries, ``step`` bytes apart: the row is widened once."""
    a, b, c, d = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    q1, q2, q3 = q + step, q + step + step, q + step + step + step
    for j in range(0, width, 16):
        v = load_bytes_as_words(x + uint64(j))
        p = uint64(2 * j)
        a = add_ints(a, multiply_words(v, load_words(q + p)))
        b = add_ints(b, multiply_words(v, load_words(q1 + p)))
        c = add_ints(c, multiply_words(v, load_words(q2 + p)))
        d = add_ints(d, multiply_words(v, load_words(q3 + p)))
    return sum_ints(a), sum_ints(b), sum_ints(c), sum_ints(d)


@inline
def _nibble_products(low, high, q, ones):
    words = add_words(multiply_bytes(low, load_bytes(q)), multiply_bytes(high, load_bytes(q + uint64(32))))
    return multiply_words(words, ones)


@inline
def _four_dots_nibbles(x, q, width, step):
    """Products of one row with four queries, ``step`` bytes apart: the row is unpacked once."""
    a, b, c, d = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    ones = one_words()
    q1, q2, q3 = q + step, q + step + step, q + step + step + step
    for j in range(0, width, 64):
        v = load_bytes(x + uint64(j >> 1))
        low, high = low_nibbles(v), high_nibbles(v)
        p = uint64(j)
        a = add_ints(a, _nibble_products(low, high, q + p, ones))
        b = add_ints(b, _nibble_products(low, high, q1 + p, ones))
        c = add_ints(c, _nibble_products(low, high, q2 + p, ones))
        d = add_ints(d, _nibble_products(low, high, q3 + p, ones))
    return sum_ints(a), sum_ints(b), sum_ints(c), sum_ints(d)


@inline
def _dot(x, q, width, bits, ahead):
    """Product of one row with one query; bytes ``ahead`` of the row are asked for."""
    if bits == 8:
        return _dot_bytes(x, q, width, ahead)
    if bits == 4:
        return _dot_nibbles(x, q, width, ahead)
    return _dot_planes(x, q, width, bits, ahead)


@inline
def _finish(product, row, factors, parameters, i):
    s = parameters[i, 0] * float32(product) + parameters[i, 1]
    third = load_one_f32(row + uint64(4 * factors - 4))
    if factors == 3:
        s = load_one_f32(row) * s + load_one_f32(row + uint64(4)) * parameters[i, 2]
    return s + third * parameters[i, 3] + parameters[i, 4]


@inline
def _score(row, factors, q, width, bits, ahead, parameters, i):
    return _finish(_dot(row + uint64(4 * factors), q, width, bits, ahead), row, factors, parameters, i)


@inline
def _offer(scores, rows, i, s, row):
    if s > scores[i, 0]:
        scores[i, 0] = s
        rows[i, 0] = row
        sift(scores, rows, i, int64(scores.shape[1]))


_SCORED = "uint64, int64, int64, int64, int64"
_AHEAD = 4096
"""Bytes ahead of a scan that are asked for: hardware stops at the end of a page."""


@kernel(f"void({_SCORED}, int64, int64, int64, uint64, float32[:,::1], uint64, float32[:,::1], int64[:,::1])")
def scan_packed(codes, stride, factors, width, bits, start, stop, tile, queries, parameters, allow, scores, rows):
    """Offer rows start to stop to the heaps of all queries, ``tile`` rows at a time; ``allow`` 0 allows all."""
    step = uint64(width * 2 if bits == 8 else width)
    skip = uint64(4 * factors)
    n = scores.shape[0]
    fours = n - n % 4 if bits == 8 or bits == 4 else 0
    for low in range(start, stop, tile):
        high = min(low + tile, stop)
        for i in range(0, fours, 4):
            q = queries + uint64(i) * step
            for row in range(low, high):
                if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                    continue
                x = codes + uint64(row * stride)
                if bits == 8:
                    a, b, c, d = _four_dots_bytes(x + skip, q, width, step)
                else:
                    a, b, c, d = _four_dots_nibbles(x + skip, q, width, step)
                _offer(scores, rows, i, _finish(a, x, factors, parameters, i), row)
                _offer(scores, rows, i + 1, _finish(b, x, factors, parameters, i + 1), row)
                _offer(scores, rows, i + 2, _finish(c, x, factors, parameters, i + 2), row)
                _offer(scores, rows, i + 3, _finish(d, x, factors, parameters, i + 3), row)
        for i in range(fours, n):
            q = queries + uint64(i) * step
            for row in range(low, high):
                if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                    continue
                x = codes + uint64(row * stride)
                _offer(scores, rows, i, _score(x, factors, q, width, bits, uint64(_AHEAD), parameters, i), row)


@kernel(f"void({_SCORED}, uint64, float32[:,::1], int64[:,::1], float32[:,::1])")
def score_packed(codes, stride, factors, width, bits, queries, parameters, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    query_bytes = width * 2 if bits == 8 else width
    m = rows.shape[1]
    for i in range(rows.shape[0]):
        q = queries + uint64(i * query_bytes)
        for j in range(m):
            if rows[i, j] < 0:
                out[i, j] = float32(-np.inf)
            else:
                later = rows[i, min(j + 2, m - 1)]
                ahead = uint64((later - rows[i, j]) * stride)
                row = codes + uint64(rows[i, j] * stride)
                out[i, j] = _score(row, factors, q, width, bits, ahead, parameters, i)


@inline
def _pack(values, at, codes, row, place, bits):
    """Write the planes of the 64 values from ``at`` into a row from byte ``place``; returns the byte after."""
    if bits & 4:
        for b in range(32):
            codes[row, place + b] = (values[at + b] & uint8(15)) | ((values[at + 32 + b] & uint8(15)) << uint8(4))
        place += 32
    if bits & 2:
        down = uint8(bits & 4)
        for b in range(16):
            byte = uint8(0)
            for part in range(4):
                byte |= ((values[at + 16 * part + b] >> down) & uint8(3)) << uint8(2 * part)
            codes[row, place + b] = byte
        place += 16
    if bits & 1:
        down = uint8(bits & 6)
        for b in range(8):
            byte = uint8(0)
            for part in range(8):
                byte |= ((values[at + 8 * part + b] >> down) & uint8(1)) << uint8(part)
            codes[row, place + b] = byte
        place += 8
    return place


@kernel("void(uint8[:,::1], uint8[:,::1], int64, int64)")
def pack_planes(values, codes, place, bits):
    """Pack values (n, width), width a multiple of 64, into the rows of codes from byte ``place``."""
    for row in range(values.shape[0]):
        at = place
        flat = values[row]
        for j in range(0, values.shape[1], 64):
            at = _pack(flat, j, codes, row, at, bits)


@kernel("void(uint64, int64, int64, int64, uint8[:,::1])")
def unpack_planes(codes, stride, place, bits, values):
    """The values (n, width) of packed rows; width is a multiple of 64 for ``bits`` < 8."""
    for row in range(values.shape[0]):
        x = codes + uint64(row * stride + place)
        if bits == 8:
            for j in range(values.shape[1]):
                values[row, j] = load_one_u8(x + uint64(j))
            continue
        for j in range(0, values.shape[1], 64):
            for b in range(64):
                values[row, j + b] = uint8(0)
            shift = uint8(0)
            if bits & 4:
                for b in range(32):
                    byte = load_one_u8(x + uint64(b))
                    values[row, j + b] = byte & uint8(15)
                    values[row, j + 32 + b] = byte >> uint8(4)
                x += uint64(32)
                shift = uint8(4)
            if bits & 2:
                for b in range(16):
                    byte = load_one_u8(x + uint64(b))
                    for part in range(4):
                        values[row, j + 16 * part + b] |= ((byte >> uint8(2 * part)) & uint8(3)) << shift
                x += uint64(16)
                shift += uint8(2)
            if bits & 1:
                for b in range(8):
                    byte = load_one_u8(x + uint64(b))
                    for part in range(8):
                        values[row, j + 8 * part + b] |= ((byte >> uint8(part)) & uint8(1)) << shift
                x += uint64(8)
