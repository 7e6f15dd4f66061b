"""The coarse quantizer: centroids, the list of a row, and the lists that a query probes.

Source: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011, section IV.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import assign, train_kmeans
from gingham.codecs.lvq import LVQ
from gingham.codecs.nibble_blocks import block_addresses
from gingham.codecs.reservoirs import Reservoirs
from gingham.codecs.spec import has_rows
from gingham.errors import Corrupt
from gingham.index.chunked_rows import ChunkedRows
from gingham.schema import MOST_LISTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gingham.codecs.devices import Attempt
    from gingham.codecs.protocol import Codes, SpanCodec
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

LISTS_PER_ROOT, ROWS_PER_LIST = 4, 32
"""Lists where the caller does not say: 4 sqrt(n), but none of fewer than 32 rows in the mean."""
SAMPLE_PER_LIST, ENOUGH_SAMPLE = (32, 64), 1 << 18
"""Rows a list that centroids are trained on, at least and at most, and rows from which on it is the least: with 64 as
many neighbours are found as with 85, in three quarters of the time, with 32 .004 to .01 fewer (MiniLM)."""
ITERATIONS = 8
"""From random rows: with 5, .003 fewer neighbours are found in 32 lists, with 10 as many (MiniLM). Rows far
from each other to begin with took 80 % of the time of training and made the objective 0.6 % better."""

FLAT_LISTS = 1 << 14
"""Centroids up to which all are trained together; more are trained in groups, of which each row looks at one."""

DEVIATIONS = 2.0
"""Under dot, lists are probed by the scores of their centroids and so many standard deviations of their rows' scores:
the best row of a list of long rows, which lie far from their centroid, is better than its mean. Of rows of lognormal
lengths in all directions, 64 lists then hold 0.82 of ten neighbours in place of 0.45 (bench/ann/spreads.py)."""
TELLING = 0.25
"""How much spreads differ, over the size of centroids' numbers, from which on they count. Those of rows of length one
differ by less, change no order, and leave centroids to the codec of the rows."""
BLOCK_ROWS = 4096

RESCORED, SPARE = 2, 16
"""Centroids scored precisely where codes choose them, for each list probed, and more."""
NEAR_BLOCK = 256
TILE = 1024
"""Centroids that stay in the cache while all queries pass over them."""


@dataclass(frozen=True, eq=False)
class Coarse:
    """Centroids of lists.

    Attributes
    ----------
    centroids : float32 (nlist, dim)
    codec : of the rows, trained. Rows take the nearest list by distance; queries too, but under dot by product
    spreads : under dot, float32 (nlist,), by how much numbers of rows differ from those of their centroid, as the root
        of the mean square; NaN where that is not known yet. None where nothing is known

    Notes
    -----
    Where the codec scans blocks, centroids are coded by it and scanned with queries that are prepared anyway; twice as
    many as are probed are scored from the centroids. Else, and where spreads count, they are scanned as LVQ8: a quarter
    of the bytes, for lists of nearly the same distance that change places. Spreads are one more number of a centroid,
    and the length of a query one more of it.
    """

    centroids: Array
    codec: SpanCodec
    spreads: Array | None = None

    @property
    def _metric(self) -> Metric:
        return "dot" if self.codec.metric == "dot" else "l2"

    def arrays(self) -> dict[str, Array]:
        """What is stored: centroids, and spreads where there are any."""
        return {"centroids": self.centroids} | ({} if self.spreads is None else {"spreads": self.spreads})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], codec: SpanCodec) -> Coarse:
        """Invert :meth:`arrays`; others are left alone.

        Raises
        ------
        Corrupt : arrays that do not fit each other or the codec
        """
        centroids, spreads = arrays.get("centroids"), arrays.get("spreads")
        if (
            centroids is None
            or centroids.shape[1:] != (codec.dim,)
            or centroids.dtype != np.float32
            or not len(centroids)
        ):
            found = "none" if centroids is None else f"{centroids.dtype} {centroids.shape}"
            raise Corrupt(f"lists expect centroids of {codec.dim} dimensions, found {found}; rebuild the index")
        if spreads is not None and (spreads.shape != centroids.shape[:1] or spreads.dtype != np.float32):
            raise Corrupt(f"lists expect spreads of {len(centroids)}, found {spreads.shape}; rebuild the index")
        return cls(centroids, codec, spreads)

    @classmethod
    def train(cls, rows: Array, nlist: int, codec: SpanCodec, seed: int, attempt: Attempt | None = None) -> Coarse:
        """By k-means on a sample of the rows, float32 (n, dim); spherical under cosine, where rows have length one.

        ``attempt`` is that of :func:`gingham.codecs.kmeans.train_kmeans`.

        Notes
        -----
        Time O(sample nlist dim), and O(sample sqrt(nlist) dim) for more than 16,384 lists.
        """
        if len(rows) > sample_count(len(rows), nlist):
            rows = rows[sample_positions(len(rows), nlist)]
        unit = codec.metric == "cosine"
        train = _in_groups if nlist > FLAT_LISTS and len(rows) >= nlist else _together
        return cls(train(rows, nlist, seed, spherical=unit, attempt=attempt), codec)

    def assign(self, rows: Array) -> Array:
        """The list of each row, int64 (n,)."""
        return assign(rows, self.centroids).astype(np.int64)

    def spread(self, lists: Array, vectors_of: Callable[[Array], Array]) -> Coarse:
        """With the spreads that are not known, of the rows in each list; the same but under dot.

        Parameters
        ----------
        lists : int64 (n,), the list of each row
        vectors_of : from positions int64 (m,) to vectors float32 (m, dim)
        """
        if self.codec.metric != "dot":
            return self
        nlist, dim = self.centroids.shape
        known = np.full(nlist, np.nan, np.float32) if self.spreads is None else self.spreads
        unknown = np.isnan(known)
        rows, squares = np.flatnonzero(unknown[lists]), np.zeros(nlist)
        for start in range(0, len(rows), BLOCK_ROWS):
            deadline.check()
            some = rows[start : start + BLOCK_ROWS]
            apart = np.square(vectors_of(some) - self.centroids[lists[some]], dtype=np.float64).sum(axis=1)
            squares += np.bincount(lists[some], apart, nlist)
        counts = np.bincount(lists[rows], minlength=nlist)
        return replace(
            self, spreads=np.where(unknown, np.sqrt(squares / np.maximum(1, counts) / dim), known).astype(np.float32)
        )

    def unspread(self, lists: Array) -> Coarse:
        """With the spreads of some lists forgotten, whose rows are others now."""
        if self.spreads is None:
            return self
        spreads = self.spreads.copy()
        spreads[lists] = np.nan
        return replace(self, spreads=spreads)

    def nearest_lists(self, vectors: Array, count: int) -> Array:
        """The lists that lie nearest to any of some vectors, ascending."""
        count = min(count, len(self.centroids))
        found = [np.empty(0, np.int64)]
        for start in range(0, len(vectors), NEAR_BLOCK):
            some = vectors[start : start + NEAR_BLOCK]
            far = np.square(self.centroids).sum(axis=1) - 2 * some @ self.centroids.T
            found.append(np.argpartition(far, count - 1, axis=1)[:, :count].ravel())
        return np.unique(np.concatenate(found))

    def probe(self, queries: Array, nprobe: int, prepared: Any = None) -> Array:
        """The nearest lists of each query, in no order: int64 (n_queries, nprobe), nprobe at most the lists.

        Fewer where distances are beyond float32: -1 pads.

        Parameters
        ----------
        prepared : the queries as ``codec`` prepares them; None prepares them here
        """
        codec, codes = self._coded
        if nprobe == codes.n:
            return np.tile(np.arange(nprobe), (len(queries), 1))
        if self._heights is not None:
            queries = np.hstack([queries, np.linalg.norm(queries, axis=1, keepdims=True)])
        if codec is not self.codec or prepared is None:
            prepared = codec.prepare(queries)
        rescored = codec is self.codec
        found = Reservoirs.empty(len(queries), self.near(nprobe) if rescored else nprobe)
        for start in range(0, codes.n, TILE):
            codec.scan_spans(prepared, codes, _spans(len(queries), start, min(start + TILE, codes.n)), 0, found)
        _, lists = found.best()
        if not rescored:
            return lists
        return self._vectors.nearest(queries, lists, self._numbers, nprobe)[1]

    def near(self, nprobe: int) -> int:
        """Centroids that are scored precisely where so many lists are probed and codes choose them."""
        return min(len(self.centroids), RESCORED * nprobe + SPARE)

    @cached_property
    def addressed(self) -> tuple[Array, tuple[Array, Array, Array], Array] | None:
        """Codes, vectors and numbers of centroids as kernels take them, where their codes are those of rows' blocks."""
        codec, codes = self._coded
        return (block_addresses(codes), self._vectors.addressed, self._numbers) if codec is self.codec else None

    @cached_property
    def _coded(self) -> tuple[SpanCodec, Codes]:
        centroids, codec = np.ascontiguousarray(self.centroids), self.codec
        if self._heights is not None:
            centroids = np.hstack([centroids, self._heights[:, None]])
        if self._heights is not None or has_rows(codec.spec):
            codec = LVQ(centroids.shape[1], self._metric).train(centroids)
        return codec, codec.encode(centroids)

    @cached_property
    def _heights(self) -> Array | None:
        """What a query's length times that adds to the scores of lists, or None where they are much alike."""
        spreads = self.spreads
        if spreads is None or not np.isfinite(spreads).all():
            return None
        size = float(np.sqrt(np.square(self.centroids, dtype=np.float64).mean()))
        return np.float32(DEVIATIONS) * spreads if float(spreads.std()) > TELLING * size else None

    @cached_property
    def _vectors(self) -> ChunkedRows:
        fit = np.abs(self.centroids).max(initial=0) < np.finfo(np.float16).max
        vectors = np.ascontiguousarray(self.centroids, np.float16 if fit else np.float32)
        return ChunkedRows([(vectors, np.empty(0, np.float32))], self._metric)

    @cached_property
    def _numbers(self) -> Array:
        return np.arange(len(self.centroids), dtype=np.int32)


