"""The coarse quantizer: centroids, the list of a row, and the lists that a query probes.

Source: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011, section IV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.kmeans import assign, train_kmeans
from gingham.codecs.lvq import LVQ
from gingham.codecs.nibble_blocks import block_addresses
from gingham.codecs.reservoirs import Reservoirs
from gingham.codecs.spec import has_rows
from gingham.index.chunked_rows import ChunkedRows
from gingham.schema import MOST_LISTS

if TYPE_CHECKING:
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

    Notes
    -----
    Where the codec scans blocks, centroids are coded by it and scanned with queries that are prepared anyway; twice as
    many as are probed are scored from the centroids. Else they are scanned as LVQ8: a quarter of the bytes, for lists
    of nearly the same distance that change places.
    """

    centroids: Array
    codec: SpanCodec

    @property
    def _metric(self) -> Metric:
        return "dot" if self.codec.metric == "dot" else "l2"

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
        codec: SpanCodec = LVQ(self.centroids.shape[1], self._metric).train(self.centroids)
        if not has_rows(self.codec.spec):
            codec = self.codec
        return codec, codec.encode(np.ascontiguousarray(self.centroids))

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
