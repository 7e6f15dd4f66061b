"""Walks over graphs on an NVIDIA device, for many queries at once.

A walk goes over the lowest layer first, from the nodes of the uppermost, and then over the graph itself, from the best
that it found: the CPU descends from layer to layer one node at a time. So a device finds other candidates, and no
fewer of the nearest (on 40,000 rows in 1 to 4,000 clusters, with ef 16 to 64).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs import cuda_searches
from gingham.codecs.cuda_rows import check_room, told_of_memory
from gingham.codecs.packed import PackedRows
from gingham.codecs.row_scores import F16, F32, PACKED
from gingham.index.device_searches import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.codecs.devices import Device
    from gingham.codecs.row_scores import RowScores
    from gingham.index.device_copies import Resident
    from gingham.index.graph import Graph

    Array = np.ndarray[Any, Any]

ENTRIES = 16
"""Nodes of the lowest layer that a walk over the graph begins at."""
UPLOAD_BYTES = 64 << 20
"""Rows that are made ready for the device at once."""


def device_rows(coded: RowScores) -> RowScores:
    """Rows as walks on a device take them, packed with 8 bits or float32, and their queries; not the rows themselves.

    Notes
    -----
    Products of packed rows are sums of integers, so unpacked ones have scores of the same bits.
    """
    if coded.kind != PACKED:
        return coded._replace(kind=F32, stride=4 * coded.width, bits=0)
    if coded.bits == 8:
        return coded
    queries = coded.queries.astype(np.int16).view(np.int8)
    return coded._replace(stride=4 * coded.factors + coded.width, bits=8, queries=queries)


def row_words(coded: RowScores, rows: Array) -> Array:
    """Words of some rows, as :func:`device_rows` describes them.

    Parameters
    ----------
    coded : of the codec, whose rows are at its address
    rows : uint8 (n, stride) of these

    Returns
    -------
    numpy.ndarray : int32 (n, words)
    """
    if coded.kind == F32:
        return np.ascontiguousarray(rows).view(np.int32)
    if coded.kind != PACKED:
        halves = np.ascontiguousarray(rows).view(np.float16 if coded.kind == F16 else np.uint16)
        if coded.kind == F16:
            return halves.astype(np.float32).view(np.int32)
        return (halves.astype(np.uint32) << np.uint32(16)).view(np.int32)
    if coded.bits == 8:
        return np.ascontiguousarray(rows).view(np.int32)
    header, values = PackedRows(coded.width, coded.bits, coded.factors).unpack(np.ascontiguousarray(rows))
    return np.concatenate([header.view(np.int32), np.ascontiguousarray(values).view(np.int32)], axis=1)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A graph on a device. links int32 (n, degree) and words int32 (n, words of a row)."""

    links: Any
    words: Any


@dataclass(frozen=True, eq=False)
class GraphThere:
    """A graph and the rows of its nodes on a device.

    Attributes
    ----------
    whole, lowest : of all nodes, and of those of the lowest layer; None where that is the only one
    nbytes : of all
    """

    whole: _Layer
    lowest: _Layer | None
    nbytes: int

    @classmethod
    def of(cls, graph: Graph, coded: RowScores, device: Device, budget: int | None = None) -> GraphThere:
        """Copy a graph and rows; raises ResourceExhausted."""
        needed, held = graph_bytes(graph, coded), _held(coded, len(graph))
        check_room(needed, device, budget)
        with device.active(), told_of_memory(device):
            whole = _layer(graph.links, coded, held)
            part = _lowest(graph)
            if part is None:
                return cls(whole, None, needed)
            return cls(whole, _layer(graph.layers[part], coded, held, graph.nodes[part]), needed)


def graph_bytes(graph: Graph, coded: RowScores) -> int:
    """Bytes of a graph and its rows on a device."""
    part, stride = _lowest(graph), device_rows(coded).stride
    lowest = 0 if part is None else (part.stop - part.start) * (stride + 4 * graph.layers.shape[1])
    return int(graph.links.nbytes) + len(graph) * stride + lowest


@dataclass(frozen=True, eq=False)
class DeviceWalker:
    """Walks over a graph, as a :class:`gingham.index.graph_search.Walker`.

    Attributes
    ----------
    resident : what may have graph and rows on a device
    graph : to walk over
    """

    resident: Resident
    graph: Graph

    def takes(self, n_queries: int, ef: int) -> bool:
        """Whether there are queries enough, and a block has room for the beam."""
        fits = ef <= cuda_searches.MOST_EF and len(self.graph) > 0
        return fits and self.resident.copies.takes_walks(n_queries)

    def walk(self, coded: RowScores, ef: int) -> Array | None:
        """The best nodes that a device finds, int64 (n_queries, ef), -1 pads; None where the CPU is to walk.

        Raises
        ------
        NoDevice, ResourceExhausted : a device was asked for, and fails or has no room
        """
        asked = device_rows(coded)
        if not cuda_searches.walk_fits(max(ef, ENTRIES), self.graph.links.shape[1], asked.queries.shape[1] // 4):
            return None

        def run(device: Device) -> Array:
            there = self.resident.copies.kept(
                self.resident.key, graph_bytes(self.graph, coded),
                lambda left: GraphThere.of(self.graph, coded, device, left), device,
            )  # fmt: skip
            pieces = []
            for start in range(0, len(asked.queries), QUERIES):
                deadline.check()
                part = slice(start, start + QUERIES)
                some = asked._replace(queries=asked.queries[part], parameters=asked.parameters[part])
                with device.active(), told_of_memory(device):
                    pieces.append(self._walked(there, some, ef))
            return np.concatenate(pieces)

        return self.resident.attempt(run)

    def _walked(self, there: GraphThere, coded: RowScores, ef: int) -> Array:
        graph = self.graph
        if there.lowest is None:
            entries = graph.nodes[None].astype(np.int32)
        else:
            # A layer begins with the nodes of the one above.
            top = np.arange(graph.starts[1], dtype=np.int32)[None]
            _, places, _ = cuda_searches.graph_best(there.lowest.links, there.lowest.words, coded, top, ENTRIES)
            entries = np.where(places < 0, -1, graph.nodes[_lowest(graph)][places]).astype(np.int32)
        return cuda_searches.graph_best(there.whole.links, there.whole.words, coded, entries, ef)[1]


def _lowest(graph: Graph) -> slice | None:
    """Places of the lowest layer, if it is not the only one."""
    return slice(int(graph.starts[-2]), int(graph.starts[-1])) if len(graph.starts) > 2 else None


def _held(coded: RowScores, n: int) -> Array:
    """Rows at an address, uint8 (n, stride)."""
    held: Any = (ctypes.c_uint8 * (n * coded.stride)).from_address(coded.address)
    return np.frombuffer(held, np.uint8).reshape(n, coded.stride)


def _layer(links: Array, coded: RowScores, held: Array, nodes: Array | None = None) -> _Layer:
    n, words = len(links), device_rows(coded).stride // 4
    there = cuda_searches.room_for(n, words)
    for part in _slices(n, max(1, UPLOAD_BYTES // coded.stride)):
        there[part].copy_to_device(row_words(coded, held[part] if nodes is None else held[nodes[part]]))
    return _Layer(cuda_searches.on_device(np.ascontiguousarray(links).view(np.int32)), there)


def _slices(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        deadline.check()
        yield slice(start, min(start + step, n))
