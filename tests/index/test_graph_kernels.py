"""Kernels of graphs against plain Python, on integers, whose sums are exact: scores, rows and links are equal."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from gingham.codecs import beam_kernels
from gingham.codecs.spec import parse_codec
from gingham.index import graph_build_kernels as build
from gingham.index.graph import Graph
from gingham.index.graph_build import GraphBuilder
from gingham.index.working_rows import CODE_SUM, HEADER, WorkingRows

Array = np.ndarray[Any, Any]
NONE = 0xFFFFFFFF
DIM, WIDTH = 20, 32
ALPHA = np.float32(1.05)

# Searching


def random_graph(rng: np.random.Generator, n: int, degree: int, sizes: tuple[int, ...]) -> Graph:
    """Links to nodes drawn at random, with ends of several kinds, and layers of the first nodes of an order."""

    def links(count: int, wide: int, none: tuple[int, ...]) -> Array:
        rows = np.stack([rng.permutation(max(count, wide))[:wide] for _ in range(count)])
        rows[rows >= count] = none[0]
        for row in rows:
            row[int(rng.integers(0, wide + 1)) :] = rng.choice(none)
        return rows.astype(np.uint32)

    order = rng.permutation(n)
    nodes = np.concatenate([order[:size] for size in sizes]).astype(np.uint32)
    layers = np.concatenate([links(size, 4, (size, NONE)) for size in sizes])
    return Graph(links(n, degree, (n, n + 5, NONE)), nodes, layers, np.concatenate([[0], np.cumsum(sizes)]))


def listed(row: Array, end: int) -> list[int]:
    beyond = np.flatnonzero(row >= end)
    return row[: beyond[0] if len(beyond) else None].tolist()  # type: ignore[no-any-return]


def descend(graph: Graph, scores: Array) -> int:
    """The node to begin at: the best of the uppermost layer, then in each the best neighbour as long as it is better."""
    key = lambda place: (-scores[graph.nodes[place]], graph.nodes[place])  # noqa: E731
    at = min(range(int(graph.starts[1])), key=key)
    for first, end in zip(graph.starts[1:-1].tolist(), graph.starts[2:].tolist(), strict=True):
        place = -1
        while place != at:
            place = at
            at = min([place, *listed(graph.layers[first + place], end - first)], key=lambda p: key(first + p))
    return int(graph.nodes[graph.starts[-2] + at])


def best_first(graph: Graph, scores: Array, ef: int) -> list[int]:
    start, n = descend(graph, scores), len(graph)
    beam, seen, looked = [(-scores[start], start)], {start}, set[int]()
    while coming := [v for _, v in beam if v not in looked]:
        looked.add(coming[0])
        new = [u for u in listed(graph.links[coming[0]], n) if u not in seen]
        seen.update(new)
        beam = sorted(beam + [(-scores[u], u) for u in new])[:ef]
    return [v for _, v in beam]


def best_first_allowed(graph: Graph, scores: Array, ef: int, allow: Array, entries: list[int]) -> list[int]:
    """As the above; neighbours of neighbours that are not allowed are found, as many as a node has neighbours."""
    (n, degree), start = graph.links.shape, descend(graph, scores)
    found = [u for u in entries if u != start]
    beam, seen, looked, node = [(-scores[start], start)] * bool(allow[start]), {start, *entries}, {start}, start
    while True:
        new = [u for u in listed(graph.links[node], n) if u not in seen]
        seen.update(new)
        found += [u for u in new if allow[u]]
        for far in (u for u in new if not allow[u]):
            for u in listed(graph.links[far], n):
                if len(found) < degree and u not in seen and allow[u]:
                    seen.add(u)
                    found.append(u)
        beam, found = sorted(beam + [(-scores[u], u) for u in found])[:ef], []
        coming = [v for _, v in beam if v not in looked]
        if not coming:
            return [v for _, v in beam]
        node = coming[0]
        looked.add(node)


@pytest.mark.parametrize("sizes", [(1,), (32,), (5, 40), (3, 17, 60)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_search_goes_the_way_of_best_first(sizes: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 300
    graph = random_graph(rng, n, 6, sizes)
    vectors, queries = (rng.integers(-3, 4, (count, 5)).astype(np.float32) for count in (n, 7))
    codec = parse_codec("F32", 5, "dot").train(vectors)
    coded = codec.row_scores(codec.prepare(queries), codes := codec.encode(vectors))
    assert coded is not None
    exact = queries @ vectors.T
    allow = rng.random(n) < (0.2, 0.5, 0.9)[seed]
    entries = np.flatnonzero(allow)[:: max(1, int(allow.sum()) // 4)][:3].astype(np.uint32)
    for ef in (1, 2, 30, n):
        scores, nodes = graph.search(coded, ef)
        filtered = graph.search(coded, ef, allow=allow, entries=np.tile(entries, (7, 1)))
        for i in range(7):
            expected = best_first(graph, exact[i], ef)
            allowed = best_first_allowed(graph, exact[i], ef, allow, entries.tolist())
            for (s, v), wanted in (((scores[i], nodes[i]), expected), ((filtered[0][i], filtered[1][i]), allowed)):
                assert v.tolist() == wanted + [-1] * (ef - len(wanted))
                np.testing.assert_array_equal(s, [*exact[i, wanted], *[-np.inf] * (ef - len(wanted))])
    assert codes.n == n


@njit
def keys(scores: Array, nodes: Array) -> Array:
    out = np.empty(len(scores), np.uint64)
    for i in range(len(scores)):
        out[i] = beam_kernels.key_of(scores[i], nodes[i])
    return out


@njit
def parts(made: Array) -> tuple[Array, Array]:
    scores, nodes = np.empty(len(made), np.float32), np.empty(len(made), np.int64)
    for i in range(len(made)):
        scores[i], nodes[i] = beam_kernels.score_of(made[i]), beam_kernels.node_of(made[i] | np.uint64(1))
    return scores, nodes


PAIRS = st.tuples(st.floats(width=32, allow_nan=False), st.integers(0, (1 << 31) - 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=20))
@example([(0.0, 3), (-0.0, 2), (np.inf, 1), (-np.inf, 0), (1e-45, 5), (-1e-45, 5), (0.0, (1 << 31) - 1)])
def test_keys_order_as_scores_do_and_give_them_back(pairs: list[tuple[float, int]]) -> None:
    scores, nodes = np.array([s for s, _ in pairs], np.float32), np.array([v for _, v in pairs], np.int64)
    made = keys(scores, nodes)
    back = parts(made)
    np.testing.assert_array_equal(back[0].view(np.uint32), scores.view(np.uint32))
    np.testing.assert_array_equal(back[1], nodes)
    np.testing.assert_array_equal(np.argsort(made, kind="stable"), np.lexsort((nodes, ~np.signbit(-scores), -scores)))


# Linking


class Rows:
    """Rows of small integers as working rows, whose squared distances are integers."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        values = np.zeros((n, WIDTH), np.uint8)
        values[:, :DIM] = rng.integers(0, 12, (n, DIM))
        header, squares = np.zeros((n, 8), np.float32), np.square(values.astype(np.int64)).sum(axis=1)
        header[:, 0], header[:, 2], header[:, CODE_SUM] = 1, squares, values.sum(axis=1)
        self.bytes = np.ascontiguousarray(np.concatenate([header.view(np.uint8), values], axis=1))
        assert self.bytes.shape[1] == HEADER + WIDTH
        self.arguments = (self.bytes.ctypes.data, HEADER + WIDTH, WIDTH, DIM)
        whole = values.astype(np.float64)
        self.distances = np.square(whole[:, None] - whole).sum(axis=2).astype(np.float32)
        self.noise = (squares[:, None] + squares).astype(np.float32) * np.float32(2e-6)

    def choose(self, v: int, candidates: Any, most: int) -> list[int]:
        kept: list[int] = []
        for d, u in sorted((self.distances[v, u], u) for u in candidates if u != v):
            if len(kept) < most and not any(ALPHA * self.distances[u, w] <= d + self.noise[u, w] for w in kept):
                kept.append(u)
        return kept


