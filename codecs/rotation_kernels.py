"""The fast random rotation, row by row."""

from numba import float32, int64, uint64

from gingham.codecs.intrinsics import add, hadamard, inline, kernel, load_f32, load_one_f32, mul, store_f32, sub


@inline
def _scale(x, factors, start, stop):
    for j in range(start, stop, 8):
        place = x + uint64(4 * j)
        store_f32(place, mul(load_f32(place), load_f32(factors + uint64(4 * j))))


@inline
def _transform_64(x):
    """Walsh-Hadamard transform of 64 floats that lie together."""
    a, b = hadamard(load_f32(x)), hadamard(load_f32(x + uint64(32)))
    c, d = hadamard(load_f32(x + uint64(64))), hadamard(load_f32(x + uint64(96)))
    e, f = hadamard(load_f32(x + uint64(128))), hadamard(load_f32(x + uint64(160)))
    g, h = hadamard(load_f32(x + uint64(192))), hadamard(load_f32(x + uint64(224)))
    a, b, c, d = add(a, b), sub(a, b), add(c, d), sub(c, d)
    e, f, g, h = add(e, f), sub(e, f), add(g, h), sub(g, h)
    a, b, c, d = add(a, c), add(b, d), sub(a, c), sub(b, d)
    e, f, g, h = add(e, g), add(f, h), sub(e, g), sub(f, h)
    store_f32(x, add(a, e))
    store_f32(x + uint64(32), add(b, f))
    store_f32(x + uint64(64), add(c, g))
    store_f32(x + uint64(96), add(d, h))
    store_f32(x + uint64(128), sub(a, e))
    store_f32(x + uint64(160), sub(b, f))
    store_f32(x + uint64(192), sub(c, g))
    store_f32(x + uint64(224), sub(d, h))


@inline
def _halves(x, step):
    """Sums and differences of ``step`` floats and the next ``step``."""
    for j in range(0, step, 8):
        low = x + uint64(4 * j)
        high = low + uint64(4 * step)
        a, b = load_f32(low), load_f32(high)
        store_f32(low, add(a, b))
        store_f32(high, sub(a, b))


@inline
def _quarters(x, step):
    """Two stages at once: Walsh-Hadamard transform of four numbers that are ``step`` floats apart."""
    for j in range(0, step, 8):
        first = x + uint64(4 * j)
        second = first + uint64(4 * step)
        third, fourth = second + uint64(4 * step), second + uint64(8 * step)
        a, b, c, d = load_f32(first), load_f32(second), load_f32(third), load_f32(fourth)
        a, b, c, d = add(a, b), sub(a, b), add(c, d), sub(c, d)
        store_f32(first, add(a, c))
        store_f32(second, add(b, d))
        store_f32(third, sub(a, c))
        store_f32(fourth, sub(b, d))


@inline
def _transform(x, n):
    """Walsh-Hadamard transform of n floats, a power of two from 64 on, not normalised."""
    for j in range(0, n, 64):
        _transform_64(x + uint64(4 * j))
    step = int64(64)
    while 2 * step < n:
        for j in range(0, n, 4 * step):
            _quarters(x + uint64(4 * j), step)
        step *= 4
    if step < n:
        _halves(x, step)


@kernel("void(uint64, int64, float32[:,::1], int64, int64, float32[:,::1])")
def rotate_rows(vectors, dim, factors, span, backwards, out):
    """Rotate rows.

    Parameters
    ----------
    vectors : address of float32 (n, dim)
    factors : (rounds, width), an even number of rounds: signs, with the scale of the whole
    span : greatest power of two within the width; even rounds transform the first so many, odd ones the last
    backwards : 1 undoes it
    out : (n, width); dim of it are taken and the others are zero
    """
    rounds, width = factors.shape
    signs = uint64(factors.ctypes.data)
    for row in range(out.shape[0]):
        x = uint64(out.ctypes.data) + uint64(4 * row * width)
        source = vectors + uint64(4 * row * dim)
        whole = dim // 8 * 8
        for j in range(0, whole, 8):
            store_f32(x + uint64(4 * j), load_f32(source + uint64(4 * j)))
        for j in range(whole, width):
            out[row, j] = load_one_f32(source + uint64(4 * j)) if j < dim else float32(0)
        for step in range(rounds):
            number = rounds - 1 - step if backwards else step
            start = x + uint64(4 * (width - span) * (number & 1))
            own = signs + uint64(4 * number * width)
            if backwards:
                if number & 1 and span < width:
                    _halves(x, width // 2)
                _transform(start, span)
                _scale(x, own, int64(0), width)
            else:
                _scale(x, own, int64(0), width)
                _transform(start, span)
                if number & 1 and span < width:
                    _halves(x, width // 2)
