"""Run as a program: every vector operation against NumPy; prints what the special ones are lowered to."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from gingham.codecs import intrinsics as simd

rng = np.random.default_rng(3)


@njit(types.void(types.uintp, types.uintp, types.uintp, types.uintp))
def run_bytes(a, b, out, wide):
    x, y = simd.load_bytes(a), simd.load_bytes(b)
    index = simd.low_nibbles(y)
    results = (
        simd.low_nibbles(x),
        simd.high_nibbles(x),
        simd.shuffle_bytes(x, index),
        simd.first_crumbs(simd.load_16_bytes_twice(a)),
        simd.second_crumbs(simd.load_16_bytes_twice(a)),
        simd.first_bits(simd.load_8_bytes_four_times(a)),
        simd.second_bits(simd.load_8_bytes_four_times(a)),
        simd.times_16(index),
        simd.times_4(index),
        simd.merge_bytes(x, y),
        simd.xor_bytes(x, y),
    )
    for i in range(len(results)):
        simd.store_words(out + np.uint64(32 * i), simd.words_of_bytes(results[i]))
    simd.store_words(wide, simd.multiply_bytes(index, y))
    simd.store_words(wide + np.uint64(32), simd.load_bytes_as_words(a))


@njit(types.int64(types.uintp, types.uintp, types.uintp, types.uintp))
def run_words(a, b, out, floats):
    x, y = simd.load_words(a), simd.load_words(b)
    results = (
        simd.add_words(x, y),
        simd.sub_words(x, y),
        simd.words_right_8(x),
        simd.words_left_8(x),
        simd.add_halves(x, y),
        simd.splat_words(simd.load_one_u16(a)),
    )
    for i in range(len(results)):
        simd.store_words(out + np.uint64(32 * i), results[i])
    low, high = simd.floats_of_low_words(x), simd.floats_of_high_words(x)
    simd.store_f32(floats, low)
    simd.store_f32(floats + np.uint64(32), high)
    simd.store_f32(floats + np.uint64(64), simd.minimum(low, high))
    simd.store_f32(floats + np.uint64(96), simd.maximum(low, high))
    simd.store_f32(floats + np.uint64(128), simd.load_bf16(a))
    total = simd.sum_ints(simd.add_ints(simd.multiply_words(x, y), simd.zero_ints()))
    return np.int64(total) + (np.int64(simd.greater_words(x, y)) << np.int64(32))


@njit(types.void(types.uintp, types.uintp))
def widen_halves(halves, out):
    for i in range(0, 1 << 16, 8):
        simd.store_f32(out + np.uint64(4 * i), simd.load_f16(halves + np.uint64(2 * i)))  # pyright: ignore


@njit(types.float32(types.uintp))
def widen_one_half(half):
    return simd.load_one_f16(half)  # pyright: ignore


def check_halves() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    out = np.empty(1 << 16, np.float32)
    widen_halves(every.ctypes.data, out.ctypes.data)
    np.testing.assert_array_equal(out, every.astype(np.float32))
    assert np.array_equal(np.signbit(out), np.signbit(every))
    for bits in (0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0x8001, 0xFC00):
        one = every[bits : bits + 1]
        np.testing.assert_array_equal(np.float32(widen_one_half(one.ctypes.data)), one.astype(np.float32)[0])


def check_bytes() -> None:
    a, b = rng.integers(0, 256, 32, np.uint8), rng.integers(0, 256, 32, np.uint8)
    out, wide = np.zeros((11, 32), np.uint8), np.zeros((2, 16), np.int16)
    run_bytes(a.ctypes.data, b.ctypes.data, out.ctypes.data, wide.ctypes.data)
    half, eight = np.tile(a[:16], 2), a[:8]
    crumbs = [(a[:16] >> (2 * i)) & 3 for i in range(4)]
    bits = [(eight >> i) & 1 for i in range(8)]
    expected = [
        a & 15, a >> 4, np.concatenate([a[:16][b[:16] & 15], a[16:][b[16:] & 15]]),
        np.concatenate(crumbs[:2]), np.concatenate(crumbs[2:]), np.concatenate(bits[:4]), np.concatenate(bits[4:]),
        (b & 15) * 16, (b & 15) * 4, a | b, a ^ b,
    ]  # fmt: skip
    assert len(half) == 32
    np.testing.assert_array_equal(out, expected)
    products = (b & 15).astype(int) * b.view(np.int8).astype(int)
    np.testing.assert_array_equal(wide, [products.reshape(16, 2).sum(axis=1), a[:16]])


def check_words() -> None:
    a, b = rng.integers(0, 1 << 16, 16, np.uint16), rng.integers(0, 1 << 16, 16, np.uint16)
    out, floats = np.zeros((6, 16), np.uint16), np.zeros((5, 8), np.float32)
    packed = run_words(a.ctypes.data, b.ctypes.data, out.ctypes.data, floats.ctypes.data)
    halves = np.concatenate([a[:8] + a[8:], b[:8] + b[8:]])
    np.testing.assert_array_equal(out, [a + b, a - b, a >> 8, a << 8, halves, np.full(16, a[0])])
    low, high = a[:8].astype(np.float32), a[8:].astype(np.float32)
    bf16 = (a[:8].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(floats, [low, high, np.minimum(low, high), np.maximum(low, high), bf16])
    dot = (a.view(np.int16).astype(np.int64) * b.view(np.int16).astype(np.int64)).sum()
    mask = sum(1 << i for i in range(16) if a[i] > b[i])
    assert packed == np.int64(np.int32(dot & 0xFFFFFFFF if dot < 2**31 else dot - 2**32)) + (mask << 32)


for _ in range(50):
    check_bytes()
    check_words()
check_halves()
print(simd.SIMD)
