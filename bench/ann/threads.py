"""Two threads against one: searches and builds, and loops that share nothing, in the same run.

A loop is sha256 over a buffer that fits the cache. What two of them reach at once is the most that two threads can; the
figures are speed-ups and their shares of that of the loops, medians of all rounds.

Run: python bench/ann/threads.py --data minilm --json bench/results/ann/threads-minilm.json
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from contest import arguments, settings, start
from shared import measure
from task import K

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, EF, SPINS = 9, 64, 600
BUFFER = bytes(1 << 18)


def spin(_: int) -> None:
    for _ in range(SPINS):
        hashlib.sha256(BUFFER).digest()


def loops(threads: int) -> None:
    """Two loops, in one thread or two."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(spin, range(2)))


def clocked(call: Callable[[int], object], threads: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    gg.set_threads(threads)
    wall, cpu = time.perf_counter(), time.process_time()
    call(threads)
    return time.perf_counter() - wall, time.process_time() - cpu


def compared(contestants: dict[str, Callable[[int], object]], rounds: int) -> dict[str, Any]:
    """Speed-ups of each and their share of that of the loops just before, and processor time of two threads over one."""
    ups: dict[str, list[float]] = {name: [] for name in contestants}
    cpus: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            (one, one_cpu), (two, two_cpu) = clocked(call, 1), clocked(call, 2)
            ups[name].append(one / two)
            cpus[name].append(two_cpu / one_cpu)
    loop = np.array(ups["loops"])
    return {
        name: {
            "speed-up": round(float(np.median(ups[name])), 3),
            "share of loops": round(float(np.median(ups[name] / loop)), 3),
            "cpu, two threads over one": round(float(np.median(cpus[name])), 3),
        }
        for name in contestants
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    task = start(options)
    gg.warmup()
    rows, queries = task.data.rows, np.tile(task.data.queries, (4, 1))

    def built() -> Any:
        index = gg.index.HNSW(rows.shape[1], metric=task.data.metric)
        index.add(rows)
        return index

    index = built()
    searched = compared(
        {"loops": loops, "search": lambda _: index.search(queries, K, ef_search=EF)}, ROUNDS
    )  # fmt: skip
    made = compared({"loops": loops, "build": lambda _: built()}, 3)
    result = {"bench": "ann threads", **settings(task, options), "ef": EF, "search": searched, "build": made}
    measure.report(result, options.json)


if __name__ == "__main__":
    main()
