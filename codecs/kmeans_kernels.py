"""Kernels of k-means: the nearest centroid in each sub-space, the sums of clusters, and a start.

The nearest centroid is the one of greatest ``<x, c> - |c|^2 / 2``; ties go to the lower one. Negated halves of squared
lengths come from the caller. Addresses are raw: the caller has checked shapes, types and contiguity.
"""

import numpy as np
from numba import float32, float64, int64, uint8, uint64

from gingham.codecs.intrinsics import (
    add,
    greater_mask,
    inline,
    kernel,
    load_f32,
    load_one_f32,
    lowest_bit,
    maximum,
    multiply_add,
    splat,
    store_f32,
    store_one_u8,
    sub,
    total,
    zeros,
)


@inline
def _greatest(spare):
    """Greatest of eight floats; NaN counts as least."""
    best = float32(-np.inf)
    for lane in range(8):
        best = max(best, load_one_f32(spare + uint64(4 * lane)))
    return best


@inline
def _first(values, width, best):
    """Place of the first of ``width`` floats, a multiple of 8, that is not below best."""
    many = splat(best)
    j = int64(0)
    while j < width:
        below = greater_mask(many, load_f32(values + uint64(4 * j)))
        if below != 255:
            return j + lowest_bit(~below)
        j += 8
    return int64(0)


@inline
def _squared(x, y, dim):
    a, b = zeros(), zeros()
    j = int64(0)
    while j + 16 <= dim:
        o = uint64(4 * j)
        v = sub(load_f32(x + o), load_f32(y + o))
        w = sub(load_f32(x + o + uint64(32)), load_f32(y + o + uint64(32)))
        a, b = multiply_add(v, v, a), multiply_add(w, w, b)
        j += 16
    s = total(add(a, b))
    while j < dim:
        v = load_one_f32(x + uint64(4 * j)) - load_one_f32(y + uint64(4 * j))
        s += v * v
        j += 1
    return s


@inline
def _drawn(distances, share):
    """Row at a share of the sum of distances."""
    whole = float64(0.0)
    for row in range(distances.size):
        whole += distances[row]
    left = share * whole
    for row in range(distances.size):
        left -= distances[row]
        if left < 0:
            return int64(row)
    return int64(share * distances.size)


@kernel("void(uint64, int64, int64, int64, float64[:,::1], float32[::1], float32[:,::1], int64[::1])")
def draw_far(rows, dim, first, last, draws, distances, trial, chosen):
    """Draw rows ``first`` to ``last`` of a start by greedy k-means++.

    Parameters
    ----------
    rows : address of float32 (n, dim)
    draws : uniform from 0 to 1, (k, candidates)
    distances : squared distance of each row to the nearest one chosen, (n,), infinite at first
    trial : the same with each candidate, (candidates, n)
    chosen : the rows, (k,)
    """
    n = distances.size
    for i in range(first, last):
        place, least = int64(0), float64(np.inf)
        candidate = int64(0)
        for c in range(draws.shape[1] if i > 0 else 1):
            row = _drawn(distances, draws[i, c]) if i > 0 else int64(draws[i, c] * n)
            x = rows + uint64(4 * row * dim)
            error = float64(0.0)
            for r in range(n):
                d = min(_squared(x, rows + uint64(4 * r * dim), dim), distances[r])
                trial[c, r] = d
                error += d
            if error < least:
                place, least, candidate = row, error, c
        chosen[i] = place
        distances[:] = trial[candidate]


@kernel("void(uint64, int64, int64, int64, int64, int32[::1], float64[:,::1], int64[::1])")
def add_to_clusters(vectors, n, dim, first, last, clusters, sums, counts):
    """Add columns first to last of float32 (n, dim) to the sums of their clusters, and count rows where first is 0."""
    for row in range(n):
        cluster = int64(clusters[row])
        x = vectors + uint64(4 * row * dim)
        for j in range(first, last):
            sums[cluster, j] += load_one_f32(x + uint64(4 * j))
        if first == 0:
            counts[cluster] += 1


@inline
def _keep(place, first, second):
    store_f32(place, first)
    store_f32(place + uint64(32), second)


