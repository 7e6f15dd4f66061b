"""Ours against each peer at equal recall, in turns: medians and quartiles of the ratios of all rounds.

On the even queries, the effort of each contestant that reaches a recall is searched for. On the odd ones, all
contestants then search in turns, each with an effort that finds less and one that finds more; between these the logarithm
of queries a second is linear in recall, and its value at the recall asked for is what is compared. A contestant whose
least effort finds more than that runs with it, and one that never finds as much is out.

Run: python bench/ann/duel.py --data minilm --json bench/results/ann/duel-minilm.json
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from contest import arguments, opened, settings, start
from runners import CONTESTANTS
from shared import measure
from task import K

if TYPE_CHECKING:
    from contest import Worker
    from task import Task

TARGETS = (0.90, 0.95, 0.99)
GREATEST = 4096
"""Effort at which a recall that was not reached is given up."""
SPREAD = 1.1
"""Between the effort that reaches a recall and the two that are timed around it."""
HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}
ODD = HALVES["odd"]


@dataclass(frozen=True)
class Bracket:
    """Efforts to time for one recall, and the recall of each on the odd queries."""

    efforts: tuple[int, ...]
    recalls: tuple[float, ...]

    def at(self, target: float, times: list[float]) -> float:
        """Seconds at a recall, from those at the efforts."""
        low, high = self.recalls[0], self.recalls[-1]
        if len(times) == 1:
            return times[0]
        share = (target - low) / (high - low)
        return math.exp((1 - share) * math.log(times[0]) + share * math.log(times[-1]))


class Aim:
    """Recall of a contestant by effort."""

    def __init__(self, task: Task, worker: Worker) -> None:
        self._task, self._worker = task, worker
        self._known: dict[tuple[str, int], float] = {}

    def recall(self, effort: int, half: str = "even") -> float:
        """Of one half of the queries."""
        if (half, effort) not in self._known:
            got = self._worker.ask("search", effort=effort, part=HALVES[half], seconds=0)
            self._known[half, effort] = self._task.recall(got["found"], HALVES[half])
        return self._known[half, effort]

    def effort(self, target: float) -> int | None:
        """The least effort, within 3 %, that reaches a recall on the even queries."""
        low, high = K, K
        while self.recall(high) < target:
            if high >= GREATEST:
                return None
            low, high = high, 2 * high
        while high - low > max(1, 0.03 * high):
            middle = (low + high) // 2
            low, high = (low, middle) if self.recall(middle) >= target else (middle, high)
        return high

    def bracket(self, target: float) -> Bracket | None:
        """Efforts to time for a recall, with which the odd queries find less and more; None where it is not reached."""
        found = self.effort(target)
        if found is None:
            return None
        low, high = max(K, min(found - 1, round(found / SPREAD))), max(found + 1, round(found * SPREAD))
        while low > K and self.recall(low, "odd") >= target:
            low, high = max(K, math.floor(low / SPREAD)), low
        while self.recall(high, "odd") < target:
            if high >= GREATEST:
                return None
            low, high = high, math.ceil(high * SPREAD)
        efforts = (K,) if self.recall(K, "odd") >= target else (low, high)
        return Bracket(efforts, tuple(self.recall(effort, "odd") for effort in efforts))

    @property
    def most(self) -> float:
        """Recall with the greatest effort tried, of the half of the queries that finds less."""
        return min(found for (_, effort), found in self._known.items() if effort >= GREATEST)


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = (round(float(q), 3) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "low": low, "high": high}


def rounds(workers: dict[str, Worker], brackets: dict[str, Bracket], target: float, options: Any) -> dict[str, Any]:
    """Seconds of the odd queries at the recall: for each contestant, those of each round by the clock and the processor."""
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in brackets}
    for turn in range(options.rounds):
        # The next to run changes from round to round, so that no one always follows the same contestant.
        order = np.random.default_rng(turn).permutation(list(brackets))
        for name in order:
            got = [
                workers[name].ask("search", effort=effort, part=ODD, seconds=options.seconds, single=options.single)
                for effort in brackets[name].efforts
            ]
            for clock in ("wall", "cpu"):
                times[name][clock].append(brackets[name].at(target, [one[clock] for one in got]))
    return times


def duel(workers: dict[str, Worker], aims: dict[str, Aim], target: float, options: Any) -> dict[str, Any]:
    """One recall: efforts, queries a second, and our ratios to each peer."""
    brackets, out = {}, {}
    for name in workers:
        found = aims[name].bracket(target)
        if found is None:
            out[name] = {"out": f"finds {aims[name].most:.4f} at most"}
        else:
            brackets[name] = found
            print(target, name, found, file=sys.stderr, flush=True)
    times = rounds(workers, brackets, target, options)
    n_queries = len(range(*ODD.indices(options.queries)))
    for name, found in brackets.items():
        out[name] = {
            "efforts": found.efforts, "recalls": found.recalls, "floor": len(found.efforts) == 1,
            "queries/s": quartiles([n_queries / t for t in times[name]["wall"]]),
            "queries/s cpu": quartiles([n_queries / t for t in times[name]["cpu"]]),
        }  # fmt: skip
    ratios = {
        ours: {
            peer: {
                clock: quartiles([b / a for a, b in zip(times[ours][clock], times[peer][clock], strict=True)])
                for clock in ("wall", "cpu")
            }
            for peer in brackets
            if not CONTESTANTS[peer].ours
        }
        for ours in brackets
        if CONTESTANTS[ours].ours
    }
    return {"contestants": out, "ratios": ratios}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--targets", nargs="+", type=float, default=TARGETS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="least time of an effort in a round")
    parser.add_argument("--single", action="store_true", help="one query a call")
    options = parser.parse_args()
    task = start(options)
    options.queries = len(task.data.queries)
    with opened(task, options) as (workers, about):
        aims = {name: Aim(task, worker) for name, worker in workers.items()}
        found = {str(target): duel(workers, aims, target, options) for target in options.targets}
    result = {"bench": "ann duel", **settings(task, options), "calls": "single" if options.single else "batch"}
    measure.report({**result, "rounds": options.rounds, "contestants": about, "targets": found}, options.json)


if __name__ == "__main__":
    main()
