"""Kernels that round vectors to integers: between the extremes of a vector (LVQ) or of a dimension (SQ8), or on a grid.

They write one byte a value; packing and headers are the caller's. Addresses are raw: the caller has checked shapes.
"""

import numpy as np
from numba import float32, float64, int8, int16, int32, int64, uint8, uint64

from gingham.codecs.intrinsics import (
    add,
    function,
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
    sub,
    total,
    zeros,
)


@inline
def _extremes(x, dim, scratch):
    """Least and greatest of dim floats."""
    low, high = load_one_f32(x), load_one_f32(x)
    j = int64(0)
    if dim >= 8:
        lows, highs = load_f32(x), load_f32(x)
        j = int64(8)
        while j + 8 <= dim:
            v = load_f32(x + uint64(4 * j))
            lows, highs = minimum(lows, v), maximum(highs, v)
            j += 8
        place = uint64(scratch.ctypes.data)
        store_f32(place, lows)
        store_f32(place + uint64(32), highs)
        for i in range(8):
            low, high = min(low, scratch[i]), max(high, scratch[8 + i])
    while j < dim:
        v = load_one_f32(x + uint64(4 * j))
        low, high = min(low, v), max(high, v)
        j += 1
    return low, high


@inline
def _round(x, dim, low, factor, out):
    """Bytes floor((x - low) factor + 1/2) of dim floats."""
    lows, factors, halves = splat(low), splat(factor), splat(float32(0.5))
    j = int64(0)
    while j + 8 <= dim:
        v = multiply_add(sub(load_f32(x + uint64(4 * j)), lows), factors, halves)
        store_as_bytes(out + uint64(j), v)
        j += 8
    return j


@inline
def _center(x, mean, dim, out):
    """Write x - mean and return the inner product of that with the mean."""
    a = zeros()
    j = int64(0)
    place = uint64(out.ctypes.data)
    while j + 8 <= dim:
        o = uint64(4 * j)
        m = load_f32(mean + o)
        v = sub(load_f32(x + o), m)
        a = multiply_add(v, m, a)
        store_f32(place + o, v)
        j += 8
    s = total(a)
    while j < dim:
        o = uint64(4 * j)
        out[j] = load_one_f32(x + o) - load_one_f32(mean + o)
        s += out[j] * load_one_f32(mean + o)
        j += 1
    return s


@kernel(
    "void(uint64, int64, int64, uint64, float32, float32, int64, float32[::1],"
    "uint8[:,::1], float32[:,::1], uint8[:,::1], float32[:,::1])"
)
def encode_levels(vectors, n, dim, mean, levels, fine_levels, metric, scratch, values, header, fine, fine_header):
    """Round each vector between its own extremes, and what that leaves out between plus and minus half a step.

    Parameters
    ----------
    vectors : address of float32 (n, dim)
    levels, fine_levels : greatest value of each level; ``fine_levels`` 0 makes no second level
    metric : 0 where the third factor is <mean, x - mean>, 2 where it is the squared length of the decoded vector
    scratch : float32 of at least dim + 16
    header, fine_header : step, offset and third factor; those of the second level add up with the first
    """
    centered = scratch[16:]
    place = uint64(centered.ctypes.data)
    half = float32(0.5)
    for row in range(n):
        along = _center(vectors + uint64(4 * row * dim), mean, dim, centered)
        low, high = _extremes(place, dim, scratch)
        step = (high - low) / levels
        factor = float32(0.0)
        if step > 0:
            factor = levels / (high - low)
            if not np.isfinite(factor):
                step, factor = float32(0.0), float32(0.0)
        j = _round(place, dim, low, factor, uint64(values.ctypes.data) + uint64(row * values.shape[1]))
        while j < dim:
            values[row, j] = uint8((centered[j] - low) * factor + half)
            j += 1
        fine_step, fine_factor, offset = float32(0.0), float32(0.0), float32(0.0)
        if fine_levels > 0 and step > 0:
            fine_step = step / fine_levels
            fine_factor, offset = fine_levels / step, half * step
        square, fine_square = float64(0.0), float64(0.0)
        for j in range(dim):
            coarse = low + step * float32(values[row, j])
            square += coarse * coarse
            if fine_levels > 0:
                rest = min(max((centered[j] - coarse + offset) * fine_factor + half, float32(0.0)), fine_levels)
                fine[row, j] = uint8(rest)
                exact = coarse - offset + fine_step * float32(fine[row, j])
                fine_square += exact * exact
        header[row, 0], header[row, 1], header[row, 2] = step, low, along if metric == 0 else float32(square)
        if fine_levels > 0:
            fine_header[row, 0], fine_header[row, 1] = fine_step, -offset
            fine_header[row, 2] = float32(0.0) if metric == 0 else float32(fine_square - square)


