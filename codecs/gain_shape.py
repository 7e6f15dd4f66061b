"""Gain-shape product quantization: of every sub-vector its direction and its length, apart.

Source: Wang et al., "Grouped spherical quantization", 2024, for groups on spheres; Gersho and Gray, "Vector
quantization and signal compression", section 12.10, for gain and shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import Centroids, train_levels, train_subspaces
from gingham.codecs.product import encode_nearest
from gingham.codecs.protocol import Codes
from gingham.codecs.tables import Codebooks, TableCodec, TableQueries, TableRows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

DIRECTIONS, GAINS = 256, 16
"""Of a sub-space: codes of 8 and of 4 bits."""


@dataclass(frozen=True, eq=False)
class GainShape(TableCodec):
    """Directions of 8 bits and lengths of 4 bits.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    m : sub-spaces, at most dim; where it does not divide dim, vectors are padded with zeros
    directions : float32 (m, 256, ceil(dim / m)) of length one, learned
    gains : float32 (m, 16), learned

    Notes
    -----
    A score is that of the decoded vector. Tables of a query take 16 KiB a sub-space. Array of codes: "rows"
    (n, bytes), codes of 12 bits, the direction in the low eight.
    """

    dim: int
    metric: Metric
    m: int
    directions: Array | None = None
    gains: Array | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.m <= self.dim:
            raise InvalidArgument(f"GS expects 1 to {self.dim} sub-spaces, one a dimension at most, found {self.m}")

    @property
    def spec(self) -> str:
        """``"GS48x8"``."""
        return f"GS{self.m}x8"

    @property
    def trained(self) -> bool:
        """Whether directions and gains are known."""
        return self.directions is not None

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        return TableRows(self.m, 12)

    @property
    def _learned(self) -> tuple[Array, Array]:
        if self.directions is None or self.gains is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.directions, self.gains

    @cached_property
    def _centroids(self) -> Centroids:
        return Centroids.of(self._learned[0])

    @cached_property
    def _books(self) -> Codebooks:
        directions, gains = self._learned
        every = gains[:, :, None, None] * directions[:, None]
        return Codebooks.of(every.reshape(self.m, GAINS * DIRECTIONS, -1))

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> GainShape:
        """Learn directions by k-means on sub-vectors of length one, then the gains along them."""
        units, _ = self._units(sample)
        directions = train_subspaces(units, self.m, DIRECTIONS, seed=seed)
        lengths = np.sqrt(np.square(directions, dtype=np.float64).sum(axis=2, keepdims=True))
        fallback = np.zeros_like(directions)
        fallback[:, :, 0] = 1
        directions = np.where(lengths > 0, directions / np.where(lengths > 0, lengths, 1), fallback).astype(np.float32)
        partly = replace(self, directions=directions, gains=np.zeros((self.m, GAINS), np.float32))
        _, along = partly._shapes(sample)
        gains = []
        for s in range(self.m):
            deadline.check()
            gains.append(train_levels(along[:, s], GAINS))
        return replace(partly, gains=np.stack(gains).astype(np.float32))

    def _units(self, vectors: Array) -> tuple[Array, Array]:
        """Sub-vectors scaled to length one, float32 (n, m * dsub), and their lengths, float64 (n, m)."""
        dsub = -(-self.dim // self.m)
        padded = np.zeros((len(vectors), self.m * dsub), np.float32)
        padded[:, : self.dim] = vectors
        parts = padded.reshape(len(vectors), self.m, dsub)
        lengths = np.sqrt(np.square(parts, dtype=np.float64).sum(axis=2))
        parts /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, :, None]
        return padded, lengths

    def _shapes(self, vectors: Array) -> tuple[Array, Array]:
        """Codes of directions (n, m), and the lengths of sub-vectors along them, float32 (n, m)."""
        directions = self._learned[0]
        units, lengths = self._units(vectors)
        shapes = encode_nearest(self._centroids, units)
        parts = units.reshape(len(vectors), *directions.shape[::2])
        cosines = (parts * directions[np.arange(self.m), shapes]).sum(axis=2, dtype=np.float64)
        return shapes, (lengths * np.maximum(cosines, 0)).astype(np.float32)

    def encode(self, vectors: Array) -> Codes:
        """Encode rows: the nearest directions, then the nearest gains along them."""
        shapes, along = self._shapes(vectors)
        gains = self._learned[1]
        codes = shapes.astype(np.uint16)
        for s in range(self.m):
            middles = (gains[s, 1:].astype(np.float64) + gains[s, :-1]) / 2
            codes[:, s] |= np.searchsorted(middles, along[:, s]).astype(np.uint16) << 8
        return Codes(len(vectors), {"rows": self.layout.pack(codes)})

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        directions, gains = self._learned
        stored, every = self.layout.unpack(codes.arrays["rows"]), np.arange(self.m)
        parts = gains[every, stored >> 8][:, :, None] * directions[every, stored & 255]
        out: Array = parts.reshape(codes.n, self.m * directions.shape[2])[:, : self.dim]
        return out

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Tables of partial scores."""
        biases = np.zeros(len(queries), np.float32) if bias is None else bias
        return self._books.tables(queries, biases, times=0.0 if self.metric == "l2" else 1.0)

    def arrays(self) -> dict[str, Array]:
        """Directions and gains."""
        directions, gains = self._learned
        return {"directions": directions, "gains": gains}

    def with_arrays(self, arrays: Mapping[str, Array]) -> GainShape:
        """A trained copy."""
        directions, gains = (np.ascontiguousarray(arrays[n], np.float32) for n in ("directions", "gains"))
        return replace(self, directions=directions, gains=gains)
