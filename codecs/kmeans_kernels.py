"""Kernels of k-means and of product quantizers: the nearest centroid of each row, and the mean of each group of rows.

The nearest centroid is the one of greatest <x, c> - |c|^2 / 2, ties to the lower number. Addresses are raw: the caller
has checked shapes. Tables of centroids are float32 (k / 16, dim, 16): sixteen centroids side by side, the last ones
padded with zeros whose offset is -inf.
"""

from numba import float32, int32, int64, uint64

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
    sub,
    zeros,
)


@inline
def _greatest(line, k):
    """Greatest of k floats, k a multiple of 8, and where it stands first."""
    tops = load_f32(line)
    for j in range(8, k, 8):
        tops = maximum(load_f32(line + uint64(4 * j)), tops)
    store_f32(line + uint64(4 * k), tops)
    best = load_one_f32(line + uint64(4 * k))
    for i in range(1, 8):
        best = max(best, load_one_f32(line + uint64(4 * (k + i))))
    many = splat(best)
    for j in range(0, k, 8):
        below = greater_mask(many, load_f32(line + uint64(4 * j)))
        if below != 255:
            return best, j + lowest_bit(~below)
    return best, int64(0)


@inline
def _products(r0, r1, r2, r3, dim, table, offsets, k, out):
    """Write <x, c> + offset of four rows and all centroids: float32 (4, k + 8)."""
    line = uint64(4 * (k + 8))
    for j in range(0, k, 16):
        place = table + uint64(4 * j * dim)
        o0, o1 = load_f32(offsets + uint64(4 * j)), load_f32(offsets + uint64(4 * j + 32))
        a0, b0, c0, d0 = o0, o0, o0, o0
        a1, b1, c1, d1 = o1, o1, o1, o1
        for i in range(dim):
            t0, t1 = load_f32(place + uint64(64 * i)), load_f32(place + uint64(64 * i + 32))
            o = uint64(4 * i)
            v = splat(load_one_f32(r0 + o))
            a0, a1 = multiply_add(v, t0, a0), multiply_add(v, t1, a1)
            v = splat(load_one_f32(r1 + o))
            b0, b1 = multiply_add(v, t0, b0), multiply_add(v, t1, b1)
            v = splat(load_one_f32(r2 + o))
            c0, c1 = multiply_add(v, t0, c0), multiply_add(v, t1, c1)
            v = splat(load_one_f32(r3 + o))
            d0, d1 = multiply_add(v, t0, d0), multiply_add(v, t1, d1)
        to = out + uint64(4 * j)
        store_f32(to, a0)
        store_f32(to + uint64(32), a1)
        store_f32(to + line, b0)
        store_f32(to + line + uint64(32), b1)
        store_f32(to + uint64(2) * line, c0)
        store_f32(to + uint64(2) * line + uint64(32), c1)
        store_f32(to + uint64(3) * line, d0)
        store_f32(to + uint64(3) * line + uint64(32), d1)


@kernel("void(uint64, int64, int64, int64, int64, uint64, uint64, int64, float32[::1], int32[:,::1], float32[:,::1])")
def nearest_centroids(vectors, n, stride, m, dim, tables, offsets, k, scratch, labels, tops):
    """Nearest centroid of each row in each of m sub-spaces.

    Parameters
    ----------
    vectors : address of float32 rows, ``stride`` floats apart; sub-space s takes dimensions s * dim to (s + 1) * dim
    tables, offsets : addresses of m tables of k centroids, k a multiple of 16, and of -|c|^2 / 2, float32 (m, k)
    scratch : float32 of at least 4 (k + 8)
    labels, tops : (n, m), the nearest and its <x, c> - |c|^2 / 2

    Notes
    -----
    Four rows share the loads of a table, and 64 rows pass over one sub-space before the next, so that its table stays
    in the first-level cache. Every row has the same operations, wherever it stands.
    """
    out = uint64(scratch.ctypes.data)
    for first in range(0, n, 64):
        last = min(first + 64, n)
        for s in range(m):
            table, offset = tables + uint64(4 * s * k * dim), offsets + uint64(4 * s * k)
            column = vectors + uint64(4 * s * dim)
            for row in range(first, last, 4):
                r0 = column + uint64(4 * row * stride)
                r1 = column + uint64(4 * min(row + 1, last - 1) * stride)
                r2 = column + uint64(4 * min(row + 2, last - 1) * stride)
                r3 = column + uint64(4 * min(row + 3, last - 1) * stride)
                _products(r0, r1, r2, r3, dim, table, offset, k, out)
                for i in range(min(int64(4), last - row)):
                    top, label = _greatest(out + uint64(4 * i * (k + 8)), k)
                    labels[row + i, s], tops[row + i, s] = int32(label), top


