"""MaxSim kernels against the sum of maxima in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs import maxsim
from gingham.codecs.maxsim import Books, Levels, QueryTokens
from gingham.codecs.token_residuals import Bits, TokenResiduals
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    Score = Callable[[np.ndarray], np.ndarray]


def reference(products: np.ndarray, starts: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Sums of maxima of inner products (n_tokens, n_query_tokens); -inf without tokens."""
    spans = [products[starts[d] : starts[d + 1]] for d in documents]
    return np.array([span.max(axis=0).sum() if len(span) else -np.inf for span in spans])


def read_only(array: np.ndarray) -> np.ndarray:
    """Of the same values, C order, as mapped memory is."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, dim) from the low bits of bytes on."""
    planes = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8) & 1).reshape(len(codes), bits * codes.shape[1])
    return np.packbits(planes, axis=1, bitorder="little")


@dataclass
class Case:
    """A query, documents, and the random numbers for the rest."""

    query: QueryTokens
    starts: np.ndarray
    documents: np.ndarray
    rng: np.random.Generator

    @property
    def n_tokens(self) -> int:
        return int(self.starts[-1])

    def compare(self, score: Score, products: np.ndarray, bound: np.ndarray | float) -> None:
        """Scores are near the sums of maxima, and the same alone, in any order and with others."""
        expected = reference(products, self.starts, self.documents)
        got = score(self.documents)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
        some = np.isfinite(expected)
        assert (np.abs(got[some] - expected[some]) <= np.broadcast_to(bound, some.shape)[some]).all()
        for i in range(len(got)):
            assert score(self.documents[i : i + 1]).tobytes() == got[i : i + 1].tobytes()
        assert score(self.documents[::-1]).tobytes() == got[::-1].tobytes()

    def rounding(self, products: np.ndarray) -> float:
        """Of float32 sums over dimensions and query tokens."""
        terms = len(self.query.tokens) * (self.query.dim + len(self.query.tokens) + 8)
        return float(terms * 2.0**-23 * max(1.0, np.abs(products).max(initial=0)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, dim = draw(st.integers(1, 40)), draw(st.integers(1, 130))
    lengths = draw(st.lists(st.integers(0, 60), min_size=1, max_size=6))
    documents = draw(st.lists(st.integers(0, len(lengths) - 1), max_size=9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = rng.standard_normal((n, dim)).astype(np.float32) / np.float32(np.sqrt(dim))
    tokens[rng.random(n) < 0.1] = 0
    starts = read_only(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return Case(QueryTokens(tokens), starts, np.array(documents, np.int64), rng)


def products_of(query: QueryTokens, tokens: np.ndarray) -> np.ndarray:
    return tokens.astype(np.float64) @ query.tokens.astype(np.float64).T


def rest_error(query: QueryTokens, decoded: np.ndarray, middle: np.ndarray) -> float:
    """What the rounding of query tokens can change: at most half a factor times the distance from the middle level."""
    factors = query.factors[: len(query.tokens)].astype(np.float64)
    return float(factors.sum() / 2 * np.abs(decoded - middle).sum(axis=1).max(initial=0)) * 1.0001


@settings(deadline=None, max_examples=60)
@given(cases())
def test_float16(case: Case) -> None:
    tokens = read_only(case.rng.standard_normal((case.n_tokens, case.query.dim)).astype(np.float16))
    products = products_of(case.query, tokens)
    bound = case.rounding(np.abs(tokens.astype(np.float64)) @ np.abs(case.query.tokens.T))
    case.compare(lambda d: maxsim.score_f16(case.query, tokens, case.starts, d), products, bound)


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans())
def test_bytes(case: Case, extreme: bool) -> None:
    query, dim = case.query, case.query.dim
    width = -(-dim // 4) * 4
    codes = case.rng.integers(0, 256, (case.n_tokens, width)).astype(np.uint8)
    if extreme:
        query.tokens[...], codes[...] = case.rng.choice([-1, 1], (len(query.tokens), 1)), 255
    codes = read_only(codes)
    scales, offsets = (read_only(case.rng.random(case.n_tokens, np.float32) - 0.3) for _ in range(2))
    decoded = codes[:, :dim] * scales[:, None].astype(np.float64) + offsets[:, None]
    middle = maxsim.MIDDLE * scales[:, None].astype(np.float64) + offsets[:, None]
    rounded = query.integers[: len(query.tokens)] * query.factors[: len(query.tokens), None].astype(np.float64)
    sums = query.tokens.astype(np.float64).sum(axis=1)
    products = (decoded - middle) @ rounded.T + middle * sums
    size = 256 * dim * max(1.0, float(np.abs(query.tokens).max()))

    def score(documents: np.ndarray) -> np.ndarray:
        return maxsim.score_i8(query, codes, scales, offsets, case.starts, documents)

    case.compare(score, products, case.rounding(np.array(size)))
    error = rest_error(query, decoded, middle) + case.rounding(np.array(size))
    case.compare(score, products_of(query, decoded), error)


@settings(deadline=None, max_examples=60)
@given(cases(), st.sampled_from([1, 2, 4, 8]), st.integers(1, 20))
def test_residuals(case: Case, bits: int, n_centroids: int) -> None:
    query, dim, rng = case.query, case.query.dim, case.rng
    weights = np.sort(rng.standard_normal(2**bits).astype(np.float32))
    if bits == 8:
        weights = np.linspace(weights[0], weights[-1], 256, dtype=np.float32)
    levels = Levels.of(weights)
    centroids = rng.standard_normal((n_centroids, dim)).astype(np.float32)
    ids = read_only(rng.integers(0, n_centroids, case.n_tokens).astype(np.int32))
    codes = rng.integers(0, 2**bits, (case.n_tokens, dim)).astype(np.uint8)
    near, stored, scales = (
        query.centroid_scores(centroids),
        packed(codes, bits),
        np.ones((case.n_tokens, 1), np.float32),
    )
    if bits == 1:
        scales = rng.random((case.n_tokens, 1), np.float32)
        stored = np.concatenate([scales.view(np.uint8), stored], axis=1)
    stored = read_only(stored)
    numbers = np.arange(256) if bits == 8 else levels.table[: 2**bits].astype(np.float64)
    table = levels.scale * numbers + levels.offset
    assert (np.abs(table - weights) <= levels.scale / 2 * 1.001).all()

    def score(documents: np.ndarray) -> np.ndarray:
        return maxsim.score_residual(query, stored, bits, levels, ids, near, case.starts, documents)

    decoded = scales * table[codes]
    error = rest_error(query, decoded, scales * np.array(levels.scale * maxsim.MIDDLE + levels.offset))
    error += case.rounding(np.array(float(np.abs(table).max() * dim + np.abs(near).max()) + 8))
    case.compare(score, products_of(query, centroids[ids] + decoded), error)
    error += levels.scale / 2 * float(np.abs(query.tokens).sum())
    case.compare(score, products_of(query, centroids[ids] + scales * weights[codes]), error)


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 9), st.integers(1, 20))
def test_products(case: Case, part: int, n_centroids: int) -> None:
    rng, parts = case.rng, -(-case.query.dim // part)
    dim = part * parts
    query = QueryTokens(np.resize(case.query.tokens, (len(case.query.tokens), dim)))
    case = Case(query, case.starts, case.documents, rng)
    centroids = rng.standard_normal((n_centroids, dim)).astype(np.float32)
    exact = rng.standard_normal((parts, 256, part)).astype(np.float32)
    books, near = Books.of(exact), query.centroid_scores(centroids)
    levels = books.scale * books.table.astype(np.float64) + books.offset
    assert np.abs(levels - exact).max() <= books.scale / 2 * 1.001
    ids = read_only(rng.integers(0, n_centroids, case.n_tokens).astype(np.int32))
    codes = read_only(rng.integers(0, 256, (case.n_tokens, parts)).astype(np.uint8))

    def score(documents: np.ndarray) -> np.ndarray:
        return maxsim.score_products(query, codes, books, ids, near, case.starts, documents)

    decoded = levels[np.arange(parts), codes].reshape(case.n_tokens, dim)
    error = rest_error(query, decoded, np.array(books.scale * maxsim.MIDDLE + books.offset))
    error += case.rounding(np.array(float(np.abs(levels).max() * dim + np.abs(near).max()) + 8))
    case.compare(score, products_of(query, centroids[ids] + decoded), error)


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 20))
def test_centroids(case: Case, n_centroids: int) -> None:
    centroids = case.rng.standard_normal((n_centroids, case.query.dim)).astype(np.float32)
    ids = read_only(case.rng.integers(0, n_centroids, case.n_tokens).astype(np.int32))
    near = case.query.centroid_scores(centroids)
    products = products_of(case.query, centroids[ids])
    bound = case.rounding(products)
    case.compare(lambda d: maxsim.score_centroids(case.query, ids, near, case.starts, d), products, bound)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tokens_that_are_their_centroids_have_exact_scores(bits: Bits) -> None:
    tokens = np.random.default_rng(bits).standard_normal((5, 32)).astype(np.float32)[[0, 1, 2, 3, 4, 4, 4]]
    query = QueryTokens(np.random.default_rng(9).standard_normal((3, 32)).astype(np.float32))
    for some in (tokens, np.zeros_like(tokens), tokens[:1]):
        residuals = TokenResiduals.train(some, bits=bits, unit=False)
        ids, codes = residuals.encode(some)
        turned, rows = residuals.turned(query), np.arange(len(some))
        near, starts = turned.centroid_scores(residuals.centroids), np.arange(len(some) + 1)
        scores = maxsim.score_residual(turned, codes, bits, residuals.levels, ids, near, starts, rows)
        np.testing.assert_allclose(scores, (query.tokens @ some.T).sum(axis=0), rtol=1e-4, atol=1e-4)


def test_bytes_and_residuals_keep_the_order_of_documents_of_real_shape() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((4000, 128))
    tokens = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).astype(np.float32)
    query = QueryTokens(tokens[:32] + np.float32(0.02))
    starts, documents = np.arange(0, 4001, 40), np.arange(100)
    exact = maxsim.score_f16(query, tokens.astype(np.float16), starts, documents)
    low = tokens.min(axis=1)
    scales = (tokens.max(axis=1) - low) / np.float32(255)
    codes = np.rint((tokens - low[:, None]) / scales[:, None]).astype(np.uint8)
    got = maxsim.score_i8(query, codes, scales, low, starts, documents)
    np.testing.assert_allclose(got, exact, atol=0.15)
    assert np.abs(got - exact).mean() < 0.03


def digest() -> str:
    """Bits of all integer kernels over odd shapes."""
    rng, parts = np.random.default_rng(7), []
    for n, dim in ((1, 1), (17, 31), (32, 128), (40, 70)):
        query = QueryTokens(rng.integers(-60, 60, (n, dim)).astype(np.float32))
        starts, documents = np.array([0, 3, 3, 20, 61]), np.array([3, 0, 2, 1])
        codes = rng.integers(0, 256, (61, -(-dim // 4) * 4)).astype(np.uint8)
        scales = np.ones(61, np.float32)
        parts.append(maxsim.score_i8(query, codes, scales, scales, starts, documents))
        near = query.centroid_scores(np.eye(3, dim, dtype=np.float32))
        ids, levels = rng.integers(0, 3, 61).astype(np.int32), Levels.of(np.arange(16.0))
        stored = packed(rng.integers(0, 16, (61, dim)).astype(np.uint8), 4)
        parts.append(maxsim.score_residual(query, stored, 4, levels, ids, near, starts, documents))
        stored = packed(rng.integers(0, 2, (61, dim)).astype(np.uint8), 1)
        stored = np.concatenate([scales[:, None].view(np.uint8), stored], axis=1)
        signs = Levels.of(np.array([-1, 1], np.float32))
        parts.append(maxsim.score_residual(query, stored, 1, signs, ids, near, starts, documents))
        parts.append(maxsim.score_centroids(query, ids, near, starts, documents))
        books = Books.of(rng.integers(0, 256, (dim, 256, 1)).astype(np.float32))
        stored = rng.integers(0, 256, (61, dim)).astype(np.uint8)
        parts.append(maxsim.score_products(query, stored, books, ids, near, starts, documents))
    return b"".join(part.tobytes() for part in parts).hex()


FEATURES = "+avx2,+f16c,+fma,+avx,+bmi,+bmi2,+sse4.2,+popcnt"


@pytest.mark.parametrize("features", ["", FEATURES, f"{FEATURES},+avx512f,+avx512vl,+avx512vnni"])
def test_other_instructions_give_the_same_bits(features: str) -> None:
    from gingham.codecs.jit import _features

    if features and not set(features.split(",")).issubset(_features()):
        pytest.skip("this CPU lacks some of these instructions")
    settings = {"NUMBA_CPU_FEATURES": features} if features else {"GINGHAM_SIMD": "portable"}
    code = "import test_maxsim; import sys; sys.stdout.write(test_maxsim.digest())"
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    environment = {**os.environ, **settings, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == digest()


def test_what_kernels_cannot_take_is_refused() -> None:
    query = QueryTokens(np.ones((3, 6), np.float32))
    tokens, starts, documents = np.zeros((5, 6), np.float16), np.array([0, 2, 5]), np.array([1, 0])
    maxsim.score_f16(query, tokens, starts, documents)
    for wrong in (tokens.astype(np.float32), tokens[:, :5], tokens[:, ::2], np.asfortranarray(tokens)):
        with pytest.raises(InvalidArgument, match="tokens expects"):
            maxsim.score_f16(query, wrong, starts, documents)
    for bad in ([2], [-1]):
        with pytest.raises(InvalidArgument, match="documents expects"):
            maxsim.score_f16(query, tokens, starts, np.array(bad))
    with pytest.raises(InvalidArgument, match="starts expects"):
        maxsim.score_f16(query, tokens, np.array([0, 2, 6]), documents)
    codes, scales = np.zeros((5, 8), np.uint8), np.ones(5, np.float32)
    with pytest.raises(InvalidArgument, match="offsets expects 5"):
        maxsim.score_i8(query, codes, scales, scales[:4], starts, documents)
    near, ids = query.centroid_scores(np.ones((2, 6), np.float32)), np.zeros(5, np.int32)
    with pytest.raises(InvalidArgument, match="ids expects 5"):
        maxsim.score_residual(
            query, codes[:, :3].copy(), 4, Levels.of(np.arange(16.0)), ids[:4], near, starts, documents
        )
    with pytest.raises(InvalidArgument, match="bits expects"):
        maxsim.score_residual(query, codes, 3, Levels.of(np.arange(16.0)), ids, near, starts, documents)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="centroid_scores expects"):
        maxsim.score_centroids(query, ids, near[:, :3].copy(), starts, documents)
    with pytest.raises(InvalidArgument, match="weights expects"):
        Levels.of(np.arange(5.0))
    for tokens in (np.ones((0, 6), np.float32), np.ones((3, 6)), np.ones(3, np.float32)):
        with pytest.raises(InvalidArgument, match="query tokens expect"):
            QueryTokens(tokens)
