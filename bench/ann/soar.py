"""What a second list for each row is worth: recall, codes scanned and queries a second, with one list and with two.

Both indexes have the same number of lists; times are of single queries and of 1,000 a call, in turns, one thread.

Run: python bench/ann/soar.py --data minilm --codec RaBitQ1 --json bench/results/ann/soar-minilm.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import curve
import numpy as np
from shared import datasets, measure

import gingham as gg

K, SINGLE, ROUNDS = 10, 200, 3
NPROBES = (1, 2, 4, 8, 16, 32, 64, 128)
TARGETS = (0.90, 0.95, 0.97)


def scanned(index: gg.index.IVF, queries: np.ndarray, nprobe: int) -> float:
    """Codes that a query meets, those of rows met twice included."""
    searched = index._state.searched
    probes = searched.coarse.probe(queries, nprobe)
    return float(searched.lists.sizes[probes].sum(axis=1).mean())


def points(indexes: dict[str, gg.index.IVF], data: datasets.Dataset) -> dict[str, list[dict[str, float]]]:
    """By lists probed."""
    truth = data.nearest(K)
    out: dict[str, list[dict[str, float]]] = {name: [] for name in indexes}
    for nprobe in NPROBES:
        times = {name: np.full(2, np.inf) for name in indexes}
        found: dict[str, np.ndarray] = {}
        for _ in range(ROUNDS):
            for name, index in indexes.items():
                started = time.perf_counter()
                found[name] = index.search(data.queries, K, nprobe=nprobe)[1]
                middle = time.perf_counter()
                for query in data.queries[:SINGLE]:
                    index.search(query, K, nprobe=nprobe)
                took = (middle - started) / len(data.queries), (time.perf_counter() - middle) / SINGLE
                times[name] = np.minimum(times[name], took)
        for name, index in indexes.items():
            recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found[name], strict=True)]))
            batch, single = 1 / times[name]
            codes = round(scanned(index, data.queries, nprobe))
            out[name].append(
                {"nprobe": nprobe, "recall": round(recall, 4), "scanned": codes, "batch": batch, "single": single}
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm", choices=(*datasets.NAMES, "late-tokens"))
    parser.add_argument("--codec", default="RaBitQ1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    gg.set_threads(1)
    gg.warmup()
    indexes: dict[str, gg.index.IVF] = {}
    built: dict[str, Any] = {}
    for soar in (False, True):
        name, started = "two lists" if soar else "one list", time.process_time()
        index = gg.index.IVF(data.rows.shape[1], metric=data.metric, codec=options.codec, soar=soar)
        index.add(data.rows)
        stats = index.stats()
        indexes[name] = index
        built[name] = {
            "cpu seconds": round(time.process_time() - started, 1), "nlist": stats.nlist,
            "bytes a vector": round(stats.code_bytes / stats.n, 1), "imbalance": round(stats.imbalance, 3),
        }  # fmt: skip
    found = points(indexes, data)
    speeds = {
        name: {f"{calls} at {t}": curve.at(one, t, calls) for calls in ("single", "batch") for t in TARGETS}
        for name, one in found.items()
    }
    one, two = speeds["one list"], speeds["two lists"]
    ratios = {key: round(two[key] / one[key], 2) for key in one if one[key] and two[key]}
    about = {"bench": "ann soar", "data": options.data, "rows": len(data.rows), "codec": options.codec}
    figures = {"built": built, "points": found, "queries/s": speeds, "two lists over one": ratios}
    measure.report({**about, **figures}, options.json)


if __name__ == "__main__":
    main()
