"""The bare inverted-file index: rows in lists around centroids, of which a query scans the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np

from gingham.errors import Corrupt, InvalidArgument, NotReady
from gingham.index.chunked_rows import ChunkedRows
from gingham.index.coarse import MOST_LISTS, Coarse, list_count
from gingham.index.code_lists import CodeLists
from gingham.index.coded_rows import ROW_CODECS, CodedRows, checked_k, checked_mask, checked_oversample, padded, under
from gingham.index.container import save_arrays
from gingham.index.list_search import ListSearch

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
class _State:
    """All that changes, replaced as a whole: a search sees the rows of one moment.

    Attributes
    ----------
    codec, coarse : trained, or as given and None
    lists : None without rows
    kept : float16 or float32 (n, dim), where vectors are kept
    n : rows
    """

    codec: Codec
    coarse: Coarse | None = None
    lists: CodeLists | None = None
    kept: Array | None = None
    n: int = 0

    @cached_property
    def searched(self) -> ListSearch:
        """How these are searched; there are rows."""
        assert self.coarse is not None
        assert self.lists is not None
        vectors = None
        if self.kept is not None:
            chunk = (self.kept, np.empty(0, np.float32))
            vectors = ChunkedRows([chunk], "l2" if self.codec.metric == "l2" else "dot")
        return ListSearch(cast("SpanCodec", self.codec), self.coarse, self.lists, self.n, vectors)


class IVF:
    """Vectors in memory, in lists around centroids; a search scans the lists nearest to the query.

    Parameters
    ----------
    dim : dimensions, at least 1
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all, so l2 scores are negative
        squared distances
    nlist : lists, at most 65,536; None takes 4 sqrt(n) for the n rows of the first :meth:`add`, or of the sample of
        :meth:`train`, but none of fewer than 32 rows in the mean
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
    centroid; centroids stay those of the first rows, so train with a sample where these differ from what comes. Many
    threads may search while one adds. Of rows of equal scores the lower come first; which of them are found where more
    are equal than fit depends on the lists.

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
        self._state = _State(self._rows.codec)
        self._changing = Lock()

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._state.codec

    def __len__(self) -> int:
        return self._state.n

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
        rows = self._rows.checked(sample, "train(sample)")
        with self._changing:
            if len(self):
                raise NotReady(f"train() expects an empty index, found {len(self)} rows; make a new IVF")
            self._rows.train(rows, queries)
            self._state = _State(self._rows.codec, self._trained_lists(rows, self._rows.codec))
        return self

    def _trained_lists(self, rows: Array, codec: Codec) -> Coarse:
        nlist = list_count(len(rows)) if self._asked is None else self._asked
        return Coarse.train(rows, nlist, cast("SpanCodec", codec), self._rows.seed)

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
        Copies all codes, so many rows at once are cheaper than a few at a time. What raises adds nothing.
        """
        rows = self._rows.checked(vectors, "add(vectors)")
        with self._changing:
            state = self._state
            if not len(rows):
                return range(state.n, state.n)
            kept, codec = self._rows.kept_of(rows), state.codec
            if state.coarse is None:
                codec = self._rows.trained_on(rows)
            coarse = self._trained_lists(rows, codec) if state.coarse is None else state.coarse
            lists = CodeLists.of(codec, rows.__getitem__, coarse.assign(rows), len(coarse.centroids), state.n)
            if state.lists is not None:
                lists = state.lists.extended(codec, lists)
            if kept is not None and state.kept is not None:
                kept = np.concatenate([state.kept, kept])
            self._state = _State(codec, coarse, lists, kept, state.n + len(rows))
            return range(state.n, state.n + len(rows))

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        nprobe: int = NPROBE,
        oversample: float | None = None,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query in the lists nearest to it.

        Parameters
        ----------
        queries : numbers (n_queries, dim), or (dim,) for one
        k : rows per query, at least 1
        nprobe : lists scanned for each; more where ``allow`` leaves out rows, and all where these hold too few
        oversample : as of :meth:`gingham.index.Flat.search`
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
        nprobe, oversample = _count("search(nprobe=)", nprobe, MOST_LISTS), checked_oversample(oversample)
        state = self._state
        mask = None if allow is None else checked_mask(allow, state.n)
        eligible = state.n if mask is None else int(np.count_nonzero(mask))
        if state.lists is None or not eligible or not len(prepared):
            return padded(np.empty((len(prepared), 0), np.float32), np.empty((len(prepared), 0), np.int64), k)
        found = state.searched.run(prepared, min(k, eligible), nprobe, oversample=oversample, allow=mask)
        return padded(*found, k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        state = self._state
        about = {
            "kind": "IVF", "n": state.n, "dim": state.codec.dim, "metric": state.codec.metric,
            "codec": state.codec.spec, "keep": self._rows.keep, "trained": state.coarse is not None,
            "seed": self._rows.seed, "nlist": self._asked,
        }  # fmt: skip
        arrays: dict[str, Array] = {}
        if state.coarse is not None:
            arrays = {f"codec.{name}": np.ascontiguousarray(a) for name, a in state.codec.arrays().items()}
            arrays["centroids"] = state.coarse.centroids
        if state.lists is not None:
            arrays |= state.lists.arrays()
        if state.kept is not None:
            arrays["kept"] = state.kept
        save_arrays(path, about, arrays)

    def stats(self) -> IVFStats:
        """Rows, lists and bytes."""
        state = self._state
        codec, lists = state.codec, state.lists
        return IVFStats(
            state.n, codec.dim, 0 if state.coarse is None else len(state.coarse.centroids), codec.metric, codec.spec,
            1.0 if lists is None else lists.imbalance, 0 if lists is None else lists.codes.nbytes,
            0 if state.kept is None else int(state.kept.nbytes),
        )  # fmt: skip

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> IVF:
        index = cls(
            about["dim"], metric=about["metric"], nlist=about["nlist"], codec=about["codec"], keep=about["keep"],
            seed=about["seed"],
        )  # fmt: skip
        if about["trained"]:
            dim, centroids, n, kept = about["dim"], arrays.get("centroids"), about["n"], arrays.get("kept")
            if centroids is None or centroids.shape[1:] != (dim,):
                raise Corrupt(f"IVF expects centroids of {dim} dimensions, found others; rebuild the index")
            if (kept is None) != (about["keep"] is None or not n) or (kept is not None and kept.shape != (n, dim)):
                raise Corrupt(f"IVF expects {n} vectors to rescore from, found others; rebuild the index")
            codec = index.codec.with_arrays(under("codec.", arrays))
            lists = CodeLists.from_arrays(arrays, n, len(centroids)) if n else None
            index._rows.codec = codec
            index._state = _State(codec, Coarse(centroids, cast("SpanCodec", codec)), lists, kept, n)
        return index


def _count(what: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise InvalidArgument(f"{what} expects an integer from 1 to {most}, found {value!r}")
    return int(value)
