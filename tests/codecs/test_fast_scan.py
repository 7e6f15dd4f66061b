"""PQ fast scan: blocks of 32 rows give the sums that NumPy gives, in any batch, slice and mask."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import found

from gingham.codecs.fast_scan import FastScan
from gingham.codecs.jit import WIDE
from gingham.codecs.nibble_blocks import NibbleBlocks
from gingham.codecs.protocol import Codes
from gingham.errors import InvalidArgument


def lloyd(sample, m, k=16, rounds=10):
    """Codebooks by the plainest k-means."""
    rng = np.random.default_rng(0)
    parts = sample.reshape(len(sample), m, -1).transpose(1, 0, 2)
    books = parts[:, rng.choice(len(sample), k, replace=len(sample) < k)]
    for _ in range(rounds):
        near = ((parts[:, :, None] - books[:, None]) ** 2).sum(-1).argmin(-1)
        for j, c in np.ndindex(m, k):
            if (near[j] == c).any():
                books[j, c] = parts[j, near[j] == c].mean(0)
    return np.ascontiguousarray(books, np.float32)


def fitted(dim=24, m=8, metric="l2", n=300, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    return FastScan(dim, metric, m).with_arrays({"codebooks": lloyd(vectors, m)}), vectors


def sums(codec, codes, queries):
    """The integers behind all scores: int64 (n_queries, n)."""
    tables = codec.prepare(queries).tables.astype(np.int64)
    values = codec._layout.unpack(codes.arrays["blocks"], 0, codes.n)
    return np.stack([table[np.arange(codec.m), values].sum(1) for table in tables[:, : codec.m]])


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize(("m", "n"), [(8, 300), (3, 31), (1, 1), (12, 64)])
def test_scan_ranks_by_sums_and_equal_sums_by_row(metric, m, n) -> None:
    codec, vectors = fitted(m=m, metric=metric, n=n)
    codes = codec.encode(vectors)
    queries = np.random.default_rng(1).standard_normal((5, 24), dtype=np.float32)
    expected = sums(codec, codes, queries)
    prepared = codec.prepare(queries)
    scores, rows = found(codec, codes, queries, 7)
    k = min(7, n)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows[:, :k], order)
    step, base = prepared.parameters[:, :1], prepared.parameters[:, 1:2]
    best = np.take_along_axis(expected, order, 1)
    np.testing.assert_allclose(scores[:, :k], best * step.astype(np.float64) + base, rtol=1e-6, atol=1e-6)
    assert (rows[:, k:] == -1).all()


def test_a_query_scores_the_same_alone_in_a_batch_in_slices_and_listed() -> None:
    codec, vectors = fitted(n=1000)
    codes = codec.encode(vectors)
    queries = np.random.default_rng(2).standard_normal((7, 24), dtype=np.float32)
    scores, rows = found(codec, codes, queries, 9)
    for i in range(7):
        alone = found(codec, codes, queries[i : i + 1], 9, cuts=(32, 640))
        np.testing.assert_array_equal(alone[0][0], scores[i])
        np.testing.assert_array_equal(alone[1][0], rows[i])
    listed = np.empty_like(scores)
    codec.score(codec.prepare(queries), codes, rows, listed)
    np.testing.assert_array_equal(listed, scores)
    none = np.full((7, 11), -1, np.int64)
    out = np.empty((7, 11), np.float32)
    codec.refine(codec.prepare(queries), codes, none, out)
    assert np.isneginf(out).all()
    assert codec.bound(codec.prepare(queries), codes, none) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 130), st.floats(0, 1), st.integers(0, 1000))
def test_only_allowed_rows_are_found(n, share, seed) -> None:
    codec, vectors = fitted(n=130)
    codes = codec.encode(vectors[:n])
    rng = np.random.default_rng(seed)
    allow = rng.random(n) < share
    queries = rng.standard_normal((3, 24), dtype=np.float32)
    _, rows = found(codec, codes, queries, 10, allow)
    ranked = sums(codec, codes, queries)
    for mine, line in zip(rows, ranked, strict=True):
        expected = [row for row in np.argsort(-line, kind="stable") if allow[row]][:10]
        assert list(mine) == expected + [-1] * (10 - len(expected))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(1, 9))
def test_blocks_of_parts_join_and_unpack(sizes, m) -> None:
    values = np.random.default_rng(0).integers(0, 16, (sum(sizes), m)).astype(np.uint8)
    layout = NibbleBlocks(m)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    joined = layout.join([(len(part), layout.pack(np.ascontiguousarray(part))) for part in parts])
    np.testing.assert_array_equal(joined, layout.pack(values))
    np.testing.assert_array_equal(layout.unpack(joined, 0, len(values)), values)
    np.testing.assert_array_equal(layout.unpack(joined, sizes[0] // 2, len(values)), values[sizes[0] // 2 :])


def test_codes_are_the_nearest_centroids_and_scores_are_those_of_decoded_vectors() -> None:
    for metric in ("l2", "cosine"):
        codec, vectors = fitted(metric=metric)
        codes = codec.join([codec.encode(vectors[:50]), codec.encode(vectors[50:])])
        parts = vectors.reshape(-1, 8, 1, 3)
        near = ((parts - codec.codebooks) ** 2).sum(-1).argmin(-1)
        np.testing.assert_array_equal(codec._layout.unpack(codes.arrays["blocks"], 0, 300), near)
        decoded = codec.decode(codes)
        queries = np.random.default_rng(3).standard_normal((4, 24), dtype=np.float32)
        bias = np.arange(4, dtype=np.float32)
        exact = -((queries[:, None] - decoded) ** 2).sum(-1) if metric == "l2" else queries @ decoded.T
        out = np.empty((4, 300), np.float32)
        prepared = codec.prepare(queries, bias)
        codec.score(prepared, codes, np.tile(np.arange(300), (4, 1)), out)
        assert (np.abs(out - exact - bias[:, None]) <= 4.01 * prepared.parameters[:, :1]).all()


def test_rounded_tables_lose_little_recall() -> None:
    codec, vectors = fitted(dim=64, m=32, n=4000)
    codes = codec.encode(vectors)
    queries = np.random.default_rng(4).standard_normal((200, 64), dtype=np.float32)
    true = np.argsort(-(queries @ vectors.T) * 2 + (vectors**2).sum(1), axis=1)[:, :10]
    decoded = codec.decode(codes)
    ideal = np.argsort(-(queries @ decoded.T) * 2 + (decoded**2).sum(1), axis=1)[:, :10]
    _, rows = found(codec, codes, queries, 10)

    def recall(got):
        return np.mean([len(set(a) & set(b)) for a, b in zip(got, true, strict=True)]) / 10

    assert recall(rows) > recall(ideal) - 0.005


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-19, 1e15])
def test_constant_tiny_and_huge_vectors_give_numbers(scale) -> None:
    for metric in ("l2", "dot"):
        codec, vectors = fitted(n=40, metric=metric)
        codec = codec.with_arrays({"codebooks": codec.codebooks * np.float32(scale)})
        codes = codec.encode(vectors * np.float32(scale))
        scores, rows = found(codec, codes, vectors[:3] * np.float32(scale), 5)
        assert np.isfinite(scores).all()
        if scale == 0:
            np.testing.assert_array_equal(rows, np.tile(np.arange(5), (3, 1)))


def test_sums_reach_the_top_of_16_bits_and_not_beyond() -> None:
    m = 2048
    books = np.zeros((m, 16, 1), np.float32)
    books[:, 15] = 1
    codec = FastScan(m, "dot", m, books)
    codes = codec.encode(np.stack([np.ones(m, np.float32), np.zeros(m, np.float32)]))
    scores, rows = found(codec, codes, np.ones((1, m), np.float32), 2)
    assert list(rows[0]) == [0, 1]
    np.testing.assert_allclose(scores[0], [m, 0], rtol=1e-3)


def test_wrong_numbers_of_sub_spaces_and_use_before_training_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="divisor"):
        FastScan(10, "l2", 3)
    with pytest.raises(InvalidArgument, match="8192"):
        FastScan(10_000, "l2", 10_000)
    with pytest.raises(InvalidArgument, match="train"):
        FastScan(8, "l2", 2).encode(np.zeros((1, 8), np.float32))
    codec = FastScan(9, "l2", 3)
    assert (codec.spec, codec.code_size, codec.levels, codec.trained) == ("PQ3x4fs", 2, 1, False)


def test_read_only_codes_are_scanned() -> None:
    codec, vectors = fitted()
    codes = codec.encode(vectors)
    blocks = codes.arrays["blocks"]
    blocks.flags.writeable = False
    assert (found(codec, Codes(codes.n, {"blocks": blocks}), vectors[:2], 3)[1] >= 0).all()


def digest() -> str:
    """The bits of a search of every kind."""
    import hashlib

    codec, vectors = fitted(n=200)
    codes, hashed = codec.encode(vectors), hashlib.sha256()
    for array in (codes.arrays["blocks"], *found(codec, codes, vectors[:5], 8)):
        hashed.update(array.tobytes())
    out = np.empty((1, 200), np.float32)
    codec.score(codec.prepare(vectors[:1]), codes, np.arange(200)[None], out)
    hashed.update(out.tobytes())
    return hashed.hexdigest()


NARROW = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"


@pytest.mark.parametrize(
    "settings",
    [
        {"GINGHAM_SIMD": "portable"},
        pytest.param(
            {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": NARROW},
            marks=pytest.mark.skipif(not WIDE, reason="the test itself runs on 32 bytes"),
        ),
    ],
    ids=["portable", "32 bytes"],
)
def test_kernels_of_other_instructions_give_the_same_bits(settings) -> None:
    environment = {**os.environ, **settings}
    code = "import sys; sys.path.insert(0, 'tests/codecs'); import test_fast_scan; print(test_fast_scan.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(), done.stderr[-2000:]
