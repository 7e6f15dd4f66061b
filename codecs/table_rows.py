"""Rows of codes that are scored by tables, as of product quantizers: their layout, their queries, their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gingham.codecs.protocol import Codes

    Array = np.ndarray[Any, Any]

TILE_BYTES = 128 << 10
"""Rows that stay in the second-level cache while all queries pass over them."""
LENGTH_HEAD, SUM_HEAD = 1, 4
"""Bytes in front of a row's codes: a code of its length, or a float32 that is added to its score."""


@dataclass(frozen=True)
class TableQueries:
    """Queries as tables.

    Attributes
    ----------
    tables : float32 (n_queries, m, 2^bits)
    bias : float32 (n_queries,)
    """

    tables: Array
    bias: Array


@dataclass(frozen=True)
class TableRows:
    """The layout of rows of :mod:`gingham.codecs.table_kernels`.

    Attributes
    ----------
    m : codes of a row
    bits : of a code, 8, 12 or 16
    head : bytes in front of the codes, 0, 1 or 4
    """

    m: int
    bits: int
    head: int = 0

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return self.head + -(-self.m * self.bits // 8)

    def pack(self, labels: Array, head: Array | None = None) -> Array:
        """Rows, uint8 (n, stride), from int32 (n, m) and one uint8 or float32 a row."""
        from gingham.codecs import table_kernels

        rows = np.empty((len(labels), self.stride), np.uint8)
        if head is not None:
            rows[:, : self.head] = np.ascontiguousarray(head)[:, None].view(np.uint8)
        table_kernels.pack_codes(np.ascontiguousarray(labels, np.int32), self.head, self.bits, rows)
        return rows

    def unpack(self, rows: Array) -> Array:
        """Codes of rows: uint16 (n, m)."""
        from gingham.codecs import table_kernels

        out = np.empty((len(rows), self.m), np.uint16)
        table_kernels.unpack_codes(rows.ctypes.data, len(rows), self.stride, self.head, self.m, self.bits, out)
        return out

    def scan(
        self,
        prepared: TableQueries,
        codes: Codes,
        start: int,
        stop: int,
        allow: int,
        scores: Array,
        rows: Array,
        *,
        lengths: Array | None = None,
    ) -> None:
        """Offer rows to heaps: see :meth:`gingham.codecs.protocol.Codec.scan`."""
        from gingham.codecs import table_kernels

        table_kernels.scan_tables(
            codes.arrays["rows"].ctypes.data, self.stride, self.head, self.m, self.bits, start, stop,
            max(16, TILE_BYTES // self.stride), prepared.tables.ctypes.data,
            0 if lengths is None else lengths.ctypes.data, prepared.bias, allow, scores, rows,
        )  # fmt: skip

    def score(
        self, prepared: TableQueries, codes: Codes, rows: Array, out: Array, *, lengths: Array | None = None
    ) -> None:
        """Score listed rows: see :meth:`gingham.codecs.protocol.Codec.score`."""
        from gingham.codecs import table_kernels

        table_kernels.score_tables(
            codes.arrays["rows"].ctypes.data, self.stride, self.head, self.m, self.bits, prepared.tables.ctypes.data,
            0 if lengths is None else lengths.ctypes.data, prepared.bias, rows, out,
        )  # fmt: skip