@inline
def _products(a, b, c, d, e, f, dsub, tiles, halves, width, spare):
    """Write <x, c> - |c|^2 / 2 of six rows, (6, width), behind the greatest of each lane, (6, 8)."""
    least = splat(float32(-np.inf))
    ma, mb, mc, md, me, mf = least, least, least, least, least, least
    wide = uint64(4 * width)
    o = spare + uint64(192)
    for col in range(0, width, 16):
        h, g = load_f32(halves + uint64(4 * col)), load_f32(halves + uint64(4 * col + 32))
        a0, b0, c0, d0, e0, f0 = h, h, h, h, h, h
        a1, b1, c1, d1, e1, f1 = g, g, g, g, g, g
        for j in range(dsub):
            t, u = load_f32(tiles), load_f32(tiles + uint64(32))
            tiles += uint64(64)
            p = uint64(4 * j)
            v = splat(load_one_f32(a + p))
            a0, a1 = multiply_add(v, t, a0), multiply_add(v, u, a1)
            v = splat(load_one_f32(b + p))
            b0, b1 = multiply_add(v, t, b0), multiply_add(v, u, b1)
            v = splat(load_one_f32(c + p))
            c0, c1 = multiply_add(v, t, c0), multiply_add(v, u, c1)
            v = splat(load_one_f32(d + p))
            d0, d1 = multiply_add(v, t, d0), multiply_add(v, u, d1)
            v = splat(load_one_f32(e + p))
            e0, e1 = multiply_add(v, t, e0), multiply_add(v, u, e1)
            v = splat(load_one_f32(f + p))
            f0, f1 = multiply_add(v, t, f0), multiply_add(v, u, f1)
        _keep(o, a0, a1)
        _keep(o + wide, b0, b1)
        _keep(o + uint64(2) * wide, c0, c1)
        _keep(o + uint64(3) * wide, d0, d1)
        _keep(o + uint64(4) * wide, e0, e1)
        _keep(o + uint64(5) * wide, f0, f1)
        o += uint64(64)
        ma, mb = maximum(maximum(a0, a1), ma), maximum(maximum(b0, b1), mb)
        mc, md = maximum(maximum(c0, c1), mc), maximum(maximum(d0, d1), md)
        me, mf = maximum(maximum(e0, e1), me), maximum(maximum(f0, f1), mf)
    _keep(spare + uint64(0), ma, mb)
    _keep(spare + uint64(64), mc, md)
    _keep(spare + uint64(128), me, mf)


@kernel("void(uint64, int64, int64, int64, uint64, uint64, int64, uint64, int64, float32[:,::1], uint64)")
def nearest_in_subspaces(vectors, n, m, dsub, tiles, halves, width, out, size, best, spare):
    """Nearest centroid in each sub-space.

    Parameters
    ----------
    vectors : address of float32 (n, m * dsub)
    tiles : address of float32 (m, width / 16, dsub, 16): centroids by 16, dimension by dimension
    halves : address of -|c|^2 / 2, float32 (m, width); -inf where there is no centroid
    width : centroids of a sub-space, padded to 16
    out, size : address of codes of ``size`` bytes, (n, m), least byte first
    best : <x, c> - |c|^2 / 2 of the nearest, (n, m), or (0, 0) where nobody asks
    spare : address of 6 * width + 48 float32

    Notes
    -----
    Six rows share the loads of centroids, and 60 rows pass a sub-space before the next, so that its centroids stay in
    the first-level cache.
    """
    line = uint64(4 * m * dsub)
    for start in range(0, n, 60):
        stop = min(start + 60, n)
        for s in range(m):
            own = tiles + uint64(4 * s * width * dsub)
            own_halves = halves + uint64(4 * s * width)
            for row in range(start, stop, 6):
                a = vectors + uint64(row) * line + uint64(4 * s * dsub)
                b = a + (line if row + 1 < stop else uint64(0))
                c = b + (line if row + 2 < stop else uint64(0))
                d = c + (line if row + 3 < stop else uint64(0))
                e = d + (line if row + 4 < stop else uint64(0))
                f = e + (line if row + 5 < stop else uint64(0))
                _products(a, b, c, d, e, f, dsub, own, own_halves, width, spare)
                for i in range(min(int64(6), stop - row)):
                    greatest = _greatest(spare + uint64(32 * i))
                    code = _first(spare + uint64(192 + 4 * i * width), width, greatest)
                    place = out + uint64(((row + i) * m + s) * size)
                    for byte in range(size):
                        store_one_u8(place + uint64(byte), uint8((code >> (8 * byte)) & 255))
                    if best.size > 0:
                        best[row + i, s] = greatest
