"""A proximity graph with layers above it, and how it is searched."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from gingham.codecs.row_scores import RowScores

    Array = np.ndarray[Any, Any]

SLOTS = 2
"""Queries that take turns in a kernel: one works while the rows of the other come; three or four were no faster."""
TOP_NODES = 32
"""Nodes of the uppermost layer at most, all of which a search scores."""
MOST_ENTRIES = 2048
"""Nodes that a filtered search may begin at."""
MOST_NODES = 1 << 31
"""Keys of candidates have 31 bits for the node."""
_NO_ENTRIES: Array = np.empty((0, 0), np.uint32)
NONE_HIDDEN: Array = np.empty(0, np.int64)
_kept = threading.local()


@dataclass(frozen=True, eq=False)
class Graph:
    """Neighbours of every node, and layers of ever fewer nodes.

    Attributes
    ----------
    links : uint32 (n, degree), the neighbours of each node; numbers of n or more stand after the last
    nodes : uint32 (m,), the nodes of each layer, from the uppermost down; a layer begins with those of the one above
    layers : uint32 (m, layer_degree), neighbours in each layer, by their place in it
    starts : int64 (layers + 1,), where each layer begins in ``nodes``, and the end; the uppermost has at most
        :data:`TOP_NODES`
    """

    links: Array
    nodes: Array
    layers: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.links)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(array.nbytes) for array in self.arrays().values())

    def arrays(self) -> dict[str, Array]:
        """All arrays, to be stored."""
        return {"links": self.links, "nodes": self.nodes, "layers": self.layers, "starts": self.starts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], n: int) -> Graph:
        """A graph of n nodes on stored arrays, without copying.

        Raises
        ------
        Corrupt : shapes or layers do not fit each other

        Notes
        -----
        Numbers in ``links`` and ``layers`` are compared with their bounds while a search reads them.
        """
        try:
            links, nodes, layers = (arrays[name] for name in ("links", "nodes", "layers"))
            starts = np.array(arrays["starts"], np.int64)
        except KeyError as error:
            raise Corrupt(f"a graph expects an array {error}, found {sorted(arrays)}; rebuild the index") from error
        shaped = links.ndim == 2 and layers.ndim == 2 and len(links) == n and len(layers) == len(nodes)
        shaped = shaped and layers.shape[1] <= links.shape[1]
        typed = all(array.dtype == np.uint32 for array in (links, nodes, layers))
        steps = np.diff(starts) if starts.ndim == 1 else np.empty(0)
        whole = len(starts) >= 2 and starts[0] == 0 and starts[-1] == len(nodes) and starts[1] <= TOP_NODES
        if not (shaped and typed and whole and (steps > 0).all() and (np.diff(steps) >= 0).all() and (nodes < n).all()):
            raise Corrupt(f"a graph expects {n} nodes and layers of them, found arrays that do not fit; rebuild it")
        return cls(links, nodes, layers, starts)

    def within(self, n: int) -> Graph:
        """A copy of the graph of the first n nodes, without links to others."""
        links = self.links[:n].copy()
        order = np.argsort(links >= n, axis=1, kind="stable")
        return Graph(np.take_along_axis(links, order, axis=1), self.nodes, self.layers, self.starts)

    @cached_property
    def _addresses(self) -> tuple[int, int, int]:
        return self.links.ctypes.data, self.nodes.ctypes.data, self.layers.ctypes.data

    def search(
        self,
        coded: RowScores,
        ef: int,
        *,
        allow: Array | None = None,
        entries: Array = _NO_ENTRIES,
        hidden: Array = NONE_HIDDEN,
    ) -> tuple[Array, Array]:
        """Find the nodes of the best scores for each prepared query.

        Parameters
        ----------
        ef : nodes found for each, at least 1
        allow : bool (n,), C-contiguous, the nodes that may be found; None allows all
        entries : uint32 (n_queries, m), allowed nodes to begin at, m at most :data:`MOST_ENTRIES`
        hidden : int64 (n_queries,), a node for each query that it is not to find nor to pass, or none at all

        Returns
        -------
        tuple : scores float32 (n_queries, ef), descending, and nodes int64 (n_queries, ef); (-inf, -1) pads

        Notes
        -----
        Among equal scores the lower node comes first. O(ef degree) scores a query, each a random read of a row.
        """
        n, degree = self.links.shape
        n_queries = len(coded.queries)
        scores, rows = np.empty((n_queries, ef), np.float32), np.empty((n_queries, ef), np.int64)
        visited, beams, around, keys, slots = _scratch(n, degree, ef)
        links, nodes, layers = self._addresses
        _kernels().search_graph(
            links, degree, n, nodes, layers, self.starts, self.layers.shape[1],
            coded.kind, coded.address, coded.stride, coded.factors, coded.width, coded.bits,
            coded.queries, coded.parameters,
            0 if allow is None else allow.ctypes.data, entries, hidden,
            visited, beams, around, keys, slots, scores, rows,
        )  # fmt: skip
        return scores, rows


@cache
def _kernels() -> ModuleType:
    from gingham.index import graph_kernels

    return graph_kernels


def _scratch(n: int, degree: int, ef: int) -> tuple[Array, ...]:
    """What a search writes to, kept by the thread for its next."""
    words = -(-n // 64)
    found = getattr(_kept, "arrays", None)
    if found is None or found[0].shape != (SLOTS, words) or found[1].shape[1] != ef + 1 or _kept.degree != degree:
        wide = 2 * degree + TOP_NODES + MOST_ENTRIES
        found = (
            np.empty((SLOTS, words), np.uint64), np.empty((SLOTS, ef + 1), np.uint64),
            np.empty((SLOTS, 2, wide), np.uint32), np.empty(wide, np.uint64), np.empty((SLOTS, 8), np.int64),
        )  # fmt: skip
        _kept.arrays, _kept.degree = found, degree
    return found
