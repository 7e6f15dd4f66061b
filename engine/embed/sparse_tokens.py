"""Token matrices as sparse vectors, so that late interaction begins in an inverted index (SLIM).

Source: Li et al., "SLIM: sparsified late interaction for multi-vector retrieval with inverted indexes", SIGIR 2023
(arXiv:2302.06587), section 3, equations 4, 8 and 9. There a trained head leads from tokens to the words of a language;
where none is given, centroids take the place of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.token_residuals import centroid_count, train_centroids
from gingham.errors import Corrupt, DimensionMismatch, InvalidArgument
from gingham.types import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Array = np.ndarray[Any, Any]

BETA = 0.01
"""Share of the lower bound in a query, as in the paper."""
TERMS = 4
"""Weights kept of each token (bench/slim.py)."""
PRODUCTS = 1 << 24
"""Products of tokens computed at once: 64 MiB."""


@dataclass(frozen=True, eq=False)
class SparseTokens:
    """Sparse vectors of token matrices, for :class:`gingham.Sparse` fields and :func:`gingham.sparse`.

    A token v has the weights ``log(1 + max(head(v), 0))``, of which the greatest few are kept, and any equal to the
    least of these. A document has of each
    term the greatest weight of its tokens, a query the sum over its tokens. The inner product of both is no less than
    the sum over query tokens of the greatest product with any token of the document, in weights.

    Parameters
    ----------
    head : float32 (dim, n_terms), or a callable from tokens float32 (n, dim) to numbers (n, n_terms)
    bias : float32 (n_terms,), added to the products of a matrix; None for none
    document_terms, query_terms : weights kept of each token, at least 1
    unit : scale tokens to length one before the head gets them; False (default) takes them as they are

    Raises
    ------
    InvalidArgument : a head or bias of other shape, or a number out of range

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> tokens = np.random.default_rng(0).standard_normal((500, 32), dtype=np.float32)
    >>> slim = gg.SparseTokens.fit(tokens, 64)
    >>> terms, weights = slim.encode_query(tokens[:4])
    >>> terms.dtype, weights.dtype
    (dtype('uint32'), dtype('float32'))
    """

    head: Array | Callable[[Array], Any]
    bias: Array | None = None
    document_terms: int = TERMS
    query_terms: int = TERMS
    unit: bool = False

    def __post_init__(self) -> None:
        for name in ("document_terms", "query_terms"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InvalidArgument(f"SparseTokens({name}=) expects an integer from 1, found {value!r:.60}")
        if callable(self.head):
            if self.bias is not None:
                raise InvalidArgument("SparseTokens(bias=) expects None beside a callable head, which adds its own")
            return
        head = _numbers("SparseTokens(head=)", self.head, 2)
        object.__setattr__(self, "head", head)
        if self.bias is not None:
            bias = _numbers("SparseTokens(bias=)", self.bias, 1)
            if len(bias) != head.shape[1]:
                raise InvalidArgument(f"SparseTokens(bias=) expects {head.shape[1]} numbers, found {len(bias)}")
            object.__setattr__(self, "bias", bias)

    @classmethod
    def fit(
        cls,
        tokens: Array,
        n_terms: int | None = None,
        *,
        document_terms: int = TERMS,
        query_terms: int = TERMS,
        seed: int = 0,
    ) -> SparseTokens:
        """Take centroids of a sample of tokens for terms; these and all tokens encoded are scaled to length one.

        Parameters
        ----------
        tokens : numbers (n, dim)
        n_terms : centroids, at most n; None takes 4 sqrt(n), or n where that is less
        document_terms, query_terms : as of the class
        seed : of the rows drawn

        Raises
        ------
        InvalidArgument : not finite tokens, more terms than tokens, or a seed below 0
        """
        sample, seed = _numbers("SparseTokens.fit(tokens)", tokens, 2), whole("SparseTokens.fit(seed=)", seed, 0)
        n_terms = min(centroid_count(len(sample)), len(sample)) if n_terms is None else n_terms
        if isinstance(n_terms, bool) or not isinstance(n_terms, (int, np.integer)) or not 1 <= n_terms <= len(sample):
            raise InvalidArgument(
                f"SparseTokens.fit(n_terms=) expects an integer from 1 to {len(sample)}, found {n_terms!r:.60}"
            )
        centroids = train_centroids(_unit(sample), int(n_terms), unit=True, seed=seed)
        return cls(np.ascontiguousarray(centroids.T), None, document_terms, query_terms, unit=True)

    def encode_documents(self, documents: Sequence[Any]) -> list[tuple[Array, Array]]:
        """Sparse vectors of documents: terms uint32, ascending, and weights float32, above 0.

        Parameters
        ----------
        documents : matrices (n, dim), of one token at least each

        Raises
        ------
        DimensionMismatch, InvalidArgument : not such matrices, or not finite; the document is named
        """
        if isinstance(documents, (str, bytes)) or not hasattr(documents, "__len__"):
            raise InvalidArgument(
                f"encode_documents() expects a sequence of matrices, found {type(documents).__name__}"
            )
        return [self._document(f"document {at}", one) for at, one in enumerate(documents)]

    def encode_query(self, tokens: Any, *, beta: float = BETA) -> tuple[Array, Array]:
        """Sparse vector of a query: terms uint32, ascending, and weights float32, above 0.

        Parameters
        ----------
        tokens : matrix (n, dim), of one token at least
        beta : from 0 to 1: at 0 products with documents are upper bounds of late interaction in weights; at 1, where
            each token has its greatest weight alone, lower ones; between, the mean so weighted

        Raises
        ------
        DimensionMismatch, InvalidArgument : as of :meth:`encode_documents`, or beta out of range
        """
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
            raise InvalidArgument(f"encode_query(beta=) expects a number from 0 to 1, found {beta!r:.60}")
        sums: Array | None = None
        for products in self._products("a query", tokens, self.query_terms):
            weights = np.log1p(products)
            best = np.zeros_like(weights)
            rows, columns = np.arange(len(weights)), weights.argmax(axis=1)
            best[rows, columns] = weights[rows, columns]
            part = (beta * best + (1 - beta) * weights).sum(axis=0)
            sums = part if sums is None else sums + part
        return _sparse(sums)

    def arrays(self) -> dict[str, Array]:
        """To be saved, for instance by :func:`numpy.savez`; a callable head is not.

        Raises
        ------
        InvalidArgument : the head is a callable
        """
        if callable(self.head):
            raise InvalidArgument("arrays() expects a head that is a matrix, found a callable; save that by itself")
        kept = np.array([self.document_terms, self.query_terms, int(self.unit)])
        return {"head": self.head, "kept": kept} | ({} if self.bias is None else {"bias": self.bias})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> SparseTokens:
        """Invert :meth:`arrays`.

        Raises
        ------
        Corrupt : the arrays are others
        """
        try:
            document_terms, query_terms, *unit = (int(number) for number in arrays["kept"])
            return cls(np.asarray(arrays["head"]), arrays.get("bias"), document_terms, query_terms, unit=any(unit))
        except (KeyError, TypeError, ValueError, InvalidArgument) as error:
            raise Corrupt(f"from_arrays() expects what arrays() gave, found {error}; fit anew") from error

    def _document(self, what: str, tokens: Any) -> tuple[Array, Array]:
        greatest: Array | None = None
        for products in self._products(what, tokens, self.document_terms):
            part = products.max(axis=0)
            greatest = part if greatest is None else np.maximum(greatest, part)
        assert greatest is not None
        return _sparse(np.log1p(greatest))

    def _given(self, tokens: Array) -> Array:
        if not callable(self.head):
            products: Array = tokens @ self.head
            return products if self.bias is None else products + self.bias
        made = self.head(tokens)
        try:
            return np.array(made, np.float32)
        except (TypeError, ValueError):
            return np.empty(0, np.float32)

    def _products(self, what: str, tokens: Any, kept: int) -> Iterator[Array]:
        """What the head gives for tokens, float32 (some, n_terms), 0 where it is less or not among the greatest."""
        matrix = _numbers(what, tokens, 2)
        head = self.head
        if not callable(head) and matrix.shape[1] != len(head):
            raise DimensionMismatch(f"{what} expects tokens of width {len(head)}, found {matrix.shape[1]}")
        matrix = _unit(matrix) if self.unit else matrix
        step = len(matrix) if callable(head) else max(1, PRODUCTS // head.shape[1])
        for start in range(0, len(matrix), step):
            deadline.check()
            part = matrix[start : start + step]
            with np.errstate(over="ignore", invalid="ignore"):
                products = self._given(part)
            if products.ndim != 2 or len(products) != len(part) or not products.size or not np.isfinite(products).all():
                raise InvalidArgument(
                    f"SparseTokens(head=) expects to give finite numbers ({len(part)}, n_terms), found others or "
                    f"{products.shape} of {what}"
                )
            if kept < products.shape[1]:
                least = np.partition(products, -kept, axis=1)[:, -kept, None]
                products[products < least] = 0
            yield np.maximum(products, 0, out=products)


def _numbers(what: str, value: Any, ndim: int) -> Array:
    """Finite float32 of so many dimensions, none of them 0."""
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        numbers = np.empty(0, np.float32)
    if numbers.ndim != ndim or 0 in numbers.shape or not np.isfinite(numbers).all():
        kind = "a matrix" if ndim == 2 else "a vector"
        raise InvalidArgument(f"{what} expects {kind} of finite numbers, not empty, found {value!r:.60}")
    return numbers


def _unit(tokens: Array) -> Array:
    lengths = np.linalg.norm(tokens.astype(np.float64), axis=1, keepdims=True)
    scaled: Array = np.divide(tokens, lengths, out=np.zeros(tokens.shape), where=lengths > 0).astype(np.float32)
    return scaled


def _sparse(weights: Array | None) -> tuple[Array, Array]:
    assert weights is not None
    terms = np.flatnonzero(weights)
    return terms.astype(np.uint32), weights[terms].astype(np.float32)
