from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs.kmeans import Centroids, assign, train_kmeans, train_subspaces
from gingham.errors import InvalidArgument
from gingham.parallel import get_threads, set_threads

Array = np.ndarray[Any, Any]


def squared(vectors: Array, centroids: Array) -> Array:
    rest = vectors[:, None].astype(np.float64) - centroids[None]
    return np.square(rest).sum(axis=2)


def mixture(n: int, d: int, k: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, d)) * 3
    return (centres[rng.integers(0, k, n)] + rng.standard_normal((n, d))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 130), st.integers(1, 5), st.integers(1, 9), st.integers(1, 40), st.integers(0, 9))
def test_the_nearest_centroid_of_each_subspace_is_that_of_numpy(n: int, m: int, dsub: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codebooks = rng.standard_normal((m, k, dsub)).astype(np.float32)
    vectors = rng.standard_normal((n, m * dsub)).astype(np.float32)
    found = np.empty((n, m), np.int32)
    Centroids.of(codebooks).nearest(vectors, out=found)
    for s in range(m):
        distances = squared(vectors[:, s * dsub : (s + 1) * dsub], codebooks[s])
        picked = distances[np.arange(n), found[:, s]]
        assert np.all(picked <= distances.min(axis=1) + 1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_codes_of_all_widths_agree_and_a_row_alone_has_the_code_it_has_in_a_batch(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    known = Centroids.of(rng.standard_normal((3, 200, 4)).astype(np.float32))
    vectors = rng.standard_normal((131, 12)).astype(np.float32)
    wide, codes, alone = np.empty((131, 3), np.int32), np.empty((131, 3), dtype), np.empty((1, 3), dtype)
    known.nearest(vectors, out=wide)
    known.nearest(vectors, out=codes)
    assert np.array_equal(wide, codes)
    for row in (0, 64, 130):
        known.nearest(vectors[row : row + 1], out=alone)
        assert np.array_equal(alone[0], codes[row])


@pytest.mark.parametrize(("scale", "offset"), [(1e-30, 0.0), (1e17, 0.0), (1.0, 1e4), (1e-6, 1.0)])
def test_neither_length_nor_a_far_mean_costs_precision(scale: float, offset: float) -> None:
    rng = np.random.default_rng(2)
    centroids = (rng.standard_normal((50, 8)) * scale + offset).astype(np.float32)
    vectors = (rng.standard_normal((300, 8)) * scale + offset).astype(np.float32)
    distances = squared(vectors.astype(np.float64) / scale, centroids.astype(np.float64) / scale)
    picked = distances[np.arange(300), assign(vectors, centroids)]
    assert np.allclose(picked, distances.min(axis=1), rtol=1e-3)


def test_ties_go_to_the_lower_centroid() -> None:
    centroids = np.repeat(np.array([[1.0, 0], [0, 1]], np.float32), 9, axis=0)
    assert assign(np.array([[3.0, 0], [0, 3], [1, 1]], np.float32), centroids).tolist() == [0, 9, 0]


def test_centroids_of_a_mixture_are_as_good_as_those_of_lloyd_from_the_true_ones() -> None:
    sample = mixture(4000, 12, 20, 3)
    found = squared(sample, train_kmeans(sample, 20, seed=0)).min(axis=1).sum()
    rng = np.random.default_rng(3)
    true = squared(sample, (rng.standard_normal((20, 12)) * 3)).min(axis=1).sum()
    assert found < 1.02 * true
    assert squared(sample, train_kmeans(sample, 20, seed=0, fast=True)).min(axis=1).sum() < 1.1 * true


def test_training_gives_the_same_bytes_for_any_number_of_threads() -> None:
    sample, threads = mixture(3000, 70, 30, 4), get_threads()
    results = []
    for count in (1, 3):
        set_threads(count)
        try:
            results.append(
                (train_kmeans(sample, 40, seed=5).tobytes(), train_subspaces(sample, 7, 16, seed=5).tobytes())
            )
        finally:
            set_threads(threads)
    assert results[0] == results[1]
    assert train_kmeans(sample, 40, seed=6).tobytes() != results[0][0]


def test_fewer_rows_than_centroids_are_repeated_in_order() -> None:
    sample = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(train_kmeans(sample, 5, seed=0), sample[[0, 1, 2, 0, 1]])
    assert train_subspaces(sample, 2, 4, seed=0)[1, :, 0].tolist() == [1, 3, 5, 1]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-38, 1e18])
def test_equal_rows_give_that_row(value: float) -> None:
    sample = np.full((50, 3), value, np.float32)
    assert np.array_equal(train_kmeans(sample, 8, seed=0), sample[:8])
    assert np.array_equal(train_subspaces(sample, 2, 8, seed=0)[0], sample[:8, :2])


def test_no_centroid_is_left_without_rows_where_there_are_distinct_ones() -> None:
    rng = np.random.default_rng(7)
    sample = np.concatenate([np.zeros((500, 2)), rng.standard_normal((40, 2))]).astype(np.float32)
    centroids = train_kmeans(sample, 30, seed=0)
    assert len(np.unique(assign(sample, centroids))) == 30


def test_subspaces_that_do_not_divide_the_dimension_are_padded_with_zeros() -> None:
    sample = mixture(600, 7, 5, 8)
    codebooks = train_subspaces(sample, 3, 16, seed=0)
    assert codebooks.shape == (3, 16, 3)
    assert not codebooks[2, :, 1:].any()


def test_no_centroid_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        train_kmeans(np.zeros((3, 2), np.float32), 0, seed=0)
