"""Building a proximity graph, in batches that double, by any number of threads with one result.

Nodes are linked in batches. Those of a batch look for their neighbours in the graph before it, which no one changes
meanwhile; then the neighbours get links back, each written by one thread, from pairs in ascending order (ParlayANN,
Manohar et al. 2024, sections 3 and 4). All order is that of keys (distance, node), so the graph is the same for any
number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham import deadline
from gingham.index.graph import TOP_NODES, Graph
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.index.working_rows import WorkingRows

Array = np.ndarray[Any, Any]

NONE = np.uint32(0xFFFFFFFF)
ALPHA = np.float32(1.05)
"""A candidate is left out where one kept before is nearer to it by this factor, on squared distances."""
BATCH_SHARE = 0.02
"""Nodes linked at once, as a share of those there: ParlayANN's, with which a quarter of it found no better graph."""
SLACK = 1.3
"""Links that a node may have while the graph is built, times its degree: fewer choices of neighbours (DiskANN)."""
BLOCK_NODES = 64
"""Nodes that a thread searches for at once: about 15 ms."""
BLOCK_TARGETS = 512
BACK_CANDIDATES = 1024
"""Links back that one batch offers to a node at most."""
REPAIRS = 16
"""Rounds that link nodes nothing leads to; each leaves few, and one mends most graphs."""
REBUILD_GROWTH, RELAYER_GROWTH = 2.0, 1.25
"""Growth above which a graph is built anew, and above which its layers are: new nodes are not in them until then."""
AUDIT_SHARE = 1 / 64
"""Share of new nodes below which the graph is not looked through for those that nothing leads to until it is frozen."""


class GraphBuilder:
    """A graph that grows with its rows.

    Parameters
    ----------
    rows : what distances are taken between; rows are appended to it before :meth:`grow`
    m : links of a node in a layer, at most; twice as many below
    ef_construction : candidates that a node's neighbours are chosen from
    seed : of the layers

    Attributes
    ----------
    rows : as given
    unreachable : nodes that nothing led to when that was last looked at, after repairs
    """

    def __init__(self, rows: WorkingRows, *, m: int, ef_construction: int, seed: int = 0) -> None:
        self.unreachable = 0
        self.rows = rows
        self._m = m
        self._ef = ef_construction
        self._seed = seed
        self._links = _Links(2 * m)
        self._layers = _NO_LAYERS
        self._layered = 0
        self._audited = 0

    @classmethod
    def of_graph(cls, graph: Graph, rows: WorkingRows, *, m: int, ef_construction: int, seed: int = 0) -> GraphBuilder:
        """Go on with a graph, whose nodes are the first of ``rows``."""
        builder = cls(rows, m=m, ef_construction=ef_construction, seed=seed)
        builder._links.reserve(len(graph))
        beyond = np.logical_or.accumulate(graph.links >= len(graph), axis=1)
        builder._links.array[: len(graph), : graph.links.shape[1]] = np.where(beyond, NONE, graph.links)
        builder._links.n = builder._layered = builder._audited = len(graph)
        builder._layers = _Layers(graph.nodes, graph.layers, graph.starts)
        return builder

    def grow(self, progress: Callable[[int], None] | None = None) -> None:
        """Link the rows that are not linked yet.

        Parameters
        ----------
        progress : called with the number of nodes linked since the last call

        Raises
        ------
        DeadlineExceeded, Cancelled : between blocks; the builder is then of no more use

        Notes
        -----
        O(n ef_construction m) distances. Where rows at least double, the graph is built anew.
        """
        first, n = self._links.n, self.rows.n
        if n == first:
            return
        linking = _Linking(self.rows, self._ef, progress)
        if n >= REBUILD_GROWTH * first:
            order = _order(n, self._seed)
            self._links, self._layered = _Links(2 * self._m), n
            self._layers = _build_layers(self.rows, order, self._m, self._ef)
            linking.link(self._links, order, self._layers)
        else:
            linking.link(self._links, np.arange(first, n), self._layers)
            if n >= RELAYER_GROWTH * self._layered:
                self._layered = n
                self._layers = _build_layers(self.rows, _order(n, self._seed), self._m, self._ef)
        if n - self._audited >= AUDIT_SHARE * n:
            self._audit()

    def view(self) -> Graph:
        """The graph as it is, on arrays that :meth:`grow` may go on to change."""
        return Graph(self._links.array[: self._links.n], *self._layers)

    def freeze(self) -> Graph:
        """The graph in arrays of its own, without spare room, every node of it reachable."""
        if self._audited < self._links.n:
            self._audit()
        return Graph(np.ascontiguousarray(self._links.array[: self._links.n, : 2 * self._m]), *self._layers)

    def _audit(self) -> None:
        linking = _Linking(self.rows, self._ef, None)
        linking.shorten(self._links)
        self.unreachable = linking.repair(self._links, self._layers)
        self._audited = self._links.n


class _Layers(NamedTuple):
    """As in :class:`Graph`."""

    nodes: Array
    layers: Array
    starts: Array

    def within(self, linked: int) -> _Layers:
        """The layers whose nodes are all among the first that were linked."""
        whole = int(np.count_nonzero(np.diff(self.starts) <= linked))
        return self._replace(starts=self.starts[: whole + 1] if whole else np.array([0, linked], np.int64))


_NO_LAYERS = _Layers(np.empty(0, np.uint32), np.empty((0, 1), np.uint32), np.zeros(1, np.int64))


