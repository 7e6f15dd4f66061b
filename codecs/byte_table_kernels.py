"""Tables of bytes for :mod:`gingham.codecs.fast_scan_kernels`, and the codes that they look up.

Addresses are raw: the caller has checked shapes.
"""

import numpy as np
from numba import float32, float64, int64, uint8, uint64

from gingham.codecs.intrinsics import (
    add,
    inline,
    kernel,
    load_f32,
    load_one_f32,
    maximum,
    minimum,
    mul,
    multiply_add,
    splat,
    store_as_bytes,
    store_f32,
    store_one_u8,
    sub,
    zeros,
)
from gingham.codecs.rotation_kernels import rotate_rows
from gingham.codecs.scalar_kernels import center_queries


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
    scratch, signs = np.empty(16 * count + 16, np.float32), np.empty((3, 8), np.float32)
    for t in range(3):
        for c in range(8):
            signs[t, c] = float32(1) if (c >> t) & 1 else float32(-1)
    entries, of_signs = uint64(scratch.ctypes.data), uint64(signs.ctypes.data)
    first, second, third = load_f32(of_signs), load_f32(of_signs + uint64(32)), load_f32(of_signs + uint64(64))
    for i in range(tables.shape[0]):
        for m in range(count):
            s = mul(splat(queries[i, 4 * m]), first)
            s = multiply_add(splat(queries[i, 4 * m + 1]), second, s)
            s = multiply_add(splat(queries[i, 4 * m + 2]), third, s)
            fourth = splat(queries[i, 4 * m + 3])
            store_f32(entries + uint64(64 * m), sub(s, fourth))
            store_f32(entries + uint64(64 * m + 32), add(s, fourth))
        table = uint64(tables.ctypes.data) + uint64(16 * count) * uint64(i)
        _rounded(entries, count, scratch, table, parameters, i)


@kernel(
    "void(uint64, int64, int64, uint64, int64, float32[:,::1], int64, float32[:,::1], uint8[:,:,::1],float32[:,::1])"
)
def rotated_sign_tables(queries, n, dim, mean, metric, factors, span, near, tables, parameters):
    """Center queries float32 (n, dim) into ``near``, rotate them, and make :func:`sign_tables` of them.

    ``mean`` and ``metric`` are those of :func:`gingham.codecs.scalar_kernels.center_queries`, ``factors`` and ``span``
    those of :func:`gingham.codecs.rotation_kernels.rotate_rows`. Constants go to column 2 of the parameters, shares of
    the mean to column 4.
    """
    shares, constants = np.empty(n, np.float32), np.empty(n, np.float64)
    center_queries(queries, n, dim, mean, metric, near, shares, constants)
    rotated = np.empty((n, factors.shape[1]), np.float32)
    rotate_rows(uint64(near.ctypes.data), dim, factors, span, int64(0), rotated)
    sign_tables(rotated, tables, parameters)
    for i in range(n):
        parameters[i, 2], parameters[i, 4] = float32(constants[i]), shares[i]


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
