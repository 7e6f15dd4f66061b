"""The same graph in a collection: what the collection adds to a query, the map to the walk, and how it opens.

Searches of one query, in turns: through the collection; by the graph, codes and vectors on the pages of the file; and by
copies of them on the heap. Each figure is the mean over queries of the best of all rounds. Then new processes, with
kernels in the cache, open the collection and search it once.

Run: python bench/ann/collection.py --data tokens --json bench/results/ann/collection-tokens.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from contest import arguments, settings, start
from shared import measure
from task import K, recall

import gingham as gg
from gingham.codecs.protocol import Codes
from gingham.index.chunked_rows import ChunkedRows
from gingham.index.exact import prepare_queries
from gingham.index.graph import Graph
from gingham.index.graph_search import GraphSearch

QUERIES, ROUNDS, EF, BATCH = 200, 15, 64, 20_000
CHILD = """
import sys, time, json
import numpy
query = numpy.load(sys.argv[2])[0]
begun = time.perf_counter()
import gingham as gg, gingham.connect, gingham.rows
started = time.perf_counter()
db = gg.open(sys.argv[1], mode="r")
docs = db["docs"]
opened = time.perf_counter()
docs.search(query)
first = time.perf_counter()
gg.warmup()
warm = time.perf_counter()
docs.search(query)
print(json.dumps({"import ms": 1e3 * (started - begun), "open ms": 1e3 * (opened - started),
  "first query ms": 1e3 * (first - opened), "warm-up ms": 1e3 * (warm - first), "next query ms": 1e3 * (time.perf_counter() - warm)}))
"""


def filled(db: gg.Database, data: Any) -> tuple[gg.Collection, dict[str, float]]:
    """A collection of all rows, in one segment with a graph."""
    dim = data.rows.shape[1]
    docs = db.create_collection("docs", vectors={"v": gg.Dense(dim, data.metric, index="HNSW16")})
    started = time.perf_counter()
    for first in range(0, len(data.rows), BATCH):
        rows = data.rows[first : first + BATCH]
        docs.upsert(ids=list(range(first, first + len(rows))), vectors={"v": rows})
    written = time.perf_counter()
    docs.maintain()
    stats = docs.stats()
    return docs, {
        "upsert s": round(written - started, 1), "maintain s": round(time.perf_counter() - written, 1),
        "segments": stats.segments, "unindexed rows": stats.vectors["v"].unindexed_rows,
    }  # fmt: skip


def copied(coded: Any, part: Any, metric: Any) -> GraphSearch:
    """A search of copies on the heap."""
    graph = Graph.from_arrays({name: np.array(a) for name, a in coded.graph.graph.arrays().items()}, part.rows)
    codes = Codes(part.rows, {name: np.array(a) for name, a in coded.codes.arrays.items()})
    rows = ChunkedRows([(np.array(c.vectors), np.array(c.norms)) for c in part.chunks("v")], metric)
    return GraphSearch(graph, coded.codec, codes, rows.score)


def in_turns(docs: gg.Collection, data: Any) -> dict[str, float]:
    """Microseconds of one query, each way; the largest segment alone is searched without the collection."""
    with docs._reader.session() as session:
        parts = list(session.segments(session.collection_by_id(docs._cid)))
        part = max(parts, key=lambda part: part.rows)
        coded = part.coded("v")
        assert coded is not None
        assert coded.graph is not None
        mapped = GraphSearch(coded.graph.graph, coded.codec, coded.codes, coded.vectors.score)
        heap = copied(coded, part, data.metric)
        prepared = [prepare_queries(q[None], data.metric) for q in data.queries[:QUERIES]]
        calls: Any = {
            "collection": lambda i: docs.search(data.queries[i], k=K, ef_search=EF),
            "mapped": lambda i: mapped.run(prepared[i], K, EF),
            "heap": lambda i: heap.run(prepared[i], K, EF),
        }
        best = {name: np.full(QUERIES, np.inf) for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                for i in range(QUERIES):
                    started = time.perf_counter()
                    call(i)
                    best[name][i] = min(best[name][i], time.perf_counter() - started)
    means = {f"{name} us": round(1e6 * float(times.mean()), 1) for name, times in best.items()}
    return means | {
        "overhead us": round(means["collection us"] - means["mapped us"], 1),
        "map over heap": round(means["mapped us"] / means["heap us"], 3),
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    task = start(options)
    gg.warmup()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[1] / ".data") as folder:
        path = Path(folder) / "db"
        with gg.open(path) as db:
            docs, made = filled(db, task.data)
            found = np.array([hits.ids for hits in docs.search(task.data.queries, k=K, ef_search=EF)], np.int64)
            made["recall"] = round(recall(task.data, found, task.scores, slice(None)), 4)
            figures: dict[str, Any] = in_turns(docs, task.data)
        child = [sys.executable, "-c", CHILD, str(path), str(task.folder / "queries.npy")]
        opened = [json.loads(subprocess.run(child, capture_output=True, check=True).stdout) for _ in range(5)]
        figures["new process, best of 5"] = {name: round(min(one[name] for one in opened), 1) for name in opened[0]}
    measure.report({"bench": "ann collection", **settings(task, options), "ef": EF, **made, **figures}, options.json)


if __name__ == "__main__":
    main()
