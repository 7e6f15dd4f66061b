"""The coarse quantizer of lists: centroids, the list of a row, and the lists that a query probes.

Source: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011, section IV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.kmeans import assign, train_kmeans
from gingham.index.exact import row_norms, search_exact

if TYPE_CHECKING:
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

MOST_LISTS = 1 << 16
LISTS_PER_ROOT, ROWS_PER_LIST = 4, 32
"""Lists where the caller does not say: 4 sqrt(n), but none of fewer than 32 rows in the mean."""


@dataclass(frozen=True, eq=False)
class Coarse:
    """Centroids of lists.

    Attributes
    ----------
    centroids : float32 (nlist, dim)
    metric : by which queries choose lists: for dot by products, else by distances. Rows take the nearest by distance
    """

    centroids: Array
    metric: Metric

    @classmethod
    def train(cls, rows: Array, nlist: int, metric: Metric, seed: int) -> Coarse:
        """By k-means on a sample of the rows; float32 (n, dim), of length one under cosine."""
        return cls(train_kmeans(rows, nlist, seed=seed, fast=True), metric)

    def assign(self, rows: Array) -> Array:
        """The list of each row, int64 (n,)."""
        return assign(rows, self.centroids).astype(np.int64)

    def probe(self, queries: Array, nprobe: int) -> Array:
        """The nearest lists of each query, nearest first: int64 (n_queries, nprobe)."""
        metric: Metric = "dot" if self.metric == "dot" else "l2"
        return search_exact(queries, self.centroids, self._norms, nprobe, metric=metric)[1]

    @cached_property
    def _norms(self) -> Array:
        return row_norms(self.centroids, "dot" if self.metric == "dot" else "l2")


def list_count(n: int) -> int:
    """Lists for n rows."""
    return int(max(1, min(LISTS_PER_ROOT * np.sqrt(n), n // ROWS_PER_LIST, MOST_LISTS)))
