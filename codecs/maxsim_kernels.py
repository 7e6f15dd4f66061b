"""MaxSim: a document scores the sum over query tokens of the greatest inner product with any of its tokens.

Query tokens come in blocks of 16, the last padded by zeros: their inner products are 0 and add nothing. Tokens of a
document are taken in groups, the last group filled by its last token once more, which changes no maximum. Every inner
product has one order of sums whatever stands beside it, so a score has the same bits alone and among others.

Document d has the tokens ``starts[d]`` to ``starts[d + 1]``; without any it scores -inf. Addresses are raw: the caller
has checked shapes, types, contiguity and numbers of documents.

MaxSim is due to Khattab and Zaharia, "ColBERT", 2020 (arXiv:2004.12832); residual codes scored without decompression to
Scheerer et al., "WARP", 2025 (arXiv:2501.17788).
"""

import numpy as np
from numba import float32, int64, uint8, uint64

from gingham.codecs.intrinsics import (
    add,
    add_ints,
    add_words,
    inline,
    kernel,
    load_16_bytes_twice,
    load_bytes,
    load_f16,
    load_f32,
    load_one_f16,
    load_one_f32,
    load_one_u8,
    load_one_u16,
    load_one_u32,
    load_one_u64,
    maximum,
    mul,
    multiply_add,
    multiply_bytes,
    multiply_words,
    one_words,
    shuffle_bytes,
    splat,
    store_f32,
    store_one_u8,
    total,
    zero_ints,
    zeros,
)
from gingham.codecs.maxsim_intrinsics import (
    DOTS,
    WIDE_DOTS,
    add_dots,
    add_wide_dots,
    add_wide_ints,
    first_ints,
    floats_of_ints,
    last_ints,
    load_4_bytes_eight_times,
    load_4_bytes_sixteen_times,
    load_crumbs,
    load_nibbles,
    store_bytes,
    zero_wide_ints,
)
from gingham.codecs.wide_intrinsics import load_wide_bytes

EVERY_BYTE, BIT_OF_BYTE = uint64(0x0101010101010101), uint64(0x8040201008040201)
"""One in every byte, and bit i in byte i."""


@inline
def _tokens_of(starts, document):
    place = starts + uint64(8 * document)
    return int64(load_one_u64(place)), int64(load_one_u64(place + uint64(8)))


@inline
def _begin(best, padded):
    for i in range(0, padded, 8):
        store_f32(best + uint64(4 * i), splat(float32(-np.inf)))


@inline
def _sum(best, padded):
    sums = zeros()
    for i in range(0, padded, 8):
        sums = add(sums, load_f32(best + uint64(4 * i)))
    return total(sums)


@inline
def _widen(x, dim, scratch, row):
    j, out = int64(0), uint64(scratch.ctypes.data) + uint64(4 * scratch.shape[1] * row)
    while j + 8 <= dim:
        store_f32(out + uint64(4 * j), load_f16(x + uint64(2 * j)))
        j += 8
    while j < dim:
        scratch[row, j] = load_one_f16(x + uint64(2 * j))
        j += 1


@inline
def _six_tokens(x, stride, dim, block, best):
    """Raise the maxima of a block by six tokens; twelve sums at once hide the latency of the additions."""
    a0, a1, b0, b1, c0, c1 = zeros(), zeros(), zeros(), zeros(), zeros(), zeros()
    d0, d1, e0, e1, f0, f1 = zeros(), zeros(), zeros(), zeros(), zeros(), zeros()
    xb, xc, xd = x + stride, x + uint64(2) * stride, x + uint64(3) * stride
    xe, xf = x + uint64(4) * stride, x + uint64(5) * stride
    for k in range(dim):
        at = uint64(4 * k)
        place = block + uint64(64 * k)
        p, q = load_f32(place), load_f32(place + uint64(32))
        v = splat(load_one_f32(x + at))
        a0, a1 = multiply_add(v, p, a0), multiply_add(v, q, a1)
        v = splat(load_one_f32(xb + at))
        b0, b1 = multiply_add(v, p, b0), multiply_add(v, q, b1)
        v = splat(load_one_f32(xc + at))
        c0, c1 = multiply_add(v, p, c0), multiply_add(v, q, c1)
        v = splat(load_one_f32(xd + at))
        d0, d1 = multiply_add(v, p, d0), multiply_add(v, q, d1)
        v = splat(load_one_f32(xe + at))
        e0, e1 = multiply_add(v, p, e0), multiply_add(v, q, e1)
        v = splat(load_one_f32(xf + at))
        f0, f1 = multiply_add(v, p, f0), multiply_add(v, q, f1)
    high = best + uint64(32)
    a0, a1 = maximum(maximum(a0, b0), maximum(c0, d0)), maximum(maximum(a1, b1), maximum(c1, d1))
    e0, e1 = maximum(maximum(e0, f0), load_f32(best)), maximum(maximum(e1, f1), load_f32(high))
    store_f32(best, maximum(a0, e0))
    store_f32(high, maximum(a1, e1))


