"""Inverted files against faiss's: queries a second at recall@10 of 0.90 and 0.95, single and 1,000 a call, one thread.

Every contestant has the same number of lists, trains its own, and scores candidates of its codes from vectors: ours from
float16 (LVQ8: from the codes), faiss's from float32 (IndexRefineFlat); 4, 10 and 20 candidates are tried for each
neighbour, and for ours what it takes by itself, with one list for each row and with two (SOAR). A graph of ours over LVQ4x8 runs beside them. All run their numbers of
lists, or of candidates, in turns; between two of them the logarithm of queries a second is linear in recall.

Run: FAISS_SIMD_LEVEL=AVX2 python bench/ann/ivf.py --data minilm --json bench/results/ann/ivf-minilm.json
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curve
import numpy as np
from shared import datasets, measure

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

K, QUERIES, SINGLE, ROUNDS = 10, 1000, 200, 3
TARGETS = (0.90, 0.95)
NPROBES = (2, 4, 8, 16, 32, 64, 128)
REFINED = (4, 10, 20)
EFS = (10, 16, 24, 40, 80, 160, 320)
"""Candidates of the graph, where lists are probed."""


def ours(
    data: datasets.Dataset, nlist: int, codec: str, oversample: float | None, *, soar: bool = False
) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    index = gg.index.IVF(data.rows.shape[1], metric=data.metric, codec=codec, nlist=nlist, soar=soar)
    index.add(data.rows)
    return lambda nprobe: lambda queries: index.search(queries, K, nprobe=nprobe, oversample=oversample)[1]


def graph(data: datasets.Dataset) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    index = gg.index.HNSW(data.rows.shape[1], metric=data.metric)
    index.add(data.rows)
    return lambda nprobe: lambda queries: index.search(queries, K, ef_search=EFS[NPROBES.index(nprobe)])[1]


def faiss_index(
    data: datasets.Dataset, nlist: int, factory: str, k_factor: float | None
) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    import faiss

    metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(data.rows.shape[1], f"IVF{nlist},{factory}", metric)
    inner = index
    if k_factor is not None:
        index = faiss.IndexRefineFlat(inner)
        index.k_factor = k_factor
    index.train(data.rows)
    index.add(data.rows)

    def at(nprobe: int) -> Callable[[np.ndarray], np.ndarray]:
        def search(queries: np.ndarray) -> np.ndarray:
            faiss.downcast_index(inner).nprobe = nprobe
            return index.search(queries, K)[1]

        return search

    search_at: Any = at
    search_at.kept = index
    return at


def contestants(data: datasets.Dataset, nlist: int) -> dict[str, Callable[[], Any]]:
    """Their makers, by name."""
    pq = f"PQ{data.rows.shape[1] // 4}x4fs"
    out: dict[str, Callable[[], Any]] = {"gingham LVQ8": lambda: ours(data, nlist, "LVQ8", None)}
    for codec in (pq, "RaBitQ1"):
        for soar in (False, True):
            name = f"gingham {codec}{', SOAR' * soar}"
            out[name] = lambda c=codec, s=soar: ours(data, nlist, c, None, soar=s)
            for factor in REFINED:
                out[f"{name}, {factor}"] = lambda c=codec, k=factor, s=soar: ours(data, nlist, c, k, soar=s)
    for factory in (pq, "RaBitQ", "RaBitQfs"):
        for factor in REFINED:
            out[f"faiss {factory}, k_factor {factor}"] = lambda f=factory, k=factor: faiss_index(data, nlist, f, k)
    out["graph HNSW16 LVQ4x8"] = lambda: graph(data)
    return out | {"faiss SQ8": lambda: faiss_index(data, nlist, "SQ8", None)}


def curves(data: datasets.Dataset, made: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Recall and queries a second of all, by lists probed, in turns."""
    truth = data.nearest(K)
    out: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    for nprobe in NPROBES:
        times = {name: np.full(2, np.inf) for name in made}
        recalls = {}
        for _ in range(ROUNDS):
            for name, at in made.items():
                search = at(nprobe)
                started = time.perf_counter()
                found = search(data.queries)
                middle = time.perf_counter()
                for query in data.queries[:SINGLE]:
                    search(query[None])
                took = (middle - started) / len(data.queries), (time.perf_counter() - middle) / SINGLE
                times[name] = np.minimum(times[name], took)
                recalls[name] = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
        for name in made:
            batch, single = 1 / times[name]
            out[name].append({"nprobe": nprobe, "recall": recalls[name], "batch": batch, "single": single})
        print(nprobe, {name: points[-1] for name, points in out.items()}, file=sys.stderr, flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm", choices=datasets.NAMES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data, QUERIES)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    import faiss

    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    nlist = int(min(4 * np.sqrt(len(data.rows)), len(data.rows) // 32))
    made, refused, seconds = {}, {}, {}
    for name, make in contestants(data, nlist).items():
        started = time.process_time()
        try:
            made[name] = make()
        except RuntimeError as error:
            refused[name] = str(error).splitlines()[-1]
            continue
        seconds[name] = round(time.process_time() - started, 1)
        print(name, seconds[name], file=sys.stderr, flush=True)
    found = curves(data, made)
    speeds = {
        name: {f"{calls} at {t}": curve.at(points, t, calls) for calls in ("single", "batch") for t in TARGETS}
        for name, points in found.items()
    }
    best = {
        key: max((s[key] or 0.0) for name, s in speeds.items() if name.startswith("faiss"))
        for key in speeds["faiss SQ8"]
    }
    ratios = {
        name: {key: None if one[key] is None or not best[key] else round(one[key] / best[key], 2) for key in one}
        for name, one in speeds.items() if name.startswith("gingham")
    }  # fmt: skip
    figures = {
        "bench": "ann ivf", "data": options.data, "rows": len(data.rows), "dim": data.rows.shape[1], "nlist": nlist,
        "simd": os.environ.get("FAISS_SIMD_LEVEL", "as found"), "cpu seconds of building": seconds, "refused": refused,
        "curves": found, "queries/s": speeds, "over the best faiss": ratios,
    }  # fmt: skip
    measure.report(figures, options.json)


if __name__ == "__main__":
    main()
