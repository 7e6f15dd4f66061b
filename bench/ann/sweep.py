"""The whole curve of every contestant: recall and queries a second for a grid of efforts, all in turns.

Run: python bench/ann/sweep.py --data minilm --json bench/results/ann/sweep-minilm.json
"""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from contest import arguments, opened, settings, start
from shared import measure

if TYPE_CHECKING:
    from contest import Worker
    from task import Task

EFFORTS = (10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ENOUGH = 0.999
"""Recall at which a curve ends."""
STUCK = 0.0005
"""Recall that three efforts have to gain, or else the curve ends."""
ALL = slice(None)


def goes_on(recalls: list[float]) -> bool:
    """Whether more effort could find more that is worth showing."""
    return not recalls or (recalls[-1] < ENOUGH and (len(recalls) < 3 or recalls[-1] - recalls[-3] >= STUCK))


def point(task: Task, worker: Worker, effort: int, seconds: float, *, single: bool) -> dict[str, float]:
    got = worker.ask("search", effort=effort, part=ALL, seconds=seconds, single=single)
    return {
        "effort": effort, "recall": task.recall(got["found"], ALL), "queries/s": got["queries"] / got["wall"],
        "queries/s cpu": got["queries"] / got["cpu"],
    }  # fmt: skip


def curves(task: Task, workers: dict[str, Worker], options: Any) -> dict[str, list[dict[str, float]]]:
    """Points of each contestant: medians over the rounds."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for effort in EFFORTS:
        running = [name for name in workers if goes_on([one["recall"] for one in found[name]])]
        if not running:
            break
        rounds = [
            {name: point(task, workers[name], effort, options.seconds, single=options.single) for name in running}
            for _ in range(options.rounds)
        ]
        for name in running:
            found[name].append({key: median(one[name][key] for one in rounds) for key in rounds[0][name]})
        print(effort, *(f"{name} {found[name][-1]['recall']:.4f}" for name in running), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of a point in a round")
    parser.add_argument("--single", action="store_true", help="one query a call")
    options = parser.parse_args()
    task = start(options)
    with opened(task, options) as (workers, about):
        found = curves(task, workers, options)
    result = {"bench": "ann sweep", **settings(task, options), "calls": "single" if options.single else "batch"}
    measure.report({**result, "contestants": about, "curves": found}, options.json)


if __name__ == "__main__":
    main()