@kernel("void(uint64, int64, uint64, int64[::1], float32[:,:,::1], float32[::1])")
def maxsim_f16(tokens, dim, starts, documents, blocks, scores):
    """Score documents of float16 tokens.

    Parameters
    ----------
    tokens : address of float16 (n_tokens, dim)
    starts : address of int64 (n_documents + 1,)
    documents : (m,), numbers of documents
    blocks : (n, dim, 16), the query tokens in blocks, their numbers last
    scores : (m,), written
    """
    padded, width = int64(16 * len(blocks)), (dim + 7) // 8 * 8
    scratch, maxima = np.empty((6, width), np.float32), np.empty(padded, np.float32)
    x, best, stride = uint64(scratch.ctypes.data), uint64(maxima.ctypes.data), uint64(4 * width)
    query = uint64(blocks.ctypes.data)
    for i in range(len(documents)):
        start, stop = _tokens_of(starts, documents[i])
        if start >= stop:
            scores[i] = float32(-np.inf)
            continue
        _begin(best, padded)
        for t in range(start, stop, 6):
            for j in range(6):
                _widen(tokens + uint64(2 * dim * min(t + j, stop - 1)), dim, scratch, j)
            for b in range(len(blocks)):
                _six_tokens(x, stride, dim, query + uint64(64 * dim * b), best + uint64(64 * b))
        scores[i] = _sum(best, padded)


@inline
def _add_two(sums, x, q, y, r, ones):
    return add_ints(sums, multiply_words(add_words(multiply_bytes(x, q), multiply_bytes(y, r)), ones))


@inline
def _add_one(sums, x, q, ones):
    return add_ints(sums, multiply_words(multiply_bytes(x, q), ones))


@inline
def _add_two_dots(sums, x, q, y, r, ones):
    return add_dots(add_dots(sums, x, q), y, r)


@inline
def _add_one_dot(sums, x, q, ones):
    return add_dots(sums, x, q)


_two = _add_two_dots if DOTS else _add_two
_one = _add_one_dot if DOTS else _add_one


@inline
def _narrow_products(xa, xb, xc, xd, width, query):
    """Products of four tokens with a block: pairs of eight int32 each.

    Levels are at most 255 and the integers of queries at most 31, so that four products stay within 16 bits.
    """
    a0, a1, b0, b1 = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    c0, c1, d0, d1 = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    ones = one_words()
    j = int64(0)
    while j + 8 <= width:
        at, place = uint64(j), query + uint64(16 * j)
        q0, q1 = load_bytes(place), load_bytes(place + uint64(32))
        r0, r1 = load_bytes(place + uint64(64)), load_bytes(place + uint64(96))
        v, w = load_4_bytes_eight_times(xa + at), load_4_bytes_eight_times(xa + at + uint64(4))
        a0, a1 = _two(a0, v, q0, w, r0, ones), _two(a1, v, q1, w, r1, ones)
        v, w = load_4_bytes_eight_times(xb + at), load_4_bytes_eight_times(xb + at + uint64(4))
        b0, b1 = _two(b0, v, q0, w, r0, ones), _two(b1, v, q1, w, r1, ones)
        v, w = load_4_bytes_eight_times(xc + at), load_4_bytes_eight_times(xc + at + uint64(4))
        c0, c1 = _two(c0, v, q0, w, r0, ones), _two(c1, v, q1, w, r1, ones)
        v, w = load_4_bytes_eight_times(xd + at), load_4_bytes_eight_times(xd + at + uint64(4))
        d0, d1 = _two(d0, v, q0, w, r0, ones), _two(d1, v, q1, w, r1, ones)
        j += 8
    if j < width:
        at, place = uint64(j), query + uint64(16 * j)
        q0, q1 = load_bytes(place), load_bytes(place + uint64(32))
        v = load_4_bytes_eight_times(xa + at)
        a0, a1 = _one(a0, v, q0, ones), _one(a1, v, q1, ones)
        v = load_4_bytes_eight_times(xb + at)
        b0, b1 = _one(b0, v, q0, ones), _one(b1, v, q1, ones)
        v = load_4_bytes_eight_times(xc + at)
        c0, c1 = _one(c0, v, q0, ones), _one(c1, v, q1, ones)
        v = load_4_bytes_eight_times(xd + at)
        d0, d1 = _one(d0, v, q0, ones), _one(d1, v, q1, ones)
    return a0, a1, b0, b1, c0, c1, d0, d1


