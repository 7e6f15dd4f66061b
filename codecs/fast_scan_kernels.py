"""Scores of 4-bit codes in blocks of 32 rows, looked up 32 at a time.

Source: Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with
product quantization fast scan", VLDB 2015; the layout of blocks of 32 as in faiss, with another order of rows.

Layout: a block holds, for each pair of codes of its rows, 32 bytes: 16 of the even code, then 16 of the odd one. Byte
2 i of the 16 holds row i in its low nibble and row 16 + i in its high one, byte 2 i + 1 rows 8 + i and 24 + i: so the
sums come out in the order of rows. A query is a table of 16 bytes for each code, and ``parameters``: step, base,
constant, weight. With ``sum`` the sum of the bytes looked up, a row scores

    step * sum + base                                                                   where ``mul`` is 0, else
    mul[row] * (step * sum + base) + add[row] + constant + weight * error[row]

Sums stay below 2^16: the tables are made so. Addresses are raw: the caller has checked shapes.
"""

import numpy as np
from numba import float32, float64, int64, uint8, uint16, uint32, uint64

from gingham.codecs.intrinsics import (
    add,
    add_halves,
    add_words,
    floats_of_high_words,
    floats_of_low_words,
    greater_mask,
    greater_words,
    high_nibbles,
    inline,
    kernel,
    load_bytes,
    load_bytes_as_words,
    load_f32,
    load_one_f32,
    load_one_u8,
    low_nibbles,
    lowest_bit,
    maximum,
    minimum,
    mul,
    multiply_add,
    shuffle_bytes,
    splat,
    splat_words,
    store_as_bytes,
    store_f32,
    store_one_u8,
    sub,
    sub_words,
    words_left_8,
    words_of_bytes,
    words_right_8,
    zero_words,
    zeros,
)
from gingham.codecs.topk_kernels import sift

_ALL = 0xFFFFFFFF
_TILE_BYTES = 96 << 10
"""Blocks that stay in the second-level cache while all queries pass over them."""


@inline
def _gather(table, nibbles, even, odd):
    """Add what 32 nibbles find: to ``odd`` the odd bytes, to ``even`` the even ones plus 256 times the odd ones."""
    found = words_of_bytes(shuffle_bytes(table, nibbles))
    return add_words(even, found), add_words(odd, words_right_8(found))


@inline
def _folded(even, odd):
    """Sums of 16 rows in order, from what :func:`_gather` added."""
    return add_halves(sub_words(even, words_left_8(odd)), odd)


@inline
def _one_query(block, table, pairs):
    a, b, c, d = zero_words(), zero_words(), zero_words(), zero_words()
    for p in range(pairs):
        o = uint64(32 * p)
        codes = load_bytes(block + o)
        entries = load_bytes(table + o)
        a, b = _gather(entries, low_nibbles(codes), a, b)
        c, d = _gather(entries, high_nibbles(codes), c, d)
    return _folded(a, b), _folded(c, d)


@inline
def _two_queries(block, table, pairs):
    """Sums of two queries whose tables follow each other."""
    a, b, c, d = zero_words(), zero_words(), zero_words(), zero_words()
    e, f, g, h = zero_words(), zero_words(), zero_words(), zero_words()
    other = table + uint64(32 * pairs)
    for p in range(pairs):
        o = uint64(32 * p)
        codes = load_bytes(block + o)
        low, high = low_nibbles(codes), high_nibbles(codes)
        entries = load_bytes(table + o)
        a, b = _gather(entries, low, a, b)
        c, d = _gather(entries, high, c, d)
        entries = load_bytes(other + o)
        e, f = _gather(entries, low, e, f)
        g, h = _gather(entries, high, g, h)
    return _folded(a, b), _folded(c, d), _folded(e, f), _folded(g, h)


@inline
def _estimated(sums, step, base):
    return multiply_add(sums, splat(step), splat(base))


@inline
def _finished(estimates, query, plus, times, error, row):
    """Scores of 8 rows by the second formula, from their estimates by the first."""
    o = uint64(4 * row)
    score = multiply_add(load_f32(times + o), estimates, load_f32(plus + o))
    score = add(score, splat(load_one_f32(query + uint64(8))))
    weight = load_one_f32(query + uint64(12))
    if weight != float32(0):
        score = multiply_add(load_f32(error + o), splat(weight), score)
    return score


