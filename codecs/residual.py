"""Residual quantization: every stage has a centroid for what the stages before left over.

Source: Chen, Guan and Wang, "Approximate nearest neighbor search by residual vector quantization", Sensors 10, 2010;
Liu et al., "Improved residual vector quantization", 2015, for the search by a beam.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import ROWS_PER_CENTROID, assign, train_kmeans
from gingham.codecs.projection import Projection, axes, moments
from gingham.codecs.protocol import Codes
from gingham.codecs.tables import TableCodec, TableQueries, TableRows, tables_of
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

CENTROIDS = 256
BEAM = 5
"""Partial codes kept from stage to stage: the default of FAISS (ResidualQuantizer.h)."""
STEPS, ITERATIONS = 10, 10
"""Steps from one principal component to all, and iterations of k-means in each: ProgressiveDimClustering of FAISS."""
BLOCK_VALUES = 1 << 20
"""Values of the residuals of a block of rows."""


@dataclass(frozen=True, eq=False)
class ResidualQuantizer(TableCodec):
    """A sum of centroids, one of each stage.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    m : stages
    codebooks : float32 (m, 256, dim), learned

    Notes
    -----
    A score is that of the decoded vector. Encoding takes O(beam * m * 256 * dim) a row. Array of codes: "rows"
    (n, bytes), one byte a stage; under l2 minus the squared length of the decoded vector, float32, in front.
    """

    dim: int
    metric: Metric
    m: int
    codebooks: Array | None = None

    @property
    def spec(self) -> str:
        """``"RQ16x8"``."""
        return f"RQ{self.m}x8"

    @property
    def trained(self) -> bool:
        """Whether the codebooks are known."""
        return self.codebooks is not None

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        return TableRows(self.m, 8, self.metric == "l2")

    @property
    def _learned(self) -> Array:
        if self.codebooks is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.codebooks

    @cached_property
    def _stages(self) -> list[Projection]:
        return [Projection(book) for book in self._learned]

    @cached_property
    def _all_stages(self) -> Projection:
        return Projection(self._learned.reshape(-1, self.dim))

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> ResidualQuantizer:
        """Learn the codebooks stage after stage, each from what the centroids of the stages before leave over."""
        limit = ROWS_PER_CENTROID * CENTROIDS
        rest = sample[np.linspace(0, len(sample) - 1, min(len(sample), limit)).astype(int)]
        books = []
        for stage in range(self.m):
            books.append(_trained(rest, seed + stage))
            rest = rest - books[-1][assign(rest, books[-1])]
        return replace(self, codebooks=np.stack(books))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows, keeping the :data:`BEAM` best partial codes of each stage."""
        step = max(1, BLOCK_VALUES // (BEAM * self.dim))
        codes = np.empty((len(vectors), self.m), np.uint8)
        for start in range(0, len(vectors), step):
            deadline.check()
            codes[start : start + step] = self._searched(vectors[start : start + step])
        header = None
        if self.metric == "l2":
            header = -np.square(self._sum(codes), dtype=np.float64).sum(axis=1)
        return Codes(len(vectors), {"rows": self.layout.pack(codes, header)})

    def _searched(self, vectors: Array) -> Array:
        """Codes of a block of rows: uint8 (n, m)."""
        n = len(vectors)
        rest, codes = vectors[:, None, :], np.empty((n, 1, 0), np.uint8)
        line = np.arange(n)[:, None]
        for book, stage in zip(self._learned, self._stages, strict=True):
            width = rest.shape[1]
            products = stage.apply(np.ascontiguousarray(rest).reshape(-1, self.dim)).reshape(n, width, CENTROIDS)
            lengths = np.square(rest, dtype=np.float64).sum(axis=2)
            squares = np.square(book, dtype=np.float64).sum(axis=1)
            errors = (lengths[:, :, None] + squares - 2.0 * products).reshape(n, -1)
            kept = np.sort(np.argpartition(errors, BEAM - 1, axis=1)[:, :BEAM], axis=1)
            kept = kept[line, np.argsort(errors[line, kept], axis=1, kind="stable")]
            parents, chosen = kept // CENTROIDS, kept % CENTROIDS
            rest = rest[line, parents] - book[chosen]
            codes = np.concatenate([codes[line, parents], chosen[:, :, None].astype(np.uint8)], axis=2)
        return codes[:, 0]

    def _sum(self, codes: Array) -> Array:
        out = np.zeros((len(codes), self.dim), np.float32)
        for stage, book in enumerate(self._learned):
            out += book[codes[:, stage]]
        return out

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        return self._sum(self.layout.unpack(codes.arrays["rows"]))

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Tables of partial scores."""
        constant = np.zeros(len(queries)) if bias is None else bias.astype(np.float64)
        partial = self._all_stages.apply(queries).reshape(len(queries), self.m, CENTROIDS)
        if self.metric == "l2":
            constant = constant - np.square(queries, dtype=np.float64).sum(axis=1)
            partial *= 2
        return tables_of(partial, constant)

    def arrays(self) -> dict[str, Array]:
        """The codebooks."""
        return {"codebooks": self._learned}

    def with_arrays(self, arrays: Mapping[str, Array]) -> ResidualQuantizer:
        """A trained copy."""
        return replace(self, codebooks=np.ascontiguousarray(arrays["codebooks"], np.float32))


def _trained(rows: Array, seed: int) -> Array:
    """Centroids by k-means on ever more principal components, each from the centroids of the ones before.

    Notes
    -----
    Leftovers have no clusters, and k-means from rows of many dimensions keeps to those rows: centroids that start from
    few components erred by a third less.
    """
    dim = rows.shape[1]
    top = float(np.abs(rows).max(initial=0)) or 1.0
    mean, covariance = moments(rows / np.float32(top), centered=True)
    _, directions = axes(covariance)
    mean = (mean * top).astype(np.float32)
    turned = Projection(directions.astype(np.float32)).apply(rows, mean)
    centroids: Array | None = None
    for width in np.unique(np.rint(dim ** (np.arange(STEPS + 1) / STEPS)).astype(int)):
        part = np.ascontiguousarray(turned[:, :width])
        if centroids is not None:
            centroids = np.pad(centroids, ((0, 0), (0, width - centroids.shape[1])))
        centroids = train_kmeans(part, CENTROIDS, seed=seed, iterations=ITERATIONS, start=centroids)
    return np.asarray(centroids @ directions + mean, np.float32)
