"""A second list for each row, so that a query that misses the first may find the row in another.

Source: Sun et al., "SOAR: improved indexing for approximate nearest neighbor search", NeurIPS 2023, section 3.2: the
residual of the second list is to be short, and not to point where that of the first does, since a query for which one
list ranks too low is one whose direction agrees with the residual there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.parallel import one_blas_thread, run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

PARALLEL_WEIGHT = 1.0
"""Lambda of the paper, whose figures are for 1 too."""
BLOCK_ROWS = 1024


def second_lists(
    centroids: Array, lists: Array, vectors_of: Callable[[Array], Array], *, weight: float = PARALLEL_WEIGHT
) -> Array:
    """The second list of each row, int64 (n,); -1 where there is none.

    Minimises the squared distance plus ``weight`` times the square of the residual's part along that of the first list.

    Parameters
    ----------
    centroids : float32 (nlist, dim)
    lists : int64 (n,), the first list of each row
    vectors_of : from positions int64 (m,), in any order, to vectors float32 (m, dim); called by several threads

    Notes
    -----
    Time O(n nlist dim).
    """
    from gingham.index import list_kernels

    out, order = np.full(len(lists), -1, np.int64), np.argsort(lists, kind="stable")
    if len(centroids) < 2:
        return out
    squares = np.square(centroids).sum(axis=1)

    def block(start: int) -> None:
        deadline.check()
        at = order[start : start + BLOCK_ROWS]
        rows, chosen = vectors_of(at), np.empty(len(at), np.int64)
        mine, group = np.unique(lists[at], return_inverse=True)
        with one_blas_thread():
            products, between = rows @ centroids.T, centroids[mine] @ centroids.T
        list_kernels.second_list(
            products, between, squares, np.square(rows).sum(axis=1), lists[at], group.astype(np.int64), weight, chosen
        )
        out[at] = chosen

    run_blocks(block, range(0, len(order), BLOCK_ROWS))
    return out
