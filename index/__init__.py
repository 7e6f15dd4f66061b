"""Indexes: vectors in, (scores, rows) out; a greater score is better for every metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gingham.index.faiss_export import to_faiss as to_faiss
    from gingham.index.faiss_import import from_faiss as from_faiss
    from gingham.index.files import load as load
    from gingham.index.flat import Flat as Flat
    from gingham.index.flat import FlatStats as FlatStats
    from gingham.index.hnsw import HNSW as HNSW
    from gingham.index.hnsw import HNSWStats as HNSWStats
    from gingham.index.ivf import IVF as IVF
    from gingham.index.ivf import IVFStats as IVFStats
    from gingham.index.late_interaction import LateInteraction as LateInteraction
    from gingham.index.late_interaction import LateInteractionStats as LateInteractionStats

_PLACES = {
    "Flat": "flat", "FlatStats": "flat", "HNSW": "hnsw", "HNSWStats": "hnsw", "IVF": "ivf", "IVFStats": "ivf",
    "LateInteraction": "late_interaction", "LateInteractionStats": "late_interaction", "load": "files",
    "from_faiss": "faiss_import", "to_faiss": "faiss_export",
}  # fmt: skip
__all__ = [
    "HNSW",
    "IVF",
    "Flat",
    "FlatStats",
    "HNSWStats",
    "IVFStats",
    "LateInteraction",
    "LateInteractionStats",
    "from_faiss",
    "load",
    "to_faiss",
]


def __getattr__(name: str) -> object:
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
