"""Which spans are scanned, lists that are split and dissolved, and what a recall takes of lists."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.codecs.lvq import LVQ
from gingham.index import coarse, list_kernels
from gingham.index.calibration import Calibration, calibrate, without
from gingham.index.coarse import Coarse, list_count, sample_count, sample_positions
from gingham.index.list_balance import FEWEST, GREATEST, LEAST, SPLIT_ROWS, rebalance
from gingham.index.list_build import held_out


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_spans_are_those_of_the_lists_probed_in_the_order_of_lists(n: int, nprobe: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 70, 9)
    starts = np.cumsum(-(-sizes // 32) * 32) - -(-sizes // 32) * 32
    probes = rng.permuted(np.tile(np.arange(-1, 9), (n, 1)), axis=1)[:, :nprobe].copy()
    spans = np.empty((n * nprobe, 3), np.int64)
    total = list_kernels.order_spans(probes, starts, sizes, spans)
    expected = {(q, starts[c], starts[c] + sizes[c]) for q in range(n) for c in probes[q] if c >= 0 and sizes[c]}
    found = [tuple(span) for span in spans if span[2] > span[1]]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert [start for _, start, _ in found] == sorted(start for _, start, _ in found)
    assert total == sum(stop - start for _, start, stop in expected)


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=20))
def test_rows_in_places_are_looked_up_and_none_stays_none(places: list[int]) -> None:
    rows = np.array([5, -1, 3, 7, 2, 9, 11, 0, 1, 4], np.int32)
    out = np.empty((1, len(places)), np.int64)
    list_kernels.rows_at(np.array([places]), rows.ctypes.data, out)
    assert out[0].tolist() == [-1 if at < 0 else int(rows[at]) for at in places]


def lists_of(rows: np.ndarray, centroids: np.ndarray) -> tuple[Coarse, np.ndarray]:
    coarse = Coarse(centroids, LVQ(rows.shape[1], "l2").train(rows))
    return coarse, coarse.assign(rows)


def test_large_lists_are_split_small_ones_dissolved_and_the_rows_around_choose_again() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((8, 6))
    crowd = centres[0] + rng.standard_normal((4000, 6))
    others = np.concatenate([c + rng.standard_normal((200, 6)) for c in centres[1:7]])
    rows = np.concatenate([crowd, others, centres[7] + rng.standard_normal((3, 6))]).astype(np.float32)
    coarse, lists = lists_of(rows, centres.astype(np.float32))
    sizes, alike = np.bincount(lists, minlength=8), len(rows) / 24
    assert sizes.max() > max(GREATEST * alike, SPLIT_ROWS)
    assert sizes.min() < LEAST * alike
    changed = rebalance(coarse, lists, lambda at: rows[at], 24, 0)
    assert changed is not None
    after, moved, numbers = changed
    stayed = np.flatnonzero(numbers >= 0)
    np.testing.assert_array_equal(coarse.centroids[stayed], after.centroids[numbers[stayed]])
    assert 0 < len(stayed) < 8
    assert moved.min() >= 0
    assert moved.max() < len(after.centroids)
    np.testing.assert_array_equal(moved, after.assign(rows))
    sizes = np.bincount(moved, minlength=len(after.centroids))
    assert sizes.max() <= GREATEST * alike
    again = rebalance(coarse, lists, lambda at: rows[at], 24, 0)
    assert again is not None
    np.testing.assert_array_equal(again[0].centroids, after.centroids)


def test_lists_that_are_alike_and_those_of_few_rows_stay() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3000, 6)).astype(np.float32)
    coarse = Coarse.train(rows, 30, LVQ(6, "l2").train(rows), 0)
    assert rebalance(coarse, coarse.assign(rows), lambda at: rows[at], 30, 0) is None
    few = rows[: FEWEST * 30 - 1] * np.float32(0.01)
    assert rebalance(coarse, coarse.assign(few), lambda at: few[at], 30, 0) is None


def test_equal_rows_stay_in_one_list() -> None:
    rows = np.ones((4000, 4), np.float32)
    coarse, lists = lists_of(rows, np.array([[1, 1, 1, 1], [9, 9, 9, 9]], np.float32))
    changed = rebalance(coarse, lists, lambda at: rows[at], 60, 0)
    assert changed is not None
    assert len(changed[0].centroids) == 1
    assert not changed[1].any()


@given(st.integers(1, 10**7))
def test_the_number_of_lists_and_the_sample_grow_with_the_rows(n: int) -> None:
    lists = list_count(n)
    assert 1 <= lists <= max(1, n // 32)
    assert list_count(n + 1) >= lists
    assert lists <= 4 * np.sqrt(n) or lists == 1
    assert min(n, 32 * lists) <= sample_count(n, lists) <= n


def test_a_sample_lies_evenly_over_the_rows() -> None:
    positions = sample_positions(100_000, 10)
    assert len(positions) == 640
    assert (positions[0], positions[-1]) == (0, 99_999)
    assert np.ptp(np.diff(positions)) <= 1


def test_what_is_held_out_are_live_rows_each_once() -> None:
    live = np.sort(np.random.default_rng(0).choice(10_000, 700, replace=False))
    rows = held_out(live)
    assert np.isin(rows, live).all()
    assert len(np.unique(rows)) == len(rows) == 384
    assert held_out(live[:5]).tolist() == live[:5].tolist()


def test_a_row_of_its_own_is_left_out_of_what_it_finds() -> None:
    rows = np.array([[3, 1, 2], [4, 5, 6]])
    assert without(rows, np.array([1, 9])).tolist() == [[3, 2], [4, 5]]


@pytest.mark.parametrize(("target", "expected"), [(0.5, 1), (0.85, 3), (0.9, 4), (0.999, 16)])
def test_lists_of_a_target_lie_between_those_measured(target: float, expected: int) -> None:
    exact = np.tile(np.arange(100), (2000, 1))
    share = {1: 0.55, 2: 0.8, 4: 0.91, 8: 0.96, 16: 0.97}

    def search(k: int, nprobe: int) -> np.ndarray:
        found = exact[:, :k].copy()
        missed = np.random.default_rng(0).random(found.shape) > share[nprobe]
        found[missed] = -1
        return found

    known = calibrate(exact, search, tried=list(share))
    assert known.least_for(target, 10) == expected
    assert known.least_for(target, 10) <= known.least_for(target + 0.0005, 10)


def test_where_only_all_lists_find_all_a_target_lies_on_the_line_to_them() -> None:
    known = Calibration.of(2000, [100, 1100], [[0.5, 1.0]] * 3)
    assert known.least_for(0.95, 10) in range(980, 1030)
    assert known.least_for(0.75, 10) in range(590, 630)


def test_centroids_of_many_lists_are_trained_in_groups_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(5).standard_normal((6000, 8)).astype(np.float32)
    codec, errors = LVQ(8, "l2").train(rows), []
    for flat in (coarse.FLAT_LISTS, 50):
        monkeypatch.setattr(coarse, "FLAT_LISTS", flat)
        made = Coarse.train(rows, 93, codec, 0)
        assert made.centroids.shape == (93, 8)
        errors.append(float(np.square(rows - made.centroids[made.assign(rows)]).sum(axis=1).mean()))
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("codec", ["F32", "RaBitQ1"])
def test_lists_of_long_rows_are_looked_at_under_dot(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((6000, 24)).astype(np.float32)
    rows *= np.exp(rng.standard_normal((6000, 1))).astype(np.float32)
    queries = rng.standard_normal((60, 24)).astype(np.float32)
    truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    index = gg.index.IVF(24, metric="dot", codec=codec, nlist=150)

    def recall(of: gg.index.IVF, nprobe: int) -> float:
        found = of.search(queries, 10, nprobe=nprobe)[1]
        return float(np.mean([np.isin(one, true).mean() for one, true in zip(found, truth, strict=True)]))

    index.add(rows[:5000])
    index.add(rows[5000:])
    index.save(tmp_path / "lists")
    loaded = gg.index.load(tmp_path / "lists")
    assert isinstance(loaded, gg.index.IVF)
    np.testing.assert_array_equal(loaded.search(queries, 10, nprobe=30)[1], index.search(queries, 10, nprobe=30)[1])
    with_spreads, coarse = recall(index, 30), index._state.coarse
    assert coarse is not None
    index._state = replace(index._state, coarse=replace(coarse, spreads=None))
    assert with_spreads > recall(index, 30) + 0.1
    assert with_spreads > 0.8


def test_spreads_are_those_of_the_rows_in_each_list_whatever_came_and_went() -> None:
    rng = np.random.default_rng(4)
    rows = (rng.standard_normal((4000, 8)) * np.exp(rng.standard_normal((4000, 1)))).astype(np.float32)
    index = gg.index.IVF(8, metric="dot", codec="F32", nlist=40)
    for part in (rows[:1500], rows[1500:1600], rows[1600:]):
        index.add(part)
        index.delete(np.arange(0, len(index), 7))
    index.add(rows[:50])
    coarse, lists = index._state.coarse, index._state.lists
    assert coarse is not None
    assert lists is not None
    assert coarse.spreads is not None
    for number, (start, size) in enumerate(zip(lists.starts, lists.sizes, strict=True)):
        some = np.concatenate([rows, rows[:50]])[lists.rows[start : start + size]]
        expected = np.sqrt(np.square(some - coarse.centroids[number]).mean()) if size else 0
        np.testing.assert_allclose(coarse.spreads[number], expected, rtol=1e-4)