@kernel("void(uint64, int64, int64, uint64, uint64, float32[::1], uint8[:,::1], uint8[:,::1], float32[:,:,::1])")
def encode_ranges(vectors, n, dim, lows, factors, steps, high, low, squares):
    """Round each dimension to a byte between its own extremes, and split it into its halves.

    Parameters
    ----------
    squares : (2, n, 1): squared distances of what the high halves decode to, in the middle of their 16 values, to
        the middles of all dimensions, and what is missing to those of the whole
    """
    half, top, least = splat(float32(0.5)), splat(float32(255.0)), zeros()
    for row in range(n):
        x = vectors + uint64(4 * row * dim)
        out = uint64(low.ctypes.data) + uint64(row * low.shape[1])
        j = int64(0)
        while j + 8 <= dim:
            o = uint64(4 * j)
            v = mul(sub(load_f32(x + o), load_f32(lows + o)), load_f32(factors + o))
            store_as_bytes(out + uint64(j), add(minimum(maximum(v, least), top), half))
            j += 8
        while j < dim:
            o = uint64(4 * j)
            v = (load_one_f32(x + o) - load_one_f32(lows + o)) * load_one_f32(factors + o)
            low[row, j] = uint8(min(max(v, float32(0.0)), float32(255.0)) + float32(0.5))
            j += 1
        square, coarse = float64(0.0), float64(0.0)
        for j in range(dim):
            code = low[row, j]
            v = steps[j] * (float32(code) - float32(127.5))
            square += v * v
            high[row, j] = code >> uint8(4)
            low[row, j] = code & uint8(15)
            v = steps[j] * (float32(16) * float32(high[row, j]) - float32(120.0))
            coarse += v * v
        squares[0, row, 0], squares[1, row, 0] = float32(coarse), float32(square - coarse)


@kernel("void(float32[:,::1], float32, int64, uint8[:,::1], float32[:,::1])")
def encode_grid(rotated, scale, bits, values, header):
    """Codes of RaBitQ on the grid of half-integers: sign and magnitude floor(scale |r_j| / |r|).

    Parameters
    ----------
    rotated : residuals (n, width) after the rotation
    scale : the constant t of the fast mode (RaBitQ library; Gao et al., extended RaBitQ)
    header : |r|^2 / <r, y>, the error of the inner product with a unit vector, |r|^2; y is the grid point
    """
    width = rotated.shape[1]
    top = float32((1 << (bits - 1)) - 1)
    middle = float32(1 << (bits - 1))
    for row in range(rotated.shape[0]):
        r = rotated[row]
        square = float64(0.0)
        for j in range(width):
            square += float64(r[j]) * float64(r[j])
        factor = float32(scale / np.sqrt(square)) if square > 0 else float32(0.0)
        if not np.isfinite(factor):
            factor = float32(0.0)
        along, length = float32(0.0), float32(0.0)
        for j in range(width):
            size = np.floor(min(abs(r[j]) * factor, top))
            code = middle + size if r[j] > 0 else middle - float32(1.0) - size
            values[row, j] = uint8(code)
            y = size + float32(0.5)
            along += abs(r[j]) * y
            length += y * y
        header[row, 0], header[row, 1], header[row, 2] = float32(0.0), float32(0.0), float32(square)
        if square > 0:
            header[row, 0] = float32(square / along)
            tangent = max(square * length / (float64(along) * float64(along)) - 1.0, 0.0)
            header[row, 1] = float32(np.sqrt(square * tangent / (width - 1)))


