"""Large stores: open, first query, filters, and the memory of reading processes.

Bars: open under 50 ms at 400,000 rows of 384 dimensions; a filter on 1,000,000 rows under 10 ms.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, report

import gingham as gg
from gingham import F

CHILD = """
import sys, time, json
import numpy, pyarrow, gingham as gg, gingham.connect, gingham.rows, gingham.index.exact
gg.warmup()
query = numpy.ones(int(sys.argv[2]), "f4")
t = time.perf_counter(); db = gg.open(sys.argv[1], mode="r"); opened = time.perf_counter() - t
t = time.perf_counter(); docs = db["docs"]; docs.search(query); first = time.perf_counter() - t
t = time.perf_counter(); docs.search(query); second = time.perf_counter() - t
print(json.dumps({"open_ms": 1e3 * opened, "first_query_ms": 1e3 * first, "second_query_ms": 1e3 * second}), flush=True)
sys.stdin.readline()
"""


def start_reader(path: Path, dim: int) -> tuple[subprocess.Popen[str], dict[str, float]]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(dim)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, json.loads(child.stdout.readline())


def memory(pid: int, path: Path) -> dict[str, float]:
    """Resident and proportional MiB of one process, in all and of the database file."""
    out = {"rss": 0.0, "pss": 0.0, "map_rss": 0.0, "map_pss": 0.0}
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if "-" in line.split(" ", 1)[0]:
            ours = str(path) in line
        elif key in ("Rss", "Pss"):
            size = int(rest.split()[0]) / 1024
            out[key.lower()] += size
            out["map_" + key.lower()] += size if ours else 0.0
    return out


def open_and_readers(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    path = folder / "vectors"
    rng = np.random.default_rng(0)
    with gg.open(path) as db:
        docs = db.create_collection("docs", vectors={"v": gg.Dense(dim)})
        for first in range(0, rows, 20_000):
            ids = [f"doc-{i}" for i in range(first, min(first + 20_000, rows))]
            docs.upsert(ids=ids, vectors={"v": rng.standard_normal((len(ids), dim), dtype=np.float32)})
        docs.maintain()
        segments = docs.stats().segments
    timings = []
    for _ in range(5):
        child, figures = start_reader(path, dim)
        child.communicate("\n")
        timings.append(figures)
    readers = [start_reader(path, dim)[0] for _ in range(8)]
    found = [memory(child.pid, path) for child in readers]
    for child in readers:
        child.communicate("\n")
    return {
        "rows": rows, "dim": dim, "segments": segments,
        "best_of_5": {name: min(t[name] for t in timings) for name in timings[0]},
        "eight_readers_mib": {name: {"each": round(found[0][name]), "sum": round(sum(f[name] for f in found))} for name in found[0]},
    }  # fmt: skip


def filters(folder: Path, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {"rows": rows}
    with gg.open(folder / "filters") as db:
        docs = db.create_collection("docs", fields={"year": gg.Int(), "lang": gg.Keyword(), "price": gg.Float()})
        langs = np.array(["en", "de", "fr", "es", "it", "pt", "nl", "pl"])
        for first in range(0, rows, 100_000):
            docs.upsert(
                ids=list(range(first, first + 100_000)),
                fields={
                    "year": rng.integers(1990, 2026, 100_000),
                    "lang": langs[rng.integers(0, 8, 100_000)].tolist(),
                    "price": rng.random(100_000),
                },
            )
        docs.maintain()
        out["segments"] = docs.stats().segments
        docs.count(where=F.year.is_not_null() & F.lang.is_not_null() & F.price.is_not_null())
        for name, make in {
            "int range": lambda n: F.year >= 2000 + n,
            "keyword in": lambda n: F.lang.is_in("en", "de", f"x{n}"),
            "range and keyword": lambda n: (F.year >= 2000 + n) & F.lang.is_in("en", "de"),
            "float between": lambda n: F.price.between(0.1 + n / 100, 0.6),
            "not, or": lambda n: ~((F.lang == "en") | (F.price < 0.1 + n / 100)),
        }.items():
            times = []
            for number in range(9):
                started = time.perf_counter()
                docs.count(where=make(number))
                times.append(1e3 * (time.perf_counter() - started))
            started = time.perf_counter()
            docs.count(where=make(0))
            out[name] = {
                "new_filter_ms_best": min(times),
                "new_filter_ms_median": float(np.median(times)),
                "again_ms": 1e3 * (time.perf_counter() - started),
            }
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    gg.warmup()
    folder = Path(tempfile.mkdtemp())
    try:
        result = {
            "bench": "store",
            "filters": filters(folder, 1_000_000),
            "open": open_and_readers(folder, options.rows, options.dim),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(result, options.json)


if __name__ == "__main__":
    main()
