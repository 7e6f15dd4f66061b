"""Training and adding to inverted lists over faiss's, and how even what queries scan is; one thread.

Vectors of 384 dimensions drawn around 2,000 centres of decaying variance, or a data set. Ours adds what measuring recall
takes; faiss trains as it does by itself.

Run: python bench/ann/list_build.py --rows 400000 --json bench/results/ann/list-build.json
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from shared import datasets, measure

import gingham as gg

DIM, NPROBE = 384, 16


def clustered(n: int) -> datasets.Dataset:
    """Rows of length one around centres whose sizes and spreads differ."""
    rng = np.random.default_rng(0)
    deviations = np.exp(-np.arange(DIM) / 100).astype(np.float32)
    centres = rng.standard_normal((2000, DIM), np.float32) * deviations
    share = rng.dirichlet(np.ones(2000))
    of = rng.choice(2000, n + 1000, p=share)
    rows = centres[of] + rng.standard_normal((n + 1000, DIM), np.float32) * deviations
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return datasets.Dataset("clustered", "cosine", rows[:n], rows[n:])


def timed(make: Any) -> tuple[Any, dict[str, float]]:
    """What is made, and its processor and wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    made = make()
    return made, {"cpu": round(time.process_time() - cpu, 1), "wall": round(time.perf_counter() - wall, 1)}


def ours(data: datasets.Dataset, nlist: int, codec: str) -> tuple[Any, dict[str, float]]:
    def make() -> gg.index.IVF:
        index = gg.index.IVF(data.rows.shape[1], metric=data.metric, codec=codec, nlist=nlist)
        index.add(data.rows)
        return index

    return timed(make)


def faisses(data: datasets.Dataset, nlist: int, factory: str) -> tuple[Any, dict[str, float]]:
    import faiss

    def make() -> Any:
        metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(data.rows.shape[1], f"IVF{nlist},{factory}", metric)
        index.train(data.rows)
        index.add(data.rows)
        return index

    return timed(make)


def scanned(index: gg.index.IVF, queries: np.ndarray) -> dict[str, float]:
    """Codes scanned for a query: median, and the 99th percentile over it."""
    state = index._state
    probes = state.coarse.probe(queries, NPROBE)  # type: ignore[union-attr]
    rows = state.lists.sizes[probes].sum(axis=1)  # type: ignore[union-attr]
    median = float(np.median(rows))
    return {"median": median, "99th over median": round(float(np.percentile(rows, 99)) / median, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=datasets.NAMES)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = clustered(options.rows) if options.data is None else datasets.load(options.data)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    import faiss

    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    dim, nlist = data.rows.shape[1], int(min(4 * np.sqrt(len(data.rows)), len(data.rows) // 32))
    figures: dict[str, Any] = {}
    for codec, factory in ((f"PQ{dim // 4}x4fs", f"PQ{dim // 4}x4fs"), ("RaBitQ1", "RaBitQfs"), ("LVQ8", "SQ8")):
        index, seconds = ours(data, nlist, codec)
        _, theirs = faisses(data, nlist, factory)
        figures[codec] = {
            "gingham": seconds, f"faiss {factory}": theirs, "cpu over faiss": round(seconds["cpu"] / theirs["cpu"], 3),
            "imbalance": round(index.stats().imbalance, 3), f"scanned at nprobe {NPROBE}": scanned(index, data.queries),
        }  # fmt: skip
    about = {
        "bench": "ann list build", "data": data.name, "rows": len(data.rows), "dim": dim, "nlist": nlist,
        "simd": os.environ.get("FAISS_SIMD_LEVEL", "as found"),
    }  # fmt: skip
    measure.report({**about, "built": figures}, options.json)


if __name__ == "__main__":
    main()
