"""Indexes: vectors in, (scores, offsets) out; a greater score is better for every metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gingham.index.flat import Flat as Flat
    from gingham.index.flat import FlatStats as FlatStats
    from gingham.index.flat import load as load

__all__ = ["Flat", "FlatStats", "load"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from gingham.index import flat

        return getattr(flat, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
