"""Token pooling: fewer vectors for a late-interaction document, each the mean of tokens that lie close together.

Clavié, Chaffin and Adams, "Reducing the footprint of multi-vector retrieval with minimal performance impact via token
pooling" (2024): tokens are clustered by Ward's criterion over ``1 - cosine``, and each cluster becomes its mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.errors import InvalidArgument
from gingham.parallel import one_blas_thread

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

METHODS = ("ward", "sequential")
ADAPTIVE_SCALE, ADAPTIVE_POWER = 2.14, 0.7
"""An adaptive document of n tokens keeps ``2.14 * n ** 0.7``: 64 of 128, every one of up to 15, 276 of 1,030. The scale
is ``64 / 128 ** 0.7``, rounded down."""


def pool_tokens(
    tokens: Array,
    *,
    factor: int | Literal["adaptive"] = 2,
    method: Literal["ward", "sequential"] = "ward",
    protected: int = 1,
    renormalize: bool = True,
) -> tuple[Array, Array]:
    """Pool the tokens of one document.

    Parameters
    ----------
    tokens : float32 (n, dim), at least one, finite, of any length
    factor : tokens that become one, on average; 1 gives the tokens as they are. "adaptive" keeps a smaller share of
        longer documents: ``min(n, ceil(2.14 * n ** 0.7))`` tokens, protected ones among them
    method : "ward" clusters by cosine, a token of zeros having a cosine of 0 with every other; "sequential" takes runs
        of tokens
    protected : tokens at the start that stay as they are, such as [CLS]
    renormalize : scale the means to length one, also those of a single token; a mean of zeros stays. Without it MaxSim
        gives less weight to looser clusters

    Returns
    -------
    pooled : float32 (m, dim), the protected tokens and then the means in the order of the first token of each; m is
        ``protected + max(1, ceil((n - protected) / factor))``, or n where every token is protected
    labels : int64 (n,), the row of ``pooled`` that each token is part of

    Raises
    ------
    InvalidArgument : no tokens, NaN or infinity among them, or another factor, method or number of protected tokens

    Notes
    -----
    The same tokens give the same clusters, also where distances are equal. Time O(n^2 * dim), memory 8 * n^2 bytes.
    """
    _check(factor, method, protected)
    tokens = _checked(tokens)
    n = len(tokens)
    labels = np.arange(n)
    rest = n - protected
    if factor == 1 or rest <= 0:
        return tokens.copy(), labels
    n_clusters = _clusters(n, rest, factor)
    if method == "ward":
        labels[protected:] = protected + _ward_labels(tokens[protected:], n_clusters)
    elif factor == "adaptive":
        labels[protected:] = protected + np.arange(rest) * n_clusters // rest
    else:
        labels[protected:] = protected + np.arange(rest) // factor
    means = _means(tokens[protected:], labels[protected:], renormalize=renormalize)
    return np.concatenate([tokens[:protected], means]), labels


def _check(factor: int | str, method: str, protected: int) -> None:
    if factor != "adaptive" and (not isinstance(factor, int | np.integer) or factor < 1):
        raise InvalidArgument(f"factor= expects a whole number of at least 1, or 'adaptive', found {factor!r}; use 2")
    if method not in METHODS:
        raise InvalidArgument(f"method= expects 'ward' or 'sequential', found {method!r}; use 'ward'")
    if not isinstance(protected, int | np.integer) or protected < 0:
        raise InvalidArgument(f"protected= expects a whole number of at least 0, found {protected!r}; use 0 or 1")


def _checked(tokens: Array) -> Array:
    with np.errstate(over="ignore"):
        tokens = np.ascontiguousarray(tokens, np.float32)
    if tokens.ndim != 2 or tokens.size == 0:
        raise InvalidArgument(
            f"pooling expects tokens of shape (n, dim), at least one, found shape {tokens.shape}; leave out documents "
            "without tokens"
        )
    bad = np.flatnonzero(~np.isfinite(tokens).all(axis=1))
    if len(bad):
        raise InvalidArgument(
            f"pooling expects finite float32 tokens, found NaN or infinity in token {bad[0]}; leave that token out"
        )
    return tokens


def _clusters(n: int, rest: int, factor: int | Literal["adaptive"]) -> int:
    """Clusters that the tokens without protection, ``rest`` of n, become."""
    if factor == "adaptive":
        return max(1, min(n, math.ceil(ADAPTIVE_SCALE * math.pow(n, ADAPTIVE_POWER))) - (n - rest))
    return -(-rest // factor)


def _lengths(rows: Array) -> Array:
    """Length of each row, float64 (n, 1); one for rows of zeros."""
    lengths: Array = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    lengths[lengths == 0] = 1
    return lengths


def _ward_labels(tokens: Array, n_clusters: int) -> Array:
    """Cluster of each token, int64 (n,), numbered by the first of each."""
    from gingham.codecs import pooling_kernels

    # float32 products would turn distances that differ into ties, and ties into distances that differ.
    directions = tokens.astype(np.float64)
    directions /= _lengths(directions)
    labels = np.empty(len(tokens), np.int64)
    with one_blas_thread():  # a second thread costs milliseconds where cores are busy, and documents come in parallel
        cosines = directions @ directions.T
    pooling_kernels.ward_clusters(cosines, n_clusters, labels)
    return labels


def _means(tokens: Array, labels: Array, *, renormalize: bool) -> Array:
    """Mean of the tokens of each label, float32, in the order of labels."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    means = np.add.reduceat(tokens[order].astype(np.float64), starts, axis=0)
    means /= np.diff(starts, append=len(tokens))[:, None]
    if renormalize:
        means /= _lengths(means)
    return means.astype(np.float32)
