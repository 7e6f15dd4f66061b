"""Gingham: the graph index, or the flat one as a floor."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

import gingham as gg
from runners import M


def version() -> str:
    """The release, and a digest of the code that writes indexes."""
    root = Path(gg.__file__).parent
    code = hashlib.sha256()
    for path in sorted([*(root / "index").glob("*.py"), *(root / "codecs").glob("*.py")]):
        code.update(path.read_bytes())
    return f"{importlib.metadata.version('gingham')}+{code.hexdigest()[:8]}"


class Runner:
    def __init__(self, dim: int, metric: str, *, codec: str, kind: str = "HNSW") -> None:
        gg.set_threads(1)
        gg.warmup()
        self._options = {"kind": kind, "codec": codec} | ({"m": M} if kind == "HNSW" else {})
        made: Any = getattr(gg.index, kind)
        self._graph = kind == "HNSW"
        self._numbers: np.ndarray | None = None
        self._index = made(dim, metric=metric, codec=codec, **({"m": M} if self._graph else {}))

    def build(self, rows: np.ndarray) -> None:
        self._index.add(rows)

    def save(self, folder: Path) -> None:
        self._index.save(folder / "index")

    def load(self, folder: Path) -> None:
        self._index = gg.index.load(folder / "index")

    def prepared(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def search(self, queries: np.ndarray, k: int, effort: int, allow: np.ndarray | None = None) -> np.ndarray:
        given = {"ef_search": effort} if self._graph else {}
        if allow is not None:
            given["allow"] = allow
        found: np.ndarray = self._index.search(queries, k, **given)[1]
        return found if self._numbers is None else np.where(found < 0, -1, self._numbers[found])

    def start(self, capacity: int) -> None:
        # Rows that are gone keep their place, so the index grows by all that come.
        self._numbers = np.empty(0, np.int64)

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        self._index.add(rows)
        self._numbers = np.concatenate([self._numbers, numbers])

    def remove(self, numbers: np.ndarray) -> None:
        self._index.delete(np.flatnonzero(np.isin(self._numbers, numbers)))

    def about(self) -> dict[str, Any]:
        stats: Any = self._index.stats()
        return {
            **self._options,
            **(dataclasses.asdict(stats) if dataclasses.is_dataclass(stats) else {}),
            "simd": "AVX2",
        }
