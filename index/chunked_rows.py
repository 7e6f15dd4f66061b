"""Vectors that lie in several arrays, scored as if they lay in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.index.exact import METRIC_NUMBERS, SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]


class ChunkedRows:
    """Rows of a column whose chunks have equally many rows, but for the last, which has no more.

    Parameters
    ----------
    chunks : at least one; vectors float32 or float16 (rows, dim), C-contiguous, and norms float32 (rows,) of
        :func:`gingham.index.exact.row_norms`
    """

    def __init__(self, chunks: Sequence[tuple[Array, Array]], metric: Metric) -> None:
        first = chunks[0][0]
        self._chunks = chunks
        self._vectors = np.array([vectors.ctypes.data for vectors, _ in chunks], np.uint64)
        self._norms = np.array([norms.ctypes.data for _, norms in chunks], np.uint64)
        self._rows = len(first)
        self._kind = int(first.dtype == np.float16)
        self._metric = METRIC_NUMBERS[metric]
        self._dim = first.shape[1]
        self._values = SLICE_BYTES // max(first.itemsize * self._dim, 1)

    def score(self, queries: Array, rows: Array) -> Array:
        """Score listed rows of several queries.

        Parameters
        ----------
        queries : of :func:`gingham.index.exact.prepare_queries`
        rows : int64 (n_queries, m), C-contiguous; -1 scores -inf

        Returns
        -------
        numpy.ndarray : float32 (n_queries, m), the same bits as of :func:`gingham.index.exact.score_listed`
        """
        from gingham.codecs import float_kernels

        out = np.empty(rows.shape, np.float32)
        step = max(1, self._values // max(rows.shape[1], 1))
        address = queries.ctypes.data
        for start in range(0, len(rows), step):
            deadline.check()
            part = slice(start, start + step)
            float_kernels.score_chunks(
                self._vectors, self._norms, self._rows, self._kind, address + start * queries.strides[0], self._dim,
                self._metric, rows[part], out[part],
            )  # fmt: skip
        return out

    @property
    def addressed(self) -> tuple[Array, Array, Array]:
        """As kernels take them: addresses of vectors and of norms, and rows of a chunk, kind and metric, int64 (3,)."""
        return self._vectors, self._norms, np.array([self._rows, self._kind, self._metric], np.int64)

    def nearest(self, queries: Array, places: Array, row_at: Array, k: int) -> tuple[Array, Array]:
        """The k best of listed rows of each query.

        Parameters
        ----------
        queries : of :func:`gingham.index.exact.prepare_queries`
        places : int64 (n_queries, m), C-contiguous; -1 for none
        row_at : int32, C-contiguous, the row in each place

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads
        """
        from gingham.codecs import float_kernels

        n, m = places.shape
        scores, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
        address, step = queries.ctypes.data, max(1, self._values // max(n, 1))
        for start in range(0, max(m, 1), step):
            deadline.check()
            float_kernels.nearest_in_chunks(
                self._vectors, self._norms, self._rows, self._kind, address, self._dim, self._metric, places, start,
                min(start + step, m), row_at.ctypes.data, scores, rows,
            )  # fmt: skip
        return scores, rows


def equal_chunks(lengths: Sequence[int]) -> bool:
    """Whether chunks of so many rows are what :class:`ChunkedRows` takes."""
    return bool(lengths) and all(n == lengths[0] for n in lengths[:-1]) and lengths[-1] <= lengths[0]
