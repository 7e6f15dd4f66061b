"""hnswlib; its wheel is compiled on this machine, for all of the machine's instructions."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

import hnswlib
import numpy as np

from runners import EF_CONSTRUCTION, M

if TYPE_CHECKING:
    from pathlib import Path


def version() -> str:
    return importlib.metadata.version("hnswlib")


class Runner:
    def __init__(self, dim: int, metric: str) -> None:
        # Rows and queries of length 1 spare the work of the space "cosine".
        self._space = "l2" if metric == "l2" else "ip"
        self._index = hnswlib.Index(self._space, dim)
        self._index.set_num_threads(1)

    def build(self, rows: np.ndarray) -> None:
        self._index.init_index(len(rows), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100)
        self._index.add_items(rows, num_threads=1)

    def save(self, folder: Path) -> None:
        self._index.save_index(str(folder / "index"))

    def load(self, folder: Path) -> None:
        self._index.load_index(str(folder / "index"))
        self._index.set_num_threads(1)

    def prepared(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int, effort: int, allow: np.ndarray | None = None) -> np.ndarray:
        self._index.set_ef(effort)
        if allow is None:
            return self._index.knn_query(queries, k, num_threads=1)[0]
        allowed, found = allow.tolist(), np.full((len(queries), k), -1)
        for i in range(len(queries)):
            # It raises where it finds fewer than k rows.
            with contextlib.suppress(RuntimeError):
                found[i] = self._index.knn_query(queries[i], k, num_threads=1, filter=allowed.__getitem__)[0]
        return found

    def start(self, capacity: int) -> None:
        self._index.init_index(
            capacity, M=M, ef_construction=EF_CONSTRUCTION, random_seed=100, allow_replace_deleted=True
        )

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        self._index.add_items(rows, numbers, num_threads=1, replace_deleted=True)

    def remove(self, numbers: np.ndarray) -> None:
        for number in numbers.tolist():
            self._index.mark_deleted(number)

    def about(self) -> dict[str, Any]:
        return {"space": self._space, "M": M, "ef_construction": EF_CONSTRUCTION, "simd": "native"}