@inline
def _least(root, step, base):
    """A sum below which no row scores above the root of a heap by the first formula."""
    least = float64(0)
    if step > float32(0) and root > float32(-np.inf):
        # Rounding the score of a row moves it by less than 2^-22 of the terms.
        slack = (abs(float64(root)) + abs(float64(base))) * 2.0**-22
        sum_of_root = (float64(root) - float64(base) - slack) / float64(step)
        least = min(max(np.floor(sum_of_root) - 1.0, 0.0), 65535.0)
    return uint16(least)


@inline
def _allowed(allow, row, stop):
    """Bit i is set where row + i is below stop and allowed."""
    mask = uint32(0)
    if row + 32 <= stop:
        o = allow + uint64(row)
        low = greater_words(load_bytes_as_words(o), zero_words())
        mask = uint32(low | (greater_words(load_bytes_as_words(o + uint64(16)), zero_words()) << uint32(16)))
    else:
        for i in range(stop - row):
            if load_one_u8(allow + uint64(row + i)) != 0:
                mask |= uint32(uint32(1) << uint32(i))
    return mask


@kernel("float32(uint64, uint32, int64, int64, float32[:,::1], int64[:,::1])")
def _offer(block, mask, row, i, scores, rows):
    """Offer the rows of a mask to heap i and return its root; ``block`` is the address of 32 scores from ``row``."""
    while mask != 0:
        lane = lowest_bit(mask)
        mask = uint32(mask & (mask - uint32(1)))
        s = load_one_f32(block + uint64(4 * lane))
        if s > scores[i, 0]:
            scores[i, 0] = s
            rows[i, 0] = row + lane
            sift(scores, rows, i, int64(scores.shape[1]))
    return scores[i, 0]


@inline
def _by_sums(low, high, query, least, room):
    """Which of 32 rows have sums of at least ``least``; the scores of all go to ``room`` where there are any."""
    bound = splat_words(least)
    below = greater_words(bound, low) | (greater_words(bound, high) << uint32(16))
    mask = uint32(uint32(below) ^ uint32(_ALL))
    if mask != 0:
        step, base = load_one_f32(query), load_one_f32(query + uint64(4))
        store_f32(room, _estimated(floats_of_low_words(low), step, base))
        store_f32(room + uint64(32), _estimated(floats_of_high_words(low), step, base))
        store_f32(room + uint64(64), _estimated(floats_of_low_words(high), step, base))
        store_f32(room + uint64(96), _estimated(floats_of_high_words(high), step, base))
    return mask


@inline
def _by_scores(low, high, query, root, plus, times, error, row, room):
    """Which of 32 rows score above the root; the scores of all go to ``room`` where there are any."""
    step, base = load_one_f32(query), load_one_f32(query + uint64(4))
    a = _finished(_estimated(floats_of_low_words(low), step, base), query, plus, times, error, row)
    b = _finished(_estimated(floats_of_high_words(low), step, base), query, plus, times, error, row + 8)
    c = _finished(_estimated(floats_of_low_words(high), step, base), query, plus, times, error, row + 16)
    d = _finished(_estimated(floats_of_high_words(high), step, base), query, plus, times, error, row + 24)
    roots = splat(root)
    half = greater_mask(a, roots) | (greater_mask(b, roots) << uint32(8))
    other = greater_mask(c, roots) | (greater_mask(d, roots) << uint32(8))
    mask = uint32(half | (other << uint32(16)))
    if mask != 0:
        store_f32(room, a)
        store_f32(room + uint64(32), b)
        store_f32(room + uint64(64), c)
        store_f32(room + uint64(96), d)
    return mask


_FACTORS = "uint64, uint64, uint64, uint64"


