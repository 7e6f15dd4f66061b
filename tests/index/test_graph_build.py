"""Building graphs: on rows that leave nothing to choose by, in pieces, and with any number of threads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham.index import graph_build

if TYPE_CHECKING:
    from gingham.index.graph import Graph

Array = np.ndarray[Any, Any]
DIM = 16


def gaussian(n: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def built(rows: Array, **options: Any) -> tuple[gg.index.HNSW, Graph]:
    index = gg.index.HNSW(rows.shape[1], **options)
    index.add(rows)
    assert index._graph is not None
    return index, index._graph


def check(graph: Graph, m: int, alive: Array | None = None) -> None:
    """Links are of other nodes and lead to every node; layers begin with those above."""
    n = len(graph)
    alive = np.ones(n, np.bool_) if alive is None else alive
    assert graph.links.shape[1] >= 2 * m
    lists = [[int(u) for u in row if u < n] for row in graph.links]
    for v, row in enumerate(lists):
        assert v not in row
        assert len(row) <= 2 * m
        assert (graph.links[v, len(row) :] >= n).all()
        assert alive[row].all()
        assert alive[v] or not row
    reached = {int(graph.nodes[0])}
    waiting = list(reached)
    while waiting:
        new = set(lists[waiting.pop()]) - reached
        reached |= new
        waiting += new
    assert reached == set(np.flatnonzero(alive).tolist())
    sizes = np.diff(graph.starts)
    assert 1 <= sizes[0] <= 32
    for first, size, below in zip(graph.starts[:-2], sizes, graph.starts[1:], strict=False):
        np.testing.assert_array_equal(graph.nodes[below : below + size], graph.nodes[first : first + size])
    for first, size in zip(graph.starts[:-1], sizes, strict=True):
        layer = graph.nodes[first : first + size]
        assert len(set(layer.tolist())) == size
        assert alive[layer].all()


def repeated(values: Array, n: int) -> Array:
    return values[np.arange(n) % len(values)]


def far() -> Array:
    rows = gaussian(800)
    rows[:400, 0] += 1000
    return rows


HARD = {
    "all equal": np.ones((1500, DIM)),
    "all zero": np.zeros((300, DIM)),
    "clusters of equals": repeated(gaussian(7), 1500),
    "an equal pair each": repeated(gaussian(500), 1000),
    "one row": gaussian(1),
    "two rows": gaussian(2),
    "two equal rows": np.ones((2, DIM)),
    "three rows": gaussian(3),
    "fewer than m": gaussian(15),
    "33 rows": gaussian(33),
    "zeros among others": np.concatenate([gaussian(200), np.zeros((200, DIM))]),
    "two far clusters": far(),
    "lengths from 1e-3 to 1e3": gaussian(1000) * np.logspace(-3, 3, 1000)[:, None],
    "one long row": np.concatenate([gaussian(500), [np.full(DIM, 1e4)]]),
    "on a line": np.arange(1000)[:, None] * np.ones(DIM),
    "on a grid": np.stack(np.meshgrid(*[np.arange(4)] * 5), -1).reshape(-1, 5) @ np.eye(5, DIM),
    "opposite": np.concatenate([gaussian(200), -gaussian(200)]),
}


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("name", HARD)
def test_every_row_is_reached_whatever_the_rows_are(name: str, metric: Any) -> None:
    rows = HARD[name]
    for m in (2, 16):
        index, graph = built(rows, metric=metric, m=m, codec="F32")
        assert index.stats().unreachable == 0
        check(graph, m)
        k = min(len(rows), 10)
        brute = gg.index.Flat(DIM, metric=metric)
        brute.add(rows)
        scores, found = index.search(rows[:5], k, ef_search=len(rows))
        assert all(len(set(row)) == k for row in found.tolist())
        np.testing.assert_allclose(scores, brute.search(rows[:5], k)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_threads_change_no_byte_of_a_graph(metric: Any) -> None:
    rows, graphs = gaussian(1500), []
    for threads in (1, 2, 4):
        gg.set_threads(threads)
        try:
            index = gg.index.HNSW(DIM, metric=metric, seed=5)
            for part in (rows[:1000], rows[1000:1015], rows[1015:]):
                index.add(part)
            index.delete(np.arange(0, 1500, 3))
            index.consolidate()
            index.freeze()
            assert index._graph is not None
            graphs.append(index._graph)
        finally:
            gg.set_threads(2)
    for other in graphs[1:]:
        for mine, theirs in zip(graphs[0].arrays().values(), other.arrays().values(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_seed_chooses_the_layers() -> None:
    first, other, again = (built(gaussian(500), seed=seed)[1].nodes for seed in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert built(gaussian(50), seed=(1 << 64) - 1)[1].nodes.shape == (3,)


@pytest.mark.parametrize("m", [2, 3, 16, 64])
def test_layers_have_the_m_th_part_of_the_rows_below(m: int) -> None:
    graph = built(gaussian(2000), m=m, ef_construction=64)[1]
    sizes = np.diff(graph.starts).tolist()
    assert sizes[-1] == 2000 // m
    assert all(above == max(1, below // m) for above, below in itertools.pairwise(sizes))
    assert graph.layers.shape == (sum(sizes), m)
    check(graph, m)


@pytest.mark.parametrize("name", ["all equal", "clusters of equals", "two far clusters", "lengths from 1e-3 to 1e3"])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_hard_rows_added_one_by_one_are_reached(name: str, metric: Any) -> None:
    rows = np.random.default_rng(3).permutation(HARD[name])[:400]
    index = gg.index.HNSW(DIM, metric=metric, m=4)
    index.add(rows[:200])
    for row in rows[200:]:
        index.add(row[None])
    index.freeze()
    assert (index.stats().unreachable, index.stats().n) == (0, len(rows))
    assert index._graph is not None
    check(index._graph, 4)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_deleted_rows_leave_the_graph(metric: Any, tmp_path: Any) -> None:
    rows, queries = gaussian(1500), gaussian(30, 2)
    index, _ = built(rows, metric=metric)
    allow = np.ones(1500, np.bool_)
    gone = np.random.default_rng(3).permutation(1500)
    brute = gg.index.Flat(DIM, metric=metric)
    brute.add(rows)
    for start, stop in ((0, 300), (300, 1400), (1400, 1499)):
        index.delete(gone[start:stop])
        allow[gone[start:stop]] = False
        index.consolidate()
        assert index._graph is not None
        check(index._graph, 16, allow)
        found, wanted = index.search(queries, 10, ef_search=100)[1], brute.search(queries, 10, allow=allow)[1]
        assert np.mean([len(np.intersect1d(f, e[e >= 0])) for f, e in zip(found, wanted, strict=True)]) >= 0.95 * min(
            10, 1500 - stop
        )
    index.save(tmp_path / "index")
    again = gg.index.load(tmp_path / "index")
    assert (len(again), again.search(queries, 3)[1][:, 1:].max()) == (1, -1)
    for each in (index, again):
        assert each.delete(gone[1499:]) == 1
        each.consolidate()  # type: ignore[union-attr]
        assert (each.search(queries)[1] == -1).all()
        assert each.add(rows[:50]) == range(1500, 1550)
        assert sorted(each.search(queries[0], 60)[1][0].tolist()) == [-1] * 10 + list(range(1500, 1550))


def test_an_interrupted_consolidation_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = gaussian(1100), gaussian(20, 2)
    index, _ = built(rows[:1000])
    index.add(rows[1000:1020])
    assert index.stats().building_bytes > 0
    index.delete(np.arange(0, 1020, 2))
    before = index.search(queries)
    with monkeypatch.context() as patched:
        patched.setattr(graph_build, "_build_layers", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            index.consolidate()
    for a, b in zip(index.search(queries), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert index.stats().building_bytes == 0
    assert index.add(rows[1020:1030]) == range(1020, 1030)
    index.consolidate()
    index.freeze()
    assert index._graph is not None
    check(index._graph, 16, np.isin(np.arange(1030), np.arange(0, 1020, 2), invert=True))
