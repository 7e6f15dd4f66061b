"""Searches among some of the rows: shares of 50, 10, 1 and 0.1 %, chosen at random or by what queries are like.

Four queries are pivots. ``correlated`` allows the rows most similar to a pivot and asks the queries most similar to it;
``anti-correlated`` allows the same rows and asks the queries least similar. ``random`` allows rows at random. Each
contestant runs a grid of efforts for each mask, in turns.

Run: python bench/ann/filters.py --data minilm --json bench/results/ann/filters-minilm.json
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import curve
import numpy as np
import task as tasks
from contest import Refused, arguments, opened, settings, start
from runners import CONTESTANTS, DEFAULT
from shared import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contest import Worker
    from task import Task

SHARES = (0.5, 0.1, 0.01, 0.001)
KINDS = ("random", "correlated", "anti-correlated")
EFFORTS = (10, 20, 40, 80, 160, 320, 640, 1280)
ENOUGH = 0.995
TARGETS = (0.90, 0.95, 0.99)
PIVOTS = 4
QUERIES = 100
"""Asked with each mask."""


@dataclass(frozen=True)
class Mask:
    """Rows that may be found, bool (n,); the numbers of the queries that ask; the score of their K-th nearest row."""

    allowed: np.ndarray
    asked: np.ndarray
    scores: np.ndarray


def masks(task: Task, kind: str, share: float) -> Iterator[Mask]:
    """The masks of a kind and a share."""
    data, n = task.data, len(task.data.rows)
    rng = np.random.default_rng(0)
    for pivot in rng.choice(len(data.queries), PIVOTS, replace=False):
        allowed = np.zeros(n, bool)
        if kind == "random":
            allowed[rng.permutation(n)[: round(share * n)]] = True
            asked = rng.choice(len(data.queries), QUERIES, replace=False)
        else:
            near = _similarity(data.rows, data.queries[pivot], data.metric)
            allowed[np.argsort(-near)[: round(share * n)]] = True
            order = np.argsort(-_similarity(data.queries, data.queries[pivot], data.metric))
            asked = order[:QUERIES] if kind == "correlated" else order[-QUERIES:]
        some = replace(data, rows=data.rows[allowed], queries=data.queries[asked])
        yield Mask(allowed, asked, tasks.kth_scores(some, some.nearest(tasks.K)))


def _similarity(rows: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    return -np.square(rows - query).sum(axis=1) if metric == "l2" else rows @ query


def cell(task: Task, workers: dict[str, Worker], chosen: list[Mask]) -> dict[str, Any]:
    """Curves of all contestants over the masks of one kind and share."""
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    out: dict[str, Any] = {}
    for effort in EFFORTS:
        running = [n for n in workers if n not in out and (not points[n] or points[n][-1]["recall"] < ENOUGH)]
        sums = {name: np.zeros(3) for name in running}
        for mask in chosen:
            bits = np.packbits(mask.allowed, bitorder="little").tobytes()
            for name in list(running):
                try:
                    workers[name].ask("allow", bits=bits, n=len(mask.allowed))
                    got = workers[name].ask("search", effort=effort, part=mask.asked, seconds=0)
                except Refused as refusal:
                    out[name] = {"refused": str(refusal)}
                    running.remove(name)
                    continue
                found = tasks.recall(task.data, got["found"], mask.scores, mask.asked, mask.allowed)
                sums[name] += (found / len(chosen), got["wall"], got["cpu"])
        for name in running:
            recall, wall, cpu = sums[name]
            n = len(chosen) * QUERIES
            points[name].append({"effort": effort, "recall": recall, "queries/s": n / wall, "queries/s cpu": n / cpu})
    for name in workers:
        out.setdefault(name, {"points": points[name], "at": {str(t): curve.at(points[name], t) for t in TARGETS}})
    return {name: out[name] for name in workers}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(contestants=["gingham-scan", *(name for name in DEFAULT if CONTESTANTS[name].filters)])
    options = parser.parse_args()
    task = start(options)
    cells: dict[str, Any] = {}
    with opened(task, options) as (workers, about):
        for kind in KINDS:
            for share in SHARES:
                print(f"{kind} {share}", file=sys.stderr, flush=True)
                cells.setdefault(kind, {})[str(share)] = cell(task, workers, list(masks(task, kind, share)))
    measure.report(
        {"bench": "ann filters", **settings(task, options), "contestants": about, "cells": cells}, options.json
    )


if __name__ == "__main__":
    main()
