"""The bare inverted-file index: rows in lists around centroids, of which a query scans the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np

from gingham import deadline
from gingham.errors import InvalidArgument, NotReady
from gingham.index.coarse import MOST_LISTS, Coarse, list_count
from gingham.index.code_lists import CodeLists
from gingham.index.coded_rows import ROW_CODECS, CodedRows, checked_k, checked_mask, checked_oversample, padded, under
from gingham.index.container import save_arrays
from gingham.index.exact import score_listed
from gingham.index.two_stage import QUERY_BLOCK, SLICE_BYTES, search_codes
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from gingham.codecs.protocol import Codec, SpanCodec
    from gingham.index.coded_rows import Keep
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

NPROBE = 16
"""Lists that a query scans where the caller does not say."""


@dataclass(frozen=True)
class IVFStats:
    """What an inverted-file index holds.

    Attributes
    ----------
    n, dim, nlist : rows, dimensions and lists
    metric, codec : as given
    imbalance : rows that a query meets in a list, over those it would if all lists were of one size
    code_bytes, kept_bytes : of all codes, padding included, and of the vectors kept for rescoring
    """

    n: int
    dim: int
    nlist: int
    metric: Metric
    codec: str
    imbalance: float
    code_bytes: int
    kept_bytes: int


@dataclass(frozen=True, eq=False)
class _Probing:
    """Lists that queries probe, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: SpanCodec
    lists: CodeLists
    coarse: Coarse
    nprobe: int
    queries: int = QUERY_BLOCK
    exact: bool = True

    @property
    def most(self) -> int:
        return self.lists.codes.n

    def scan(self, queries: Array, prepared: Any, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        from gingham.codecs import topk_kernels

        spans = self.lists.spans(self.coarse.probe(queries, self.nprobe))
        scores, rows = np.repeat(floors[:, None], k, axis=1), np.full((len(queries), k), -1, np.int64)
        mask = 0 if allow is None else allow.ctypes.data
        mean = max(1, self.lists.codes.n // len(self.lists.sizes))
        step = max(1, SLICE_BYTES // (self.codec.code_size * mean))
        for start in range(0, len(spans), step):
            deadline.check()
            self.codec.scan_spans(prepared, self.lists.codes, spans[start : start + step], mask, scores, rows)
        topk_kernels.sort_heaps(scores, rows)
        return scores, rows


class IVF:
    """Vectors in memory, in lists around centroids; a search scans the lists nearest to the query.

    Parameters
    ----------
    dim : dimensions, at least 1
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all, so l2 scores are negative
        squared distances
    nlist : lists, at most 65,536; None takes 4 sqrt(n) for the n rows of the first :meth:`add`, but none of fewer
        than 32 rows in the mean
    codec : how vectors are stored for the scan: floats, SQ8, LVQ, RaBitQ of any bits or PQ x4fs, with any transforms
        in front
    keep : the vectors kept beside the codes to rescore candidates from, as of :class:`gingham.index.Flat`
    seed : of everything random in training

    Raises
    ------
    InvalidArgument : an option out of range, or a codec that does not parse, does not fit or does not scan lists

    Notes
    -----
    Codes are of the vectors themselves, not of their residuals. Rows that come later go to the list of the nearest
    centroid; centroids stay those of the first rows, so train with a sample where these differ from what comes.

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> rows = np.random.default_rng(0).standard_normal((2000, 32), dtype=np.float32)
    >>> index = gg.index.IVF(32, metric="l2", nlist=20, codec="LVQ8")
    >>> index.add(rows)
    range(0, 2000)
    >>> index.search(rows[7], 1, nprobe=2)[1]
    array([[7]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        nlist: int | None = None,
        codec: str = "LVQ8",
        keep: Keep | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        self._rows = CodedRows("IVF", dim, metric, codec, keep, seed)
        self._asked = None if nlist is None else _count("IVF(nlist=)", nlist, MOST_LISTS)
        kind = self._rows.codec.spec.rpartition(",")[2]
        if not (kind.startswith(ROW_CODECS) or kind.endswith("x4fs")):
            raise InvalidArgument(
                f"IVF(codec=) expects one of {', '.join(ROW_CODECS)} or PQ of 4 bits (PQ16x4fs), found {codec!r}; "
                "gingham.index.Flat takes any"
            )
        self._coarse: Coarse | None = None
        self._lists: CodeLists | None = None
        self._kept: list[Array] = []
        self._n = 0

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._rows.codec

    def __len__(self) -> int:
        return self._n

    def train(self, sample: object, *, queries: object = None) -> Self:
        """Train the codec and the centroids; :meth:`add` does it by itself with its first rows.

        Parameters
        ----------
        sample : numbers (n, dim), of which there should be 32 or more a list
        queries : numbers (m, dim), queries such as those to come, for codecs that learn from them

        Raises
        ------
        NotReady : there are rows already
        InvalidArgument : not numbers of that shape, not finite, or too few rows for the codec
        """
        if self._n:
            raise NotReady(f"train() expects an empty index, found {self._n} rows; make a new IVF")
        self._rows.train(sample, queries)
        self._train_lists(self._rows.checked(sample, "train(sample)"))
        return self

    def _train_lists(self, rows: Array) -> Coarse:
        nlist = list_count(len(rows)) if self._asked is None else self._asked
        self._coarse = Coarse.train(rows, nlist, self.codec.metric, self._rows.seed)
        return self._coarse

    def add(self, vectors: object) -> range:
        """Append rows and return the range of their numbers.

        Parameters
        ----------
        vectors : numbers (n, dim)

        Raises
        ------
        InvalidArgument : not numbers of that shape, not finite, or too few rows for a codec that is not trained

        Notes
        -----
        Copies all codes, so many rows at once are cheaper than a few at a time.
        """
        rows = self._rows.checked(vectors, "add(vectors)")
        first = self._n
        if not len(rows):
            return range(first, first)
        kept, codec = self._rows.kept_of(rows), self._rows.trained_on(rows)
        coarse = self._train_lists(rows) if self._coarse is None else self._coarse
        lists = CodeLists.of(codec, rows, coarse.assign(rows), len(coarse.centroids), first)
        self._lists = lists if self._lists is None else self._lists.extended(codec, lists)
        self._rows.codec, self._n = codec, first + len(rows)
        if kept is not None:
            self._kept = [np.concatenate([*self._kept, kept])] if self._kept else [kept]
        return range(first, self._n)

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        nprobe: int = NPROBE,
        oversample: float | None = None,
        bounded: bool = False,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query in the lists nearest to it.

        Parameters
        ----------
        queries : numbers (n_queries, dim), or (dim,) for one
        k : rows per query, at least 1
        nprobe : lists scanned for each; more where ``allow`` leaves out rows, and all where these hold too few
        oversample, bounded : as of :meth:`gingham.index.Flat.search`
        allow : bool (n,), the rows that may be found; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and row numbers int64 (n_queries, k); (-inf, -1) pads where
            fewer rows are allowed

        Raises
        ------
        DimensionMismatch : queries of another width
        InvalidArgument : an argument of another kind or out of range

        Notes
        -----
        Time O(n_queries (nlist dim + nprobe n / nlist code_size)).
        """
        prepared, k = self._rows.checked_queries(queries), checked_k(k)
        nprobe = _count("search(nprobe=)", nprobe, MOST_LISTS)
        oversample = checked_oversample(oversample)
        mask = None if allow is None else checked_mask(allow, self._n)
        eligible = self._n if mask is None else int(np.count_nonzero(mask))
        if self._lists is None or not eligible:
            return padded(np.empty((len(prepared), 0), np.float32), np.empty((len(prepared), 0), np.int64), k)
        nlist = len(self._lists.sizes)
        # Of the rows near a query fewer are allowed: as many lie within a radius that grows with the root of the share.
        wide = min(nlist, int(np.ceil(nprobe / np.sqrt(eligible / self._n))))
        allowed = None if mask is None else mask[self._lists.rows] & (self._lists.rows >= 0)
        blocks = [slice(start, start + QUERY_BLOCK) for start in range(0, len(prepared), QUERY_BLOCK)]
        wanted = min(k, eligible)

        def search(part: Array, probed: int) -> tuple[Array, Array]:
            return self._search(part, wanted, probed, oversample, bounded, allowed)

        def block(part: slice) -> tuple[Array, Array]:
            scores, rows = search(prepared[part], wide)
            lacking = np.flatnonzero(rows[:, -1] < 0)
            if len(lacking) and wide < nlist:
                scores[lacking], rows[lacking] = search(np.ascontiguousarray(prepared[part][lacking]), nlist)
            return scores, rows

        pieces = run_blocks(block, blocks) if blocks else [search(prepared, wide)]
        return padded(np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces]), k)

    def _search(
        self, queries: Array, k: int, nprobe: int, oversample: float | None, bounded: bool, allow: Array | None
    ) -> tuple[Array, Array]:
        assert self._lists is not None
        assert self._coarse is not None
        lists = self._lists
        scanner = _Probing(cast("SpanCodec", self.codec), lists, self._coarse, nprobe)
        metric: Metric = "l2" if self.codec.metric == "l2" else "dot"

        def rescore(asked: Array, places: Array) -> Array:
            rows = np.where(places < 0, -1, lists.rows[places])
            return score_listed(asked, self._kept[0], rows, norms=np.empty(0, np.float32), metric=metric)

        scores, places = search_codes(
            self.codec, lists.codes, queries, k, rescore=rescore if self._kept else None, oversample=oversample,
            bounded=bounded, allow=allow, scanner=scanner,
        )  # fmt: skip
        return scores, np.where(places < 0, -1, lists.rows[places])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        about, arrays = self._rows.stored()
        about |= {"kind": "IVF", "n": self._n, "nlist": self._asked}
        if self._coarse is not None:
            arrays["centroids"] = self._coarse.centroids
        if self._lists is not None:
            arrays |= self._lists.arrays()
        if self._kept:
            arrays["kept"] = self._kept[0]
        save_arrays(path, about, arrays)

    def stats(self) -> IVFStats:
        """Rows, lists and bytes."""
        codec, lists = self.codec, self._lists
        nlist = 0 if self._coarse is None else len(self._coarse.centroids)
        return IVFStats(
            self._n, codec.dim, nlist, codec.metric, codec.spec, 1.0 if lists is None else lists.imbalance,
            0 if lists is None else lists.codes.nbytes, sum(int(part.nbytes) for part in self._kept),
        )  # fmt: skip

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> IVF:
        index = cls(
            about["dim"], metric=about["metric"], nlist=about["nlist"], codec=about["codec"], keep=about["keep"],
            seed=about["seed"],
        )  # fmt: skip
        if about["trained"]:
            index._rows.codec = index._rows.codec.with_arrays(under("codec.", arrays))
            index._coarse = Coarse(arrays["centroids"], about["metric"])
        if about["n"]:
            index._n = about["n"]
            index._lists = CodeLists.from_arrays(arrays, about["n"], len(arrays["centroids"]))
            index._kept = [arrays["kept"]] if "kept" in arrays else []
        return index


def _count(what: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise InvalidArgument(f"{what} expects an integer from 1 to {most}, found {value!r}")
    return int(value)
