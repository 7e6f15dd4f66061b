"""Exact search against faiss IndexFlat: 256 queries in a batch, and one at a time; one thread each.

Bar: the batch is at least as fast as faiss. Faiss is timed with its default and with BLAS forced, since its
default threshold keeps small batches on a slower loop.
"""

from __future__ import annotations

import faiss
import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.index.exact import row_norms, search_exact


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--npy", help="rows of this array instead of random ones")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    if options.npy:
        vectors = np.ascontiguousarray(np.load(options.npy)[: options.rows], np.float32)
    else:
        vectors = rng.standard_normal((options.rows, options.dim), dtype=np.float32)
    queries = vectors[rng.choice(len(vectors), options.queries, replace=False)] + np.float32(
        0.05
    ) * rng.standard_normal((options.queries, vectors.shape[1]), dtype=np.float32)
    faiss.omp_set_num_threads(1)
    gg.set_threads(1)
    gg.warmup()
    default = faiss.cvar.distance_compute_blas_threshold
    result = {
        "bench": "exact",
        "rows": len(vectors),
        "dim": vectors.shape[1],
        "queries": options.queries,
        "k": options.k,
    }
    with threadpool_limits(1):
        for metric, index in (("dot", faiss.IndexFlatIP), ("l2", faiss.IndexFlatL2)):
            theirs = index(vectors.shape[1])
            theirs.add(vectors)
            norms = row_norms(vectors, metric)

            def ours(q: np.ndarray, metric: str = metric, norms: np.ndarray | None = norms) -> tuple:
                return search_exact(q, vectors, norms, options.k, metric=metric)

            def forced(q: np.ndarray, theirs: faiss.Index = theirs) -> None:
                faiss.cvar.distance_compute_blas_threshold = 1
                theirs.search(q, options.k)
                faiss.cvar.distance_compute_blas_threshold = default

            same = np.mean(
                [
                    len(set(a) & set(b))
                    for a, b in zip(ours(queries)[1], theirs.search(queries, options.k)[1], strict=True)
                ]
            )
            batch = interleaved(
                {
                    "gingham": lambda: ours(queries),
                    "faiss": lambda theirs=theirs: theirs.search(queries, options.k),
                    "faiss blas": lambda forced=forced: forced(queries),
                },
                options.repeats,
            )
            single = interleaved(
                {
                    "gingham": lambda: ours(queries[:1]),
                    "faiss": lambda theirs=theirs: theirs.search(queries[:1], options.k),
                },
                3 * options.repeats,
            )
            result[metric] = {
                "overlap": same / options.k,
                "batch_seconds": batch,
                "batch_ratio": min(batch["faiss"], batch["faiss blas"]) / batch["gingham"],
                "single_seconds": single,
                "single_ratio": single["faiss"] / single["gingham"],
            }
    report(result, options.json)


if __name__ == "__main__":
    main()
