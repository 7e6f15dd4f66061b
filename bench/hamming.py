"""Sign codes against faiss IndexBinaryFlat: in a batch and one at a time, one thread each.

Bar: at least 1.3 times as fast as faiss at 96 bytes and more.
"""

from __future__ import annotations

import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs import topk_kernels
from gingham.codecs.binary import Binary


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, nargs="+", default=[32, 48, 96, 128, 192])
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    result = {
        "bench": "hamming",
        "rows": options.rows,
        "queries": options.queries,
        "k": options.k,
        "faiss_simd": faiss.get_compile_options().strip(),
    }
    with threadpool_limits(1):
        for size in options.bytes:
            result[f"{size} bytes"] = compared(size, options)
    report(result, options.json)


def compared(size: int, options: object) -> dict:
    """Times and ratios of codes of one size."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.rows, 8 * size), dtype=np.float32)
    queries = vectors[rng.choice(options.rows, options.queries, replace=False)]
    queries = queries + rng.standard_normal(queries.shape, dtype=np.float32)
    codec = Binary(8 * size, "cosine").train(vectors)
    codes = codec.encode(vectors)
    del vectors
    theirs = faiss.IndexBinaryFlat(8 * size)
    theirs.add(codes.arrays["signs"].view(np.uint8).reshape(codes.n, size))
    prepared = codec.prepare(queries)
    ones = [codec.prepare(queries[i : i + 1]) for i in range(8)]
    asked = np.packbits(queries - codec.mean > 0, axis=1, bitorder="little")

    def ours(queries: object) -> np.ndarray:
        scores = np.full((len(queries.levels), options.k), -np.inf, np.float32)
        rows = np.full((len(queries.levels), options.k), -1, np.int64)
        codec.scan(queries, codes, 0, codes.n, 0, scores, rows)
        topk_kernels.sort_heaps(scores, rows)
        return rows

    found, known = ours(prepared), theirs.search(asked, options.k)[1]
    batch = interleaved(
        {"gingham": lambda: ours(prepared), "faiss": lambda: theirs.search(asked, options.k)}, options.repeats
    )
    single = interleaved(
        {
            "gingham": lambda: [ours(one) for one in ones],
            "faiss": lambda: [theirs.search(asked[i : i + 1], options.k) for i in range(8)],
        },
        2 * options.repeats,
    )
    return {
        "overlap": np.mean([len(set(a) & set(b)) for a, b in zip(found, known, strict=True)]) / options.k,
        "batch_seconds": batch,
        "batch_ratio": batch["faiss"] / batch["gingham"],
        "batch_gigabytes_per_second": codes.nbytes * options.queries / batch["gingham"] / 1e9,
        "single_seconds": {name: seconds / 8 for name, seconds in single.items()},
        "single_ratio": single["faiss"] / single["gingham"],
    }


if __name__ == "__main__":
    main()
