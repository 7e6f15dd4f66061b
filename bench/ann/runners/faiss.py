"""Faiss: HNSW over float32 or over bytes; FAISS_SIMD_LEVEL in the environment sets its instructions."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from runners import EF_CONSTRUCTION, M

if TYPE_CHECKING:
    from pathlib import Path


def version() -> str:
    return importlib.metadata.version("faiss-cpu")


class Runner:
    def __init__(self, dim: int, metric: str, *, quantizer: str = "Flat") -> None:
        faiss.omp_set_num_threads(1)
        self._kind = f"HNSW{M},{quantizer}"
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._index = faiss.index_factory(dim, self._kind, kind)
        self._index.hnsw.efConstruction = EF_CONSTRUCTION

    def build(self, rows: np.ndarray) -> None:
        self._index.train(rows)
        self._index.add(rows)

    def save(self, folder: Path) -> None:
        faiss.write_index(self._index, str(folder / "index"))

    def load(self, folder: Path) -> None:
        self._index = faiss.read_index(str(folder / "index"))

    def prepared(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int, effort: int, allow: np.ndarray | None = None) -> np.ndarray:
        chosen = faiss.SearchParametersHNSW(efSearch=effort)
        if allow is not None:
            bits = np.packbits(allow, bitorder="little")
            chosen = faiss.SearchParametersHNSW(efSearch=effort, sel=faiss.IDSelectorBitmap(bits))
        found: np.ndarray = self._index.search(queries, k, params=chosen)[1]
        return found

    def start(self, capacity: int) -> None:
        raise NotImplementedError("faiss cannot remove rows from HNSW")

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        raise NotImplementedError

    def remove(self, numbers: np.ndarray) -> None:
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        level = faiss.SIMDConfig.get_level_name()
        return {"index": self._kind, "ef_construction": EF_CONSTRUCTION, "simd": level}
