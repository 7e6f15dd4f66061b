"""Rows of codes scored by tables: the layout, and tables of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.protocol import Codes, join_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]

LANES = 8
"""Queries side by side in a table."""
TILE_ROWS = 256
"""Rows whose sums for eight queries stay in the first-level cache: 8 KiB."""
WIDE_CENTROIDS = 256
"""Tables of more centroids hold one query after the other: eight side by side would leave the caches."""


@dataclass(frozen=True)
class TableQueries:
    """Tables of queries.

    Attributes
    ----------
    tables : float32 (groups, m, k, lanes), of :mod:`gingham.codecs.table_kernels`
    biases : float32, padded to whole groups
    lengths : float32 (256,), where rows have a code of their length
    """

    tables: Array
    biases: Array
    lengths: Array | None = None


@dataclass(frozen=True, eq=False)
class Codebooks:
    """Centroids in the two orders that tables are filled from.

    Attributes
    ----------
    centroids : float32 (m, k, dsub), k padded to a multiple of 8
    columns : float32 (m, dsub, k)
    """

    centroids: Array
    columns: Array

    @classmethod
    def of(cls, centroids: Array) -> Codebooks:
        """From float32 (m, k, dsub)."""
        m, k, dsub = centroids.shape
        padded = np.zeros((m, -(-k // 8) * 8, dsub), np.float32)
        padded[:, :k] = centroids
        return cls(padded, np.ascontiguousarray(padded.swapaxes(1, 2)))

    def tables(self, queries: Array, biases: Array, *, times: float) -> TableQueries:
        """Partial scores of every centroid for every query.

        Parameters
        ----------
        queries : float32 (n, at most m * dsub), padded with zeros
        biases : float32 (n,)
        times : factor of inner products; 0 for minus the squared distance
        """
        from gingham.codecs import table_kernels

        m, k, dsub = self.centroids.shape
        n, dim = len(queries), m * dsub
        lanes, groups = _lanes(n, k)
        padded = np.zeros((groups * lanes, dim), np.float32)
        padded[:n, : queries.shape[1]] = queries
        laid = np.ascontiguousarray(padded.reshape(groups, lanes, dim).swapaxes(1, 2))
        tables = np.empty((groups, m, k, lanes), np.float32)
        books = self.centroids if lanes == LANES else self.columns
        all_biases = np.zeros(groups * lanes, np.float32)
        all_biases[:n] = biases
        for group in range(groups):
            deadline.check()
            table_kernels.fill_tables(
                laid[group].ctypes.data, 1, lanes, books.ctypes.data, m, k, dsub, times, tables[group].ctypes.data
            )
        return TableQueries(tables, all_biases)


def tables_of(partial: Array, biases: Array) -> TableQueries:
    """Tables from partial scores float32 (n, m, k), k a multiple of 8, and float32 (n,)."""
    n, m, k = partial.shape
    lanes, groups = _lanes(n, k)
    padded, all_biases = np.zeros((groups * lanes, m, k), np.float32), np.zeros(groups * lanes, np.float32)
    padded[:n], all_biases[:n] = partial, biases
    return TableQueries(np.ascontiguousarray(np.moveaxis(padded.reshape(groups, lanes, m, k), 1, 3)), all_biases)


def _lanes(n: int, k: int) -> tuple[int, int]:
    lanes = LANES if n > 1 and k <= WIDE_CENTROIDS else 1
    return lanes, -(-n // lanes)


@dataclass(frozen=True)
class TableRows:
    """The layout of rows of :mod:`gingham.codecs.table_kernels`.

    Attributes
    ----------
    m, bits : codes of a row, and bits of a code: 8, 12 or 16
    header : whether a float32 stands in front, added to the score
    scaled : whether a byte stands in front instead, the code of a length that multiplies the score
    """

    m: int
    bits: int = 8
    header: bool = False
    scaled: bool = False

    @property
    def front(self) -> int:
        """Bytes in front of the codes."""
        return 1 if self.scaled else 4 if self.header else 0

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return self.front + -(-self.m * self.bits // 8)

    def pack(self, codes: Array, header: Array | None = None) -> Array:
        """Rows from codes (n, m), and headers (n,), float32 or the codes of lengths: uint8 (n, stride)."""
        n = len(codes)
        rows = np.empty((n, self.stride), np.uint8)
        place = self.front
        if header is not None:
            stored = np.ascontiguousarray(header, np.uint8 if self.scaled else "<f4")
            rows[:, :place] = stored.view(np.uint8).reshape(n, place)
        if self.bits == 8:
            rows[:, place:] = codes
        elif self.bits == 16:
            rows[:, place:] = np.ascontiguousarray(codes, "<u2").view(np.uint8)
        else:
            even, odd = codes[:, 0::2].astype(np.uint16), codes[:, 1::2].astype(np.uint16)
            rows[:, place + 0 :: 3] = even & 255
            rows[:, place + 1 :: 3] = even >> 8
            rows[:, place + 1 :: 3][:, : odd.shape[1]] |= ((odd & 15) << 4).astype(np.uint8)
            rows[:, place + 2 :: 3] = odd >> 4
        return rows

    def unpack(self, rows: Array) -> Array:
        """Codes of rows: uint8 or uint16 (n, m)."""
        own = rows[:, self.front :]
        if self.bits == 8:
            return own
        if self.bits == 16:
            return np.ascontiguousarray(own).view("<u2")
        codes = np.empty((len(rows), self.m), np.uint16)
        middle = own[:, 1::3].astype(np.uint16)
        codes[:, 0::2] = own[:, 0::3] | (middle & 15) << 8
        odd = own[:, 2::3].astype(np.uint16)
        codes[:, 1::2] = middle[:, : odd.shape[1]] >> 4 | odd << 4
        return codes

    def scan(
        self, prepared: TableQueries, codes: Array, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps: see :meth:`gingham.codecs.protocol.Codec.scan`."""
        from gingham.codecs import table_kernels

        groups, m, k, lanes = prepared.tables.shape
        lengths = _address(prepared.lengths)
        sums = np.empty(LANES * TILE_ROWS + LANES, np.float32)
        for group in range(groups if lanes == 1 else 1):
            few = slice(group, group + 1) if lanes == 1 else slice(None)
            table_kernels.scan_tables(
                codes.ctypes.data, self.stride, self.front, m, k, self.bits, start, stop,
                prepared.tables[few].ctypes.data, lanes, lengths, prepared.biases[few], allow, sums, scores[few],
                rows[few],
            )  # fmt: skip

    def score(self, prepared: TableQueries, codes: Array, rows: Array, out: Array) -> None:
        """Score listed rows: see :meth:`gingham.codecs.protocol.Codec.score`."""
        from gingham.codecs import table_kernels

        _, m, k, lanes = prepared.tables.shape
        table_kernels.score_tables(
            codes.ctypes.data, self.stride, self.front, m, k, self.bits, prepared.tables.ctypes.data,
            lanes, _address(prepared.lengths), prepared.biases, rows, out,
        )  # fmt: skip


def _address(array: Array | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


class TableCodec:
    """What codecs scored by tables have in common: one array of codes, "rows", of the layout :attr:`layout`."""

    @property
    def layout(self) -> TableRows:
        """The layout of rows."""
        raise NotImplementedError

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self.layout.stride

    @property
    def levels(self) -> int:
        """1."""
        return 1

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def scan(
        self, prepared: TableQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        self.layout.scan(prepared, codes.arrays["rows"], start, stop, allow, scores, rows)

    def score(self, prepared: TableQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self.layout.score(prepared, codes.arrays["rows"], rows, out)

    def refine(self, prepared: TableQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: TableQueries, codes: Codes) -> None:
        """None: rows are not scored by themselves."""

    def bound(self, prepared: TableQueries, codes: Codes, rows: Array) -> Array | None:
        """None: no theory bounds these scores."""
        return None

    def optimistic(self, prepared: TableQueries) -> None:
        """None."""
