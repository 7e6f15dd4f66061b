"""The inverted-file index against brute force."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham import deadline
from gingham.codecs.lvq import LVQ
from gingham.errors import Corrupt, DeadlineExceeded, DimensionMismatch, InvalidArgument, NotReady
from gingham.index.coarse import Coarse
from gingham.index.code_lists import CodeLists
from gingham.parallel import get_threads

CODECS = (
    "F32",
    "F16",
    "BF16",
    "SQ8",
    "LVQ4",
    "LVQ8",
    "LVQ4x8",
    "RaBitQ1",
    "RaBitQ3",
    "RaBitQ8",
    "PQ12x4fs",
    "PCA16,LVQ8",
)
METRICS = ("cosine", "dot", "l2")
DIM = 24


def clustered(n: int, seed: int, dim: int = DIM) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(99).standard_normal((12, dim))
    return (centres[rng.integers(0, 12, n)] + rng.standard_normal((n, dim))).astype(np.float32)


def exact(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Scores (n_queries, n)."""
    if metric == "l2":
        squares = np.square(rows).sum(axis=1) + np.square(queries).sum(axis=1)[:, None]
        return 2 * queries @ rows.T - squares
    if metric == "cosine":
        queries, rows = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, rows))
    return queries @ rows.T


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("codec", CODECS)
def test_all_lists_find_what_a_flat_index_of_the_same_codec_finds(codec: str, metric: str) -> None:
    rows, queries = clustered(900, 1), clustered(7, 2)
    flat = gg.index.Flat(DIM, metric=metric, codec=codec)
    lists = gg.index.IVF(DIM, metric=metric, codec=codec, nlist=15)
    flat.add(rows)
    lists.add(rows)
    expected, found = flat.search(queries, 5), lists.search(queries, 5, nprobe=15)
    np.testing.assert_array_equal(found[0], expected[0])
    ties = np.diff(expected[0], axis=1) == 0
    if not ties.any():
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
def test_more_lists_find_more_and_few_find_most_neighbours(metric: str) -> None:
    rows, queries = clustered(3000, 3), clustered(100, 4)
    truth = np.argsort(-exact(queries, rows, metric), axis=1, kind="stable")[:, :10]
    index = gg.index.IVF(DIM, metric=metric, codec="F32", nlist=40)
    index.add(rows)
    recalls = []
    for nprobe in (1, 4, 16, 40):
        found = index.search(queries, 10, nprobe=nprobe)[1]
        recalls.append(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
    assert recalls == sorted(recalls)
    assert recalls[1] > 0.6
    assert recalls[-1] == 1


@pytest.mark.parametrize("codec", CODECS)
def test_rows_that_come_in_parts_are_found_as_if_they_had_come_at_once(codec: str) -> None:
    rows, queries = clustered(700, 5), clustered(6, 6)
    whole = gg.index.IVF(DIM, metric="l2", codec=codec, nlist=9).train(rows)
    parts = gg.index.IVF(DIM, metric="l2", codec=codec, nlist=9).train(rows)
    whole.add(rows)
    for start, stop in ((0, 1), (1, 300), (300, 300), (300, 333), (333, 700)):
        assert parts.add(rows[start:stop]) == range(start, stop)
    for nprobe in (1, 3, 9):
        for a, b in zip(whole.search(queries, 8, nprobe=nprobe), parts.search(queries, 8, nprobe=nprobe), strict=True):
            np.testing.assert_array_equal(a, b)
    assert whole.stats() == parts.stats()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 40), st.integers(1, 12), st.floats(0, 1))