class _Links:
    """Links with room to grow, of the first ``n`` nodes that are linked."""

    def __init__(self, degree: int) -> None:
        self.n = 0
        self.degree = degree
        self.array: Array = np.empty((0, int(SLACK * degree)), np.uint32)

    def reserve(self, n: int) -> None:
        """Make room for n nodes."""
        if n > len(self.array):
            grown = np.empty((n if not self.n else max(n, self.n + self.n // 4), self.array.shape[1]), np.uint32)
            grown[: self.n] = self.array[: self.n]
            grown[self.n :] = NONE
            self.array = grown


class _Linking:
    """Links nodes of some rows."""

    def __init__(self, rows: WorkingRows, ef: int, progress: Callable[[int], None] | None) -> None:
        self._rows = rows
        self._ef = ef
        self._progress = progress
        self._of_rows = (rows.rows.ctypes.data, rows.stride, rows.width, rows.dim)

    def link(self, links: _Links, order: Array, layers: _Layers) -> None:
        """Link nodes in their order, batch by batch."""
        linked, total = links.n, links.n + len(order)
        links.reserve(total)
        if linked == 0:
            order, linked = order[1:], 1
        while len(order):
            # Nodes that were there before are linked from the first batch on.
            known = layers if links.n else layers.within(linked)
            batch = order[: min(linked, max(1, int(BATCH_SHARE * total)))]
            graph = Graph(links.array, *known)
            blocks = [batch[start : start + BLOCK_NODES] for start in range(0, len(batch), BLOCK_NODES)]
            run_blocks(lambda nodes, graph=graph: self._link_block(links, graph, nodes), blocks)  # type: ignore[misc]
            self._link_back(links, batch)
            order, linked = order[len(batch) :], linked + len(batch)
            if self._progress is not None:
                self._progress(len(batch))
        links.n = total

    def _link_block(self, links: _Links, graph: Graph, nodes: Array) -> None:
        from gingham.index import graph_build_kernels

        scores, found, _ = graph.search(self._rows.scores(nodes), self._ef)
        graph_build_kernels.link_nodes(
            links.array, *self._of_rows, nodes, scores, found, links.degree, ALPHA,
            np.empty(self._ef, np.uint64), np.empty(links.degree, np.int64),
        )  # fmt: skip

    def _link_back(self, links: _Links, nodes: Array) -> None:
        from gingham.index import graph_build_kernels

        targets = links.array[nodes, : links.degree].astype(np.uint64)
        pairs = ((targets << np.uint64(32)) | nodes[:, None].astype(np.uint64))[targets != NONE]
        pairs.sort()
        changes = np.flatnonzero(np.diff(pairs >> np.uint64(32))) + 1
        starts = np.concatenate([[0], changes, [len(pairs)]]).astype(np.int64)

        def link(low: int) -> None:
            graph_build_kernels.link_back(
                links.array, *self._of_rows, pairs, starts, low, min(low + BLOCK_TARGETS, len(starts) - 1),
                links.degree, ALPHA, np.empty(BACK_CANDIDATES, np.uint64), np.empty(links.degree, np.int64),
            )  # fmt: skip

        if len(pairs):
            run_blocks(link, list(range(0, len(starts) - 1, BLOCK_TARGETS)))

    def shorten(self, links: _Links) -> None:
        """Choose the best links of nodes that have more than their degree."""
        from gingham.index import graph_build_kernels

        def shorten(low: int) -> None:
            graph_build_kernels.shorten(
                links.array, *self._of_rows, low, min(low + 8 * BLOCK_TARGETS, links.n), links.degree, ALPHA,
                np.empty(links.array.shape[1], np.uint64), np.empty(links.degree, np.int64),
            )  # fmt: skip

        run_blocks(shorten, list(range(0, links.n, 8 * BLOCK_TARGETS)))

    def repair(self, links: _Links, layers: _Layers) -> int:
        """Link nodes that no way leads to; returns how many are left."""
        from gingham.index import graph_build_kernels

        array = links.array[: links.n]
        start = int(layers.nodes[0])
        for _ in range(REPAIRS):
            deadline.check()
            reached, queue = np.zeros(links.n, np.uint8), np.empty(links.n, np.uint32)
            graph_build_kernels.mark_reachable(array, start, reached, queue)
            lost = np.flatnonzero(reached == 0)
            if not len(lost):
                return 0
            graph = Graph(array, *layers)
            for low in range(0, len(lost), BLOCK_NODES):
                deadline.check()
                nodes = lost[low : low + BLOCK_NODES]
                _, found, _ = graph.search(self._rows.scores(nodes), self._ef)
                graph_build_kernels.attach(array, nodes, found, links.degree)
        return len(lost)


def _build_layers(rows: WorkingRows, order: Array, m: int, ef: int) -> _Layers:
    """Layers of the first n / m, n / m^2 ... nodes of an order, down to at most :data:`TOP_NODES`."""
    sizes = [max(1, len(order) // m)]
    while sizes[0] > TOP_NODES:
        sizes.insert(0, max(1, sizes[0] // m))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    layers = np.full((starts[-1], m), NONE, np.uint32)
    places = np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes])
    for number in range(1, len(sizes)):
        links = _Links(m)
        above = _Layers(places, layers, starts[: number + 1])
        linking = _Linking(rows.taken(order[: sizes[number]]), max(m, ef // 2), None)
        linking.link(links, np.arange(sizes[number]), above)
        linking.shorten(links)
        linking.repair(links, above)
        layers[starts[number] : starts[number + 1]] = links.array[: links.n, :m]
    return _Layers(order[places].astype(np.uint32), layers, starts)


def _order(n: int, seed: int) -> Array:
    """Rows in an order that looks random and does not change with n: that of a hash.

    Source: the finalizer of SplitMix64 (Steele et al. 2014, figure 16).
    """
    z = np.arange(n, dtype=np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % (1 << 64))
    z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")
