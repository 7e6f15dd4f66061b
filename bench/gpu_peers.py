"""Searches on a CUDA device beside faiss-gpu and cuVS, where these are installed: seconds, recall and ratios.

Exact searches and codes take all rows, graphs the first 200,000 of them, which the CPU links for ours. Every contestant
has the same rows and queries in host memory, and times include their copies. Graphs and lists are searched with several
settings; recall@10 stands beside the time. Each contestant of a peer has a process of its own, so that one that fails,
dies or hangs says so and leaves the others their figures. Ratios are queries a second of our fastest over those of the
fastest of each peer, among those that reach a recall. `gpu.py` runs it.

Run: python bench/gpu_peers.py --json bench/results/gpu_peers.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from gpu_searches import best_of, made

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    Searches = dict[str, Callable[[np.ndarray], np.ndarray]]
    """By setting: rows of queries."""
    Makers = dict[str, Callable[[], Searches]]
    """Of contestants, by name."""

K, DIM, ROWS, GRAPH_ROWS, ASKED = 10, 384, 1_000_000, 200_000, 512
"""Of them, queries by which recall is measured."""
BATCHES = (1, 16, 256, 1024, 8192)
LISTS, PARTS = 4096, 48
PROBES, CANDIDATES = (16, 64, 256), (32, 64, 128, 256)
LEVELS = (0.5, 0.9, 0.95, 0.99, 0.999)
"""Recalls at which ours and peers are compared."""
PATIENCE = 90.0
"""Seconds that a contestant of a peer may take."""
NEEDED = {"faiss": ("faiss",), "cuvs": ("cuvs", "cupy")}
"""Packages of a peer."""


def ours(rows: np.ndarray, device: str) -> Makers:
    """Flat indexes."""

    def flat(codec: str, keep: Any = None) -> Searches:
        index = gg.index.Flat(DIM, metric="dot", codec=codec, keep=keep, device=device)
        index.add(rows)
        return {"": lambda queries: index.search(queries, K)[1]}

    codecs = ("F32", "F16", "LVQ8", "LVQ4x8", f"PQ{PARTS}x8")
    return {
        **{f"gingham Flat {codec}": partial(flat, codec) for codec in codecs},
        **{f"gingham Flat {codec}, rescored": partial(flat, codec, "f16") for codec in (codecs[-1], "Binary")},
    }


def our_graphs(rows: np.ndarray, device: str) -> Makers:
    """A graph that is walked on the device where there are queries enough."""

    def graph() -> Searches:
        index = gg.index.HNSW(DIM, metric="dot", codec="LVQ8", keep="f16", device=device)
        index.add(rows)
        return {f", ef {ef}": lambda queries, ef=ef: index.search(queries, K, ef_search=ef)[1] for ef in CANDIDATES}

    return {"gingham HNSW16 LVQ8": graph}


def of_faiss(rows: np.ndarray, number: int) -> Makers:
    """Those of faiss that take all rows."""

    def flat(half: bool) -> Searches:
        faiss = gpu_faiss()
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = number, half
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), DIM, config)
        index.add(rows)
        return {"": lambda queries: index.search(queries, K)[1]}

    def products() -> Searches:
        faiss = gpu_faiss()
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True  # tables of 48 parts need it
        whole = faiss.index_factory(DIM, f"IVF{LISTS},PQ{PARTS}", faiss.METRIC_INNER_PRODUCT)
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, whole, options)
        index.train(np.ascontiguousarray(rows[:: max(1, len(rows) // (64 * LISTS))]))
        index.add(rows)

        def search(queries: np.ndarray, nprobe: int) -> Any:
            index.nprobe = nprobe
            return index.search(queries, K)[1]

        return {f", nprobe {nprobe}": partial(search, nprobe=nprobe) for nprobe in PROBES}

    return {
        "faiss GpuIndexFlat float32": partial(flat, False), "faiss GpuIndexFlat float16": partial(flat, True),
        f"faiss GpuIndexIVFPQ {PARTS} bytes": products,
    }  # fmt: skip


def graphs_of_faiss(rows: np.ndarray, number: int) -> Makers:
    """CAGRA, in a faiss that was built with cuVS."""

    def graph() -> Searches:
        faiss = gpu_faiss()
        if not hasattr(faiss, "GpuIndexCagra"):
            raise RuntimeError(f"faiss {faiss.__version__} was built without cuVS")
        config = faiss.GpuIndexCagraConfig()
        config.device = number
        index = faiss.GpuIndexCagra(faiss.StandardGpuResources(), DIM, faiss.METRIC_INNER_PRODUCT, config)
        index.train(rows)

        def search(queries: np.ndarray, wide: int, _: np.ndarray) -> Any:
            params = faiss.SearchParametersCagra()
            params.itopk_size = wide
            return index.search(queries, K, params=params)[1]

        # The index may refer to the rows.
        return {f", itopk {wide}": partial(search, wide=wide, _=rows) for wide in CANDIDATES}

    return {"faiss GpuIndexCagra": graph}


def gpu_faiss() -> Any:
    """faiss, if it is one for devices."""
    faiss: Any = import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError(f"faiss {faiss.__version__} is the one for the CPU")
    return faiss


def of_cuvs(rows: np.ndarray, number: int) -> Makers:
    """Those of cuVS that take all rows."""

    def flat(dtype: str) -> Searches:
        cupy, brute_force = _cuvs("brute_force", number)
        held = cupy.asarray(rows, dtype)
        index = brute_force.build(held, metric="inner_product")
        # The index refers to the rows.
        return {
            "": lambda queries, _=held: _here(cupy, brute_force.search(index, cupy.asarray(queries, dtype), K))
        }  # fmt: skip

    def products() -> Searches:
        cupy, ivf_pq = _cuvs("ivf_pq", number)
        given = ivf_pq.IndexParams(n_lists=LISTS, metric="inner_product", pq_dim=PARTS, pq_bits=8)
        index = ivf_pq.build(given, cupy.asarray(rows))

        def search(queries: np.ndarray, wide: Any) -> np.ndarray:
            return _here(cupy, ivf_pq.search(wide, index, cupy.asarray(queries), K))

        return {f", n_probes {n}": partial(search, wide=ivf_pq.SearchParams(n_probes=n)) for n in PROBES}

    return {
        "cuVS brute_force float32": partial(flat, "float32"), "cuVS brute_force float16": partial(flat, "float16"),
        f"cuVS ivf_pq {PARTS} bytes": products,
    }  # fmt: skip


def graphs_of_cuvs(rows: np.ndarray, number: int) -> Makers:
    """CAGRA."""

    def graph() -> Searches:
        cupy, cagra = _cuvs("cagra", number)
        held = cupy.asarray(rows)
        index = cagra.build(cagra.IndexParams(metric="inner_product"), held)

        def search(queries: np.ndarray, wide: Any, _: Any) -> np.ndarray:
            return _here(cupy, cagra.search(wide, index, cupy.asarray(queries), K))

        # The index may refer to the rows.
        return {f", itopk_size {n}": partial(search, wide=cagra.SearchParams(itopk_size=n), _=held) for n in CANDIDATES}

    return {"cuVS cagra": graph}


def _cuvs(name: str, number: int) -> tuple[Any, Any]:
    """CuPy, on a device, and a module of cuVS."""
    cupy: Any = import_module("cupy")
    cupy.cuda.Device(number).use()
    return cupy, import_module(f"cuvs.neighbors.{name}")


def _here(cupy: Any, found: tuple[Any, Any]) -> np.ndarray:
    """Rows, of distances and rows on the device."""
    rows: np.ndarray = cupy.asnumpy(cupy.asarray(found[1]))
    return rows


PEERS: dict[str, dict[str, Callable[[np.ndarray, int], Makers]]] = {
    "scans": {"faiss": of_faiss, "cuvs": of_cuvs},
    "graphs": {"faiss": graphs_of_faiss, "cuvs": graphs_of_cuvs},
}


def figures_of(name: str, make: Callable[[], Searches], queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """By setting: seconds to build, recall, and seconds by number of queries; or what went wrong."""
    out: dict[str, Any] = {}
    try:
        started = time.perf_counter()
        searches = make()
        built = time.perf_counter() - started
        for setting, search in searches.items():
            found = search(queries[: len(truth)])
            recall = np.mean([np.isin(true, one).mean() for one, true in zip(found, truth, strict=True)])
            times = {str(m): best_of(partial(search, queries[:m]), 0.3) for m in BATCHES if m <= len(queries)}
            out[name + setting] = {"recall": float(recall), "build s": built, "seconds": times}
    except Exception as error:
        out[name] = {"left out": f"{type(error).__name__}: {error}"}
    return out


def _answer(to: Connection, kind: str, peer: str, name: str, folder: str, number: int) -> None:
    """Send figures of a contestant of a peer; runs in a process of its own."""
    rows, queries, truth = (np.load(f"{folder}/{array}.npy") for array in (f"{kind} rows", "queries", f"{kind} truth"))
    found = figures_of(name, PEERS[kind][peer](rows, number)[name], queries, truth)
    for one in found.values():
        if "seconds" in one:
            one["version"] = getattr(import_module(peer), "__version__", None)
    to.send(found)


def apart(kind: str, peer: str, name: str, folder: str, number: int) -> dict[str, Any]:
    """Figures of a contestant of a peer, or what became of it."""
    missing = [package for package in NEEDED[peer] if find_spec(package) is None]
    if missing:
        return {name: {"left out": f"not installed: {', '.join(missing)}"}}
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, kind, peer, name, folder, number), daemon=True)
    process.start()
    there.close()
    try:
        if here.poll(PATIENCE):
            found: dict[str, Any] = here.recv()
        else:
            found = {name: {"left out": f"no answer after {PATIENCE} s"}}
    except EOFError:
        process.join(PATIENCE)
        found = {name: {"left out": f"its process died: exit code {process.exitcode}"}}
    finally:
        process.kill()
        process.join()
    return found


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Our queries a second over those of each peer, by recall that both reach at least and by number of queries."""
    out: dict[str, Any] = {}
    for level in LEVELS:
        for peer in ("faiss", "cuVS"):
            pairs = {str(m): (_fastest(found, "gingham", level, str(m)), _fastest(found, peer, level, str(m)))
                     for m in BATCHES}  # fmt: skip
            ratios = {
                m: {"ratio": theirs[0] / mine[0], "ours": mine[1], "theirs": theirs[1]}
                for m, (mine, theirs) in pairs.items()
                if mine and theirs
            }
            if ratios:
                out[f"over {peer}, recall {level}"] = ratios
    return out


