"""Start of a new process: import, first search, and when kernels take over, with an empty and with a filled cache.

Bars: from the start of the interpreter to the first answer of a search over 100,000 rows of 384 dimensions under 2 s,
with kernels in the cache and without. The database lies in the page cache. Figures are the best of the repeats.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, report

import gingham as gg

BAR_SECONDS = 2.0
SEARCH = """
import json, sys, time
started = time.perf_counter()
import gingham as gg
imported = time.perf_counter()
db = gg.open(sys.argv[1], mode="r")
docs = db["docs"]
query = [1.0] * int(sys.argv[2])
docs.search(query, k=10)
print(flush=True)
first = time.perf_counter()
slowest, ready = 0.0, None
from gingham.index import exact, warmup
while warmup.ready_kernels(exact.KERNELS) is None:
    begun = time.perf_counter(); docs.search(query, k=10); slowest = max(slowest, time.perf_counter() - begun)
ready = time.perf_counter()
docs.search(query, k=10)
after = time.perf_counter()
print(json.dumps({"import_seconds": imported - started, "first_search_seconds": first - imported,
                  "kernels_ready_seconds": ready - started, "slowest_search_meanwhile_seconds": slowest,
                  "first_kernel_search_seconds": after - ready}))
"""
WARMUP = """
import json, time
import gingham as gg
starts = {}
started = time.perf_counter()
gg.warmup(lambda name: starts.setdefault(name, time.perf_counter()))
ends = [*list(starts.values())[1:], time.perf_counter()]
modules = {name: end - start for (name, start), end in zip(starts.items(), ends)}
print(json.dumps({"seconds": ends[-1] - started, "modules": modules}))
"""
IN_PROCESS = """
import json, sys, time
import gingham as gg
gg.warmup()
db = gg.open(sys.argv[1], mode="r")
docs = db["docs"]
query = [1.0] * int(sys.argv[2])
times = []
for _ in range(20):
    begun = time.perf_counter(); docs.search(query, k=10); times.append(time.perf_counter() - begun)
print(json.dumps({"first_seconds": times[0], "later_seconds": min(times)}))
"""


def in_child(code: str, cache: Path, *args: object) -> dict[str, Any]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    answered = time.perf_counter() - started
    result = json.loads(line.strip() or child.stdout.readline())
    if child.wait():
        raise SystemExit("a measured process failed")
    return result if line.strip() else {"process_to_answer_seconds": answered, **result}


def wait_for_compiler(cache: Path) -> None:
    """Wait for the child that still compiles a module for a process that has ended."""
    for lock in cache.rglob(".lock"):
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: min(run[key] for run in runs) for key in runs[0]}


def make_database(path: Path, rows: int, dim: int, codec: str | None) -> None:
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {} if codec is None else {"codec": codec}
    with gg.open(path) as db:
        docs = db.create_collection("docs", vectors={"dense": gg.Dense(dim, "cosine", **settings)})
        for start in range(0, rows, 10_000):
            size = min(10_000, rows - start)
            vectors = rng.standard_normal((size, dim), dtype=np.float32)
            docs.upsert(ids=list(range(start, start + size)), vectors={"dense": vectors})
        docs.maintain(wait=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--codec", help="codec of the vectors; stored as they are by default")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        database, filled = folder / "database", folder / "filled"
        make_database(database, options.rows, options.dim, options.codec)
        compiled = in_child(WARMUP, filled)
        in_child(SEARCH, filled, database, options.dim)
        cold, cached, loaded, warm = [], [], [], []
        for i in range(options.repeats):
            cold.append(in_child(SEARCH, folder / f"empty{i}", database, options.dim))
            wait_for_compiler(folder / f"empty{i}")
            cached.append(in_child(SEARCH, filled, database, options.dim))
            loaded.append(in_child(WARMUP, filled)["seconds"])
            warm.append(in_child(IN_PROCESS, filled, database, options.dim))
    answered = {name: best(runs)["process_to_answer_seconds"] for name, runs in (("cold", cold), ("cached", cached))}
    result = {
        "bench": "startup",
        "rows": options.rows,
        "dim": options.dim,
        "codec": options.codec,
        "repeats": options.repeats,
        "empty_cache": best(cold),
        "filled_cache": best(cached),
        "after_warmup": best(warm),
        "compile_all": compiled,
        "load_all_seconds": min(loaded),
        "bar_seconds": BAR_SECONDS,
        "bars_held": {name: seconds < BAR_SECONDS for name, seconds in answered.items()},
    }
    report(result, options.json)


if __name__ == "__main__":
    main()
