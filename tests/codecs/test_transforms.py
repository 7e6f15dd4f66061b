"""Centring, projections and whitening."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gingham.codecs.rotation import Rotate
from gingham.codecs.transforms import LEARN_QUERIES, MRL, PCA, Center, LeanVec, Whiten
from gingham.errors import InvalidArgument
from gingham.parallel import get_threads, set_threads

Array = np.ndarray[Any, Any]
DIM = 40
EXACT = {
    "Center": lambda metric: Center(DIM, metric),
    "PCA40": lambda metric: PCA(DIM, metric, DIM),
    "MRL40": lambda metric: MRL(DIM, metric, DIM),
    "Rotate": lambda metric: Rotate(DIM),
    "LeanVec40": lambda metric: LeanVec(DIM, metric, DIM),
    "Whiten": lambda metric: Whiten(DIM, metric, DIM),
}
SHORTER = {
    "PCA20": lambda metric: PCA(DIM, metric, 20),
    "MRL20": lambda metric: MRL(DIM, metric, 20),
    "LeanVec20": lambda metric: LeanVec(DIM, metric, 20),
}
every_metric = pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
every_transform = pytest.mark.parametrize("name", [*EXACT, *SHORTER])


def vectors(n: int, metric: str, seed: int = 5, dim: int = DIM) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), np.float32) * np.exp(-np.arange(dim, dtype=np.float32) / 8) + 0.3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


def trained(name: str, metric: Any, n: int = 600) -> Any:
    if name == "Whiten" and metric == "l2":
        pytest.skip("whitening changes distances")
    return (EXACT | SHORTER)[name](metric).train(vectors(n, metric), seed=3)


def exact(queries: Array, rows: Array, metric: str) -> Array:
    if metric == "l2":
        return -np.square(queries[:, None].astype(np.float64) - rows).sum(axis=2)
    return queries.astype(np.float64) @ rows.T


def scored(transform: Any, queries: Array, rows: Array, metric: str) -> Array:
    turned, bias = transform.apply_queries(queries)
    assert turned.dtype == bias.dtype == np.float32
    return exact(turned, transform.apply(rows), metric) + bias[:, None]


@pytest.mark.parametrize("name", EXACT)
@every_metric
def test_transforms_that_keep_all_dimensions_keep_scores(name: str, metric: str) -> None:
    transform, rows, queries = trained(name, metric), vectors(30, metric, 1), vectors(7, metric, 2)
    np.testing.assert_allclose(scored(transform, queries, rows, metric), exact(queries, rows, metric), atol=2e-5)
    np.testing.assert_allclose(transform.invert(transform.apply(rows)), rows, atol=1e-5)


@every_transform
@every_metric
def test_scores_are_those_of_the_vectors_stood_for(name: str, metric: str) -> None:
    transform, rows, queries = trained(name, metric), vectors(30, metric, 1), vectors(7, metric, 2)
    turned = transform.apply(rows)
    assert turned.shape == (30, transform.out_dim)
    back = transform.invert(turned)
    if name.startswith("MRL") and metric == "cosine":
        queries = transform.invert(transform.apply(queries))
    np.testing.assert_allclose(scored(transform, queries, rows, metric), exact(queries, back, metric), atol=2e-5)
    assert np.corrcoef(exact(queries, back, metric).ravel(), exact(queries, rows, metric).ravel())[0, 1] > 0.98


@every_transform
@every_metric
def test_rows_and_queries_have_the_same_bits_alone_and_in_a_batch(name: str, metric: str) -> None:
    transform, rows = trained(name, metric), vectors(55, metric, 1)
    turned, (asked, bias) = transform.apply(rows), transform.apply_queries(rows)
    back = transform.invert(turned)
    for i in (0, 6, 13, 54):
        alone = np.ascontiguousarray(rows[i : i + 1])
        np.testing.assert_array_equal(transform.apply(alone)[0], turned[i])
        np.testing.assert_array_equal(transform.apply_queries(alone)[0][0], asked[i])
        np.testing.assert_array_equal(transform.apply_queries(alone)[1][0], bias[i])
        np.testing.assert_array_equal(transform.invert(turned[i : i + 1])[0], back[i])


@every_transform
@every_metric
def test_what_was_learned_makes_the_transform_again(name: str, metric: str) -> None:
    transform, rows = trained(name, metric), vectors(9, metric, 1)
    stored = {key: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for key, a in transform.arrays().items()}
    again = (EXACT | SHORTER)[name](metric).with_arrays(stored)
    assert again.trained
    assert again.spec == transform.spec == name
    np.testing.assert_array_equal(again.apply(rows), transform.apply(rows))
    np.testing.assert_array_equal(again.apply_queries(rows)[0], transform.apply_queries(rows)[0])


@every_transform
@every_metric
@pytest.mark.parametrize("case", ["zeros", "one row", "equal rows", "few rows", "huge", "tiny"])
def test_odd_samples_train_and_give_numbers(name: str, metric: str, case: str) -> None:
    if name == "Whiten" and metric == "l2":
        pytest.skip("whitening changes distances")
    some = vectors(60, metric)
    rows = {
        "zeros": np.zeros((60, DIM), np.float32), "one row": some[:1], "equal rows": np.tile(some[:1], (60, 1)),
        "few rows": some[:7], "huge": some * np.float32(1e17), "tiny": some * np.float32(1e-17),
    }[case]  # fmt: skip
    transform = (EXACT | SHORTER)[name](metric).train(rows)
    size = np.float64(np.abs(rows).max()) or 1.0
    queries = rows[:3]
    found = scored(transform, queries, rows, metric)
    assert np.isfinite(found).all()
    if name.startswith("MRL") and metric == "cosine":
        return  # Only of rows of length one does it keep inner products.
    # A sample of few rows lies on few axes and is kept whole.
    if name in EXACT or (case not in ("huge", "tiny") and not name.startswith("MRL")):
        np.testing.assert_allclose(found, exact(queries, rows, metric), atol=4e-4 * size**2)


def test_pca_keeps_the_most_variance_on_orthonormal_axes() -> None:
    rows = vectors(900, "dot")
    transform = PCA(DIM, "dot", 12).train(rows)
    assert transform.data is not None
    np.testing.assert_allclose(transform.data @ transform.data.T, np.eye(12), atol=1e-6)
    assert (transform.data[np.arange(12), np.abs(transform.data).argmax(axis=1)] > 0).all()
    singular = np.linalg.svd(rows - rows.mean(axis=0, dtype=np.float64), compute_uv=False)
    np.testing.assert_allclose(np.square(transform.apply(rows)).sum(axis=0), np.square(singular[:12]), rtol=1e-4)


def test_training_has_the_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gingham.codecs.projection.PART_ROWS", 100)
    monkeypatch.setattr("gingham.codecs.projection.BLOCK_ROWS", 30)
    rows, threads = vectors(950, "dot"), get_threads()
    try:
        set_threads(1)
        one = PCA(DIM, "dot", 10).train(rows).arrays()
        set_threads(3)
        three = PCA(DIM, "dot", 10).train(rows).arrays()
    finally:
        set_threads(threads)
    for name, array in one.items():
        np.testing.assert_array_equal(array, three[name])


def test_a_large_sample_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gingham.codecs.projection.SAMPLE_ROWS", 100)
    rows = np.sort(vectors(1000, "dot"), axis=0)
    mean = PCA(DIM, "dot", 3).train(rows).mean
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=0.02)


def test_a_prefix_is_of_length_one_again_under_cosine_and_zeros_stay_zeros() -> None:
    rows = vectors(4, "cosine")
    rows[1, :10] = 0
    rows[2, :10] = np.float32(1e-38)
    found = MRL(DIM, "cosine", 10).apply(rows)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(MRL(DIM, "dot", 10).apply(rows), rows[:, :10])


def test_whitened_axes_have_one_variance() -> None:
    rows = vectors(2000, "dot")
    covariance = np.cov(Whiten(DIM, "dot", DIM).train(rows).apply(rows).T)
    np.testing.assert_allclose(covariance, np.eye(DIM) * np.trace(np.cov(rows.T)) / DIM, atol=2e-3)


def test_leanvec_keeps_inner_products_with_unlike_queries_as_well_as_any_projection() -> None:
    rng = np.random.default_rng(1)
    rows = vectors(700, "dot")
    queries = (rng.standard_normal((LEARN_QUERIES, DIM)) * rng.permutation(np.exp(-np.arange(DIM) / 5))).astype(
        np.float32
    )
    truth = exact(queries, rows, "dot")

    def error(transform: Any) -> float:
        return float(np.linalg.norm(scored(transform, queries, rows, "dot") - truth))

    learned = LeanVec(DIM, "dot", 8).train(rows, queries=queries)
    least = np.linalg.norm(np.linalg.svd(queries @ (rows - rows.mean(axis=0)).T, compute_uv=False)[8:])
    assert error(learned) < 1.01 * least < 0.9 * error(PCA(DIM, "dot", 8).train(rows))
    np.testing.assert_allclose(np.square(learned.apply(rows)).sum(), np.square(rows - rows.mean(0)).sum(), rtol=0.01)
    whole = LeanVec(DIM, "dot", DIM).train(rows, queries=queries)
    np.testing.assert_allclose(scored(whole, queries, rows, "dot"), truth, atol=2e-3)
    back = learned.invert(learned.apply(rows[:50]))
    np.testing.assert_allclose(
        exact(queries[:9], back, "dot"), scored(learned, queries[:9], rows[:50], "dot"), atol=1e-4
    )


@pytest.mark.parametrize("queries", [None, vectors(50, "dot", 9), np.zeros((LEARN_QUERIES, DIM), np.float32)])
def test_leanvec_is_pca_without_enough_queries(queries: Array | None) -> None:
    rows = vectors(300, "dot")
    found, plain = LeanVec(DIM, "dot", 9).train(rows, queries=queries), PCA(DIM, "dot", 9).train(rows)
    np.testing.assert_array_equal(found.apply(rows), plain.apply(rows))


def test_leanvec_under_l2_is_pca_whatever_the_queries() -> None:
    rows, queries = vectors(300, "l2"), vectors(LEARN_QUERIES, "l2", 3)
    found = LeanVec(DIM, "l2", 9).train(rows, queries=queries)
    np.testing.assert_array_equal(found.apply(rows), PCA(DIM, "l2", 9).train(rows).apply(rows))


def test_what_does_not_fit_is_refused() -> None:
    for make in (PCA, MRL, LeanVec):
        for wrong in (0, DIM + 1):
            with pytest.raises(InvalidArgument, match=f"from 1 to {DIM} dimensions"):
                make(DIM, "dot", wrong)
    with pytest.raises(InvalidArgument, match="'dot' or 'cosine'"):
        Whiten(DIM, "l2", DIM)
    for untrained in (Center(DIM, "dot"), PCA(DIM, "dot", 4)):
        with pytest.raises(InvalidArgument, match="train"):
            untrained.apply(vectors(1, "dot"))


def test_the_projection_is_the_product_with_the_matrix() -> None:
    from gingham.codecs.projection import Projection

    rng = np.random.default_rng(1)
    for n, dim, out_dim in ((1, 1, 1), (5, 7, 3), (49, 33, 17), (100, 70, 48)):
        rows, matrix = rng.standard_normal((n, dim), np.float32), rng.standard_normal((out_dim, dim), np.float32)
        found = Projection(matrix).apply(rows, offset=rows[0])
        np.testing.assert_allclose(found, (rows - rows[0]).astype(np.float64) @ matrix.T, atol=1e-4)
