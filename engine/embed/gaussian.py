"""Texts as normal distributions: their divergence as one inner product, so that any index of vectors finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def gaussian_rows(means: Any, variances: Any) -> Array:
    """Vectors of stored normal distributions, for a field ``Dense(2 * k + 1, metric="dot")``.

    Parameters
    ----------
    means : (n, k), finite
    variances : (n, k), of each dimension by itself, finite and above 0

    Returns
    -------
    ndarray : float32 (n, 2 k + 1)

    Raises
    ------
    InvalidArgument : another shape, a variance of 0 or less, or values that are not finite or too large for float32;
        the row is named

    Notes
    -----
    With ``q = gaussian_queries(...)`` the score ``q . d`` is -2 KL(query || row) and a number that depends on the query
    alone, so that it orders rows as the divergence does (Zamani and Bendersky 2023, SIGIR, "Multivariate representation
    learning for information retrieval", with the trace as the sum that it is)::

        d = [-mean(ln v + m^2 / v), -1 / v, 2 m / v]
        q = [k, m^2 + v, m]

    The mean in place of a sum, and k in the query, leave all components of about one size, as codecs like it.
    """
    mean, variance = _checked("gaussian_rows", means, variances)
    with np.errstate(over="ignore", invalid="ignore"):
        inverse = 1 / variance
        first = -(np.log(variance) + np.square(mean) * inverse).mean(axis=1, keepdims=True)
        return _float32("gaussian_rows", [first, -inverse, 2 * mean * inverse])


def gaussian_queries(means: Any, variances: Any) -> Array:
    """Vectors of normal distributions that are searched for; see :func:`gaussian_rows`.

    Parameters
    ----------
    means, variances : (n, k); for one query (1, k)

    Returns
    -------
    ndarray : float32 (n, 2 k + 1)

    Raises
    ------
    InvalidArgument : as of :func:`gaussian_rows`
    """
    mean, variance = _checked("gaussian_queries", means, variances)
    with np.errstate(over="ignore"):
        first = np.full((len(mean), 1), mean.shape[1], np.float64)
        return _float32("gaussian_queries", [first, np.square(mean) + variance, mean])


def _checked(call: str, means: Any, variances: Any) -> tuple[Array, Array]:
    try:
        mean, variance = np.asarray(means, np.float64), np.asarray(variances, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{call}() expects numbers of shape (n, k), found {type(means).__name__}") from None
    if mean.ndim != 2 or not mean.shape[1] or mean.shape != variance.shape:
        raise InvalidArgument(
            f"{call}() expects means and variances of one shape (n, k), found {mean.shape} and {variance.shape}; put "
            "one of them alone into a list"
        )
    bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(variance) & (variance > 0)).all(axis=1))
    if len(bad):
        raise InvalidArgument(f"{call}() expects finite means and variances above 0, found others in row {bad[0]}")
    return mean, variance


def _float32(call: str, parts: list[Array]) -> Array:
    made: Array = np.concatenate(parts, axis=1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(made).all(axis=1))
    if len(bad):
        raise InvalidArgument(
            f"{call}() expects means and variances whose ratios fit float32, found others in row {bad[0]}; raise small "
            "variances"
        )
    return made
