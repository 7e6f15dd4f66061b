"""Tokens as the number of a centroid and, for each part of what is left, the number of one of 256 more.

Source: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", IEEE TPAMI 33(1), 2011, sections II
and IV (codes of residuals); of token memories, Zemlyanskiy et al., "MEMORY-VQ", NAACL 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import Centroids, assign
from gingham.codecs.maxsim import Books, QueryTokens, score_products
from gingham.codecs.product import decode_with, encode_nearest, train_codebooks
from gingham.codecs.token_residuals import ENCODED, TokenResiduals, centroid_count, train_centroids
from gingham.errors import Corrupt, InvalidArgument
from gingham.vector_types import TOKEN_BITS, TOKEN_PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.vector_types import TokenCodec

    Array = np.ndarray[Any, Any]

BOOK_SAMPLE = 32_768
"""Tokens that the centroids of parts are trained on."""


@dataclass(frozen=True, eq=False)
class TokenProducts:
    """Centroids of tokens, and those of the parts of what they leave.

    Attributes
    ----------
    centroids : float32 (n_centroids, dim), of length one where tokens are
    codebooks : float32 (parts, 256, dim / parts)
    """

    centroids: Array
    codebooks: Array

    @classmethod
    def train(
        cls, tokens: Array, parts: int, *, unit: bool, seed: int = 0, of_tokens: int | None = None
    ) -> TokenProducts:
        """Learn from a sample of tokens, float32 (n, dim), n at least 1; parameters as of :class:`TokenResiduals`.

        Raises
        ------
        InvalidArgument : parts do not divide the dimensions
        """
        if tokens.shape[1] % parts:
            raise InvalidArgument(f"PQ{parts} expects dimensions that {parts} divides, found {tokens.shape[1]}")
        count, rng = min(len(tokens), centroid_count(of_tokens or len(tokens))), np.random.default_rng(seed)
        centroids = train_centroids(tokens, count, unit=unit, seed=rng)
        held = tokens[np.sort(rng.choice(len(tokens), min(BOOK_SAMPLE, len(tokens)), replace=False))]
        left = held - centroids[assign(held, centroids)]
        return cls(centroids, train_codebooks(left, parts, 256, seed=seed))

    def lengths(self, tokens: Array, ids: Array) -> Array:
        """Lengths of what the centroids leave of tokens, float32 (n,)."""
        out = np.empty(len(tokens), np.float32)
        for first in range(0, len(tokens), ENCODED):
            part = slice(first, first + ENCODED)
            out[part] = np.linalg.norm(tokens[part] - self.centroids[ids[part]], axis=1)
        return out

    def with_more(self, tokens: Array, count: int, *, unit: bool, seed: int = 0) -> TokenProducts:
        """Further centroids after those there are, learned from float32 (n, dim); what is encoded stays as it is."""
        more = train_centroids(tokens, min(len(tokens), count), unit=unit, seed=seed)
        return replace(self, centroids=np.concatenate([self.centroids, more]))

    def bytes_of(self, codes: Array) -> tuple[Array, Array]:
        """Levels of codes, uint8 (n, dim), and what those of a token are multiplied by, ones, float32 (n,)."""
        return decode_with(self.levels.table, codes), np.ones(len(codes), np.float32)

    def encode(self, tokens: Array) -> tuple[Array, Array]:
        """Centroids int32 (n,) and codes uint8 (n, parts) of tokens (n, dim)."""
        ids, codes = np.empty(len(tokens), np.int32), np.empty((len(tokens), self.code_bytes), np.uint8)
        for first in range(0, len(tokens), ENCODED):
            deadline.check()
            part = slice(first, first + ENCODED)
            some = np.ascontiguousarray(tokens[part], np.float32)
            ids[part] = assign(some, self.centroids)
            codes[part] = encode_nearest(self._parts, some - self.centroids[ids[part]])
        return ids, codes

    def decode(self, ids: Array, codes: Array) -> Array:
        """Invert :meth:`encode`, but for what was lost: float32 (n, dim)."""
        decoded: Array = self.centroids[ids] + decode_with(self.codebooks, codes)
        return decoded

    def turned(self, query: QueryTokens) -> QueryTokens:
        """The query as it is: nothing is rotated."""
        return query

    def score(
        self, query: QueryTokens, codes: Array, ids: Array, centroid_scores: Array, starts: Array, documents: Array
    ) -> Array:
        """Scores of documents; parameters as of :func:`gingham.codecs.maxsim.score_products`."""
        return score_products(query, codes, self.levels, ids, centroid_scores, starts, documents)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of a token."""
        return len(self.codebooks)

    @cached_property
    def levels(self) -> Books:
        """The codebooks as kernels take them."""
        return Books.of(self.codebooks)

    @cached_property
    def _parts(self) -> Centroids:
        return Centroids.of(self.codebooks)

    def arrays(self) -> dict[str, Array]:
        """To be stored."""
        return {"centroids": self.centroids, "codebooks": self.codebooks}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], dim: int) -> TokenProducts:
        """Invert :meth:`arrays`; raises Corrupt."""
        try:
            centroids, books = (arrays[name] for name in ("centroids", "codebooks"))
        except KeyError as error:
            raise Corrupt(f"codes of tokens expect an array {error}; rebuild the index") from error
        fit = centroids.ndim == 2 and centroids.shape[1] == dim and len(centroids) > 0
        fit = fit and books.ndim == 3 and books.shape[1] == 256 and books.shape[0] * books.shape[2] == dim
        if not fit or centroids.dtype != np.float32 or books.dtype != np.float32:
            raise Corrupt(f"codes of tokens expect centroids and codebooks of {dim} dimensions; rebuild the index")
        return cls(np.array(centroids), np.array(books))


def train_token_codec(
    codec: TokenCodec, tokens: Array, *, unit: bool, seed: int = 0, of_tokens: int | None = None
) -> TokenResiduals | TokenProducts:
    """What a codec learns from a sample; parameters as of :meth:`TokenResiduals.train`."""
    if codec in TOKEN_PARTS:
        return TokenProducts.train(tokens, TOKEN_PARTS[codec], unit=unit, seed=seed, of_tokens=of_tokens)
    return TokenResiduals.train(tokens, TOKEN_BITS[codec], unit=unit, seed=seed, of_tokens=of_tokens)


def token_codec_of(codec: str, arrays: Mapping[str, Array], dim: int) -> TokenResiduals | TokenProducts:
    """What a codec learned, from its stored arrays; raises Corrupt."""
    kind = TokenProducts if codec in TOKEN_PARTS else TokenResiduals
    learned = kind.from_arrays(arrays, dim)
    if isinstance(learned, TokenProducts) and learned.code_bytes != TOKEN_PARTS[codec]:
        raise Corrupt(f"codes of tokens expect codebooks of {codec}, found {learned.code_bytes}; rebuild the index")
    return learned
