"""The fast rotation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs.rotation import ROUNDS, Rotate
from gingham.errors import InvalidArgument


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
        if span < width and number % 2:
            low, high = np.hsplit(rows, 2)
            rows = np.hstack([low + high, low - high]) / np.sqrt(2)
    return rows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1100), st.integers(0, 2**32 - 1), st.sampled_from([1e-15, 1.0, 1e15]))
def test_a_rotation_keeps_lengths_and_angles_and_can_be_undone(dim: int, seed: int, size: float) -> None:
    rows = np.random.default_rng(seed).standard_normal((12, dim), np.float32) * np.float32(size)
    rotate = Rotate(dim).train(rows, seed=seed)
    turned = rotate.apply(rows)
    assert turned.shape == (12, rotate.out_dim)
    wide, back = rows.astype(np.float64), turned.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), lengths, rtol=1e-5)
    assert (np.abs(back @ back.T - wide @ wide.T) <= 1e-5 * np.outer(lengths, lengths)).all()
    np.testing.assert_allclose(rotate.invert(turned), rows, atol=1e-5 * lengths.max())


@pytest.mark.parametrize("dim", [64, 128, 192, 256, 448, 512, 1024])
def test_a_rotation_is_signs_hadamard_transforms_and_mixed_halves(dim: int) -> None:
    rows = np.random.default_rng(1).standard_normal((5, dim), np.float32)
    rotate = Rotate(dim).train(rows, seed=2)
    assert rotate.signs is not None
    np.testing.assert_allclose(rotate.apply(rows), reference(rows.astype(np.float64), rotate.signs), atol=1e-5)


@pytest.mark.parametrize("dim", [128, 384, 832, 960, 1536])
def test_rotated_axes_look_normal_whatever_the_width(dim: int) -> None:
    axes = Rotate(dim).train(np.zeros((1, dim), np.float32)).apply(np.eye(dim, dtype=np.float32))
    axes = axes.astype(np.float64) * np.sqrt(dim)
    assert 2.7 < (axes**4).mean() < 3.3
    assert (axes**4).mean(axis=1).max() < 7
    assert (np.abs(axes) < 1).mean() == pytest.approx(0.6827, abs=0.02)
    assert (np.abs(axes) < 2).mean() == pytest.approx(0.9545, abs=0.01)


def test_the_seed_decides_and_a_row_has_the_same_bits_alone() -> None:
    rows = np.random.default_rng(1).standard_normal((9, 100), np.float32)
    one, two = Rotate(100).train(rows, seed=1), Rotate(100).train(rows, seed=2)
    np.testing.assert_array_equal(one.apply(rows)[4:5], one.apply(rows[4:5]))
    np.testing.assert_array_equal(one.apply(rows), Rotate(100).train(rows, seed=1).apply(rows))
    np.testing.assert_array_equal(one.apply(rows), Rotate(100).with_arrays(one.arrays()).apply(rows))
    assert not np.array_equal(one.apply(rows), two.apply(rows))


def test_rows_are_cut_into_slices_without_changing_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).standard_normal((9, 70), np.float32)
    rotate = Rotate(70).train(rows)
    whole = rotate.apply(rows)
    monkeypatch.setattr("gingham.codecs.rotation.SLICE_BYTES", 1)
    np.testing.assert_array_equal(rotate.apply(rows), whole)


def test_a_rotation_that_is_not_trained_says_so() -> None:
    with pytest.raises(InvalidArgument, match="train"):
        Rotate(8).apply(np.zeros((1, 8), np.float32))
