"""Where a walk of the base layer begins: at what the layers lead to, or at the best of so many random nodes.

The same graph is searched both ways, in turns: recall is nearly the same at the same effort, so the ratio of the times is
what the layers save. One random node, always the same, is what a flat graph with a fixed entry has.

Run: python bench/ann/layers.py --data tokens --json bench/results/ann/layers-tokens.json
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from contest import arguments, settings, start
from shared import measure
from task import K, recall

import gingham as gg
from gingham.index.graph import Graph
from gingham.index.graph_search import GraphSearch

SAMPLES = (1, 32, 128, 512, 1024)
EFFORTS = (16, 64, 256)
ROUNDS = 15


def flat(graph: Graph, entries: int) -> Graph:
    """The same base layer under one layer of random nodes, all of which are scored: nodes lie in a random order."""
    return Graph(graph.links, graph.nodes[-entries:], graph.layers[-entries:], np.array([0, entries], np.int64))


def main() -> None:
    options = arguments(__doc__).parse_args()
    task = start(options)
    gg.set_threads(1)
    gg.warmup()
    index = gg.index.HNSW(task.data.rows.shape[1], metric=task.data.metric)
    index.add(task.data.rows)
    print("built", file=sys.stderr, flush=True)
    found: Any = index._search
    graphs = {"layers": found._graph} | {f"{n} entries": flat(found._graph, n) for n in SAMPLES}
    searches = {name: GraphSearch(graph, found._codec, found._codes) for name, graph in graphs.items()}
    queries = task.data.queries
    out: dict[str, Any] = {}
    for effort in EFFORTS:
        times: dict[str, list[float]] = {name: [] for name in searches}
        recalls = {}
        for turn in range(ROUNDS + 1):
            for name, search in searches.items():
                started = time.process_time()
                rows = search.run(queries, K, effort)[1]
                if turn:
                    times[name].append(time.process_time() - started)
                else:
                    recalls[name] = recall(task.data, rows, task.scores, slice(None))
        out[str(effort)] = {
            name: {
                "recall": round(recalls[name], 4),
                "us": round(1e6 * float(np.median(times[name])) / len(queries), 2),
                "time over layers": round(float(np.median(np.divide(times[name], times["layers"]))), 3),
            }
            for name in searches
        }
    starts = found._graph.starts.tolist()
    measure.report({"bench": "ann layers", **settings(task, options), "starts": starts, "efforts": out}, options.json)


if __name__ == "__main__":
    main()
