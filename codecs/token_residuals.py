"""Tokens as the number of a centroid and a code of few bits for each dimension of what is left.

Source: Santhanam et al., "ColBERTv2: effective and efficient retrieval via lightweight late interaction", NAACL 2022,
section 3.3; quantiles of all residual values as in its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import assign, train_kmeans
from gingham.codecs.maxsim import Levels
from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

Bits = Literal[2, 4]

CENTROIDS_PER_ROOT = 4
"""Centroids: 4 sqrt(tokens), a quarter of ColBERTv2's: a query is multiplied with each, and codes make up for it."""
SAMPLE_PER_CENTROID, ITERATIONS = 32, 4
HELD_OUT = 50_000
"""Tokens that quantiles are taken of."""
ENCODED = 8192


@dataclass(frozen=True, eq=False)
class TokenResiduals:
    """Centroids and weights.

    Attributes
    ----------
    centroids : float32 (n_centroids, dim), of length one where tokens are
    weights : float32 (2^bits,), what codes stand for in every dimension, ascending
    cutoffs : float32 (2^bits - 1,), between the values of one code and of the next
    bits : of a code
    """

    centroids: Array
    weights: Array
    cutoffs: Array
    bits: Bits

    @classmethod
    def train(
        cls, tokens: Array, bits: Bits, *, unit: bool, seed: int = 0, of_tokens: int | None = None
    ) -> TokenResiduals:
        """Learn from a sample of tokens, float32 (n, dim), n at least 1.

        Parameters
        ----------
        unit : tokens have length one, so that centroids are to have it too
        of_tokens : all of which these are a sample; None for no more than these
        """
        count = min(len(tokens), centroid_count(of_tokens or len(tokens)))
        rng = np.random.default_rng(seed)
        sample = tokens
        if len(tokens) > SAMPLE_PER_CENTROID * count:
            sample = tokens[np.sort(rng.choice(len(tokens), SAMPLE_PER_CENTROID * count, replace=False))]
        start = sample[np.sort(rng.choice(len(sample), count, replace=False))]
        centroids = train_kmeans(sample, count, seed=seed, iterations=ITERATIONS, start=start, spherical=unit)
        held = tokens[np.sort(rng.choice(len(tokens), min(HELD_OUT, len(tokens)), replace=False))]
        left = held - centroids[assign(held, centroids)]
        steps = 1 << bits
        weights = np.quantile(left, (np.arange(steps) + 0.5) / steps).astype(np.float32)
        cutoffs = np.quantile(left, np.arange(1, steps) / steps).astype(np.float32)
        return cls(centroids, weights, cutoffs, bits)

    @property
    def levels(self) -> Levels:
        """The weights as kernels take them."""
        return Levels.of(self.weights)

    def encode(self, tokens: Array) -> tuple[Array, Array]:
        """Centroids int32 (n,) and codes uint8 (n, dim * bits / 8 rounded up) of tokens (n, dim)."""
        ids = np.empty(len(tokens), np.int32)
        codes = np.empty((len(tokens), self.code_bytes), np.uint8)
        for first in range(0, len(tokens), ENCODED):
            deadline.check()
            part = slice(first, first + ENCODED)
            some = np.ascontiguousarray(tokens[part], np.float32)
            ids[part] = assign(some, self.centroids)
            values = np.searchsorted(self.cutoffs, some - self.centroids[ids[part]], side="right").astype(np.uint8)
            codes[part] = self._packed(values)
        return ids, codes

    def decode(self, ids: Array, codes: Array) -> Array:
        """Invert :meth:`encode`, but for what was lost: float32 (n, dim)."""
        each, dim = 8 // self.bits, self.centroids.shape[1]
        shifts = np.arange(each, dtype=np.uint8) * self.bits
        values = (codes[:, :, None] >> shifts) & ((1 << self.bits) - 1)
        decoded: Array = self.centroids[ids] + self.weights[values.reshape(len(codes), -1)[:, :dim]]
        return decoded

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of a token."""
        return int(self.centroids.shape[1] * self.bits + 7) // 8

    def _packed(self, values: Array) -> Array:
        each = 8 // self.bits
        wide = np.zeros((len(values), self.code_bytes * each), np.uint8)
        wide[:, : values.shape[1]] = values
        shifts = np.arange(each, dtype=np.uint8) * self.bits
        packed: Array = np.bitwise_or.reduce(wide.reshape(len(values), -1, each) << shifts, axis=2)
        return packed

    def arrays(self) -> dict[str, Array]:
        """To be stored."""
        return {"centroids": self.centroids, "weights": self.weights, "cutoffs": self.cutoffs}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], dim: int) -> TokenResiduals:
        """Invert :meth:`arrays`; raises Corrupt."""
        try:
            centroids, weights, cutoffs = (arrays[name] for name in ("centroids", "weights", "cutoffs"))
        except KeyError as error:
            raise Corrupt(f"codes of tokens expect an array {error}; rebuild the index") from error
        fit = centroids.ndim == 2 and centroids.shape[1] == dim and len(centroids) and centroids.dtype == np.float32
        if not fit or weights.shape not in ((4,), (16,)) or cutoffs.shape != (len(weights) - 1,):
            raise Corrupt(
                f"codes of tokens expect centroids of {dim} dimensions and 4 or 16 weights; rebuild the index"
            )
        return cls(np.array(centroids), np.array(weights), np.array(cutoffs), 2 if len(weights) == 4 else 4)


def centroid_count(tokens: int) -> int:
    """Centroids for so many tokens."""
    return max(1, int(CENTROIDS_PER_ROOT * np.sqrt(tokens)))


def sample_count(tokens: int) -> int:
    """Tokens that centroids are trained on."""
    return min(tokens, SAMPLE_PER_CENTROID * centroid_count(tokens))
