"""Rows of 4-bit codes in blocks of 32, scored by tables of bytes: the layout that PQ fast scan and RaBitQ share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.protocol import BLOCK_ROWS, Codes
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.codecs.reservoirs import Reservoirs

    Array = np.ndarray[Any, Any]

REPACK_ROWS = 4096
"""Rows unpacked at once where parts are joined whose rows do not fill their blocks."""
MOST_CODES = 8192
"""Codes of a row: beyond, the rounding of tables to sums below 2^16 would tell fewer than 8 values apart."""


@dataclass(frozen=True)
class BlockQueries:
    """Queries as tables.

    Attributes
    ----------
    tables : uint8 (n_queries, 2 * pairs, 16)
    parameters : float32 (n_queries, 5): step, base, constant, weight and share of
        :mod:`gingham.codecs.fast_scan_kernels`
    """

    tables: Array
    parameters: Array


@dataclass(frozen=True)
class Factors:
    """What makes scores of estimates: float32 (n_blocks, 32) each, see :mod:`gingham.codecs.fast_scan_kernels`."""

    add: Array
    mul: Array
    error: Array


@dataclass(frozen=True)
class NibbleBlocks:
    """The layout of blocks of :mod:`gingham.codecs.fast_scan_kernels`.

    Attributes
    ----------
    count : codes of a row
    """

    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_CODES:
            raise InvalidArgument(f"4-bit codes expect 1 to {MOST_CODES} codes in a row, found {self.count}")

    @cached_property
    def pairs(self) -> int:
        """Pairs of codes, the last one padded."""
        return (self.count + 1) // 2

    def empty(self, n: int) -> Array:
        """Blocks of n rows without their codes: uint8 (n_blocks, pairs, 32)."""
        return np.zeros((-(-n // BLOCK_ROWS), self.pairs, BLOCK_ROWS), np.uint8)

    def queries(self, n: int) -> BlockQueries:
        """Room for the tables of n queries."""
        return BlockQueries(np.empty((n, 2 * self.pairs, 16), np.uint8), np.zeros((n, 5), np.float32))

    def pack(self, values: Array) -> Array:
        """Blocks of codes uint8 (n, count), all below 16."""
        from gingham.codecs import fast_scan_kernels

        blocks = self.empty(len(values))
        fast_scan_kernels.pack_rows(values, 0, blocks)
        return blocks

    def unpack(self, blocks: Array, start: int, stop: int) -> Array:
        """The codes of rows start to stop: uint8 (stop - start, count)."""
        from gingham.codecs import fast_scan_kernels

        values = np.empty((stop - start, self.count), np.uint8)
        fast_scan_kernels.unpack_rows(blocks.ctypes.data, self.pairs, start, values)
        return values

    def join(self, parts: Sequence[tuple[int, Array]]) -> Array:
        """Blocks of all rows of parts, given as rows and blocks."""
        from gingham.codecs import fast_scan_kernels

        if all(n % BLOCK_ROWS == 0 for n, _ in parts[:-1]):
            return np.concatenate([blocks for _, blocks in parts])
        joined, at = self.empty(sum(n for n, _ in parts)), 0
        for n, blocks in parts:
            for start in range(0, n, REPACK_ROWS):
                stop = min(start + REPACK_ROWS, n)
                fast_scan_kernels.pack_rows(self.unpack(blocks, start, stop), at + start, joined)
            at += n
        return joined

    def scan(
        self, prepared: BlockQueries, blocks: Array, start: int, stop: int, allow: int, scores: Array, rows: Array,
        *, factors: Factors | None = None,
    ) -> None:  # fmt: skip
        """Offer rows to heaps: see :meth:`gingham.codecs.protocol.Codec.scan`."""
        from gingham.codecs import fast_scan_kernels

        fast_scan_kernels.scan_blocks(
            blocks.ctypes.data, self.pairs, prepared.tables.ctypes.data, prepared.parameters.ctypes.data,
            *_addresses(factors), start, stop, allow, scores, rows,
        )  # fmt: skip

    def scan_spans(self, prepared: BlockQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows: see :meth:`gingham.codecs.protocol.SpanCodec.scan_spans`.

        Parameters
        ----------
        codes : "blocks", and "add", "mul" and "error" where there are factors
        """
        from gingham.codecs import fast_scan_kernels

        at = codes.addresses
        fast_scan_kernels.scan_block_spans(
            at["blocks"], self.pairs, prepared.tables, prepared.parameters, at.get("add", 0), at.get("mul", 0),
            at.get("error", 0), spans, allow, *found.lines,
        )  # fmt: skip

    def score(
        self, prepared: BlockQueries, blocks: Array, rows: Array, out: Array, *, factors: Factors | None = None
    ) -> None:
        """Score listed rows: see :meth:`gingham.codecs.protocol.Codec.score`."""
        from gingham.codecs import fast_scan_kernels

        fast_scan_kernels.score_blocks(
            blocks.ctypes.data, self.pairs, prepared.tables.ctypes.data, prepared.parameters.ctypes.data,
            *_addresses(factors), rows, out,
        )  # fmt: skip


def take(codes: Codes, rows: Array) -> Codes:
    """The codes of some rows of any codec, in their order.

    Parameters
    ----------
    codes : of whole blocks, so that arrays over rows and over blocks can be told apart
    rows : int64 (m,)
    """
    from gingham.codecs import fast_scan_kernels

    taken: dict[str, Array] = {}
    for name, array in codes.arrays.items():
        if len(array) == codes.n:
            taken[name] = array[rows]
        elif array.ndim == 2:
            taken[name] = in_blocks(array.reshape(-1)[rows])
        else:
            taken[name] = np.zeros((-(-len(rows) // BLOCK_ROWS), *array.shape[1:]), np.uint8)
            fast_scan_kernels.copy_rows(array.ctypes.data, array.shape[1], rows, taken[name])
    return Codes(len(rows), taken)


def block_queries(prepared: Any) -> BlockQueries | None:
    """The tables of queries that a codec of blocks has prepared; None of another codec's."""
    found = getattr(prepared, "blocks", prepared)
    return found if isinstance(found, BlockQueries) else None


def in_blocks(values: Array) -> Array:
    """One float32 a row, in blocks: (n,) to (n_blocks, 32), padded with zeros."""
    padded = np.zeros(-(-len(values) // BLOCK_ROWS) * BLOCK_ROWS, np.float32)
    padded[: len(values)] = values
    return padded.reshape(-1, BLOCK_ROWS)


def block_addresses(codes: Codes) -> Array:
    """Where codes, add, mul and error begin, uint64 (4,); 0 for what is not there."""
    at = codes.addresses
    return np.array([at.get(name, 0) for name in ("blocks", "add", "mul", "error")], np.uint64)


def _addresses(factors: Factors | None) -> tuple[int, int, int]:
    if factors is None:
        return 0, 0, 0
    return factors.add.ctypes.data, factors.mul.ctypes.data, factors.error.ctypes.data
