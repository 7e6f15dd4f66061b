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
from gingham.index.calibration import HELD_OUT
from gingham.index.graph import TOP_NODES, Graph
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.index.working_rows import WorkingRows

Array = np.ndarray[Any, Any]

NONE = np.uint32(0xFFFFFFFF)
ALPHA = np.float32(1.05)
"""A candidate is left out where one kept before is nearer to it by this factor, on squared distances; products, of
which a greater one is nearer, are compared as they are."""
BATCH_SHARE = 0.02
"""Nodes linked at once, as a share of those there: ParlayANN's, with which a quarter of it found no better graph."""
SLACK = 1.3
"""Links that a node may have while the graph is built, times its degree: fewer choices of neighbours (DiskANN)."""
BLOCK_NODES = 64
"""Nodes that a thread searches for at once: about 15 ms."""
BLOCK_TARGETS = 512
BACK_CANDIDATES = 1024
"""Links back that one batch offers to a node at most."""
REPAIRS = 3
"""Rounds that link nodes nothing leads to; one is enough, unless links are so few that none can be spared."""
REBUILD_GROWTH, RELAYER_GROWTH = 2.0, 1.25
"""Growth above which a graph is built anew, and above which its layers are: new nodes are not in them until then."""
HELD_OUT_SHARE = 16
"""Of the rows at least so many times as many are in the graph."""
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
        self.rows = rows
        self.unreachable = 0
        self._m = m
        self._ef = ef_construction
        self._seed = seed
        self._links = _Links(2 * m)
        self._layers = _NO_LAYERS
        self._alive: Array = np.empty(0, np.bool_)
        self._linked: Array = np.empty(0, np.bool_)
        self._layered = 0
        self._unaudited = 0

    @classmethod
    def of_graph(
        cls,
        graph: Graph,
        rows: WorkingRows,
        *,
        places: Array | None = None,
        gone: Array | None = None,
        m: int,
        ef_construction: int,
        seed: int = 0,
    ) -> GraphBuilder:
        """Go on with a graph.

        Parameters
        ----------
        rows : those of the graph, and those that :meth:`grow` will link
        places : int64 (len(graph),), the row of each node, -1 for one that is gone; None where nodes are the first rows
        gone : bool (len(graph),), without ``places``: rows that are not in the graph and never will be

        Notes
        -----
        O(links) where no node is gone; whoever had a link to one that is chooses anew. With ``places`` layers are built
        anew.
        """
        builder = cls(rows, m=m, ef_construction=ef_construction, seed=seed)
        builder._extend()
        if places is None:
            beyond = np.logical_or.accumulate(graph.links >= len(graph), axis=1)
            builder._links.array[: len(graph), : graph.links.shape[1]] = np.where(beyond, NONE, graph.links)
            builder._linked[: len(graph)], builder._layered = True, len(graph)
            builder._layers = _Layers(graph.nodes, graph.layers, graph.starts)
            if gone is not None:
                builder._alive[: len(gone)] = builder._linked[: len(gone)] = ~gone
        else:
            builder._carry_over(graph, places)
        return builder

    def grow(
        self,
        progress: Callable[[int], None] | None = None,
        *,
        held_out: Callable[[Graph, Array], None] | None = None,
    ) -> None:
        """Link the rows that are not linked yet.

        Parameters
        ----------
        progress : called with the number of nodes linked since the last call
        held_out : called once before the last :data:`HELD_OUT` rows are linked, with the graph and those rows

        Raises
        ------
        DeadlineExceeded, Cancelled : between blocks; the builder is then of no more use

        Notes
        -----
        O(n ef_construction m) distances. Where rows at least double, the graph is built anew.
        """
        self._extend()
        new, before = np.flatnonzero(self._alive & ~self._linked), int(np.count_nonzero(self._linked))
        if not len(new):
            return
        linking = _Linking(self.rows, self._ef, progress, held_out)
        total = before + len(new)
        if total >= REBUILD_GROWTH * before:
            self._links = _Links(2 * self._m)
            self._links.reserve(self.rows.n)
            self._build_layers()
            linking.link(self._links, self._order(), self._layers, 0)
        else:
            order = self._order()
            linking.link(self._links, order[np.isin(order, new)], self._layers, before)
            if total >= RELAYER_GROWTH * self._layered:
                self._build_layers()
        self._linked = self._alive.copy()
        self._unaudited += len(new)
        if self._unaudited >= AUDIT_SHARE * total:
            self._audit()

    def remove(self, gone: Array) -> None:
        """Take nodes out of the graph for good; ``gone`` bool (rows,). At least one stays."""
        self._carry_over(self.view(), np.where(gone, -1, np.arange(len(gone))))
        self._alive &= ~gone
        self._audit()

    def view(self) -> Graph:
        """The graph as it is, on arrays that :meth:`grow` may go on to change."""
        return Graph(self._links.array[: self._links.n], *self._layers)

    def freeze(self) -> Graph:
        """The graph in arrays of its own, without spare room, every node of it reachable."""
        if self._unaudited:
            self._audit()
        return Graph(np.ascontiguousarray(self._links.array[: self._links.n, : 2 * self._m]), *self._layers)

    def _extend(self) -> None:
        """Make room for all rows."""
        more = self.rows.n - len(self._alive)
        self._alive = np.concatenate([self._alive, np.ones(more, np.bool_)])
        self._linked = np.concatenate([self._linked, np.zeros(more, np.bool_)])
        self._links.reserve(self.rows.n)

    def _carry_over(self, graph: Graph, places: Array) -> None:
        self._links = _Links(2 * self._m)
        self._links.reserve(self.rows.n)
        self._linked[:] = False
        self._linked[places[places >= 0]] = True
        _Linking(self.rows, self._ef).carry_over(graph, places.astype(np.int64), self._links)
        self._build_layers(self._linked)

    def _order(self, chosen: Array | None = None) -> Array:
        order = _order(self.rows.n, self._seed)
        return order[(self._alive if chosen is None else chosen)[order]]

    def _build_layers(self, chosen: Array | None = None) -> None:
        order = self._order(chosen)
        self._layers, self._layered = _build_layers(self.rows, order, self._m, self._ef), len(order)

    def _audit(self) -> None:
        linking = _Linking(self.rows, self._ef)
        linking.shorten(self._links)
        self.unreachable = linking.repair(self._links, self._layers, self._alive)
        self._unaudited = 0


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
    """Links of ``n`` nodes, with room to grow."""

    def __init__(self, degree: int) -> None:
        self.n = 0
        self.degree = degree
        self.array: Array = np.empty((0, int(SLACK * degree)), np.uint32)

    def reserve(self, n: int) -> None:
        """Have n nodes, the new ones without links."""
        if n > len(self.array):
            grown = np.empty((n if not self.n else max(n, self.n + self.n // 4), self.array.shape[1]), np.uint32)
            grown[: self.n] = self.array[: self.n]
            grown[self.n :] = NONE
            self.array = grown
        self.n = n


class _Linking:
    """Links nodes of some rows."""

    def __init__(
        self,
        rows: WorkingRows,
        ef: int,
        progress: Callable[[int], None] | None = None,
        held_out: Callable[[Graph, Array], None] | None = None,
    ) -> None:
        self._held_out = held_out
        self._rows = rows
        self._ef = ef
        self._progress = progress
        self._alpha = np.float32(1.0) if rows.metric == "dot" else ALPHA
        self._of_rows = (rows.rows.ctypes.data, rows.stride, rows.width, rows.dim)

    def link(self, links: _Links, order: Array, layers: _Layers, linked: int) -> None:
        """Link nodes in their order, batch by batch, where so many are linked."""
        from_scratch, total = linked == 0, linked + len(order)
        if from_scratch:
            order, linked = order[1:], 1
        last = min(HELD_OUT, total // HELD_OUT_SHARE) if self._held_out is not None else 0
        while len(order):
            known = layers.within(linked) if from_scratch else layers
            batch = order[: min(linked, max(1, int(BATCH_SHARE * total)))]
            graph = Graph(links.array[: links.n], *known)
            if 0 < last < len(order):
                batch = batch[: len(order) - last]
            elif last and self._held_out is not None:
                self._held_out(self._as_frozen(links, known), order)
                last = 0
            blocks = [batch[start : start + BLOCK_NODES] for start in range(0, len(batch), BLOCK_NODES)]
            run_blocks(lambda nodes, graph=graph: self._link_block(links, graph, nodes), blocks)  # type: ignore[misc]
            self._link_back(links, batch)
            order, linked = order[len(batch) :], linked + len(batch)
            if self._progress is not None:
                self._progress(len(batch))

    def _as_frozen(self, links: _Links, layers: _Layers) -> Graph:
        """A copy without the links that nodes will give up, which find some neighbours more."""
        copy = _Links(links.degree)
        copy.array, copy.n = links.array[: links.n].copy(), links.n
        self.shorten(copy)
        return Graph(copy.array, *layers)

    def _link_block(self, links: _Links, graph: Graph, nodes: Array) -> None:
        from gingham.index import graph_build_kernels

        scores, found = graph.search(self._rows.scores(nodes), self._ef)
        graph_build_kernels.link_nodes(
            links.array, *self._of_rows, nodes, scores, found, links.degree, self._alpha,
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
                links.degree, self._alpha, np.empty(BACK_CANDIDATES, np.uint64), np.empty(links.degree, np.int64),
            )  # fmt: skip

        if len(pairs):
            run_blocks(link, list(range(0, len(starts) - 1, BLOCK_TARGETS)))

    def carry_over(self, graph: Graph, places: Array, links: _Links) -> None:
        """Copy links to where nodes are from now on."""
        from gingham.index import graph_build_kernels

        n, degree = graph.links.shape

        def carry(low: int) -> None:
            graph_build_kernels.carry_over(
                graph.links.ctypes.data, degree, n, places, links.array, *self._of_rows,
                low, min(low + 8 * BLOCK_TARGETS, n), links.degree, self._alpha,
                np.empty(BACK_CANDIDATES + 2 * degree, np.uint64), np.empty(links.degree, np.int64),
            )  # fmt: skip

        run_blocks(carry, list(range(0, n, 8 * BLOCK_TARGETS)))

    def shorten(self, links: _Links) -> None:
        """Choose the best links of nodes that have more than their degree."""
        from gingham.index import graph_build_kernels

        def shorten(low: int) -> None:
            graph_build_kernels.shorten(
                links.array, *self._of_rows, low, min(low + 8 * BLOCK_TARGETS, links.n), links.degree, self._alpha,
                np.empty(links.array.shape[1], np.uint64), np.empty(links.degree, np.int64),
            )  # fmt: skip

        run_blocks(shorten, list(range(0, links.n, 8 * BLOCK_TARGETS)))

    def repair(self, links: _Links, layers: _Layers, alive: Array | None = None) -> int:
        """Link nodes, those alive, that no way leads to; returns how many are left."""
        from gingham.index import graph_build_kernels

        array = links.array[: links.n]
        start, hubs = int(layers.nodes[0]), self._rows.metric == "dot"
        for _ in range(REPAIRS):
            deadline.check()
            parents, other = np.full(links.n, NONE), 0
            graph_build_kernels.mark_reachable(array, start, parents, np.empty(links.n, np.uint32))
            lost = np.flatnonzero(parents == NONE if alive is None else alive & (parents == NONE))
            if not len(lost):
                return 0
            graph = Graph(array, *layers)
            for low in range(0, len(lost), BLOCK_NODES):
                deadline.check()
                nodes = lost[low : low + BLOCK_NODES]
                _, found = graph.search(self._rows.scores(nodes), self._ef)
                other = graph_build_kernels.attach(array, nodes, found, links.degree, parents, other, hubs)
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
        links.reserve(sizes[number])
        above = _Layers(places, layers, starts[: number + 1])
        linking = _Linking(rows.taken(order[: sizes[number]]), max(m, ef // 2))
        linking.link(links, np.arange(sizes[number]), above, 0)
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
