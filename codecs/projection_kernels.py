"""Rows times a matrix, with every sum in the order of the dimensions.

BLAS picks the order of its sums by the number of rows, and a row has to have the same bits alone and in a batch. The
kernel does as many operations a second: 131 GFLOP/s against 125 from 384 to 128 dimensions, 108 against 104 from 1536
to 512.
"""

from numba import int64, uint64

from gingham.codecs.intrinsics import inline, kernel, load_f32, load_one_f32, multiply_add, splat, store_f32, zeros


@inline
def _one_row(x, dim, panel, out):
    """Sixteen products of one row."""
    a, b = zeros(), zeros()
    for k in range(dim):
        v = splat(load_one_f32(x + uint64(4 * k)))
        place = panel + uint64(64 * k)
        a = multiply_add(v, load_f32(place), a)
        b = multiply_add(v, load_f32(place + uint64(32)), b)
    store_f32(out, a)
    store_f32(out + uint64(32), b)


@inline
def _six_rows(x, dim, panel, out, out_stride):
    """Sixteen products of each of six rows; twelve sums at once hide the latency of the additions."""
    stride = uint64(4 * dim)
    a0, a1, b0, b1, c0, c1 = zeros(), zeros(), zeros(), zeros(), zeros(), zeros()
    d0, d1, e0, e1, f0, f1 = zeros(), zeros(), zeros(), zeros(), zeros(), zeros()
    xb, xc, xd = x + stride, x + uint64(2) * stride, x + uint64(3) * stride
    xe, xf = x + uint64(4) * stride, x + uint64(5) * stride
    for k in range(dim):
        at = uint64(4 * k)
        place = panel + uint64(64 * k)
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
    half = uint64(32)
    store_f32(out, a0)
    store_f32(out + half, a1)
    store_f32(out + out_stride, b0)
    store_f32(out + out_stride + half, b1)
    out += uint64(2) * out_stride
    store_f32(out, c0)
    store_f32(out + half, c1)
    store_f32(out + out_stride, d0)
    store_f32(out + out_stride + half, d1)
    out += uint64(2) * out_stride
    store_f32(out, e0)
    store_f32(out + half, e1)
    store_f32(out + out_stride, f0)
    store_f32(out + out_stride + half, f1)


@kernel("void(uint64, int64, uint64, float32[:,::1])")
def project_rows(vectors, dim, panels, out):
    """Multiply rows by a matrix.

    Parameters
    ----------
    vectors : address of float32 (n, dim)
    panels : address of float32 (width / 16, dim, 16), the columns of the matrix in groups of sixteen
    out : (n, width), width a multiple of 16
    """
    n, width = out.shape
    out_stride = uint64(4 * width)
    for block in range(0, n, 48):
        stop = min(block + 48, n)
        for column in range(0, width, 16):
            panel = panels + uint64(4 * dim * column)
            row = int64(block)
            while row + 6 <= stop:
                place = uint64(out.ctypes.data) + uint64(row) * out_stride + uint64(4 * column)
                _six_rows(vectors + uint64(4 * dim * row), dim, panel, place, out_stride)
                row += 6
            while row < stop:
                place = uint64(out.ctypes.data) + uint64(row) * out_stride + uint64(4 * column)
                _one_row(vectors + uint64(4 * dim * row), dim, panel, place)
                row += 1
