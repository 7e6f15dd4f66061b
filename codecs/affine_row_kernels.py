"""Inlined functions that score one row of packed integer codes: they stand inside the kernels of other files.

A row is a header of float32 factors and the codes c of its dimensions:

- ``factors`` 3 or more: scale, second, third, others that scores do not need, then codes; ``factors`` 1: third, then
  codes (scale is 1, second 0).
- codes of 8 bits: one byte a dimension, padded to 16 dimensions; the query is int16.
- codes of ``bits`` < 8: blocks of 64 dimensions, each a plane of four bits if ``bits & 4`` (byte i: dimensions i and
  32 + i), then of two if ``bits & 2`` (byte i: dimensions i, 16 + i, 32 + i, 48 + i), then of one if ``bits & 1``
  (bit j of byte i: dimension 8 j + i). Planes that come first hold the lower bits. The query is int8.

Five parameters a query: ``score = scale (p0 <c, q> + p1) + second p2 + third p3 + p4``, in float32 and in that order,
with <c, q> exact in int32. So a score has the same bits on every CPU.
"""

from numba import float32, int64, uint64

from gingham.codecs.intrinsics import (
    add_ints,
    add_words,
    first_bits,
    first_crumbs,
    high_nibbles,
    inline,
    load_8_bytes_four_times,
    load_16_bytes_twice,
    load_bytes,
    load_bytes_as_words,
    load_one_f32,
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


@inline
def _product_bytes(x, q, width, ahead):
    a, b, c, d = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    j = int64(0)
    while j + 64 <= width:
        o = uint64(j)
        p = q + uint64(2 * j)
        if ahead != 0:
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
def _product_nibbles(x, q, width, ahead):
    a, b = zero_ints(), zero_ints()
    ones = one_words()
    j = int64(0)
    while j + 128 <= width:
        p = q + uint64(j)
        if ahead != 0:
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
def _product_planes(x, q, width, bits, ahead):
    a, b = zero_ints(), zero_ints()
    ones = one_words()
    for j in range(0, width, 64):
        first, second = zero_bytes(), zero_bytes()
        if ahead != 0:
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
def four_products_bytes(x, q, width, step):
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
def four_products_nibbles(x, q, width, step):
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
def product(x, q, width, bits, ahead):
    """Product of one row with one query; bytes ``ahead`` of the row are asked for, 0 asks for none."""
    if bits == 8:
        return _product_bytes(x, q, width, ahead)
    if bits == 4:
        return _product_nibbles(x, q, width, ahead)
    return _product_planes(x, q, width, bits, ahead)


@inline
def score_of_product(product, row, factors, parameters, i):
    """The score of a row whose product with query i is known."""
    s = parameters[i, 0] * float32(product) + parameters[i, 1]
    if factors == 1:
        return s + load_one_f32(row) * parameters[i, 3] + parameters[i, 4]
    s = load_one_f32(row) * s + load_one_f32(row + uint64(4)) * parameters[i, 2]
    return s + load_one_f32(row + uint64(8)) * parameters[i, 3] + parameters[i, 4]


@inline
def score_row(row, factors, q, width, bits, ahead, parameters, i):
    """The score of a row under query i, whose integers stand at q; ``ahead`` as in :func:`product`."""
    return score_of_product(product(row + uint64(4 * factors), q, width, bits, ahead), row, factors, parameters, i)
