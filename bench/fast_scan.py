"""PQ fast scan against faiss IndexPQFastScan with the same codebooks and codes: in a batch and one at a time.

Bar: at least 1.1 times as fast as faiss, one thread each, with a recall within 0.005 of that of tables of floats. Faiss
takes the widest instructions of the CPU; FAISS_SIMD_LEVEL=AVX2 in the environment holds it to AVX2.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs import topk_kernels
from gingham.codecs.fast_scan import FastScan
from gingham.codecs.jit import SIMD, WIDE

if TYPE_CHECKING:
    from gingham.codecs.protocol import Codes


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--m", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((1000, options.dim), dtype=np.float32)
    vectors = centers[rng.integers(0, 1000, options.rows)]
    vectors += rng.standard_normal(vectors.shape, dtype=np.float32)
    queries = vectors[rng.choice(options.rows, options.queries, replace=False)]
    queries = queries + np.float32(0.3) * rng.standard_normal(queries.shape, dtype=np.float32)
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    exact = faiss.IndexFlatL2(options.dim)
    exact.add(vectors)
    true = exact.search(queries, options.k)[1]
    result = {
        "bench": "fast_scan",
        "rows": options.rows,
        "dim": options.dim,
        "queries": options.queries,
        "k": options.k,
        "simd": "avx512" if WIDE else SIMD,
        "faiss_simd": os.environ.get("FAISS_SIMD_LEVEL", "widest of " + faiss.get_compile_options().strip()),
    }
    with threadpool_limits(1):
        for m in options.m:
            result[f"PQ{m}x4fs"] = compared(vectors, queries, true, m, options)
    report(result, options.json)


def compared(vectors: np.ndarray, queries: np.ndarray, true: np.ndarray, m: int, options: object) -> dict:
    """Times, ratios and recalls of one number of sub-spaces."""
    dim, k = vectors.shape[1], options.k
    theirs = faiss.IndexPQFastScan(dim, m, 4)
    theirs.train(vectors[:20_000])
    theirs.add(vectors)
    books = faiss.vector_to_array(theirs.pq.centroids).reshape(m, 16, dim // m)
    codec = FastScan(dim, "l2", m).with_arrays({"codebooks": books})
    codes = codec.encode(vectors)

    def ours(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(asked), k), -np.inf, np.float32)
        rows = np.full((len(asked), k), -1, np.int64)
        codec.scan(codec.prepare(asked), codes, 0, codes.n, 0, scores, rows)
        topk_kernels.sort_heaps(scores, rows)
        return scores, rows

    batch = interleaved({"gingham": lambda: ours(queries), "faiss": lambda: theirs.search(queries, k)}, options.repeats)
    ones = [queries[i : i + 1] for i in range(8)]
    single = interleaved(
        {"gingham": lambda: [ours(q) for q in ones], "faiss": lambda: [theirs.search(q, k) for q in ones]},
        2 * options.repeats,
    )
    return {
        "code_megabytes": codes.nbytes / 1e6,
        "batch_seconds": batch,
        "batch_ratio": batch["faiss"] / batch["gingham"],
        "batch_gigabytes_per_second": codes.nbytes * len(queries) / batch["gingham"] / 1e9,
        "single_seconds": {name: seconds / len(ones) for name, seconds in single.items()},
        "single_ratio": single["faiss"] / single["gingham"],
        "recall": recall(ours(queries)[1], true),
        "recall_faiss": recall(theirs.search(queries, k)[1], true),
        "recall_float_tables": recall(by_float_tables(codec, codes, queries, k), true),
    }


def by_float_tables(codec: FastScan, codes: Codes, queries: np.ndarray, k: int) -> np.ndarray:
    """What tables without rounding find: the nearest decoded vectors."""
    index = faiss.IndexFlatL2(codec.dim)
    index.add(codec.decode(codes))
    return index.search(queries, k)[1]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Share of the true neighbours that were found."""
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(found, true, strict=True)])) / true.shape[1]


if __name__ == "__main__":
    main()
