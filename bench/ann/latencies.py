"""Processor time of single queries under the filters of ``filters.py``: its 99th percentile over that without a filter.

Each query is asked several times, with a filter and without in turns, and its least time counts.

Run: python bench/ann/latencies.py --data minilm --json bench/results/ann/latencies-minilm.json
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import task as tasks
from contest import arguments, settings, start
from filters import KINDS, SHARES, masks
from shared import measure

import gingham as gg

EFFORT = 64
ROUNDS = 5


def cell(task: Any, index: Any, kind: str, share: float) -> dict[str, Any]:
    """Recall among the allowed rows and ratios of times of one kind and share."""
    plain, filtered, recalls = [], [], []
    for mask in masks(task, kind, share):
        queries = task.data.queries[mask.asked]
        times = np.full((2, len(queries)), np.inf)
        found = np.empty((len(queries), tasks.K), np.int64)
        for _ in range(ROUNDS):
            for i, query in enumerate(queries):
                for way, allow in enumerate((None, mask.allowed)):
                    started = time.process_time_ns()
                    rows = index.search(query, tasks.K, ef_search=EFFORT, allow=allow)[1]
                    times[way, i] = min(times[way, i], time.process_time_ns() - started)
                found[i] = rows[0]
        plain.append(times[0])
        filtered.append(times[1])
        recalls.append(tasks.recall(task.data, found, mask.scores, mask.asked, mask.allowed))
    before, after = np.concatenate(plain) / 1e3, np.concatenate(filtered) / 1e3
    percentiles = [float(np.percentile(one, 99)) for one in (before, after)]
    return {
        "recall": round(float(np.mean(recalls)), 4), "median us": round(float(np.median(after))),
        "99th percentile us": round(percentiles[1]), "over that without": round(percentiles[1] / percentiles[0], 2),
    }  # fmt: skip


def main() -> None:
    options = arguments(__doc__).parse_args()
    task = start(options)
    gg.set_threads(1)
    gg.warmup()
    index = gg.index.HNSW(task.data.rows.shape[1], metric=task.data.metric)
    index.add(task.data.rows)
    cells: dict[str, Any] = {}
    for kind in KINDS:
        for share in SHARES:
            cells.setdefault(kind, {})[str(share)] = cell(task, index, kind, share)
            print(kind, share, cells[kind][str(share)], file=sys.stderr, flush=True)
    measure.report(
        {"bench": "ann latencies", **settings(task, options), "effort": EFFORT, "cells": cells}, options.json
    )


if __name__ == "__main__":
    main()
