"""The fast random rotation, row by row and in place."""

from numba import float32, int64, uint64

from gingham.codecs.intrinsics import add, hadamard, inline, kernel, load_f32, mul, splat, store_f32, sub


@inline
def _transform(x, n):
    """Walsh-Hadamard transform of n floats, a power of two from 64 on, not normalised."""
    for j in range(0, n, 8):
        place = x + uint64(4 * j)
        store_f32(place, hadamard(load_f32(place)))
    step = int64(8)
    while step < n:
        for block in range(0, n, 2 * step):
            for j in range(block, block + step, 8):
                low = x + uint64(4 * j)
                high = low + uint64(4 * step)
                a, b = load_f32(low), load_f32(high)
                store_f32(low, add(a, b))
                store_f32(high, sub(a, b))
        step *= 2


@inline
def _mix(x, width):
    """Turn the two halves into each other by 45 degrees; doing it twice changes nothing."""
    root = splat(float32(0.70710678118654752))
    half = width // 2
    for j in range(0, half, 8):
        low = x + uint64(4 * j)
        high = low + uint64(4 * half)
        a, b = load_f32(low), load_f32(high)
        store_f32(low, mul(add(a, b), root))
        store_f32(high, mul(sub(a, b), root))


@inline
def _scale(x, factors, width):
    for j in range(0, width, 8):
        place = x + uint64(4 * j)
        store_f32(place, mul(load_f32(place), load_f32(factors + uint64(4 * j))))


@kernel("void(float32[:,::1], float32[:,::1], int64, int64)")
def rotate_rows(rows, factors, span, backwards):
    """Rotate rows (n, width) in place.

    Parameters
    ----------
    factors : (rounds, width), of each round the signs, divided by sqrt(span) where it transforms
    span : greatest power of two within the width; rounds transform the first and the last so many in turn
    backwards : 1 undoes it
    """
    width = rows.shape[1]
    rounds = factors.shape[0]
    for row in range(rows.shape[0]):
        x = uint64(rows.ctypes.data) + uint64(4 * row * width)
        for step in range(rounds):
            number = rounds - 1 - step if backwards else step
            signs = uint64(factors.ctypes.data) + uint64(4 * number * width)
            start = x + uint64(4 * (width - span) * (number & 1))
            if backwards:
                if span < width:
                    _mix(x, width)
                _transform(start, span)
                _scale(x, signs, width)
            else:
                _scale(x, signs, width)
                _transform(start, span)
                if span < width:
                    _mix(x, width)
