"""Opening the file of any bare index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gingham.errors import FormatTooNew, InvalidArgument
from gingham.index.container import load_arrays
from gingham.index.flat import Flat
from gingham.index.hnsw import HNSW

if TYPE_CHECKING:
    import os

_KINDS: dict[str, type[Flat | HNSW]] = {"Flat": Flat, "HNSW": HNSW}


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Flat | HNSW:
    """Map an index that ``save`` wrote, after checking its checksums.

    Parameters
    ----------
    device : of a flat index: see :class:`gingham.index.Flat`

    Raises
    ------
    InvalidArgument : a device for an index that is searched on the CPU only
    NotFound : there is no such file
    Corrupt, ChecksumMismatch, FormatTooNew : it cannot be read
    """
    about, arrays = load_arrays(path)
    kind = _KINDS.get(about["kind"])
    if kind is None:
        raise FormatTooNew(f"load(path) expects an index of {sorted(_KINDS)}, found {about['kind']!r} in {path}")
    if kind is Flat:
        return Flat._loaded(about, arrays, device)
    if device != "cpu":
        raise InvalidArgument(f"load(device=) expects a flat index, found {about['kind']}, which the CPU searches")
    return HNSW._loaded(about, arrays)
