"""What a server costs: searches over gRPC on loopback beside embedded ones, its CPU under load, and its ingest.

    python bench/serve.py [--rows 100000] [--seconds 10] [--readers 2] [--profile]

The server is a process of its own, as are the clients of the load test. Targets: a single search at most 0.6 ms slower at
the median, a batch of 100 at most 1.15 times as long, 0.4 ms of the server's CPU a query under 16 clients, 40,000 rows a
second written. With ``--readers`` only the load is measured: on a server with so many and on one without, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
MINILM = HERE / ".data" / "wordnet_minilm"
DIM, K, BATCH, CLIENTS = 384, 10, 100, 16


def vectors(rows: int, queries: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Sentence embeddings where they lie in bench/.data, else clustered vectors of the same shape."""
    files = sorted(MINILM.glob("*.npy")) if MINILM.exists() else []
    for file in files:
        found = np.load(file, mmap_mode="r")
        if found.ndim == 2 and found.shape[1] == DIM and len(found) >= rows + queries:
            chosen = np.random.default_rng(0).permutation(len(found))[: rows + queries]
            taken = np.asarray(found[np.sort(chosen)], np.float32)
            np.random.default_rng(1).shuffle(taken)
            return taken[:rows], taken[rows:], "MiniLM embeddings of WordNet glosses"
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, DIM), np.float32)
    made = centres[rng.integers(0, 1000, rows + queries)] + 0.7 * rng.standard_normal((rows + queries, DIM), np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made[:rows], made[rows:], "1,000 Gaussian clusters"


def median_ms(call: Any, arguments: Any, seconds: float) -> float:
    times, end, at = [], time.perf_counter() + seconds, 0
    while time.perf_counter() < end or len(times) < 5:
        begun = time.perf_counter()
        call(arguments[at % len(arguments)])
        times.append(time.perf_counter() - begun)
        at += 1
    return float(np.median(times) * 1e3)


def alternated(one: Any, other: Any, arguments: Any, seconds: float, rounds: int = 5) -> tuple[float, float]:
    """Medians of both, each the least of several rounds in turn, so that what else runs here meets both alike."""
    pairs = [[median_ms(call, arguments, seconds / rounds) for call in (one, other)] for _ in range(rounds)]
    return min(a for a, _ in pairs), min(b for _, b in pairs)


def cpu_seconds(pid: int) -> float:
    """Of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = " ".join(one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children")).split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


LOAD = """
import sys, threading, time
import numpy as np
import gingham as gg
url, file, clients, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
Q = np.load(file)
counts, times = [0] * clients, [[] for _ in range(clients)]
def run(at, end):
    with gg.open(url) as db:
        docs = db["docs"]
        docs.search(Q[at], k=10, fields=[])
        ready.wait()
        go.wait()
        while time.perf_counter() < end[0]:
            begun = time.perf_counter()
            docs.search(Q[(at * 131 + counts[at]) % len(Q)], k=10, fields=[])
            times[at].append(time.perf_counter() - begun)
            counts[at] += 1
end = [0.0]
ready, go = threading.Barrier(clients + 1), threading.Barrier(clients + 1)
threads = [threading.Thread(target=run, args=(at, end)) for at in range(clients)]
[t.start() for t in threads]
ready.wait()
print("ready", flush=True); sys.stdin.readline()
end[0] = time.perf_counter() + seconds
go.wait()
[t.join() for t in threads]
flat = np.sort(np.concatenate(times)) * 1e3
print(sum(counts), flat[len(flat) // 2], flat[int(len(flat) * .99)], flush=True)
sys.stdin.readline()
"""


def load(url: str, pid: int, queries: np.ndarray, clients: int, seconds: float) -> dict[str, float]:
    """Queries a second of clients in a process of their own, and what each cost the server's CPU."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(file := str(Path(folder) / "q.npy"), queries)
        with subprocess.Popen(
            [sys.executable, "-c", LOAD, url, file, str(clients), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdout.readline()
            before, begun, before_clients = cpu_seconds(pid), time.perf_counter(), cpu_seconds(child.pid)
            child.stdin.write("go\n")
            child.stdin.flush()
            count, p50, p99 = child.stdout.readline().split()
            took, used = time.perf_counter() - begun, cpu_seconds(pid) - before
            used_clients = cpu_seconds(child.pid) - before_clients
            child.stdin.write("end\n")
    return {
        "clients": clients, "queries_per_second": int(count) / took, "p50_ms": float(p50), "p99_ms": float(p99),
        "server_cpu_ms_per_query": used / int(count) * 1e3, "client_cpu_ms_per_query": used_clients / int(count) * 1e3,
    }  # fmt: skip


def ingest(docs: Any, X: np.ndarray, batch: int = 10_000) -> float:
    """Rows a second of one upsert, each batch synced in a commit; over gRPC it is a stream."""
    rows = (
        pa.record_batch({
            "id": np.arange(at, min(at + batch, len(X))),
            "v": pa.FixedSizeListArray.from_arrays(X[at : at + batch].ravel(), X.shape[1]),
        })
        for at in range(0, len(X), batch)
    )  # fmt: skip
    begun = time.perf_counter()
    docs.upsert(rows)
    return len(X) / (time.perf_counter() - begun)


def profiled(path: Path, queries: np.ndarray) -> None:
    """Print where the threads of a server in this process spend their time."""
    from gingham.server import main

    profiles: list[cProfile.Profile] = []

    class Profiled(main.CallPool):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            def run(*a: Any, **k: Any) -> Any:
                local = _local.__dict__
                if "profile" not in local:
                    local["profile"] = cProfile.Profile(time.thread_time)
                    profiles.append(local["profile"])
                return local["profile"].runcall(fn, *a, **k)

            return super().submit(run, *args, **kwargs)

    _local = threading.local()
    main.CallPool = Profiled  # type: ignore[misc]
    with gg.open(path) as db, main.Server(db, listen="127.0.0.1:0", max_workers=1) as server, gg.open(server.url) as to:
        docs = to["docs"]
        for query in queries[:50]:
            docs.search(query, k=K, fields=[])
        for one in profiles:
            one.clear()
        for at in range(2000):
            docs.search(queries[at % len(queries)], k=K, fields=[])
        pstats.Stats(*profiles).sort_stats("tottime").print_stats(30)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=10.0, help="of each measure")
    options.add_argument(
        "--readers", type=int, default=0, help="compare the load with and without so many, and no more"
    )
    options.add_argument("--json", type=Path, default=HERE / "results" / "serve.json")
    options.add_argument(
        "--profile", action="store_true", help="print where the server's CPU goes, and measure nothing"
    )
    given = options.parse_args()
    X, Q, data = vectors(given.rows, 1000)
    gg.warmup()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db"
        with gg.open(path) as db:
            docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, "cosine", index="HNSW16", codec="LVQ8")})
            docs.upsert(ids=list(range(len(X))), vectors={"v": X})
            db.maintain(wait=True)
        if given.profile:
            return profiled(path, Q)
        if given.readers:
            print(json.dumps(with_readers(path, Q, given.seconds, given.readers), indent=2))
            return None
        result = measured(path, X, Q, given.seconds)
    result = {"data": data, "rows": len(X), "dim": DIM, "cores": os.cpu_count(), **result}
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return None


@contextlib.contextmanager
def served(path: Path, readers: int = 0) -> Iterator[tuple[str, int]]:
    """Address and process of a server."""
    command = [
        sys.executable,
        "-m",
        "gingham",
        "serve",
        str(path),
        "--listen",
        "127.0.0.1:0",
        "--readers",
        str(readers),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1], server.pid
        finally:
            server.terminate()
            server.wait()


def with_readers(path: Path, Q: np.ndarray, seconds: float, readers: int, rounds: int = 3) -> list[dict[str, float]]:
    """The load on a server alone and on one with readers, in turn."""
    found = []
    for count in (0, readers) * rounds:
        with served(path, count) as (url, pid):
            load(url, pid, Q, CLIENTS, seconds / 4)
            found.append({"readers": count, **load(url, pid, Q, CLIENTS, seconds)})
    return found


def measured(path: Path, X: np.ndarray, Q: np.ndarray, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with served(path) as (url, pid):
        with gg.open(path, mode="r") as here, gg.open(url) as there:
            embedded, remote = here["docs"], there["docs"]
            for one in (embedded, remote):  # kernels are there, plans are kept
                for query in Q[:200]:
                    one.search(query, k=K, fields=[])
            inside, outside = alternated(
                lambda q: embedded.search(q, k=K, fields=[]), lambda q: remote.search(q, k=K, fields=[]), Q, seconds
            )
            result["single"] = {"embedded_p50_ms": inside, "grpc_p50_ms": outside, "overhead_ms": outside - inside}
            batches = [Q[at : at + BATCH] for at in range(0, len(Q), BATCH)]
            inside, outside = alternated(
                lambda q: embedded.search(q, k=K, fields=[]),
                lambda q: remote.search(q, k=K, fields=[]),
                batches,
                seconds,
            )
            result["batch_of_100"] = {"embedded_p50_ms": inside, "grpc_p50_ms": outside, "ratio": outside / inside}
        result["load"] = [load(url, pid, Q, clients, seconds) for clients in (1, CLIENTS)]
        with gg.open(url) as there:
            new = there.create_collection("new", vectors={"v": gg.Dense(DIM, "cosine")})
            over = ingest(new, X)
            there.drop_collection("new")
        result["ingest"] = {"grpc_rows_per_second": over}
    with tempfile.TemporaryDirectory() as folder, gg.open(folder) as here:
        new = here.create_collection("new", vectors={"v": gg.Dense(DIM, "cosine")})
        result["ingest"]["embedded_rows_per_second"] = ingest(new, X)
    return result


if __name__ == "__main__":
    main()
