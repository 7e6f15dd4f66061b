"""The fast rotation."""

from __future__ import annotations

import numpy as np
import pytest

from gingham.codecs.rotation import ROUNDS, Rotate


def reference(rows: np.ndarray, signs: np.ndarray) -> np.ndarray:
    width = rows.shape[1]
    span = 1 << (width.bit_length() - 1)
    hadamard = np.ones((1, 1))
    while len(hadamard) < span:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    for number in range(ROUNDS):
        rows = rows * signs[number]
        part = slice(width - span, width) if number % 2 else slice(0, span)
        rows[:, part] = rows[:, part] @ hadamard / np.sqrt(span)
        if span < width:
            low, high = np.hsplit(rows, 2)
            rows = np.hstack([low + high, low - high]) / np.sqrt(2)
    return rows


@pytest.mark.parametrize("dim", [1, 7, 64, 100, 128, 384, 784])
def test_a_rotation_keeps_lengths_and_angles_and_can_be_undone(dim: int) -> None:
    rows = np.random.default_rng(1).standard_normal((20, dim), np.float32)
    rotate = Rotate(dim).train(rows, seed=5)
    turned = rotate.apply(rows)
    assert turned.shape == (20, rotate.out_dim)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rotate.invert(turned), rows, atol=1e-5)


@pytest.mark.parametrize("dim", [64, 192, 256])
def test_a_rotation_is_signs_hadamard_transforms_and_mixed_halves(dim: int) -> None:
    rows = np.random.default_rng(1).standard_normal((5, dim), np.float32)
    rotate = Rotate(dim).train(rows, seed=2)
    assert rotate.signs is not None
    np.testing.assert_allclose(rotate.apply(rows), reference(rows.astype(np.float64), rotate.signs), atol=1e-5)


def test_rotated_axes_look_normal_whatever_the_width() -> None:
    for dim in (128, 384, 832):
        axes = Rotate(dim).train(np.zeros((1, dim), np.float32)).apply(np.eye(dim, dtype=np.float32))
        kurtosis = (axes**4).mean() / (axes**2).mean() ** 2
        assert 2.7 < kurtosis < 3.3


def test_the_seed_decides_and_a_row_has_the_same_bits_alone() -> None:
    rows = np.random.default_rng(1).standard_normal((9, 100), np.float32)
    one, two = Rotate(100).train(rows, seed=1), Rotate(100).train(rows, seed=2)
    np.testing.assert_array_equal(one.apply(rows)[4:5], one.apply(rows[4:5]))
    np.testing.assert_array_equal(one.apply(rows), Rotate(100).with_arrays(one.arrays()).apply(rows))
    assert not np.array_equal(one.apply(rows), two.apply(rows))
