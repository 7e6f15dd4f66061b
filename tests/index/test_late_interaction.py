"""Late interaction over token matrices against brute force."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.codecs.token_residuals import TokenResiduals, centroid_count
from gingham.errors import Corrupt, DimensionMismatch, InvalidArgument
from gingham.index import late_interaction, token_search_kernels

DIM = 24


def documents(n: int, seed: int = 1, longest: int = 30) -> list[np.ndarray]:
    """Tokens around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).standard_normal((40, DIM))
    sizes = rng.integers(1, longest + 1, n)
    return [(centres[rng.integers(0, 40, s)] + rng.standard_normal((s, DIM))).astype(np.float32) for s in sizes]


def unit(tokens: np.ndarray) -> np.ndarray:
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


def maxsim(query: np.ndarray, given: list[np.ndarray], metric: str = "cosine") -> np.ndarray:
    if metric == "cosine":
        query, given = unit(query), [unit(one) for one in given]
    return np.array([(query @ one.T).max(axis=1).sum() for one in given])


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_floats_find_what_brute_force_finds(metric: str) -> None:
    given, query = documents(200), documents(1, 7)[0]
    index = gg.index.LateInteraction(DIM, codec="F16", metric=metric)
    index.add(given[:150])
    assert index.add(given[150:]) == range(150, 200)
    scores, rows = index.search([query, given[3]], 9)
    for at, one in enumerate((query, given[3])):
        expected = maxsim(one, given, metric)
        np.testing.assert_allclose(scores[at], np.sort(expected)[::-1][:9], rtol=2e-3)
        np.testing.assert_allclose(scores[at], expected[rows[at]], rtol=2e-3)
    alone = index.search(query, 9)
    assert alone[0].tolist() == scores[:1].tolist()
    assert alone[1].tolist() == rows[:1].tolist()


@pytest.mark.parametrize(
    ("codec", "share"), [("Residual8", 0.97), ("Residual4", 0.88), ("Residual2", 0.75), ("RaBitQ1", 0.7)]
)
def test_codes_find_most_of_what_floats_find(codec: str, share: float) -> None:
    given, queries = documents(800), documents(30, 7)
    index = gg.index.LateInteraction(DIM, codec=codec)
    index.add(given)
    rows = index.search(queries, 10, exact=True)[1]
    truth = [np.argsort(-maxsim(q, given))[:10] for q in queries]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth, strict=True)]) > share


def test_stages_find_what_all_codes_find_and_more_of_either_finds_more() -> None:
    given, queries = documents(3000), documents(40, 7)
    index = gg.index.LateInteraction(DIM)
    index.add(given)
    truth = index.search(queries, 10, exact=True)[1]

    def share(**options: int) -> float:
        found = index.search(queries, 10, **options)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)]))

    assert share() > 0.75
    assert share(nprobe=10_000, candidates=3000) == 1
    assert share(candidates=12) < share(candidates=40) < share(candidates=400)


def test_deleted_and_filtered_documents_are_not_found() -> None:
    given, query = documents(300), documents(1, 7)[0]
    index = gg.index.LateInteraction(DIM)
    index.add(given)
    best = index.search(query, 5)[1][0]
    assert index.delete(best[:2]) == 2
    assert index.delete(best[:2]) == 0
    allow = np.ones(300, bool)
    allow[best[2]] = False
    assert not set(best[:3]) & set(index.search(query, 290, allow=allow)[1][0])
    assert set(index.search(query, 300)[1][0]) == {-1, *np.setdiff1d(np.arange(300), best[:2])}
    assert index.add(given[:3]) == range(300, 303)
    assert index.stats().dead == 2
    few = np.zeros(303, bool)
    few[[5, 9]] = True
    scores, rows = index.search(query, 4, allow=few)
    assert set(rows[0]) == {5, 9, -1}
    assert np.isneginf(scores[0, 2:]).all()


@pytest.mark.parametrize("codec", ["F16", "RaBitQ1", "Residual4", "Residual8"])
def test_a_saved_index_finds_the_same_and_grows(codec: str, tmp_path: Path) -> None:
    given, queries = documents(200), documents(5, 7)
    index = gg.index.LateInteraction(DIM, codec=codec, pool_factor=2, protected=1)
    index.add(given)
    index.delete([4])
    index.save(tmp_path / "index")
    loaded = gg.index.load(tmp_path / "index")
    assert isinstance(loaded, gg.index.LateInteraction)
    assert loaded.stats() == index.stats()
    for a, b in zip(index.search(queries, 6), loaded.search(queries, 6), strict=True):
        np.testing.assert_array_equal(a, b)
    loaded.add(given[:2])
    assert len(loaded) == 202
    empty = gg.index.LateInteraction(DIM, codec=codec)
    empty.save(tmp_path / "empty")
    assert len(gg.index.load(tmp_path / "empty")) == 0
    assert (empty.search(queries[0], 2)[1] == -1).all()


