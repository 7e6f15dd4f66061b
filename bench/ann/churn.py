"""Rows that come and go: recall and speed of an index that lived through changes, beside one built of the same rows.

A third of the rows is indexed. In each round, a fifth of the living ones goes and as many new ones come, and all
contestants search with one effort, in turns. At the end each builds a new index of the rows that live.

Run: python bench/ann/churn.py --data minilm --json bench/results/ann/churn-minilm.json
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import task as tasks
from contest import Refused, Worker, arguments, settings, start
from runners import CONTESTANTS
from shared import measure

SHARE = 0.2
ALL = slice(None)


def generations(n_rows: int, n_rounds: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Numbers of the rows that go, that come, and that live after it, of the start and of each round."""
    rng = np.random.default_rng(0)
    order = rng.permutation(n_rows)
    live, waiting = order[: n_rows // 3], order[n_rows // 3 :]
    out = [(live[:0], live, live)]
    for _ in range(n_rounds):
        count = min(round(SHARE * len(live)), len(waiting))
        gone = rng.choice(live, count, replace=False)
        new, waiting = waiting[:count], waiting[count:]
        live = np.concatenate([np.setdiff1d(live, gone), new])
        out.append((gone, new, live))
    return out


def look(task: tasks.Task, worker: Worker, bars: np.ndarray, allowed: np.ndarray, options: Any) -> dict[str, float]:
    """Recall and speed at the effort of the options."""
    got = worker.ask("search", effort=options.effort, part=ALL, seconds=options.seconds)
    recall = tasks.recall(task.data, got["found"], bars, ALL, allowed)
    return {"recall": recall, "queries/s": got["queries"] / got["wall"], "queries/s cpu": got["queries"] / got["cpu"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(contestants=[name for name, entry in CONTESTANTS.items() if entry.changes])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--effort", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    task = start(options)
    n_rows = len(task.data.rows)
    found: dict[str, Any] = {}
    steps = generations(n_rows, options.rounds)
    allowed = np.zeros(n_rows, bool)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in options.contestants:
            worker = stack.enter_context(Worker(CONTESTANTS[name], task, options.core))
            try:
                worker.ask("start", data=task.data.name, n_rows=n_rows)
                workers[name], found[name] = worker, {"rounds": []}
            except Refused as refusal:
                found[name] = {"refused": str(refusal)}
        for turn, (gone, new, live) in enumerate([*steps, (steps[0][0], steps[-1][2], steps[-1][2])]):
            allowed[:] = False
            allowed[live] = True
            some = replace(task.data, rows=task.data.rows[np.sort(live)])
            bars = tasks.kth_scores(some, some.nearest(tasks.K))
            for name, worker in workers.items():
                print(f"round {turn} {name}", file=sys.stderr, flush=True)
                if turn == len(steps):
                    worker.ask("start", data=task.data.name, n_rows=n_rows)
                seconds = worker.ask("change", gone=gone, new=new)
                point = {"cpu seconds": seconds, **look(task, worker, bars, allowed, options)}
                if turn == len(steps):
                    found[name]["built anew"] = point
                else:
                    found[name]["rounds"].append(point)
    result = {"bench": "ann churn", **settings(task, options), "share": SHARE, "effort": options.effort}
    measure.report({**result, "contestants": found}, options.json)


if __name__ == "__main__":
    main()
