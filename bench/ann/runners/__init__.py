"""Contestants: one class a library, behind one protocol, with M = 16 and efConstruction = 200 where they have them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

M = 16
"""Links of a row above the base layer, and half of those in it."""
EF_CONSTRUCTION = 200


class Runner(Protocol):
    """An index of one library, made as ``Runner(dim, metric, **options)``, that keeps to one thread."""

    def build(self, rows: np.ndarray) -> None:
        """Index float32 rows (n, dim); cosine rows have length 1. This is what is timed as the build."""
        ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def prepared(self, queries: np.ndarray) -> np.ndarray:
        """Queries as the library takes them; not timed."""
        ...

    def search(self, queries: np.ndarray, k: int, effort: int, allow: np.ndarray | None = None) -> np.ndarray:
        """Row numbers (n_queries, k) found with a list of ``effort`` candidates among the rows of the mask, -1 pads."""
        ...

    def start(self, capacity: int) -> None:
        """Make an empty index that rows are added to and removed from, at most so many at a time."""
        ...

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        """Index rows under numbers, which searches then return."""
        ...

    def remove(self, numbers: np.ndarray) -> None: ...

    def about(self) -> dict[str, Any]:
        """Settings, and the instructions that the library says it uses."""
        ...


@dataclass(frozen=True)
class Contestant:
    """A name for results, the module of the runner, what its ``Runner`` takes, and the package whose version counts."""

    name: str
    module: str
    package: str
    options: dict[str, Any] = field(default_factory=dict)
    filters: bool = False
    changes: bool = False

    @property
    def ours(self) -> bool:
        return self.module == "gingham"

    def runner(self, dim: int, metric: str) -> Runner:
        made: Runner = importlib.import_module(f"runners.{self.module}").Runner(dim, metric, **self.options)
        return made

    def sources(self) -> str:
        """What a saved index depends on beside the settings: the version, and of ours the code."""
        found: str = importlib.import_module(f"runners.{self.module}").version()
        return found


CONTESTANTS = {
    entry.name: entry
    for entry in (
        Contestant("gingham-lvq4x8", "gingham", "gingham", {"codec": "LVQ4x8"}, filters=True, changes=True),
        Contestant("gingham-lvq8", "gingham", "gingham", {"codec": "LVQ8"}, filters=True, changes=True),
        Contestant("gingham-f32", "gingham", "gingham", {"codec": "F32"}, filters=True),
        Contestant("gingham-scan", "gingham", "gingham", {"codec": "LVQ8", "kind": "Flat"}, filters=True),
        Contestant("hnswlib", "hnswlib", "hnswlib", filters=True, changes=True),
        Contestant("faiss-flat", "faiss", "faiss-cpu", filters=True),
        Contestant("faiss-sq8", "faiss", "faiss-cpu", {"quantizer": "SQ8"}, filters=True),
        Contestant("usearch-f32", "usearch", "usearch", {"dtype": "f32"}, changes=True),
        Contestant("usearch-f16", "usearch", "usearch", {"dtype": "f16"}),
        Contestant("usearch-i8", "usearch", "usearch", {"dtype": "i8"}),
        Contestant("svs-f32", "svs", "scalable-vs"),
        Contestant("svs-lvq4x8", "svs", "scalable-vs", {"lvq": (4, 8)}),
    )
}
DEFAULT = [name for name in CONTESTANTS if name not in ("gingham-f32", "gingham-scan")]
