"""Indexes of Gingham as those of faiss, where they may be searched, on a device too: nothing is trained anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.fast_scan import FastScan
from gingham.codecs.nibble_blocks import NibbleBlocks, take
from gingham.codecs.opq import OPQ
from gingham.codecs.pipeline import Pipeline
from gingham.codecs.product import ProductQuantizer
from gingham.codecs.protocol import Codes
from gingham.codecs.rotation import Rotate
from gingham.codecs.scalar import Float
from gingham.errors import InvalidArgument, NotReady
from gingham.index.faiss_access import load_faiss
from gingham.index.flat import Flat
from gingham.index.hnsw import EF_SEARCH, HNSW
from gingham.index.ivf import IVF, NPROBE
from gingham.parallel import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.protocol import Codec
    from gingham.index.code_lists import CodeLists
    from gingham.index.graph import Graph
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

BLOCK_ROWS = 65_536
UNIT_TOLERANCE = 1e-4
"""How far from one lengths of centroids may be for products to order them as distances do."""


@dataclass(frozen=True, eq=False)
class _Product:
    """A product quantizer as faiss has it.

    Attributes
    ----------
    matrix : float32 (m * dsub, dim) with orthonormal columns, in front of it; None for none
    codebooks : float32 (m, 2^bits, dsub)
    bits : of a code: 4, 8, 12 or 16
    """

    matrix: Array | None
    codebooks: Array
    bits: int

    def codes(self, codes: Codes) -> Array:
        """Codes of all rows, uint8 (n, ceil(m bits / 8)), the least bit first."""
        if self.bits != 4:
            return np.ascontiguousarray(codes.arrays["rows"])
        values = NibbleBlocks(len(self.codebooks)).unpack(codes.arrays["blocks"], 0, codes.n)
        values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
        pairs: Array = values[:, 0::2] | values[:, 1::2] << 4
        return pairs

    def into(self, faiss: Any, target: Any) -> Any:
        """``target``, an IndexPQ or IndexIVFPQ, with these codebooks."""
        faiss.copy_array_to_vector(np.ascontiguousarray(self.codebooks, np.float32).ravel(), target.pq.centroids)
        target.is_trained = True
        return target

    def behind(self, faiss: Any, target: Any) -> Any:
        """``target`` with the matrix in front."""
        if self.matrix is None:
            return target
        turn = faiss.LinearTransform(self.matrix.shape[1], self.matrix.shape[0], False)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.matrix, np.float32).ravel(), turn.A)
        turn.is_trained = True
        turn.set_is_orthonormal()
        return faiss.IndexPreTransform(turn, target)


def to_faiss(index: Flat | IVF | HNSW, *, ids: object = None, vectors: bool = False) -> Any:
    """The same rows in an index of faiss, which finds what this one finds.

    Parameters
    ----------
    index : floats (F32, F16, BF16) become IndexFlat, IndexIVFFlat and IndexHNSWFlat with the lists and links there are;
        product codes of a flat index (PQ x4fs, x8, x12, x16) become IndexPQ, those of lists (PQ x4fs) IndexIVFPQ
        without residuals, behind an IndexPreTransform where OPQ or Rotate stand in front
    ids : int (n,), what faiss is to call the rows, from ``add`` of all rows, deleted ones too; None takes their numbers
    vectors : export any codec as floats: the vectors kept for rescoring, else those that the codes stand for

    Returns
    -------
    faiss.Index : on the CPU; ``faiss.index_cpu_to_gpu`` takes lists and flat indexes of floats to a device, but product
        codes only with residuals. ``"l2"`` becomes METRIC_L2, whose distances are the scores without their minus;
        ``"dot"`` and ``"cosine"`` become METRIC_INNER_PRODUCT, under cosine over rows of length one: queries are to be
        of length one too (``faiss.normalize_L2``)

    Raises
    ------
    MissingExtra : faiss is not installed
    InvalidArgument : another kind of index, a codec that faiss does not have (``vectors=True`` exports it), ids that do
        not fit
    NotReady : a codec or lists that are not trained, or a graph with deleted rows

    Notes
    -----
    Vectors kept beside product codes stay here, so scores are those of ``keep=None``; those of PQ x4fs are rounded here
    by tables of bytes, in faiss they are not. Deleted rows of lists are left out, and so are second lists (``soar``).
    Lists begin with an ``nprobe`` of 16 and graphs with an ``efSearch`` of 64. Which lists are nearest is judged by
    codes of the centroids here, by the centroids in faiss, so lists of nearly the same distance may change places.
    """
    faiss = load_faiss("to_faiss()")
    if isinstance(index, Flat):
        return _flat(faiss, index, ids, vectors)
    if isinstance(index, IVF):
        return _lists(faiss, index, ids, vectors)
    if isinstance(index, HNSW):
        return _graph(faiss, index, ids, vectors)
    raise InvalidArgument(f"to_faiss(index) expects a Flat, IVF or HNSW of gingham.index, found {type(index).__name__}")


def _flat(faiss: Any, index: Flat, ids: object, vectors: bool) -> Any:
    codec, (codes, kept), n = index.codec, index._rows.joined(), len(index)
    metric, product = _metric(faiss, codec.metric), None if vectors else _product_of(codec)
    named = None if ids is None else _checked_ids(ids, n)
    if product is None:
        floats_of = _floats_of("Flat", codec, codes, kept, vectors)
        target = front = faiss.IndexFlat(codec.dim, metric)
        whole = front if named is None else faiss.IndexIDMap2(front)
        _add_floats(target, n, floats_of)
    else:
        m, _, dsub = product.codebooks.shape
        target = product.into(faiss, faiss.IndexPQ(m * dsub, m, product.bits, metric))
        front = product.behind(faiss, target)
        whole = front if named is None else faiss.IndexIDMap2(front)
        if n:
            target.add_sa_codes(product.codes(codes))
        front.ntotal = n
    return whole if named is None else _named(faiss, whole, named)


def _lists(faiss: Any, index: IVF, ids: object, vectors: bool) -> Any:
    state = index._state
    codec, lists, coarse = state.codec, state.lists, state.coarse
    product = None if vectors else _product_of(codec)
    named = np.arange(state.n) if ids is None else _checked_ids(ids, state.n)
    encode = _encoder(state, product, vectors)
    if coarse is None:
        raise NotReady("to_faiss(index) expects an IVF with centroids, found one that is not trained; add rows first")
    centroids = np.ascontiguousarray(coarse.centroids, np.float32)
    if product is not None and product.matrix is not None:
        with one_blas_thread():
            centroids = np.ascontiguousarray(centroids @ product.matrix.T)
    nlist, dim, metric = *centroids.shape, _metric(faiss, codec.metric)
    by_product = codec.metric == "dot" or (codec.metric == "cosine" and are_units(centroids, UNIT_TOLERANCE))
    quantizer = faiss.IndexFlatIP(dim) if by_product else faiss.IndexFlatL2(dim)
    quantizer.add(centroids)
    if product is None:
        target = faiss.IndexIVFFlat(quantizer, dim, nlist, metric)
    else:
        target = faiss.IndexIVFPQ(quantizer, dim, nlist, len(product.codebooks), product.bits, metric)
        target.by_residual = False
        product.into(faiss, target)
    target.is_trained, target.nprobe = True, min(NPROBE, nlist)
    if lists is not None:
        _fill(faiss, target, lists, named, state.dead, encode)
    whole = target if product is None else product.behind(faiss, target)
    whole.ntotal = target.ntotal
    return whole


def _encoder(state: Any, product: _Product | None, vectors: bool) -> Callable[[Array], Array]:
    """From places of lists to the bytes that faiss has for them, uint8 (m, bytes)."""
    lists = state.lists
    codes, rows = (Codes(0, {}), None) if lists is None else (lists.codes, lists.rows)
    if product is not None:
        return lambda at: product.codes(take(codes, at))
    floats_of = _floats_of("IVF", state.codec, codes, state.kept, vectors, rows)
    return lambda at: floats_of(at).view(np.uint8)


def _fill(
    faiss: Any, target: Any, lists: CodeLists, named: Array, dead: Array | None, encode: Callable[[Array], Array]
) -> None:
    """Move the rows of each list, by their first lists."""
    counts = lists.sizes if lists.firsts is None else lists.firsts
    for number, (start, count) in enumerate(zip(lists.starts.tolist(), counts.tolist(), strict=True)):
        deadline.check()
        places = np.arange(start, start + count)
        if dead is not None:
            places = places[~dead[lists.rows[places]]]
        if len(places):
            ids, stored = np.ascontiguousarray(named[lists.rows[places]]), np.ascontiguousarray(encode(places))
            target.invlists.add_entries(number, len(places), faiss.swig_ptr(ids), faiss.swig_ptr(stored))
            target.ntotal += len(places)


def _graph(faiss: Any, index: HNSW, ids: object, vectors: bool) -> Any:
    if index._counts[0]:
        raise NotReady(
            f"to_faiss(index) expects a graph without deleted rows, found {index._counts[0]}, of which faiss has none; "
            "build it anew from the rows that remain"
        )
    index.freeze()
    codec, (codes, kept), graph, n = index.codec, index._rows.joined(), index._graph, len(index)
    named = None if ids is None else _checked_ids(ids, n)
    floats_of = _floats_of("HNSW", codec, codes, kept, vectors)
    target = faiss.IndexHNSWFlat(codec.dim, index._m, _metric(faiss, codec.metric))
    target.hnsw.efConstruction, target.hnsw.efSearch = index._ef_construction, EF_SEARCH
    whole = target if named is None else faiss.IndexIDMap2(target)
    if graph is not None:
        _add_floats(target.storage, n, floats_of)
        _link(faiss, target.hnsw, graph, floats_of)
        target.ntotal = n
    return whole if named is None else _named(faiss, whole, named)


def _link(faiss: Any, hnsw: Any, graph: Graph, floats_of: Callable[[Array], Array]) -> None:
    """Write links and layers as faiss has them: of each row those of all its levels, one after the other.

    Notes
    -----
    Searches of faiss begin at one row of the uppermost layer, of which ours score all: its rows are linked with each
    other, the nearest first.
    """
    n, width = len(graph), max(graph.layers.shape[1], -(-graph.links.shape[1] // 2))
    sizes, last = np.diff(graph.starts), len(graph.starts) - 1
    levels = np.zeros(n, np.int32)
    for number, start in enumerate(graph.starts[:-1].tolist()):
        nodes = graph.nodes[start : start + sizes[number]]
        levels[nodes] = np.maximum(levels[nodes], last - number)
    room = np.concatenate([[0], 2 * width + width * np.arange(max(last, 1) + 1)])
    offsets = np.concatenate([[0], np.cumsum(room[levels + 1])])
    neighbors = np.full(int(offsets[-1]), -1, np.int32)
    _put(neighbors, offsets[:-1], np.where(graph.links < n, graph.links.astype(np.int64), -1))
    for number, start in enumerate(graph.starts[:-1].tolist()):
        nodes, level = graph.nodes[start : start + sizes[number]], last - number
        found = graph.layers[start : start + sizes[number]].astype(np.int64)
        linked = np.where(found < sizes[number], nodes[np.minimum(found, sizes[number] - 1)].astype(np.int64), -1)
        if not number:
            linked = _near_each_other(floats_of(nodes.astype(np.int64)), nodes, width)
        _put(neighbors, offsets[nodes] + room[level], linked)
    for array, vector in (
        (levels + 1, hnsw.levels), (offsets.astype(np.uint64), hnsw.offsets), (neighbors, hnsw.neighbors),
        (room.astype(np.int32), hnsw.cum_nneighbor_per_level),
    ):  # fmt: skip
        faiss.copy_array_to_vector(array, vector)
    hnsw.max_level, hnsw.entry_point = last, int(graph.nodes[0])


def _put(neighbors: Array, places: Array, links: Array) -> None:
    """Write lines of links, -1 after the last, from their places on."""
    for start in range(0, len(links), BLOCK_ROWS):
        deadline.check()
        part = slice(start, start + BLOCK_ROWS)
        neighbors[places[part, None] + np.arange(links.shape[1])] = links[part]


def _near_each_other(rows: Array, nodes: Array, width: int) -> Array:
    """The nearest others of few rows, int64 (n, up to width)."""
    far = np.square(rows[:, None] - rows).sum(axis=2)
    np.fill_diagonal(far, np.inf)
    order = np.argsort(far, axis=1, kind="stable")[:, : min(width, len(rows) - 1)]
    return nodes.astype(np.int64)[order]


def _add_floats(target: Any, n: int, floats_of: Callable[[Array], Array]) -> None:
    for start in range(0, n, BLOCK_ROWS):
        deadline.check()
        target.add(floats_of(np.arange(start, min(n, start + BLOCK_ROWS))))


def _floats_of(
    kind: str, codec: Codec, codes: Codes, kept: Array | None, vectors: bool, rows: Array | None = None
) -> Callable[[Array], Array]:
    """From positions of codes, int64 (m,), to vectors float32 (m, dim).

    Parameters
    ----------
    rows : the row of each position, by which vectors are kept; None where it is the position
    """
    if not vectors and not isinstance(codec, Float):
        products = {"Flat": ", PQ of x4fs, x8, x12 or x16", "IVF": ", PQ of x4fs"}.get(kind, "")
        raise InvalidArgument(
            f"to_faiss(index) expects floats (F32, F16, BF16){products} of {kind}, behind OPQ or Rotate at most, found "
            f"{codec.spec!r}; to_faiss(index, vectors=True) exports its rows as floats"
        )

    def floats_of(at: Array) -> Array:
        if kept is not None:
            return np.ascontiguousarray(kept[at if rows is None else rows[at]], np.float32)
        return np.ascontiguousarray(codec.decode(take(codes, at)), np.float32)

    return floats_of


def _product_of(codec: Codec) -> _Product | None:
    """What faiss has for the codec, if that is product quantization, maybe of rotated vectors."""
    transforms, inner = (codec.transforms, codec.codec) if isinstance(codec, Pipeline) else ((), codec)
    if not isinstance(inner, (ProductQuantizer, FastScan)) or not all(isinstance(t, (OPQ, Rotate)) for t in transforms):
        return None
    if not codec.trained:
        raise NotReady(f"to_faiss(index) expects a trained codec, found {codec.spec!r} that is not; train it first")
    books = inner.arrays()["codebooks"]
    m, k, dsub = books.shape
    turned = np.eye(codec.dim, dtype=np.float32)
    for transform in transforms:
        turned = np.ascontiguousarray(transform.apply(turned))
    padded = np.pad(turned, ((0, 0), (0, m * dsub - turned.shape[1])))
    matrix = np.ascontiguousarray(padded.T) if transforms or padded.shape[1] > codec.dim else None
    return _Product(matrix, books, k.bit_length() - 1)


def _metric(faiss: Any, metric: Metric) -> Any:
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


def _checked_ids(ids: object, n: int) -> Array:
    """Int64 (n,)."""
    found = np.asarray(ids)
    if found.dtype.kind not in "iu" or found.shape != (n,):
        raise InvalidArgument(f"to_faiss(ids=) expects {n} integers, found {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)


def _named(faiss: Any, whole: Any, named: Array) -> Any:
    """An IndexIDMap2, made while the index within was empty, with the ids of the rows there now."""
    faiss.copy_array_to_vector(named, whole.id_map)
    whole.ntotal = len(named)
    whole.construct_rev_map()
    return whole


def are_units(rows: Array, tolerance: float) -> bool:
    """Whether all rows have the length one, or zero."""
    lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return bool(((np.abs(lengths - 1) <= tolerance) | (lengths == 0)).all())
