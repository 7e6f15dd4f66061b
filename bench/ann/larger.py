"""A collection of lists that is larger than the memory it may take: answers, speed, and bytes read from the disk.

The store is filled first. Then a process searches it that may take a quarter of the store beyond what Python and the
kernels take: by a memory cgroup where one can be made, which counts the pages of the map too, else by RLIMIT_DATA, which
does not. The first query checks all of it, piece by piece; the others are counted. Answers are compared with those of an
exact scan over the vectors.

Run: python bench/ann/larger.py --rows 400000 --json bench/results/ann/larger.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from list_build import clustered
from shared import measure

import gingham as gg

QUERIES, K, SHARE = 300, 10, 4
NPROBES = (4, 16, 64)
CGROUP = Path("/sys/fs/cgroup/memory")


def fill(folder: str, rows: int, codec: str) -> int:
    """Write the store and return its bytes."""
    gg.warmup()
    data = clustered(rows)
    np.save(Path(folder) / "queries.npy", data.queries[:QUERIES])
    np.save(Path(folder) / "truth.npy", data.nearest(K)[:QUERIES])
    with gg.open(Path(folder) / "db", durability="none") as db:
        docs = db.create_collection("docs", vectors={"v": gg.Dense(data.rows.shape[1], index="IVF", codec=codec)})
        for start in range(0, rows, 50_000):
            part = data.rows[start : start + 50_000]
            docs.upsert(ids=list(range(start, start + len(part))), vectors={"v": part})
        docs.maintain()
        db.compact()
        print(docs.stats(), file=sys.stderr)
    return sum(file.stat().st_size for file in (Path(folder) / "db").rglob("data.mdb"))


def forget(folder: str) -> None:
    """Put the files of the store out of the page cache."""
    for file in (Path(folder) / "db").rglob("data.mdb"):
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def counters() -> dict[str, int]:
    """Bytes read from the disk, and kilobytes of private and of mapped memory."""
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if "Rss" in line)
    return {"read": int(io["read_bytes"]), **{name: int(value.split()[0]) for name, value in status.items()}}


def limited(limit: int) -> str:
    """Put this process under a limit and say which."""
    group = CGROUP / f"gingham-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        return f"cgroup, {limit} bytes"
    except OSError:
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        most = 1024 * int(status["VmData"].split()[0]) + limit
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        return f"RLIMIT_DATA, {most} bytes"


def search(folder: str, limit: int) -> dict[str, Any]:
    """Search under the limit and say what it took."""
    gg.warmup()
    queries, truth = np.load(Path(folder) / "queries.npy"), np.load(Path(folder) / "truth.npy")
    out: dict[str, Any] = {"limit": limited(limit)}
    forget(folder)
    with gg.open(Path(folder) / "db", mode="r") as db:
        docs = db["docs"]
        started = time.perf_counter()
        docs.search(queries[0], k=K)
        out["seconds of the first query, which checks all"] = round(time.perf_counter() - started, 2)
        for nprobe in NPROBES:
            before = counters()
            started = time.perf_counter()
            found = [docs.search(query, k=K, nprobe=nprobe).ids for query in queries]
            seconds = time.perf_counter() - started
            after = counters()
            recall = float(np.mean([len(set(a) & set(b.tolist())) / K for a, b in zip(found, truth, strict=True)]))
            out[f"nprobe {nprobe}"] = {
                "recall": round(recall, 4), "queries/s": round(len(queries) / seconds),
                "kilobytes read a query": round((after["read"] - before["read"]) / 1024 / len(queries)),
                "MiB mapped": after["RssFile"] // 1024, "MiB private": after["RssAnon"] // 1024,
            }  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--codec", default="RaBitQ1")
    parser.add_argument("--search", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(search(options.search[0], int(options.search[1]))))
        return
    made = Path(__file__).parents[1] / ".data"
    made.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made) as folder:
        nbytes = fill(folder, options.rows, options.codec)
        limit = nbytes // SHARE
        done = subprocess.run(
            [sys.executable, __file__, "--search", folder, str(limit)], stdout=subprocess.PIPE, text=True, check=True
        )
        about = {
            "bench": "ann larger than memory", "rows": options.rows, "codec": options.codec, "store bytes": nbytes,
            "bytes allowed": limit,
        }  # fmt: skip
        measure.report({**about, "found": json.loads(done.stdout)}, options.json)


if __name__ == "__main__":
    main()
