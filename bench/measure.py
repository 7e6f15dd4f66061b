"""What every benchmark shares: interleaved timing, machine and versions, JSON results."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = (
    "gingham",
    "numpy",
    "numba",
    "pyarrow",
    "lmdb",
    "faiss-cpu",
    "faiss-gpu",
    "cupy-cuda12x",
    "cuvs-cu12",
    "hnswlib",
    "usearch",
    "scalable-vs",
    "lancedb",
    "chromadb",
    "psycopg",
    "grpcio",
    "sqlite-vec",
    "bm25s",
    "pystemmer",
    "numba-cuda",
    "torch",
)


def interleaved(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Best seconds of each contestant; they take turns, so that noise hits all alike."""
    best = dict.fromkeys(contestants, float("inf"))
    for run in contestants.values():
        run()
    for _ in range(repeats):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def machine() -> dict[str, Any]:
    """Processor, cores, Python and package versions."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Parser with the options all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the result here")
    return parser


def report(result: dict[str, Any], path: Path | None) -> None:
    """Print a result, and write it with the machine."""
    result = {**result, "machine": machine()}
    print(json.dumps(result, indent=2))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
