"""Product quantization: a vector is cut into sub-vectors, and each becomes the nearest of its sub-space's centroids.

Source: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", IEEE TPAMI 33(1), 2011, sections II
and III. Where the number of sub-spaces does not divide the dimensions, vectors are padded with zeros at their end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.kmeans import Centroids, train_subspaces
from gingham.codecs.protocol import Codes
from gingham.codecs.tables import Codebooks, TableCodec, TableQueries, TableRows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]


def train_codebooks(sample: Array, m: int, k: int, *, seed: int) -> Array:
    """Centroids of m sub-spaces by k-means: float32 (m, k, dsub), dsub = ceil(d / m).

    Parameters
    ----------
    sample : float32 (n, d); fewer rows than centroids are repeated
    """
    return train_subspaces(sample, m, k, seed=seed)


def encode_with(codebooks: Array, vectors: Array) -> Array:
    """Nearest centroid of each sub-vector: uint8 (n, m), or uint16 of more than 256 centroids."""
    return encode_nearest(Centroids.of(codebooks), vectors)


def encode_nearest(known: Centroids, vectors: Array) -> Array:
    """As :func:`encode_with`, from centroids made ready."""
    out = np.empty((len(vectors), known.m), np.uint8 if known.k <= 256 else np.uint16)
    known.nearest(vectors, out=out)
    return out


@dataclass(frozen=True, eq=False)
class ProductQuantizer(TableCodec):
    """Product quantization with a table of float32 for each query.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    m : sub-spaces, at most dim
    bits : of a code: 8, 12 or 16; there are 2^bits centroids in a sub-space
    codebooks : float32 (m, 2^bits, ceil(dim / m)), learned

    Notes
    -----
    A score is that of the decoded vector. Tables of a query take 4 m 2^bits bytes. Array of codes: "rows" (n, bytes),
    codes of 12 bits packed two in three bytes, of 16 bits least byte first.
    """

    dim: int
    metric: Metric
    m: int
    bits: int = 8
    codebooks: Array | None = None

    def __post_init__(self) -> None:
        if self.bits not in (8, 12, 16):
            raise InvalidArgument(f"PQ expects 8, 12 or 16 bits a code, found {self.bits}")
        if not 1 <= self.m <= self.dim:
            raise InvalidArgument(f"PQ expects 1 to {self.dim} sub-spaces, one a dimension at most, found {self.m}")

    @property
    def spec(self) -> str:
        """``"PQ48x8"``."""
        return f"PQ{self.m}x{self.bits}"

    @property
    def trained(self) -> bool:
        """Whether the codebooks are known."""
        return self.codebooks is not None

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        return TableRows(self.m, self.bits)

    @property
    def _learned(self) -> Array:
        if self.codebooks is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.codebooks

    @cached_property
    def _centroids(self) -> Centroids:
        return Centroids.of(self._learned)

    @cached_property
    def _books(self) -> Codebooks:
        return Codebooks.of(self._learned)

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> ProductQuantizer:
        """Learn the codebooks by k-means; fewer rows than centroids are repeated."""
        return replace(self, codebooks=train_codebooks(sample, self.m, 2**self.bits, seed=seed))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows."""
        return Codes(len(vectors), {"rows": self.layout.pack(encode_nearest(self._centroids, vectors))})

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        return decode_with(self._learned, self.layout.unpack(codes.arrays["rows"]))[:, : self.dim]

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Tables of partial scores."""
        biases = np.zeros(len(queries), np.float32) if bias is None else bias
        return self._books.tables(queries, biases, times=0.0 if self.metric == "l2" else 1.0)

    def arrays(self) -> dict[str, Array]:
        """The codebooks."""
        return {"codebooks": self._learned}

    def with_arrays(self, arrays: Mapping[str, Array]) -> ProductQuantizer:
        """A trained copy."""
        return replace(self, codebooks=np.ascontiguousarray(arrays["codebooks"], np.float32))


def decode_with(codebooks: Array, codes: Array) -> Array:
    """Centroids of codes (n, m) side by side: float32 (n, m * dsub)."""
    m, _, dsub = codebooks.shape
    out: Array = codebooks[np.arange(m), codes].reshape(len(codes), m * dsub)
    return out
