"""Product quantization of directions, with the length of each vector apart: for inner products.

Source: Joulin et al., "FastText.zip: compressing text classification models", 2016, section 3.2. The length that is
kept is the one that gives the decoded vector the length of its original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.kmeans import train_kmeans
from gingham.codecs.product import ProductQuantizer
from gingham.codecs.protocol import Codes
from gingham.codecs.tables import TableCodec, TableQueries, TableRows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

LENGTHS = 256
"""Levels of a length: one byte."""


@dataclass(frozen=True, eq=False)
class NormSplit(TableCodec):
    """Codes of directions, and a byte for the length.

    Attributes
    ----------
    dim : dimensions
    metric : dot or cosine
    m : sub-spaces, at most dim
    bits : of a code: 8, 12 or 16
    codebooks : float32 (m, 2^bits, ceil(dim / m)), learned from vectors of length one
    lengths : float32 (256,), ascending, learned: what multiplies a decoded direction

    Notes
    -----
    The decoded direction of PQ is shorter than one, the more so the worse it fits, which ranks rows by how well they
    are coded; so the byte pays for vectors of one length too. A score is that of the decoded vector. Array of codes:
    "rows" (n, bytes), the code of the length in front.
    """

    dim: int
    metric: Metric
    m: int
    bits: int = 8
    codebooks: Array | None = None
    lengths: Array | None = None

    def __post_init__(self) -> None:
        if self.metric == "l2":
            raise InvalidArgument(f"{self.spec} expects metric 'dot' or 'cosine', found 'l2'; use {self.spec[:-1]}")
        ProductQuantizer(self.dim, self.metric, self.m, self.bits)

    @property
    def spec(self) -> str:
        """``"PQ48x8n"``."""
        return f"PQ{self.m}x{self.bits}n"

    @property
    def trained(self) -> bool:
        """Whether codebooks and lengths are known."""
        return self.codebooks is not None and self.lengths is not None

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        return TableRows(self.m, self.bits, scaled=True)

    @cached_property
    def _inner(self) -> ProductQuantizer:
        return ProductQuantizer(self.dim, self.metric, self.m, self.bits, self._learned[0])

    @property
    def _learned(self) -> tuple[Array, Array]:
        if self.codebooks is None or self.lengths is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.codebooks, self.lengths

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> NormSplit:
        """Learn codebooks of directions, then the levels of lengths, by k-means."""
        units, norms = _directions(sample)
        inner = ProductQuantizer(self.dim, self.metric, self.m, self.bits).train(units, seed=seed)
        scales = _scales(inner, inner.encode(units), norms)
        levels = train_kmeans(scales.astype(np.float32)[:, None], LENGTHS, seed=seed)
        return replace(self, codebooks=inner.arrays()["codebooks"], lengths=np.sort(levels[:, 0]))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows: the nearest direction, then the nearest length."""
        units, norms = _directions(vectors)
        codes = self._inner.encode(units)
        lengths = self._learned[1].astype(np.float64)
        nearest = np.searchsorted((lengths[1:] + lengths[:-1]) / 2, _scales(self._inner, codes, norms))
        own = self._inner.layout.unpack(codes.arrays["rows"])
        return Codes(len(vectors), {"rows": self.layout.pack(own, nearest)})

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        rows = codes.arrays["rows"]
        inner = Codes(codes.n, {"rows": np.ascontiguousarray(rows[:, 1:])})
        out: Array = self._inner.decode(inner) * self._learned[1][rows[:, :1]]
        return out

    def prepare(self, queries: Array, bias: Array | None = None) -> TableQueries:
        """Tables of partial scores."""
        return replace(self._inner.prepare(queries, bias), lengths=self._learned[1])

    def arrays(self) -> dict[str, Array]:
        """The codebooks and the levels of lengths."""
        codebooks, lengths = self._learned
        return {"codebooks": codebooks, "lengths": lengths}

    def with_arrays(self, arrays: Mapping[str, Array]) -> NormSplit:
        """A trained copy."""
        return replace(
            self,
            codebooks=np.ascontiguousarray(arrays["codebooks"], np.float32),
            lengths=np.ascontiguousarray(arrays["lengths"], np.float32),
        )


def _directions(vectors: Array) -> tuple[Array, Array]:
    """Vectors of length one, zeros as they are, float32 (n, dim); and their lengths, float64 (n,)."""
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    return (vectors / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32), norms


def _scales(inner: ProductQuantizer, codes: Codes, norms: Array) -> Array:
    """What a decoded direction is multiplied by to be as long as the vector: float64 (n,), 0 where it is zero."""
    decoded = np.sqrt(np.square(inner.decode(codes), dtype=np.float64).sum(axis=1))
    out: Array = np.divide(norms, decoded, out=np.zeros_like(norms), where=decoded > 0)
    return out
