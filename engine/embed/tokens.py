"""Token vectors of texts, and their projection to few dimensions."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.embed.protocol import checked_texts, described
from gingham.errors import Cancelled, DeadlineExceeded, EmbedderFailed, InvalidArgument, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.embed.protocol import Embedder

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class TextTokens:
    """The tokens of a text.

    Attributes
    ----------
    vectors : float32 (n, dim), as the model makes them
    spans : int64 (n, 2), the characters of the text that each stands for, from and up to
    """

    vectors: Array
    spans: Array


@dataclass(frozen=True, eq=False)
class TokenProjection:
    """Tokens centred and turned to their first principal components, of length one.

    Attributes
    ----------
    mean : float32 (width,)
    basis : float32 (width, dim), orthonormal columns
    """

    mean: Array
    basis: Array

    @classmethod
    def fit(cls, tokens: Array, dim: int) -> TokenProjection:
        """Learn from a sample of tokens, numbers (n, width).

        Raises
        ------
        InvalidArgument : fewer tokens than dimensions, or more dimensions than the tokens have
        """
        tokens = np.asarray(tokens, np.float64)
        if tokens.ndim != 2 or not 1 <= dim <= tokens.shape[1] or len(tokens) < dim:
            raise InvalidArgument(
                f"TokenProjection.fit() expects {dim} tokens at least, of as many dimensions, found {tokens.shape}"
            )
        mean = tokens.mean(axis=0)
        # Eigenvectors of the covariance: far cheaper than a decomposition of all tokens.
        _, vectors = np.linalg.eigh(np.cov((tokens - mean).T).reshape(tokens.shape[1], -1))
        return cls(mean.astype(np.float32), np.ascontiguousarray(vectors[:, ::-1][:, :dim], np.float32))

    def __call__(self, tokens: Array) -> Array:
        """Project tokens (n, width): float32 (n, dim), of length one; one at the mean becomes zeros."""
        turned = (np.asarray(tokens, np.float32) - self.mean) @ self.basis
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        scaled: Array = np.divide(turned, lengths, out=np.zeros_like(turned), where=lengths > 0)
        return scaled

    def arrays(self) -> dict[str, Array]:
        """To be saved, for instance by :func:`numpy.savez`."""
        return {"mean": self.mean, "basis": self.basis}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> TokenProjection:
        """Invert :meth:`arrays`."""
        return cls(np.asarray(arrays["mean"]), np.asarray(arrays["basis"]))


def embed_tokens(embedder: Embedder, texts: Sequence[str]) -> list[Array]:
    """Token matrices of texts, by the method ``embed_tokens`` that an embedder may have.

    Returns
    -------
    list of ndarray : (tokens, dim) each: what it made, or the vectors of the :class:`TextTokens` that it made

    Raises
    ------
    InvalidArgument : the embedder has no such method, or a text is no string
    EmbedderFailed : it raised, or made something else than finite tokens of each text
    """
    method = getattr(embedder, "embed_tokens", None)
    if not callable(method):
        raise InvalidArgument(
            f"a text for a token field expects an embedder with a method embed_tokens(texts), found {embedder.name!r}, "
            "which has none; search for token vectors, or attach another embedder"
        )
    texts = checked_texts(texts)
    expected = f"the embedder {embedder.name!r} is expected to make token vectors of {len(texts)} texts"
    try:
        made = [np.asarray(getattr(one, "vectors", one)) for one in method(texts)]
    except (EmbedderFailed, MissingExtra, DeadlineExceeded, Cancelled):
        raise
    except Exception as error:
        raise EmbedderFailed(f"{expected}, found {described(error)}") from error
    if len(made) != len(texts):
        raise EmbedderFailed(f"{expected}, found {len(made)}; correct the embedder")
    for place, one in enumerate(made):
        if one.dtype.kind not in "fiu" or one.ndim != 2 or not len(one) or not np.isfinite(one).all():
            raise EmbedderFailed(
                f"{expected}, found shape {one.shape} of {one.dtype}, NaN or an infinity as text {place}; give each "
                "text a matrix (tokens, dim) of a token at least"
            )
    return made


def text_tokens(text: str, vectors: Any, offsets: Sequence[tuple[int, int]], *, skip_punctuation: bool) -> TextTokens:
    """Token vectors without those of special tokens, which stand for no characters.

    Parameters
    ----------
    vectors : (m, dim), one for each offset, perhaps more that pad
    skip_punctuation : leave out tokens of punctuation alone, unless nothing else is there

    Raises
    ------
    EmbedderFailed : fewer vectors than offsets
    """
    matrix, spans = np.asarray(vectors, np.float32), np.asarray(offsets, np.int64).reshape(-1, 2)
    if matrix.ndim != 2 or len(matrix) < len(spans):
        raise EmbedderFailed(f"a model expects to give {len(spans)} token vectors of a text, found {matrix.shape}")
    keep = spans[:, 1] > spans[:, 0]
    if skip_punctuation:
        words = keep & np.array([not _is_punctuation(text[a:b]) for a, b in spans], np.bool_)
        keep = words if words.any() else keep
    return TextTokens(np.ascontiguousarray(matrix[: len(spans)][keep]), spans[keep])


def _is_punctuation(part: str) -> bool:
    return all(unicodedata.category(character).startswith(("P", "S")) for character in part)
