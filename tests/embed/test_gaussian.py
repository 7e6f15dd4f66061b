"""Normal distributions as vectors: the inner product orders them as their divergence does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.embed.gaussian import gaussian_queries, gaussian_rows
from gingham.errors import InvalidArgument

Array = np.ndarray[Any, Any]


def divergence(mean_q: Array, var_q: Array, mean_d: Array, var_d: Array) -> Array:
    """KL(query || row) of diagonal normal distributions, from its definition."""
    return np.asarray((np.log(var_d / var_q) - 1 + var_q / var_d + np.square(mean_q - mean_d) / var_d).sum(axis=-1) / 2)


def drawn(rng: Any, n: int, k: int) -> tuple[Array, Array]:
    return rng.normal(size=(n, k)), np.exp(rng.normal(scale=0.7, size=(n, k)))


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_the_product_is_the_divergence_but_for_a_number_of_the_query(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    (mq, vq), (md, vd) = drawn(rng, 2, k), drawn(rng, 30, k)
    scores = gaussian_queries(mq, vq).astype(np.float64) @ gaussian_rows(md, vd).astype(np.float64).T
    for i in range(2):
        of_query = np.log(vq[i]).sum() + k  # what -2 KL leaves out
        exact = -2 * divergence(mq[i], vq[i], md, vd)
        np.testing.assert_allclose(scores[i] + of_query, exact, rtol=1e-5, atol=1e-5 * (np.abs(exact).max() + k))


def test_a_collection_finds_the_rows_of_least_divergence(db: gg.Database) -> None:
    rng = np.random.default_rng(0)
    (mq, vq), (md, vd) = drawn(rng, 5, 24), drawn(rng, 200, 24)
    docs = db.create_collection("docs", vectors={"text": gg.Dense(49, metric="dot")})
    docs.upsert(ids=list(range(200)), vectors={"text": gaussian_rows(md, vd)})
    for i, query in enumerate(gaussian_queries(mq, vq)):
        assert docs.search(query, k=200).ids == np.argsort(divergence(mq[i], vq[i], md, vd)).tolist()


def test_very_small_variances_of_many_dimensions_neither_vanish_nor_overflow() -> None:
    rng = np.random.default_rng(1)
    mean, _ = drawn(rng, 20, 381)
    variance = np.full((20, 381), 1e-4) * rng.uniform(1, 2, (20, 1))
    scores = gaussian_queries(mean, variance) @ gaussian_rows(mean, variance).T
    assert (scores.argmax(axis=1) == np.arange(20)).all()


@pytest.mark.parametrize("make", [gaussian_rows, gaussian_queries])
@pytest.mark.parametrize(
    ("means", "variances", "found"),
    [
        ([1.0, 2], [1.0, 2], r"one shape \(n, k\), found \(2,\)"),
        (np.zeros((2, 3)), np.ones((2, 2)), r"found \(2, 3\) and \(2, 2\)"),
        (np.zeros((2, 0)), np.ones((2, 0)), "one shape"),
        ([[0.0], [0]], [[1.0], [0]], "above 0, found others in row 1"),
        ([[0.0], [0]], [[1.0], [np.nan]], "row 1"),
        ([[np.inf]], [[1.0]], "row 0"),
        ([["a"]], [[1.0]], "expects numbers"),
        ([[0.0], [1e30]], [[1.0], [1e-30]], "fit float32, found others in row 1"),
        ([[1e30]], [[1e-310]], "fit float32, found others in row 0"),
    ],
)
def test_what_is_no_distribution_is_refused(make: Any, means: Any, variances: Any, found: str) -> None:
    with pytest.raises(InvalidArgument, match=found):
        make(means, variances)


def test_a_variance_whose_inverse_is_infinite_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="raise small variances"):
        gaussian_rows([[0.0]], [[1e-310]])


def test_no_rows_are_no_vectors() -> None:
    assert gaussian_rows(np.empty((0, 4)), np.empty((0, 4))).shape == (0, 9)
