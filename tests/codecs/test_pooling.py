"""Token pooling against Ward's criterion computed from its definition, without recurrence and chain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs import pooling_kernels
from gingham.codecs.pooling import pool_tokens
from gingham.errors import InvalidArgument

Array = np.ndarray[Any, Any]

SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.sampled_from([1, 2, 3, 4, 7, 100, "adaptive"])
METHODS = st.sampled_from(["ward", "sequential"])


def document(n: int, dim: int, seed: int) -> Array:
    """Tokens around a few topics, of many lengths."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((1 + n // 4, dim))
    tokens = topics[rng.integers(0, len(topics), n)] + 0.5 * rng.standard_normal((n, dim))
    return (tokens * rng.uniform(0.1, 10, (n, 1))).astype(np.float32)


def cosines(tokens: Array) -> Array:
    unit = tokens / np.linalg.norm(tokens.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def ward(tokens: Array, n_clusters: int) -> Array:
    """Merge what adds least to the spread within clusters, given by the mean squared distances of their members."""
    squares, members = (1 - cosines(tokens)) ** 2, np.eye(len(tokens))
    while len(members) > n_clusters:
        sizes = members.sum(axis=1)
        means = members @ squares @ members.T / np.outer(sizes, sizes)
        cost = 1 / np.add.outer(1 / sizes, 1 / sizes) * (2 * means - np.diag(means)[:, None] - np.diag(means))
        i, j = sorted(divmod(int((cost + np.diag([np.inf] * len(cost))).argmin()), len(cost)))
        members[i] += members[j]
        members = np.delete(members, j, axis=0)
    return members.argmax(axis=0)


def by_first_member(labels: Array) -> Array:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def kernel_labels(tokens: Array, n_clusters: int) -> Array:
    labels = np.empty(len(tokens), np.int64)
    pooling_kernels.ward_clusters(cosines(tokens), n_clusters, labels)
    return labels


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(3, 20), SEEDS, st.data())
def test_clusters_are_those_of_the_definition(n: int, dim: int, seed: int, data: st.DataObject) -> None:
    n_clusters = data.draw(st.integers(1, n))
    tokens = document(n, dim, seed)
    np.testing.assert_array_equal(kernel_labels(tokens, n_clusters), ward(tokens, n_clusters))


@pytest.mark.parametrize("n", [2, 33, 130, 400])
def test_clusters_are_those_of_scipy(n: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    tokens = document(n, 32, n)
    tree = hierarchy.linkage((1 - cosines(tokens))[np.triu_indices(n, 1)], "ward")
    for n_clusters in {1, 2, n // 4 + 1, n // 2, n - 1, n}:
        expected = by_first_member(hierarchy.fcluster(tree, n_clusters, "maxclust"))
        np.testing.assert_array_equal(kernel_labels(tokens, n_clusters), expected)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(0, 5), FACTORS, METHODS, st.booleans(), SEEDS)
def test_every_token_is_in_one_cluster_protected_ones_stay_and_the_rest_are_means(
    n: int, protected: int, factor: Any, method: Any, renormalize: bool, seed: int
) -> None:
    tokens = document(n, 5, seed)
    pooled, labels = pool_tokens(
        tokens, factor=factor, method=method, protected=protected, renormalize=renormalize and factor != 1
    )
    kept = min(protected, n)
    assert (pooled.dtype, labels.dtype, labels.shape) == (np.float32, np.int64, (n,))
    assert pooled[:kept].tobytes() == tokens[:kept].tobytes()
    np.testing.assert_array_equal(labels, by_first_member(labels))
    np.testing.assert_array_equal(np.unique(labels), np.arange(len(pooled)))
    np.testing.assert_array_equal(labels[:kept], np.arange(kept))
    for row in range(kept, len(pooled)):
        mean = tokens[labels == row].mean(axis=0, dtype=np.float64)
        mean = mean / np.linalg.norm(mean) if renormalize and factor != 1 else mean
        np.testing.assert_allclose(pooled[row], mean, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 5), st.integers(1, 9), METHODS)
def test_so_many_vectors_are_left_as_the_factor_says(n: int, protected: int, factor: int, method: Any) -> None:
    pooled, _ = pool_tokens(document(n, 4, n), factor=factor, method=method, protected=protected)
    assert len(pooled) == (n if n <= protected else protected + max(1, math.ceil((n - protected) / factor)))


@pytest.mark.parametrize("method", ["ward", "sequential"])
@pytest.mark.parametrize(("n", "kept"), [(1, 1), (15, 15), (16, 15), (20, 18), (128, 64), (512, 169)])
def test_an_adaptive_document_keeps_a_smaller_share_the_longer_it_is(n: int, kept: int, method: Any) -> None:
    pooled, _ = pool_tokens(document(n, 8, n), factor="adaptive", method=method)
    assert len(pooled) == kept