@kernel("void(float32[:,::1], float32[::1], float32[::1], int32[::1], float32[::1])")
def nearest_products(products, offsets, scratch, labels, tops):
    """Nearest centroid from inner products (n, k), k a multiple of 8; ``scratch`` is float32 of at least k + 8."""
    k = products.shape[1]
    line = uint64(scratch.ctypes.data)
    for row in range(products.shape[0]):
        place = uint64(products.ctypes.data) + uint64(4 * row * k)
        for j in range(0, k, 8):
            o = uint64(4 * j)
            store_f32(line + o, add(load_f32(place + o), load_f32(uint64(offsets.ctypes.data) + o)))
        top, label = _greatest(line, k)
        labels[row], tops[row] = int32(label), top


@kernel("void(int32[::1], int64[::1], int64[::1])")
def group_rows(labels, starts, order):
    """Rows by label, ascending within each: those of label c stand from starts[c] to starts[c + 1] in ``order``."""
    starts[:] = 0
    for row in range(len(labels)):
        starts[labels[row] + 1] += 1
    for c in range(1, len(starts)):
        starts[c] += starts[c - 1]
    for row in range(len(labels)):
        order[starts[labels[row]]] = row
        starts[labels[row]] += 1
    for c in range(len(starts) - 1, 0, -1):
        starts[c] = starts[c - 1]
    starts[0] = 0


@kernel("void(float32[:,::1], int64[::1], int64[::1], int64, int64, float32[:,::1])")
def mean_of_groups(vectors, starts, order, first, last, means):
    """Mean of the rows of each group from first to last, summed in ascending order; that of no rows stays as it is."""
    dim = vectors.shape[1]
    source = uint64(vectors.ctypes.data)
    for c in range(first, last):
        if starts[c] == starts[c + 1]:
            continue
        mean = means[c]
        mean[:] = 0
        place = uint64(means.ctypes.data) + uint64(4 * c * dim)
        for i in range(starts[c], starts[c + 1]):
            x = source + uint64(4 * order[i] * dim)
            j = int64(0)
            while j + 8 <= dim:
                o = uint64(4 * j)
                store_f32(place + o, add(load_f32(place + o), load_f32(x + o)))
                j += 8
            while j < dim:
                mean[j] += load_one_f32(x + uint64(4 * j))
                j += 1
        share = float32(1.0) / float32(starts[c + 1] - starts[c])
        for j in range(dim):
            mean[j] *= share


@kernel("void(uint64, int64, int64, int64, int64, int64, uint64, int64, int64, float32[:,:,::1])")
def fill_tables(queries, n, stride, m, step, dim, tables, k, metric, out):
    """Scores of each query with every centroid of every sub-space, float32 (n, m, >= k): <q, c>, or -|q - c|^2.

    Parameters
    ----------
    queries : address of float32 rows, ``stride`` floats apart; sub-space s takes ``dim`` of them from s * step
    tables : address of m tables of k centroids, k a multiple of 16
    metric : 2 for -|q - c|^2
    """
    for q in range(n):
        for s in range(m):
            x = queries + uint64(4 * (q * stride + s * step))
            to = uint64(out.ctypes.data) + uint64(4 * (q * m + s) * out.shape[2])
            for j in range(0, k, 16):
                place = tables + uint64(4 * (s * k + j) * dim)
                a, b = zeros(), zeros()
                for i in range(dim):
                    v = splat(load_one_f32(x + uint64(4 * i)))
                    t, u = load_f32(place + uint64(64 * i)), load_f32(place + uint64(64 * i + 32))
                    if metric == 2:
                        t, u = sub(v, t), sub(v, u)
                        a, b = multiply_add(t, t, a), multiply_add(u, u, b)
                    else:
                        a, b = multiply_add(v, t, a), multiply_add(v, u, b)
                if metric == 2:
                    a, b = sub(zeros(), a), sub(zeros(), b)
                store_f32(to + uint64(4 * j), a)
                store_f32(to + uint64(4 * j + 32), b)