@inline
def _wide_products(xa, xb, xc, xd, width, query):
    """Do the same by blocks of 64 bytes; two sums a token hide the latency of the additions."""
    a, b, c, d = zero_wide_ints(), zero_wide_ints(), zero_wide_ints(), zero_wide_ints()
    e, f, g, h = zero_wide_ints(), zero_wide_ints(), zero_wide_ints(), zero_wide_ints()
    j = int64(0)
    while j + 8 <= width:
        at, place = uint64(j), query + uint64(16 * j)
        q, r = load_wide_bytes(place), load_wide_bytes(place + uint64(64))
        a = add_wide_dots(a, load_4_bytes_sixteen_times(xa + at), q)
        b = add_wide_dots(b, load_4_bytes_sixteen_times(xb + at), q)
        c = add_wide_dots(c, load_4_bytes_sixteen_times(xc + at), q)
        d = add_wide_dots(d, load_4_bytes_sixteen_times(xd + at), q)
        at += uint64(4)
        e = add_wide_dots(e, load_4_bytes_sixteen_times(xa + at), r)
        f = add_wide_dots(f, load_4_bytes_sixteen_times(xb + at), r)
        g = add_wide_dots(g, load_4_bytes_sixteen_times(xc + at), r)
        h = add_wide_dots(h, load_4_bytes_sixteen_times(xd + at), r)
        j += 8
    if j < width:
        at, q = uint64(j), load_wide_bytes(query + uint64(16 * j))
        a = add_wide_dots(a, load_4_bytes_sixteen_times(xa + at), q)
        b = add_wide_dots(b, load_4_bytes_sixteen_times(xb + at), q)
        c = add_wide_dots(c, load_4_bytes_sixteen_times(xc + at), q)
        d = add_wide_dots(d, load_4_bytes_sixteen_times(xd + at), q)
    a, b, c, d = add_wide_ints(a, e), add_wide_ints(b, f), add_wide_ints(c, g), add_wide_ints(d, h)
    return (
        first_ints(a), last_ints(a), first_ints(b), last_ints(b),
        first_ints(c), last_ints(c), first_ints(d), last_ints(d),
    )  # fmt: skip


_four_products = _wide_products if WIDE_DOTS else _narrow_products


@inline
def _scaled(products, scale, offset, factors, middles, sums):
    """``scale (product factor + middle) + offset sum`` of eight query tokens."""
    return multiply_add(scale, multiply_add(floats_of_ints(products), factors, middles), mul(offset, sums))


