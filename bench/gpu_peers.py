"""Searches on a CUDA device beside faiss-gpu and cuVS, where these are installed: seconds, recall and ratios; `gpu.py` runs it.

Exact searches and codes take all rows, graphs the first 200,000 of them, which the CPU links. Every contestant has the
same rows and queries in host memory, and times include their copies. Approximate ones have one setting each: 32 lists of
product codes, 64 candidates of a graph; their recall@10 stands beside the time. A contestant that fails or is not
installed says so and leaves the others their figures. Ratios are queries a second of ours over theirs, for contestants
that find as many of the neighbours, within 0.02.

Run: python bench/gpu_peers.py --json bench/results/gpu_peers.json
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from gpu_searches import best_of, made

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

K, DIM, ROWS, GRAPH_ROWS = 10, 384, 1_000_000, 200_000
BATCHES = (1, 16, 256, 1024, 8192)
NPROBE, CANDIDATES, LISTS, PARTS = 32, 64, 4096, 48
ALIKE = 0.02
"""Recalls that differ by less are compared."""


def ours(rows: np.ndarray, device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names of our flat indexes, and what makes a search of each."""

    def flat(codec: str, keep: Any) -> Any:
        index = gg.index.Flat(DIM, metric="dot", codec=codec, keep=keep, device=device)
        index.add(rows)
        return lambda queries: index.search(queries, K)[1]

    yield from ((f"gingham Flat {codec}", partial(flat, codec, None)) for codec in ("F32", "F16", "LVQ8", "LVQ4x8"))
    yield f"gingham Flat PQ{PARTS}x8, rescored", partial(flat, f"PQ{PARTS}x8", "f16")
    yield "gingham Flat Binary, rescored", partial(flat, "Binary", "f16")


def our_graph(rows: np.ndarray, device: str) -> Any:
    """A graph that is walked on the device."""
    index = gg.index.HNSW(DIM, metric="dot", codec="LVQ8", keep="f16", device=device)
    index.add(rows)
    return lambda queries: index.search(queries, K, ef_search=CANDIDATES)[1]


def of_faiss(rows: np.ndarray, number: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Those of faiss that take all rows."""

    def flat(half: bool) -> Any:
        import faiss

        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = number, half
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), DIM, config)
        index.add(rows)
        return lambda queries: index.search(queries, K)[1]

    def products() -> Any:
        import faiss

        options = faiss.GpuClonerOptions()
        options.useFloat16 = True
        whole = faiss.index_factory(DIM, f"IVF{LISTS},PQ{PARTS}", faiss.METRIC_INNER_PRODUCT)
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, whole, options)
        index.train(rows[:: max(1, len(rows) // (64 * LISTS))])
        index.add(rows)
        index.nprobe = NPROBE
        return lambda queries: index.search(queries, K)[1]

    yield "faiss GpuIndexFlat float32", partial(flat, False)
    yield "faiss GpuIndexFlat float16", partial(flat, True)
    yield f"faiss GpuIndexIVFPQ {PARTS} bytes, nprobe {NPROBE}", products


def graph_of_faiss(rows: np.ndarray, number: int) -> Any:
    """CAGRA, in a faiss that was built with cuVS."""
    import faiss

    config = faiss.GpuIndexCagraConfig()
    config.device = number
    index = faiss.GpuIndexCagra(faiss.StandardGpuResources(), DIM, faiss.METRIC_INNER_PRODUCT, config)
    index.train(rows)
    wide = faiss.SearchParametersCagra()
    wide.itopk_size = CANDIDATES
    return lambda queries: index.search(queries, K, params=wide)[1]


def of_cuvs(rows: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Those of cuVS that take all rows."""

    def flat() -> Any:
        import cupy
        from cuvs.neighbors import brute_force

        index = brute_force.build(cupy.asarray(rows), metric="inner_product")
        return lambda queries: _fetched(brute_force.search(index, cupy.asarray(queries), K))

    def products() -> Any:
        import cupy
        from cuvs.neighbors import ivf_pq

        given = ivf_pq.IndexParams(n_lists=LISTS, metric="inner_product", pq_dim=PARTS, pq_bits=8)
        index, wide = ivf_pq.build(given, cupy.asarray(rows)), ivf_pq.SearchParams(n_probes=NPROBE)
        return lambda queries: _fetched(ivf_pq.search(wide, index, cupy.asarray(queries), K))

    yield "cuVS brute_force float32", flat
    yield f"cuVS ivf_pq {PARTS} bytes, n_probes {NPROBE}", products


def graph_of_cuvs(rows: np.ndarray) -> Any:
    """CAGRA."""
    import cupy
    from cuvs.neighbors import cagra

    index = cagra.build(cagra.IndexParams(metric="inner_product"), cupy.asarray(rows))
    wide = cagra.SearchParams(itopk_size=CANDIDATES)
    return lambda queries: _fetched(cagra.search(wide, index, cupy.asarray(queries), K))


def _fetched(found: Any) -> np.ndarray:
    """Rows, of distances and rows on the device."""
    import cupy

    rows: np.ndarray = cupy.asnumpy(cupy.asarray(found[1]))
    return rows


def figures_of(make: Callable[[], Any], queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Recall, and seconds by number of queries; or what went wrong."""
    try:
        search = make()
        found = search(queries[: len(truth)])
        recall = np.mean([np.isin(true, one).mean() for one, true in zip(found, truth, strict=True)])
        times = {str(m): best_of(lambda m=m: search(queries[:m]), 0.3) for m in BATCHES if m <= len(queries)}
        return {"recall": float(recall), "seconds": times}
    except Exception as error:
        return {"left out": f"{type(error).__name__}: {error}"}


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Our queries a second over those of each peer that finds as many neighbours, by number of queries."""
    known = {name: one for name, one in found.items() if "seconds" in one}
    return {
        f"{mine} over {peer}": {m: known[peer]["seconds"][m] / s for m, s in known[mine]["seconds"].items()}
        for mine in known
        for peer in known
        if mine.startswith("gingham") and not peer.startswith("gingham")
        if abs(known[mine]["recall"] - known[peer]["recall"]) < ALIKE
    }


def peers(device: str, number: int, n: int = ROWS, n_graph: int = GRAPH_ROWS) -> dict[str, Any]:
    """Figures of all contestants, and ratios."""
    rows, queries = made(n, DIM, 4), made(max(BATCHES), DIM, 5)
    out: dict[str, Any] = {"rows": n, "rows of graphs": n_graph, "k": K}
    graphs = {
        "gingham HNSW16 LVQ8, ef 64": partial(our_graph, rows[:n_graph], device),
        "faiss GpuIndexCagra, itopk 64": partial(graph_of_faiss, rows[:n_graph], number),
        "cuVS cagra, itopk_size 64": partial(graph_of_cuvs, rows[:n_graph]),
    }
    scans = {**dict(ours(rows, device)), **dict(of_faiss(rows, number)), **dict(of_cuvs(rows))}
    for name, some, makers in (("scans", rows, scans), ("graphs", rows[:n_graph], graphs)):
        truth = np.argpartition(-(queries[:256] @ some.T), K, axis=1)[:, :K]
        found = {contestant: figures_of(make, queries, truth) for contestant, make in makers.items()}
        out[name] = {**found, "ratios": compared(found)}
        print(name, out[name], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    number = int(options.device.partition(":")[2] or 0)
    found = peers(options.device, number, options.rows, min(GRAPH_ROWS, options.rows))
    measure.report({"bench": "gpu peers", **found}, options.json)


if __name__ == "__main__":
    main()
