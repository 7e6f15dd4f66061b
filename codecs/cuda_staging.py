"""Rows on their way to an NVIDIA device, through pinned memory.

The driver copies pageable memory by copying it to pinned memory of its own first, one piece after the other. Here two
pinned buffers take turns: one is filled from the rows, with the page faults of a mapped file, while the other is sent.

Roofline: sending is bound by the bus, 32 GB/s each way of 16 lanes of PCIe 4 (A100), 64 of PCIe 5 (H100): 1M rows of
384 bytes take 12 or 6 ms. Filling reads and writes each byte once on one core of the host, at some 10 GB/s, so it is
what bounds unless others fill, too; turning rows into columns reads and writes memory of the device, 2 bytes a byte at
2 or 3.35 TB/s, 0.4 or 0.2 ms. Not measured on a device yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]

BUFFER_BYTES = 16 << 20
"""Of one of the two pinned buffers."""
THREADS = 256
"""Of a block that turns rows into columns."""


class Staging:
    """Two buffers through which rows of a matrix are copied to the device in use.

    Parameters
    ----------
    n, width, dtype : rows that are to come at most, and what they are made of
    pinned : whether the buffers are; the driver copies others once more

    Notes
    -----
    The buffers take at most twice :data:`BUFFER_BYTES` of the host, unless a row is longer, and as much of the device
    where columns are made. They are freed with the object; no copy is on its way once a method has returned.
    """

    def __init__(self, n: int, width: int, dtype: Any, *, pinned: bool = True) -> None:
        from numba import cuda

        self._cuda: Any = cuda
        row_bytes = max(1, width * np.dtype(dtype).itemsize)
        self._shape = max(1, min(n, BUFFER_BYTES // row_bytes)), width
        make = self._cuda.pinned_array if pinned else np.empty
        self._here: list[Array] = [make(self._shape, dtype) for _ in range(2)]
        self._there: list[Any] = []
        self._sent = [self._cuda.event() for _ in range(2)]
        self._stream = self._cuda.stream()

    def send_rows(self, n: int, read: Callable[[int, int, Array], None], out: Any) -> None:
        """Copy rows to a matrix there.

        Parameters
        ----------
        n : rows
        read : writes rows first to last to an array of the host, (last - first, width)
        out : on the device, (at least n, width), C-contiguous
        """
        self._send(n, read, lambda turn, first, last: out[first:last], lambda first, piece: None)

    def send_columns(self, n: int, read: Callable[[int, int, Array], None], out: Any) -> None:
        """Copy rows of words to the columns of a matrix there, int32 (width, at least n)."""
        from gingham.codecs.cuda_kernels import transpose_words

        if not self._there:
            self._there = [self._cuda.device_array(self._shape, self._here[0].dtype) for _ in range(2)]

        def turn_piece(first: int, piece: Any) -> None:
            transpose_words[-(-len(piece) // THREADS), THREADS, self._stream](piece, first, out)

        self._send(n, read, lambda turn, first, last: self._there[turn][: last - first], turn_piece)

    def _send(
        self,
        n: int,
        read: Callable[[int, int, Array], None],
        place: Callable[[int, int, int], Any],
        then: Callable[[int, Any], None],
    ) -> None:
        try:
            for turn, first, last in self._pieces(n):
                here = self._here[turn][: last - first]
                read(first, last, here)
                piece = place(turn, first, last)
                piece.copy_to_device(here, stream=self._stream)
                self._sent[turn].record(self._stream)
                then(first, piece)
        finally:
            self._stream.synchronize()

    def _pieces(self, n: int) -> Iterator[tuple[int, int, int]]:
        """Buffers that may be filled, in turn, and the rows that they take."""
        step = self._shape[0]
        for number, first in enumerate(range(0, n, step)):
            deadline.check()
            if number > 1:
                self._sent[number % 2].synchronize()
            yield number % 2, first, min(first + step, n)