@kernel(f"void(uint64, int64, uint64, {_FACTORS}, int64, int64, uint64, uint64, int64, float32[:,::1], int64[:,::1])")
def _scan_one(codes, pairs, table, query, plus, times, error, start, stop, allow, room, i, scores, rows):
    """Offer rows start to stop to heap i."""
    stride = uint64(32 * pairs)
    root = scores[i, 0]
    least = _least(root, load_one_f32(query), load_one_f32(query + uint64(4)))
    for row in range(start, stop, 32):
        wanted = uint32(_ALL)
        if allow != 0:
            wanted = _allowed(allow, row, stop)
            if wanted == 0:
                continue
        elif row + 32 > stop:
            wanted = uint32(uint32(_ALL) >> uint32(32 - (stop - row)))
        a, b = _one_query(codes + uint64(row >> 5) * stride, table, pairs)
        if times == 0:
            mask = uint32(wanted & _by_sums(a, b, query, least, room))
            if mask != 0:
                root = _offer(room, mask, row, i, scores, rows)
                least = _least(root, load_one_f32(query), load_one_f32(query + uint64(4)))
        else:
            mask = uint32(wanted & _by_scores(a, b, query, root, plus, times, error, row, room))
            if mask != 0:
                root = _offer(room, mask, row, i, scores, rows)


@kernel(f"void(uint64, int64, uint64, {_FACTORS}, int64, int64, uint64, uint64, int64, float32[:,::1], int64[:,::1])")
def _scan_two(codes, pairs, table, query, plus, times, error, start, stop, allow, room, i, scores, rows):
    """Offer rows start to stop to heaps i and i + 1."""
    stride = uint64(32 * pairs)
    other = query + uint64(16)
    root, second_root = scores[i, 0], scores[i + 1, 0]
    least = _least(root, load_one_f32(query), load_one_f32(query + uint64(4)))
    second_least = _least(second_root, load_one_f32(other), load_one_f32(other + uint64(4)))
    for row in range(start, stop, 32):
        wanted = uint32(_ALL)
        if allow != 0:
            wanted = _allowed(allow, row, stop)
            if wanted == 0:
                continue
        elif row + 32 > stop:
            wanted = uint32(uint32(_ALL) >> uint32(32 - (stop - row)))
        a, b, c, d = _two_queries(codes + uint64(row >> 5) * stride, table, pairs)
        if times == 0:
            mask = uint32(wanted & _by_sums(a, b, query, least, room))
            if mask != 0:
                root = _offer(room, mask, row, i, scores, rows)
                least = _least(root, load_one_f32(query), load_one_f32(query + uint64(4)))
            mask = uint32(wanted & _by_sums(c, d, other, second_least, room))
            if mask != 0:
                second_root = _offer(room, mask, row, i + 1, scores, rows)
                second_least = _least(second_root, load_one_f32(other), load_one_f32(other + uint64(4)))
        else:
            mask = uint32(wanted & _by_scores(a, b, query, root, plus, times, error, row, room))
            if mask != 0:
                root = _offer(room, mask, row, i, scores, rows)
            mask = uint32(wanted & _by_scores(c, d, other, second_root, plus, times, error, row, room))
            if mask != 0:
                second_root = _offer(room, mask, row, i + 1, scores, rows)


_SCORED = "uint64, int64, uint64, uint64, uint64, uint64, uint64"


