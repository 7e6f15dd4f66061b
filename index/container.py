"""One file of named arrays, mapped without copying.

Layout: 8 bytes "GINGHAMX", the length of the header as u32 little-endian, its xxh3 as u64, the header as JSON, then the
arrays, each at a multiple of 64 bytes. The header holds the format version, what the caller wants to know of the
arrays, and per array its dtype, shape, place and xxh3.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from gingham.errors import ChecksumMismatch, Corrupt, FormatTooNew, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

MAGIC = b"GINGHAMX"
VERSION = 1
ALIGNMENT = 64
_FRONT = struct.Struct("<8sIQ")


def save_arrays(path: str | os.PathLike[str], about: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a file, whole or not at all: to a temporary file beside it, synced and renamed.

    Parameters
    ----------
    path : replaced where it exists
    about : plain values
    arrays : C-contiguous
    """
    target = Path(path)
    entries, place = {}, 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "place": place,
            "xxh3": xxhash.xxh3_64_intdigest(array.data),
        }
        place += _padded(array.nbytes)
    header = json.dumps({"version": VERSION, "about": dict(about), "arrays": entries}).encode()
    front = _FRONT.pack(MAGIC, len(header), xxhash.xxh3_64_intdigest(header)) + header
    if not target.parent.is_dir():
        raise NotFound(f"save(path) expects an existing folder, found none at {os.fspath(target.parent)!r}")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(front.ljust(_padded(len(front)), b"\0"))
            for array in arrays.values():
                file.write(array.data)
                file.write(bytes(_padded(array.nbytes) - array.nbytes))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Map a file; returns what was saved about the arrays, and the arrays, read-only.

    Raises
    ------
    NotFound : there is no such file
    Corrupt : it is no such file, or cut short
    ChecksumMismatch : it is damaged
    FormatTooNew : a later version wrote it

    Notes
    -----
    Reads the file once to check it.
    """
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound(f"load() expects a saved index, found no file at {os.fspath(path)!r}") from None
    except ValueError:
        raise Corrupt(f"{os.fspath(path)!r} is empty; load() expects a file that save() wrote") from None
    view = memoryview(data)
    if len(view) < _FRONT.size or view[:8] != MAGIC:
        raise Corrupt(f"{os.fspath(path)!r} does not begin as a file that save() wrote")
    _, length, checksum = _FRONT.unpack(view[: _FRONT.size])
    text = view[_FRONT.size : _FRONT.size + length]
    if xxhash.xxh3_64_intdigest(text) != checksum:
        raise ChecksumMismatch(f"the header of {os.fspath(path)!r} is damaged; save the index again")
    header = json.loads(bytes(text))
    if header["version"] > VERSION:
        raise FormatTooNew(
            f"{os.fspath(path)!r} has format {header['version']}, this version reads up to {VERSION}; upgrade gingham"
        )
    start, arrays = _padded(_FRONT.size + length), {}
    for name, entry in header["arrays"].items():
        kind = np.dtype(entry["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        place = start + entry["place"]
        if place + count * kind.itemsize > len(view):
            raise Corrupt(f"{os.fspath(path)!r} is cut short in array {name!r}; save the index again")
        array = np.frombuffer(view, kind, count, place) if count else np.empty(0, kind)
        if xxhash.xxh3_64_intdigest(array.data) != entry["xxh3"]:
            raise ChecksumMismatch(f"array {name!r} of {os.fspath(path)!r} is damaged; save the index again")
        arrays[name] = array.reshape(entry["shape"])
    return header["about"], arrays


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
