"""Rows of a byte a dimension that a graph is built on, whatever codec it is searched with.

A row is an LVQ code (:mod:`gingham.codecs.lvq`), with what distances between two rows need beside it. They are squared
distances, and for dot -2 <x, y>, by which neighbours are the rows of the greatest products, as in ip-NSW (Morozov and
Babenko 2018): of 20,000 normal rows of lengths that vary by a factor of 2, a graph by squared distances finds 8 %, and
one by the distances of rows brought to one length as little, where this one finds 99 %.
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
"""Bytes and float32 in front of the codes; four are used, so that rows are aligned to 16 bytes."""
OFFSET, ADDED, CODE_SUM = 1, 2, 3
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
        run_blocks(lambda start: self._encode(first, start, vectors_of), list(range(0, count, ENCODE_ROWS)))
        self.n = first + count

    def scores(self, nodes: Array) -> RowScores:
        """Negative distances from some of the rows, int64 (m,), to all rows."""
        chosen = self._rows[nodes]
        header = chosen[:, :HEADER].copy().view(np.float32)
        values = header[:, OFFSET, None] + header[:, :1] * chosen[:, HEADER : HEADER + self.dim]
        layout = PackedRows(self.width, 8)
        packed = layout.prepare(np.ascontiguousarray(values), "l2", -header[:, ADDED])
        return RowScores(
            PACKED, self._rows.ctypes.data, self.stride, FACTORS, self.width, 8, packed.integers, packed.parameters
        )

    def decoded(self, nodes: Array) -> Array:
        """Vectors of some rows, float32 (m, dim)."""
        chosen = self._rows[nodes]
        header = chosen[:, :HEADER].copy().view(np.float32)
        values: Array = header[:, OFFSET, None] + header[:, :1] * chosen[:, HEADER : HEADER + self.dim]
        return values + self._mean

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

    def _encode(self, first: int, start: int, vectors_of: Callable[[slice], Array]) -> None:
        """Write one block of rows."""
        from gingham.codecs import scalar_kernels

        vectors = vectors_of(slice(start, start + ENCODE_ROWS))
        n = len(vectors)
        values, header = np.zeros((n, self.width), np.uint8), np.zeros((n, FACTORS), np.float32)
        levels = np.empty((n, 3), np.float32)
        scalar_kernels.encode_levels(
            vectors.ctypes.data, n, self.dim, self._mean.ctypes.data, 255, 0, 0 if self.metric == "dot" else 2,
            np.empty(self.dim + 16, np.float32), values, levels, np.empty((0, 16), np.uint8),
            np.empty((0, 3), np.float32),
        )  # fmt: skip
        header[:, :3], header[:, CODE_SUM] = levels, values.sum(axis=1)
        if self.metric == "dot":
            # -2 <x, y> = -2 <x - mean, y - mean> and from each of the two -2 <mean, x - mean> - <mean, mean>.
            header[:, ADDED] = -2 * levels[:, 2] - np.square(self._mean, dtype=np.float64).sum()
        out = self._rows[first + start : first + start + n]
        out[:, :HEADER], out[:, HEADER:] = header.view(np.uint8), values


def _aligned(n: int, stride: int) -> Array:
    """Rows whose first byte is aligned to a cache line."""
    space = np.empty(n * stride + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start : start + n * stride].reshape(n, stride)
