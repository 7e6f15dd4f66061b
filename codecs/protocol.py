"""What a vector codec is: the contract of every codec, of the transforms in front, and of encoded rows.

A codec is frozen: :meth:`Codec.train` returns a trained copy, and the same input and seed give the same bytes for any
number of threads. It knows the metric, because codes may hold what only one metric needs. Under cosine it is given
vectors and queries of length one (or zero), and scores inner products.

Scores estimate ``q.x`` for dot and cosine and ``-|q - x|^2`` for l2: greater is better. The estimate of a row has the
same bits alone, in a batch and listed. A row is found by the heaps of :mod:`gingham.codecs.topk_kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.codecs.row_scores import RowScores
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

BLOCK_ROWS = 32
"""Rows of one block of interleaved codes. Rows are encoded in multiples of it, but for the last ones."""


@dataclass(frozen=True)
class Codes:
    """Encoded rows.

    Attributes
    ----------
    n : rows
    arrays : by name; the first axis runs over rows, or over blocks of :data:`BLOCK_ROWS` rows. C-contiguous, possibly
        read-only, and of any alignment
    """

    n: int
    arrays: Mapping[str, Array]

    @cached_property
    def addresses(self) -> dict[str, int]:
        """Where each array begins."""
        return {name: array.ctypes.data for name, array in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(array.nbytes) for array in self.arrays.values())


class Transform(Protocol):
    """What is done to vectors before they are encoded, such as centring, a rotation or a projection.

    Attributes
    ----------
    spec : its part of the codec's spec, such as ``"PCA128"``
    dim, out_dim : dimensions taken and given
    """

    @property
    def spec(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def out_dim(self) -> int: ...
    @property
    def trained(self) -> bool: ...

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Self:
        """A trained copy; ``sample`` float32 (n, dim), ``queries`` float32 (m, dim) if there are any to learn from."""
        ...

    def apply(self, vectors: Array) -> Array:
        """Transform rows: float32 (n, dim) to float32 (n, out_dim)."""
        ...

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """Transform queries; returns them and float32 (n,) to be added to the scores of each.

        Notes
        -----
        Row by row, so that a query has the same bits alone and in a batch.
        """
        ...

    def invert(self, vectors: Array) -> Array:
        """The nearest vectors before the transform: float32 (n, out_dim) to float32 (n, dim)."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What training learned, to be stored."""
        ...

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """A trained copy from what :meth:`arrays` gave."""
        ...


class Codec(Protocol):
    """A vector codec.

    Attributes
    ----------
    spec : one line from which :func:`gingham.codecs.spec.parse_codec` makes it again
    dim : dimensions of a vector
    metric : what its scores estimate
    trained : whether it can encode
    code_size : bytes of an encoded vector, factors included, the padding of the last block not
    levels : 2 where :meth:`refine` is more precise than :meth:`score`, else 1
    """

    @property
    def spec(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def trained(self) -> bool: ...
    @property
    def code_size(self) -> int: ...
    @property
    def levels(self) -> int: ...

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Self:
        """A trained copy.

        Parameters
        ----------
        sample : float32 (n, dim), C-contiguous and finite, at least one row
        queries : float32 (m, dim) of the queries to come, for codecs that learn from them
        seed : of everything random

        Raises
        ------
        InvalidArgument : the sample is too small for the codec, saying how many rows it needs
        """
        ...

    def encode(self, vectors: Array) -> Codes:
        """Encode rows: float32 (n, dim), C-contiguous and finite."""
        ...

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for: float32 (n, dim)."""
        ...

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts, in order."""
        ...

    def prepare(self, queries: Array, bias: Array | None = None) -> Any:
        """Queries in the form that scoring needs.

        Parameters
        ----------
        queries : float32 (n_queries, dim), C-contiguous and finite
        bias : float32 (n_queries,) added to every score of a query; None adds nothing
        """
        ...

    def scan(self, prepared: Any, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array) -> None:
        """Offer rows start to stop to the heap of each query.

        Parameters
        ----------
        start : a multiple of :data:`BLOCK_ROWS`
        allow : address of a bool for each row of ``codes``, or 0 to allow all
        scores, rows : heaps, float32 and int64 (n_queries, k); rows enter that score above the root
        """
        ...

    def score(self, prepared: Any, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows of each query: int64 (n_queries, m) to float32 (n_queries, m); -1 scores -inf."""
        ...

    def refine(self, prepared: Any, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`, as precisely as the codes allow."""
        ...

    def row_scores(self, prepared: Any, codes: Codes) -> RowScores | None:
        """What :meth:`score` needs, for kernels that score rows by themselves; None where codes are no plain rows."""
        ...

    def bound(self, prepared: Any, codes: Codes, rows: Array) -> Array | None:
        """How far the score of listed rows may be off, float32 (n_queries, m), where theory says so; else None."""
        ...

    def optimistic(self, prepared: Any) -> Any:
        """Queries under which rows score the most that :meth:`bound` allows, or None where there is no bound."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What training learned, to be stored."""
        ...

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """A trained copy from what :meth:`arrays` gave."""
        ...


class SpanCodec(Codec, Protocol):
    """A codec that scans other rows for each query, as lists do."""

    def scan_spans(self, prepared: Any, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows, each for one query.

        Parameters
        ----------
        spans : int64 (m, 3): a query, start, a multiple of :data:`BLOCK_ROWS`, and stop
        allow : as of :meth:`scan`
        found : takes them; spans come in any order
        """
        ...


def join_rows(parts: Sequence[Codes]) -> Codes:
    """Join codes whose arrays all run over rows."""
    names = parts[0].arrays
    return Codes(sum(p.n for p in parts), {name: np.concatenate([p.arrays[name] for p in parts]) for name in names})
