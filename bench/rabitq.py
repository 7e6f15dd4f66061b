"""RaBitQ of one bit, flat, with rescoring from float32, against faiss's at the same recall; one thread each.

Each takes the least number of candidates, times k, that reaches recall@10 of 0.95. Bar: at least 2x the better faiss.
"""

from __future__ import annotations

from typing import Any

import datasets
import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg

FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LEAST = 0.95
K = 10


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def theirs(data: datasets.Dataset) -> dict[str, Any]:
    """Faiss's flat RaBitQ indexes, each refined from float32."""
    kind = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    dim = data.rows.shape[1]
    out = {}
    for name in ("IndexRaBitQ", "IndexRaBitQFastScan"):
        turned = faiss.IndexPreTransform(faiss.RandomRotationMatrix(dim, dim), getattr(faiss, name)(dim, kind))
        index = faiss.IndexRefineFlat(turned)
        index.train(data.rows)
        index.add(data.rows)
        if name == "IndexRaBitQ":
            faiss.downcast_index(turned.index).qb = 4
        out[f"faiss {name}"] = index
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", nargs="*", default=["minilm", "fashion-mnist"], choices=datasets.NAMES)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    result: dict[str, Any] = {"bench": "rabitq", "threads": 1, "k": K, "recall at least": LEAST}
    with threadpool_limits(1):
        for name in options.data:
            data = datasets.load(name, 500)
            if data is None:
                result[name] = "not installed"
                continue
            truth, indexes = data.nearest(K), theirs(data)
            ours = gg.index.Flat(data.rows.shape[1], metric=data.metric, codec="RaBitQ1", keep="f32")
            ours.add(data.rows)
            runs: dict[str, Any] = {"gingham": lambda q, f, i=ours: i.search(q, K, oversample=f)}
            for key, index in indexes.items():
                runs[key] = lambda q, f, i=index: i.search(q, K, params=faiss.IndexRefineSearchParameters(k_factor=f))
            cell: dict[str, Any] = {"recall@10": {}, "candidates": {}}
            for key, run in runs.items():
                for factor in FACTORS:
                    found = recall(run(data.queries, factor)[1], truth)
                    cell["recall@10"][key], cell["candidates"][key] = found, factor * K
                    if found >= LEAST:
                        break
            bounded = recall(ours.search(data.queries, K, bounded=True)[1], truth)
            cell["recall@10"]["gingham bounded"] = bounded
            for shape, n in (("single", 1), ("batch of 64", 64)):
                q = data.queries[:n]
                calls = {
                    key: lambda run=run, q=q, f=cell["candidates"][key] // K: run(q, f) for key, run in runs.items()
                }
                calls["gingham bounded"] = lambda q=q, i=ours: i.search(q, K, bounded=True)
                seconds = interleaved(calls, options.repeats * (4 if n == 1 else 1))
                best = min(value for key, value in seconds.items() if key.startswith("faiss"))
                cell[shape] = {
                    "milliseconds": {key: round(1e3 * value, 3) for key, value in seconds.items()},
                    "over the better faiss": round(best / seconds["gingham"], 2),
                    "bounded over the better faiss": round(best / seconds["gingham bounded"], 2),
                }
            result[name] = cell
    report(result, options.json)


if __name__ == "__main__":
    main()
