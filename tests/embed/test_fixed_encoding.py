"""Token matrices as vectors of fixed width (MUVERA) against late interaction."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.errors import DimensionMismatch, InvalidArgument

Array = np.ndarray[Any, Any]
DIM = 16


def documents(n: int, seed: int = 1) -> list[Array]:
    """Unit tokens around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).standard_normal((40, DIM))
    made = [centres[rng.integers(0, 40, s)] + rng.standard_normal((s, DIM)) for s in rng.integers(1, 30, n)]
    return [(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in made]


def maxsim(query: Array, given: list[Array]) -> Array:
    return np.array([(query @ one.T).max(axis=1).sum() for one in given])


def by_definition(encoding: gg.FixedEncoding, tokens: Array, *, query: bool) -> Array:
    """MUVERA, section 2, part by part."""
    out = []
    parts = encoding._parts(tokens)
    for repetition in parts:
        for part in range(1 << encoding.bits):
            mine = tokens[repetition == part]
            if query:
                out.append(mine.sum(axis=0) / encoding.repetitions)
            else:
                near = min(range(len(tokens)), key=lambda at: (int(repetition[at]) ^ part).bit_count())
                out.append(mine.mean(axis=0) if len(mine) else tokens[near])
    return np.concatenate(out)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 99))
def test_encodings_are_those_of_the_definition(bits: int, repetitions: int, seed: int) -> None:
    encoding = gg.FixedEncoding(DIM, bits=bits, repetitions=repetitions, seed=seed)
    given = documents(3, seed)
    for encode, query in ((encoding.encode_documents, False), (encoding.encode_queries, True)):
        expected = [by_definition(encoding, one, query=query) for one in given]
        np.testing.assert_allclose(encode(given), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(encode(given[1:2])[0], encode(given)[1])


def test_products_come_near_late_interaction_and_nearer_with_more_repetitions() -> None:
    given, queries = documents(300), documents(20, 7)
    exact = np.array([maxsim(query, given) for query in queries])
    errors, shares = [], []
    for repetitions in (2, 30):
        encoding = gg.FixedEncoding(DIM, bits=5, repetitions=repetitions)
        scores = encoding.encode_queries(queries) @ encoding.encode_documents(given).T
        errors.append(np.abs(scores - exact).mean() / exact.mean())
        best = np.argsort(-scores, axis=1)[:, :50]
        shares.append(np.mean([np.isin(np.argsort(-e)[:10], b).mean() for e, b in zip(exact, best, strict=True)]))
    assert errors[1] < errors[0]
    assert shares[1] > max(0.9, shares[0])


def test_projections_keep_products_in_the_mean_and_make_vectors_shorter() -> None:
    given, queries = documents(40), documents(10, 7)
    for options, width in (({"part_dim": 8}, 4 * 8 * 8), ({"out_dim": 200}, 200)):
        found, expected = [], []
        for seed in range(40):
            whole = gg.FixedEncoding(DIM, bits=3, repetitions=4, seed=seed)
            one = gg.FixedEncoding(DIM, bits=3, repetitions=4, seed=seed, **options)  # type: ignore[arg-type]
            assert one.width == width
            expected.append(whole.encode_queries(queries) @ whole.encode_documents(given).T)
            found.append(one.encode_queries(queries) @ one.encode_documents(given).T)
        assert abs(np.mean(found) / np.mean(expected) - 1) < 0.05


def test_encodings_lead_a_collection_to_what_late_interaction_scores_best(db: gg.Database) -> None:
    given, query = documents(120), documents(1, 7)[0]
    encoding = gg.FixedEncoding(DIM, bits=3, repetitions=8, part_dim=8)
    vectors = {"tokens": gg.Tokens(DIM), "fixed": gg.Dense(encoding.width, "dot")}
    docs = db.create_collection("docs", vectors=vectors)
    docs.upsert(ids=list(range(120)), vectors={"tokens": given, "fixed": encoding.encode_documents(given)})
    first = gg.near("fixed", encoding.encode_queries([query])[0])
    found = docs.query(first.rerank(gg.maxsim("tokens", query), k=120).limit(10))
    assert found.ids == docs.search(query, using="tokens", k=10).ids


def test_tokens_of_long_documents_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.embed import fixed_encoding

    tokens, encoding = np.concatenate(documents(30)), gg.FixedEncoding(DIM, repetitions=3, part_dim=4)
    expected = encoding.encode_documents([tokens])
    monkeypatch.setattr(fixed_encoding, "TOKENS", 50)
    np.testing.assert_allclose(encoding.encode_documents([tokens]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([np.ones((2, DIM)), np.ones((0, DIM))], InvalidArgument, "document 1"),
        ([np.ones((2, DIM + 1))], DimensionMismatch, f"width {DIM}, found {DIM + 1}"),
        ([np.full((2, DIM), np.nan)], InvalidArgument, "document 0"),
        ([np.ones(DIM)], InvalidArgument, "matrix"),
        (["words"], InvalidArgument, "matrix"),
        ("words", InvalidArgument, "sequence"),
        (5, InvalidArgument, "sequence"),
    ],
)
def test_bad_matrices_are_one_clear_error(bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gg.FixedEncoding(DIM).encode_documents(bad)


@pytest.mark.parametrize(
    "options",
    [{"bits": 11}, {"bits": -1}, {"repetitions": 0}, {"part_dim": DIM + 1}, {"part_dim": 0}, {"out_dim": 10**9},
     {"seed": -1}, {"bits": 10, "repetitions": 1000}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="FixedEncoding"):
        gg.FixedEncoding(DIM, **options)
