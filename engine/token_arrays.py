"""Stored columns of token matrices as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    Array = np.ndarray[Any, Any]


def token_arrays(column: pa.Array, dim: int) -> tuple[Array, Array]:
    """All tokens float16 (tokens, dim) of a column, without a copy, and where those of each row begin and the last end.

    Returns
    -------
    tuple : tokens, and int64 (rows + 1,)
    """
    starts = column.offsets.to_numpy().astype(np.int64)
    values = column.values
    flat = values.values.slice(values.offset * dim, len(values) * dim).to_numpy(zero_copy_only=True)
    return flat.reshape(-1, dim), starts