@inline
def _product(a, b, dim):
    """The inner product of float32 at two addresses, in float64: eight sums, so that none waits for the one before."""
    s0, s1, s2, s3 = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
    s4, s5, s6, s7 = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
    j = int64(0)
    while j + 8 <= dim:
        x, y = a + uint64(4 * j), b + uint64(4 * j)
        s0 += float64(load_one_f32(x)) * float64(load_one_f32(y))
        s1 += float64(load_one_f32(x + uint64(4))) * float64(load_one_f32(y + uint64(4)))
        s2 += float64(load_one_f32(x + uint64(8))) * float64(load_one_f32(y + uint64(8)))
        s3 += float64(load_one_f32(x + uint64(12))) * float64(load_one_f32(y + uint64(12)))
        s4 += float64(load_one_f32(x + uint64(16))) * float64(load_one_f32(y + uint64(16)))
        s5 += float64(load_one_f32(x + uint64(20))) * float64(load_one_f32(y + uint64(20)))
        s6 += float64(load_one_f32(x + uint64(24))) * float64(load_one_f32(y + uint64(24)))
        s7 += float64(load_one_f32(x + uint64(28))) * float64(load_one_f32(y + uint64(28)))
        j += 8
    while j < dim:
        s0 += float64(load_one_f32(a + uint64(4 * j))) * float64(load_one_f32(b + uint64(4 * j)))
        j += 1
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))


@inline
def _reach(values, dim):
    """The greatest size of a number, and the sum of all sizes in float64."""
    t0, t1, t2, t3 = float32(0.0), float32(0.0), float32(0.0), float32(0.0)
    s0, s1, s2, s3 = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
    j = int64(0)
    while j + 4 <= dim:
        a, b, c, d = abs(values[j]), abs(values[j + 1]), abs(values[j + 2]), abs(values[j + 3])
        t0, t1, t2, t3 = max(t0, a), max(t1, b), max(t2, c), max(t3, d)
        s0 += float64(a)
        s1 += float64(b)
        s2 += float64(c)
        s3 += float64(d)
        j += 4
    while j < dim:
        t0 = max(t0, abs(values[j]))
        s0 += float64(abs(values[j]))
        j += 1
    return max(max(t0, t1), max(t2, t3)), (s0 + s2) + (s1 + s3)


@function
def _center_query(q, dim, mean, square, metric, out):
    """Write a query less a share of the mean; returns the share and what scores have beside products with rows."""
    share, along = float32(1.0), float64(0.0)
    if metric == 0:
        along = _product(q, mean, dim)
        share = float32(min(max(along / square, 0.0), 1.0)) if square > 0 else float32(0.0)
    for j in range(dim):
        out[j] = load_one_f32(q + uint64(4 * j)) - share * load_one_f32(mean + uint64(4 * j))
    at = uint64(out.ctypes.data)
    return share, along if metric == 0 else -_product(at, at, dim)


@function
def _round_query(values, dim, limit, levels, most, times, middle, whole, out, parameters, left):
    """Round a query to integers, int16 or int8 in the bytes ``out``, and set the first three of its parameters.

    Notes
    -----
    One loop a step, each over arrays and of one kind of number, so that LLVM makes vectors of it.
    """
    top, length = _reach(values, dim)
    factor, step = float64(0.0), float64(0.0)
    if top > 0:
        factor = min(limit / float64(top), most / (levels * length))
        step = float64(times) / factor
    for j in range(dim):
        whole[j] = int32(np.rint(float64(values[j]) * factor))
    count = int64(0)
    for j in range(dim):
        count += whole[j]
    if limit > 127:
        words = out.view(np.int16)
        words[dim:] = 0
        for j in range(dim):
            words[j] = int16(whole[j])
    else:
        out[dim:] = 0
        for j in range(dim):
            out[j] = int8(whole[j])
    unit = step / float64(times)
    for j in range(len(left)):
        left[j] = values[j] - float32(float64(whole[j]) * unit)
    total_ = step * float64(count)
    parameters[0], parameters[1], parameters[2] = float32(step), float32(-middle * total_), float32(total_)


