"""RaBitQ of one bit in blocks: unbiased, within its bound, and the same bits in any batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gingham.codecs import topk_kernels
from gingham.codecs.rabitq_blocks import RaBitQBlocks
from gingham.errors import InvalidArgument


def data(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def scored(codec, codes, queries, bias=None):
    out = np.empty((len(queries), codes.n), np.float32)
    codec.score(codec.prepare(queries, bias), codes, np.tile(np.arange(codes.n), (len(queries), 1)), out)
    return out


def truth(metric, queries, vectors):
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    return -((q[:, None] - x) ** 2).sum(-1) if metric == "l2" else q @ x.T


def shares(codec, queries):
    """What part of the mean queries lose, float64 (n, 1)."""
    c = codec.mean.astype(np.float64)
    return np.ones((len(queries), 1)) if codec.metric == "l2" else np.clip(queries @ c / (c @ c), 0, 1)[:, None]


def reference(codec, queries, vectors):
    """The estimator with the real numbers of the query, in float64."""
    rotate, c = codec.rotation.apply, codec.mean.astype(np.float64)
    r = rotate(vectors - codec.mean).astype(np.float64)
    share = shares(codec, queries)
    q = rotate((queries - share * c).astype(np.float32)).astype(np.float64)
    scale = (r**2).sum(1) / np.maximum(np.abs(r).sum(1), 1e-300)
    products = scale * (q @ np.where(r > 0, 1.0, -1.0).T)
    if codec.metric == "l2":
        return 2 * products - (q**2).sum(1)[:, None] - (r**2).sum(1)
    return products + (queries @ c)[:, None] + share * ((vectors - c) @ c)


@pytest.mark.parametrize("metric", ["l2", "dot", "cosine"])
@pytest.mark.parametrize("dim", [64, 100, 7])
def test_scores_are_those_of_the_formula_but_for_rounded_tables(metric, dim) -> None:
    vectors, queries = data(70, dim) + 1, data(4, dim, 1)
    codec = RaBitQBlocks(dim, metric).train(vectors, seed=3)
    codes = codec.encode(vectors)
    got = scored(codec, codes, queries, np.arange(4, dtype=np.float32))
    prepared = codec.prepare(queries)
    steps = np.abs(codes.arrays["mul"].reshape(-1)[:70]) * prepared.blocks.parameters[:, :1] * codec._layout.count / 2
    error = np.abs(got - np.arange(4)[:, None] - reference(codec, queries, vectors))
    assert (error <= steps + 1e-3).all()
    decoded = codec.decode(codes)
    if metric != "l2":
        share = shares(codec, queries)
        exact = share * ((vectors.astype(np.float64) - codec.mean) @ codec.mean) + queries @ codec.mean[:, None]
        from_decoded = (queries - share * codec.mean) @ (decoded - codec.mean).T + exact
        np.testing.assert_allclose(from_decoded, reference(codec, queries, vectors), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_scores_are_unbiased_over_rotations(metric) -> None:
    vectors, queries = data(20, 96) + np.float32(0.3), data(5, 96, 1)
    exact = truth(metric, queries, vectors)
    errors = []
    for seed in range(120):
        codec = RaBitQBlocks(96, metric).train(vectors, seed=seed)
        errors.append(scored(codec, codec.encode(vectors), queries) - exact)
    means = np.mean(errors, axis=0)
    deviations = np.std(errors, axis=0, ddof=1) / np.sqrt(120)
    # 100 means: a few beyond two standard errors are expected, none far beyond four.
    assert (np.abs(means) < 4.5 * deviations).all()
    assert abs((means / deviations).mean()) < 3 * np.sqrt(2 / 100)


def test_bound_covers_what_theory_says_for_queries_independent_of_the_data() -> None:
    vectors, queries = data(600, 256), data(60, 256, 1)
    rows = np.tile(np.arange(600), (60, 1))
    inside = {}
    for metric in ("l2", "dot"):
        codec = RaBitQBlocks(256, metric).train(vectors, seed=0)
        codes = codec.encode(vectors)
        error = np.abs(scored(codec, codes, queries) - truth(metric, queries, vectors))
        for epsilon in (1.9, 3.1):
            wide = replace(codec, epsilon=epsilon)
            inside[metric, epsilon] = (error <= wide.bound(wide.prepare(queries), codes, rows)).mean()
    assert 0.93 < inside["l2", 1.9] < 0.965
    assert inside["l2", 1.9] == pytest.approx(inside["dot", 1.9], abs=0.002)
    assert inside["l2", 3.1] > 0.997


def test_l2_and_dot_agree_about_the_inner_product_of_centred_rows() -> None:
    vectors, queries = data(50, 64), data(6, 64, 1)
    vectors -= vectors.mean(axis=0)
    l2 = RaBitQBlocks(64, "l2").train(vectors)
    dot = RaBitQBlocks(64, "dot").train(vectors)
    from_dot = -(queries**2).sum(1)[:, None] - (vectors**2).sum(1) + 2 * scored(dot, dot.encode(vectors), queries)
    np.testing.assert_allclose(scored(l2, l2.encode(vectors), queries), from_dot, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_scan_finds_what_listed_scores_rank_first(metric) -> None:
    vectors, queries = data(333, 70), data(5, 70, 1)
    codec = RaBitQBlocks(70, metric).train(vectors)
    codes = codec.join([codec.encode(vectors[:100]), codec.encode(vectors[100:])])
    allow = np.random.default_rng(0).random(333) < 0.5
    for prepared in (codec.prepare(queries), codec.optimistic(codec.prepare(queries))):
        listed = np.empty((5, 333), np.float32)
        codec.score(prepared, codes, np.tile(np.arange(333), (5, 1)), listed)
        for mask in (None, allow):
            masked = listed if mask is None else np.where(mask, listed, -np.inf)
            scores = np.full((5, 12), -np.inf, np.float32)
            rows = np.full((5, 12), -1, np.int64)
            for start, stop in ((0, 128), (128, 333)):
                codec.scan(prepared, codes, start, stop, 0 if mask is None else mask.ctypes.data, scores, rows)
            topk_kernels.sort_heaps(scores, rows)
            order = np.argsort(-masked, axis=1, kind="stable")[:, :12]
            np.testing.assert_array_equal(rows, order)
            np.testing.assert_array_equal(scores, np.take_along_axis(masked, order, 1))
    plain = scored(codec, codes, queries)
    bound = codec.bound(codec.prepare(queries), codes, np.tile(np.arange(333), (5, 1)))
    np.testing.assert_allclose(listed, plain + bound, rtol=1e-5, atol=1e-4)


def test_joined_codes_are_those_of_all_rows_at_once() -> None:
    vectors = data(100, 40)
    codec = RaBitQBlocks(40, "l2").train(vectors)
    whole = codec.encode(vectors)
    for cuts in ((32, 64), (1, 50), (33,)):
        joined = codec.join([codec.encode(np.ascontiguousarray(part)) for part in np.split(vectors, cuts)])
        assert joined.n == 100
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(joined.arrays[name], array)


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e15])
def test_rows_that_are_the_mean_score_exactly_at_every_scale(metric, scale) -> None:
    vectors = np.repeat(data(1, 20), 3, axis=0) * np.float32(scale)
    queries = data(2, 20, 1) * np.float32(scale)
    codec = RaBitQBlocks(20, metric).train(vectors)
    codes = codec.encode(vectors)
    got, exact = scored(codec, codes, queries), truth(metric, queries, vectors)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-37)
    assert np.isfinite(codec.decode(codes)).all()


def test_one_row_and_zero_vectors_are_encoded() -> None:
    for vectors in (data(1, 5), np.zeros((3, 5), np.float32)):
        codec = RaBitQBlocks(5, "cosine").train(vectors)
        assert np.isfinite(scored(codec, codec.encode(vectors), vectors)).all()


def test_state_is_stored_and_use_before_training_is_refused() -> None:
    vectors = data(40, 30)
    codec = RaBitQBlocks(30, "l2")
    with pytest.raises(InvalidArgument, match="train"):
        codec.encode(vectors)
    trained = codec.train(vectors, seed=5)
    again = codec.with_arrays(trained.arrays())
    np.testing.assert_array_equal(again.encode(vectors).arrays["blocks"], trained.encode(vectors).arrays["blocks"])
    assert (codec.spec, codec.code_size, codec.levels, codec.trained, again.trained) == ("RaBitQ1", 20, 1, False, True)


def digest() -> str:
    """The bits of a search."""
    import hashlib

    vectors = data(90, 48)
    codec = RaBitQBlocks(48, "l2").train(vectors)
    codes, hashed = codec.encode(vectors), hashlib.sha256()
    scores, rows = np.full((3, 8), -np.inf, np.float32), np.full((3, 8), -1, np.int64)
    codec.scan(codec.optimistic(codec.prepare(vectors[:3])), codes, 0, 90, 0, scores, rows)
    for array in (*codes.arrays.values(), scores, rows, scored(codec, codes, vectors[:2])):
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def test_portable_kernels_give_the_same_bits() -> None:
    environment = {**os.environ, "GINGHAM_SIMD": "portable"}
    code = "import sys; sys.path.insert(0, 'tests/codecs'); import test_rabitq_blocks as t; print(t.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(), done.stderr[-2000:]