@pytest.mark.parametrize("method", ["ward", "sequential"])
@pytest.mark.parametrize("protected", [0, 1, 3])
def test_a_factor_of_one_changes_no_bit(method: Any, protected: int) -> None:
    tokens = document(30, 6, 1)
    pooled, labels = pool_tokens(tokens, factor=1, method=method, protected=protected)
    assert pooled.tobytes() == tokens.tobytes()
    assert not np.shares_memory(pooled, tokens)
    np.testing.assert_array_equal(labels, np.arange(30))


def test_runs_of_tokens_are_pooled_in_order() -> None:
    _, labels = pool_tokens(document(9, 4, 1), factor=3, method="sequential")
    assert labels.tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(1, 4), SEEDS)
def test_ties_are_broken_the_same_way_whatever_rounding_the_cosines_had(
    n: int, kinds: int, n_clusters: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    exact = np.eye(kinds)[rng.integers(0, kinds, n)]
    exact = np.round(exact @ exact.T)
    noise = rng.uniform(-1e-14, 1e-14, (n, n))
    labels, again = np.empty(n, np.int64), np.empty(n, np.int64)
    pooling_kernels.ward_clusters(exact.copy(), min(n, n_clusters), labels)
    pooling_kernels.ward_clusters(exact + noise, min(n, n_clusters), again)
    np.testing.assert_array_equal(labels, again)
    assert len(np.unique(labels)) == min(n, n_clusters)


def test_equal_tokens_are_pooled_first() -> None:
    tokens = np.repeat(document(7, 16, 3), 4, axis=0)[np.random.default_rng(0).permutation(28)]
    pooled, labels = pool_tokens(tokens, factor=4, protected=0, renormalize=False)
    np.testing.assert_allclose(pooled[labels], tokens, rtol=1e-6)
    np.testing.assert_array_equal(np.bincount(labels), [4] * 7)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(2, 5), SEEDS)
def test_the_order_of_tokens_that_differ_does_not_matter(n: int, factor: int, seed: int) -> None:
    tokens = document(n, 12, seed)
    order = np.random.default_rng(seed).permutation(n)
    pooled, labels = pool_tokens(tokens, factor=factor, protected=0)
    moved, moved_labels = pool_tokens(tokens[order], factor=factor, protected=0)
    np.testing.assert_array_equal(by_first_member(labels[order]), moved_labels)
    np.testing.assert_allclose(moved[moved_labels], pooled[labels[order]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e30])
def test_tokens_are_clustered_by_direction_however_short_or_long(scale: float) -> None:
    tokens = document(40, 8, 5)
    scales = np.where(np.arange(40) % 2, 1.0, scale)[:, None].astype(np.float32)
    pooled, labels = pool_tokens(tokens, factor=3)
    scaled, scaled_labels = pool_tokens(tokens * np.float32(scale), factor=3)
    np.testing.assert_array_equal(scaled_labels, labels)
    np.testing.assert_allclose(scaled[1:], pooled[1:], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(pool_tokens(tokens * scales, factor=3)[1], labels)


def test_a_mean_of_zeros_stays_zero() -> None:
    opposite = np.array([[1, 0], [0, 2], [0, -2]], np.float32)
    pooled, _ = pool_tokens(opposite, factor=2)
    assert pooled.tolist() == [[1, 0], [0, 0]]
    zeros, labels = pool_tokens(np.zeros((5, 3), np.float32), factor=2)
    assert not zeros.any()
    assert len(zeros) == 3
    assert len(labels) == 5


@pytest.mark.parametrize("factor", [1, 2, "adaptive"])
@pytest.mark.parametrize("protected", [0, 1, 2])
def test_a_document_of_one_token_keeps_it(factor: Any, protected: int) -> None:
    pooled, labels = pool_tokens(np.array([[0, 1]], np.float32), factor=factor, protected=protected)
    assert (pooled.tolist(), labels.tolist()) == ([[0, 1]], [0])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.empty((0, 4)), r"shape \(0, 4\)"),
        (np.empty((4, 0)), r"shape \(4, 0\)"),
        (np.ones(4), r"shape \(4,\)"),
        (np.array([[1, 2], [np.nan, 1]]), "token 1"),
        (np.array([[1, np.inf]]), "token 0"),
        (np.array([[1, 1e300]]), "token 0"),
    ],
)
def test_no_tokens_and_what_is_no_number_are_refused(tokens: Array, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        pool_tokens(tokens)


@pytest.mark.parametrize(
    "options",
    [{"factor": 0}, {"factor": 1.5}, {"factor": "half"}, {"method": "random"}, {"protected": -1}, {"protected": 0.5}],
)
def test_options_that_mean_nothing_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=f"{next(iter(options))}= expects .*; use"):
        pool_tokens(np.ones((3, 2), np.float32), **options)
