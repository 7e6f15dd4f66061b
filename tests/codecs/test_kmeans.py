"""k-means against Lloyd's iterations in NumPy and against Faiss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs import kmeans_kernels
from gingham.codecs.kmeans import CentroidTables, assign, train_kmeans, train_many
from gingham.errors import InvalidArgument
from gingham.parallel import get_threads, set_threads

Array = np.ndarray[Any, Any]


def mixture(n: int, dim: int, seed: int = 0, clusters: int = 40) -> Array:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((clusters, dim)) * 2
    return (centers[rng.integers(0, clusters, n)] + rng.standard_normal((n, dim))).astype(np.float32)


def distances(rows: Array, centroids: Array) -> Array:
    return np.square(rows[:, None].astype(np.float64) - centroids).sum(axis=2)


def error(rows: Array, centroids: Array) -> float:
    return float(distances(rows, centroids).min(axis=1).sum())


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), k=st.integers(1, 70), dim=st.integers(1, 90), seed=st.integers(0, 9))
def test_each_row_goes_to_its_nearest_centroid(n: int, k: int, dim: int, seed: int) -> None:
    rows, centroids = mixture(n, dim, seed), mixture(k, dim, seed + 50)
    labels, squares = assign(rows, centroids)
    truth = distances(rows, centroids)
    np.testing.assert_allclose(truth[np.arange(n), labels], truth.min(axis=1), rtol=1e-4, atol=1e-5 * dim)
    np.testing.assert_allclose(squares, truth.min(axis=1), rtol=1e-4, atol=1e-5 * dim)


@pytest.mark.parametrize(("m", "k", "dim"), [(1, 1, 1), (3, 16, 2), (5, 37, 3), (4, 256, 8), (2, 300, 20)])
def test_subspaces_are_encoded_as_each_alone(m: int, k: int, dim: int) -> None:
    rows = mixture(131, m * dim)
    centroids = np.stack([mixture(k, dim, s + 1) for s in range(m)])
    labels = CentroidTables.of(centroids).nearest(rows)
    for s in range(m):
        truth = distances(rows[:, s * dim : (s + 1) * dim], centroids[s])
        np.testing.assert_allclose(truth[np.arange(131), labels[:, s]], truth.min(axis=1), rtol=1e-4, atol=1e-6)
    parts = [CentroidTables.of(centroids).nearest(rows[part]) for part in (slice(0, 3), slice(3, 131))]
    np.testing.assert_array_equal(np.concatenate(parts), labels)


def test_groups_are_those_of_a_stable_sort_and_their_means_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    labels, rows = rng.integers(0, 9, 500).astype(np.int32), mixture(500, 11)
    labels[labels == 4] = 5
    starts, order, means = np.empty(10, np.int64), np.empty(500, np.int64), np.full((9, 11), 7, np.float32)
    kmeans_kernels.group_rows(labels, starts, order)
    np.testing.assert_array_equal(order, np.argsort(labels, kind="stable"))
    np.testing.assert_array_equal(np.diff(starts), np.bincount(labels, minlength=9))
    kmeans_kernels.mean_of_groups(rows, starts, order, 0, 9, means)
    expected = [rows[labels == c].mean(axis=0) if c != 4 else np.full(11, 7) for c in range(9)]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dim", "k"), [(8, 64), (96, 40), (3, 256)])
def test_the_error_is_that_of_faiss_within_one_percent(dim: int, k: int) -> None:
    faiss = pytest.importorskip("faiss")
    rows = np.random.default_rng(3).standard_normal((8000, dim), np.float32) * np.exp(-np.arange(dim, dtype="f4") / 9)
    peer = faiss.Kmeans(dim, k, niter=25, seed=1234)
    peer.train(rows)
    assert error(rows, train_kmeans(rows, k)) < 1.01 * error(rows, peer.centroids)
    assert error(rows, train_kmeans(rows, k, fast=True)) < 1.08 * error(rows, peer.centroids)


def test_centroids_are_the_same_bytes_for_any_number_of_threads() -> None:
    rows, threads, found = mixture(3000, 80), get_threads(), []
    try:
        for count in (1, 3):
            set_threads(count)
            found.append((train_kmeans(rows, 50, seed=4).tobytes(), train_many([rows[:, :2].copy()] * 3, 8).tobytes()))
    finally:
        set_threads(threads)
    assert found[0] == found[1]


def test_a_seed_draws_its_own_rows() -> None:
    rows = mixture(500, 6)
    assert train_kmeans(rows, 9, seed=1).tobytes() == train_kmeans(rows, 9, seed=1).tobytes()
    assert train_kmeans(rows, 9, seed=1).tobytes() != train_kmeans(rows, 9, seed=2).tobytes()


def test_fewer_rows_than_centroids_are_repeated() -> None:
    rows = mixture(5, 3)
    np.testing.assert_array_equal(train_kmeans(rows, 12), rows[np.arange(12) % 5])


def test_every_centroid_has_rows_where_there_are_enough_distinct_ones() -> None:
    rows = np.concatenate([np.zeros((2000, 4)), np.random.default_rng(1).standard_normal((60, 4))]).astype(np.float32)
    labels, _ = assign(rows, train_kmeans(rows, 40, points_per_centroid=1000))
    assert len(np.unique(labels)) == 40


def test_two_distinct_rows_and_many_centroids_leave_no_error() -> None:
    rows = np.repeat(np.array([[1.0, 2.0], [3.0, -1.0]], np.float32), 50, axis=0)
    assert error(rows, train_kmeans(rows, 16)) == 0


@pytest.mark.parametrize(("offset", "scale"), [(0, 1e17), (0, 1e-17), (1e4, 1), (-1e17, 1e14)])
def test_neither_offset_nor_scale_costs_precision(offset: float, scale: float) -> None:
    rows = mixture(600, 5, clusters=7)
    moved = (rows * np.float32(scale) + np.float32(offset)).astype(np.float32)
    centroids = train_kmeans(moved, 7, seed=2).astype(np.float64)
    back = (moved.astype(np.float64) - offset) / scale
    assert error(back, (centroids - offset) / scale) < 1.15 * error(rows, train_kmeans(rows, 7, seed=2))


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": 2, "iterations": 0}, {"k": 2, "points_per_centroid": 0}])
def test_counts_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        train_kmeans(mixture(9, 2), **arguments)
    with pytest.raises(InvalidArgument, match="0 rows"):
        train_kmeans(np.empty((0, 2), np.float32), 2)
