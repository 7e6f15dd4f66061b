"""What ``target_recall`` delivers: by bare indexes and by a collection, with rows and with sample queries to tell.

Half of the queries are given as a sample, and recall is measured with the other half. Where queries are rows of the
same kind, both ways should deliver what was asked for; where they are harder, only the sample tells.

Run: python bench/ann/targets.py --data minilm --json bench/results/ann/targets-minilm.json
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from collection import filled
from contest import arguments, settings, start
from shared import measure
from task import K, recall

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = (0.90, 0.95, 0.99)
ROUNDS = 3


def delivered(task: Any, part: slice, search: Callable[[Any, float], np.ndarray]) -> dict[str, Any]:
    """Recall and queries a second of each target."""
    out = {}
    queries = task.data.queries[part]
    for target in TARGETS:
        seconds = []
        for _ in range(ROUNDS):
            started = time.process_time()
            found = search(queries, target)
            seconds.append(time.process_time() - started)
        share = recall(task.data, found, task.scores[part], part)
        out[str(target)] = {"recall": round(share, 4), "queries/s": round(len(queries) / min(seconds))}
    return out


def main() -> None:
    options = arguments(__doc__).parse_args()
    task = start(options)
    gg.set_threads(1)
    gg.warmup()
    half = len(task.data.queries) // 2
    sample, part = task.data.queries[:half], slice(half, None)
    index = gg.index.HNSW(task.data.rows.shape[1], metric=task.data.metric)
    index.add(task.data.rows)

    def bare(queries: Any, target: float) -> np.ndarray:
        return index.search(queries, K, target_recall=target)[1]

    figures = {"bare, rows": delivered(task, part, bare)}
    index.calibrate(sample)
    figures["bare, sample queries"] = delivered(task, part, bare)
    lists = gg.index.IVF(task.data.rows.shape[1], metric=task.data.metric)
    lists.add(task.data.rows)

    def listed(queries: Any, target: float) -> np.ndarray:
        return lists.search(queries, K, target_recall=target)[1]

    figures["bare lists, rows"] = delivered(task, part, listed)
    lists.calibrate(sample)
    figures["bare lists, sample queries"] = delivered(task, part, listed)
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[1] / ".data") as folder, gg.open(folder) as db:
        docs, _ = filled(db, task.data)

        def through(queries: Any, target: float) -> np.ndarray:
            return np.array([hits.ids for hits in docs.search(queries, k=K, target_recall=target)], np.int64)

        figures["collection, rows"] = delivered(task, part, through)
        docs.calibrate(sample)
        figures["collection, sample queries"] = delivered(task, part, through)
        report = docs.recall(queries=task.data.queries[part], target_recall=0.95)
        figures["recall(target_recall=0.95)"] = {"recall": report.recall, "low": report.low, "high": report.high}
    measure.report({"bench": "ann targets", **settings(task, options), "sample": half, **figures}, options.json)


if __name__ == "__main__":
    main()
