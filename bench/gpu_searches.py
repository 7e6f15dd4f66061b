"""Searches of arrays on a CUDA device against the CPU: whether they find the same, and how fast; `gpu.py` runs it.

Sign codes of 768 bits, PQ of 48 bytes, 20,000 documents of about 120 tokens of 128 dimensions and 8 bits for a query of
32 tokens, the nearest of 1,000 centroids, and walks over a graph of LVQ8 rows; the CPU has all cores, and one for MaxSim.
Times are of calls from Python whose rows are on the device already, with their copies of queries and results.

Run: python bench/gpu_searches.py --json bench/results/gpu_searches.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np

import gingham as gg
from gingham.codecs import cuda_searches
from gingham.codecs.devices import find_device
from gingham.codecs.kmeans import Centroids
from gingham.codecs.maxsim import QueryTokens, score_i8

if TYPE_CHECKING:
    from collections.abc import Callable

K, DIM = 10, 384
BATCHES = (1, 16, 256, 1024)


def best_of(call: Callable[[], object], seconds: float = 1.0) -> float:
    """Least time of a call, after one that is not timed; of one call alone where it takes longer than ``seconds``."""
    call()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 50):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def made(n: int, dim: int, seed: int) -> np.ndarray:
    """Rows of length one around 1,000 centres, float32 (n, dim)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((1000, dim), np.float32)
    rows = rng.standard_normal((n, dim), np.float32)
    rows += centres[rng.integers(0, len(centres), n)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def compared(there: Callable[[int], Any], here: Callable[[int], Any], batches: tuple[int, ...]) -> dict[str, Any]:
    """Seconds of both by number of queries, and the share of rows that are the same in the last batch."""
    same = float(np.mean(there(batches[-1]) == here(batches[-1])))
    times = {
        str(m): {"device s": best_of(lambda m=m: there(m)), "cpu s": best_of(lambda m=m: here(m))} for m in batches
    }
    return {"same rows": same, **times}


def flat(rows: np.ndarray, codec: str) -> Any:
    """An index of the CPU."""
    index = gg.index.Flat(rows.shape[1], metric="dot", codec=codec, keep=None)
    index.add(rows)
    return index


def signs(n: int, batches: tuple[int, ...]) -> dict[str, Any]:
    """Sign codes."""
    rows, queries = made(n, 768, 1), made(max(batches), 768, 2)
    index = flat(rows, "Binary")
    columns = cuda_searches.sign_columns(index.codec.encode(rows).arrays["signs"])
    words = index.codec.prepare(queries).words[: 12 * len(queries)].reshape(-1, 12)
    return compared(
        lambda m: cuda_searches.nearest_signs(columns, words[:m], K)[1],
        lambda m: index.search(queries[:m], K)[1],
        batches,
    )


def tables(n: int, batches: tuple[int, ...]) -> dict[str, Any]:
    """PQ of 8 bits, by tables of float32 and of uint8."""
    rows, queries = made(n, DIM, 3), made(max(batches), DIM, 4)
    index = flat(rows, "PQ48x8")
    columns = cuda_searches.code_columns(index.codec.encode(rows).arrays["rows"])
    prepared = index.codec.prepare(queries)
    floats = np.ascontiguousarray(np.moveaxis(prepared.tables, 3, 1)).reshape(-1, 48, 256)[: len(queries)]
    biases = prepared.biases[: len(queries)]
    scales = np.stack([np.ones_like(biases), biases], axis=1)
    small, scaling = cuda_searches.small_tables(floats)
    scaling[:, 1] += biases
    out = {}
    for name, chosen, factors in (("float32", floats, scales), ("uint8", small, scaling)):
        out[name] = compared(
            lambda m, t=chosen, f=factors: cuda_searches.best_by_tables(columns, n, t[:m], f[:m], K)[1],
            lambda m: index.search(queries[:m], K)[1],
            batches,
        )
    return out


def maxsim(documents: int) -> dict[str, Any]:
    """Scores of all documents for one query."""
    rng = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(rng.integers(60, 181, documents))]).astype(np.int64)
    codes = rng.integers(0, 256, (starts[-1], 128), np.uint8)
    scales, offsets = rng.random(len(codes), np.float32), rng.standard_normal(len(codes), np.float32)
    query = QueryTokens(rng.standard_normal((32, 128), np.float32))
    listed = np.arange(documents)
    held = [cuda_searches._there(array) for array in (codes.view(np.int32), scales, offsets)]

    def there() -> np.ndarray:
        return cuda_searches.maxsim_scores(
            *held, starts, listed[None], query.integers[None], query.parameters[None]
        )[0]  # fmt: skip

    def here() -> np.ndarray:
        return score_i8(query, codes, scales, offsets, starts, listed)

    apart = float(np.abs(there() / here() - 1).max())
    return {"most apart": apart, "device s": best_of(there), "cpu s of one thread": best_of(here)}


