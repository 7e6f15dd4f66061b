"""One query over lists of blocks: a kernel does all that :mod:`gingham.index.list_search` does step by step for many.

Steps that take a microsecond or two each cost as much again to call from Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.nibble_blocks import block_addresses, block_queries
from gingham.index.two_stage import SLICE_BYTES

if TYPE_CHECKING:
    from gingham.index.chunked_rows import ChunkedRows
    from gingham.index.coarse import Coarse
    from gingham.index.code_lists import CodeLists

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class SingleSearch:
    """Lists of blocks whose candidates are scored from vectors.

    Attributes
    ----------
    coarse, lists, vectors : of the rows
    most : places that one call scans, since nothing stops it; it also scores vectors of ``SLICE_BYTES`` at most
    """

    coarse: Coarse
    lists: CodeLists
    vectors: ChunkedRows
    most: int

    @cached_property
    def _places(self) -> tuple[tuple[Any, ...], int, tuple[Any, ...]] | None:
        """What a kernel takes of centroids and lists, the address of the rows in places, and of vectors."""
        centroids, lists = self.coarse.addressed, self.lists
        if centroids is None:
            return None
        codes, vectors, numbers = centroids
        first = codes, *vectors, numbers.ctypes.data, block_addresses(lists.codes), lists.starts, lists.sizes
        return first, lists.rows.ctypes.data, (*self.vectors.addressed, lists.firsts is not None)

    def run(
        self, query: Array, prepared: Any, k: int, nprobe: int, wanted: int, allow: Array | None
    ) -> tuple[Array, Array] | None:
        """The k best rows of a query; None where it has to be done step by step.

        Parameters
        ----------
        query : float32 (1, dim), C-contiguous
        prepared : the same by the codec
        nprobe : lists scanned, at most all
        wanted : candidates scored from vectors
        allow : bool (places,), or None for all

        Returns
        -------
        tuple : scores float32 (1, k), descending, and rows int64 (1, k); (-inf, -1) pads
        """
        from gingham.index import list_kernels

        tables, places = block_queries(prepared), self._places
        if tables is None or places is None or 4 * wanted * query.shape[1] > SLICE_BYTES:
            return None
        deadline.check()
        (first, row_at, last), dim = places, query.shape[1]
        scores, rows = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
        scanned = list_kernels.search_one(
            tables.tables, tables.parameters, query.ctypes.data, dim, tables.tables.shape[1] // 2, *first, row_at,
            0 if allow is None else allow.ctypes.data, *last, nprobe, self.coarse.near(nprobe), self.most, wanted,
            scores, rows,
        )  # fmt: skip
        return None if scanned < 0 else (scores, rows)
