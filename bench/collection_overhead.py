"""What a collection adds to a search of one query: its time less that of the graph search inside it.

Run as ``python bench/collection_overhead.py [ROWS] [DIM]``. All are timed in turns in one process, all queries in a
round; the figure is the difference of the mean over queries of the best of all rounds. The same graph, codes and
vectors copied to the heap tell what the map costs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import numpy as np

import gingham as gg
from gingham.codecs.protocol import Codes
from gingham.index.chunked_rows import ChunkedRows
from gingham.index.exact import prepare_queries
from gingham.index.graph import Graph
from gingham.index.graph_search import GraphSearch

QUERIES, ROUNDS, K, EF = 200, 15, 10, 64


def timed(call: Any, query: Any) -> float:
    started = time.perf_counter()
    call(query)
    return time.perf_counter() - started


def main() -> None:
    rows, dim = (int(argument) for argument in (sys.argv[1:] + ["100000", "128"][len(sys.argv) - 1 :]))
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((32, dim))
    X, Q = (
        (rng.standard_normal((n, 32)) @ basis + 0.3 * rng.standard_normal((n, dim))).astype(np.float32)
        for n in (rows, QUERIES)
    )
    gg.warmup()
    gg.set_threads(2)
    with tempfile.TemporaryDirectory() as folder, gg.open(folder) as db:
        docs = db.create_collection("docs", vectors={"v": gg.Dense(dim, index="HNSW16")})
        docs.upsert(ids=list(range(rows)), vectors={"v": X})
        started = time.perf_counter()
        docs.maintain()
        print(f"{rows} rows of {dim} dimensions: graph built in {time.perf_counter() - started:.1f} s")
        with docs._reader.session() as session:
            (part,) = session.segments(session.collection_by_id(docs._cid))
            coded = part.coded("v")
            assert coded is not None
            assert coded.graph is not None
            mapped = GraphSearch(coded.graph[1], coded.codec, coded.codes, coded.vectors.score)
            copied = GraphSearch(
                Graph.from_arrays({name: np.array(a) for name, a in coded.graph[1].arrays().items()}, rows),
                coded.codec,
                Codes(rows, {name: np.array(a) for name, a in coded.codes.arrays.items()}),
                ChunkedRows([(np.array(c.vectors), np.array(c.norms)) for c in part.chunks("v")], "cosine").score,
            )
            prepared = [prepare_queries(q[None], "cosine") for q in Q]
            calls = {
                "collection": (lambda i: docs.search(Q[i], k=K)),
                "mapped": (lambda i: mapped.run(prepared[i], K, EF)),
                "copied": (lambda i: copied.run(prepared[i], K, EF)),
            }
            best = {name: np.full(QUERIES, np.inf) for name in calls}
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    for i in range(QUERIES):
                        best[name][i] = min(best[name][i], timed(call, i))
            means = {name: float(times.mean()) * 1e6 for name, times in best.items()}
    print("  ".join(f"{name} {mean:.1f} us" for name, mean in means.items()))
    print(
        f"overhead {means['collection'] - means['mapped']:.1f} us, map over heap {means['mapped'] / means['copied']:.3f}"
    )


if __name__ == "__main__":
    main()