@kernel(f"void({_SCORED}, int64, int64, uint64, float32[:,::1], int64[:,::1])")
def scan_blocks(codes, pairs, tables, parameters, plus, times, error, start, stop, allow, scores, rows):
    """Offer rows start to stop to the heaps of all queries; start is a multiple of 32.

    ``allow`` is the address of a bool for each row, 0 allows all. The last block of codes, and of the factors
    ``plus`` (add), ``times`` (mul) and ``error``, is whole.
    """
    n = scores.shape[0]
    stride = uint64(32 * pairs)
    scratch = np.empty(32, np.float32)
    room = uint64(scratch.ctypes.data)
    tile = max(int64(32), stop - start)
    if n > 2:
        tile = int64(32 * max(1, _TILE_BYTES // (32 * pairs)))
    for begin in range(start, stop, tile):
        end = min(begin + tile, stop)
        for i in range(0, n, 2):
            table, query = tables + uint64(i) * stride, parameters + uint64(16 * i)
            if i + 1 < n:
                _scan_two(
                    codes, pairs, table, query, plus, times, error, begin, end, allow, room, i, scores, rows
                )
            else:
                _scan_one(
                    codes, pairs, table, query, plus, times, error, begin, end, allow, room, i, scores, rows
                )


@inline
def _place(row):
    """Byte of a row among the 16 of a code."""
    return 2 * (row & 7) + ((row >> 3) & 1)


@kernel(f"void({_SCORED}, int64[:,::1], float32[:,::1])")
def score_blocks(codes, pairs, tables, parameters, plus, times, error, rows, out):
    """Score the listed rows of each query, with the bits of :func:`scan_blocks`; a negative row scores -inf."""
    stride = uint64(32 * pairs)
    scratch = np.zeros((4, 8), np.float32)
    room = uint64(scratch.ctypes.data)
    m = rows.shape[1]
    for i in range(rows.shape[0]):
        table, query = tables + uint64(i) * stride, parameters + uint64(16 * i)
        for low in range(0, m, 8):
            count = min(int64(8), m - low)
            for lane in range(count):
                row = rows[i, low + lane]
                if row < 0:
                    continue
                byte = codes + uint64(row >> 5) * stride + uint64(_place(row))
                shift = uint8(4 * ((row >> 4) & 1))
                total = int64(0)
                for p in range(2 * pairs):
                    nibble = (load_one_u8(byte + uint64(16 * p)) >> shift) & uint8(15)
                    total += int64(load_one_u8(table + uint64(16 * p) + uint64(nibble)))
                scratch[0, lane] = float32(total)
                if times != 0:
                    scratch[1, lane] = load_one_f32(plus + uint64(4 * row))
                    scratch[2, lane] = load_one_f32(times + uint64(4 * row))
                    if error != 0:
                        scratch[3, lane] = load_one_f32(error + uint64(4 * row))
            found = _estimated(load_f32(room), load_one_f32(query), load_one_f32(query + uint64(4)))
            if times != 0:
                found = _finished(found, query, room + uint64(32), room + uint64(64), room + uint64(96), int64(0))
            store_f32(room, found)
            for lane in range(count):
                out[i, low + lane] = scratch[0, lane] if rows[i, low + lane] >= 0 else float32(-np.inf)


@kernel("void(uint8[:,::1], int64, uint8[:,:,::1])")
def pack_rows(values, at, blocks):
    """Write codes (n, M) below 16 to the rows of blocks from ``at``, which hold zeros; M is that of the blocks, or less."""
    for i in range(values.shape[0]):
        row = at + i
        place, shift = _place(row), uint8(4 * ((row >> 4) & 1))
        for m in range(values.shape[1]):
            blocks[row >> 5, m >> 1, 16 * (m & 1) + place] |= values[i, m] << shift


@kernel("void(uint64, int64, int64, uint8[:,::1])")
def unpack_rows(codes, pairs, first, values):
    """Read the codes (n, M) of the rows from ``first``."""
    for i in range(values.shape[0]):
        row = first + i
        byte = codes + uint64(row >> 5) * uint64(32 * pairs) + uint64(_place(row))
        shift = uint8(4 * ((row >> 4) & 1))
        for m in range(values.shape[1]):
            values[i, m] = (load_one_u8(byte + uint64(16 * m)) >> shift) & uint8(15)


@inline
def _extremes(low, high, scratch, at):
    """Least and greatest of 8 pairs of floats, by way of 16 floats of scratch from ``at``."""
    place = uint64(scratch.ctypes.data) + uint64(4 * at)
    store_f32(place, minimum(low, high))
    store_f32(place + uint64(32), maximum(low, high))
    least, greatest = scratch[at], scratch[at + 8]
    for lane in range(1, 8):
        least, greatest = min(least, scratch[at + lane]), max(greatest, scratch[at + 8 + lane])
    return least, greatest


@inline
def _rounded(entries, count, scratch, table, parameters, i):
    """Round 16 floats for each of ``count`` codes to bytes with one step, from the least of each code.

    The step is such that the greatest byte is 255 and that the greatest sum, half a step of rounding for each code
    included, stays below 2^16.
    """
    base, widest, whole = float64(0), float64(0), float64(0)
    for m in range(count):
        place = entries + uint64(64 * m)
        least, greatest = _extremes(load_f32(place), load_f32(place + uint64(32)), scratch, 16 * count)
        base += float64(least)
        widest, whole = max(widest, float64(greatest) - float64(least)), whole + (float64(greatest) - float64(least))
    factor = float64(0)
    if widest > 1e-35:
        factor = min(255.0 / widest, (65535.0 - count) / whole)
    parameters[i, 0] = float32(1.0 / factor) if factor > 0.0 else float32(0)
    parameters[i, 1] = float32(base)
    factors, halves = splat(float32(factor)), splat(float32(0.5))
    for m in range(count):
        place = entries + uint64(64 * m)
        a, b = load_f32(place), load_f32(place + uint64(32))
        least = splat(_extremes(a, b, scratch, 16 * count)[0])
        store_as_bytes(table + uint64(16 * m), multiply_add(sub(a, least), factors, halves))
        store_as_bytes(table + uint64(16 * m + 8), multiply_add(sub(b, least), factors, halves))


@inline
def _compared(q, centroids, width, l2):
    """Scores of ``width`` numbers against 16 centroids, dimension by dimension in memory: two vectors."""
    a, b = zeros(), zeros()
    for j in range(width):
        x = splat(load_one_f32(q + uint64(4 * j)))
        low, high = load_f32(centroids + uint64(64 * j)), load_f32(centroids + uint64(64 * j + 32))
        if l2:
            low, high = sub(x, low), sub(x, high)
            a, b = multiply_add(low, low, a), multiply_add(high, high, b)
        else:
            a, b = multiply_add(x, low, a), multiply_add(x, high, b)
    if l2:
        a, b = sub(zeros(), a), sub(zeros(), b)
    return a, b


@kernel("void(uint64, uint64, int64, int64, boolean, uint8[:,:,::1], float32[:,::1])")
def product_tables(queries, centroids, count, width, l2, tables, parameters):
    """Tables uint8 (n, M padded to even, 16) of queries float32 (n, count * width), and step and base.

    ``centroids`` float32 (count, width, 16); entries are inner products, or negative squared distances.
    """
    scratch = np.empty(16 * count + 16, np.float32)
    entries = uint64(scratch.ctypes.data)
    padded = tables.shape[1]
    for i in range(tables.shape[0]):
        q = queries + uint64(4 * count * width) * uint64(i)
        for m in range(count):
            o = centroids + uint64(64 * width) * uint64(m)
            a, b = _compared(q + uint64(4 * width) * uint64(m), o, width, l2)
            store_f32(entries + uint64(64 * m), a)
            store_f32(entries + uint64(64 * m + 32), b)
        table = uint64(tables.ctypes.data) + uint64(16 * padded) * uint64(i)
        _rounded(entries, count, scratch, table, parameters, i)
        for j in range(16 * (padded - count)):
            store_one_u8(table + uint64(16 * count + j), uint8(0))


@kernel("void(float32[:,::1], uint8[:,:,::1], float32[:,::1])")
def sign_tables(queries, tables, parameters):
    """Tables uint8 (n, dim / 4, 16) of queries (n, dim), and step and base; dim is a multiple of 8.

    Entry c of a code is the sum of its four numbers, number t negated where bit t of c is not set.
    """
    count = tables.shape[1]
    scratch = np.empty(16 * count + 16, np.float32)
    for i in range(tables.shape[0]):
        for m in range(count):
            for c in range(16):
                s = float32(0)
                for t in range(4):
                    x = queries[i, 4 * m + t]
                    s += x if (c >> t) & 1 else -x
                scratch[16 * m + c] = s
        table = uint64(tables.ctypes.data) + uint64(16 * count) * uint64(i)
        _rounded(uint64(scratch.ctypes.data), count, scratch, table, parameters, i)


@kernel("void(uint64, uint64, int64, int64, uint8[:,::1])")
def nearest_centroids(vectors, centroids, count, width, values):
    """Codes (n, count) of vectors float32 (n, count * width): the nearest of 16, the first among equals."""
    scratch = np.empty(16, np.float32)
    room = uint64(scratch.ctypes.data)
    for i in range(values.shape[0]):
        x = vectors + uint64(4 * count * width) * uint64(i)
        for m in range(count):
            o = centroids + uint64(64 * width) * uint64(m)
            a, b = _compared(x + uint64(4 * width) * uint64(m), o, width, True)
            store_f32(room, a)
            store_f32(room + uint64(32), b)
            best = int64(0)
            for c in range(1, 16):
                if scratch[c] > scratch[best]:
                    best = c
            values[i, m] = uint8(best)
