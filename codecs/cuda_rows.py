"""Rows of codes on an NVIDIA device, scanned there for many queries at once."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.cuda_staging import Staging
from gingham.codecs.row_scores import PACKED
from gingham.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from gingham.codecs.devices import Device
    from gingham.codecs.row_scores import RowScores

    Array = np.ndarray[Any, Any]

CAPACITY = 4096
"""Candidates of a query that there is room for: 32 KiB, which one block sorts in shared memory."""
SORTERS = 512
"""Threads of the block that sorts them."""
TOGETHER = (1, 4, 16)
"""Queries that a block may score together: with 16 their sums for two rows fill the registers."""
GROWTH = 32
"""A pass reads at most so many times the rows before it, of which each brings about k candidates in random order."""
SPARE_BYTES = 256 << 20
"""Of the device's memory left to others and to the candidates."""
LEAST_TILE = 4096
"""Rows below which tiles are not made smaller."""


class CudaRows:
    """Coded rows in a device's memory.

    Parameters
    ----------
    rows : of a codec, with any queries
    n : rows
    device : that holds them
    capacity, sorters : room for the candidates of a query, a power of two, and threads that sort them
    budget : bytes that the rows may take; None takes what is free
    filled : whether the rows are copied now, not by :meth:`fill`

    Attributes
    ----------
    nbytes : that the rows take

    Raises
    ------
    ResourceExhausted : the rows do not fit the device or the budget

    Notes
    -----
    Scans run in a stream of their own, so that rows can be copied to others meanwhile.
    """

    def __init__(
        self,
        rows: RowScores,
        n: int,
        device: Device,
        *,
        capacity: int = CAPACITY,
        sorters: int = SORTERS,
        budget: int | None = None,
        filled: bool = True,
    ) -> None:
        kernels = _kernels()
        self._kind, self._factors, self._bits = rows.kind, rows.factors, rows.bits
        self._capacity, self._sorters, self._n, self._device = capacity, sorters, n, device
        self._busy = Lock()
        self._scratch: tuple[Any, ...] | None = None
        self.nbytes = device_bytes(rows, n)
        check_room(self.nbytes, device, budget)
        with device.active(), told_of_memory(device):
            self._words = kernels.cuda.device_array((-(-rows.stride // 4), _padded(n)), np.int32)
            if _padded(n) > n:
                self._words[:, n:] = 0
            kernels.cuda.synchronize()
            self._stream = kernels.cuda.stream()
        if filled:
            self.fill(rows, n)

    def fill(self, rows: RowScores, n: int, staging: Staging | None = None) -> None:
        """Copy rows over those that are there, as many at most, through buffers that are given or made and freed."""
        with self._device.active(), told_of_memory(self._device):
            staging = staging_of(rows, n) if staging is None else staging
            staging.send_columns(n, lambda first, last, out: _read_words(rows, first, last, out), self._words)
            self._n = n

    @property
    def most(self) -> int:
        """Rows per query that a scan can find: as many again, and a block of rows, may come before they are sorted."""
        return _most(self._capacity)

    def __len__(self) -> int:
        return self._n

    @property
    def exact(self) -> bool:
        """Whether scores have the bits of those of the CPU, which those of floats have not."""
        return self._kind == PACKED

    def scan(self, rows: RowScores, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        """The k best rows of each query.

        Parameters
        ----------
        rows : with the queries
        floors : float32 (n_queries,), rows must score above
        k : from 1 to half the capacity
        allow : bool (n,), or None for all

        Returns
        -------
        tuple : scores float32 (n_queries, k), best first, ties by ascending row, and rows int64; (floor, -1) pads

        Notes
        -----
        Rows are read in passes, after each of which the k-th best candidate is the bar for those to come. A pass with
        more candidates than there is room for is found out in the end, and then all is read again in passes that
        are short enough whatever the order of the rows.
        """
        with self._busy:
            return self.finish(self.begin(rows, floors, k, allow))

    def begin(self, rows: RowScores, floors: Array, k: int, allow: Array | None) -> tuple[Any, ...]:
        """As :meth:`scan`, but return while the device works; no two scans of one object may overlap.

        Returns
        -------
        tuple : for :meth:`finish`
        """
        with self._device.active(), told_of_memory(self._device):
            self._launch_passes(rows, floors, k, allow, GROWTH)
        return rows, floors, k, allow

    def finish(self, begun: tuple[Any, ...]) -> tuple[Array, Array]:
        """What a scan has found."""
        rows, floors, k, allow = begun
        with self._device.active(), told_of_memory(self._device):
            counts, best = self._fetched(len(floors), k)
            if counts[-1]:
                self._launch_passes(rows, floors, k, allow, 0)
                counts, best = self._fetched(len(floors), k)
                assert not counts[-1]
            return _unpacked(best, counts[:-1], floors)

    def _launch_passes(self, rows: RowScores, floors: Array, k: int, allow: Array | None, growth: int) -> None:
        """One round of passes; the last count is set if there were too many candidates in one."""
        kernels, n_queries, stream = _kernels(), len(floors), self._stream
        together = next((size for size in TOGETHER if size >= n_queries), TOGETHER[-1])
        scan = _scan_kernel(self._kind, self._factors, self._bits, together)
        keep_best = _keep_best_kernel(self._capacity, self._sorters)
        bars, counts, keys, best = self._room(n_queries, k)
        counts.copy_to_device(np.zeros(n_queries + 1, np.int32), stream=stream)
        bars.copy_to_device(_floor_keys(floors), stream=stream)
        queries, parameters, mask = (
            kernels.cuda.to_device(array, stream=stream)
            for array in (
                _query_words(rows), np.ascontiguousarray(rows.parameters),
                np.empty(0, np.uint8) if allow is None else allow.view(np.uint8),
            )
        )  # fmt: skip
        # A pass begins at a whole block of rows, and the least one must hold a block.
        least = max(kernels.ROWS, (self._capacity - k) // kernels.ROWS * kernels.ROWS)
        growth, first = min(growth, (self._capacity - k) // (2 * k)), 0
        while first < self._n:
            deadline.check()
            last = min(self._n, first + max(least, first * growth // kernels.ROWS * kernels.ROWS))
            grid = -(-(last - first) // kernels.ROWS), -(-n_queries // together)
            scan[grid, kernels.THREADS, stream](
                self._words, first, last, queries, parameters, mask, bars, counts, keys
            )  # fmt: skip
            keep_best[n_queries, self._sorters, stream](bars, counts, keys, best)
            first = last

    def _fetched(self, n_queries: int, k: int) -> tuple[Array, Array]:
        """Counts and best candidates, once the stream has come to its end."""
        _, counts, _, best = self._room(n_queries, k)
        self._stream.synchronize()
        return counts.copy_to_host(), best.copy_to_host()

    def _room(self, n_queries: int, k: int) -> tuple[Any, ...]:
        """Bars, counts, candidates and the best of them, kept for the next scan of as many queries."""
        if self._scratch is None or self._scratch[3].shape != (n_queries, k):
            empty = _kernels().cuda.device_array
            self._scratch = (
                empty(n_queries, np.uint64), empty(n_queries + 1, np.int32),
                empty((n_queries, self._capacity), np.uint64), empty((n_queries, k), np.uint64),
            )  # fmt: skip
        return self._scratch


class DeviceTiles:
    """Rows on a device: all of them where they fit, else copied tile by tile for each scan.

    Parameters
    ----------
    rows, n, device, capacity, sorters, budget : as of :class:`CudaRows`
    least : rows of the smallest tile

    Attributes
    ----------
    nbytes : that stay on the device between scans, 0 where rows are copied for each

    Raises
    ------
    ResourceExhausted : not even the smallest tile fits

    Notes
    -----
    Two tiles take turns: one is copied while the other is scanned; of the smallest that fit, there may be one only.
    Memory that runs out, at a copy or in a scan, halves the tiles, and what is left to scan goes on with these.
    """

    def __init__(
        self,
        rows: RowScores,
        n: int,
        device: Device,
        *,
        capacity: int = CAPACITY,
        sorters: int = SORTERS,
        budget: int | None = None,
        least: int = LEAST_TILE,
    ) -> None:
        self._n, self._device, self._kind = n, device, rows.kind
        self._capacity, self._sorters, self._budget, self._least = capacity, sorters, budget, least
        self._tile = n
        self._busy = Lock()
        self._whole: CudaRows | None = None
        try:
            self._whole = self._copied(rows, n)
        except ResourceExhausted as error:
            self._halve(error)
        if self._whole is None:
            self._pair(rows)

    @property
    def nbytes(self) -> int:
        """Of rows that stay."""
        whole = self._whole
        return 0 if whole is None else whole.nbytes

    @property
    def most(self) -> int:
        """Rows per query that a scan can find."""
        return _most(self._capacity)

    @property
    def exact(self) -> bool:
        """Whether scores have the bits of those of the CPU."""
        return self._kind == PACKED

    def scan(self, rows: RowScores, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        """As :meth:`CudaRows.scan`; ``rows`` are read again where they do not stay on the device."""
        with self._busy:
            if self._whole is not None:
                try:
                    return self._whole.scan(rows, floors, k, allow)
                except ResourceExhausted as error:
                    self._halve(error)
                self._whole = None
            best = _Best(floors, k)
            while best.scanned < self._n:
                try:
                    self._scan_tiles(rows, allow, best)
                except ResourceExhausted as error:
                    self._halve(error)
            return best.padded()

    def _scan_tiles(self, rows: RowScores, allow: Array | None, best: _Best) -> None:
        """Scan from the row where it ended before."""
        tiles, staging = self._pair(rows, best.scanned)
        tiles[0].fill(_from(rows, best.scanned), min(self._tile, self._n - best.scanned), staging)
        while True:
            tile, start = tiles[0], best.scanned
            stop = start + len(tile)
            some = None if allow is None else np.ascontiguousarray(allow[start:stop])
            begun, left = tile.begin(rows, best.bars(), best.k, some), min(self._tile, self._n - stop)
            if left and len(tiles) > 1:
                tiles[1].fill(_from(rows, stop), left, staging)
            best.add(*tile.finish(begun), stop)
            if not left:
                return
            if len(tiles) == 1:
                tile.fill(_from(rows, stop), left, staging)
            tiles.reverse()

    def _pair(self, rows: RowScores, start: int = 0) -> tuple[list[CudaRows], Staging]:
        """Room for two tiles, or one, of the rows from ``start`` on, and what fills them."""
        while True:
            n = min(self._tile, self._n - start)
            two = n < self._n - start
            try:
                if two:
                    check_room(2 * device_bytes(rows, n), self._device, self._budget)
                tiles = [self._copied(rows, n, filled=False) for _ in range(1 + two)]
                break
            except ResourceExhausted as error:
                smallest = self._tile <= self._least
                if not smallest:
                    self._halve(error)
            if smallest:
                tiles = [self._copied(rows, n, filled=False)]
                break
        with self._device.active(), told_of_memory(self._device):
            return tiles, staging_of(rows, n)

    def _copied(self, rows: RowScores, n: int, *, filled: bool = True) -> CudaRows:
        return CudaRows(
            rows, n, self._device, capacity=self._capacity, sorters=self._sorters, budget=self._budget, filled=filled
        )

    def _halve(self, error: ResourceExhausted) -> None:
        if self._tile <= self._least:
            raise error
        self._tile = max(self._least, -(-self._tile // 2))


class _Best:
    """The k best rows of each query in the tiles that were scanned."""

    def __init__(self, floors: Array, k: int) -> None:
        self.k, self.scanned, self._floors = k, 0, floors
        self._scores = np.full((len(floors), k), -np.inf, np.float32)
        self._rows = np.full((len(floors), k), -1, np.int64)

    def bars(self) -> Array:
        """What a row must score above: one of a later tile with the score of the k-th comes after it."""
        bars: Array = np.maximum(self._floors, self._scores[:, -1])
        return bars

    def add(self, scores: Array, rows: Array, stop: int) -> None:
        """Take what was found in the rows up to ``stop``, counted from where the last tile ended."""
        scores = np.hstack([self._scores, np.where(rows < 0, np.float32(-np.inf), scores)])
        rows = np.hstack([self._rows, np.where(rows < 0, -1, rows + self.scanned)])
        order = np.lexsort((rows, -scores), axis=1)[:, : self.k]
        self._scores, self._rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        self.scanned = stop

    def padded(self) -> tuple[Array, Array]:
        """Scores and rows; (floor, -1) pads."""
        return np.where(self._rows < 0, self._floors[:, None], self._scores), self._rows


def device_bytes(rows: RowScores, n: int) -> int:
    """Bytes that n rows take on a device."""
    return 4 * -(-rows.stride // 4) * _padded(n)


def staging_of(rows: RowScores, n: int, *, pinned: bool = True) -> Staging:
    """Buffers that n rows go through at most, of the device in use."""
    return Staging(n, -(-rows.stride // 4), np.int32, pinned=pinned)


def _padded(n: int) -> int:
    together = int(_kernels().ROWS)
    return -(-n // together) * together


def _from(rows: RowScores, start: int) -> RowScores:
    """The rows from one on."""
    return rows._replace(address=rows.address + start * rows.stride)


def _most(capacity: int) -> int:
    return min(capacity // 2, capacity - int(_kernels().ROWS))


def _read_words(rows: RowScores, start: int, stop: int, out: Array) -> None:
    """Copy rows to words of 4 bytes, the last one of each filled with zeros."""
    size = (stop - start) * rows.stride
    held: Any = (ctypes.c_uint8 * size).from_address(rows.address + start * rows.stride)
    there = out.view(np.uint8)
    there[:, : rows.stride] = np.frombuffer(held, np.uint8).reshape(stop - start, rows.stride)
    there[:, rows.stride :] = 0


def _query_words(rows: RowScores) -> Array:
    queries = np.ascontiguousarray(rows.queries)
    if queries.shape[1] % 4:
        queries = np.pad(queries, ((0, 0), (0, -queries.shape[1] % 4)))
    return queries.view(np.int32)


def _floor_keys(floors: Array) -> Array:
    """Keys above which are those of greater scores only."""
    bits = (floors + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits >= 0, bits, -1 - (bits + (1 << 31))) + (1 << 31)
    keys: Array = (ordered.astype(np.uint64) << np.uint64(32)) | np.uint64(0xFFFFFFFF)
    return keys


def _unpacked(keys: Array, counts: Array, floors: Array) -> tuple[Array, Array]:
    """Scores and rows of keys."""
    ordered = (keys >> np.uint64(32)).astype(np.int64) - (1 << 31)
    bits = np.where(ordered >= 0, ordered, -1 - ordered - (1 << 31)).astype(np.int32)
    rows = (np.uint64(0xFFFFFFFF) - (keys & np.uint64(0xFFFFFFFF))).astype(np.int64)
    missing = np.arange(keys.shape[1]) >= counts[:, None]
    scores: Array = np.where(missing, floors[:, None], bits.view(np.float32))
    return scores, np.where(missing, -1, rows)


@contextmanager
def told_of_memory(device: Device) -> Iterator[None]:
    """A context that turns the driver's error of memory, which others took meanwhile, into ours."""
    try:
        yield
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error):
            raise
        raise ResourceExhausted(
            f"device='cuda:{device.number}' expects more free memory than it has: {error}; use device='cpu'"
        ) from error


def check_room(needed: int, device: Device, budget: int | None) -> None:
    """Raise ResourceExhausted unless rows of so many bytes fit."""
    free = device.free_bytes() - SPARE_BYTES
    if budget is not None and budget < free:
        free, what = budget, "of its budget"
    else:
        what = f"free beside {SPARE_BYTES >> 20} MiB"
    if needed > free:
        raise ResourceExhausted(
            f"device='cuda:{device.number}' expects {needed / (1 << 20):.1f} MiB {what} for these rows, found "
            f"{max(free, 0) / (1 << 20):.1f}; use a codec of fewer bytes, or device='cpu'"
        )


@cache
def _scan_kernel(kind: int, factors: int, bits: int, together: int) -> Any:
    if kind != PACKED:
        return _kernels().floats_kernel(kind, factors, together)
    if bits == 8:
        return _kernels().bytes_kernel(factors, together)
    return _kernels().planes_kernel(factors, bits, together)


@cache
def _keep_best_kernel(capacity: int, sorters: int) -> Any:
    return _kernels().keep_best_kernel(capacity, sorters)


@cache
def _kernels() -> ModuleType:
    from gingham.codecs import cuda_kernels

    return cuda_kernels