def test_arrays_that_do_not_fit_are_corrupt() -> None:
    index = gg.index.LateInteraction(DIM)
    index.add(documents(50))
    state = index._state
    about = {
        "n": 50, "dim": DIM, "metric": "cosine", "codec": "Residual4", "pool_factor": 1, "protected": 0, "seed": 0, "spread": None,
    }  # fmt: skip
    good = {"starts": state.starts, "ids": state.ids, "codes": state.codes}
    good |= {f"residuals.{name}": array for name, array in state.residuals.arrays().items()}
    assert len(gg.index.LateInteraction._loaded(about, good)) == 50
    bad = (
        {"starts": state.starts[:-1]}, {"ids": state.ids[1:]}, {"ids": state.ids + 10_000},
        {"residuals.centroids": np.ones((4, DIM + 1), np.float32)}, {"residuals.weights": np.ones(5, np.float32)},
    )  # fmt: skip
    for change in bad:
        with pytest.raises(Corrupt):
            gg.index.LateInteraction._loaded(about, {**good, **change})


def test_pooling_makes_documents_shorter_and_finds_most() -> None:
    given, queries = documents(400, longest=60), documents(30, 7)
    plain, pooled = (gg.index.LateInteraction(DIM, codec="F16", pool_factor=f) for f in (1, 2))
    plain.add(given)
    pooled.add(given)
    assert pooled.stats().tokens == sum(-(-len(one) // 2) for one in given)
    a, b = plain.search(queries, 10)[1], pooled.search(queries, 10)[1]
    assert np.mean([len(set(x) & set(y)) / 10 for x, y in zip(a, b, strict=True)]) > 0.5


def test_bad_documents_and_queries_are_named_and_add_nothing() -> None:
    index = gg.index.LateInteraction(DIM)
    good = documents(3)
    for bad, error, words in (
        ([good[0], np.ones((2, DIM + 1))], DimensionMismatch, "document 1 expects tokens of width 24, found 25"),
        ([good[0], np.empty((0, DIM))], InvalidArgument, "document 1 expects a matrix of one token"),
        ([good[0], np.full((2, DIM), np.nan)], InvalidArgument, "document 1 .* token 0"),
        ([np.ones(DIM)], InvalidArgument, "document 0"),
        (["text"], InvalidArgument, "document 0"),
        ("text", InvalidArgument, "sequence of matrices"),
    ):
        with pytest.raises(error, match=words):
            index.add(bad)
    assert len(index) == 0
    assert index.add([]) == range(0)
    index.add(good)
    for options in ({"k": 0}, {"nprobe": 0}, {"candidates": True}, {"allow": np.ones(2, bool)}):
        with pytest.raises(InvalidArgument):
            index.search(good[0], **options)
    for bad_options in (
        {"codec": "LVQ8"},
        {"codec": 8},
        {"metric": "l2"},
        {"dim": 0},
        {"seed": -1},
        {"pool_factor": 0},
    ):
        with pytest.raises(InvalidArgument):
            gg.index.LateInteraction(**{"dim": DIM, **bad_options})


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from([2, 4, 8]), st.integers(0, 99))
def test_codes_decode_to_the_nearest_weights_around_the_centroid(dim: int, n: int, bits: int, seed: int) -> None:
    tokens = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    residuals = TokenResiduals.train(tokens, bits, unit=False)
    ids, codes = residuals.encode(tokens)
    assert codes.shape == (n, -(-dim * bits // 8))
    values = np.searchsorted(residuals.cutoffs, tokens - residuals.centroids[ids], side="right")
    np.testing.assert_array_equal(residuals.decode(ids, codes), residuals.centroids[ids] + residuals.weights[values])
    again = TokenResiduals.from_arrays(residuals.arrays(), dim)
    np.testing.assert_array_equal(again.encode(tokens)[1], codes)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 140), st.integers(1, 200), st.integers(0, 99))
def test_codes_of_one_bit_are_the_signs_of_rotated_residuals_with_the_length_along_them(
    dim: int, n: int, seed: int
) -> None:
    tokens = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    residuals = TokenResiduals.train(tokens[: max(1, n // 2)], 1, unit=False, seed=seed)
    ids, codes = residuals.encode(tokens)
    rotated = residuals.rotation.apply(tokens)
    left = rotated - residuals.centroids[ids]
    decoded = residuals.rotation.apply(residuals.decode(ids, codes)) - residuals.centroids[ids]
    # The share of the residual along its code is exact: <r, decoded> = |r|^2 (RaBitQ, theorem 3.2).
    np.testing.assert_allclose((left * decoded).sum(axis=1), (left**2).sum(axis=1), rtol=2e-3, atol=2e-3)
    away = np.square(left).sum(axis=1) > 1e-6  # what a centroid leaves of a token equal to it is rounding
    if residuals.rotation.out_dim == dim and away.any():
        assert ((decoded > 0) == (left > 0))[away].mean() > 0.999
    again = TokenResiduals.from_arrays(residuals.arrays(), dim)
    np.testing.assert_array_equal(again.encode(tokens)[1], codes)
    with pytest.raises(Corrupt):
        TokenResiduals.from_arrays({**residuals.arrays(), "signs": np.ones((1, 2), np.int8)}, dim)


def test_centroids_grow_with_the_root_of_the_tokens() -> None:
    assert [centroid_count(n) for n in (0, 1, 100, 10_000, 1_000_000)] == [1, 4, 40, 400, 4000]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 99))
def test_the_nearest_centroids_are_the_first_of_all_sorted(n: int, count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, (n, 8)).astype(np.float32)
    out = np.empty((count, max(1, n // 2)), np.int64)
    token_search_kernels.nearest_centroids(scores, count, out)
    np.testing.assert_array_equal(out, np.argsort(-scores[:, :count], axis=0, kind="stable").T[:, : out.shape[1]])


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 40), st.integers(0, 99))
def test_documents_score_their_best_listed_centroids_and_what_is_missing(n: int, m: int, docs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, held, scores = min(m, n), rng.random((n, docs)) < 0.3, rng.standard_normal((n, 8)).astype(np.float32)
    nearest = np.argsort(-scores[:, :3], axis=0).T[:, :m].copy()
    missing = np.full(3, scores.min(), np.float32)
    begins = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
    listed = np.concatenate([np.flatnonzero(row) for row in held]).astype(np.int32)
    totals, seen = np.zeros(docs, np.float32), np.zeros(docs, np.int64)
    token_search_kernels.score_lists(nearest, scores, missing, begins.ctypes.data, listed.ctypes.data, totals, seen)
    gains = [np.where(held[nearest[t]], (scores[nearest[t], t] - missing[t])[:, None], 0).max(axis=0) for t in range(3)]
    np.testing.assert_allclose(totals, np.sum(gains, axis=0), atol=1e-5)
    assert np.array_equal(seen > 0, held[nearest.ravel()].any(axis=0))


@pytest.mark.parametrize("codec", ["Residual4", "RaBitQ1"])
def test_tokens_that_drift_are_found_nearly_as_well_as_after_a_rebuild(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_interaction, "WATCHED", 1000)
    rng = np.random.default_rng(3)
    here, there = rng.standard_normal((2, 40, DIM)) + np.array([3, -3])[:, None, None]

    def near(centres: np.ndarray, n: int) -> list[np.ndarray]:
        return [
            (centres[rng.integers(0, 40, 12)] + 0.3 * rng.standard_normal((12, DIM))).astype(np.float32)
            for _ in range(n)
        ]

    given, queries = near(here, 200) + near(there, 600), near(there, 20)
    truth = [set(np.argsort(-maxsim(query, given))[:10].tolist()) for query in queries]
    found = []
    for drift, step in ((late_interaction.DRIFT, 50), (1e9, 50), (late_interaction.DRIFT, 800)):
        monkeypatch.setattr(late_interaction, "DRIFT", drift)
        index = gg.index.LateInteraction(DIM, codec=codec)
        index.add(given[: max(200, step)])
        for start in range(max(200, step), len(given), step):
            index.add(given[start : start + step])
        rows = index.search(queries, 10)[1].tolist()
        found.append(np.mean([len(known & set(line)) / 10 for known, line in zip(truth, rows, strict=True)]))
    followed, stayed, rebuilt = found
    assert followed > stayed + 0.05
    assert followed > rebuilt - 0.1
