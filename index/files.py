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

_KINDS: dict[str, type[HNSW | IVF | LateInteraction]] = {"HNSW": HNSW, "IVF": IVF, "LateInteraction": LateInteraction}


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Flat | HNSW | IVF | LateInteraction:
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
    if about["kind"] == "Flat":
        return Flat._loaded(about, arrays, device)
    kind = _KINDS.get(about["kind"])
    if kind is None:
        known = ["Flat", *_KINDS]
        raise FormatTooNew(f"load(path) expects an index of {known}, found {about['kind']!r} in {path}")
    if device != "cpu":
        raise InvalidArgument(f"load(device=) expects a flat index, found {about['kind']}, which the CPU searches")
    return kind._loaded(about, arrays)
