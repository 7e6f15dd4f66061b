"""Indexes of faiss as those of Gingham: centroids, lists, codebooks and codes are kept, nothing is trained anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham import deadline
from gingham.codecs.nibble_blocks import NibbleBlocks
from gingham.codecs.pipeline import Pipeline
from gingham.errors import InvalidArgument, NotReady
from gingham.index.code_lists import CodeLists
from gingham.index.coded_rows import under
from gingham.index.faiss_access import is_wrapper, load_faiss, metrics_of, opened
from gingham.index.faiss_export import BLOCK_ROWS, are_units
from gingham.index.flat import Flat
from gingham.index.graph_import import adopted, read_faiss
from gingham.index.ivf import IVF
from gingham.parallel import one_blas_thread
from gingham.schema import MOST_LISTS

if TYPE_CHECKING:
    from gingham.index.coded_rows import Keep
    from gingham.index.hnsw import HNSW
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

FLATS = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexPQ", "IndexScalarQuantizer")
LISTS = ("IndexIVFFlat", "IndexIVFPQ", "IndexIVFScalarQuantizer")
LINEAR = (
    "LinearTransform", "OPQMatrix", "PCAMatrix", "RandomRotationMatrix", "RemapDimensionsTransform",
    "CenteringTransform",
)  # fmt: skip
FLOATS = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexIVFFlat", "IndexHNSWFlat", "IndexHNSWCagra")
PRODUCT_BITS = {4: "x4fs", 8: "x8", 12: "x12", 16: "x16"}
ORTHONORMAL_TOLERANCE = 1e-3
LENGTH_TOLERANCE = 1e-2
"""How far from one lengths may be of rows that were normalized and then maybe coded in a byte a dimension."""


@dataclass(frozen=True, eq=False)
class _Turn:
    """What faiss does to vectors and queries before an index sees them: ``matrix @ x + offset``.

    Attributes
    ----------
    matrix : float32 (out_dim, dim), with orthonormal lines or columns
    offset : float32 (out_dim,)
    """

    matrix: Array
    offset: Array

    @property
    def shifts(self) -> bool:
        """Whether the offset is not zero."""
        return bool(np.abs(self.offset).max(initial=0) > 0)

    def undone(self, rows: Array) -> Array:
        """Rows float32 (n, out_dim) where they came from, (n, dim), without what the matrix dropped."""
        out = np.empty((len(rows), self.matrix.shape[1]), np.float32)
        for start in range(0, len(rows), BLOCK_ROWS):
            deadline.check()
            part = slice(start, start + BLOCK_ROWS)
            with one_blas_thread():
                out[part] = (rows[part] - self.offset) @ self.matrix
        return out


@dataclass(frozen=True, eq=False)
class _Source:
    """An index of faiss without what is around it.

    Attributes
    ----------
    whole : with what is around it, which owns it
    index : of the rows
    dim : dimensions that vectors come with
    metric : of the result
    turn : in front of the index, or None
    labels : int64 (n,), what is around the index calls its ids, or None
    """

    whole: Any
    index: Any
    dim: int
    metric: Metric
    turn: _Turn | None
    labels: Array | None

    @property
    def kind(self) -> str:
        """Its class."""
        return type(self.index).__name__

    def named(self, ids: Array) -> Array:
        """Labels of rows with these ids in the index."""
        return ids if self.labels is None else self.labels[ids]

    def undone(self, rows: Array) -> Array:
        """Rows as vectors come."""
        return np.ascontiguousarray(rows, np.float32) if self.turn is None else self.turn.undone(rows)

    def checked(self, rows: Array) -> Array:
        """Rows as vectors come, finite, and of length one under cosine unless they stand for others."""
        wider = self.turn is not None and len(self.turn.matrix) > self.dim
        if wider and self.metric == "l2" and self.kind not in FLOATS:
            raise InvalidArgument(
                f"from_faiss(source) expects codes of at most the {self.dim} dimensions that vectors have, as what "
                f"codes stand for in others counts for distances, found {self.index.d}"
            )
        out = self.undone(rows)
        if not np.isfinite(out).all():
            raise InvalidArgument("from_faiss(source) expects finite numbers in all rows, found others")
        if self.metric == "cosine" and self.kind in FLOATS and not are_units(out, LENGTH_TOLERANCE):
            raise InvalidArgument(
                "from_faiss(metric='cosine') expects rows of length one, found others; faiss scores these by their "
                "inner products, which is metric='dot'"
            )
        return out


def from_faiss(
    source: Any,
    *,
    metric: Metric | None = None,
    codec: str | None = None,
    keep: Keep | Literal["auto"] = "auto",
) -> tuple[Flat | IVF | HNSW, Array]:
    """Take over an index of faiss, which finds what it found there.

    Parameters
    ----------
    source : an index of faiss on the CPU or a device, or the path of a file that ``faiss.write_index`` wrote:
        IndexFlat, IndexPQ and IndexScalarQuantizer become a Flat; IndexIVFFlat, IndexIVFPQ and IndexIVFScalarQuantizer
        an IVF of their centroids and lists; IndexHNSW and GpuIndexCagra an HNSW of their links. Around these may stand
        IndexIDMap and IndexPreTransform, of transforms that keep distances (OPQ, rotations, PCA without whitening)
    metric : ``"l2"`` for METRIC_L2, ``"dot"`` for METRIC_INNER_PRODUCT, or ``"cosine"`` for that over rows of length
        one; None takes the first two, and the third where faiss normalizes vectors (L2norm)
    codec : that rows are encoded with; None keeps product codes where there is a codec for them (PQ of 4 bits without
        residuals; in flat indexes also of 8, 12 and 16 bits), and takes F32 for all others, which holds what faiss
        decodes their codes to: 4 bytes a dimension, of which ``"LVQ8"`` takes a quarter. Without rows, a codec learns
        from the centroids
    keep : as of :class:`gingham.index.Flat`

    Returns
    -------
    tuple : the index, and the ids int64 (n,) that its rows had in faiss: ``labels[rows]`` for rows that a search found.
        Rows of lists are in the order of their ids; labels are not kept by ``save``

    Raises
    ------
    MissingExtra : faiss is not installed
    NotFound, Corrupt : there is no such file, or faiss cannot read it
    NotReady : the index is not trained
    InvalidArgument : a kind of index or of transform that cannot be taken over, or a metric that is not the index's

    Notes
    -----
    A trained index without rows gives its centroids and codebooks, and ``add`` goes on with them. Lists of the
    quantizer are searched by our own scan of the centroids, whatever faiss finds them by.
    """
    faiss = load_faiss("from_faiss()")
    found = _unwrapped(faiss, opened(faiss, source), metric)
    if not found.index.is_trained:
        raise NotReady(f"from_faiss(source) expects a trained index, found an {found.kind} that is not; train it first")
    if found.kind in LISTS:
        return _lists(faiss, found, codec, keep)
    if found.kind in FLATS:
        return _flat(faiss, found, codec, keep)
    peer = read_faiss(faiss, found.index, found.metric, found.named(np.arange(found.index.ntotal)))
    return adopted(replace(peer, vectors=found.checked(peer.vectors)), codec or "F32", keep)


def _unwrapped(faiss: Any, source: Any, metric: Metric | None) -> _Source:
    """The index within, or InvalidArgument that says what can be taken over."""
    labels, parts, index = None, [], source
    while is_wrapper(faiss, index):
        if isinstance(index, faiss.IndexPreTransform):
            parts += [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        else:
            numbers = faiss.vector_to_array(index.id_map).astype(np.int64)
            labels = numbers if labels is None else labels[numbers]
        index = faiss.downcast_index(index.index)
    kind, known = type(index).__name__, metrics_of(faiss).get(getattr(index, "metric_type", None))
    if known is None or not (kind in FLATS + LISTS or (kind.startswith("IndexHNSW") and hasattr(index, "hnsw"))):
        raise InvalidArgument(
            f"from_faiss(source) expects a path or an index of METRIC_L2 or METRIC_INNER_PRODUCT, one of "
            f"{', '.join(FLATS + LISTS)} or IndexHNSW, in IndexIDMap or IndexPreTransform, found {kind}"
        )
    unit = bool(parts) and known == "dot" and _normalizes(parts[0])
    default: Metric = "cosine" if unit else known
    if metric not in (None, default) and not (metric == "cosine" and known == "dot"):
        raise InvalidArgument(f"from_faiss(metric=) expects {default!r}, that of the index, found {metric!r}")
    turn = _turn_of(parts[unit:], known)
    return _Source(source, index, source.d, metric or default, turn, labels)


def _normalizes(part: Any) -> bool:
    return type(part).__name__ == "NormalizationTransform" and part.norm == 2


def _turn_of(parts: list[Any], metric: Metric) -> _Turn | None:
    """All transforms as one."""
    if not parts:
        return None
    for part in parts:
        if type(part).__name__ not in LINEAR:
            raise InvalidArgument(
                f"from_faiss(source) expects transforms of {', '.join(LINEAR)}, or a NormalizationTransform before all "
                f"others under inner product, found {type(part).__name__}"
            )
        if not part.is_trained:
            raise NotReady(
                f"from_faiss(source) expects a trained index, found a {type(part).__name__} that is not; train it first"
            )
    dim = parts[0].d_in
    images = np.concatenate([np.zeros((1, dim), np.float32), np.eye(dim, dtype=np.float32)])
    for part in parts:
        images = part.apply(images)
    turn = _Turn(np.ascontiguousarray((images[1:] - images[0]).T), images[0].copy())
    small = turn.matrix if len(turn.matrix) <= dim else turn.matrix.T
    if np.abs(small @ small.T - np.eye(len(small))).max() > ORTHONORMAL_TOLERANCE:
        raise InvalidArgument(
            f"from_faiss(source) expects transforms that keep distances, as OPQ and PCA without whitening do, found "
            f"{', '.join(type(part).__name__ for part in parts)} that do not"
        )
    if turn.shifts and metric == "dot":
        raise InvalidArgument(
            "from_faiss(source) expects no transform that moves the origin under inner product, which no metric here "
            "scores, found one"
        )
    padding = np.array_equal(turn.matrix, np.eye(*turn.matrix.shape)) and not turn.shifts
    return None if padding and len(turn.matrix) == dim else turn


def _flat(faiss: Any, found: _Source, codec: str | None, keep: Keep | Literal["auto"]) -> tuple[Flat, Array]:
    source, n = found.index, found.index.ntotal
    labels, spec = found.named(np.arange(n)), codec or "F32"
    parts = _product_parts(faiss, found) if codec is None and found.kind == "IndexPQ" else None
    if parts is not None:
        _refuse_kept(keep)
        about = {"dim": found.dim, "metric": found.metric, "codec": parts[0], "keep": None, "seed": 0, "n": n}
        codes = _stored(faiss, source) if n else {}
        arrays = parts[1] | {f"codes.{name}": array for name, array in codes.items()}
        return Flat._loaded(about | {"trained": True}, arrays, "cpu"), labels
    index = Flat(found.dim, metric=found.metric, codec=spec, keep=keep)
    if n:
        index._rows.append(*index._rows.encoded(found.checked(source.reconstruct_n(0, n))))
    return index, labels


def _stored(faiss: Any, source: Any) -> dict[str, Array]:
    """Codes of an IndexPQ as ours."""
    rows = faiss.vector_to_array(source.codes).reshape(source.ntotal, source.code_size)
    if source.pq.nbits != 4:
        return {"rows": rows}
    values = np.stack([rows & 15, rows >> 4], axis=2).reshape(len(rows), -1)[:, : source.pq.M]
    return {"blocks": NibbleBlocks(source.pq.M).pack(np.ascontiguousarray(values))}


def _product_parts(faiss: Any, found: _Source) -> tuple[str, dict[str, Array]] | None:
    """Spec and arrays of a codec that has the codebooks of an IndexPQ or IndexIVFPQ; None where there is none."""
    pq, turn, dim = found.index.pq, found.turn, found.dim
    if pq.nbits not in PRODUCT_BITS:
        return None
    spec = f"PQ{pq.M}{PRODUCT_BITS[pq.nbits]}"
    books = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    if turn is None:
        return spec, {"codec.codebooks": books}
    out, least = len(turn.matrix), -(-dim // pq.M) * pq.M
    if pq.nbits != 4 and out == least and np.array_equal(turn.matrix, np.eye(out, dim)) and not turn.shifts:
        return spec, {"codec.codebooks": books}
    front: dict[str, Array] = {"codec.codec.codebooks": books}
    if out == least and not turn.shifts:
        return f"OPQ,{spec}", front | {"codec.0.matrix": turn.matrix}
    if out <= dim:
        mean = -turn.offset @ turn.matrix
        return f"PCA{out},{spec}", front | {"codec.0.mean": mean, "codec.0.data": turn.matrix}
    return None


def _lists(faiss: Any, found: _Source, codec: str | None, keep: Keep | Literal["auto"]) -> tuple[IVF, Array]:
    source, parts = found.index, None
    if source.nlist > MOST_LISTS:
        raise InvalidArgument(f"from_faiss(source) expects at most {MOST_LISTS} lists, found {source.nlist}")
    if codec is None and found.kind == "IndexIVFPQ" and source.pq.nbits == 4 and not source.by_residual:
        parts = _product_parts(faiss, found)
    if parts is not None:
        _refuse_kept(keep)
        keep = None
    spec, arrays = parts or (codec or "F32", {})
    rows = IVF(found.dim, metric=found.metric, nlist=source.nlist, codec=spec, keep=keep)._rows
    centroids = found.undone(source.quantizer.reconstruct_n(0, source.nlist))
    ids, lists, vectors = _read_lists(faiss, source)
    if parts is not None:
        known = rows.codec.with_arrays(under("codec.", arrays))
        encoder = known.codec if isinstance(known, Pipeline) else known
    else:
        vectors = found.checked(vectors)
        known = encoder = rows.trained_on(vectors if len(ids) else centroids)
    arrays |= {f"codec.{name}": array for name, array in known.arrays().items()} | {"centroids": centroids}
    if len(ids):
        arrays |= CodeLists.of(encoder, vectors.__getitem__, lists, source.nlist).arrays()
        kept = rows.kept_of(vectors)
        arrays |= {} if kept is None else {"kept": kept}
    about = {
        "n": len(ids), "dim": found.dim, "metric": found.metric, "codec": spec, "keep": rows.keep, "trained": True,
        "seed": 0, "nlist": source.nlist, "changes": 0, "soar": False,
    }  # fmt: skip
    index = IVF._loaded(about, arrays)
    if len(ids):
        index.calibrate()
    return index, found.named(ids)


def _read_lists(faiss: Any, source: Any) -> tuple[Array, Array, Array]:
    """Ids of all rows, ascending, the list of each, int64 (n,), and what their codes stand for, float32 (n, dim)."""
    sizes = np.array([source.invlists.list_size(number) for number in range(source.nlist)], np.int64)
    starts, n, width = np.cumsum(sizes) - sizes, int(sizes.sum()), source.coarse_code_size()
    ids = np.empty(n, np.int64)
    filled = [(number, int(starts[number]), int(sizes[number])) for number in np.flatnonzero(sizes).tolist()]
    for number, start, size in filled:
        ids[start : start + size] = faiss.rev_swig_ptr(source.invlists.get_ids(number), size)
    order = np.argsort(ids, kind="stable")
    places, vectors = np.empty(n, np.int64), np.empty((n, source.d), np.float32)
    places[order] = np.arange(n)
    for number, start, size in filled:
        deadline.check()
        codes = np.empty((size, width + source.code_size), np.uint8)
        codes[:, :width] = np.frombuffer(number.to_bytes(width, "little"), np.uint8)
        own = faiss.rev_swig_ptr(source.invlists.get_codes(number), size * source.code_size)
        codes[:, width:] = own.reshape(size, source.code_size)
        vectors[places[start : start + size]] = source.sa_decode(codes)
    return ids[order], np.repeat(np.arange(source.nlist), sizes)[order], vectors


def _refuse_kept(keep: Keep | Literal["auto"]) -> None:
    if keep not in ("auto", None):
        raise InvalidArgument(
            f"from_faiss(keep=) expects None for product codes, beside which faiss has no vectors, found {keep!r}"
        )
