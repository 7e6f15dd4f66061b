"""Lists under dot whose rows differ in length: neighbours found with spreads, without them, and by faiss.

Rows are 50,000 of 96 dimensions, made from a seed: in all directions, around 200 centres, or of rank 12, with lengths
that are lognormal or exponential. Queries are directions of rows with noise. Lists hold floats; faiss has as many.

Run: python bench/ann/spreads.py --json bench/results/ann/spreads.json
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from shared import measure

import gingham as gg
from gingham.index.exact import row_norms, search_exact

if TYPE_CHECKING:
    from collections.abc import Iterator

N, DIM, K, QUERIES = 50_000, 96, 10, 200
NPROBES = (16, 64, 256)


def made() -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows."""
    rng = np.random.default_rng(0)
    around = rng.standard_normal((200, DIM))[rng.integers(0, 200, N)]
    directions = {
        "all directions": rng.standard_normal((N, DIM)),
        "200 centres": around + 0.6 * rng.standard_normal((N, DIM)),
        "rank 12": rng.standard_normal((N, 12)) @ rng.standard_normal((12, DIM)) + 0.3 * rng.standard_normal((N, DIM)),
    }
    lengths = {
        "one": np.ones((N, 1)), "lognormal(0.3)": np.exp(0.3 * rng.standard_normal((N, 1))),
        "lognormal(1)": np.exp(rng.standard_normal((N, 1))), "exponential": rng.exponential(1, (N, 1)),
    }  # fmt: skip
    for name, rows in directions.items():
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for length, factors in lengths.items():
            yield f"{name}, lengths {length}", np.ascontiguousarray(unit * factors, np.float32)


def figures(rows: np.ndarray) -> dict[str, Any]:
    """Recall@10 by nprobe."""
    rng = np.random.default_rng(1)
    queries = rows[rng.permutation(N)[:QUERIES]]
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    queries = (queries + 0.3 * queries.std() * rng.standard_normal(queries.shape)).astype(np.float32)
    truth = search_exact(queries, rows, row_norms(rows, "dot"), K, metric="dot")[1]
    index = gg.index.IVF(DIM, metric="dot", codec="F32")
    index.add(rows)
    coarse, nlist = index._state.coarse, index.stats().nlist
    assert coarse is not None
    peer = faiss.index_factory(DIM, f"IVF{nlist},Flat", faiss.METRIC_INNER_PRODUCT)
    peer.train(rows)
    peer.add(rows)

    def recall(found: np.ndarray) -> float:
        return float(np.mean([np.isin(true, one).mean() for one, true in zip(found, truth, strict=True)]))

    def ours() -> dict[str, float]:
        return {str(nprobe): recall(index.search(queries, K, nprobe=nprobe)[1]) for nprobe in NPROBES}

    def theirs(nprobe: int) -> float:
        peer.nprobe = nprobe
        return recall(peer.search(queries, K)[1])

    out: dict[str, Any] = {"nlist": nlist, "spreads count": coarse._heights is not None, "with spreads": ours()}
    out["target_recall=0.95"] = recall(index.search(queries, K, target_recall=0.95)[1])
    index._state = replace(index._state, coarse=replace(coarse, spreads=None))
    return {**out, "without": ours(), "faiss": {str(nprobe): theirs(nprobe) for nprobe in NPROBES}}


def main() -> None:
    options = measure.arguments(__doc__).parse_args()
    gg.warmup()
    measure.report({"bench": "ann spreads", **{name: figures(rows) for name, rows in made()}}, options.json)


if __name__ == "__main__":
    main()