def _together(rows: Array, nlist: int, seed: int, *, spherical: bool, attempt: Attempt | None) -> Array:
    start = None
    if len(rows) >= nlist:
        start = rows[np.sort(np.random.default_rng(seed).choice(len(rows), nlist, replace=False))]
    return train_kmeans(
        rows, nlist, seed=seed, iterations=ITERATIONS, start=start, spherical=spherical, attempt=attempt
    )


def _in_groups(rows: Array, nlist: int, seed: int, *, spherical: bool, attempt: Attempt | None) -> Array:
    """The root of as many groups, and in each as many centroids as its share of the rows asks for."""
    roots = _together(rows, int(np.sqrt(nlist)), seed, spherical=spherical, attempt=attempt)
    group = assign(rows, roots)
    ends = np.cumsum(np.bincount(group, minlength=len(roots)))
    counts = np.diff(np.floor(ends * (nlist / len(rows)) + 0.5).astype(np.int64), prepend=0)
    members = np.split(np.argsort(group, kind="stable"), ends[:-1])
    return np.concatenate([
        _together(rows[np.sort(some)], int(count), seed, spherical=spherical, attempt=attempt)
        for some, count in zip(members, counts, strict=True)
        if count
    ])  # fmt: skip


@lru_cache(256)
def _spans(n: int, start: int, stop: int) -> Array:
    """The same rows for each query."""
    spans = np.empty((n, 3), np.int64)
    spans[:] = 0, start, stop
    spans[:, 0] = np.arange(n)
    return spans


def list_count(n: int) -> int:
    """Lists for n rows."""
    return int(max(1, min(LISTS_PER_ROOT * np.sqrt(n), n // ROWS_PER_LIST, MOST_LISTS)))


def sample_count(n: int, nlist: int) -> int:
    """Rows of n that so many lists are trained on."""
    least, most = SAMPLE_PER_LIST
    return min(n, most * nlist, max(ENOUGH_SAMPLE, least * nlist))


def sample_positions(n: int, nlist: int) -> Array:
    """Ascending positions int64 of these."""
    positions: Array = np.linspace(0, n - 1, sample_count(n, nlist)).astype(np.int64)
    return positions
