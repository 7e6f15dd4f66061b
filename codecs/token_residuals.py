"""Tokens as the number of a centroid and a code of few bits for each dimension of what is left.

Source: Santhanam et al., "ColBERTv2: effective and efficient retrieval via lightweight late interaction", NAACL 2022,
section 3.3; quantiles of all residual values as in its code. Codes of one byte are numbers instead: 256 weights of one
distance. Codes of one bit are those of Gao and Long, "RaBitQ", SIGMOD 2024: signs of the rotated residual r, times
``|r|^2 / |r|_1``, a number of each token, which makes products unbiased over rotations (theorem 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import assign, train_kmeans
from gingham.codecs.maxsim import Levels, QueryTokens, score_residual
from gingham.codecs.rotation import ROUNDS, Rotate
from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

Bits = Literal[1, 2, 4, 8]

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
    centroids : float32 (n_centroids, dim), of length one where tokens are; rotated where there is a rotation
    weights : float32 (2^bits,), what codes stand for in every dimension, ascending
    cutoffs : float32 (2^bits - 1,), between the values of one code and of the next
    bits : of a code
    rotation : of tokens and queries where codes have one bit; None else
    """

    centroids: Array
    weights: Array
    cutoffs: Array
    bits: Bits
    rotation: Rotate | None = None

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
        rotation = None
        if bits == 1:
            rotation = Rotate(tokens.shape[1]).train(tokens[:1], seed=seed)
            tokens = rotation.apply(np.ascontiguousarray(tokens))
        count, rng = min(len(tokens), centroid_count(of_tokens or len(tokens))), np.random.default_rng(seed)
        centroids = train_centroids(tokens, count, unit=unit, seed=rng)
        held = tokens[np.sort(rng.choice(len(tokens), min(HELD_OUT, len(tokens)), replace=False))]
        left = held - centroids[assign(held, centroids)]
        return cls(centroids, *_weights(left, bits), bits, rotation)

    def lengths(self, tokens: Array, ids: Array) -> Array:
        """Lengths of what the centroids leave of tokens, float32 (n,)."""
        out = np.empty(len(tokens), np.float32)
        for first in range(0, len(tokens), ENCODED):
            part = slice(first, first + ENCODED)
            out[part] = np.linalg.norm(self._turned(tokens[part]) - self.centroids[ids[part]], axis=1)
        return out

    def with_more(self, tokens: Array, count: int, *, unit: bool, seed: int = 0) -> TokenResiduals:
        """Further centroids after those there are, learned from float32 (n, dim); what is encoded stays as it is."""
        more = train_centroids(self._turned(tokens), min(len(tokens), count), unit=unit, seed=seed)
        return replace(self, centroids=np.concatenate([self.centroids, more]))

    def score(
        self, query: QueryTokens, codes: Array, ids: Array, centroid_scores: Array, starts: Array, documents: Array
    ) -> Array:
        """Scores of documents; parameters as of :func:`gingham.codecs.maxsim.score_residual`."""
        return score_residual(query, codes, self.bits, self.levels, ids, centroid_scores, starts, documents)

    @cached_property
    def levels(self) -> Levels:
        """The weights as kernels take them."""
        return Levels.of(self.weights)

    def bytes_of(self, codes: Array) -> tuple[Array, Array]:
        """Levels of codes, uint8 (n, dim), and what those of a token are multiplied by, float32 (n,)."""
        values = self._unpacked(codes)
        levels = values if self.bits == 8 else self.levels.table[values]
        if not self.front:
            return levels, np.ones(len(codes), np.float32)
        return levels, np.ascontiguousarray(codes[:, : self.front]).view(np.float32)[:, 0]

    def encode(self, tokens: Array) -> tuple[Array, Array]:
        """Centroids int32 (n,) and codes uint8 (n, dim * bits / 8 rounded up) of tokens (n, dim)."""
        ids = np.empty(len(tokens), np.int32)
        codes = np.empty((len(tokens), self.code_bytes), np.uint8)
        for first in range(0, len(tokens), ENCODED):
            deadline.check()
            part = slice(first, first + ENCODED)
            some = self._turned(np.ascontiguousarray(tokens[part], np.float32))
            ids[part] = assign(some, self.centroids)
            left = some - self.centroids[ids[part]]
            values = np.searchsorted(self.cutoffs, left, side="right").astype(np.uint8)
            codes[part, self.front :] = self._packed(values)
            if self.front:
                squares, sums = (left.astype(np.float64) ** 2).sum(axis=1), np.abs(left).sum(axis=1, dtype=np.float64)
                scales = np.divide(squares, sums, out=np.zeros_like(sums), where=sums > 0).astype(np.float32)
                codes[part, : self.front] = scales[:, None].view(np.uint8)
        return ids, codes

    def decode(self, ids: Array, codes: Array) -> Array:
        """Invert :meth:`encode`, but for what was lost: float32 (n, dim)."""
        left = self.weights[self._unpacked(codes)]
        if self.front:
            left = left * np.ascontiguousarray(codes[:, : self.front]).view(np.float32)
        decoded: Array = self.centroids[ids] + left
        return decoded if self.rotation is None else self.rotation.invert(decoded)

    def turned(self, query: QueryTokens) -> QueryTokens:
        """The query as centroids and codes are: rotated where these are."""
        return query if self.rotation is None else QueryTokens(self._turned(query.tokens))

    def _turned(self, tokens: Array) -> Array:
        return tokens if self.rotation is None else self.rotation.apply(tokens)

    @property
    def front(self) -> int:
        """Bytes before the codes of a token: a float32 that its weights are multiplied by where codes have one bit."""
        return 4 if self.bits == 1 else 0

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of a token."""
        return self.front + int(self.centroids.shape[1] * self.bits + 7) // 8

    def _unpacked(self, codes: Array) -> Array:
        """Numbers of weights, uint8 (n, dim)."""
        shifts = np.arange(8 // self.bits, dtype=np.uint8) * self.bits
        values = (codes[:, self.front :, None] >> shifts) & ((1 << self.bits) - 1)
        unpacked: Array = values.reshape(len(codes), -1)[:, : self.centroids.shape[1]]
        return unpacked

    def _packed(self, values: Array) -> Array:
        each = 8 // self.bits
        wide = np.zeros((len(values), (self.code_bytes - self.front) * each), np.uint8)
        wide[:, : values.shape[1]] = values
        shifts = np.arange(each, dtype=np.uint8) * self.bits
        packed: Array = np.bitwise_or.reduce(wide.reshape(len(values), -1, each) << shifts, axis=2)
        return packed

    def arrays(self) -> dict[str, Array]:
        """To be stored."""
        learned = {"centroids": self.centroids, "weights": self.weights, "cutoffs": self.cutoffs}
        return learned if self.rotation is None else learned | self.rotation.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], dim: int) -> TokenResiduals:
        """Invert :meth:`arrays`; raises Corrupt."""
        try:
            centroids, weights, cutoffs = (arrays[name] for name in ("centroids", "weights", "cutoffs"))
        except KeyError as error:
            raise Corrupt(f"codes of tokens expect an array {error}; rebuild the index") from error
        bits = {1 << bits: bits for bits in get_args(Bits)}.get(weights.size)
        rotation = Rotate(dim).with_arrays(arrays) if bits == 1 and "signs" in arrays else None
        width = dim if bits != 1 else Rotate(dim).out_dim
        fit = centroids.ndim == 2 and centroids.shape[1] == width and len(centroids) and centroids.dtype == np.float32
        fit = fit and (bits != 1 or (rotation is not None and rotation.arrays()["signs"].shape == (ROUNDS, width)))
        if not fit or bits is None or weights.ndim != 1 or cutoffs.shape != (len(weights) - 1,):
            raise Corrupt(
                f"codes of tokens expect centroids of {dim} dimensions and 2, 4, 16 or 256 weights; rebuild the index"
            )
        return cls(np.array(centroids), np.array(weights), np.array(cutoffs), bits, rotation)


def _weights(left: Array, bits: Bits) -> tuple[Array, Array]:
    """Weights and cutoffs for what centroids leave of tokens."""
    steps = 1 << bits
    if bits == 1:
        return np.array([-1, 1], np.float32), np.zeros(1, np.float32)
    if bits == 8:
        weights = np.linspace(left.min(), left.max(), steps)
        return weights.astype(np.float32), ((weights[1:] + weights[:-1]) / 2).astype(np.float32)
    weights = np.quantile(left, (np.arange(steps) + 0.5) / steps)
    return weights.astype(np.float32), np.quantile(left, np.arange(1, steps) / steps).astype(np.float32)


def train_centroids(tokens: Array, count: int, *, unit: bool, seed: int | np.random.Generator = 0) -> Array:
    """Centroids of a sample of tokens, float32 (count, dim); parameters as of :meth:`TokenResiduals.train`."""
    rng = np.random.default_rng(seed)
    sample = tokens
    if len(tokens) > SAMPLE_PER_CENTROID * count:
        sample = tokens[np.sort(rng.choice(len(tokens), SAMPLE_PER_CENTROID * count, replace=False))]
    start = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    return train_kmeans(sample, count, seed=0, iterations=ITERATIONS, start=start, spherical=unit)


def centroid_count(tokens: int) -> int:
    """Centroids for so many tokens."""
    return max(1, int(CENTROIDS_PER_ROOT * np.sqrt(tokens)))


def sample_count(tokens: int) -> int:
    """Tokens that centroids are trained on."""
    return min(tokens, SAMPLE_PER_CENTROID * centroid_count(tokens))
