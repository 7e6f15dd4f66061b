"""Rows of codes on an NVIDIA device, scanned there for many queries at once."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.row_scores import PACKED
from gingham.errors import ResourceExhausted

if TYPE_CHECKING:
    from types import ModuleType

    from gingham.codecs.devices import Device
    from gingham.codecs.row_scores import RowScores

    Array = np.ndarray[Any, Any]

CAPACITY = 4096
"""Candidates of a query that there is room for: 32 KiB, which one block sorts in shared memory."""
SORTERS = 512
"""Threads of the block that sorts them."""
UPLOAD_BYTES = 64 << 20
"""Rows copied at once, before they are turned into columns."""
GROWTH = 8
"""A pass reads at most so many times the rows before it, of which each brings about k candidates in random order."""
SPARE_BYTES = 256 << 20
"""Of the device's memory left to others and to the candidates."""


class CudaRows:
    """Coded rows in a device's memory.

    Parameters
    ----------
    rows : of a codec, with any queries
    n : rows
    device : that holds them
    capacity, sorters : room for the candidates of a query, a power of two, and threads that sort them

    Raises
    ------
    ResourceExhausted : the rows do not fit the device
    """

    def __init__(
        self, rows: RowScores, n: int, device: Device, *, capacity: int = CAPACITY, sorters: int = SORTERS
    ) -> None:
        kernels = _kernels()
        self._kind, self._factors, self._bits = rows.kind, rows.factors, rows.bits
        self._capacity, self._sorters, self._n, self._device = capacity, sorters, n, device
        self._keep_best = _keep_best(capacity, sorters)
        width, padded = -(-rows.stride // 4), -(-n // kernels.ROWS) * kernels.ROWS
        _check_room(4 * width * padded, device)
        with device.active():
            self._words = kernels.cuda.device_array((width, padded), np.int32)
            step = max(1, UPLOAD_BYTES // rows.stride)
            for start in range(0, n, step):
                piece = kernels.cuda.to_device(_words(rows, start, min(start + step, n)))
                kernels.transpose_words[-(-len(piece) // 256), 256](piece, start, self._words)
            kernels.cuda.synchronize()

    @property
    def most(self) -> int:
        """Rows per query that a scan can find: as many again may come before they are sorted."""
        return self._capacity // 2

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
        with self._device.active():
            found = self._passes(rows, floors, k, allow, GROWTH)
            if found is None:
                found = self._passes(rows, floors, k, allow, 0)
                assert found is not None
            return found

    def _passes(
        self, rows: RowScores, floors: Array, k: int, allow: Array | None, growth: int
    ) -> tuple[Array, Array] | None:
        """One round of passes; None if there were too many candidates in one."""
        kernels = _kernels()
        cuda = kernels.cuda
        n_queries = len(floors)
        queries = cuda.to_device(_query_words(rows))
        parameters = cuda.to_device(np.ascontiguousarray(rows.parameters))
        mask = cuda.to_device(np.empty(0, np.uint8) if allow is None else allow.view(np.uint8))
        bars = cuda.to_device(_floor_keys(floors))
        counts = cuda.to_device(np.zeros(n_queries, np.int32))
        overflowed = cuda.to_device(np.zeros(1, np.int32))
        keys = cuda.device_array((n_queries, self._capacity), np.uint64)
        blocks, first = -(-n_queries // kernels.QUERIES), 0
        # A pass begins at a whole block of rows, so the least one must hold a block.
        least = max(kernels.ROWS, (self._capacity - k) // kernels.ROWS * kernels.ROWS)
        while first < self._n:
            deadline.check()
            last = min(self._n, first + max(least, first * growth // kernels.ROWS * kernels.ROWS))
            grid = -(-(last - first) // kernels.ROWS), blocks
            ends = first, last, queries, parameters, mask, bars, counts, keys
            if self._kind != PACKED:
                kernels.scan_floats[grid, kernels.THREADS](self._words, self._kind, self._factors, *ends)
            elif self._bits == 8:
                kernels.scan_bytes[grid, kernels.THREADS](self._words, self._factors, *ends)
            else:
                kernels.scan_planes[grid, kernels.THREADS](self._words, self._factors, self._bits, *ends)
            self._keep_best[n_queries, self._sorters](k, bars, counts, keys, overflowed)
            first = last
        if overflowed.copy_to_host()[0]:
            return None
        return _unpacked(keys[:, :k].copy_to_host(), counts.copy_to_host(), floors)


def _words(rows: RowScores, start: int, stop: int) -> Array:
    """Rows as words of 4 bytes, the last one of each filled with zeros."""
    size = (stop - start) * rows.stride
    held: Any = (ctypes.c_uint8 * size).from_address(rows.address + start * rows.stride)
    piece: Array = np.frombuffer(held, np.uint8).reshape(stop - start, rows.stride)
    if rows.stride % 4:
        piece = np.pad(piece, ((0, 0), (0, -rows.stride % 4)))
    return piece.view(np.int32)


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


def _check_room(needed: int, device: Device) -> None:
    free = device.free_bytes()
    if needed + SPARE_BYTES > free:
        raise ResourceExhausted(
            f"device='cuda:{device.number}' expects {(needed + SPARE_BYTES) >> 20} MiB free for these rows, found "
            f"{free >> 20} MiB; use a codec of fewer bytes, or device='cpu'"
        )


@cache
def _keep_best(capacity: int, sorters: int) -> Any:
    return _kernels().keep_best_kernel(capacity, sorters)


@cache
def _kernels() -> ModuleType:
    from gingham.codecs import cuda_kernels

    return cuda_kernels
