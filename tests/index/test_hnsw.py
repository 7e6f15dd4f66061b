"""The bare HNSW index: what its docstrings promise, on data that graphs find hard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hnsw_rows import CODECS, DIM, METRICS, clustered, flat, gaussian, hnsw, recall, same, unreached

import gingham as gg
from gingham import deadline
from gingham.errors import (
    DeadlineExceeded,
    DimensionMismatch,
    InvalidArgument,
    NotReady,
)

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]


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
