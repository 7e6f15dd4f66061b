"""Opening the file of any bare index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gingham.errors import FormatTooNew
from gingham.index.container import load_arrays
from gingham.index.flat import Flat
from gingham.index.hnsw import HNSW

if TYPE_CHECKING:
    import os

_KINDS: dict[str, type[Flat | HNSW]] = {"Flat": Flat, "HNSW": HNSW}


def load(path: str | os.PathLike[str]) -> Flat | HNSW:
    """Map an index that ``save`` wrote, after checking its checksums.

    Raises
    ------
    NotFound : there is no such file
    Corrupt, ChecksumMismatch, FormatTooNew : it cannot be read
    """
    about, arrays = load_arrays(path)
    kind = _KINDS.get(about["kind"])
    if kind is None:
        raise FormatTooNew(f"load(path) expects an index of {sorted(_KINDS)}, found {about['kind']!r} in {path}")
    return kind._loaded(about, arrays)
