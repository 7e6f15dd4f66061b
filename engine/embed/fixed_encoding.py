"""Token matrices as vectors of fixed width whose inner products come near late interaction (MUVERA).

Source: Dhulipala et al., "MUVERA: multi-vector retrieval via fixed dimensional encodings", NeurIPS 2024
(arXiv:2405.19504), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.errors import DimensionMismatch, InvalidArgument
from gingham.types import whole
from gingham.vector_types import MAX_DIM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

MOST_BITS, MOST_REPETITIONS = 10, 1024
ONES = np.array([number.bit_count() for number in range(1 << MOST_BITS)], np.uint8)
"""Bits that are set in a number."""
TOKENS = 4096
"""Tokens of a matrix that are summed at once."""


@dataclass(frozen=True)
class FixedEncoding:
    """Vectors of token matrices, for :class:`gingham.Dense` fields of the metric ``"dot"``.

    Random hyperplanes part the space, ``repetitions`` times. In each part a query has the sum of its tokens and a
    document the mean of its own, or where it has none there the token whose part differs in the fewest hyperplanes. The
    inner product of a query and a document estimates the sum over query tokens of the greatest product with any token
    of the document. Nothing is learned: the same seed gives the same encoding for any data.

    Parameters
    ----------
    dim : of tokens
    bits : hyperplanes, so that there are 2^bits parts; 0 to 10
    repetitions : 1 to 1,024
    part_dim : numbers that a random projection by signs leaves of the tokens of each part; None keeps ``dim``
    out_dim : numbers that a count sketch leaves of the whole; None keeps all
    seed : of everything random

    Raises
    ------
    InvalidArgument : a number out of range, or encodings of more than 65,535 numbers

    Notes
    -----
    Time O(tokens repetitions (bits dim + 2^bits part_dim)).

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> tokens = np.random.default_rng(0).standard_normal((40, 32), dtype=np.float32)
    >>> encoding = gg.FixedEncoding(32, part_dim=8)
    >>> encoding.encode_documents([tokens]).shape == (1, encoding.width)
    True
    """

    dim: int
    bits: int = 4
    repetitions: int = 20
    part_dim: int | None = None
    out_dim: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole("FixedEncoding(dim=)", self.dim, most=MAX_DIM)
        whole("FixedEncoding(bits=)", self.bits, 0, most=MOST_BITS)
        whole("FixedEncoding(repetitions=)", self.repetitions, most=MOST_REPETITIONS)
        whole("FixedEncoding(seed=)", self.seed, 0)
        if self.part_dim is not None:
            whole("FixedEncoding(part_dim=)", self.part_dim, most=self.dim)
        if self.out_dim is not None:
            whole("FixedEncoding(out_dim=)", self.out_dim, most=self._whole_width)
        if self.width > MAX_DIM:
            raise InvalidArgument(
                f"FixedEncoding() expects at most {MAX_DIM} numbers a vector, found {self.width}; take fewer "
                "repetitions or bits, or a part_dim= or out_dim="
            )

    @property
    def width(self) -> int:
        """Numbers of an encoding."""
        return self._whole_width if self.out_dim is None else self.out_dim

    def encode_documents(self, documents: Sequence[Any]) -> Array:
        """Vectors of documents, float32 (n, width).

        Parameters
        ----------
        documents : matrices (m, dim), of one token at least each

        Raises
        ------
        DimensionMismatch, InvalidArgument : not such matrices, or not finite; the document is named
        """
        return self._encoded("encode_documents()", "document", documents, self._of_document)

    def encode_queries(self, queries: Sequence[Any]) -> Array:
        """Vectors of queries, float32 (n, width); parameters and errors as of :meth:`encode_documents`."""
        return self._encoded("encode_queries()", "query", queries, self._of_query)

    @property
    def _whole_width(self) -> int:
        return self.repetitions * (1 << self.bits) * (self.part_dim or self.dim)

    def _encoded(self, method: str, what: str, matrices: Any, encode: Callable[[Array], Array]) -> Array:
        if isinstance(matrices, (str, bytes)) or not hasattr(matrices, "__len__"):
            raise InvalidArgument(f"{method} expects a sequence of matrices, found {type(matrices).__name__}")
        out = np.empty((len(matrices), self.width), np.float32)
        for at, matrix in enumerate(matrices):
            deadline.check()
            flat = encode(self._checked(f"{what} {at}", matrix)).ravel()
            if self.out_dim is not None:
                places, signs = self._sketch
                flat = np.bincount(places, flat * signs, minlength=self.out_dim)
            out[at] = flat
        return out

    def _checked(self, what: str, value: Any) -> Array:
        try:
            with np.errstate(over="ignore"):
                tokens = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            tokens = np.empty(0, np.float32)
        if tokens.ndim != 2 or 0 in tokens.shape or not np.isfinite(tokens).all():
            raise InvalidArgument(f"{what} expects a matrix of finite numbers, not empty, found {value!r:.60}")
        if tokens.shape[1] != self.dim:
            raise DimensionMismatch(f"{what} expects tokens of width {self.dim}, found {tokens.shape[1]}")
        return tokens

    def _of_query(self, tokens: Array) -> Array:
        sums, _ = self._sums(tokens, self._parts(tokens))
        scaled: Array = sums / np.float32(self.repetitions)
        return scaled

    def _of_document(self, tokens: Array) -> Array:
        parts = self._parts(tokens)
        sums, counts = self._sums(tokens, parts)
        means = sums / np.maximum(counts, 1)[:, :, None]
        for repetition, empty in enumerate(counts == 0):
            lacking = np.flatnonzero(empty)
            differing = ONES[parts[repetition, :, None] ^ lacking.astype(np.uint16)]
            nearest = tokens[differing.argmin(axis=0)]
            means[repetition, lacking] = nearest if self.part_dim is None else nearest @ self._projections[repetition]
        return means

    def _parts(self, tokens: Array) -> Array:
        """The part of each token, uint16 (repetitions, n)."""
        above = tokens @ self._hyperplanes > 0
        bits = above.reshape(len(tokens), self.repetitions, self.bits)
        parts: Array = (bits << np.arange(self.bits)).sum(axis=2).T.astype(np.uint16)
        return parts

    def _sums(self, tokens: Array, parts: Array) -> tuple[Array, Array]:
        """Sums of the tokens in each part, float32 (repetitions, parts, part_dim), and how many these are."""
        numbers, width = np.arange(1 << self.bits, dtype=np.uint16), self.part_dim or self.dim
        sums = np.zeros((self.repetitions, len(numbers), width), np.float32)
        counts = np.zeros((self.repetitions, len(numbers)), np.float32)
        for start in range(0, len(tokens), TOKENS):
            part = slice(start, start + TOKENS)
            within = (parts[:, None, part] == numbers[:, None]).astype(np.float32)
            sums += within @ (tokens[part] if self.part_dim is None else tokens[part] @ self._projections)
            counts += within.sum(axis=2)
        return sums, counts

    @cached_property
    def _hyperplanes(self) -> Array:
        rng = np.random.default_rng((self.seed, 0))
        return rng.standard_normal((self.dim, self.repetitions * self.bits), np.float32)

    @cached_property
    def _projections(self) -> Array:
        """Signs over the root of the width, float32 (repetitions, dim, part_dim): products stay in the mean."""
        assert self.part_dim is not None
        drawn = np.random.default_rng((self.seed, 1)).integers(0, 2, (self.repetitions, self.dim, self.part_dim))
        signs: Array = ((2 * drawn - 1) / np.sqrt(self.part_dim)).astype(np.float32)
        return signs

    @cached_property
    def _sketch(self) -> tuple[Array, Array]:
        """Where each number goes, and the sign that it has there."""
        assert self.out_dim is not None
        rng = np.random.default_rng((self.seed, 2))
        return rng.integers(0, self.out_dim, self._whole_width), 2 * rng.integers(0, 2, self._whole_width) - 1