def _fastest(found: dict[str, Any], whose: str, level: float, m: str) -> tuple[float, str] | None:
    """Seconds and name of the fastest that reaches a recall."""
    known = [(one["seconds"][m], name) for name, one in found.items()
             if name.startswith(whose) and one.get("recall", 0) >= level and m in one["seconds"]]  # fmt: skip
    return min(known, default=None)


def table(found: dict[str, Any]) -> str:
    """Recall, and milliseconds by number of queries, a line for each contestant."""
    lines = [f"{'':44} recall " + " ".join(f"{f'{m}, ms':>9}" for m in BATCHES)]
    for name, one in found.items():
        times = " ".join(f"{1e3 * s:9.3f}" for s in one.get("seconds", {}).values())
        lines.append(f"{name:44} " + (f"{one['recall']:6.3f} {times}" if times else one["left out"][:100]))
    for what, by_batch in compared(found).items():
        ratios = " ".join(f"{one['ratio']:9.2f}" for one in by_batch.values())
        lines.append(f"{f'ours {what}':44} {'':6} {ratios}")
    return "\n".join(lines)


def peers(device: str, number: int, n: int = ROWS, n_graph: int = GRAPH_ROWS) -> dict[str, Any]:
    """Figures of all contestants, and ratios."""
    rows, queries = made(n, DIM, 4), made(max(BATCHES), DIM, 5)
    out: dict[str, Any] = {"rows": n, "rows of graphs": n_graph, "k": K}
    parts = (("scans", rows, ours(rows, device)), ("graphs", rows[:n_graph], our_graphs(rows[:n_graph], device)))
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/queries.npy", queries)
        for kind, some, makers in parts:
            truth = np.argpartition(-(queries[:ASKED] @ some.T), K, axis=1)[:, :K]
            np.save(f"{folder}/{kind} rows.npy", some)
            np.save(f"{folder}/{kind} truth.npy", truth)
            found: dict[str, Any] = {}
            for name, make in makers.items():
                found |= figures_of(name, make, queries, truth)
            for peer, names in PEERS[kind].items():
                for name in names(some, number):
                    found |= apart(kind, peer, name, folder, number)
            out[kind] = {**found, "ratios": compared(found)}
            print(table(found), flush=True)
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
