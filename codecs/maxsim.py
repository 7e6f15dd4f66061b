"""MaxSim scores of documents that are matrices of tokens: as float16, as bytes, and as residuals of centroids.

A document scores the sum over query tokens of the greatest inner product with any of its tokens (Khattab and Zaharia,
"ColBERT", 2020, arXiv:2004.12832). Documents are listed by number, in any order; document d has the tokens
``starts[d]`` to ``starts[d + 1]``, and one without tokens scores -inf. A score has the same bits whatever else is
listed. Arrays may be read-only or mapped; ids of centroids are trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BLOCK = 16
"""Query tokens that kernels take at once."""
LARGEST = 31
"""Of the integers of query tokens: four products with bytes stay within 16 bits."""
MIDDLE = 127.5
"""Of the levels of a byte."""


@dataclass(frozen=True, eq=False)
class QueryTokens:
    """A query prepared for all kernels; what a kernel needs is made when it is first asked for.

    Attributes
    ----------
    tokens : float32 (n_query_tokens, dim)

    Notes
    -----
    For kernels on bytes a token is ``factor i + rest`` with integers i of six bits. Of the rest, the product with the
    middle level of all dimensions is added exactly: leaving it out would double the error of a score.
    """

    tokens: Array

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or 0 in self.tokens.shape or self.tokens.dtype != np.float32:
            raise InvalidArgument(
                f"query tokens expect float32 (n, dim) of at least one token, found {self.tokens.dtype} "
                f"{self.tokens.shape}"
            )

    @property
    def dim(self) -> int:
        """Dimensions."""
        return int(self.tokens.shape[1])

    @cached_property
    def padded(self) -> Array:
        """float32 (16 n, dim): the tokens, then zeros."""
        padded = np.zeros((-(-len(self.tokens) // BLOCK) * BLOCK, self.dim), np.float32)
        padded[: len(self.tokens)] = self.tokens
        return padded

    @cached_property
    def float_blocks(self) -> Array:
        """float32 (n, dim, 16)."""
        return np.ascontiguousarray(self.padded.reshape(-1, BLOCK, self.dim).transpose(0, 2, 1))

    @cached_property
    def factors(self) -> Array:
        """float32 (16 n,), what integers are multiplied by."""
        factors: Array = np.abs(self.padded).max(axis=1) / np.float32(LARGEST)
        return factors

    @cached_property
    def integers(self) -> Array:
        """int8 (16 n, dim), from -31 to 31."""
        divisors = np.where(self.factors > 0, self.factors, np.float32(1))
        return np.clip(np.rint(self.padded / divisors[:, None]), -LARGEST, LARGEST).astype(np.int8)

    @cached_property
    def integer_blocks(self) -> Array:
        """int8 (n, width / 4, 16, 4), dimensions padded to a multiple of 4 by zeros."""
        width = -(-self.dim // 4) * 4
        wide = np.zeros((len(self.padded), width), np.int8)
        wide[:, : self.dim] = self.integers
        return np.ascontiguousarray(wide.reshape(-1, BLOCK, width // 4, 4).transpose(0, 2, 1, 3))

    @cached_property
    def parameters(self) -> Array:
        """float32 (3, 16 n): factors; sums of the rest times the middle level; sums of dimensions."""
        sums = self.padded.sum(axis=1, dtype=np.float64)
        rests = sums - self.factors.astype(np.float64) * self.integers.sum(axis=1, dtype=np.int64)
        return np.stack([self.factors, (MIDDLE * rests).astype(np.float32), sums.astype(np.float32)])

    def centroid_scores(self, centroids: Array) -> Array:
        """Inner products with centroids.

        Parameters
        ----------
        centroids : float32 (n_centroids, dim)

        Returns
        -------
        scores : float32 (n_centroids, 16 n); columns beyond the query tokens are 0
        """
        return np.ascontiguousarray(centroids @ self.padded.T, np.float32)


@dataclass(frozen=True, eq=False)
class Levels:
    """Weights of residual codes as levels of one byte: ``scale level + offset``, the same in all dimensions.

    Attributes
    ----------
    table : uint8 (16,), the level of each code, repeated where there are fewer; not looked at where there are 256
    scale, offset : of all levels
    """

    table: Array
    scale: float
    offset: float

    @classmethod
    def of(cls, weights: Array) -> Levels:
        """Round 2, 4 or 16 ascending weights to the nearest of 256 levels between the first and the last.

        Of 256 weights each is a level: they are to have one distance.
        """
        if len(weights) not in (2, 4, 16, 256):
            raise InvalidArgument(f"weights expects 2, 4, 16 or 256 numbers, found {len(weights)}")
        low, high = float(weights[0]), float(weights[-1])
        scale = (high - low) / 255
        levels = np.rint((weights[:16].astype(np.float64) - low) / (scale or 1.0)).astype(np.uint8)
        return cls(np.tile(levels, 16 // len(levels)), scale, low)


@dataclass(frozen=True, eq=False)
class Books:
    """Centroids of sub-spaces as levels of one byte: ``scale level + offset``, the same in all.

    Attributes
    ----------
    table : uint8 (parts, 256, dim / parts)
    scale, offset : of all levels
    """

    table: Array
    scale: float
    offset: float

    @classmethod
    def of(cls, centroids: Array) -> Books:
        """Round centroids, float32 (parts, 256, n), to the nearest of 256 levels between the least and the greatest."""
        if centroids.ndim != 3 or centroids.shape[1] != 256:
            raise InvalidArgument(f"centroids expects numbers (parts, 256, n), found {centroids.shape}")
        low = float(centroids.min())
        scale = (float(centroids.max()) - low) / 255
        levels = np.rint((centroids.astype(np.float64) - low) / (scale or 1.0)).astype(np.uint8)
        return cls(np.ascontiguousarray(levels), scale, low)


def score_f16(query: QueryTokens, tokens: Array, starts: Array, documents: Array) -> Array:
    """Score documents of float16 tokens.

    Parameters
    ----------
    tokens : float16 (n_tokens, dim)
    starts : int64 (n_documents + 1,)
    documents : int64 (m,), numbers of documents

    Returns
    -------
    scores : float32 (m,)
    """
    from gingham.codecs import maxsim_kernels

    _check("tokens", tokens, np.float16, query.dim)
    listed, scores = _listed(starts, documents, len(tokens))
    maxsim_kernels.maxsim_f16(_at(tokens), query.dim, _at(starts), listed, query.float_blocks, scores)
    return scores


def score_i8(query: QueryTokens, codes: Array, scales: Array, offsets: Array, starts: Array, documents: Array) -> Array:
    """Score documents of tokens that are ``scale levels + offset``.

    Parameters
    ----------
    codes : uint8 (n_tokens, dim padded to a multiple of 4), the levels; those that pad are not looked at
    scales, offsets : float32 (n_tokens,)
    starts, documents : as in :func:`score_f16`

    Returns
    -------
    scores : float32 (m,)
    """
    from gingham.codecs import maxsim_kernels

    blocks = query.integer_blocks
    _check("codes", codes, np.uint8, 4 * blocks.shape[1])
    for name, values in (("scales", scales), ("offsets", offsets)):
        _check(name, values, np.float32)
        if len(values) != len(codes):
            raise InvalidArgument(f"{name} expects {len(codes)} numbers, found {len(values)}")
    listed, scores = _listed(starts, documents, len(codes))
    maxsim_kernels.maxsim_i8(
        _at(codes), _at(scales), _at(offsets), _at(starts), listed, blocks, query.parameters, scores
    )
    return scores


def score_residual(
    query: QueryTokens,
    codes: Array,
    bits: Literal[1, 2, 4, 8],
    levels: Levels,
    ids: Array,
    centroid_scores: Array,
    starts: Array,
    documents: Array,
) -> Array:
    """Score documents of tokens that are a centroid and weights, one for each dimension, without decoding them.

    Parameters
    ----------
    codes : uint8 (n_tokens, dim bits / 8 rounded up); codes follow each other from the low bits of bytes on. Where they
        have one bit, four bytes more come before: a float32 that the weights of the token are multiplied by
    bits : of a code
    levels : what codes stand for
    ids : int32 (n_tokens,), rows of centroid_scores
    centroid_scores : as :meth:`QueryTokens.centroid_scores` returns them
    starts, documents : as in :func:`score_f16`

    Returns
    -------
    scores : float32 (m,)

    Notes
    -----
    The sum of a centroid's score and of the weights' is that of Scheerer et al., "WARP", 2025 (arXiv:2501.17788); it
    does not normalise what codes stand for. Here weights have levels in common, so that sums are of integers.
    """
    if bits not in (1, 2, 4, 8):
        raise InvalidArgument(f"bits expects 1, 2, 4 or 8, found {bits}")
    _check("codes", codes, np.uint8, (query.dim * bits + 7) // 8 + (4 if bits == 1 else 0))
    return _near_centroids(query, codes, bits, 0, levels, ids, centroid_scores, starts, documents)


def score_products(
    query: QueryTokens, codes: Array, books: Books, ids: Array, centroid_scores: Array, starts: Array, documents: Array
) -> Array:
    """Score documents of tokens that are a centroid and, for each part of what it leaves, one of 256 more.

    Parameters
    ----------
    codes : uint8 (n_tokens, parts)
    books : what codes stand for, of as many dimensions as the query
    ids, centroid_scores, starts, documents : as in :func:`score_residual`

    Returns
    -------
    scores : float32 (m,)

    Notes
    -----
    The levels of a token are looked up, not the products of a query with them, which would take a table for each query
    token and a kernel of its own (decision 12).
    """
    parts, _, part = books.table.shape
    if parts * part != query.dim:
        raise InvalidArgument(f"books expects {query.dim} dimensions, as the query has, found {parts} times {part}")
    _check("codes", codes, np.uint8, parts)
    return _near_centroids(query, codes, 8, part, books, ids, centroid_scores, starts, documents)


def _near_centroids(
    query: QueryTokens,
    codes: Array,
    bits: int,
    part: int,
    levels: Levels | Books,
    ids: Array,
    centroid_scores: Array,
    starts: Array,
    documents: Array,
) -> Array:
    from gingham.codecs import maxsim_kernels

    _check_centroids(query, ids, centroid_scores, len(codes))
    listed, scores = _listed(starts, documents, len(codes))
    parameters = level_parameters(query, levels)
    maxsim_kernels.maxsim_residual(
        _at(codes), bits, query.dim, part, _at(ids), _at(starts), listed, centroid_scores, levels.table.reshape(-1),
        query.integer_blocks, parameters, scores,
    )  # fmt: skip
    return scores


def level_parameters(query: QueryTokens, levels: Levels | Books) -> Array:
    """What products of integers and levels are multiplied by, and what is added: float32 (2, 16 n)."""
    factors, middles, sums = query.parameters.astype(np.float64)
    return np.stack([levels.scale * factors, levels.scale * middles + levels.offset * sums]).astype(np.float32)


def score_centroids(query: QueryTokens, ids: Array, centroid_scores: Array, starts: Array, documents: Array) -> Array:
    """Score documents as if each token were its centroid; parameters as in :func:`score_residual`.

    Returns
    -------
    scores : float32 (m,)
    """
    from gingham.codecs import maxsim_kernels

    _check_centroids(query, ids, centroid_scores, len(ids))
    listed, scores = _listed(starts, documents, len(ids))
    maxsim_kernels.maxsim_centroids(_at(ids), _at(starts), listed, centroid_scores, scores)
    return scores


def _at(array: Array) -> int:
    return array.ctypes.data


def _check(name: str, array: Array, dtype: type, width: int | None = None) -> None:
    shape = "(n,)" if width is None else f"(n, {width})"
    fits = array.ndim == 1 if width is None else array.ndim == 2 and array.shape[1] == width
    if not fits or array.dtype != dtype or not array.flags.c_contiguous:
        raise InvalidArgument(f"{name} expects contiguous {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}")


def _check_centroids(query: QueryTokens, ids: Array, centroid_scores: Array, n_tokens: int) -> None:
    _check("ids", ids, np.int32)
    _check("centroid_scores", centroid_scores, np.float32, len(query.padded))
    if len(ids) != n_tokens:
        raise InvalidArgument(f"ids expects {n_tokens} numbers, found {len(ids)}")


def _listed(starts: Array, documents: Array, n_tokens: int) -> tuple[Array, Array]:
    """The documents as kernels take them, and room for their scores."""
    _check("starts", starts, np.int64)
    listed = np.ascontiguousarray(documents, np.int64)
    if listed.ndim != 1:
        raise InvalidArgument(f"documents expects numbers (m,), found {listed.shape}")
    if len(listed):
        if listed.min() < 0 or listed.max() + 1 >= len(starts):
            raise InvalidArgument(f"documents expects numbers below {len(starts) - 1}, found others")
        if starts[listed].min() < 0 or starts[listed + 1].max() > n_tokens:
            raise InvalidArgument(f"starts expects numbers from 0 to {n_tokens}, found others")
    # Kernels have one type for each array, which a read-only one lacks.
    return listed if listed.flags.writeable else listed.copy(), np.empty(len(listed), np.float32)