@pytest.fixture
def rows() -> Rows:
    return Rows(np.random.default_rng(2), 200)


def table(lists: list[list[int]], columns: int) -> Array:
    return np.array([[*row, *[NONE] * (columns - len(row))] for row in lists], np.uint32)


def lists_of(links: Array) -> list[list[int]]:
    return [listed(row, NONE) for row in links]


def scratch(count: int, most: int) -> tuple[Array, Array]:
    return np.empty(count, np.uint64), np.empty(most, np.int64)


@pytest.mark.parametrize("most", [1, 4, 12])
def test_nodes_are_linked_to_the_nearest_that_none_kept_is_nearer_to(rows: Rows, most: int) -> None:
    rng = np.random.default_rng(3)
    nodes = np.int64([0, 5, 199])
    found = np.full((3, 50), -1, np.int64)
    for row, v, count in zip(found, nodes, (50, 20, 0), strict=True):
        some = rng.choice(200, count, replace=False)
        row[:count] = some[np.lexsort((some, rows.distances[v, some]))]
    scores = np.where(found >= 0, -rows.distances[nodes[:, None], found], -np.inf).astype(np.float32)
    links = np.zeros((200, 14), np.uint32)
    build.link_nodes(links, *rows.arguments, nodes, scores, found, most, ALPHA, *scratch(50, most))
    wanted = [
        rows.choose(v, [u for u in some.tolist() if u >= 0], most)
        for v, some in zip(nodes.tolist(), found, strict=True)
    ]
    assert lists_of(links[nodes]) == wanted
    assert (np.delete(links, nodes, axis=0) == 0).all()


