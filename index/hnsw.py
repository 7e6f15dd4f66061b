"""The bare HNSW index: a graph over codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from gingham.errors import InvalidArgument, NotReady
from gingham.index.calibration import HELD_OUT, KS, Calibration, calibrate
from gingham.index.coded_rows import ROW_CODECS, CodedRows, checked_k, checked_numbers, padded, under
from gingham.index.container import save_arrays
from gingham.index.device_copies import DeviceCopies
from gingham.index.device_graphs import DeviceWalker
from gingham.index.graph import MOST_NODES, Graph
from gingham.index.graph_build import GraphBuilder
from gingham.index.graph_search import GraphSearch
from gingham.index.two_stage import search_codes
from gingham.index.working_rows import WorkingRows
from gingham.progress import progress_bar

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from gingham.codecs.protocol import Codec
    from gingham.index.coded_rows import Keep
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

M, EF_CONSTRUCTION, EF_SEARCH = 16, 128, 64
MOST_M, MOST_EF = 512, 1 << 20
NIBBLE_DIM = 96
"""Dimensions below which codes of four bits misjudge neighbours so often that those of eight find as many sooner."""
FREEZE_SHARE = 1 / 8
"""Share of new rows below which what building needs is kept for the rows to come, which will be few too."""
CONSOLIDATE_SHARE = 0.2
"""Share of deleted rows in the graph above which :meth:`HNSW.add` takes them out (Qdrant's vacuum)."""
MEAN_ROWS = 65_536


@dataclass(frozen=True)
class HNSWStats:
    """What an HNSW index holds.

    Attributes
    ----------
    n, dim : rows, deleted ones included, and dimensions
    deleted : rows deleted
    metric, codec, m, ef_construction : as given
    layers : above the graph of all rows
    mean_degree : links of a row
    unreachable : rows that no search can come to; 0 unless rows were added since in small numbers
    code_bytes, kept_bytes, link_bytes : of codes, of the vectors kept for rescoring, and of the graph
    building_bytes : kept for rows to come, until :meth:`HNSW.freeze`
    """

    n: int
    dim: int
    deleted: int
    metric: Metric
    codec: str
    m: int
    ef_construction: int
    layers: int
    mean_degree: float
    unreachable: int
    code_bytes: int
    kept_bytes: int
    link_bytes: int
    building_bytes: int


class HNSW:
    """A graph of near neighbours over coded vectors, with layers above it to begin at.

    Parameters
    ----------
    dim : dimensions, at least 1
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all, so l2 scores are negative
        squared distances
    m : a row has up to ``2 * m`` links, and ``m`` in the layers above, as in hnswlib and faiss; 2 to 512
    ef_construction : candidates that the links of a row are chosen from, at least ``m``
    codec : how rows are stored for the search; any whose rows can be scored one by one: F32, F16, BF16, SQ8, LVQ, and
        RaBitQ of 2 to 8 bits, with or without transforms; None takes LVQ4x8, and LVQ8 under 96 dimensions
    keep : the vectors kept beside the codes to rescore candidates from: ``"f16"``, ``"f32"`` or None for none; by
        default float16, or float32 where the first rows would lose by that what they differ in, but nothing where the
        codes have two levels, or 8 bits of each of at least 96 dimensions
    seed : of everything random
    device : what walks over the graph for batches of at least 512 queries (``"auto"``: 2,048) without a filter and
        without rows deleted since :meth:`consolidate`: ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` for an NVIDIA device,
        which keeps a copy of graph and codes, or ``"auto"`` for the first device where it works and has room, else the
        CPU. A device walks in another order, so it may find other rows, of the same recall or a better; their scores
        have the bits of those of the CPU

    Raises
    ------
    InvalidArgument : an option out of range, a codec that does not parse, does not fit or has no rows
    MissingExtra, NoDevice : a device is asked for and there is none

    Notes
    -----
    Layers and their descent are those of HNSW (Malkov and Yashunin 2016): a layer has 1/m of the rows of the one below,
    drawn at random. What differs: the uppermost layer has at most 32 rows, all of which are scored; rows are linked in
    batches, so that the graph is the same for any number of threads; neighbours are chosen by distances of vectors of a
    byte a dimension; rows that nothing leads to are found and linked.

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> index = gg.index.HNSW(8, metric="l2")
    >>> index.add(np.eye(8))
    range(0, 8)
    >>> scores, rows = index.search(np.eye(8)[3], 1)
    >>> rows
    array([[3]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        m: int = M,
        ef_construction: int = EF_CONSTRUCTION,
        codec: str | None = None,
        keep: Keep | Literal["auto"] = "auto",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        _in_range("HNSW(m=)", m, 2, MOST_M)
        _in_range("HNSW(ef_construction=)", ef_construction, m, MOST_EF)
        seed = _in_range("HNSW(seed=)", seed, 0, (1 << 64) - 1)
        if codec is None:
            codec = "LVQ8" if isinstance(dim, (int, np.integer)) and dim < NIBBLE_DIM else "LVQ4x8"
        self._rows = CodedRows("HNSW", dim, metric, codec, keep, seed)
        if not self._rows.scored_singly:
            raise InvalidArgument(
                f"HNSW(codec=) expects a codec whose rows are scored one by one, {', '.join(ROW_CODECS)} of 2 to 8 "
                f"bits, found {codec!r}; gingham.index.Flat takes any"
            )
        self._m, self._ef_construction = int(m), int(ef_construction)
        self._device = device
        if device != "cpu":
            DeviceCopies(device)  # tells what is wrong with it
        self._graph: Graph | None = None
        self._builder: GraphBuilder | None = None
        self._calibration: Calibration | None = None
        self._unreachable = 0
        self._dead: Array | None = None
        self._gone: Array | None = None
        self._counts = (0, 0)

    @cached_property
    def _search(self) -> GraphSearch:
        """Forgotten whenever rows come."""
        assert self._graph is not None
        return self._searcher(self._graph)

    @cached_property
    def _walker(self) -> DeviceWalker | None:
        """Over graph and rows as they are; forgotten, with what is on the device, whenever rows come."""
        if self._device == "cpu":
            return None
        assert self._graph is not None
        return DeviceWalker(DeviceCopies(self._device).of("graph"), self._graph)

    def _searcher(self, graph: Graph) -> GraphSearch:
        codes, kept = self._rows.joined()
        rescore = None if kept is None else self._rows.rescore
        present = None if self._dead is None else ~self._dead
        return GraphSearch(graph, self._rows.codec, codes, rescore, present=present)

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._rows.codec

    def __len__(self) -> int:
        return len(self._rows) - self._counts[0]

    def train(self, sample: object, *, queries: object = None) -> Self:
        """Train the codec; :meth:`add` does it by itself with its first rows.

        Parameters
        ----------
        sample : numbers (n, dim)
        queries : numbers (m, dim), queries such as those to come, for codecs that learn from them

        Raises
        ------
        NotReady : there are rows already, which only the codec they were encoded with can read
        InvalidArgument : not numbers of that shape, not finite, or too few rows for the codec
        """
        self._rows.train(sample, queries)
        return self

    def add(self, vectors: object) -> range:
        """Append rows, link them, and return the range of their numbers.

        Parameters
        ----------
        vectors : numbers (n, dim)

        Raises
        ------
        InvalidArgument : not numbers of that shape, not finite, or too few rows for a codec that is not trained; then,
            and where it is interrupted, the index is as before

        Notes
        -----
        O(n ef_construction m) distances, in the thread pool. Many rows at once are linked faster than one by one.
        """
        rows = self._rows.checked(vectors, "add(vectors)")
        first, n = len(self._rows), len(self._rows) + len(rows)
        if not len(rows):
            return range(first, first)
        if n > MOST_NODES:
            raise InvalidArgument(f"add(vectors) expects at most {MOST_NODES} rows in all, found {n}")
        if self._counts[0] - self._counts[1] > CONSOLIDATE_SHARE * (first - self._counts[1]):
            self.consolidate()
        codec, calibration, frozen = self._rows.codec, self._calibration, len(rows) >= FREEZE_SHARE * n
        try:
            self._rows.append(*self._rows.encoded(rows))
            builder = self._builder or self._new_builder(rows)
            builder.rows.append(len(rows), lambda part: rows[part])
            with progress_bar("Linking") as progress:
                builder.grow(
                    lambda done: progress(done, len(rows)),
                    held_out=partial(self._calibrate_held_out, builder) if frozen else None,
                )
            graph = builder.freeze() if frozen else builder.view()
        except BaseException:
            self._rows.truncate(first)
            self._rows.codec, self._calibration, self._builder = codec, calibration, None
            if self._graph is not None:
                self._set_graph(self._graph.within(first))
            raise
        if self._dead is not None:
            self._dead = np.concatenate([self._dead, np.zeros(len(rows), np.bool_)])
        self._builder, self._unreachable = None if frozen else builder, builder.unreachable
        self._set_graph(graph)
        return range(first, n)

    def freeze(self) -> None:
        """Give up what is kept for adding rows in small numbers, and link rows that nothing leads to.

        Notes
        -----
        :meth:`add` does so where it adds an eighth of the rows or more, and :meth:`save`.
        """
        if self._builder is not None:
            self._set_graph(self._builder.freeze())
            self._unreachable, self._builder = self._builder.unreachable, None

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        ef_search: int | None = None,
        target_recall: float | None = None,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : numbers (n_queries, dim), or (dim,) for one
        k : rows per query, at least 1
        ef_search : candidates looked at and scored precisely: more finds more; at least k is taken, None takes 64
        target_recall : in place of ``ef_search``, the share of the k nearest rows to be found on average, above 0 and
            below 1; see :meth:`calibrate`
        allow : bool (n,), the rows that may be found; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and row numbers int64 (n_queries, k); (-inf, -1) pads where
            fewer rows are allowed

        Raises
        ------
        DimensionMismatch : queries of another width
        InvalidArgument : an argument of another kind or out of range
        """
        prepared, k = self._rows.checked_queries(queries), checked_k(k)
        ef = EF_SEARCH if ef_search is None else _in_range("search(ef_search=)", ef_search, 1, MOST_EF)
        if target_recall is not None:
            ef = self._ef_for(target_recall, k, ef_search)
        mask = None if allow is None else self._rows.checked_allow(allow)
        if self._dead is not None and (mask is not None or self._counts[0] > self._counts[1]):
            mask = ~self._dead if mask is None else mask & ~self._dead
        n = len(self._rows)
        live = n - self._counts[0]
        if not live:
            return padded(np.empty((len(prepared), 0), np.float32), np.empty((len(prepared), 0), np.int64), k)
        wanted = min(k, live)
        ef = min(max(ef, wanted), n)
        return padded(*self._search.run(prepared, wanted, ef, allow=mask, walker=self._walker), k)

    def calibrate(self, queries: object = None) -> None:
        """Measure how many candidates a target recall needs.

        Parameters
        ----------
        queries : numbers (m, dim), queries such as those to come, some hundreds; None takes rows of the index, each of
            which is passed over while it is searched for

        Notes
        -----
        :meth:`add` does so with rows that it links last, where it adds an eighth of the rows or more. Real queries may
        be harder than rows: on WordNet definitions searched with sentences, recall of 0.95 needs 1.4 times the
        candidates.

        Raises
        ------
        NotReady : there are no rows
        DimensionMismatch, InvalidArgument : not queries
        """
        if not len(self):
            raise NotReady("calibrate() expects rows in the index, found none; add some first")
        hidden = None
        if queries is None:
            live = np.arange(len(self._rows)) if self._dead is None else np.flatnonzero(~self._dead)
            hidden = np.unique(live[np.linspace(0, len(live) - 1, HELD_OUT).astype(np.int64)])
            asked = np.concatenate([self._rows.decoded(slice(row, row + 1)) for row in hidden])
        else:
            asked = self._rows.checked_queries(queries)
        self._calibration = self._measured(self._search, asked, None, hidden)

    def _calibrate_held_out(self, builder: GraphBuilder, graph: Graph, rows: Array) -> None:
        unlinked = np.zeros(len(self._rows), np.bool_)
        unlinked[rows] = True
        self._calibration = self._measured(self._searcher(graph), builder.rows.decoded(rows), unlinked, None)

    def _measured(
        self, search: GraphSearch, queries: Array, unlinked: Array | None, hidden: Array | None
    ) -> Calibration | None:
        """A calibration on queries; those hidden are rows, which are no neighbours of themselves."""
        codes, kept = self._rows.joined()
        absent = np.zeros(len(self._rows), np.bool_) if unlinked is None else unlinked.copy()
        if self._dead is not None:
            absent[: len(self._dead)] |= self._dead
        k = min(KS[-1], len(absent) - int(np.count_nonzero(absent)) - 1)
        if k < 1:
            return None
        _, exact = search_codes(
            self._rows.codec, codes, queries, k + (hidden is not None), allow=np.ascontiguousarray(~absent),
            rescore=None if kept is None else self._rows.rescore,
        )  # fmt: skip
        if hidden is not None:
            others = np.argsort(exact == hidden[:, None], axis=1, kind="stable")[:, :k]
            exact = np.take_along_axis(exact, others, axis=1)
        return calibrate(exact, lambda k, ef: search.run(queries, k, ef, hidden=hidden)[1])

    def delete(self, rows: object) -> int:
        """Delete rows, which keep their numbers; searches pass through them until there are many.

        Parameters
        ----------
        rows : int (m,), numbers that :meth:`add` returned; those deleted before are ignored

        Returns
        -------
        int : how many were deleted

        Raises
        ------
        InvalidArgument : not integers, or out of range
        """
        n = len(self._rows)
        numbers = checked_numbers(rows, n)
        dead = np.zeros(n, np.bool_) if self._dead is None else self._dead.copy()
        dead[numbers] = True
        before, gone = self._counts
        self._dead, self._counts = dead, (int(np.count_nonzero(dead)), gone)
        self.__dict__.pop("_search", None)
        return self._counts[0] - before

    def consolidate(self) -> None:
        """Take deleted rows out of the graph: whoever had links to them gets others.

        Notes
        -----
        :meth:`add` does so where over a fifth of the rows in the graph are deleted. Codes of deleted rows stay, so that
        rows keep their numbers.
        """
        deleted, gone = self._counts
        if self._graph is None or self._dead is None or deleted == gone:
            return
        if deleted < len(self._rows):
            live = self._builder
            builder = live or self._new_builder(np.empty((0, self._rows.codec.dim), np.float32))
            self._builder = None  # of no more use where this is interrupted
            builder.remove(self._dead)
            self._set_graph(builder.view() if live else builder.freeze())
            self._builder, self._unreachable = live, builder.unreachable
        self._gone, self._counts = self._dead, (deleted, deleted)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`gingham.index.load` maps it."""
        self.freeze()
        about, arrays = self._rows.stored()
        if self._graph is not None:
            arrays |= {f"graph.{name}": array for name, array in self._graph.arrays().items()}
        if self._calibration is not None:
            arrays |= {f"calibration.{name}": array for name, array in self._calibration.arrays().items()}
        if self._dead is not None:
            gone = np.zeros(len(self._rows), np.uint8) if self._gone is None else self._gone.astype(np.uint8)
            arrays["dead"] = self._dead.astype(np.uint8) + np.pad(gone, (0, len(self._rows) - len(gone)))
        save_arrays(path, {"kind": "HNSW", "m": self._m, "ef_construction": self._ef_construction, **about}, arrays)

    def stats(self) -> HNSWStats:
        """Rows, bytes and what the graph is like."""
        graph, codec = self._graph, self._rows.codec
        degree = 0.0 if graph is None else float(np.count_nonzero(graph.links < len(graph)) / len(graph))
        return HNSWStats(
            n=len(self._rows), dim=codec.dim, deleted=self._counts[0], metric=codec.metric, codec=codec.spec, m=self._m,
            ef_construction=self._ef_construction, layers=0 if graph is None else len(graph.starts) - 1,
            mean_degree=degree, unreachable=self._unreachable if self._builder is None else self._builder.unreachable,
            code_bytes=self._rows.code_bytes, kept_bytes=self._rows.kept_bytes,
            link_bytes=0 if graph is None else graph.nbytes,
            building_bytes=0 if self._builder is None else self._builder.rows.nbytes,
        )  # fmt: skip

    def _ef_for(self, target: float, k: int, ef_search: int | None) -> int:
        if ef_search is not None:
            raise InvalidArgument("search() expects ef_search= or target_recall=, found both; give one of them")
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target < 1:
            raise InvalidArgument(f"search(target_recall=) expects a number above 0 and below 1, found {target!r}")
        if self._calibration is None and len(self):
            self.calibrate()
        return k if self._calibration is None else self._calibration.ef_for(target, k)

    def _set_graph(self, graph: Graph) -> None:
        self._graph = graph
        for name in ("_search", "_walker"):
            self.__dict__.pop(name, None)

    def _new_builder(self, rows: Array) -> GraphBuilder:
        """A builder that holds the rows there are, decoded."""
        step = max(1, -(-len(rows) // MEAN_ROWS))
        codec = self._rows.codec
        options: Any = {"m": self._m, "ef_construction": self._ef_construction}
        if self._graph is None:
            working = WorkingRows(codec.dim, codec.metric, rows[::step].mean(axis=0, dtype=np.float64))
            return GraphBuilder(working, seed=self._rows.seed, **options)
        there = len(self._graph)
        mean = self._rows.decoded(slice(0, min(MEAN_ROWS, there))).mean(axis=0, dtype=np.float64)
        working = WorkingRows(codec.dim, codec.metric, mean)
        working.append(there, lambda part: self._rows.decoded(slice(part.start, min(part.stop, there))))
        return GraphBuilder.of_graph(self._graph, working, gone=self._gone, seed=self._rows.seed, **options)

    @classmethod
    def from_hnswlib(
        cls, source: object, *, metric: Metric | None = None, dim: int | None = None, codec: str | None = None,
        keep: Keep | Literal["auto"] = "auto",
    ) -> tuple[HNSW, Array]:  # fmt: skip
        """An index of hnswlib with its links, and its labels; see :func:`gingham.index.graph_import.from_hnswlib`."""
        from gingham.index.graph_import import from_hnswlib

        return from_hnswlib(source, metric=metric, dim=dim, codec=codec, keep=keep)

    @classmethod
    def from_faiss(
        cls, source: object, *, codec: str | None = None, keep: Keep | Literal["auto"] = "auto"
    ) -> tuple[HNSW, Array]:
        """An index of faiss with its links, and its labels; see :func:`gingham.index.graph_import.from_faiss`."""
        from gingham.index.graph_import import from_faiss

        return from_faiss(source, codec=codec, keep=keep)

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array], device: str = "cpu") -> HNSW:
        index = cls(
            about["dim"], metric=about["metric"], m=about["m"], ef_construction=about["ef_construction"],
            codec=about["codec"], keep=about["keep"], seed=about["seed"], device=device,
        )  # fmt: skip
        index._rows.restore(about, arrays)
        if about["n"]:
            index._graph = Graph.from_arrays(under("graph.", arrays), about["n"])
        if "calibration.efs" in arrays:
            index._calibration = Calibration.from_arrays(under("calibration.", arrays))
        if "dead" in arrays:
            index._dead, index._gone = arrays["dead"] > 0, arrays["dead"] > 1
            index._counts = int(np.count_nonzero(index._dead)), int(np.count_nonzero(index._gone))
        return index


def _in_range(what: str, value: object, low: int, high: int) -> int:
    """An integer between two."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InvalidArgument(f"{what} expects an integer from {low} to {high}, found {value!r}")
    return int(value)