@kernel("void(uint64, uint64, uint64, uint64, int64[::1], int8[:,:,:,::1], float32[:,::1], float32[::1])")
def maxsim_i8(codes, scales, offsets, starts, documents, blocks, parameters, scores):
    """Score documents of tokens ``scale levels + offset``.

    Parameters
    ----------
    codes : address of uint8 (n_tokens, width), the levels; width is a multiple of 4
    scales, offsets : addresses of float32 (n_tokens,)
    starts : address of int64 (n_documents + 1,)
    documents : (m,), numbers of documents
    blocks : (n, width / 4, 16, 4), integers of query tokens: blocks, dimensions, query tokens, four dimensions each
    parameters : (3, 16 n), by query token: what its integers are multiplied by; what that leaves of it, times the
        middle level; the sum of its dimensions
    scores : (m,), written
    """
    padded, width = int64(parameters.shape[1]), int64(4 * blocks.shape[1])
    maxima = np.empty(padded, np.float32)
    best, query, row = uint64(maxima.ctypes.data), uint64(blocks.ctypes.data), uint64(4 * padded)
    for i in range(len(documents)):
        start, stop = _tokens_of(starts, documents[i])
        if start >= stop:
            scores[i] = float32(-np.inf)
            continue
        _begin(best, padded)
        for t in range(start, stop, 4):
            tb, tc, td = min(t + 1, stop - 1), min(t + 2, stop - 1), min(t + 3, stop - 1)
            xa, xb = codes + uint64(width * t), codes + uint64(width * tb)
            xc, xd = codes + uint64(width * tc), codes + uint64(width * td)
            sa, sb = splat(load_one_f32(scales + uint64(4 * t))), splat(load_one_f32(scales + uint64(4 * tb)))
            sc, sd = splat(load_one_f32(scales + uint64(4 * tc))), splat(load_one_f32(scales + uint64(4 * td)))
            oa, ob = splat(load_one_f32(offsets + uint64(4 * t))), splat(load_one_f32(offsets + uint64(4 * tb)))
            oc, od = splat(load_one_f32(offsets + uint64(4 * tc))), splat(load_one_f32(offsets + uint64(4 * td)))
            for b in range(len(blocks)):
                a0, a1, b0, b1, c0, c1, d0, d1 = _four_products(xa, xb, xc, xd, width, query + uint64(16 * width * b))
                place, at = best + uint64(64 * b), uint64(parameters.ctypes.data) + uint64(64 * b)
                f, m, s = load_f32(at), load_f32(at + row), load_f32(at + row + row)
                u, v = _scaled(a0, sa, oa, f, m, s), _scaled(b0, sb, ob, f, m, s)
                w, x = _scaled(c0, sc, oc, f, m, s), _scaled(d0, sd, od, f, m, s)
                store_f32(place, maximum(maximum(maximum(u, v), maximum(w, x)), load_f32(place)))
                place, at = place + uint64(32), at + uint64(32)
                f, m, s = load_f32(at), load_f32(at + row), load_f32(at + row + row)
                u, v = _scaled(a1, sa, oa, f, m, s), _scaled(b1, sb, ob, f, m, s)
                w, x = _scaled(c1, sc, oc, f, m, s), _scaled(d1, sd, od, f, m, s)
                store_f32(place, maximum(maximum(maximum(u, v), maximum(w, x)), load_f32(place)))
        scores[i] = _sum(best, padded)


@inline
def _book_levels(x, dim, part, places, out, scratch, row):
    """Write the levels of the centroids of one token's parts."""
    count, size = dim // part, uint64(256 * part)
    if part == 8:
        for j in range(count):
            code = uint64(load_one_u8(x + uint64(j)))
            scratch[row, j] = load_one_u64(places + size * uint64(j) + uint64(8) * code)
    elif part == 4 and count & 1 == 0:
        for j in range(0, count, 2):
            code, other = uint64(load_one_u8(x + uint64(j))), uint64(load_one_u8(x + uint64(j + 1)))
            low = load_one_u32(places + size * uint64(j) + uint64(4) * code)
            high = load_one_u32(places + size * uint64(j + 1) + uint64(4) * other)
            scratch[row, j >> 1] = uint64(low) | uint64(high) << uint64(32)
    elif part == 2 and count & 3 == 0:
        for j in range(0, count, 4):
            levels = uint64(0)
            for k in range(4):
                code = uint64(load_one_u8(x + uint64(j + k)))
                two = uint64(load_one_u16(places + size * uint64(j + k) + uint64(2) * code))
                levels |= two << uint64(16 * k)
            scratch[row, j >> 2] = levels
    else:
        for j in range(count):
            place = places + size * uint64(j) + uint64(part) * uint64(load_one_u8(x + uint64(j)))
            for k in range(part):
                store_one_u8(out + uint64(part * j + k), load_one_u8(place + uint64(k)))


