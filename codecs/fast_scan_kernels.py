"""Scores of 4-bit codes in blocks of 32 rows, looked up 32 at a time.

Source: Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with
product quantization fast scan", VLDB 2015; the layout of blocks of 32 as in faiss, with another order of rows.

Layout: a block holds, for each pair of codes of its rows, 32 bytes: 16 of the even code, then 16 of the odd one. Byte
2 i of the 16 holds row i in its low nibble and row 16 + i in its high one, byte 2 i + 1 rows 8 + i and 24 + i: so the
sums come out in the order of rows. A query is a table of 16 bytes for each code, and ``parameters``: step, base,
constant, weight, share. With ``sum`` the sum of the bytes looked up, a row scores

    step * sum + base                                                                   where ``mul`` is 0, else
    mul[row] * (step * sum + base) + share * add[row] + constant + weight * error[row]

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
    mul,
    multiply_add,
    prefetch,
    shuffle_bytes,
    splat,
    splat_words,
    store_f32,
    sub_words,
    words_left_8,
    words_of_bytes,
    words_right_8,
    zero_words,
)
from gingham.codecs.reservoir_kernels import gather_some, make_room
from gingham.codecs.topk_kernels import sift
from gingham.codecs.wide_intrinsics import (
    WIDE,
    add_wide_words,
    load_wide_bytes,
    shuffle_wide_bytes,
    sum_of_halves,
    wide_high_nibbles,
    wide_low_nibbles,
    wide_words_of_bytes,
    wide_words_right_8,
    zero_wide_words,
)

_AHEAD = 8192
"""Bytes ahead of the scan of one query that are asked for: hardware stops at the end of a page."""
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
def _rest_of_one(block, table, done, pairs, a, b, c, d):
    for p in range(done, pairs):
        o = uint64(32 * p)
        codes = load_bytes(block + o)
        entries = load_bytes(table + o)
        a, b = _gather(entries, low_nibbles(codes), a, b)
        c, d = _gather(entries, high_nibbles(codes), c, d)
    return _folded(a, b), _folded(c, d)


@inline
def _one_query(block, table, pairs, ahead):
    """Sums of 32 rows in order; bytes ``ahead`` of the block are asked for where operations are wide."""
    return _rest_of_one(block, table, 0, pairs, zero_words(), zero_words(), zero_words(), zero_words())


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
def _wide_gather(table, nibbles, even, odd):
    """As :func:`_gather`, two pairs of codes at once."""
    found = wide_words_of_bytes(shuffle_wide_bytes(table, nibbles))
    return add_wide_words(even, found), add_wide_words(odd, wide_words_right_8(found))


@inline
def _wide_one_query(block, table, pairs, ahead):
    a, b, c, d = zero_wide_words(), zero_wide_words(), zero_wide_words(), zero_wide_words()
    for p in range(pairs >> 1):
        o = uint64(64 * p)
        prefetch(block + o + ahead)
        codes = load_wide_bytes(block + o)
        entries = load_wide_bytes(table + o)
        a, b = _wide_gather(entries, wide_low_nibbles(codes), a, b)
        c, d = _wide_gather(entries, wide_high_nibbles(codes), c, d)
    return _rest_of_one(
        block, table, pairs & ~1, pairs, sum_of_halves(a), sum_of_halves(b), sum_of_halves(c), sum_of_halves(d)
    )


@inline
def _wide_two_queries(block, table, pairs):
    a, b, c, d = zero_wide_words(), zero_wide_words(), zero_wide_words(), zero_wide_words()
    e, f, g, h = zero_wide_words(), zero_wide_words(), zero_wide_words(), zero_wide_words()
    other = table + uint64(32 * pairs)
    for p in range(pairs >> 1):
        o = uint64(64 * p)
        codes = load_wide_bytes(block + o)
        low, high = wide_low_nibbles(codes), wide_high_nibbles(codes)
        entries = load_wide_bytes(table + o)
        a, b = _wide_gather(entries, low, a, b)
        c, d = _wide_gather(entries, high, c, d)
        entries = load_wide_bytes(other + o)
        e, f = _wide_gather(entries, low, e, f)
        g, h = _wide_gather(entries, high, g, h)
    done = pairs & ~1
    first = _rest_of_one(
        block, table, done, pairs, sum_of_halves(a), sum_of_halves(b), sum_of_halves(c), sum_of_halves(d)
    )
    second = _rest_of_one(
        block, other, done, pairs, sum_of_halves(e), sum_of_halves(f), sum_of_halves(g), sum_of_halves(h)
    )
    return first[0], first[1], second[0], second[1]


# Another function, not a branch: the CPU may lack an instruction even where it is never reached.
_one = _wide_one_query if WIDE else _one_query
_two = _wide_two_queries if WIDE else _two_queries


@inline
def _estimated(sums, step, base):
    return multiply_add(sums, splat(step), splat(base))


@inline
def _finished(estimates, query, plus, times, error, row):
    """Scores of 8 rows by the second formula, from their estimates by the first."""
    o = uint64(4 * row)
    plus_share = mul(load_f32(plus + o), splat(load_one_f32(query + uint64(16))))
    score = multiply_add(load_f32(times + o), estimates, plus_share)
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


@kernel(
    f"void(uint64, int64, uint64, {_FACTORS}, int64, int64, uint64, uint64, uint64, int64, float32[:,::1],int64[:,::1])"
)
def _scan_one(codes, pairs, table, query, plus, times, error, start, stop, ahead, allow, room, i, scores, rows):
    """Offer rows start to stop to heap i; ``ahead`` as of :func:`_one_query`."""
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
        a, b = _one(codes + uint64(row >> 5) * stride, table, pairs, ahead)
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
    other = query + uint64(20)
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
        a, b, c, d = _two(codes + uint64(row >> 5) * stride, table, pairs)
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
            table, query = tables + uint64(i) * stride, parameters + uint64(20 * i)
            if i + 1 < n:
                _scan_two(codes, pairs, table, query, plus, times, error, begin, end, allow, room, i, scores, rows)
            else:
                ahead = uint64(_AHEAD)
                _scan_one(
                    codes, pairs, table, query, plus, times, error, begin, end, ahead, allow, room, i, scores, rows
                )  # fmt: skip


_LINES = "float32[:,::1], int64[:,::1], int64[::1], float32[::1], int64"


@kernel(f"void(uint64, int64, uint64, {_FACTORS}, int64, int64, uint64, uint64, uint64, int64, {_LINES})")
def _gather_one(
    codes, pairs, table, query, plus, times, error, start, stop, ahead, allow, room, i, scores, rows, counts, floors, k
):
    """Gather rows start to stop into line i; ``ahead`` as of :func:`_one_query`."""
    stride = uint64(32 * pairs)
    least = _least(floors[i], load_one_f32(query), load_one_f32(query + uint64(4)))
    for row in range(start, stop, 32):
        wanted = uint32(_ALL)
        if allow != 0:
            wanted = _allowed(allow, row, stop)
            if wanted == 0:
                continue
        elif row + 32 > stop:
            wanted = uint32(uint32(_ALL) >> uint32(32 - (stop - row)))
        if counts[i] + 32 > scores.shape[1]:
            make_room(scores, rows, counts, floors, i, k)
            least = _least(floors[i], load_one_f32(query), load_one_f32(query + uint64(4)))
        a, b = _one(codes + uint64(row >> 5) * stride, table, pairs, ahead)
        if times == 0:
            mask = uint32(wanted & _by_sums(a, b, query, least, room))
        else:
            mask = uint32(wanted & _by_scores(a, b, query, floors[i], plus, times, error, row, room))
        gather_some(room, mask, row, i, scores, rows, counts)


@kernel(f"void(uint64, int64, uint8[:,:,::1], float32[:,::1], uint64, uint64, uint64, int64[:,::1], uint64,{_LINES})")
def scan_block_spans(
    codes, pairs, tables, parameters, plus, times, error, spans, allow, scores, rows, counts, floors, k
):
    """Gather spans of rows into the line of one query each; spans (m, 3): a query, start, a multiple of 32, and stop.

    Lines are those of :mod:`gingham.codecs.reservoir_kernels`. Asking for a span before it is scanned made that 2 x
    slower: of a few blocks most lines asked for were those of others.
    """
    stride = uint64(32 * pairs)
    first, asked = uint64(tables.ctypes.data), uint64(parameters.ctypes.data)
    scratch = np.empty(32, np.float32)
    room = uint64(scratch.ctypes.data)
    for j in range(len(spans)):
        i, start = spans[j, 0], spans[j, 1]
        table, query = first + uint64(i) * stride, asked + uint64(20 * i)
        none = uint64(0)
        _gather_one(
            codes, pairs, table, query, plus, times, error, start, spans[j, 2], none, allow, room, i, scores, rows,
            counts, floors, k,
        )  # fmt: skip


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
        table, query = tables + uint64(i) * stride, parameters + uint64(20 * i)
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
    """Write codes (n, M) below 16 to the rows of blocks from ``at``, which hold zeros."""
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


@kernel("void(uint64, int64, int64[::1], uint8[:,:,::1])")
def copy_rows(codes, pairs, rows, blocks):
    """Write the codes of listed rows, one after the other, to blocks that hold zeros."""
    for i in range(len(rows)):
        row = rows[i]
        byte = codes + uint64(row >> 5) * uint64(32 * pairs) + uint64(_place(row))
        old, new, place = uint8(4 * ((row >> 4) & 1)), uint8(4 * ((i >> 4) & 1)), _place(i)
        for m in range(2 * pairs):
            value = (load_one_u8(byte + uint64(16 * m)) >> old) & uint8(15)
            blocks[i >> 5, m >> 1, 16 * (m & 1) + place] |= value << new
