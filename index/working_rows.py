"""Rows of a byte a dimension that a graph is built on, whatever codec it is searched with.

A row is an LVQ code (:mod:`gingham.codecs.lvq`), with what distances between two rows need beside it. Under dot a row
has one dimension more, which brings all rows to one length: then the order by squared distance of a row to others is
that by inner product (Bachrach et al. 2014, section 3), and neighbours are chosen by true distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.packed import PackedRows
from gingham.codecs.row_scores import PACKED, RowScores
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

HEADER, FACTORS = 32, 8
"""Bytes and float32 in front of the codes; five are used, so that rows are aligned to 16 bytes."""
OFFSET, SQUARE, EXTRA, CODE_SUM = 1, 2, 3, 4
ENCODE_ROWS = 4096
_ALIGNMENT = 64


class WorkingRows:
    """Rows that a graph is built on; more can be appended.

    Parameters
    ----------
    dim, metric : of the vectors; under cosine they have length one
    mean : float32 (dim,), subtracted

    Attributes
    ----------
    n : rows
    width : dimensions with padding
    """

    def __init__(self, dim: int, metric: Metric, mean: Array) -> None:
        self.dim = dim
        self.metric = metric
        self.n = 0
        self.width = -(-dim // 32) * 32
        self._mean = np.ascontiguousarray(mean, np.float32)
        self._longest = 0.0
        self._rows = _aligned(0, HEADER + self.width)

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return HEADER + self.width

    @property
    def rows(self) -> Array:
        """uint8 (n, stride)."""
        return self._rows[: self.n]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, and of the room for more."""
        return int(self._rows.nbytes)

    def append(self, count: int, vectors_of: Callable[[slice], Array]) -> None:
        """Encode more rows, in the thread pool.

        Parameters
        ----------
        vectors_of : from a slice of range(count) to float32 (rows, dim), C-contiguous
        """
        first = self.n
        self._reserve(first + count)
        starts = list(range(0, count, ENCODE_ROWS))
        squares = run_blocks(lambda start: self._encode(first, start, vectors_of), starts)
        self.n = first + count
        if self.metric == "dot":
            self._lengthen(first, np.concatenate([np.empty(0), *squares]))

    def scores(self, nodes: Array) -> RowScores:
        """Negative squared distances from some of the rows, int64 (m,), to all rows."""
        chosen = self._rows[nodes]
        header = chosen[:, :HEADER].copy().view(np.float32)
        values = header[:, OFFSET, None] + header[:, :1] * chosen[:, HEADER : HEADER + self.dim]
        layout = PackedRows(self.width, 8)
        packed = layout.prepare(np.ascontiguousarray(values), "l2", -header[:, SQUARE])
        parameters = np.concatenate([packed.parameters, 2 * header[:, EXTRA, None]], axis=1)
        return RowScores(
            PACKED, self._rows.ctypes.data, self.stride, FACTORS, self.width, 8, packed.integers, parameters
        )

    def taken(self, nodes: Array) -> WorkingRows:
        """A copy of some of the rows."""
        part = WorkingRows(self.dim, self.metric, self._mean)
        part._rows, part.n = _aligned(len(nodes), self.stride), len(nodes)
        part._rows[:] = self._rows[nodes]
        return part

    def _reserve(self, n: int) -> None:
        if n > len(self._rows):
            rows = _aligned(n if not self.n else max(n, self.n + self.n // 4), self.stride)
            rows[: self.n] = self.rows
            self._rows = rows

    def _encode(self, first: int, start: int, vectors_of: Callable[[slice], Array]) -> Array:
        """Write one block of rows; returns the squared lengths of its vectors."""
        from gingham.codecs import scalar_kernels

        vectors = vectors_of(slice(start, start + ENCODE_ROWS))
        n = len(vectors)
        values, header = np.zeros((n, self.width), np.uint8), np.zeros((n, FACTORS), np.float32)
        levels = np.empty((n, 3), np.float32)
        scalar_kernels.encode_levels(
            vectors.ctypes.data, n, self.dim, self._mean.ctypes.data, 255, 0, 2, np.empty(self.dim + 16, np.float32),
            values, levels, np.empty((0, 16), np.uint8), np.empty((0, 3), np.float32),
        )  # fmt: skip
        header[:, :3], header[:, CODE_SUM] = levels, values.sum(axis=1)
        out = self._rows[first + start : first + start + n]
        out[:, :HEADER], out[:, HEADER:] = header.view(np.uint8), values
        squares: Array = np.square(vectors, dtype=np.float64).sum(axis=1) if self.metric == "dot" else np.empty(0)
        return squares

    def _lengthen(self, first: int, squares: Array) -> None:
        """Set the coordinate that brings rows from ``first`` on to the longest length, and those before if it grew."""
        longest = max(self._longest, float(squares.max(initial=0)))
        header = self._rows[: self.n, :HEADER].view(np.float32)
        if longest > self._longest and first:
            more = np.square(header[:first, EXTRA], dtype=np.float64)
            header[:first, SQUARE] -= more
            more += longest - self._longest
            header[:first, EXTRA], header[:first, SQUARE] = np.sqrt(more), header[:first, SQUARE] + more
        self._longest = longest
        missing = longest - squares
        header[first:, EXTRA] = np.sqrt(missing)
        header[first:, SQUARE] += missing


def _aligned(n: int, stride: int) -> Array:
    """Rows whose first byte is aligned to a cache line."""
    space = np.empty(n * stride + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start : start + n * stride].reshape(n, stride)
