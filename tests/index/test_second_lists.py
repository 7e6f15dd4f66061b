"""Second lists of rows: which they are, that no row is found twice, and what they are worth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.errors import Corrupt, InvalidArgument
from gingham.index import list_kernels
from gingham.index.code_lists import CodeLists
from gingham.index.second_lists import second_lists

DIM = 16


def points(n: int, seed: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def losses(rows: np.ndarray, centroids: np.ndarray, firsts: np.ndarray, weight: float) -> np.ndarray:
    """SOAR, equation of theorem 3.1, by its definition."""
    rows, centroids = rows.astype(np.float64), centroids.astype(np.float64)
    along = rows - centroids[firsts]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    residuals = rows[:, None] - centroids
    out = np.square(residuals).sum(axis=2) + weight * np.square(np.einsum("nd,ncd->nc", along, residuals))
    out[np.arange(len(rows)), firsts] = np.inf
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(2, 9), st.floats(0, 4))
def test_the_second_list_has_the_least_loss_of_all_but_the_first(seed: int, n: int, nlist: int, weight: float) -> None:
    rows, centroids = points(n, seed), points(nlist, seed + 1)
    firsts = np.random.default_rng(seed).integers(0, nlist, n)
    found = second_lists(centroids, firsts, lambda at: rows[at], weight=weight)
    expected = losses(rows, centroids, firsts, weight)
    np.testing.assert_allclose(expected[np.arange(n), found], expected.min(axis=1), rtol=1e-4)


def test_one_list_has_no_second_and_a_row_on_its_centroid_gets_the_nearest() -> None:
    rows = points(5, 0)
    assert second_lists(rows[:1], np.zeros(5, np.int64), lambda at: rows[at]).tolist() == [-1] * 5
    near = np.square(rows[:, None] - rows).sum(axis=2) + np.diag([np.inf] * 5)
    found = second_lists(rows, np.arange(5), lambda at: rows[at])
    assert found.tolist() == near.argmin(axis=1).tolist()


@settings(deadline=None)
@given(st.lists(st.integers(-1, 39), min_size=1, max_size=60), st.integers(0, 1000))
def test_places_of_rows_met_before_are_dropped(places: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 20, 40).astype(np.int32)
    given_places = np.array([places, places[::-1]])
    scores, moved, counts = rows[given_places].astype(np.float32), given_places.copy(), np.empty(2, np.int64)
    list_kernels.drop_repeated(scores, moved, rows.ctypes.data, counts)
    for line, kept, score, count in zip(given_places, moved, scores, counts, strict=True):
        assert rows[kept[:count]].tolist() == list(dict.fromkeys(rows[line[line >= 0]].tolist()))
        assert score[:count].tolist() == rows[kept[:count]].tolist()


@pytest.mark.parametrize("codec", ["LVQ8", "RaBitQ1", "PQ8x4fs", "LVQ4x8"])
def test_all_lists_probed_find_what_one_list_a_row_finds_and_no_row_twice(codec: str) -> None:
    rows, queries = points(600, 2), points(8, 3)
    found = []
    for soar in (False, True):
        index = gg.index.IVF(DIM, codec=codec, nlist=8, soar=soar)
        index.add(rows)
        found.append(index.search(queries, 30, nprobe=8))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    few = index.search(queries, 120, nprobe=3)[1]
    assert all(len(set(line[line >= 0].tolist())) == np.count_nonzero(line >= 0) for line in few)


def test_rows_come_and_go_and_each_that_lives_lies_in_two_lists() -> None:
    rows, rng = np.concatenate([points(800, 4), points(400, 5) + 2]), np.random.default_rng(6)
    index = gg.index.IVF(DIM, metric="l2", nlist=12, soar=True, keep="f32")
    alive = np.zeros(len(rows), np.bool_)
    for start in range(0, len(rows), 400):
        index.add(rows[start : start + 400])
        alive[start : start + 400] = True
        lists = index._state.lists
        assert lists is not None
        for listed in np.split(lists.rows, lists.starts[1:]):
            assert len(set(listed[listed >= 0].tolist())) == np.count_nonzero(listed >= 0)
        assert np.array_equal(np.bincount(lists.rows[lists.rows >= 0], minlength=start + 400), 2 * alive[: start + 400])
        gone = rng.choice(start + 400, 60, replace=False)
        index.delete(gone)
        alive[gone] = False
    queries = points(100, 7)
    far = np.where(alive, np.square(queries[:, None] - rows).sum(axis=2), np.inf)
    truth = np.argsort(far, axis=1)[:, :10]
    fresh = gg.index.IVF(DIM, metric="l2", nlist=12, soar=True, keep="f32")
    fresh.add(rows[alive])
    numbers = np.flatnonzero(alive)

    def recall(found: np.ndarray) -> float:
        return float(np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])) / 10

    assert recall(index.search(queries, 10, nprobe=12)[1]) == 1.0
    assert (
        recall(index.search(queries, 10, nprobe=3)[1]) >= recall(numbers[fresh.search(queries, 10, nprobe=3)[1]]) - 0.05
    )


def test_in_as_many_lists_many_neighbours_are_found_that_lie_in_none_of_them_first() -> None:
    rows, queries = points(1500, 8, 32), points(60, 9, 32)
    truth = gg.index.Flat(32, codec="F32")
    truth.add(rows)
    expected = truth.search(queries, 10)[1].tolist()
    recalls = []
    for soar in (False, True):
        index = gg.index.IVF(32, codec="LVQ8", nlist=32, soar=soar)
        index.add(rows)
        found = index.search(queries, 10, nprobe=4)[1].tolist()
        recalls.append(np.mean([len(set(a) & set(b)) for a, b in zip(found, expected, strict=True)]) / 10)
    assert recalls[1] > recalls[0] + 0.1


def test_a_saved_index_keeps_its_second_lists_and_damage_is_found(tmp_path: Path) -> None:
    index = gg.index.IVF(DIM, nlist=6, soar=True)
    index.add(points(500, 10))
    index.save(tmp_path / "index")
    loaded = gg.index.load(tmp_path / "index")
    assert isinstance(loaded, gg.index.IVF)
    assert loaded.stats() == index.stats()
    assert loaded.stats().soar
    for one in (index, loaded):
        one.add(points(100, 11))
    for a, b in zip(index.search(points(4, 12)), loaded.search(points(4, 12)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert index._state.lists is not None
    arrays = index._state.lists.arrays()
    for damaged in (
        {k: v for k, v in arrays.items() if k != "firsts"},
        arrays | {"firsts": arrays["firsts"] + 1},
        arrays | {"firsts": arrays["firsts"][:-1]},
        arrays | {"places": np.where(arrays["places"] == 7, 8, arrays["places"])},
    ):
        with pytest.raises(Corrupt):
            CodeLists.from_arrays(damaged, 600, len(arrays["sizes"]))


def test_the_option_is_true_or_false() -> None:
    with pytest.raises(InvalidArgument, match="soar"):
        gg.index.IVF(DIM, soar=1)  # type: ignore[arg-type]