@pytest.mark.parametrize("candidates", [20, 1024])
def test_links_back_are_appended_or_chosen_anew(rows: Rows, candidates: int) -> None:
    rng = np.random.default_rng(4)
    before = [rng.choice(200, int(rng.integers(0, 14)), replace=False).tolist() for _ in range(200)]
    links, most = table(before, 13), 8
    some = np.unique(rng.integers(0, 40, 700) << 32 | rng.integers(0, 200, 700)).astype(np.uint64)
    starts = np.concatenate([np.flatnonzero(np.diff(some >> np.uint64(32), prepend=1 << 40)), [len(some)]]).astype(
        np.int64
    )
    groups = [(int(part[0]) >> 32, (part & np.uint64(NONE)).tolist()) for part in np.split(some, starts[1:-1])]
    build.link_back(links, *rows.arguments, some, starts, 1, len(groups), most, ALPHA, *scratch(candidates, most))
    for v, sources in groups[1:]:
        both = before[v] + sources
        before[v] = both if len(both) <= 13 else rows.choose(v, both[:candidates], most)
    assert lists_of(links) == before


def test_long_lists_are_shortened_to_the_best(rows: Rows) -> None:
    rng = np.random.default_rng(5)
    before = [rng.choice(200, int(rng.integers(0, 14)), replace=False).tolist() for _ in range(200)]
    links = table(before, 13)
    build.shorten(links, *rows.arguments, 10, 200, 8, ALPHA, *scratch(13, 8))
    assert lists_of(links) == before[:10] + [
        rows.choose(v, row, 8) if len(row) > 8 else row for v, row in enumerate(before[10:], 10)
    ]


def test_reachable_nodes_are_marked() -> None:
    rng = np.random.default_rng(6)
    for most in (1, 2, 4):
        lists = [rng.choice(100, int(rng.integers(0, most + 1)), replace=False).tolist() for _ in range(100)]
        parents, queue = np.full(100, NONE, np.uint32), np.empty(100, np.uint32)
        count = build.mark_reachable(table(lists, 4), 7, parents, queue)
        expected = {7}
        for _ in range(100):
            expected |= {u for v in expected for u in lists[v]}
        assert (count, set(np.flatnonzero(parents != NONE).tolist())) == (len(expected), expected)
        assert parents[7] == 7
        assert all(u in lists[parents[u]] for u in expected - {7})


def test_nodes_that_nothing_leads_to_are_attached() -> None:
    lists = [[1, 2, 3], [0, 2], [0, 1, 3], [0, 1, 2], [], [0, 1, 2], [4], []]
    links, parents = table(lists, 4), np.uint32([0, 0, 0, 0, NONE, NONE, NONE, NONE])
    found = np.int64([[0, 1, 2], [0, 2, 3], [5, 6, -1], [7, -1, -1]])
    assert build.attach(links, np.int64([4, 5, 6, 7]), found, 3, parents, 0, False) == 1
    # Node 1 has room for 4. Node 0 is the parent of all it leads to, so 5 takes the place of the last of 2, and 6 that
    # of the last of 5. For 7 there is none: 0 cannot give one, and 1 gives its last but 4, whose parent it is.
    assert lists_of(links) == [[1, 2, 3], [0, 7, 4], [0, 1, 5], [0, 1, 2], [0], [0, 1, 6], [4], []]
    assert parents.tolist() == [0, 0, 0, 0, 1, 2, 5, 1]


