"""Vectors in a plane, for a map of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def principal_plane(vectors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plane of greatest variance through the mean of some vectors.

    Parameters
    ----------
    vectors : floats of shape (n, dim), finite, n at least 1

    Returns
    -------
    points : float64 (n, 2), the vectors in that plane; the value farthest from 0 of each axis is positive
    shares : float64 (2,), share of the variance that each axis has; 0 where there is none

    Notes
    -----
    Principal components (Pearson 1901), from the covariance, or where there are fewer vectors than dimensions
    from the products of the vectors with each other, which have the same greatest eigenvalues.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    n, dim = centred.shape
    products = centred @ centred.T if n < dim else centred.T @ centred
    values, axes = np.linalg.eigh(products)
    values, axes = np.maximum(values[::-1][:2], 0.0), axes[:, ::-1][:, :2]
    points, shares = np.zeros((n, 2)), np.zeros(2)
    points[:, : len(values)] = axes * np.sqrt(values) if n < dim else centred @ axes
    points *= np.where(points.max(axis=0) < -points.min(axis=0), -1.0, 1.0)
    shares[: len(values)] = values / (np.trace(products) or 1.0)
    return points, shares
