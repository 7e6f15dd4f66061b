"""Linear algebra of the transforms: covariances, their axes, and rows times a matrix, with fixed bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.parallel import one_blas_thread, run_blocks

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

SAMPLE_ROWS = 65_536
"""Rows that a covariance is taken from, spread evenly over the sample; its error falls with their root."""
PART_ROWS, BLOCK_ROWS = 8192, 1024
"""Rows of a part that one thread sums, and of a product; fixed, so that sums have the same bits for any number of
threads."""
SLICE_PRODUCTS = 1 << 29
"""Products of one kernel call, since nothing stops it: about 10 ms."""
PANEL = 16


@dataclass(frozen=True, eq=False)
class Projection:
    """A matrix that rows are multiplied by.

    Attributes
    ----------
    matrix : float32 (out_dim, dim)
    """

    matrix: Array

    @cached_property
    def _panels(self) -> Array:
        """The matrix as the kernel reads it: float32 (width / 16, dim, 16)."""
        out_dim, dim = self.matrix.shape
        wide = np.zeros((-(-out_dim // PANEL) * PANEL, dim), np.float32)
        wide[:out_dim] = self.matrix
        return np.ascontiguousarray(wide.reshape(-1, PANEL, dim).transpose(0, 2, 1))

    def apply(self, rows: Array, offset: Array | None = None) -> Array:
        """Project rows, less an offset: float32 (n, dim), C-contiguous, to (n, out_dim).

        Notes
        -----
        A row has the same bits alone and in a batch.
        """
        from gingham.codecs import projection_kernels

        panels, (out_dim, dim) = self._panels, self.matrix.shape
        out = np.empty((len(rows), len(panels) * PANEL), np.float32)
        step = max(1, SLICE_PRODUCTS // (dim * out.shape[1]))
        for start in range(0, len(rows), step):
            deadline.check()
            part = rows[start : start + step]
            if offset is not None:
                part = part - offset
            projection_kernels.project_rows(part.ctypes.data, dim, panels.ctypes.data, out[start : start + step])
        return np.ascontiguousarray(out[:, :out_dim])


def moments(sample: Array, *, centered: bool) -> tuple[Array, Array]:
    """Mean float64 (dim,) and covariance float64 (dim, dim) of rows, or zero and their second moment."""
    rows = sample if len(sample) <= SAMPLE_ROWS else sample[np.linspace(0, len(sample) - 1, SAMPLE_ROWS).astype(int)]
    mean = rows.mean(axis=0, dtype=np.float64) if centered else np.zeros(rows.shape[1])

    def summed(start: int) -> Array:
        sums = np.zeros((len(mean), len(mean)))
        for low in range(start, min(start + PART_ROWS, len(rows)), BLOCK_ROWS):
            deadline.check()
            block = rows[low : min(low + BLOCK_ROWS, start + PART_ROWS)] - mean
            sums += block.T @ block
        return sums

    with one_blas_thread():
        parts = run_blocks(summed, list(range(0, len(rows), PART_ROWS)))
    products: Array = sum(parts[1:], parts[0]) / len(rows)
    return mean, products


def axes(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues float64 (dim,), descending and not negative, and orthonormal eigenvectors as rows (dim, dim).

    Notes
    -----
    The coordinate of greatest magnitude of every eigenvector, the first of equal ones, is positive.
    """
    deadline.check()
    with one_blas_thread():
        values, vectors = np.linalg.eigh(covariance)
    rows = vectors.T[::-1]
    largest = np.abs(rows).argmax(axis=1)
    signs = np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)
    return np.maximum(values[::-1], 0), rows * signs[:, None]
