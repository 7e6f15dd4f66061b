"""Finite scalar quantization of principal components: as many levels each as its variance earns, packed into bytes.

Source: Mentzer et al., "Finite scalar quantization", ICLR 2024, for codes of mixed radix; reverse water-filling, Cover
and Thomas, "Elements of information theory", section 10.3.3, for the number of levels. Nothing is trained but one
eigendecomposition and levels in one dimension.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import Centroids, train_levels
from gingham.codecs.product import decode_with, encode_nearest
from gingham.codecs.projection import Projection, axes, moments
from gingham.codecs.protocol import Codes
from gingham.codecs.tables import Codebooks, TableCodec, TableQueries, TableRows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

LEVEL_ROWS = 16_384
"""Rows that levels are learned from, spread evenly over the sample."""
CODES = 256
"""Codes of a byte: the product of the levels of its components is at most so much."""


@dataclass(frozen=True, eq=False)
class MixedRadix(TableCodec):
    """Codes of principal components, several to a byte.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    n_bytes : of a vector, at most dim
    mean : float32 (dim,), learned
    matrix : float32 (n_bytes * width, dim), learned: the components of each byte, at most ``width``, then zeros
    codebooks : float32 (n_bytes, 256, width), learned: the levels that each code stands for

    Notes
    -----
    A score is that of the decoded vector. Components of one level are dropped: they decode to the mean. Array of codes:
    "rows" (n, n_bytes).
    """

    dim: int
    metric: Metric
    n_bytes: int
    mean: Array | None = None
    matrix: Array | None = None
    codebooks: Array | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n_bytes <= self.dim:
            raise InvalidArgument(f"FSQ expects 1 to {self.dim} bytes, one a dimension at most, found {self.n_bytes}")

    @property
    def spec(self) -> str:
        """``"FSQ48"``."""
        return f"FSQ{self.n_bytes}"

    @property
    def trained(self) -> bool:
        """Whether the components are known."""
        return self.mean is not None

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        return TableRows(self.n_bytes)

    @property
    def _learned(self) -> tuple[Array, Array, Array]:
        if self.mean is None or self.matrix is None or self.codebooks is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.mean, self.matrix, self.codebooks

    @cached_property
    def _centroids(self) -> Centroids:
        return Centroids.of(self._learned[2])

    @cached_property
    def _books(self) -> Codebooks:
        return Codebooks.of(self._learned[2])

    @cached_property
    def _forward(self) -> Projection:
        return Projection(self._learned[1])

    @cached_property
    def _backward(self) -> Projection:
        return Projection(np.ascontiguousarray(self._learned[1].T))

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> MixedRadix:
        """Learn components, the number of their levels, and the levels."""
        top = float(np.abs(sample).max(initial=0)) or 1.0
        mean, covariance = moments(sample / np.float32(top), centered=True)
        variances, directions = axes(covariance)
        counts, places = share_levels(variances, self.n_bytes)
        members = [np.flatnonzero((places == b) & (counts > 1)) for b in range(self.n_bytes)]
        width = max(1, max(len(m) for m in members))
        matrix = np.zeros((self.n_bytes * width, self.dim), np.float32)
        for b, own in enumerate(members):
            matrix[b * width : b * width + len(own)] = directions[own]
        mean = (mean * top).astype(np.float32)
        rows = sample[np.linspace(0, len(sample) - 1, min(len(sample), LEVEL_ROWS)).astype(int)]
        components = Projection(matrix).apply(np.ascontiguousarray(rows), mean)
        books = np.zeros((self.n_bytes, CODES, width), np.float32)
        for b, own in enumerate(members):
            deadline.check()
            below = 1
            for slot, component in enumerate(own):
                levels = train_levels(components[:, b * width + slot], int(counts[component]))
                books[b, :, slot] = levels[np.arange(CODES) // below % len(levels)]
                below *= len(levels)
            books[b, below:] = books[b, :1]
        return replace(self, mean=mean, matrix=matrix, codebooks=books)

    def encode(self, vectors: Array) -> Codes:
        """Encode rows: every component to its nearest level."""
        components = self._forward.apply(vectors, self._learned[0])
        return Codes(len(vectors), {"rows": self.layout.pack(encode_nearest(self._centroids, components))})

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        mean, _, books = self._learned
        out: Array = self._backward.apply(decode_with(books, self.layout.unpack(codes.arrays["rows"]))) + mean
        return out

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Tables of partial scores."""
        mean = self._learned[0]
        constant = np.zeros(len(queries)) if bias is None else bias.astype(np.float64)
        if self.metric != "l2":
            constant = constant + (queries * mean).sum(axis=1, dtype=np.float64)
            return self._books.tables(self._forward.apply(queries), constant, times=1.0)
        components = self._forward.apply(queries, mean)
        dropped = queries - mean - self._backward.apply(components)
        constant = constant - np.square(dropped, dtype=np.float64).sum(axis=1)
        return self._books.tables(components, constant, times=0.0)

    def arrays(self) -> dict[str, Array]:
        """Mean, components and levels."""
        mean, matrix, books = self._learned
        return {"mean": mean, "matrix": matrix, "codebooks": books}

    def with_arrays(self, arrays: Mapping[str, Array]) -> MixedRadix:
        """A trained copy."""
        mean, matrix, books = (np.ascontiguousarray(arrays[n], np.float32) for n in ("mean", "matrix", "codebooks"))
        return replace(self, mean=mean, matrix=matrix, codebooks=books)


def share_levels(variances: Array, n_bytes: int) -> tuple[Array, Array]:
    """Levels of each component, and its byte: int64 (dim,) each; components of one level are dropped.

    Parameters
    ----------
    variances : float64 (dim,), descending

    Notes
    -----
    ``max(1, round(sqrt(variance / water)))`` levels, at the lowest water at which they fit into the bytes; then the
    level that lowers the error most is added while its byte has room, since equal variances all round the same way.
    """
    low, high = np.log(max(variances[0], 1e-300)) - 24.0, np.log(max(variances[0], 1e-300)) + 2.0
    best = np.ones(len(variances), np.int64), np.zeros(len(variances), np.int64)
    for _ in range(40):
        water = (low + high) / 2
        counts = np.clip(np.rint(np.sqrt(variances / np.exp(water))), 1, CODES).astype(np.int64)
        places = _placed(counts, n_bytes)
        if places is None:
            low = water
        else:
            high, best = water, (counts, places)
    counts, places = best
    products = np.ones(n_bytes, np.int64)
    np.multiply.at(products, places[counts > 1], counts[counts > 1])
    while True:
        emptiest = int(products.argmin())
        homes = np.where(counts > 1, places, emptiest)
        fits = products[homes] // counts * (counts + 1) <= CODES
        gains = np.where(fits, variances * (1 / counts**2 - 1 / (counts + 1) ** 2), 0)
        chosen = int(gains.argmax())
        if gains[chosen] <= 0:
            return counts, homes
        places[chosen] = homes[chosen]
        products[homes[chosen]] = products[homes[chosen]] // counts[chosen] * (counts[chosen] + 1)
        counts[chosen] += 1


def _placed(counts: Array, n_bytes: int) -> Array | None:
    """Bytes of components, the one of most levels first and each to the emptiest byte; None where one does not fit."""
    places = np.zeros(len(counts), np.int64)
    heap = [(1, b) for b in range(n_bytes)]
    for component in np.argsort(-counts, kind="stable"):
        if counts[component] == 1:
            break
        product, b = heap[0]
        product *= int(counts[component])
        if product > CODES:
            return None
        heapq.heapreplace(heap, (product, b))
        places[component] = b
    return places
