"""What a kernel needs to score rows of a codec by itself, one at a time and in any order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

PACKED, F32, F16, BF16 = 0, 1, 2, 3
"""Kinds of rows: of :mod:`gingham.codecs.affine_row_kernels`, and the floats of ``float_row_kernels``."""


class RowScores(NamedTuple):
    """Coded rows, and queries prepared for them.

    Attributes
    ----------
    kind : :data:`PACKED`, or a kind of floats
    address, stride : where the first row is, and bytes from one to the next; the codes own the memory
    factors : in front of a packed row; for floats the metric, 0 for dot and 2 for l2
    width, bits : dimensions with padding, and bits of each
    queries : (n_queries, bytes) int8: integers for packed rows, float32 for floats
    parameters : float32 (n_queries, 5) for packed rows; for floats (n_queries, 1), what is added to scores
    """

    kind: int
    address: int
    stride: int
    factors: int
    width: int
    bits: int
    queries: Array
    parameters: Array
