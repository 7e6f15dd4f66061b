"""Token matrices as sparse vectors (SLIM) against late interaction in their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.errors import Corrupt, DimensionMismatch, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM = 16


def documents(n: int, seed: int = 1) -> list[Array]:
    """Unit tokens around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).standard_normal((40, DIM))
    sizes = rng.integers(1, 30, n)
    made = [centres[rng.integers(0, 40, s)] + rng.standard_normal((s, DIM)) for s in sizes]
    return [(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in made]


def weights(tokens: Array, head: Array, bias: Array, kept: int) -> Array:
    """The reference: log(1 + max(head, 0)), the greatest few of each token."""
    products = tokens @ head + bias
    out = np.zeros_like(products)
    for row, one in zip(out, products, strict=True):
        best = np.argsort(-one)[:kept]
        row[best] = np.log1p(np.maximum(one[best], 0))
    return out


def product(query: tuple[Array, Array], document: tuple[Array, Array]) -> float:
    known = dict(zip(*document, strict=True))
    return float(sum(weight * known.get(term, 0.0) for term, weight in zip(*query, strict=True)))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 50), st.integers(1, 6), st.integers(1, 6), st.floats(0, 1))
def test_products_bound_late_interaction_in_weights_from_both_sides(
    seed: int, n_terms: int, document_terms: int, query_terms: int, beta: float
) -> None:
    rng = np.random.default_rng(seed)
    head, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((DIM, n_terms), n_terms))
    slim = gg.SparseTokens(head, bias, document_terms, query_terms)
    query, document = documents(1, seed)[0], documents(1, seed + 1)[0]
    encoded = slim.encode_documents([document])[0]
    asked, stored = weights(query, head, bias, query_terms), weights(document, head, bias, document_terms)
    np.testing.assert_array_equal(encoded[0], np.flatnonzero(stored.max(axis=0)))
    np.testing.assert_allclose(encoded[1], stored.max(axis=0)[encoded[0]], rtol=1e-4, atol=1e-6)
    exact = (asked @ stored.T).max(axis=1).sum()
    low, high = (product(slim.encode_query(query, beta=end), encoded) for end in (1, 0))
    assert low <= exact * 1.0001 + 1e-5
    assert exact <= high * 1.0001 + 1e-5
    mixed = product(slim.encode_query(query, beta=beta), encoded)
    assert mixed == pytest.approx(beta * low + (1 - beta) * high, rel=1e-3, abs=1e-4)


def test_terms_lead_to_rows_that_maxsim_orders(tmp_path: Path) -> None:
    given, queries = documents(200), documents(10, 7)
    slim = gg.SparseTokens.fit(np.concatenate(given), 40)
    with gg.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", vectors={"slim": gg.Sparse(), "tokens": gg.Tokens(DIM)})
        docs.upsert(ids=list(range(200)), vectors={"slim": slim.encode_documents(given), "tokens": given})
        shares = []
        for query in queries:
            truth = docs.search(query, using="tokens", k=5)
            terms = gg.sparse("slim", slim.encode_query(query))
            assert docs.query(terms.rerank(gg.maxsim("tokens", query), k=200).limit(5)).ids == truth.ids
            few = docs.query(terms.rerank(gg.maxsim("tokens", query), k=30).limit(5)).ids
            shares.append(len(set(few) & set(truth.ids)) / 5)
        assert np.mean(shares) > 0.7


