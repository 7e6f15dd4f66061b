"""Intel's SVS: Vamana over float32, and over LVQ where the library allows it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import svs

from runners import EF_CONSTRUCTION, M

if TYPE_CHECKING:
    import numpy as np

ALPHA = 1.2
"""Of the pruning, for L2, which orders rows of length 1 as cosine does; SVS's documented choice."""


def version() -> str:
    return importlib.metadata.version("scalable-vs")


class Runner:
    def __init__(self, dim: int, metric: str, *, lvq: tuple[int, int] | None = None) -> None:
        if lvq is not None and "GenuineIntel" not in Path("/proc/cpuinfo").read_text():
            raise RuntimeError("SVS ends the process: LVQ is 'not supported on non-Intel hardware'")
        self._lvq = lvq

    def build(self, rows: np.ndarray) -> None:
        chosen = svs.VamanaBuildParameters(alpha=ALPHA, graph_max_degree=2 * M, window_size=EF_CONSTRUCTION)
        self._index = svs.Vamana.build(chosen, rows, svs.DistanceType.L2, num_threads=1)

    def save(self, folder: Path) -> None:
        self._index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def load(self, folder: Path) -> None:
        rows: Any = svs.VectorDataLoader(str(folder / "data"), svs.DataType.float32)
        if self._lvq is not None:
            rows = svs.LVQLoader(rows, primary=self._lvq[0], residual=self._lvq[1])
        graph = svs.GraphLoader(str(folder / "graph"))
        self._index = svs.Vamana(str(folder / "config"), graph, rows, svs.DistanceType.L2, num_threads=1)

    def prepared(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int, effort: int, allow: np.ndarray | None = None) -> np.ndarray:
        if allow is not None:
            raise NotImplementedError("SVS has no filters")
        self._index.search_window_size = effort
        found: np.ndarray = self._index.search(queries, k)[0]
        return found.astype("int64")

    def start(self, capacity: int) -> None:
        raise NotImplementedError("Vamana is static; SVS's DynamicVamana is not measured here")

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        raise NotImplementedError

    def remove(self, numbers: np.ndarray) -> None:
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        return {
            "degree": 2 * M, "window": EF_CONSTRUCTION, "alpha": ALPHA, "lvq": self._lvq, "simd": "widest of the CPU",
        }  # fmt: skip