def test_a_filter_finds_as_many_rows_as_there_are_and_no_other(
    seed: int, n: int, k: int, nprobe: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    rows, queries = clustered(n, seed), clustered(3, seed + 1)
    index = gg.index.IVF(DIM, metric="l2", codec="LVQ8", nlist=min(n, 12))
    index.add(rows)
    allow = rng.random(n) < share
    scores, found = index.search(queries, k, nprobe=nprobe, allow=allow)
    expected = min(k, int(allow.sum()))
    assert ((found >= 0).sum(axis=1) == expected).all()
    assert allow[found[:, :expected]].all()
    assert all(len(set(line[:expected])) == expected for line in found.tolist())
    assert (np.diff(scores[:, :expected], axis=1) <= 0).all()
    assert np.isneginf(scores[:, expected:]).all()


def test_results_are_the_same_for_any_number_of_threads_and_queries_a_call() -> None:
    rows, queries = clustered(2000, 7), clustered(150, 8)
    before = get_threads()
    results = []
    try:
        for threads in (1, 3):
            gg.set_threads(threads)
            index = gg.index.IVF(DIM, codec="PQ12x4fs", nlist=30)
            index.add(rows)
            results.append(index.search(queries, 10, nprobe=5))
            results.append(
                tuple(np.concatenate(x) for x in zip(*(index.search(q, 10, nprobe=5) for q in queries), strict=True))
            )
    finally:
        gg.set_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("codec", ["LVQ8", "RaBitQ1", "PCA16,PQ8x4fs"])
def test_a_saved_index_finds_the_same_and_grows(codec: str, tmp_path: Path) -> None:
    rows, queries = clustered(600, 9), clustered(5, 10)
    index = gg.index.IVF(DIM, metric="l2", codec=codec, nlist=8)
    index.add(rows[:500])
    index.save(tmp_path / "index")
    loaded = gg.index.load(tmp_path / "index")
    assert isinstance(loaded, gg.index.IVF)
    assert loaded.stats() == index.stats()
    for one in (index, loaded):
        one.add(rows[500:])
    for a, b in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_index_saved_before_it_has_rows_loads(tmp_path: Path) -> None:
    for index in (gg.index.IVF(DIM), gg.index.IVF(DIM, nlist=3).train(clustered(100, 11))):
        index.save(tmp_path / "index")
        loaded = gg.index.load(tmp_path / "index")
        assert len(loaded) == 0
        assert loaded.search(clustered(1, 12), 3)[1].tolist() == [[-1, -1, -1]]
        loaded.add(clustered(100, 11))
        assert (loaded.search(clustered(1, 12), 3)[1] >= 0).all()


@pytest.mark.parametrize("name", ["places", "sizes"])
def test_lists_that_do_not_fit_are_corrupt(name: str) -> None:
    rows = clustered(100, 13)
    codec = LVQ(DIM, "l2").train(rows)
    coarse = Coarse.train(rows, 4, codec, 0)
    arrays = CodeLists.of(codec, rows.__getitem__, coarse.assign(rows), 4).arrays()
    assert CodeLists.from_arrays(arrays, 100, 4).imbalance >= 1
    for damaged in (
        arrays | {name: arrays[name] + 1},
        arrays | {name: arrays[name][:-1]},
        {k: v for k, v in arrays.items() if k != name},
    ):
        with pytest.raises(Corrupt):
            CodeLists.from_arrays(damaged, 100, 4)


def test_equal_rows_and_more_lists_than_rows_are_searched() -> None:
    index = gg.index.IVF(DIM, metric="l2", nlist=50)
    index.add(np.ones((20, DIM), np.float32))
    assert sorted(index.search(np.ones(DIM), 20)[1][0].tolist()) == list(range(20))
    assert index.stats().imbalance >= 1


def test_wrong_arguments_are_typed_errors_and_lose_nothing() -> None:
    for options in (
        {"nlist": 0},
        {"nlist": 1 << 17},
        {"nlist": True},
        {"codec": "Binary"},
        {"codec": "PQ12x8"},
        {"metric": "L2"},
    ):
        with pytest.raises(InvalidArgument):
            gg.index.IVF(DIM, **options)
    index = gg.index.IVF(DIM, nlist=4)
    index.add(clustered(100, 14))
    for wrong in (np.full((1, DIM), np.nan), "words"):
        with pytest.raises(InvalidArgument):
            index.add(wrong)
    with pytest.raises(InvalidArgument):
        index.search([[1.0], [2.0, 3.0]])
    with pytest.raises(DimensionMismatch):
        index.add(np.ones((2, DIM + 1)))
    with pytest.raises(NotReady):
        index.train(clustered(100, 14))
    for options in ({"nprobe": 0}, {"nprobe": 2.5}, {"oversample": 0.5}, {"allow": [True]}, {"k": 0}, {"k": 10**18}):
        with pytest.raises(InvalidArgument):
            index.search(clustered(1, 15), **options)
    assert len(index) == 100
    assert (index.search(clustered(1, 15), 100)[1] >= 0).all()


def test_ties_come_in_the_order_of_rows_alone_and_in_a_batch() -> None:
    rng = np.random.default_rng(17)
    rows, queries = (rng.integers(0, 3, (n, 8)).astype(np.float32) for n in (1500, 70))
    index = gg.index.IVF(8, metric="l2", codec="F32", nlist=12)
    index.add(rows)
    scores, found = index.search(queries, 10, nprobe=5)
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.any()
    assert (found[:, 1:] > found[:, :-1])[tied].all()
    for i, query in enumerate(queries):
        np.testing.assert_array_equal(index.search(query, 10, nprobe=5)[1][0], found[i])


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_row_is_found_twice_where_distances_are_beyond_float32() -> None:
    rng = np.random.default_rng(18)
    rows = rng.standard_normal((400, 16))
    rows *= 1.8e19 / np.linalg.norm(rows, axis=1, keepdims=True)
    index = gg.index.IVF(16, metric="l2", nlist=8, keep="f32")
    index.add(rows)
    for nprobe in (3, 8):
        for line in index.search(-rows[:30], 50, nprobe=nprobe)[1].tolist():
            there = [row for row in line if row >= 0]
            assert len(set(there)) == len(there)


def test_searches_see_the_rows_of_one_moment_while_threads_add() -> None:
    rows = clustered(2000, 19)
    index = gg.index.IVF(DIM, metric="l2", nlist=10, keep="f32")
    index.add(rows[:200])
    with ThreadPoolExecutor(3) as pool:
        adding = [pool.submit(index.add, rows[200 + 100 * i : 300 + 100 * i]) for i in range(18)]
        while not all(future.done() for future in adding):
            scores, found = index.search(rows[:5], 3, nprobe=10)
            assert (found >= 0).all()
            np.testing.assert_allclose(scores[:, 0], 0, atol=1e-3)
    taken = np.concatenate([np.arange(200), *(list(future.result()) for future in adding)])
    assert np.array_equal(np.sort(taken), np.arange(2000))
    for i, future in enumerate(adding):
        part = rows[200 + 100 * i : 300 + 100 * i]
        assert index.search(part, 1, nprobe=10)[1].ravel().tolist() == list(future.result())


def test_a_deadline_ends_the_search_of_one_long_list_and_an_interrupted_training_changes_nothing(
    tmp_path: Path,
) -> None:
    rows = np.repeat(clustered(1, 20, 256), 60_000, axis=0)
    index = gg.index.IVF(256, metric="l2", codec="F32", nlist=4)
    index.add(rows)
    with pytest.raises(DeadlineExceeded), deadline.within(0.02):
        index.search(rows[:64], 10, nprobe=1)
    other = gg.index.IVF(DIM, nlist=2000)
    with pytest.raises(DeadlineExceeded), deadline.within(0.05):
        other.train(clustered(60_000, 21))
    other.save(tmp_path / "index")
    assert len(gg.index.load(tmp_path / "index")) == 0


def test_no_queries_have_no_results() -> None:
    index = gg.index.IVF(DIM, nlist=4)
    for n in (0, 100):
        index.add(clustered(n, 16))
        assert [x.shape for x in index.search(np.empty((0, DIM)), 3)] == [(0, 3), (0, 3)]


# rows that come and go -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["LVQ8", "RaBitQ1", "PQ12x4fs"])
def test_deleted_rows_are_never_found_and_leave_their_codes_with_the_next_rows(codec: str) -> None:
    rows, queries = clustered(1200, 1), clustered(9, 2)
    index = gg.index.IVF(DIM, metric="l2", codec=codec, nlist=20)
    index.add(rows[:1000])
    before = index.stats().code_bytes
    gone = np.arange(0, 1000, 2)
    assert index.delete(gone) == 500
    assert index.delete(np.concatenate([gone, [1]])) == 1
    assert (index.stats().dead, len(index)) == (501, 1000)
    live = np.setdiff1d(np.arange(1000), [*gone, 1])
    for allow in (None, np.ones(1000, bool)):
        found = index.search(queries, 600, nprobe=20, allow=allow)[1]
        assert set(found[found >= 0]) == set(live)
    assert index.add(rows[1000:]) == range(1000, 1200)
    assert index.stats().code_bytes < before
    assert index.stats().dead == 501
    truth = np.argsort(-exact(queries, rows, "l2")[:, np.r_[live, 1000:1200]], axis=1)[:, :5]
    found = index.search(queries, 5, nprobe=100, oversample=50)[1]
    np.testing.assert_array_equal(found, np.r_[live, 1000:1200][truth])
    assert index.delete(np.arange(1200)) == 699
    assert (index.search(queries, 3)[1] == -1).all()
    assert index.add(rows[:5]) == range(1200, 1205)
    assert set(index.search(queries[0], 9)[1][0]) == {-1, *range(1200, 1205)}


@pytest.mark.parametrize("bad", [[-1], [100], [0.5], "all", [[1]]])
def test_rows_to_delete_are_numbers_of_rows(bad: object) -> None:
    index = gg.index.IVF(DIM, nlist=2)
    index.add(clustered(100, 1))
    with pytest.raises(InvalidArgument):
        index.delete(bad)
    assert index.stats().dead == 0


def test_after_all_rows_drifted_away_recall_is_that_of_an_index_made_anew_for_the_codes_scanned() -> None:
    rng = np.random.default_rng(0)
    rows = clustered(8000, 1)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    queries = (rows[rng.choice(np.arange(4000, 8000), 200)] + 0.3 * rng.standard_normal((200, DIM))).astype(np.float32)
    churned, anew = (gg.index.IVF(DIM, metric="l2", codec="F32") for _ in range(2))
    churned.add(rows[:4000])
    for at in range(0, 4000, 500):
        churned.delete(np.arange(at, at + 500))
        churned.add(rows[at + 4000 : at + 4500])
    anew.add(rows[4000:])
    truth = np.argsort(-exact(queries, rows[4000:], "l2"), axis=1)[:, :10]

    def recall(index: gg.index.IVF, first: int, nprobe: int) -> float:
        found = index.search(queries, 10, nprobe=nprobe)[1] - first
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)]))

    a, b = churned.stats(), anew.stats()
    assert a.dead == 4000
    assert abs(a.nlist - b.nlist) < 0.2 * b.nlist
    assert a.imbalance < 1.3
    for nprobe in (2, 4, 8):
        assert recall(churned, 4000, nprobe) > recall(anew, 0, nprobe) - 0.02


