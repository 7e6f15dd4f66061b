"""Product and sign codes on an NVIDIA device, as what finds candidates in a search of two stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs import cuda_searches
from gingham.codecs.binary import OVERREAD, Binary
from gingham.codecs.cuda_rows import check_room, told_of_memory
from gingham.codecs.pipeline import Pipeline
from gingham.codecs.tables import TableCodec
from gingham.index.two_stage import search_codes

if TYPE_CHECKING:
    from gingham.codecs.binary import SignQueries
    from gingham.codecs.devices import Device
    from gingham.codecs.protocol import Codec, Codes
    from gingham.codecs.tables import TableQueries, TableRows
    from gingham.index.two_stage import Scanner

    Array = np.ndarray[Any, Any]

QUERIES = 1024
"""Queries that a device scans at once."""
TABLE_BYTES = 128 << 20
"""Tables of so many bytes, at most, are made for queries that are scanned at once."""
COLUMN_CODECS = ("PQ x8", "RQ", "Binary", "ITQ")
"""Whose rows a device scans as columns; PQ of 12 and 16 bits, with lengths, or in blocks is left to the CPU."""


def scans_columns(codec: Codec) -> bool:
    """Whether a device scans the codes of a codec as columns: PQ and RQ of 8 bits, and signs."""
    inner = _inner(codec)
    if isinstance(inner, TableCodec):
        return inner.layout.bits == 8 and not inner.layout.scaled
    return isinstance(inner, Binary)


@dataclass(frozen=True, eq=False)
class Columns:
    """Codes on a device.

    Attributes
    ----------
    array : of the device, as :mod:`gingham.codecs.cuda_searches` makes it
    nbytes : of it
    """

    array: Any
    nbytes: int

    @classmethod
    def of(cls, codes: Codes, device: Device, budget: int | None = None) -> Columns:
        """Copy codes of a codec that :func:`scans_columns` takes; raises ResourceExhausted."""
        rows, needed = _rows(codes), column_bytes(codes)
        check_room(needed, device, budget)
        with device.active(), told_of_memory(device):
            make = cuda_searches.sign_columns if rows.dtype == np.uint64 else cuda_searches.code_columns
            return cls(make(rows), needed)


def column_bytes(codes: Codes) -> int:
    """Bytes of columns on a device."""
    return cuda_searches.column_bytes(_rows(codes))


def column_scanner(codec: Codec, codes: Codes, columns: Columns, device: Device) -> Scanner:
    """What scans columns of the codes."""
    kind: Any = _SignScanner if isinstance(_inner(codec), Binary) else _TableScanner
    scanner: Scanner = kind(codec, codes, columns.array, device)
    return scanner


@dataclass(frozen=True, eq=False)
class _TableScanner:
    """Of rows scored by tables, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: Codec
    codes: Codes
    columns: Any
    device: Device
    exact: bool = True

    @property
    def most(self) -> int:
        return cuda_searches.KEYS // 4

    @property
    def queries(self) -> int:
        return max(1, min(QUERIES, TABLE_BYTES // (1024 * self._layout.m)))

    @property
    def _layout(self) -> TableRows:
        inner = _inner(self.codec)
        assert isinstance(inner, TableCodec)
        return inner.layout

    def scan(
        self, queries: Array, prepared: TableQueries, floors: Array, k: int, allow: Array | None
    ) -> tuple[Array, Array]:
        n, (groups, m, entries, lanes) = len(queries), prepared.tables.shape
        tables = np.zeros((n, m, 256), np.float32)
        tables[:, :, :entries] = np.moveaxis(prepared.tables, 3, 1).reshape(groups * lanes, m, entries)[:n]
        scales = np.stack([np.ones(n, np.float32), prepared.biases[:n]], axis=1)
        deadline.check()
        with self.device.active(), told_of_memory(self.device):
            scores, rows = cuda_searches.best_by_tables(
                self.columns, self.codes.n, tables, scales, k, header=int(self._layout.header), allow=allow
            )
        return _above(floors, scores, rows)


@dataclass(frozen=True, eq=False)
class _SignScanner:
    """Of sign codes, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: Codec
    codes: Codes
    columns: Any
    device: Device
    queries: int = QUERIES
    exact: bool = True

    @property
    def most(self) -> int:
        return cuda_searches.KEYS // 2

    def scan(
        self, queries: Array, prepared: SignQueries, floors: Array, k: int, allow: Array | None
    ) -> tuple[Array, Array]:
        words = prepared.words[:-OVERREAD].reshape(len(queries), -1)
        deadline.check()
        with self.device.active(), told_of_memory(self.device):
            apart, rows = cuda_searches.nearest_signs(self.columns, words, k, allow=allow)
        scores = np.take_along_axis(prepared.levels, np.maximum(apart, 0).astype(np.int64), axis=1)
        # Where other numbers of bits have one score, the order is that of rows, which the device does not know.
        for i in np.flatnonzero(~(np.diff(prepared.levels, axis=1) < 0).all(axis=1)):
            scores[i : i + 1], rows[i : i + 1] = search_codes(
                self.codec, self.codes, queries[i : i + 1], k, allow=allow
            )
        return _above(floors, scores, rows)


def _inner(codec: Codec) -> Codec:
    return codec.codec if isinstance(codec, Pipeline) else codec


def _rows(codes: Codes) -> Array:
    arrays = codes.arrays
    return arrays["signs"] if "signs" in arrays else arrays["rows"]


def _above(floors: Array, scores: Array, rows: Array) -> tuple[Array, Array]:
    """What scores above the floors; (floor, -1) else."""
    there = (rows >= 0) & (scores > floors[:, None])
    return np.where(there, scores, floors[:, None]), np.where(there, rows, -1)