def centroids(n: int, k: int) -> dict[str, Any]:
    """The nearest of k centroids."""
    rows, chosen = made(n, DIM, 6), made(k, DIM, 7)
    books = Centroids.of(chosen[None], shifted=False)
    out = np.empty((n, 1), np.int32)
    books.nearest(rows, out=out)
    held = cuda_searches._there(rows)
    same = float(np.mean(cuda_searches.nearest_centroids(held, chosen)[0] == out[:, 0]))
    device = best_of(lambda: cuda_searches.nearest_centroids(held, chosen))
    return {
        "same rows": same, "device s": device, "cpu s of one thread": best_of(lambda: books.nearest(rows, out=out)),
        "flops": 2 * n * k * DIM / max(device, 1e-9),
    }  # fmt: skip


def graph(n: int, batches: tuple[int, ...], ef: int = 64) -> dict[str, Any]:
    """Walks that find ``ef`` candidates, and the share of the K nearest that each finds."""
    rows, queries = made(n, DIM, 8), made(max(batches), DIM, 9)
    index = gg.index.HNSW(DIM, metric="dot", codec="LVQ8")
    index.add(rows)
    index.freeze()
    walked, held = index._graph, index._rows.joined()[0]
    assert walked is not None
    truth = np.argpartition(-(queries @ rows.T), K, axis=1)[:, :K]
    coded = {m: index.codec.row_scores(index.codec.prepare(queries[:m]), held) for m in batches}
    links = cuda_searches._there(walked.links.view(np.int32))
    codes = cuda_searches._there(np.ascontiguousarray(held.arrays["coarse"]).view(np.int32))
    entries = walked.nodes[walked.starts[-2] :][-32:].astype(np.int32)[None]

    def there(m: int) -> np.ndarray:
        return cuda_searches.graph_best(links, codes, coded[m], entries, ef)[1][:, :K]

    def here(m: int) -> np.ndarray:
        return index.search(queries[:m], K, ef_search=ef)[1]

    def recall(found: np.ndarray) -> float:
        return float(np.mean([np.isin(one, true).mean() for one, true in zip(found, truth, strict=True)]))

    most = max(batches)
    visits = cuda_searches.graph_best(links, codes, coded[most], entries, ef)[2].mean(axis=0)
    return {
        "recall": recall(there(most)), "cpu recall": recall(here(most)), "looked at": float(visits[0]),
        "scored": float(visits[1]), **compared(there, here, batches),
    }  # fmt: skip


def tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What some work gives and the seconds it took, or what went wrong, so that the rest keeps its figures."""
    started = time.perf_counter()
    try:
        found = work()
    except Exception as error:
        found = {"left out": f"{type(error).__name__}: {error}"}
    return {**found, "took s": time.perf_counter() - started}


def searches(scale: float = 1.0, batches: tuple[int, ...] = BATCHES) -> dict[str, Any]:
    """All of them, at a share of their rows."""
    million = int(1_000_000 * scale)
    return {
        "signs": tried(lambda: signs(million, batches)),
        "tables": tried(lambda: tables(million, batches)),
        "maxsim": tried(lambda: maxsim(int(20_000 * scale))),
        "centroids": tried(lambda: centroids(million, max(1, int(1000 * min(1.0, 10 * scale))))),
        "graph": tried(lambda: graph(int(100_000 * scale), batches)),
    }


def wrong(figures: dict[str, Any]) -> list[str]:
    """What finds other rows than the CPU, or fails: all that are not candidates are to be the same but for rounding."""
    right: dict[str, Callable[[dict[str, Any]], bool]] = {
        "signs": lambda found: found["same rows"] >= 0.999,
        "tables": lambda found: found["float32"]["same rows"] >= 0.999,
        "maxsim": lambda found: found["most apart"] < 1e-4,
        "centroids": lambda found: found["same rows"] >= 0.999,
        "graph": lambda found: found["recall"] > found["cpu recall"] - 0.01,
    }
    return [name for name, holds in right.items() if "left out" in figures[name] or not holds(figures[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    options = parser.parse_args()
    device = find_device(options.device)
    assert device is not None
    with device.active():
        figures = {"bench": "gpu searches", "device": vars(device), **searches(options.scale)}
    measure.report(figures, options.json)
    if wrong(figures):
        raise SystemExit(f"the device finds other rows than the CPU: {wrong(figures)}")


if __name__ == "__main__":
    main()
