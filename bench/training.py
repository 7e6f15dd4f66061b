"""k-means, and training, encoding and scanning product quantizers, against faiss; one thread each.

Bars: an objective within 0.5 % of faiss's in no more time, and encoding within 1.2x of its time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs.kmeans import train_kmeans
from gingham.codecs.product import ProductQuantizer, encode_with, train_codebooks
from gingham.index.two_stage import search_codes

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def rows_of(kind: str, n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((n, dim))
    if kind == "mixture":
        return (rng.standard_normal((256, dim))[rng.integers(0, 256, n)] + noise).astype(np.float32)
    return (noise * np.exp(-np.arange(dim) / 30)).astype(np.float32)


def objective(rows: np.ndarray, centroids: np.ndarray) -> float:
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(centroids)
    return float(index.search(rows, 1)[0].sum(dtype=np.float64))


def kmeans() -> dict[str, Any]:
    """Time and objective over faiss.Kmeans with 25 iterations, over two seeds."""
    out = {}
    for kind in ("mixture", "decaying spectrum"):
        for k, dim in ((256, 128), (1024, 64)):
            times, objectives = [], []
            for seed in range(2):
                rows = rows_of(kind, 65_536, dim, np.random.default_rng(seed))
                theirs = faiss.Kmeans(dim, k, niter=25, seed=1234 + seed)
                slow, _ = seconds(lambda t=theirs, r=rows: t.train(r))
                fast, centroids = seconds(lambda r=rows, k=k, s=seed: train_kmeans(r, k, seed=s))
                times.append(fast / slow)
                objectives.append(objective(rows, centroids) / objective(rows, theirs.centroids))
            out[f"{kind}, k={k}, d={dim}"] = {
                "time over faiss": round(float(np.mean(times)), 2),
                "objective over faiss": round(float(np.mean(objectives)), 4),
            }
    return out


def product(repeats: int) -> dict[str, Any]:
    """Training, encoding and scanning over faiss; scans speed up, the others are shares of its time."""
    out = {}
    for dim, m in ((384, 48), (768, 96), (128, 16)):
        rng = np.random.default_rng(0)
        rows, queries = rows_of("decaying spectrum", 50_000, dim, rng), rows_of("decaying spectrum", 64, dim, rng)
        theirs = faiss.IndexPQ(dim, m, 8, faiss.METRIC_INNER_PRODUCT)
        slow, _ = seconds(lambda t=theirs, r=rows: t.train(r[:30_000]))
        fast, codebooks = seconds(lambda r=rows, m=m: train_codebooks(r[:30_000], m, 256, seed=0))
        decoded = theirs.pq.decode(theirs.pq.compute_codes(rows))
        own = codebooks[np.arange(m), encode_with(codebooks, rows)].reshape(len(rows), -1)
        shared = faiss.vector_to_array(theirs.pq.centroids).reshape(m, 256, dim // m)
        ours = ProductQuantizer(dim, "dot", m).with_arrays({"codebooks": shared})
        theirs.add(rows)
        codes = ours.encode(rows)
        encode = interleaved(
            {"ours": lambda c=ours, r=rows: c.encode(r), "faiss": lambda t=theirs, r=rows: t.pq.compute_codes(r)}, 3
        )
        cell = {
            "train time over faiss": round(fast / slow, 2),
            "error over faiss": round(float(np.square(own - rows).sum() / np.square(decoded - rows).sum()), 4),
            "encode time over faiss": round(encode["ours"] / encode["faiss"], 2),
        }
        for n in (1, 64):
            scan = interleaved(
                {
                    "ours": lambda q=queries[:n], c=ours, e=codes: search_codes(c, e, q, 10),
                    "faiss": lambda q=queries[:n], t=theirs: t.search(q, 10),
                },
                repeats * (4 if n == 1 else 1),
            )
            cell[f"scan speed-up, {n} queries"] = round(scan["faiss"] / scan["ours"], 2)
        out[f"PQ{m}x8, d={dim}"] = cell
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    with threadpool_limits(1):
        report(
            {"bench": "training", "threads": 1, "kmeans": kmeans(), "product": product(options.repeats)}, options.json
        )


if __name__ == "__main__":
    main()