@inline
def _levels(x, bits, dim, part, table, scratch, row):
    """Write the levels of the codes of one token."""
    places, j = uint64(table.ctypes.data), int64(0)
    out = uint64(scratch.ctypes.data) + uint64(8 * scratch.shape[1] * row)
    levels = load_16_bytes_twice(places)
    if part:
        _book_levels(x, dim, part, places, out, scratch, row)
    elif bits == 8:
        while j + 32 <= dim:
            store_bytes(out + uint64(j), load_bytes(x + uint64(j)))
            j += 32
        while j < dim:
            store_one_u8(out + uint64(j), load_one_u8(x + uint64(j)))
            j += 1
    elif bits == 4:
        while j + 32 <= dim:
            store_bytes(out + uint64(j), shuffle_bytes(levels, load_nibbles(x + uint64(j >> 1))))
            j += 32
        while j < dim:
            code = load_one_u8(x + uint64(j >> 1)) >> uint8(4 * (j & 1)) & uint8(15)
            store_one_u8(out + uint64(j), load_one_u8(places + uint64(code)))
            j += 1
    elif bits == 2:
        while j + 32 <= dim:
            store_bytes(out + uint64(j), shuffle_bytes(levels, load_crumbs(x + uint64(j >> 2))))
            j += 32
        while j < dim:
            code = load_one_u8(x + uint64(j >> 2)) >> uint8(2 * (j & 3)) & uint8(3)
            store_one_u8(out + uint64(j), load_one_u8(places + uint64(code)))
            j += 1
    else:
        # The lower of two levels is 0. Eight bits become eight bytes of 0 and 1; no sum carries into the next byte.
        high = uint64(load_one_u8(places + uint64(1)))
        while 8 * j < dim:
            spread = uint64(load_one_u8(x + uint64(j))) * EVERY_BYTE & BIT_OF_BYTE
            scratch[row, j] = (spread + uint64(127) * EVERY_BYTE >> uint64(7) & EVERY_BYTE) * high
            j += 1


@inline
def _near_centroid(scale, products, factors, middles, place):
    return multiply_add(scale, multiply_add(floats_of_ints(products), factors, middles), load_f32(place))


@inline
def _scale(x, bits):
    return splat(load_one_f32(x)) if bits == 1 else splat(float32(1))


