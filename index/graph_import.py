"""Indexes of hnswlib and faiss as those of Gingham: their links are kept, their vectors are encoded.

A file of hnswlib 0.8 is little-endian: a header (:data:`_HEADER`); then of each row the number of its links as u16, a
byte whose lowest bit marks it deleted, a byte unused, room for ``max_m0`` links as u32, the vector as float32, and the
label as u64; then of each row the bytes of its lists above as u32, and of each level from 1 the number of links as
u16, two bytes unused, and room for ``max_m`` links.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham import deadline
from gingham.errors import Corrupt, InvalidArgument, NotFound
from gingham.index.faiss_access import load_faiss, metrics_of, opened
from gingham.index.graph import TOP_NODES, Graph
from gingham.index.hnsw import HNSW

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.index.coded_rows import Keep
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

NONE = np.uint32(0xFFFFFFFF)
BLOCK_ROWS = 65_536
_HEADER = np.dtype(
    [("level0", "<u8"), ("capacity", "<u8"), ("n", "<u8"), ("size", "<u8"), ("label", "<u8"), ("vector", "<u8"),
     ("top", "<i4"), ("entry", "<u4"), ("max_m", "<u8"), ("max_m0", "<u8"), ("m", "<u8"), ("mult", "<f8"),
     ("ef_construction", "<u8")]
)  # fmt: skip
_SPACES: dict[str, Metric] = {"l2": "l2", "ip": "dot", "cosine": "cosine"}


@dataclass(frozen=True)
class Peer:
    """An index of another library.

    Attributes
    ----------
    vectors : (n, dim)
    links : uint32 (n, up to 2 m), :data:`NONE` after the last
    levels : int64 (n,), the highest of each row, 0 where it is in no layer
    links_at : from a level and rows of it, int64 (r,), to their links there, uint32 (r, up to m)
    deleted : bool (n,)
    """

    metric: Metric
    m: int
    ef_construction: int
    vectors: Array
    labels: Array
    links: Array
    levels: Array
    links_at: Callable[[int, Array], Array]
    deleted: Array


def from_hnswlib(
    source: Any,
    *,
    metric: Metric | None = None,
    dim: int | None = None,
    codec: str | None = None,
    keep: Keep | Literal["auto"] = "auto",
) -> tuple[HNSW, Array]:
    """Take over an index of hnswlib: its links as they are, in rows by its internal numbers.

    Parameters
    ----------
    source : path of a file that ``save_index`` wrote, or an ``hnswlib.Index``
    metric : what the index was made for: ``"l2"`` for space l2, ``"dot"`` for ip, ``"cosine"``; a file does not say, so
        there it is needed
    dim : checked where given
    codec, keep : as of :class:`gingham.index.HNSW`

    Returns
    -------
    tuple : the index, in which what was deleted is, and the labels int64 (n,) of its rows: ``labels[rows]`` for rows
        that a search found; they are not kept by ``save``

    Raises
    ------
    NotFound : there is no such file
    Corrupt : it was not saved by hnswlib 0.8, or is cut short or damaged
    InvalidArgument : another kind of source, a metric or dimensions that are not those of the index, or more than 512
        links

    Notes
    -----
    hnswlib need not be installed. With the codec ``"F32"`` a search finds what one of hnswlib finds at the same ``ef``.
    """
    if isinstance(source, (str, os.PathLike)):
        return adopted(_read_hnswlib(Path(source), metric, dim), codec, keep)
    if not hasattr(source, "save_index") or getattr(source, "space", None) not in _SPACES:
        raise InvalidArgument(
            f"from_hnswlib(source) expects a path or an hnswlib.Index of space l2, ip or cosine, "
            f"found {type(source).__name__}"
        )
    found = _SPACES[source.space]
    if metric not in (None, found):
        raise InvalidArgument(f"from_hnswlib(metric=) expects {found!r}, that of the index, found {metric!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        source.save_index(str(path))
        return adopted(_read_hnswlib(path, found, source.dim if dim is None else dim), codec, keep)


def from_faiss(source: Any, *, codec: str | None = None, keep: Keep | Literal["auto"] = "auto") -> tuple[HNSW, Array]:
    """Take over an IndexHNSWFlat, IndexHNSWSQ, IndexHNSWCagra or another IndexHNSW of faiss, its links as they are.

    Parameters
    ----------
    source : the index, also within an IndexIDMap, a GpuIndexCagra, or the path of a file that ``faiss.write_index``
        wrote
    codec, keep : as of :class:`gingham.index.HNSW`; vectors are those that faiss reconstructs

    Returns
    -------
    tuple : the index, and the labels int64 (n,) of its rows: those of the IndexIDMap, else the numbers from 0

    Raises
    ------
    MissingExtra : faiss is not installed
    NotFound, Corrupt : there is no such file, or faiss cannot read it
    InvalidArgument : another kind of index, a metric that is neither METRIC_L2 nor METRIC_INNER_PRODUCT, or more than
        512 links

    Notes
    -----
    METRIC_L2 becomes ``"l2"``, METRIC_INNER_PRODUCT ``"dot"``, which scores vectors of length one as cosine does.
    """
    faiss = load_faiss("from_faiss()")
    source = whole = opened(faiss, source)
    labels = np.arange(getattr(source, "ntotal", 0), dtype=np.int64)
    if hasattr(source, "id_map"):
        labels, source = faiss.vector_to_array(source.id_map), faiss.downcast_index(source.index)
    metric = metrics_of(faiss).get(getattr(source, "metric_type", None))
    if not hasattr(source, "hnsw") or metric is None:
        raise InvalidArgument(
            f"from_faiss(source) expects a path or an IndexHNSW of METRIC_L2 or METRIC_INNER_PRODUCT, "
            f"found {type(source).__name__}"
        )
    peer = read_faiss(faiss, source, metric, labels)
    del whole  # which owned what was read
    return adopted(peer, codec, keep)


def read_faiss(faiss: Any, source: Any, metric: Metric, labels: Array) -> Peer:
    """An IndexHNSW of faiss, with labels int64 (n,) of its rows."""
    graph, n = source.hnsw, source.ntotal
    offsets, levels = (faiss.vector_to_array(a).astype(np.int64) for a in (graph.offsets, graph.levels))
    cumulated = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    neighbors = faiss.vector_to_array(graph.neighbors)
    m = max(2, int(cumulated[2] - cumulated[1]), -(-int(cumulated[1]) // 2))

    def links_at(level: int, rows: Array) -> Array:
        places = offsets[rows, None] + np.arange(cumulated[level], cumulated[level + 1])
        return _ended(neighbors[places].astype(np.uint32), n)

    links = np.full((n, int(cumulated[1])), NONE)
    for start in range(0, n, BLOCK_ROWS):
        deadline.check()
        rows = np.arange(start, min(n, start + BLOCK_ROWS))
        links[rows] = links_at(0, rows)
    vectors = source.reconstruct_n(0, n) if n else np.empty((0, source.d), np.float32)
    return Peer(
        metric, m, max(m, graph.efConstruction), vectors, labels, links, levels - 1, links_at, np.zeros(n, np.bool_)
    )


def _read_hnswlib(path: Path, metric: Metric | None, dim: int | None) -> Peer:
    if metric is None:
        raise InvalidArgument(
            "from_hnswlib(metric=) expects 'cosine', 'dot' or 'l2', which a file does not say, found None"
        )
    try:
        data = np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        raise NotFound(f"from_hnswlib(source) expects a file, found none at {str(path)!r}") from None
    except ValueError:
        raise Corrupt(f"from_hnswlib(source) expects a file of hnswlib, found {str(path)!r} empty") from None
    header = _header(data)
    rows = _rows_of(header, data, path)
    width = rows.dtype["vector"].shape[0]
    if dim not in (None, width):
        raise InvalidArgument(f"from_hnswlib(dim=) expects {width}, that of the vectors in the file, found {dim!r}")
    n, max_m = len(rows), header["max_m"]
    tail = data[_HEADER.itemsize + n * header["size"] :]
    levels, lists = _lists_above(tail[: len(tail) // 4 * 4].view("<u4"), n, max_m, path)
    if len(tail) % 4 or (n and levels.max() != header["top"]):
        raise _damaged(path)
    if (rows["count"] > header["max_m0"]).any():
        raise _damaged(path)
    links = np.where(np.arange(header["max_m0"]) < rows["count"][:, None], rows["links"], NONE)

    def links_at(level: int, nodes: Array) -> Array:
        found = np.stack([lists[v][level - 1] for v in nodes.tolist()])
        return np.where(np.arange(max_m) < (found[:, :1] & 0xFFFF), found[:, 1:], NONE)

    m = max(2, header["m"], header["max_m"], -(-header["max_m0"] // 2))
    return Peer(
        metric, m, max(m, header["ef_construction"]), rows["vector"], rows["label"].astype(np.int64),
        links, levels, links_at, (rows["flags"] & 1).astype(np.bool_),
    )  # fmt: skip


def _header(data: Array) -> dict[str, Any]:
    if len(data) < _HEADER.itemsize:
        return {}
    return dict(zip(_HEADER.names or (), data[: _HEADER.itemsize].view(_HEADER)[0].item(), strict=True))


def _rows_of(header: dict[str, Any], data: Array, path: Path) -> Array:
    """The rows of level 0, as they stand in the file."""
    if not header or header["level0"] or header["n"] > header["capacity"] or not 0 < header["max_m0"] < 1 << 16:
        raise _damaged(path)
    before, width = 4 * header["max_m0"] + 4, header["label"] - header["vector"]
    fits = header["vector"] == before and width > 0 and width % 4 == 0 and header["size"] == header["label"] + 8
    if not fits or _HEADER.itemsize + header["n"] * (header["size"] + 4) > len(data) or header["max_m"] >= 1 << 16:
        raise _damaged(path)
    kind = np.dtype(
        [("count", "<u2"), ("flags", "u1"), ("unused", "u1"), ("links", "<u4", (header["max_m0"],)),
         ("vector", "<f4", (width // 4,)), ("label", "<u8")]
    )  # fmt: skip
    end = _HEADER.itemsize + header["n"] * header["size"]
    return data[_HEADER.itemsize : end].view(kind)


def _lists_above(tail: Array, n: int, max_m: int, path: Path) -> tuple[Array, dict[int, Array]]:
    """Levels of all rows, and of those above 0 the lists of each level: uint32 (level, 1 + max_m), counts first."""
    levels, place = np.zeros(n, np.int64), 0
    lists: dict[int, Array] = {}
    for row in range(n):
        if not row % BLOCK_ROWS:
            deadline.check()
        if place >= len(tail):
            raise _damaged(path)
        size, place = int(tail[place]), place + 1
        if size:
            level, rest = divmod(size, 4 * (max_m + 1))
            end = place + size // 4
            if rest or end > len(tail):
                raise _damaged(path)
            levels[row], lists[row] = level, tail[place:end].reshape(level, max_m + 1)
            if (lists[row][:, 0] & 0xFFFF > max_m).any():
                raise _damaged(path)
            place = end
    if place != len(tail):
        raise _damaged(path)
    return levels, lists


def _damaged(path: Path) -> Corrupt:
    return Corrupt(
        f"from_hnswlib(source) expects a file that hnswlib 0.8 saved, found {str(path)!r} cut short or damaged"
    )


def _ended(links: Array, n: int) -> Array:
    """Links with nothing after the first number that is none."""
    return np.where(np.logical_or.accumulate(links >= n, axis=1), NONE, links)


def adopted(peer: Peer, codec: str | None, keep: Keep | Literal["auto"]) -> tuple[HNSW, Array]:
    """An index of the rows and links of another, and the labels of its rows."""
    from gingham.index import graph_build_kernels

    n, dim = peer.vectors.shape
    index = HNSW(dim, metric=peer.metric, m=peer.m, ef_construction=peer.ef_construction, codec=codec, keep=keep)
    if not n:
        return index, peer.labels
    if ((peer.links >= n) & (peer.links != NONE)).any():
        raise Corrupt(f"a graph expects links to its {n} rows, found one to row {peer.links[peer.links != NONE].max()}")
    nodes, layers, starts = _layers(peer, n)
    links = _padded(peer.links, 2 * peer.m)
    graph = Graph.from_arrays({"links": links, "nodes": nodes, "layers": layers, "starts": starts}, n)
    rows = index._rows.checked(peer.vectors, "the vectors")
    index._rows.append(*index._rows.encoded(rows))
    index._set_graph(graph)
    parents, queue = np.full(n, NONE), np.empty(n, np.uint32)
    index._unreachable = n - graph_build_kernels.mark_reachable(links, int(nodes[0]), parents, queue)
    index.delete(np.flatnonzero(peer.deleted))
    return index, peer.labels


def _layers(peer: Peer, n: int) -> tuple[Array, Array, Array]:
    """Nodes, links and starts of layers: a layer has all rows of its level and above, the highest first.

    Notes
    -----
    Where more rows than a search scans have the highest level, some of them become a layer of their own.
    """
    order = np.argsort(-peer.levels, kind="stable")
    place = np.empty(n, np.uint32)
    place[order] = np.arange(n, dtype=np.uint32)
    sizes, parts = [], []
    for level in range(int(peer.levels.max()), 0, -1):
        sizes.append(int(np.count_nonzero(peer.levels >= level)))
        found = peer.links_at(level, order[: sizes[-1]])
        known = found < n
        layer = np.where(known, place[np.where(known, found, 0)], NONE)
        if (known & (layer >= sizes[-1])).any() or (~known & (found != NONE)).any():
            raise Corrupt(f"level {level} of a graph expects links to its {sizes[-1]} rows, found one to another row")
        parts.append(_padded(layer, peer.m))
    if not sizes or sizes[0] > TOP_NODES:
        sizes.insert(0, min(n, TOP_NODES))
        parts.insert(0, np.full((sizes[0], peer.m), NONE))
    nodes = np.concatenate([order[:size] for size in sizes]).astype(np.uint32)
    return nodes, np.concatenate(parts), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _padded(links: Array, columns: int) -> Array:
    missing = ((0, 0), (0, columns - links.shape[1]))
    return np.ascontiguousarray(np.pad(links, missing, constant_values=NONE), np.uint32)
