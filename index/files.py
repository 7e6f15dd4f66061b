"""Opening the file of any bare index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gingham.errors import FormatTooNew, InvalidArgument
from gingham.index.container import load_arrays
from gingham.index.flat import Flat
from gingham.index.hnsw import HNSW
from gingham.index.ivf import IVF
from gingham.index.late_interaction import LateInteraction

if TYPE_CHECKING:
    import os

_ON_DEVICES: dict[str, type[Flat | HNSW | LateInteraction]] = {
    "Flat": Flat, "HNSW": HNSW, "LateInteraction": LateInteraction,
}  # fmt: skip


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Flat | HNSW | IVF | LateInteraction:
    """Map an index that ``save`` wrote, after checking its checksums.

    Parameters
    ----------
    device : of :class:`gingham.index.Flat`, :class:`gingham.index.HNSW` or :class:`gingham.index.LateInteraction`

    Raises
    ------
    InvalidArgument : a device for an index that is searched on the CPU only
    NotFound : there is no such file
    Corrupt, ChecksumMismatch, FormatTooNew : it cannot be read
    """
    about, arrays = load_arrays(path)
    named = about["kind"]
    if named in _ON_DEVICES:
        return _ON_DEVICES[named]._loaded(about, arrays, device)
    if named != "IVF":
        known = [*_ON_DEVICES, "IVF"]
        raise FormatTooNew(f"load(path) expects an index of {known}, found {named!r} in {path}")
    if device != "cpu":
        raise InvalidArgument(f"load(device=) expects one of {[*_ON_DEVICES]}, found {named}, which the CPU searches")
    return IVF._loaded(about, arrays)