def test_nodes_that_all_find_keep_their_links_where_others_have_room() -> None:
    lists = [[1, 2, 3], [0, 2], [0, 1, 3], [0], [], [], [], []]
    links, parents = table(lists, 4), np.uint32([0, 0, 0, 0, NONE, NONE, NONE, NONE])
    found = np.tile(np.int64([0, 1, 2, 3]), (4, 1))
    assert build.attach(links, np.int64([4, 5, 6, 7]), found, 3, parents, 0, True) == 1
    # Node 3 has room for two, then node 1 for one; for 7 none of those found has any, and 1, the first that can spare
    # a link, gives that to 2, whose parent is 0.
    assert lists_of(links) == [[1, 2, 3], [0, 7, 6], [0, 1, 3], [0, 4, 5], [0], [0], [0], [0]]
    assert parents.tolist() == [0, 0, 0, 0, 3, 3, 1, 1]


def test_links_are_carried_over_to_other_places(rows: Rows) -> None:
    rng = np.random.default_rng(7)
    before = [rng.choice(200, int(rng.integers(0, 9)), replace=False).tolist() for _ in range(200)]
    old, places = table(before, 9), rng.permutation(200)
    places[rng.permutation(200)[:30]] = -1
    links = np.full((200, 10), NONE, np.uint32)
    build.carry_over(
        old.ctypes.data, 9, 200, places, links, *rows.arguments, 0, 200, 8, ALPHA, *scratch(1024, 8)
    )  # fmt: skip
    for v in np.flatnonzero(places >= 0).tolist():
        near = [(u, [u] if places[u] >= 0 else before[u]) for u in before[v]]
        wanted = [int(places[w]) for _, some in near for w in some if places[w] >= 0 and w != v]
        if any(places[u] < 0 for u in before[v]):
            wanted = rows.choose(int(places[v]), set(wanted), 8)
        assert lists_of(links[places[v] : places[v] + 1]) == [wanted]
    assert (np.delete(links, places[places >= 0], axis=0) == NONE).all()


# The bits of every lowering and of every process


def digest() -> str:
    """Of graphs of each metric, and of what searches of them with several codecs find."""
    hashed = hashlib.sha256()
    rng = np.random.default_rng(8)
    vectors = (rng.standard_normal((600, 40)) + rng.integers(-2, 3, (600, 1))).astype(np.float32)
    allow = rng.random(600) < 0.5
    for metric in ("cosine", "dot", "l2"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors
        rows = WorkingRows(40, metric, unit.mean(axis=0))  # type: ignore[arg-type]
        builder = GraphBuilder(rows, m=8, ef_construction=40, seed=3)
        for part in (unit[:500], unit[500:]):
            rows.append(len(part), lambda some, part=part: part[some])  # type: ignore[misc]
            builder.grow()
        graph = builder.freeze()
        for spec in ("F32", "F16", "BF16", "LVQ4", "LVQ8", "RaBitQ3"):
            codec = parse_codec(spec, 40, metric).train(unit)  # type: ignore[arg-type]
            codes = codec.encode(unit)
            coded = codec.row_scores(codec.prepare(unit[:30]), codes)
            assert coded is not None
            for array in (
                *graph.search(coded, 20),
                *graph.search(coded, 20, allow=allow, entries=np.empty((30, 0), np.uint32)),
            ):
                hashed.update(array.tobytes())
        for array in graph.arrays().values():
            hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("setting", [{}, {"GINGHAM_SIMD": "portable"}], ids=["another process", "portable"])
def test_graphs_and_what_they_find_have_the_same_bytes_in(setting: dict[str, str]) -> None:
    code = (
        "import gingham as gg; gg.set_threads(1); import sys; sys.path.insert(0, sys.argv[1]);"
        "import test_graph_kernels; print(test_graph_kernels.digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True, text=True, env={**os.environ, **setting}, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == digest(), done.stderr[-2000:]
