"""Kernels over rows of packed integer codes, whose vectors are affine in the codes: see :mod:`.affine_row_kernels`."""

import numpy as np
from numba import float32, int64, uint8, uint64

from gingham.codecs.affine_row_kernels import four_products_bytes, four_products_nibbles, score_of_product, score_row
from gingham.codecs.intrinsics import inline, kernel, load_one_u8, prefetch
from gingham.codecs.reservoir_kernels import make_room
from gingham.codecs.topk_kernels import sift


@inline
def _offer(scores, rows, i, s, row):
    if s > scores[i, 0]:
        scores[i, 0] = s
        rows[i, 0] = row
        sift(scores, rows, i, int64(scores.shape[1]))


_SCORED = "uint64, int64, int64, int64, int64"
_AHEAD = 4096
"""Bytes ahead of a scan that are asked for: hardware stops at the end of a page."""


@kernel(f"void({_SCORED}, int64, int64, int64, int8[:,::1], float32[:,::1], uint64, float32[:,::1], int64[:,::1])")
def scan_packed(codes, stride, factors, width, bits, start, stop, tile, queries, parameters, allow, scores, rows):
    """Offer rows start to stop to the heaps of all queries, ``tile`` rows at a time; ``allow`` 0 allows all."""
    step, first = uint64(queries.shape[1]), uint64(queries.ctypes.data)
    skip = uint64(4 * factors)
    n = scores.shape[0]
    fours = n - n % 4 if bits == 8 or bits == 4 else 0
    for low in range(start, stop, tile):
        high = min(low + tile, stop)
        for i in range(0, fours, 4):
            q = first + uint64(i) * step
            for row in range(low, high):
                if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                    continue
                x = codes + uint64(row * stride)
                if bits == 8:
                    a, b, c, d = four_products_bytes(x + skip, q, width, step)
                else:
                    a, b, c, d = four_products_nibbles(x + skip, q, width, step)
                _offer(scores, rows, i, score_of_product(a, x, factors, parameters, i), row)
                _offer(scores, rows, i + 1, score_of_product(b, x, factors, parameters, i + 1), row)
                _offer(scores, rows, i + 2, score_of_product(c, x, factors, parameters, i + 2), row)
                _offer(scores, rows, i + 3, score_of_product(d, x, factors, parameters, i + 3), row)
        for i in range(fours, n):
            q = first + uint64(i) * step
            for row in range(low, high):
                if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                    continue
                x = codes + uint64(row * stride)
                _offer(scores, rows, i, score_row(x, factors, q, width, bits, uint64(_AHEAD), parameters, i), row)


@kernel(
    f"void({_SCORED}, int64[:,::1], int8[:,::1], float32[:,::1], uint64, float32[:,::1], int64[:,::1], int64[::1],"
    "float32[::1], int64)"
)
def scan_packed_spans(
    codes, stride, factors, width, bits, spans, queries, parameters, allow, scores, rows, counts, floors, k
):
    """Gather spans of rows into the line of one query each; spans (m, 3): a query, start and stop.

    Lines are those of :mod:`gingham.codecs.reservoir_kernels`.
    """
    for j in range(len(spans)):
        i, start = spans[j, 0], spans[j, 1]
        q = uint64(queries.ctypes.data) + uint64(i * queries.shape[1])
        # The next span comes while this one is scanned: they lie anywhere.
        ahead = uint64((spans[min(j + 1, len(spans) - 1), 1] - start) * stride)
        for row in range(start, spans[j, 2]):
            if allow != 0 and load_one_u8(allow + uint64(row)) == 0:
                continue
            x = codes + uint64(row * stride)
            s = score_row(x, factors, q, width, bits, ahead, parameters, i)
            # Not a function that is inlined: numba would count references of its arrays in every turn, for 35 ns.
            if s > floors[i]:
                count = counts[i]
                scores[i, count], rows[i, count] = s, row
                counts[i] = count + 1
                if count + 1 == scores.shape[1]:
                    make_room(scores, rows, counts, floors, i, k)


@kernel(f"void({_SCORED}, int8[:,::1], float32[:,::1], int64[:,::1], float32[:,::1])")
def score_packed(codes, stride, factors, width, bits, queries, parameters, rows, out):
    """Score the listed rows of each query; a negative row scores -inf."""
    m = rows.shape[1]
    for i in range(rows.shape[0]):
        q = uint64(queries.ctypes.data) + uint64(i * queries.shape[1])
        for j in range(m):
            if rows[i, j] < 0:
                out[i, j] = float32(-np.inf)
            else:
                later = rows[i, min(j + 2, m - 1)]
                ahead = uint64((later - rows[i, j]) * stride)
                row = codes + uint64(rows[i, j] * stride)
                out[i, j] = score_row(row, factors, q, width, bits, ahead, parameters, i)


@kernel(
    f"void({_SCORED}, int8[:,::1], float32[:,::1], int64, int8[:,::1], float32[:,::1],"
    "uint64, int64, int64, int64, int8[:,::1], float32[:,::1], int64[:,::1], float32[:,::1])"
)
def refine_packed(
    codes, stride, factors, width, bits, queries, parameters, twice, rest, rest_parameters,
    fine, fine_stride, fine_width, fine_bits, fine_queries, fine_parameters, rows, out,
):  # fmt: skip
    """Score the listed rows of each query by both levels, and with ``twice`` by what rounding left of the query."""
    first, second, third = uint64(queries.ctypes.data), uint64(rest.ctypes.data), uint64(fine_queries.ctypes.data)
    m = rows.shape[1]
    none = uint64(0)
    for i in range(rows.shape[0]):
        for j in range(m):
            if rows[i, j] < 0:
                out[i, j] = float32(-np.inf)
                continue
            later = rows[i, min(j + 3, m - 1)]
            if later >= 0:
                for line in range(0, fine_stride, 64):
                    prefetch(fine + uint64(later * fine_stride + line))
                for line in range(0, stride, 64):
                    prefetch(codes + uint64(later * stride + line))
            row = codes + uint64(rows[i, j] * stride)
            s = score_row(row, factors, first + uint64(i * queries.shape[1]), width, bits, none, parameters, i)
            if twice != 0:
                s += score_row(row, factors, second + uint64(i * rest.shape[1]), width, bits, none, rest_parameters, i)
            row = fine + uint64(rows[i, j] * fine_stride)
            q = third + uint64(i * fine_queries.shape[1])
            out[i, j] = s + score_row(row, factors, q, fine_width, fine_bits, none, fine_parameters, i)


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
