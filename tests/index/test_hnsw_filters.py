"""Filters of the bare HNSW index: of any share, near the query and far from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hnsw_rows import clustered, flat, gaussian, hnsw, recall, same

from gingham.index import graph_search

if TYPE_CHECKING:
    import gingham as gg

Array = np.ndarray[Any, Any]
N_FILTERED, FILTERED_DIM = 20_000, 24


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