@kernel(
    "void(uint64, int64, int64, int64, uint64, uint64, int64[::1], float32[:,::1], uint8[::1], int8[:,:,:,::1],"
    "float32[:,::1], float32[::1])"
)
def maxsim_residual(codes, bits, dim, part, ids, starts, documents, centroid_scores, table, blocks, parameters, scores):
    """Score documents of tokens ``centroid + weights[codes]`` by the scores of centroids and integers.

    Parameters
    ----------
    codes : address of uint8 (n_tokens, dim bits / 8 rounded up); codes follow each other from the low bits on. Codes of
        one bit come after a float32, which the weights of the token are multiplied by
    bits : 1, 2, 4 or 8
    part : dimensions that a code of 8 bits stands for, which divide dim; 0 where each dimension has a code
    ids : address of int32 (n_tokens,), centroids of tokens
    starts : address of int64 (n_documents + 1,)
    documents : (m,), numbers of documents
    centroid_scores : (n_centroids, 16 n), inner products with query tokens, 0 for those that pad
    table : (16,), the levels of codes; those of 8 bits are levels themselves; where codes stand for parts (256 dim,),
        the levels of 256 centroids for each
    blocks : as in :func:`maxsim_i8`
    parameters : (2, 16 n), by query token: what products are multiplied by, and what is added
    scores : (m,), written
    """
    padded, width, front = int64(parameters.shape[1]), int64(4 * blocks.shape[1]), uint64(4 if bits == 1 else 0)
    size = dim // part if part else (dim * bits + 7) // 8 + int64(front)
    scratch, maxima = np.zeros((4, (width + 7) // 8), np.uint64), np.empty(padded, np.float32)
    best, query, row = uint64(maxima.ctypes.data), uint64(blocks.ctypes.data), uint64(4 * padded)
    xa, step, base = uint64(scratch.ctypes.data), uint64(8 * scratch.shape[1]), uint64(centroid_scores.ctypes.data)
    xb, xc, xd = xa + step, xa + uint64(2) * step, xa + uint64(3) * step
    for i in range(len(documents)):
        start, stop = _tokens_of(starts, documents[i])
        if start >= stop:
            scores[i] = float32(-np.inf)
            continue
        _begin(best, padded)
        for t in range(start, stop, 4):
            tb, tc, td = min(t + 1, stop - 1), min(t + 2, stop - 1), min(t + 3, stop - 1)
            _levels(codes + uint64(size * t) + front, bits, dim, part, table, scratch, 0)
            _levels(codes + uint64(size * tb) + front, bits, dim, part, table, scratch, 1)
            _levels(codes + uint64(size * tc) + front, bits, dim, part, table, scratch, 2)
            _levels(codes + uint64(size * td) + front, bits, dim, part, table, scratch, 3)
            sa, sb = _scale(codes + uint64(size * t), bits), _scale(codes + uint64(size * tb), bits)
            sc, sd = _scale(codes + uint64(size * tc), bits), _scale(codes + uint64(size * td), bits)
            ca = base + row * uint64(load_one_u32(ids + uint64(4 * t)))
            cb = base + row * uint64(load_one_u32(ids + uint64(4 * tb)))
            cc = base + row * uint64(load_one_u32(ids + uint64(4 * tc)))
            cd = base + row * uint64(load_one_u32(ids + uint64(4 * td)))
            for b in range(len(blocks)):
                a0, a1, b0, b1, c0, c1, d0, d1 = _four_products(xa, xb, xc, xd, width, query + uint64(16 * width * b))
                low, high = uint64(64 * b), uint64(64 * b + 32)
                at = uint64(parameters.ctypes.data) + low
                f, m = load_f32(at), load_f32(at + row)
                u, v = _near_centroid(sa, a0, f, m, ca + low), _near_centroid(sb, b0, f, m, cb + low)
                w, x = _near_centroid(sc, c0, f, m, cc + low), _near_centroid(sd, d0, f, m, cd + low)
                store_f32(best + low, maximum(maximum(maximum(u, v), maximum(w, x)), load_f32(best + low)))
                f, m = load_f32(at + uint64(32)), load_f32(at + row + uint64(32))
                u, v = _near_centroid(sa, a1, f, m, ca + high), _near_centroid(sb, b1, f, m, cb + high)
                w, x = _near_centroid(sc, c1, f, m, cc + high), _near_centroid(sd, d1, f, m, cd + high)
                store_f32(best + high, maximum(maximum(maximum(u, v), maximum(w, x)), load_f32(best + high)))
        scores[i] = _sum(best, padded)


@kernel("void(uint64, uint64, int64[::1], float32[:,::1], float32[::1])")
def maxsim_centroids(ids, starts, documents, centroid_scores, scores):
    """Score documents by the centroids of their tokens alone; parameters as in :func:`maxsim_residual`."""
    padded = int64(centroid_scores.shape[1])
    row, base, low = uint64(4 * padded), uint64(centroid_scores.ctypes.data), splat(float32(-np.inf))
    for i in range(len(documents)):
        start, stop = _tokens_of(starts, documents[i])
        if start >= stop:
            scores[i] = float32(-np.inf)
            continue
        sums = zeros()
        b = int64(0)
        while b + 32 <= padded:
            a0, a1, a2, a3 = low, low, low, low
            for t in range(start, stop):
                place = base + row * uint64(load_one_u32(ids + uint64(4 * t))) + uint64(4 * b)
                a0, a1 = maximum(load_f32(place), a0), maximum(load_f32(place + uint64(32)), a1)
                a2, a3 = maximum(load_f32(place + uint64(64)), a2), maximum(load_f32(place + uint64(96)), a3)
            sums = add(add(add(add(sums, a0), a1), a2), a3)
            b += 32
        if b < padded:
            a0, a1 = low, low
            for t in range(start, stop):
                place = base + row * uint64(load_one_u32(ids + uint64(4 * t))) + uint64(4 * b)
                a0, a1 = maximum(load_f32(place), a0), maximum(load_f32(place + uint64(32)), a1)
            sums = add(add(sums, a0), a1)
        scores[i] = total(sums)
