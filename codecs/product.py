"""Product quantization: each of m sub-spaces of a vector is replaced by the nearest of its centroids.

Source: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 2011, sections II and III.
A query is met as it is (asymmetric distance computation): its score with a row is a sum of entries of its tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import CentroidTables, interleaved, train_kmeans, train_many
from gingham.codecs.protocol import Codes, join_rows
from gingham.codecs.table_rows import LENGTH_HEAD, TableQueries, TableRows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

DECODE_ROWS = 4096
LENGTHS = 256
"""Levels of a vector's length where it is split off: one byte."""
TABLE_WORK = 1 << 26
"""Multiplications of one call that fills tables: 10 to 20 ms."""


@dataclass(frozen=True)
class Subspaces:
    """How dim dimensions are cut into m runs, the first ones a dimension longer where m does not divide dim.

    Attributes
    ----------
    dim, m : dimensions, and runs, 1 to dim
    """

    dim: int
    m: int

    @property
    def width(self) -> int:
        """Dimensions of the longest run; shorter ones are padded with a zero."""
        return -(-self.dim // self.m)

    @property
    def _columns(self) -> Array:
        place = np.arange(self.m * self.width).reshape(self.m, self.width)
        used = np.ones_like(place, np.bool_)
        used[self.dim % self.m or self.m :, -1] = False
        columns: Array = place[used]
        return columns

    def lay(self, vectors: Array) -> Array:
        """Rows with padding: float32 (n, dim) to (n, m * width), the same array where nothing is padded."""
        if self.dim == self.m * self.width:
            return vectors
        out = np.zeros((len(vectors), self.m * self.width), np.float32)
        out[:, self._columns] = vectors
        return out

    def gather(self, rows: Array) -> Array:
        """Rows without padding: the inverse of :meth:`lay`."""
        return rows if self.dim == self.m * self.width else np.ascontiguousarray(rows[:, self._columns])


def train_codebooks(sample: Array, m: int, k: int, seed: int = 0) -> Array:
    """Centroids of each sub-space: float32 (m, k, width) of a sample float32 (n, dim), width = ceil(dim / m).

    Notes
    -----
    Sub-spaces are those of :class:`Subspaces`, and centroids those of :func:`gingham.codecs.kmeans.train_kmeans`,
    which repeats rows where there are fewer than k.
    """
    spaces = Subspaces(sample.shape[1], m)
    laid = spaces.lay(sample)
    parts = [laid[:, s * spaces.width : (s + 1) * spaces.width] for s in range(m)]
    return train_many(parts, k, seed=seed)


def encode_with(codebooks: Array, vectors: Array) -> Array:
    """Nearest centroid of each sub-space: uint8 (n, m), or uint16 for more than 256 centroids.

    Parameters
    ----------
    codebooks : float32 (m, k, width) of :func:`train_codebooks`
    vectors : float32 (n, dim)
    """
    m, k, _ = codebooks.shape
    labels = CentroidTables.of(codebooks).nearest(Subspaces(vectors.shape[1], m).lay(vectors))
    return labels.astype(np.uint8 if k <= LENGTHS else np.uint16)


def decode_with(codebooks: Array, codes: Array, dim: int) -> Array:
    """The vectors of codes (n, m): float32 (n, dim)."""
    m, _, width = codebooks.shape
    out = np.empty((len(codes), m * width), np.float32)
    for start in range(0, len(codes), DECODE_ROWS):
        part = slice(start, start + DECODE_ROWS)
        for s in range(m):
            out[part, s * width : (s + 1) * width] = codebooks[s, codes[part, s]]
    return Subspaces(dim, m).gather(out)


def query_tables(queries: Array, tables: Array, k: int, metric: Metric, *, shared: bool = False) -> Array:
    """Scores of queries with every centroid: float32 (n_queries, m, k).

    Parameters
    ----------
    queries : float32 (n, m * width); (n, width) where all sub-spaces are the whole space
    tables : of :func:`gingham.codecs.kmeans.interleaved`, float32 (m, k / 16, width, 16)
    k : centroids, a multiple of 16
    metric : -|q - c|^2 for l2, else <q, c>
    shared : every table is met by the whole query
    """
    from gingham.codecs import kmeans_kernels

    m, _, width, _ = tables.shape
    out = np.empty((len(queries), m, k), np.float32)
    step = max(1, TABLE_WORK // (m * k * width))
    for start in range(0, len(queries), step):
        deadline.check()
        part = queries[start : start + step]
        kmeans_kernels.fill_tables(
            part.ctypes.data, len(part), part.shape[1], m, 0 if shared else width, width, tables.ctypes.data, k,
            2 if metric == "l2" else 0, out[start : start + step],
        )  # fmt: skip
    return out


def bias_or_zeros(bias: Array | None, n: int) -> Array:
    """What is added to the scores of n queries, float32."""
    return np.zeros(n, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)


def nearest_level(levels: Array, values: Array) -> Array:
    """Number of the nearest of ascending levels, int64, the lower one of two as near."""
    wide = levels.astype(np.float64)
    return np.searchsorted((wide[1:] + wide[:-1]) / 2, values)


@dataclass(frozen=True, eq=False)
class ProductQuantizer:
    """PQ with float32 tables.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    m : sub-spaces, 1 to dim; where it does not divide dim, the first ones have a dimension more
    bits : of a code, 8, 12 or 16; 12 take two thirds of the bytes of 16, and both need tables of 2^bits floats for
        each sub-space and query, and rows to train on in proportion
    norm_split : for inner products of vectors of different lengths: codes are of directions, and a byte in front
        is of the length (Joulin et al., "FastText.zip", 2016, section 3.2)
    codebooks : float32 (m, 2^bits, ceil(dim / m)), learned
    lengths : float32 (256,), learned where the length is split off

    Notes
    -----
    Array of codes: "rows", uint8 (n, code_size).
    """

    dim: int
    metric: Metric
    m: int
    bits: int = 8
    norm_split: bool = False
    codebooks: Array | None = None
    lengths: Array | None = None

    def __post_init__(self) -> None:
        if self.bits not in (8, 12, 16):
            raise InvalidArgument(f"PQ expects 8, 12 or 16 bits, found {self.bits}; for 4 bits see the fast scan")
        if not 1 <= self.m <= self.dim:
            raise InvalidArgument(f"{self.spec} expects 1 to dim={self.dim} sub-spaces, found {self.m}")
        if self.norm_split and self.metric == "l2":
            raise InvalidArgument(f"{self.spec} expects metric 'dot' or 'cosine', found 'l2'; leave out the n")

    @property
    def spec(self) -> str:
        """``"PQ48x8"``, or ``"PQ48x8n"`` with the length split off."""
        return f"PQ{self.m}x{self.bits}" + ("n" if self.norm_split else "")

    @property
    def trained(self) -> bool:
        """Whether there are codebooks."""
        return self.codebooks is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self._layout.stride

    @property
    def levels(self) -> int:
        """1."""
        return 1

    @property
    def _layout(self) -> TableRows:
        return TableRows(self.m, self.bits, LENGTH_HEAD if self.norm_split else 0)

    @property
    def _codebooks(self) -> Array:
        if self.codebooks is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.codebooks

    @cached_property
    def _nearest(self) -> CentroidTables:
        return CentroidTables.of(self._codebooks)

    @cached_property
    def _tables(self) -> Array:
        return interleaved(self._codebooks)

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> ProductQuantizer:
        """Learn codebooks, and the levels of lengths."""
        k = 2**self.bits
        if not self.norm_split:
            return replace(self, codebooks=train_codebooks(sample, self.m, k, seed))
        codec = replace(self, codebooks=train_codebooks(_directions(sample), self.m, k, seed))
        _, scales = codec._split(sample)
        levels = train_kmeans(scales.astype(np.float32)[:, None], LENGTHS, seed=seed)
        return replace(codec, lengths=np.sort(levels[:, 0]))

    def _split(self, vectors: Array) -> tuple[Array, Array]:
        """Codes of directions, and float64 (n,) by which the decoded direction is multiplied to have x's length."""
        labels = self._nearest.nearest(Subspaces(self.dim, self.m).lay(_directions(vectors)))
        decoded = np.square(decode_with(self._codebooks, labels, self.dim), dtype=np.float64).sum(axis=1)
        found = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
        return labels, np.divide(found, np.sqrt(decoded), out=np.zeros_like(found), where=decoded > 0)

    def encode(self, vectors: Array) -> Codes:
        """Encode rows."""
        if not self.norm_split:
            labels = self._nearest.nearest(Subspaces(self.dim, self.m).lay(vectors))
            return Codes(len(vectors), {"rows": self._layout.pack(labels)})
        labels, scales = self._split(vectors)
        head = nearest_level(self._lengths, scales).astype(np.uint8)
        return Codes(len(vectors), {"rows": self._layout.pack(labels, head)})

    @property
    def _lengths(self) -> Array:
        if self.lengths is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.lengths

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        rows = codes.arrays["rows"]
        out = decode_with(self._codebooks, self._layout.unpack(rows), self.dim)
        if self.norm_split:
            out *= self._lengths[rows[:, :1]]
        return out

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Score queries with every centroid: 4 m 2^bits bytes a query, 48 KiB for PQ48x8 and 12 MiB for PQ48x16."""
        laid = Subspaces(self.dim, self.m).lay(queries)
        tables = query_tables(laid, self._tables, 2**self.bits, self.metric)
        return TableQueries(tables, bias_or_zeros(bias, len(queries)))

    def scan(
        self, prepared: TableQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        self._layout.scan(prepared, codes, start, stop, allow, scores, rows, lengths=self.lengths)

    def score(self, prepared: TableQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self._layout.score(prepared, codes, rows, out, lengths=self.lengths)

    def refine(self, prepared: TableQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def bound(self, prepared: TableQueries, codes: Codes, rows: Array) -> Array | None:
        """None."""
        return None

    def arrays(self) -> dict[str, Array]:
        """Codebooks, and levels of lengths."""
        learned = {"codebooks": self._codebooks}
        return {**learned, "lengths": self._lengths} if self.norm_split else learned

    def with_arrays(self, arrays: Mapping[str, Array]) -> ProductQuantizer:
        """A trained copy."""
        learned = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        return replace(self, **learned)


def _directions(vectors: Array) -> Array:
    """Vectors of length one, zeros as they are: float32 (n, dim)."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    out: Array = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    return out