@kernel("void(uint64, int64, int64, uint64, int64, float32[:,::1], float32[::1], float64[::1])")
def center_queries(queries, n, dim, mean, metric, out, shares, constants):
    """Subtract the mean from queries, or under dot (metric 0) the share of it that leaves the shortest query.

    Parameters
    ----------
    shares : float32 (n,): what was subtracted of the mean
    constants : float64 (n,): -|out|^2 for l2 (metric 2), else <q, mean>
    """
    square = _product(mean, mean, dim)
    for row in range(n):
        found = _center_query(queries + uint64(4 * row * dim), dim, mean, square, metric, out[row])
        shares[row], constants[row] = found


@kernel(
    "void(float32[:,::1], int64, float64, float64, float64, float32, float64, int8[:,::1], float32[:,::1],"
    "float32[:,::1])"
)
def round_queries(queries, dim, limit, levels, most, times, middle, out, parameters, left):
    """Round queries to integers whose products with codes stay within int32.

    Parameters
    ----------
    limit : greatest integer; above 127 they are int16, else int8
    levels : greatest code
    most : sums of products stay below it
    times : of the integers in scores, 2 for l2
    middle : subtracted from every code
    out : the integers (n, width), as bytes; those from dim on become 0
    parameters : columns 0 to 2 are written, see :mod:`gingham.codecs.affine_row_kernels`
    left : (n, dim) what rounding left out, or (n, 0) where that is not wanted
    """
    whole = np.empty(dim, np.int32)
    for row in range(len(queries)):
        _round_query(queries[row], dim, limit, levels, most, times, middle, whole, out[row], parameters[row], left[row])


@kernel(
    "void(uint64, int64, int64, uint64, int64, float64, int64, int64, int8[:,::1], int8[:,::1], int8[:,::1],"
    "float32[:,:,::1])"
)
def prepare_levels(queries, n, dim, mean, metric, most, bits, fine_bits, coarse, rest, fine, parameters):
    """Center queries and round them for LVQ: for the first level, for what that leaves out, and for the second level.

    Parameters
    ----------
    mean : address of float32 (dim,)
    coarse, rest, fine : the integers (n, bytes), int16 for 8 bits, else int8; ``rest`` has no rows where what is left
        out does not count, which is so but for 4 bits with a second level, and ``fine`` none without a second level
    parameters : (levels, n, 5), as many as there are integers of
    """
    square = _product(mean, mean, dim)
    times = float32(2.0) if metric == 2 else float32(1.0)
    third = float32(-1.0) if metric == 2 else float32(1.0)
    limit, fine_limit = 32767.0 if bits == 8 else 127.0, 32767.0 if fine_bits == 8 else 127.0
    levels, fine_levels = float64((1 << bits) - 1), float64((1 << fine_bits) - 1)
    near, left, whole = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim, np.int32)
    nothing = left[:0]
    for row in range(n):
        share, constant = _center_query(queries + uint64(4 * row * dim), dim, mean, square, metric, near)
        p = parameters[0, row]
        _round_query(near, dim, limit, levels, most, times, 0.0, whole, coarse[row], p, left)
        p[3], p[4] = third * share, float32(constant)
        if len(rest) > 0:
            p = parameters[1, row]
            _round_query(left, dim, limit, levels, most, times, 0.0, whole, rest[row], p, nothing)
            p[3], p[4] = float32(0.0), float32(0.0)
        if len(fine) > 0:
            last = parameters[len(parameters) - 1, row]
            _round_query(near, dim, fine_limit, fine_levels, most, times, 0.0, whole, fine[row], last, nothing)
            last[3], last[4] = third, float32(0.0)


@kernel("int64(uint64, int64, int64, int64, float32[:,::1])")
def check_rows(values, n, dim, metric, out):
    """Write rows, of length one or zero where the metric is cosine (1); returns 2 r for a row r that has no finite
    numbers, 2 r + 1 for one too long or too short for float32, and -1 where there is none.
    """
    for row in range(n):
        x = values + uint64(4 * row * dim)
        square = _product(x, x, dim)
        if not np.isfinite(square):
            return 2 * row
        factor = float32(1.0)
        if metric == 1:
            factor = float32(1.0 / np.sqrt(square)) if square > 0 else float32(0.0)
            if not (factor < np.inf) or (factor > 0 and factor < float32(5.421e-20)):
                return 2 * row + 1
        elif not (float32(square) < np.inf):
            return 2 * row + 1
        for j in range(dim):
            out[row, j] = load_one_f32(x + uint64(4 * j)) * factor
    return -1
