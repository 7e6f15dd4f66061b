from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs.product import ProductQuantizer, decode_with, encode_with, train_codebooks
from gingham.codecs.tables import Codebooks, TableRows
from gingham.errors import InvalidArgument

Array = np.ndarray[Any, Any]


def rows_of(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 11), st.sampled_from([8, 12, 16]), st.booleans(), st.integers(0, 9))
def test_packed_codes_come_back_and_score_the_sums_of_their_tables(
    n: int, m: int, bits: int, header: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (n, m)).astype(np.uint8 if bits == 8 else np.uint16)
    layout, front = TableRows(m, bits, header), rng.standard_normal(n).astype(np.float32)
    packed = layout.pack(codes, front if header else None)
    assert packed.shape == (n, layout.stride)
    np.testing.assert_array_equal(layout.unpack(packed), codes)
    books = rng.standard_normal((m, 2**bits, 2)).astype(np.float32)
    queries, bias = rows_of(3, 2 * m, seed), np.array([1, 2, 3], np.float32)
    prepared = Codebooks.of(books).tables(queries, bias, times=1.0)
    out = np.empty((3, n), np.float32)
    layout.score(prepared, packed, np.tile(np.arange(n), (3, 1)), out)
    vectors = decode_with(books, codes)
    wanted = queries.astype(np.float64) @ vectors.T + bias[:, None] + (front if header else 0)
    np.testing.assert_allclose(out, wanted, atol=1e-4)


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(("d", "m", "bits"), [(32, 8, 8), (33, 5, 8), (20, 7, 12), (8, 3, 16)])
def test_a_score_is_that_of_the_decoded_vector(metric: Any, d: int, m: int, bits: int) -> None:
    sample, queries = rows_of(1000, d), rows_of(11, d, 1)
    codec = ProductQuantizer(d, metric, m, bits).train(sample)
    codes = codec.encode(sample)
    decoded = codec.decode(codes).astype(np.float64)
    out, bias = np.empty((11, 1000), np.float32), np.arange(11, dtype=np.float32)
    codec.score(codec.prepare(queries, bias), codes, np.tile(np.arange(1000), (11, 1)), out)
    wanted = queries @ decoded.T if metric != "l2" else -np.square(queries[:, None] - decoded).sum(axis=2)
    wanted = wanted + bias[:, None]
    assert np.abs(out - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert codes.arrays["rows"].shape == (1000, -(-m * bits // 8))


def test_a_listed_row_of_minus_one_scores_minus_infinity() -> None:
    codec = ProductQuantizer(6, "dot", 3).train(rows_of(300, 6))
    out = np.empty((1, 2), np.float32)
    codec.score(codec.prepare(rows_of(1, 6)), codec.encode(rows_of(300, 6)), np.array([[-1, 5]]), out)
    assert np.isneginf(out[0, 0])
    assert np.isfinite(out[0, 1])


def test_codebooks_of_sixteen_centroids_encode_to_the_nearest() -> None:
    sample = rows_of(2000, 12)
    books = train_codebooks(sample, 4, 16, seed=0)
    assert books.shape == (4, 16, 3)
    codes = encode_with(books, sample)
    for s in range(4):
        distances = np.square(sample[:, None, 3 * s : 3 * s + 3] - books[s]).sum(axis=2)
        np.testing.assert_array_equal(codes[:, s], distances.argmin(axis=1))


def test_codebooks_are_as_good_as_those_of_faiss() -> None:
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    sample = rows_of(6000, 32) * np.exp(-np.arange(32, dtype=np.float32) / 10)
    peer = faiss.ProductQuantizer(32, 8, 8)
    peer.train(sample)
    theirs = np.square(sample - peer.decode(peer.compute_codes(sample))).sum()
    codec = ProductQuantizer(32, "l2", 8).train(sample)
    ours = np.square(sample - codec.decode(codec.encode(sample))).sum()
    assert ours < 1.005 * theirs


@pytest.mark.parametrize(("m", "bits"), [(0, 8), (9, 8), (4, 4)])
def test_what_does_not_fit_is_refused(m: int, bits: int) -> None:
    with pytest.raises(InvalidArgument, match="PQ expects"):
        ProductQuantizer(8, "dot", m, bits)


def test_a_codec_that_is_not_trained_says_so() -> None:
    with pytest.raises(InvalidArgument, match=r"call train\(\) first"):
        ProductQuantizer(8, "dot", 2).encode(rows_of(2, 8))
