from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gingham.codecs.opq import OPQ, principal_start
from gingham.codecs.product import ProductQuantizer
from gingham.errors import InvalidArgument

Array = np.ndarray[Any, Any]


def gaussian(n: int, spread: Array, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(99).standard_normal((len(spread), len(spread))))[0]
    return ((rng.standard_normal((n, len(spread))) * spread) @ turn + 0.3).astype(np.float32)


def error(sample: Array, vectors: Array, m: int, transform: OPQ | None) -> float:
    if transform is not None:
        sample, vectors = transform.apply(sample), transform.apply(vectors)
    codec = ProductQuantizer(sample.shape[1], "l2", m).train(sample)
    return float(np.square(vectors - codec.decode(codec.encode(vectors))).sum())


@pytest.mark.parametrize(("scale", "most"), [(5.0, 0.5), (15.0, 0.9), (1e9, 1.02)])
def test_the_rotation_lowers_the_error_the_more_the_faster_variances_fall(scale: float, most: float) -> None:
    spread = np.exp(-np.arange(32) / scale)
    sample, held_out = gaussian(6000, spread, 1), gaussian(2000, spread, 2)
    transform = OPQ(32, 8).train(sample)
    assert error(sample, held_out, 8, transform) < most * error(sample, held_out, 8, None)


def test_lengths_and_products_stay_as_they_are_and_rows_come_back() -> None:
    rows = gaussian(700, np.ones(30), 3)
    transform = OPQ(30, 8).train(rows)
    turned = transform.apply(rows)
    queries, added = transform.apply_queries(rows[:9])
    assert turned.shape == (700, transform.out_dim) == (700, 32)
    np.testing.assert_allclose(queries @ turned.T, rows[:9] @ rows.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(transform.invert(turned), rows, atol=1e-4)
    assert not added.any()


def test_a_row_and_a_query_have_the_same_bits_alone_and_in_a_batch() -> None:
    rows = gaussian(600, np.ones(19), 4)
    transform = OPQ(19, 5).train(rows[:200])
    for i in (0, 100, 300, 599):
        np.testing.assert_array_equal(transform.apply(rows[i : i + 1])[0], transform.apply(rows)[i])
        np.testing.assert_array_equal(
            transform.apply_queries(rows[i : i + 1])[0][0], transform.apply_queries(rows)[0][i]
        )


def test_variances_are_dealt_so_that_their_products_are_near_each_other() -> None:
    rows = (np.random.default_rng(5).standard_normal((4000, 16)) * np.exp(-np.arange(16) / 3)).astype(np.float32)
    start = principal_start(rows, 4)
    logs = np.log((rows @ start.T).var(axis=0)).reshape(4, 4).sum(axis=1)
    assert np.ptp(logs) < 0.5
    np.testing.assert_allclose(start @ start.T, np.eye(16), atol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((40, 6)), np.full((40, 6), 1e18), np.ones((1, 6)), np.eye(6) * 1e-30])
def test_odd_samples_still_give_a_rotation(rows: Array) -> None:
    transform = OPQ(6, 4, n_centroids=16).train(rows.astype(np.float32))
    matrix = transform.arrays()["matrix"]
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(6), atol=1e-5)
    assert transform.with_arrays({"matrix": matrix}).apply(np.ones((2, 6), np.float32)).shape == (2, 8)


def test_more_subspaces_than_dimensions_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="OPQ expects 1 to 8"):
        OPQ(8, 9)
