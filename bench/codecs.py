"""Quantized flat scans and encoding against faiss on the same kind of codes; one thread each.

Faiss takes AVX-512 where the CPU has it; with FAISS_SIMD_LEVEL=AVX2 in the environment both keep to AVX2.

Bars, on AVX2: SQ8 at least 2x faiss for one query and 3x for 64; recall@10 of LVQ8 at least 0.99 and of LVQ4x8 at least 0.995 on
all real sets, without the vectors; LVQ8 encodes at least 1 GB/s of float32, RaBitQ4 150 MB/s.
"""

from __future__ import annotations

import os
from typing import Any

import datasets
import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs.spec import parse_codec
from gingham.index.two_stage import encode_rows


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def scans(data: datasets.Dataset, truth: np.ndarray, repeats: int) -> dict[str, Any]:
    """Seconds and recall of our codecs and of faiss's scalar quantizers."""
    kind = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    dim = data.rows.shape[1]
    theirs = {
        "faiss SQ8": faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, kind),
        "faiss SQ8 uniform": faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_uniform, kind),
        "faiss f16": faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, kind),
    }
    for index in theirs.values():
        index.train(data.rows)
        index.add(data.rows)
    ours = {}
    for spec in ("SQ8", "LVQ8", "LVQ4x8", "LVQ8x8", "RaBitQ8", "F16"):
        ours[spec] = gg.index.Flat(dim, metric=data.metric, codec=spec, keep=None)
        ours[spec].train(data.rows)
        ours[spec].add(data.rows)
    runs: dict[str, Any] = {**theirs, **ours}
    out: dict[str, Any] = {"recall@10": {n: recall(i.search(data.queries, 10)[1], truth) for n, i in runs.items()}}
    for name, n, times in (("single", 1, 3 * repeats), ("batch of 64", 64, repeats)):
        q = data.queries[:n]
        seconds = interleaved({key: lambda i=index, q=q: i.search(q, 10) for key, index in runs.items()}, times)
        out[name] = {
            "milliseconds": {key: round(1e3 * value, 3) for key, value in seconds.items()},
            "SQ8 over faiss SQ8": round(seconds["faiss SQ8"] / seconds["SQ8"], 2),
            "SQ8 over the better faiss SQ8": round(
                min(seconds["faiss SQ8"], seconds["faiss SQ8 uniform"]) / seconds["SQ8"], 2
            ),
            "LVQ8 over the better faiss SQ8": round(
                min(seconds["faiss SQ8"], seconds["faiss SQ8 uniform"]) / seconds["LVQ8"], 2
            ),
        }
    return out


def encoding(data: datasets.Dataset, repeats: int) -> dict[str, float]:
    """MB/s of float32 input, with faiss's SQ8 beside."""
    rows = data.rows[:50_000]
    dim = rows.shape[1]
    theirs = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit)
    theirs.train(rows)
    codecs = {s: parse_codec(s, dim, data.metric).train(rows) for s in ("SQ8", "LVQ8", "LVQ4x8", "RaBitQ1", "RaBitQ4")}
    runs: dict[str, Any] = {"faiss SQ8": lambda: theirs.compute_codes(rows)}
    for spec, codec in codecs.items():
        runs[spec] = lambda c=codec: encode_rows(c, len(rows), lambda part: rows[part])
    return {name: round(rows.nbytes / seconds / 1e6) for name, seconds in interleaved(runs, repeats).items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", nargs="*", default=["minilm", "fashion-mnist", "glove"], choices=datasets.NAMES)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    simd = os.environ.get("FAISS_SIMD_LEVEL", f"widest of {faiss.get_compile_options()}")
    result: dict[str, Any] = {"bench": "codecs", "threads": 1, "k": 10, "faiss simd": simd}
    with threadpool_limits(1):
        for name in options.data:
            data = datasets.load(name)
            if data is None:
                result[name] = "not installed"
                continue
            truth = data.nearest(10)
            result[name] = {
                "rows": data.rows.shape, "metric": data.metric, **scans(data, truth, options.repeats),
                "encode MB/s": encoding(data, options.repeats),
            }  # fmt: skip
    report(result, options.json)


if __name__ == "__main__":
    main()
