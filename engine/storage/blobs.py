"""Blobs: large immutable values, written once, read from the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xxhash

from gingham.errors import ChecksumMismatch, Corrupt
from gingham.storage.catalog import BlobRef
from gingham.storage.records import PIECE_BYTES, blob_key, piece_checks

if TYPE_CHECKING:
    from gingham.storage.environment import Environment

SMALL_BYTES = 4096
"""Shorter values lie anywhere in a page, so they are copied; longer ones start 16 bytes into one."""
MAX_BLOB_BYTES = (1 << 30) - (1 << 20)
MAX_SEGMENT_ROWS = 4_000_000
"""Segments have so few rows that no column is larger than a blob may be."""


class BlobSink(Protocol):
    """Takes the bytes of one blob and tells how it will be named."""

    def put(self, data: Any) -> BlobRef:
        """Accept a bytes-like object."""
        ...


class PendingBlobs:
    """Keeps blobs in memory until a transaction gives them keys; their keys are relative until then."""

    def __init__(self) -> None:
        self.data: list[memoryview] = []
        self.nbytes = 0

    def put(self, data: Any) -> BlobRef:
        """Accept a bytes-like object."""
        view = memoryview(data).cast("B")
        self.data.append(view)
        self.nbytes += len(view)
        return BlobRef(len(self.data) - 1, len(view), piece_checks(view))


def rebased(ref: BlobRef, base: int) -> BlobRef:
    """The blob with its key moved by ``base``."""
    return BlobRef(ref.key + base, ref.length, ref.checks)


def read_blob(env: Environment, txn: Any, ref: BlobRef, *, check: bool = True) -> memoryview:
    """View of a blob on the map, or a copy of a small one.

    Raises
    ------
    Corrupt : the blob is missing or has another length
    ChecksumMismatch : ``check`` is set and a piece does not have its checksum
    """
    value = txn.get(blob_key(ref.key), db=env.table("blobs"))
    if value is None or len(value) != ref.length:
        found = "nothing" if value is None else f"{len(value)} bytes"
        raise Corrupt(f"blob {ref.key} expects {ref.length} bytes, found {found}; run verify()")
    view = memoryview(value)
    if check:
        check_pieces(env, ref, view, 0, ref.length)
    return memoryview(bytes(view)) if ref.length < SMALL_BYTES else view


def check_pieces(env: Environment, ref: BlobRef, view: memoryview, start: int, stop: int) -> None:
    """Compare the pieces that cover bytes ``start`` to ``stop`` with their checksums, each once per process.

    Notes
    -----
    What was checked is kept under the whole reference: the number alone may name other bytes after an aborted write.
    """
    done = env.checked.setdefault(ref, bytearray(len(ref.checks) // 8))
    for piece in range(start // PIECE_BYTES, -(-stop // PIECE_BYTES)):
        if not done[piece]:
            if not piece_intact(ref, view, piece):
                raise ChecksumMismatch(
                    f"blob {ref.key} does not have its checksum at bytes {piece * PIECE_BYTES} to "
                    f"{min((piece + 1) * PIECE_BYTES, ref.length)}; run verify() or restore a backup"
                )
            done[piece] = 1


def piece_intact(ref: BlobRef, view: memoryview, piece: int) -> bool:
    """Whether one piece of a blob has its checksum."""
    stored = int.from_bytes(ref.checks[8 * piece : 8 * piece + 8], "little")
    return xxhash.xxh3_64_intdigest(view[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]) == stored


def array_of(view: memoryview, dtype: str) -> np.ndarray[Any, Any]:
    """Array on the bytes of a blob."""
    return np.frombuffer(view, dtype)