def test_rows_added_little_by_little_leave_no_list_much_larger_than_the_others() -> None:
    rows = clustered(6000, 4)
    index = gg.index.IVF(DIM, metric="l2", codec="SQ8")
    for at in range(0, 6000, 300):
        index.add(rows[at : at + 300])
    anew = gg.index.IVF(DIM, metric="l2", codec="SQ8")
    anew.add(rows)
    assert index.stats().imbalance < 1.2 * anew.stats().imbalance
    assert index.stats().nlist > 0.7 * anew.stats().nlist


# recall that is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["LVQ8", "RaBitQ4"])
def test_a_target_recall_is_met(codec: str) -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((12_000, DIM)).astype(np.float32)
    queries = rng.standard_normal((400, DIM)).astype(np.float32)
    index = gg.index.IVF(DIM, metric="l2", codec=codec)
    index.add(rows)
    truth = np.argsort(-exact(queries, rows, "l2"), axis=1)[:, :10]
    for asked in (None, rng.standard_normal((400, DIM))):
        if asked is not None:
            index.calibrate(asked)
        for target in (0.8, 0.9, 0.97):
            found = index.search(queries, 10, target_recall=target)[1]
            share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
            assert share == pytest.approx(target, abs=0.025)


def test_what_a_recall_takes_and_what_was_deleted_are_saved(tmp_path: Path) -> None:
    rows = clustered(3000, 1)
    index = gg.index.IVF(DIM, metric="l2", codec="RaBitQ1")
    index.add(rows)
    index.delete(np.arange(100))
    index.calibrate(clustered(60, 5))
    index.save(tmp_path / "index")
    loaded = gg.index.load(tmp_path / "index")
    assert isinstance(loaded, gg.index.IVF)
    assert loaded.stats() == index.stats()
    queries = clustered(20, 3)
    for options in ({"target_recall": 0.95}, {"nprobe": 3}):
        for a, b in zip(index.search(queries, 7, **options), loaded.search(queries, 7, **options), strict=True):
            np.testing.assert_array_equal(a, b)
    loaded.add(rows[:50])
    assert len(loaded) == 3050


def test_calibration_needs_rows_and_queries_and_a_target_is_a_share(tmp_path: Path) -> None:
    index = gg.index.IVF(DIM)
    with pytest.raises(NotReady):
        index.calibrate()
    index.add(clustered(500, 1))
    with pytest.raises(DimensionMismatch):
        index.calibrate(np.ones((3, DIM + 1)))
    for bad in (0, 1, 1.5, True, "0.9", float("nan")):
        with pytest.raises(InvalidArgument, match="target_recall"):
            index.search(clustered(1, 2), target_recall=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="leave one out"):
        index.search(clustered(1, 2), nprobe=3, target_recall=0.9)


def test_under_cosine_centroids_have_length_one() -> None:
    index = gg.index.IVF(DIM, metric="cosine", nlist=20)
    index.add(clustered(2000, 1))
    coarse = index._state.coarse
    assert coarse is not None
    np.testing.assert_allclose(np.linalg.norm(coarse.centroids, axis=1), 1, rtol=1e-5)
