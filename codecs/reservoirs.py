"""The best rows of scans that offer few rows for each one kept, as those of lists do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

SPARE = 256
"""Room beside twice the rows kept: rows of a few lists are gathered and chosen from once. A heap of 104 rows spent
10 us on 512 rows, four times what their scores took."""


@dataclass(frozen=True, eq=False)
class Reservoirs:
    """Rows above a floor, gathered as they come; when a line is full, the best k stay and the floor rises.

    Attributes
    ----------
    k : rows kept
    scores, rows : float32 and int64 (n_queries, room)
    counts : int64 (n_queries,), how many are there
    floors : float32 (n_queries,); rows enter that score above it
    """

    k: int
    scores: Array
    rows: Array
    counts: Array
    floors: Array

    @classmethod
    def empty(cls, n: int, k: int) -> Reservoirs:
        """For the k best rows of each of n queries."""
        room = 2 * k + SPARE
        floors = np.empty(n, np.float32)
        floors.fill(-np.inf)
        return cls(k, np.empty((n, room), np.float32), np.empty((n, room), np.int64), np.zeros(n, np.int64), floors)

    @property
    def lines(self) -> tuple[Array, Array, Array, Array, int]:
        """As kernels take them."""
        return self.scores, self.rows, self.counts, self.floors, self.k

    def best(self) -> tuple[Array, Array]:
        """Scores float32 and rows int64 (n_queries, k), in no order; (-inf, -1) pads."""
        from gingham.codecs import reservoir_kernels

        scores, rows = np.empty((len(self.counts), self.k), np.float32), np.empty((len(self.counts), self.k), np.int64)
        reservoir_kernels.take_best(self.scores, self.rows, self.counts, scores, rows)
        return scores, rows
