"""The bare HNSW index: what its docstrings promise, on data that graphs find hard."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import deadline
from gingham.errors import (
    ChecksumMismatch,
    Corrupt,
    DeadlineExceeded,
    DimensionMismatch,
    FormatTooNew,
    InvalidArgument,
    NotFound,
    NotReady,
)
from gingham.index import graph_search
from gingham.index.container import load_arrays, save_arrays

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM = 48
METRICS = ("cosine", "dot", "l2")
CODECS = ["F32", "F16", "BF16", "SQ8", "LVQ4", "LVQ8", "LVQ4x4", "LVQ4x8", "LVQ8x8", "RaBitQ2", "RaBitQ4", "RaBitQ8",
          "Rotate,LVQ4", "Center,SQ8", "PCA40,LVQ8"]  # fmt: skip


def clustered(n: int, seed: int = 1, dim: int = DIM) -> Array:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, dim))
    return (centers[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, dim))).astype(np.float32)


def gaussian(n: int, seed: int = 1, dim: int = DIM) -> Array:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def recall(found: Array, expected: Array) -> float:
    return float(
        np.mean([len(np.intersect1d(f, e[e >= 0])) / (e >= 0).sum() for f, e in zip(found, expected, strict=True)])
    )


def flat(rows: Array, metric: Any) -> gg.index.Flat:
    index = gg.index.Flat(rows.shape[1], metric=metric)
    index.add(rows)
    return index


def hnsw(rows: Array, **options: Any) -> gg.index.HNSW:
    index = gg.index.HNSW(rows.shape[1], **options)
    assert index.add(rows) == range(len(rows))
    return index


def unreached(index: gg.index.HNSW) -> int:
    """Rows that links do not lead to from the first of the uppermost layer, in plain Python."""
    graph = index._graph
    assert graph is not None
    reached = {int(graph.nodes[0])}
    waiting = list(reached)
    while waiting:
        for u in graph.links[waiting.pop()].tolist():
            if u >= len(graph):
                break
            if u not in reached:
                reached.add(u)
                waiting.append(u)
    return len(graph) - len(reached)


def same(left: tuple[Array, Array], right: tuple[Array, Array]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def child(code: str, *arguments: object, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, **settings}, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    return done.stdout


@pytest.mark.parametrize("codec", CODECS)
def test_it_finds_what_a_scan_of_the_vectors_finds(codec: str) -> None:
    for metric in METRICS:
        for data in (clustered, gaussian):
            if codec == "PCA40,LVQ8" and data is gaussian:
                continue
            rows, queries = data(1200), data(40, 2)
            expected = flat(rows, metric).search(queries)
            scores, found = hnsw(rows, metric=metric, codec=codec).search(queries, ef_search=100)
            assert recall(found, expected[1]) >= 0.95, (metric, data)
            assert (np.diff(scores, axis=1) <= 0).all()
            assert all(len(set(row)) == 10 for row in found.tolist())


def test_it_finds_the_greatest_products_among_gaussian_rows() -> None:
    rows, queries = gaussian(4000), gaussian(40, 2)
    found = hnsw(rows, metric="dot", codec="F32").search(queries, ef_search=100)[1]
    assert recall(found, flat(rows, "dot").search(queries)[1]) >= 0.95


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_kept_vectors_are_those_of_a_scan(metric: Any) -> None:
    rows, queries = clustered(500), clustered(5, 2)
    scores, found = hnsw(rows, metric=metric, codec="LVQ4", keep="f32").search(queries)
    wanted = flat(rows, metric).search(queries)
    np.testing.assert_array_equal(found, wanted[1])
    np.testing.assert_allclose(scores, wanted[0], rtol=1e-5, atol=1e-4)


def test_it_takes_lvq_of_fewer_bits_where_there_are_many_dimensions() -> None:
    assert [gg.index.HNSW(dim).codec.spec for dim in (8, 95, 96, np.int64(50))] == ["LVQ8", "LVQ8", "LVQ4x8", "LVQ8"]


# Queries


def test_a_query_has_the_same_bits_alone_and_in_batches_of_any_size() -> None:
    rows, queries = clustered(1500), clustered(70, 2)
    allow = np.random.default_rng(3).random(1500) < 0.5
    for options in ({}, {"allow": allow}, {"allow": allow, "ef_search": 20}):
        for codec in ("LVQ4x8", "F32", "RaBitQ4"):
            index = hnsw(rows, codec=codec)
            whole = index.search(queries, 10, **options)
            for size in (1, 7, 65):
                parts = [index.search(queries[i : i + size], 10, **options) for i in range(0, 70, size)]
                same(tuple(np.concatenate(part) for part in zip(*parts, strict=True)), whole)  # type: ignore[arg-type]


def test_threads_change_no_bit_of_a_search() -> None:
    index, queries = hnsw(clustered(3000)), clustered(300, 2)
    results = []
    for threads in (1, 2, 4):
        gg.set_threads(threads)
        try:
            results.append(index.search(queries))
        finally:
            gg.set_threads(2)
    same(results[0], results[1])
    same(results[0], results[2])


def test_first_searches_in_several_threads_join_the_parts_once() -> None:
    rows, queries = clustered(2000), clustered(20, 2)
    index = gg.index.HNSW(DIM, codec="LVQ4")
    for start in range(0, 2000, 100):
        index.add(rows[start : start + 100])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: index.search(queries), range(8)))
    for other in results[1:]:
        same(results[0], other)


def test_no_queries_find_nothing() -> None:
    for index in (hnsw(clustered(50)), gg.index.HNSW(DIM)):
        scores, found = index.search(np.empty((0, DIM)), 3)
        assert scores.shape == found.shape == (0, 3)


@pytest.mark.parametrize("n", [0, 1, 2, 9])
@pytest.mark.parametrize("metric", METRICS)
def test_more_than_there_are_is_padded(n: int, metric: Any) -> None:
    index = gg.index.HNSW(DIM, metric=metric)
    index.add(gaussian(n))
    scores, found = index.search(gaussian(3, 2), 20, ef_search=1)
    assert scores.dtype == np.float32
    assert found.dtype == np.int64
    assert all(sorted(row) == list(range(n)) for row in found[:, :n].tolist())
    assert (found[:, n:] == -1).all()
    assert np.isneginf(scores[:, n:]).all()
    assert np.isfinite(scores[:, :n]).all()


def test_fewer_candidates_than_wanted_are_raised_to_what_is_wanted() -> None:
    rows, queries = clustered(1000), clustered(20, 2)
    index = hnsw(rows)
    same(index.search(queries, 30, ef_search=1), index.search(queries, 30, ef_search=30))
    for k in (999, 1000):
        assert (index.search(queries[:2], k)[1] >= 0).all()


def test_more_candidates_find_more() -> None:
    rows, queries = gaussian(3000), gaussian(50, 2)
    expected = flat(rows, "l2").search(queries)[1]
    index = hnsw(rows, metric="l2", codec="F32")
    recalls = [recall(index.search(queries, ef_search=ef)[1], expected) for ef in (10, 40, 3000, 1 << 20)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1


# Filters

N_FILTERED = 20_000
FILTERED_DIM = 24


@pytest.fixture(scope="module")
def large() -> tuple[gg.index.HNSW, gg.index.Flat, Array]:
    rows = clustered(N_FILTERED, dim=FILTERED_DIM)
    return hnsw(rows, metric="l2", keep="f32"), flat(rows, "l2"), clustered(40, 2, FILTERED_DIM)


def check_filtered(
    large: tuple[gg.index.HNSW, gg.index.Flat, Array], queries: Array, allow: Array, least: float
) -> None:
    index, brute, _ = large
    expected = brute.search(queries, allow=allow)[1]
    hits = min(10, int(allow.sum()))
    for ef, lowest in ((100, least), (20, least - 0.25)):
        scores, found = index.search(queries, ef_search=ef, allow=allow)
        assert (found[:, :hits] >= 0).all()
        assert (found[:, hits:] == -1).all()
        assert allow[found[:, :hits]].all()
        assert all(len(set(row)) == hits for row in found[:, :hits].tolist())
        assert np.isneginf(scores[:, hits:]).all()
        if hits:
            assert recall(found, expected) >= lowest, ef


@pytest.mark.parametrize("share", [0.99, 0.8, 0.69, 0.5, 0.1, 0.01, 0.001])
def test_random_filters_lose_nothing(large: Any, share: float) -> None:
    check_filtered(large, large[2], np.random.default_rng(5).random(N_FILTERED) < share, 0.95)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_filters_of_the_nearest_rows_lose_nothing(large: Any, share: float) -> None:
    for query in large[2][:6, None]:
        allow = np.zeros(N_FILTERED, np.bool_)
        allow[large[1].search(query, N_FILTERED)[1][0, : int(share * N_FILTERED)]] = True
        check_filtered(large, query, allow, 0.95)


def farthest(large: Any, share: float) -> float:
    """Recall where the farthest rows are allowed."""
    index, brute, queries = large
    recalls = []
    for query in queries[:12, None]:
        allow = np.zeros(N_FILTERED, np.bool_)
        allow[brute.search(query, N_FILTERED)[1][0, -int(share * N_FILTERED) :]] = True
        scores, found = index.search(query, ef_search=100, allow=allow)
        assert allow[found].all()
        assert np.isfinite(scores).all()
        recalls.append(recall(found, brute.search(query, allow=allow)[1]))
    return float(np.mean(recalls))


@pytest.mark.parametrize("share", [0.1, 0.01, 0.001])
def test_small_filters_of_the_farthest_rows_lose_nothing(large: Any, share: float) -> None:
    assert farthest(large, share) >= 0.95


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_large_filters_of_the_farthest_rows_lose_nothing(large: Any, share: float) -> None:
    assert farthest(large, share) >= 0.95


def test_filters_that_leave_out_the_clusters_near_the_query_lose_nothing(large: Any) -> None:
    index, brute, queries = large
    centers = np.random.default_rng(99).standard_normal((20, FILTERED_DIM))
    rows = clustered(N_FILTERED, dim=FILTERED_DIM)
    cluster = (rows @ centers.T - np.square(centers).sum(axis=1) / 2).argmax(axis=1)
    recalls = []
    for query in queries[:, None]:
        allow = np.isin(cluster, np.square(centers - query).sum(axis=1).argsort()[10:])
        recalls.append(recall(index.search(query, ef_search=100, allow=allow)[1], brute.search(query, allow=allow)[1]))
    assert np.mean(recalls) >= 0.95


@pytest.mark.xfail(strict=True, reason="recall 0.49, 0.24 and 0.25 of 20,000 rows: far more rows lie around the query")
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_filters_of_the_farthest_rows_of_many_dimensions_lose_nothing(share: float) -> None:
    rows = clustered(N_FILTERED, dim=96)
    large = hnsw(rows, metric="l2", keep="f32"), flat(rows, "l2"), clustered(12, 2, 96)
    assert farthest(large, share) >= 0.95


def test_a_query_far_from_what_is_allowed_is_scanned_for_where_that_is_cheap() -> None:
    plan = graph_search.plan_search(1_000_000, 500_000, 10, 64)
    assert (plan.way, plan.narrow) == ("graph", 64)
    assert (plan.far(500_000).way, plan.lacking(500_000).way) == ("filtered", "filtered")
    assert (plan.far(20_000).way, plan.lacking(20_000).way) == ("scan", "scan")
    assert plan.far(500_000).lacking(500_000).way == "scan"


def test_filters_that_leave_out_the_long_rows_lose_no_product() -> None:
    rows, queries = gaussian(N_FILTERED, dim=32), gaussian(50, 2, 32)
    rows[::997] *= 1000
    length = np.linalg.norm(rows, axis=1)
    allow = length < np.median(length)
    found = hnsw(rows, metric="dot", codec="F32").search(queries, ef_search=100, allow=allow)[1]
    assert recall(found, flat(rows, "dot").search(queries, allow=allow)[1]) >= 0.95


@pytest.mark.parametrize("hits", [0, 1, 9, 10, 11])
def test_a_filter_of_a_few_rows_finds_them_all(large: Any, hits: int) -> None:
    allow = np.zeros(N_FILTERED, np.bool_)
    allow[np.random.default_rng(8).choice(N_FILTERED, hits, replace=False)] = True
    check_filtered(large, large[2], allow, 1)


def test_a_filtered_search_finds_no_row_twice_where_it_begins_at_the_answer(large: Any) -> None:
    index = large[0]
    allow = np.random.default_rng(6).random(N_FILTERED) < 0.5
    nodes = index._graph.nodes[-300:]
    found = index.search(index._rows.decoded(slice(None))[nodes], 10, ef_search=20, allow=allow)[1]
    assert all(len(set(row)) == 10 for row in found.tolist())


def test_everything_allowed_is_no_filter(large: Any) -> None:
    index, _, queries = large
    same(index.search(queries, allow=np.ones(N_FILTERED, np.bool_)), index.search(queries))


def test_a_filter_may_be_any_view_of_bools() -> None:
    index, queries = hnsw(clustered(3000)), clustered(10, 2)
    allow = np.random.default_rng(7).random(6000) < 0.4
    allow.flags.writeable = False
    same(
        index.search(queries, ef_search=10, allow=allow[::2]),
        index.search(queries, ef_search=10, allow=allow[::2].copy()),
    )


# Deleting


def test_deleted_rows_are_not_found_and_keep_their_numbers() -> None:
    rows, queries = clustered(2000), clustered(20, 2)
    index = hnsw(rows, metric="l2")
    brute = flat(rows, "l2")
    gone = np.random.default_rng(4).permutation(2000)
    allow = np.ones(2000, np.bool_)
    for start, stop in ((0, 1), (1, 500), (500, 1900), (1900, 1996), (1996, 2000)):
        assert index.delete(gone[start:stop]) == stop - start
        assert index.delete(gone[:stop]) == 0
        allow[gone[:stop]] = False
        assert (len(index), index.stats().deleted, index.stats().n) == (2000 - stop, stop, 2000)
        found = index.search(queries, ef_search=100)[1]
        left = min(10, 2000 - stop)
        assert (found[:, left:] == -1).all()
        assert (found[:, :left] >= 0).all()
        if left:
            assert recall(found, brute.search(queries, allow=allow)[1]) >= 0.95
    assert index.add(rows[:5]) == range(2000, 2005)
    assert sorted(index.search(rows[0], 10)[1][0].tolist()) == [-1] * 5 + list(range(2000, 2005))


def test_a_filter_and_deleted_rows_are_combined() -> None:
    index = hnsw(clustered(300))
    index.delete(np.arange(0, 300, 2))
    found = index.search(clustered(3, 2), 300, allow=np.arange(300) % 3 == 0)[1]
    assert all(sorted(row) == [*[-1] * 250, *range(3, 300, 6)] for row in found.tolist())


def test_rows_to_delete_may_be_given_in_many_ways() -> None:
    index = hnsw(clustered(100))
    assert [index.delete(rows) for rows in (3, [4, 4], range(5, 7), np.uint64([9]), [], np.int8([10, 3]))] == [
        1,
        1,
        2,
        1,
        0,
        1,
    ]
    for rows in (-1, 100, [5, 1000], np.uint64([1 << 63]), [0.5], "3", [True], [[1]]):
        with pytest.raises(InvalidArgument, match="delete"):
            index.delete(rows)
    assert len(index) == 94


# Growing


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "sizes", [[1] * 60 + [1940], [1500] + [5] * 100, [300] * 6 + [200], [2, 1998], [1000, 1000]], ids=len
)
def test_rows_added_in_pieces_are_found_as_those_added_at_once(metric: Any, sizes: list[int]) -> None:
    rows, queries = clustered(2000), clustered(60, 2)
    expected = flat(rows, metric).search(queries)[1]
    index, start = gg.index.HNSW(DIM, metric=metric, codec="LVQ8"), 0
    index.train(rows)
    for size in sizes:
        assert index.add(rows[start : start + size]) == range(start, start + size)
        start += size
    pieces = recall(index.search(queries, ef_search=40)[1], expected)
    assert pieces >= recall(hnsw(rows, metric=metric, codec="LVQ8").search(queries, ef_search=40)[1], expected) - 0.02
    index.freeze()
    assert (unreached(index), index.stats().unreachable, index.stats().building_bytes) == (0, 0, 0)
    assert recall(index.search(queries, ef_search=40)[1], expected) >= pieces - 0.02


def test_rows_much_longer_than_those_before_are_found() -> None:
    rows = gaussian(1000)
    index = hnsw(rows, metric="dot")
    for scale in (10, 100):
        index.add(scale * gaussian(20, scale))
    index.freeze()
    assert unreached(index) == 0
    everything = np.concatenate([rows, 10 * gaussian(20, 10), 100 * gaussian(20, 100)])
    found = index.search(gaussian(40, 2), ef_search=100)[1]
    assert recall(found, flat(everything, "dot").search(gaussian(40, 2))[1]) >= 0.95


def test_nothing_is_added_by_no_rows() -> None:
    index = gg.index.HNSW(DIM)
    assert index.add(np.empty((0, DIM))) == range(0)
    assert not index.codec.trained
    index = hnsw(clustered(100))
    assert index.add(np.empty((0, DIM))) == range(100, 100)


def interrupted(index: gg.index.HNSW, rows: Array, monkeypatch: pytest.MonkeyPatch, calls: int, name: str) -> None:
    """Add rows until a kernel raises as Ctrl-C would, at its call of some number."""
    from gingham.index import graph_build_kernels

    kernel, count = getattr(graph_build_kernels, name), 0

    def raising(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count >= calls:
            raise KeyboardInterrupt
        return kernel(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(graph_build_kernels, name, raising)
        with pytest.raises(KeyboardInterrupt):
            index.add(rows)


@pytest.mark.parametrize(
    ("name", "calls", "more"),
    [("link_nodes", 1, 20), ("link_back", 1, 20), ("link_nodes", 3, 600), ("link_back", 3, 600), ("shorten", 1, 600),
     ("mark_reachable", 1, 600), ("link_nodes", 9, 1100), ("mark_reachable", 1, 1100)],
)  # fmt: skip
def test_an_interrupted_add_leaves_the_index_as_it_was(
    name: str, calls: int, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, queries = clustered(1000 + more), clustered(20, 2)
    index = hnsw(rows[:1000])
    before, arrays = index.search(queries), {name: a.copy() for name, a in index._graph.arrays().items()}  # type: ignore[union-attr]
    interrupted(index, rows[1000:], monkeypatch, calls, name)
    assert (len(index), index.stats().n) == (1000, 1000)
    same(index.search(queries), before)
    for array, old in zip(index._graph.arrays().values(), arrays.values(), strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(array, old)
    assert index.add(rows[1000:]) == range(1000, 1000 + more)
    again = hnsw(rows[:1000])
    again.add(rows[1000:])
    same(again.search(queries), index.search(queries))


@pytest.mark.parametrize("name", ["link_nodes", "link_back"])
def test_an_interrupted_add_after_small_ones_loses_no_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = clustered(1200), clustered(60, 2)
    index = hnsw(rows[:1000])
    for start in range(1000, 1080, 10):
        index.add(rows[start : start + 10])
    assert index.stats().building_bytes > 0
    expected = flat(rows[:1080], "cosine").search(queries)[1]
    before = recall(index.search(queries)[1], expected)
    interrupted(index, rows[1080:1190], monkeypatch, 4, name)
    assert index.stats().n == 1080
    assert recall(index.search(queries)[1], expected) >= before - 0.01
    assert index.add(rows[1080:1090]) == range(1080, 1090)
    index.freeze()
    assert unreached(index) == 0


def test_a_first_add_that_ends_too_early_leaves_an_empty_untrained_index(monkeypatch: pytest.MonkeyPatch) -> None:
    index = gg.index.HNSW(DIM)
    interrupted(index, clustered(500), monkeypatch, 2, "link_nodes")
    with deadline.within(1e-9), pytest.raises(DeadlineExceeded):
        index.add(clustered(500))
    assert (len(index), index.codec.trained, index._graph) == (0, False, None)
    assert (index.search(clustered(2))[1] == -1).all()
    same(hnsw(clustered(400, 3)).search(clustered(2)), (index.add(clustered(400, 3)), index.search(clustered(2)))[1])


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.full((3, DIM), np.nan), "row 0"), (np.full((3, DIM), np.inf), "row 0"), (np.full((3, DIM), 1e30), "row 0"),
     (np.ones((3, DIM)) * 1e5, "65504"), ([["a"] * DIM], "numbers"), (None, "numbers")],
)  # fmt: skip
def test_rows_that_are_refused_leave_the_index_as_it_was(rows: Any, message: str) -> None:
    empty = gg.index.HNSW(DIM, metric="l2", keep="f16")
    with pytest.raises(InvalidArgument, match=message):
        empty.add(rows)
    assert not empty.codec.trained
    index = hnsw(clustered(100), metric="l2", keep="f16")
    before = index.search(clustered(5, 2))
    with pytest.raises(InvalidArgument, match=message):
        index.add(rows)
    same(index.search(clustered(5, 2)), before)
    assert index.add(clustered(3)) == range(100, 103)


# Files


@pytest.mark.parametrize("codec", ["F32", "LVQ8", "LVQ4x8", "RaBitQ4", "PCA20,LVQ8"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_index_is_mapped_and_finds_the_same(codec: str, metric: Any, tmp_path: Path) -> None:
    rows, queries = clustered(700), clustered(20, 2)
    index = hnsw(rows[:600], metric=metric, codec=codec, seed=np.uint64(7), m=np.int32(8))
    index.add(rows[600:610])
    index.delete([3, 5])
    index.save(tmp_path / "index")
    again = gg.index.load(tmp_path / "index")
    assert isinstance(again, gg.index.HNSW)
    assert (len(again), again.stats()) == (608, index.stats())
    assert not again._graph.links.flags.writeable  # type: ignore[union-attr]
    allow = np.arange(610) % 2 == 0
    for options in ({}, {"allow": allow}, {"ef_search": 3, "allow": allow}):
        same(again.search(queries, **options), index.search(queries, **options))
    for each in (index, again):
        assert each.add(rows[610:]) == range(610, 700)
        assert each.delete(range(20)) == 18
    same(again.search(queries), index.search(queries))
    again.save(tmp_path / "index")
    same(gg.index.load(tmp_path / "index").search(queries), again.search(queries))


def test_an_index_without_rows_is_saved(tmp_path: Path) -> None:
    trained = gg.index.HNSW(DIM, codec="RaBitQ4").train(clustered(100))
    for index in (gg.index.HNSW(DIM), trained):
        index.save(tmp_path / "index")
        again = gg.index.load(tmp_path / "index")
        assert (again.search(clustered(2), 3)[1] == -1).all()
        assert again.codec.trained == index.codec.trained
        assert again.add(clustered(30)) == range(30)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = hnsw(clustered(60))
    index.save(path)
    expected = index.search(clustered(2))
    whole = path.read_bytes()
    for position in (*range(20), *range(20, len(whole), 997)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with contextlib.suppress(Corrupt, ChecksumMismatch, FormatTooNew):  # what pads may be anything
            same(gg.index.load(path).search(clustered(2)), expected)
    for size in (0, 7, 10, 30, 200, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises((Corrupt, ChecksumMismatch)):
            gg.index.load(path)
    with pytest.raises(NotFound):
        gg.index.load(tmp_path / "nothing")


def test_an_index_of_another_kind_is_too_new(tmp_path: Path) -> None:
    save_arrays(tmp_path / "index", {"kind": "Vamana"}, {})
    with pytest.raises(FormatTooNew, match="Vamana"):
        gg.index.load(tmp_path / "index")


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a.pop("graph.starts"),
        lambda a: a.update({"graph.links": a["graph.links"][:-1]}),
        lambda a: a.update({"graph.links": a["graph.links"].astype(np.int64)}),
        lambda a: a.update({"graph.nodes": a["graph.nodes"] + np.uint32(1 << 20)}),
        lambda a: a.update({"graph.nodes": a["graph.nodes"][:-1]}),
        lambda a: a.update({"graph.starts": np.int64([0])}),
        lambda a: a.update({"graph.starts": np.int64([0, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.starts": np.int64([0, 30, 31, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.starts": np.int64([0, 30, 29, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.layers": np.repeat(a["graph.layers"], 100, axis=1)}),
    ],
)
def test_graphs_that_do_not_fit_are_corrupt(damage: Any, tmp_path: Path) -> None:
    hnsw(clustered(2000), m=4).save(tmp_path / "index")
    about, arrays = load_arrays(tmp_path / "index")
    damage(arrays)
    save_arrays(tmp_path / "other", about, arrays)
    with pytest.raises(Corrupt, match="rebuild"):
        gg.index.load(tmp_path / "other")


def test_numbers_out_of_range_in_links_crash_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    hnsw(clustered(1500), m=4).save(tmp_path / "index")
    about, arrays = load_arrays(tmp_path / "index")
    links, layers = arrays["graph.links"].copy(), arrays["graph.layers"].copy()
    for array in (links, layers):
        wild = rng.random(array.shape) < 0.3
        array[wild] = rng.integers(0, 1 << 32, int(wild.sum()), np.uint32)
        array[rng.random(array.shape) < 0.1] = len(links)
    save_arrays(tmp_path / "index", about, {**arrays, "graph.links": links, "graph.layers": layers})
    out = child(
        """
        import sys, numpy as np, gingham as gg
        rng = np.random.default_rng(4)
        queries = rng.standard_normal((50, 48))
        index = gg.index.load(sys.argv[1])
        for ef in (1, 10, 1500):
            assert (index.search(queries, ef_search=ef)[1] >= 0).all()
            assert (index.search(queries, ef_search=ef, allow=rng.random(1500) < 0.5)[1] >= 0).all()
        for n in (1, 100, 2000):
            index.add(rng.standard_normal((n, 48)))
            assert (index.search(queries)[1] >= 0).all()
        index.freeze()
        print(index.stats().unreachable)
        """,
        tmp_path / "index",
    )
    assert out == "0\n"


# Input


def test_any_array_of_numbers_is_taken() -> None:
    rows = (clustered(300) * 20).round().clip(-127, 127)
    frozen = rows.copy()
    frozen.flags.writeable = False
    results = []
    for given in (
        rows, rows.astype(np.float64), rows.astype(np.float16), rows.astype(np.int8), rows.tolist(), frozen,
        np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2], rows[::-1][::-1], rows.astype(">f4"),
    ):  # fmt: skip
        index = gg.index.HNSW(DIM, metric="l2")
        index.train(given)
        index.add(given)
        results.append(index.search(given, 3, allow=np.ones(300, np.bool_)))
    for other in results[1:]:
        same(results[0], other)


def test_arrays_written_to_after_they_were_added_change_nothing() -> None:
    rows, queries = clustered(200), clustered(5, 2)
    for metric in METRICS:
        given = rows.copy()
        index = hnsw(given, metric=metric, codec="F32")
        before = index.search(queries)
        given[:] = 0
        same(index.search(queries), before)
        index.add(given[:10])


def test_unaligned_mapped_vectors_are_taken(tmp_path: Path) -> None:
    rows = clustered(200)
    (tmp_path / "rows").write_bytes(b"?" + rows.tobytes())
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", 1, rows.shape)
    same(hnsw(mapped).search(mapped[:5]), hnsw(rows).search(rows[:5]))


def full() -> gg.index.HNSW:
    return hnsw(np.eye(8)[:3])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gg.index.HNSW(0), InvalidArgument, "at least 1"),
        (lambda: gg.index.HNSW(True), InvalidArgument, "at least 1"),
        (lambda: gg.index.HNSW("8"), InvalidArgument, "at least 1"),
        (lambda: gg.index.HNSW(8, metric="ip"), InvalidArgument, "'cosine', 'dot' or 'l2'"),
        (lambda: gg.index.HNSW(8, m=1), InvalidArgument, "2 to 512"),
        (lambda: gg.index.HNSW(8, m=513), InvalidArgument, "2 to 512"),
        (lambda: gg.index.HNSW(8, m=16.0), InvalidArgument, "2 to 512"),
        (lambda: gg.index.HNSW(8, m=32, ef_construction=31), InvalidArgument, "from 32"),
        (lambda: gg.index.HNSW(8, seed=-1), InvalidArgument, "seed="),
        (lambda: gg.index.HNSW(8, codec="LVQ9"), InvalidArgument, "of the form LVQ4, LVQ8"),
        (lambda: gg.index.HNSW(8, keep="f64"), InvalidArgument, "keep="),
        (lambda: full().add(np.ones((2, 9))), DimensionMismatch, r"\(n, 8\)"),
        (lambda: full().add(np.ones(8)), DimensionMismatch, r"\(n, 8\)"),
        (lambda: full().search(np.ones(7)), DimensionMismatch, r"\(n, 8\)"),
        (lambda: full().search(1.0), DimensionMismatch, r"\(n, 8\)"),
        (lambda: full().search(np.full(8, np.nan)), InvalidArgument, "finite"),
        (lambda: full().search(np.ones(8), 0), InvalidArgument, "at least 1"),
        (lambda: full().search(np.ones(8), 2.0), InvalidArgument, "at least 1"),
        (lambda: full().search(np.ones(8), ef_search=0), InvalidArgument, "ef_search="),
        (lambda: full().search(np.ones(8), ef_search=(1 << 20) + 1), InvalidArgument, "ef_search="),
        (lambda: full().search(np.ones(8), allow=[True]), InvalidArgument, "3 bools"),
        (lambda: full().search(np.ones(8), allow=[1, 0, 1]), InvalidArgument, "3 bools"),
        (lambda: full().train(np.ones((3, 8))), NotReady, "empty index"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("codec", ["RaBitQ1", "Binary", "ITQ", "PQ4x4fs", "PQ4x8", "PQ4x8n", "RQ4x8", "Rotate,RaBitQ1"])
def test_codecs_without_rows_are_refused_when_the_index_is_made(codec: str) -> None:
    with pytest.raises(InvalidArgument, match="one by one"):
        gg.index.HNSW(8, codec=codec)


# Extremes


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_lengths_far_from_one_change_nothing(metric: Any, scale: float) -> None:
    rows, queries = clustered(800), clustered(30, 2)
    index = hnsw((scale * rows).astype(np.float32), metric=metric, codec="F32", keep=None)
    found = index.search((scale * queries).astype(np.float32), ef_search=100)[1]
    assert recall(found, flat(rows, metric).search(queries)[1]) >= 0.95


@pytest.mark.parametrize("metric", METRICS)
def test_the_longest_vectors_there_may_be_are_found(metric: Any) -> None:
    rows = clustered(300)
    rows = (rows / np.linalg.norm(rows, axis=1).max() * 2e18).astype(np.float32)
    found = hnsw(rows, metric=metric, codec="F32", keep=None).search(rows[:20], ef_search=100)[1]
    assert recall(found, flat(rows, metric).search(rows[:20])[1]) >= 0.95


def test_zero_vectors_score_zero_under_cosine() -> None:
    rows = np.concatenate([clustered(50), np.zeros((50, DIM), np.float32)])
    index = hnsw(rows, codec="F32")
    scores, found = index.search(rows[0], 100)
    assert sorted(found[0].tolist()) == list(range(100))
    assert (scores[0][found[0] >= 50] == 0).all()
    assert (index.search(np.zeros(DIM), 5)[0] == 0).all()


FAR = (
    "recall 0.85: distances of rows are differences of squares in float32, of which 1000 times the noise leaves little"
)


@pytest.mark.parametrize("apart", [10, 100, pytest.param(1000, marks=pytest.mark.xfail(strict=True, reason=FAR))])
def test_neighbours_are_found_in_clusters_far_apart(apart: float) -> None:
    rows = gaussian(6000, dim=16)
    rows[:3000] += apart
    queries = rows[::60] + 0.05 * gaussian(100, 2, 16)
    found = hnsw(rows, metric="l2", codec="F32").search(queries, ef_search=100)[1]
    assert recall(found, flat(rows, "l2").search(queries)[1]) >= 0.95
