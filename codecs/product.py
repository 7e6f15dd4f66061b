"""Product quantization: a vector is cut into sub-vectors, and each becomes the nearest of its sub-space's centroids.

Source: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", IEEE TPAMI 33(1), 2011, sections II
and III. Where the number of sub-spaces does not divide the dimensions, vectors are padded with zeros at their end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gingham.codecs.kmeans import Centroids, train_subspaces

Array = np.ndarray[Any, Any]


def train_codebooks(sample: Array, m: int, k: int, *, seed: int) -> Array:
    """Centroids of m sub-spaces by k-means: float32 (m, k, dsub), dsub = ceil(d / m).

    Parameters
    ----------
    sample : float32 (n, d); fewer rows than centroids are repeated
    """
    return train_subspaces(sample, m, k, seed=seed)


def encode_with(codebooks: Array, vectors: Array) -> Array:
    """Nearest centroid of each sub-vector: uint8 (n, m), or uint16 of more than 256 centroids."""
    return encode_nearest(Centroids.of(codebooks), vectors)


def encode_nearest(known: Centroids, vectors: Array) -> Array:
    """As :func:`encode_with`, from centroids made ready."""
    out = np.empty((len(vectors), known.m), np.uint8 if known.k <= 256 else np.uint16)
    known.nearest(vectors, out=out)
    return out