def test_a_callable_head_and_saved_arrays_give_the_same() -> None:
    given, query = documents(5), documents(1, 7)[0]
    slim = gg.SparseTokens.fit(np.concatenate(given), 30, document_terms=2, query_terms=3)
    called = gg.SparseTokens(lambda tokens: tokens @ slim.head, document_terms=2, query_terms=3, unit=True)
    again = gg.SparseTokens.from_arrays(slim.arrays())
    biased = gg.SparseTokens(slim.head, np.ones(30, np.float32))
    for other in (called, again):
        for a, b in zip(other.encode_documents(given), slim.encode_documents(given), strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_allclose(a[1], b[1], rtol=1e-6)
        np.testing.assert_array_equal(other.encode_query(query)[0], slim.encode_query(query)[0])
    assert len(gg.SparseTokens.from_arrays(biased.arrays()).bias) == 30
    with pytest.raises(InvalidArgument, match="callable"):
        called.arrays()


def test_tokens_of_any_length_have_the_terms_of_those_of_length_one_where_a_head_is_fitted() -> None:
    given = documents(5)
    lengths = np.random.default_rng(1).uniform(0.1, 9, (len(np.concatenate(given)), 1)).astype(np.float32)
    flat = np.concatenate(given) * lengths
    stretched = np.split(flat, np.cumsum([len(one) for one in given])[:-1])
    slim, other = (gg.SparseTokens.fit(np.concatenate(some), 30) for some in (given, stretched))
    np.testing.assert_allclose(slim.head, other.head, atol=1e-5)
    restored = gg.SparseTokens.from_arrays(slim.arrays())
    for encoder in (slim, restored):
        for a, b in zip(encoder.encode_documents(stretched), slim.encode_documents(given), strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_allclose(a[1], b[1], rtol=1e-4)
        np.testing.assert_allclose(encoder.encode_query(stretched[0])[1], slim.encode_query(given[0])[1], rtol=1e-4)
    plain = gg.SparseTokens(slim.head)
    assert plain.encode_documents([9 * given[0]])[0][1].max() > plain.encode_documents([given[0]])[0][1].max() + 0.5
    old = {**slim.arrays(), "kept": slim.arrays()["kept"][:2]}
    assert not gg.SparseTokens.from_arrays(old).unit


def test_bad_input_is_a_typed_error() -> None:
    slim, good = gg.SparseTokens.fit(np.concatenate(documents(5)), 8), documents(1)[0]
    with pytest.raises(DimensionMismatch, match="document 1 expects tokens of width 16, found 17"):
        slim.encode_documents([good, np.ones((2, DIM + 1))])
    for bad in (np.empty((0, DIM)), np.full((2, DIM), np.nan), np.ones(DIM), "text", [[1.0], [1.0, 2.0]]):
        with pytest.raises(InvalidArgument, match="document 0"):
            slim.encode_documents([bad])
        with pytest.raises(InvalidArgument, match="a query"):
            slim.encode_query(bad)
    with pytest.raises(InvalidArgument, match="sequence"):
        slim.encode_documents("text")
    with pytest.raises(InvalidArgument, match="beta"):
        slim.encode_query(good, beta=2)
    for n_terms in (0, 10_000, True):
        with pytest.raises(InvalidArgument, match="n_terms"):
            gg.SparseTokens.fit(good, n_terms)
    for options in ({"head": np.ones(3)}, {"head": slim.head, "bias": np.ones(3)}, {"head": slim.head, "query_terms": 0},
                    {"head": len, "bias": np.ones(3)}):  # fmt: skip
        with pytest.raises(InvalidArgument, match="SparseTokens"):
            gg.SparseTokens(**options)
    heads: list[Any] = [
        lambda tokens: tokens[:0], lambda tokens: tokens[:, :0], lambda tokens: None, lambda tokens: [[1], [1, 2]],
        lambda tokens: np.full((len(tokens), 2), 1e300), np.full((DIM, 2), 3e38),
    ]  # fmt: skip
    for head in heads:
        with pytest.raises(InvalidArgument, match="head"):
            gg.SparseTokens(head).encode_query(np.full_like(good, 2))
    for seed in (-1, "a"):
        with pytest.raises(InvalidArgument, match="seed"):
            gg.SparseTokens.fit(good, 1, seed=seed)  # type: ignore[arg-type]
    for arrays in ({}, {"head": slim.head}, {"head": slim.head, "kept": np.ones(1)}, slim.arrays() | {"head": good[0]}):
        with pytest.raises(Corrupt, match="from_arrays"):
            gg.SparseTokens.from_arrays(arrays)


def test_fewer_tokens_than_four_times_their_root_are_all_terms() -> None:
    for n in (1, 2, 15):
        assert gg.SparseTokens.fit(np.eye(DIM)[:n]).head.shape == (DIM, n)
