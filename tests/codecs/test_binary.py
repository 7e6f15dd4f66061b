"""Sign codes rank by the bits that differ, and their scores estimate cosines."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import found

from gingham.codecs.binary import Binary
from gingham.codecs.protocol import Codes
from gingham.errors import InvalidArgument


def data(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 90), st.integers(0, 99), st.sampled_from(["l2", "dot", "cosine"]))
def test_rows_are_ranked_by_bits_that_differ_and_then_by_row(dim, n, seed, metric) -> None:
    vectors, queries = data(n, dim, seed), data(3, dim, seed + 1)
    allow = np.random.default_rng(seed).random(n) < 0.7
    codec = Binary(dim, metric).train(vectors)
    codes = codec.encode(vectors)
    signs, asked = vectors - codec.mean > 0, queries - codec.mean > 0
    far = (signs != asked[:, None]).sum(-1)
    levels = codec.prepare(queries).levels
    for mask in (np.ones(n, bool), allow):
        scores, rows = found(codec, codes, queries, 6, mask, cuts=(32,) if n > 32 else ())
        for i in range(3):
            expected = [row for row in np.argsort(-levels[i, far[i]], kind="stable") if mask[row]][:6]
            assert list(rows[i]) == expected + [-1] * (6 - len(expected))
            np.testing.assert_array_equal(scores[i, : len(expected)], levels[i, far[i, expected]])


@pytest.mark.parametrize("codec", [Binary(70, "l2"), Binary(70, "dot", 40, True), Binary(70, "cosine", itq=True)])
def test_a_query_scores_the_same_alone_in_a_batch_and_listed(codec) -> None:
    vectors, queries = data(500, 70), data(5, 70, 1)
    codec = codec.train(vectors)
    codes = codec.join([codec.encode(vectors[:123]), codec.encode(vectors[123:])])
    bias = np.arange(5, dtype=np.float32)
    scores, rows = found(codec, codes, queries, 9, bias=bias)
    for i in range(5):
        alone = found(codec, codes, queries[i : i + 1], 9, cuts=(64, 96), bias=bias[i : i + 1])
        np.testing.assert_array_equal(alone[0][0], scores[i])
        np.testing.assert_array_equal(alone[1][0], rows[i])
    out = np.empty((5, 10), np.float32)
    codec.refine(codec.prepare(queries, bias), codes, np.pad(rows, ((0, 0), (0, 1)), constant_values=-1), out)
    np.testing.assert_array_equal(out[:, :9], scores)
    assert np.isneginf(out[:, 9]).all()
    assert codec.bound(codec.prepare(queries), codes, rows) is None


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_scores_estimate_what_they_say(metric) -> None:
    vectors, queries = data(2000, 256) + np.float32(0.1), data(50, 256, 1)
    codec = Binary(256, metric).train(vectors)
    got = np.empty((50, 2000), np.float32)
    codec.score(codec.prepare(queries), codec.encode(vectors), np.tile(np.arange(2000), (50, 1)), got)
    exact = queries @ vectors.T
    if metric == "l2":
        exact = 2 * exact - (queries**2).sum(1)[:, None] - (vectors**2).sum(1)
    assert abs((got - exact).mean()) < 0.02 * np.abs(exact).mean()
    # The cosine errs by sqrt(pi^2 / 4 - 1) / sqrt(D) where it is about zero.
    error = (got - exact).std() / 256 / (2 if metric == "l2" else 1)
    assert error < 1.1 * np.sqrt(np.pi**2 / 4) / 16


def test_itq_finds_more_than_the_leading_coordinates_do() -> None:
    rng = np.random.default_rng(0)
    spread = np.exp(-np.arange(64) / 15).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32)
    vectors, queries = (data(n, 64, seed) * spread @ turn for n, seed in ((3000, 1), (100, 2)))
    true = np.argsort(((queries[:, None] - vectors) ** 2).sum(-1), axis=1)[:, :10]

    def recall(codec, keep=64):
        x, q = np.ascontiguousarray(vectors[:, :keep]), np.ascontiguousarray(queries[:, :keep])
        codec = codec.train(x, seed=1)
        rows = found(codec, codec.encode(x), q, 100)[1]
        return np.mean([len(set(a) & set(b)) for a, b in zip(rows, true, strict=True)]) / 10

    assert recall(Binary(64, "l2", 24, True)) > recall(Binary(24, "l2"), 24) + 0.05


def test_itq_learns_an_orthogonal_map_the_same_each_time_and_restores_it() -> None:
    vectors = data(300, 20)
    codec = Binary(20, "l2", 12, True).train(vectors, seed=3)
    np.testing.assert_allclose(codec.rotation.T @ codec.rotation, np.eye(12), atol=1e-5)
    again = Binary(20, "l2", 12, True).train(vectors, seed=3)
    np.testing.assert_array_equal(again.rotation, codec.rotation)
    restored = Binary(20, "l2", 12, True).with_arrays(codec.arrays())
    np.testing.assert_array_equal(restored.encode(vectors).arrays["signs"], codec.encode(vectors).arrays["signs"])
    assert restored.decode(codec.encode(vectors)).shape == (300, 20)


@pytest.mark.parametrize("itq", [False, True])
@pytest.mark.parametrize("vectors", [np.zeros((3, 9)), np.ones((1, 9)), np.full((5, 9), 1e18), np.eye(9) * 1e-25])
def test_degenerate_vectors_give_numbers(itq, vectors) -> None:
    vectors = vectors.astype(np.float32)
    for metric in ("l2", "dot"):
        codec = Binary(9, metric, itq=itq).train(vectors)
        codes = codec.encode(vectors)
        scores, rows = found(codec, codes, vectors[:1], 1)
        assert np.isfinite(scores).all()
        assert rows[0, 0] >= 0
        assert np.isfinite(codec.decode(codes)).all()


def test_decoded_vectors_have_the_signs() -> None:
    vectors = data(40, 70)
    codec = Binary(70, "dot").train(vectors)
    codes = codec.encode(vectors)
    np.testing.assert_array_equal(codec.decode(codes) > codec.mean, vectors > codec.mean)


def test_specs_and_sizes_and_what_is_refused() -> None:
    assert [c.spec for c in (Binary(8, "l2"), Binary(8, "l2", itq=True), Binary(8, "l2", 4, True))] == [
        "Binary", "ITQ", "ITQ4"
    ]  # fmt: skip
    assert (Binary(65, "l2").code_size, Binary(65, "l2").levels, Binary(65, "l2").trained) == (16, 1, False)
    with pytest.raises(InvalidArgument, match="bits"):
        Binary(8, "l2", 9, True)
    with pytest.raises(InvalidArgument, match="train"):
        Binary(8, "l2").encode(np.zeros((1, 8), np.float32))


def test_read_only_codes_of_any_alignment_are_scanned() -> None:
    vectors = data(50, 100)
    codec = Binary(100, "l2").train(vectors)
    codes = codec.encode(vectors)
    raw = np.frombuffer(b"x" + codes.arrays["signs"].tobytes(), np.uint8)[1:]
    moved = Codes(50, {"signs": raw.view(np.uint64).reshape(50, 2)})
    np.testing.assert_array_equal(found(codec, moved, vectors[:4], 5)[1], found(codec, codes, vectors[:4], 5)[1])
    np.testing.assert_array_equal(codec.decode(moved), codec.decode(codes))


def digest() -> str:
    """The bits of a search."""
    import hashlib

    vectors = data(90, 200)
    codec = Binary(200, "l2").train(vectors)
    codes, hashed = codec.encode(vectors), hashlib.sha256()
    for array in (codes.arrays["signs"], *found(codec, codes, vectors[:5], 8)):
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def test_portable_kernels_give_the_same_bits() -> None:
    environment = {**os.environ, "GINGHAM_SIMD": "portable"}
    code = "import sys; sys.path.insert(0, 'tests/codecs'); import test_binary; print(test_binary.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(), done.stderr[-2000:]
