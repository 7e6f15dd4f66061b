"""Gingham as a server beside Chroma and PostgreSQL with pgvector: the same rows, clients and recall over loopback.

    python bench/servers.py --postgres "host=127.0.0.1 port=5432 user=postgres" [--rows 100000] [--seconds 30]

Needs the extras `server` and `bench`. Chroma is started here, in a temporary folder. PostgreSQL runs already, on this
machine, with the extension `vector` built; its user may create tables (and the extension, where it is not created
yet). What is missing is left out, and said.

Each server writes the rows over its protocol, commit by commit, and makes an HNSW graph of 16 links with its own
default of ef_construction; then ef_search is the least of a grid that gives a recall@10 of 0.95 against exact search.
The load comes from processes of their own, as many as there are cores, each with its share of the clients as threads;
the servers take turns, and the round with the most queries a second counts. Processor time is that of all processes
of a server. "indexed" counts the rows a second until the graph has them all: ours and Chroma's answer before.
Ratios are ours over theirs: below 1 is good for times, above 1 for rates.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import report

import gingham as gg
from gingham.storage.graphs import EF_CONSTRUCTION
from serve import CLIENTS, DIM, HERE, K, ingest, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

RECALL = 0.95
EFFORTS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800)
LINKS = 16
COMMIT_ROWS = 10_000
TABLE = "gingham_bench_servers"
TELEMETRY_OFF = {"ANONYMIZED_TELEMETRY": "False"}


class Absent(Exception):
    """A peer cannot take part; the message says why."""


class Gingham:
    """`gingham serve`, with the options that were given."""

    def __init__(self, stack: contextlib.ExitStack, options: list[str]) -> None:
        gg.warmup()
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "db"
        command = [sys.executable, "-m", "gingham", "serve", str(path), "--listen", "127.0.0.1:0", *options]
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stdout is not None
        self.at, self.pid = server.stdout.readline().split()[-1], server.pid
        self.db = stack.enter_context(gg.open(self.at))
        self.settings: dict[str, Any] = {
            "options": options, "index": f"HNSW{LINKS}", "ef_construction": EF_CONSTRUCTION, "codec": "LVQ8",
            "synced": "each commit",
        }  # fmt: skip

    def write(self, X: np.ndarray) -> None:
        dense = gg.Dense(DIM, "cosine", index=f"HNSW{LINKS}", codec="LVQ8")
        self.docs = self.db.create_collection("docs", vectors={"v": dense})
        ingest(self.docs, X, COMMIT_ROWS)

    def index(self) -> None:
        self.db.maintain(wait=True)
        stats = self.docs.stats()
        if stats.unindexed_rows:
            raise SystemExit(f"expected rows enough for a graph, found {stats.rows}; give --rows 10000 or more")
        self.settings["segments"] = stats.segments

    def prepare(self, effort: int) -> None:
        """Calls say how hard they look."""


def search_gingham(at: str, effort: int) -> Callable[[np.ndarray], list[int]]:
    docs = gg.open(at)["docs"]
    return lambda query: docs.search(query, k=K, fields=[], ef_search=effort).ids


class Chroma:
    """`chroma run`, asked by its own HTTP client."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        if importlib.util.find_spec("chromadb") is None:
            raise Absent("chromadb is not installed: pip install 'gingham[bench]'")
        self._folder = stack.enter_context(tempfile.TemporaryDirectory())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.at = str(free.getsockname()[1])
        self._server: subprocess.Popen[bytes] | None = None
        stack.callback(self._end)
        self._start()
        self.settings: dict[str, Any] = {"server": self.client.get_version(), "synced": "left to SQLite's log"}

    def _start(self) -> None:
        options = ["run", "--path", self._folder, "--host", "127.0.0.1", "--port", self.at]
        self._server = subprocess.Popen(
            [sys.executable, "-c", "from chromadb.cli.cli import app; app()", *options],
            stdout=subprocess.DEVNULL, cwd=self._folder, env={**os.environ, **TELEMETRY_OFF},
        )  # fmt: skip
        self.pid = self._server.pid
        for _ in range(300):
            with contextlib.suppress(Exception):  # of several kinds while nobody listens
                self.client = chroma_client(self.at)
                return
            time.sleep(0.1)
        raise Absent("chroma run did not answer within 30 s")

    def _end(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    def write(self, X: np.ndarray) -> None:
        graph = {"space": "cosine", "max_neighbors": LINKS}
        self.docs = self.client.create_collection("docs", configuration={"hnsw": graph}, embedding_function=None)
        self.settings["hnsw"] = dict(self.docs.configuration["hnsw"])
        self.settings["rows_a_call"] = step = min(COMMIT_ROWS, self.client.get_max_batch_size())
        for at in range(0, len(X), step):
            self.docs.add(ids=[str(i) for i in range(at, min(at + step, len(X)))], embeddings=X[at : at + step])
        self.first = X[0]

    def index(self) -> None:
        """A query reads what the log has and the graph has not."""
        self.docs.query(query_embeddings=[self.first], n_results=K, include=[])
        assert self.docs.count() > 0

    def prepare(self, effort: int) -> None:
        """A graph that is loaded keeps the ef_search that it was loaded with."""
        self.docs.modify(configuration={"hnsw": {"ef_search": effort}})
        self._end()
        self._start()
        self.docs = self.client.get_collection("docs", embedding_function=None)
        self.index()


def chroma_client(at: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.HttpClient("127.0.0.1", int(at), settings=Settings(anonymized_telemetry=False))


def search_chroma(at: str, effort: int) -> Callable[[np.ndarray], list[int]]:
    docs = chroma_client(at).get_collection("docs", embedding_function=None)
    return lambda query: [int(i) for i in docs.query(query_embeddings=[query], n_results=K, include=[])["ids"][0]]


class Postgres:
    """PostgreSQL with pgvector: rows by binary COPY, then the index; queries prepared, vectors binary."""

    SHOWN = (
        "shared_buffers",
        "maintenance_work_mem",
        "max_parallel_maintenance_workers",
        "fsync",
        "synchronous_commit",
        "jit",
    )

    def __init__(self, stack: contextlib.ExitStack, dsn: str | None) -> None:
        if dsn is None:
            raise Absent("no --postgres DSN was given")
        if importlib.util.find_spec("psycopg") is None:
            raise Absent("psycopg is not installed: pip install 'gingham[bench]'")
        import psycopg

        self.at = dsn
        try:
            self.db = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            self.db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise Absent(f"{dsn}: {str(error).strip()}") from None
        adapt_vectors(self.db)
        self.pid = parent_of(self._one("SELECT pg_backend_pid()"))
        name = "nothing"
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{self.pid}/comm").read_text().strip()
        if name not in ("postgres", "postmaster"):
            raise Absent(f"{dsn}: expected the server among this machine's processes, found {name} instead")
        self.db.execute(f"DROP TABLE IF EXISTS {TABLE}")
        stack.callback(lambda: self.db.execute(f"DROP TABLE IF EXISTS {TABLE}"))
        # The graph is built in memory, by all cores, as pgvector advises.
        self.db.execute("SET maintenance_work_mem = '1GB'")
        self.db.execute(f"SET max_parallel_maintenance_workers = {os.cpu_count()}")
        self.settings: dict[str, Any] = {
            "server": self._one("SHOW server_version"),
            "pgvector": self._one("SELECT extversion FROM pg_extension WHERE extname = 'vector'"),
            **{name: self._one(f"SHOW {name}") for name in self.SHOWN},
            "hnsw": {"m": LINKS, "ef_construction": 64},
        }

    def _one(self, statement: str) -> Any:
        found = self.db.execute(statement).fetchone()
        assert found is not None
        return found[0]

    def write(self, X: np.ndarray) -> None:
        self.db.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, v vector({X.shape[1]}))")
        for at in range(0, len(X), COMMIT_ROWS):
            with self.db.cursor().copy(f"COPY {TABLE} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "vector"])
                for number in range(at, min(at + COMMIT_ROWS, len(X))):
                    copy.write_row((number, X[number]))

    def index(self) -> None:
        graph = f"(m = {LINKS}, ef_construction = 64)"
        self.db.execute(f"CREATE INDEX ON {TABLE} USING hnsw (v vector_cosine_ops) WITH {graph}")
        self.db.execute(f"VACUUM ANALYZE {TABLE}")

    def prepare(self, effort: int) -> None:
        """Connections say how hard they look."""
        plan = self.db.execute(f"EXPLAIN {nearest()}", [np.ones(DIM, np.float32)]).fetchall()
        assert any("Index Scan" in line for (line,) in plan), plan


def nearest() -> str:
    return f"SELECT id FROM {TABLE} ORDER BY v <=> %b LIMIT {K}"


def adapt_vectors(connection: Any) -> None:
    """Send arrays as pgvector reads them (vector_recv): dimensions, an unused number, big-endian floats."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format
    from psycopg.types import TypeInfo

    found = TypeInfo.fetch(connection, "vector")
    assert found is not None

    class VectorDumper(Dumper):
        format, oid = Format.BINARY, found.oid

        def dump(self, obj: Any) -> bytes:
            return len(obj).to_bytes(2, "big") + b"\0\0" + obj.astype(">f4").tobytes()

    found.register(connection)
    connection.adapters.register_dumper(np.ndarray, VectorDumper)


def search_postgres(at: str, effort: int) -> Callable[[np.ndarray], list[int]]:
    import psycopg

    connection = psycopg.connect(at, autocommit=True)
    adapt_vectors(connection)
    connection.execute(f"SET hnsw.ef_search = {effort}")
    cursor, statement = connection.cursor(binary=True), nearest()
    return lambda query: [i for (i,) in cursor.execute(statement, [query], prepare=True).fetchall()]


SEARCHES = {"gingham": search_gingham, "chroma": search_chroma, "pgvector": search_postgres}


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return -1


def cpu_seconds(root: int) -> float:
    """Processor time of a process and all below it, those that have ended and were waited for among them."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
                ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    total, left = 0, [root]
    while left:
        pid = left.pop()
        total += ticks.get(pid, 0)
        left += children.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def clients(asked: dict[str, Any]) -> None:
    """Be some of the clients: ready when all are connected, at work from the line that comes then."""
    Q, count = np.load(asked["queries"]), asked["clients"]
    times: list[list[float]] = [[] for _ in range(count)]
    ready, go, end = threading.Barrier(count + 1), threading.Barrier(count + 1), [0.0]

    def run(number: int, mine: list[float]) -> None:
        search = SEARCHES[asked["kind"]](asked["at"], asked["effort"])
        for query in Q[:20]:
            search(query)
        ready.wait()
        go.wait()
        while time.perf_counter() < end[0]:
            begun = time.perf_counter()
            search(Q[number % len(Q)])
            mine.append(time.perf_counter() - begun)
            number += 1

    threads = [threading.Thread(target=run, args=((asked["first"] + at) * 131, times[at])) for at in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    used = time.process_time()
    end[0] = time.perf_counter() + asked["seconds"]
    go.wait()
    for thread in threads:
        thread.join()
    used = time.process_time() - used
    print(json.dumps({"times": [one for mine in times for one in mine], "cpu_seconds": used}), flush=True)
    sys.stdin.readline()


def load(kind: str, server: Any, effort: int, queries: np.ndarray, count: int, seconds: float) -> dict[str, float]:
    """Queries a second of clients, their times, and what each query cost the processor on both sides."""
    groups = min(count, os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "queries.npy"
        np.save(file, queries)
        children = []
        for group in range(groups):
            share = range(count)[group * count // groups : (group + 1) * count // groups]
            asked = {"kind": kind, "at": server.at, "effort": effort, "queries": str(file), "seconds": seconds}
            given = json.dumps({**asked, "first": share.start, "clients": len(share)})
            command = [sys.executable, __file__, "--clients", given]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            child = subprocess.Popen(command, env={**os.environ, **TELEMETRY_OFF}, **pipes)
            children.append(stack.enter_context(child))

        def heard() -> list[str]:
            return [child.stdout.readline() for child in children]  # type: ignore[union-attr]

        def told() -> None:
            for child in children:
                print("go on", file=child.stdin, flush=True)

        assert heard() == ["ready\n"] * groups
        before, begun = cpu_seconds(server.pid), time.perf_counter()
        told()
        answers = [json.loads(line) for line in heard()]
        took, used = time.perf_counter() - begun, cpu_seconds(server.pid) - before
        told()
    times = np.sort(np.concatenate([answer["times"] for answer in answers])) * 1e3
    return {
        "clients": count, "queries_per_second": len(times) / took, "p50_ms": float(times[len(times) // 2]),
        "p99_ms": float(times[int(len(times) * 0.99)]), "server_cpu_ms_per_query": used / len(times) * 1e3,
        "client_cpu_ms_per_query": sum(answer["cpu_seconds"] for answer in answers) / len(times) * 1e3,
    }  # fmt: skip


def enough(kind: str, server: Any, queries: np.ndarray, truth: np.ndarray) -> tuple[int, float]:
    """The least effort of the grid that finds as much as was asked for, and what it finds."""
    for effort in EFFORTS:
        server.prepare(effort)
        search = SEARCHES[kind](server.at, effort)
        found = np.mean([len({*search(q)} & {*t}) / K for q, t in zip(queries, truth.tolist(), strict=True)])
        if found >= RECALL:
            return effort, float(found)
    raise AssertionError(f"{kind} found {found:.3f} with ef_search {EFFORTS[-1]}, less than {RECALL}")


def written(server: Any, X: np.ndarray) -> dict[str, float]:
    """Rows a second until all are written, and until all are in the graph."""
    before, begun = cpu_seconds(server.pid), time.perf_counter()
    server.write(X)
    stored = time.perf_counter() - begun
    server.index()
    return {
        "rows_per_second": len(X) / stored, "indexed_rows_per_second": len(X) / (time.perf_counter() - begun),
        "server_cpu_seconds": cpu_seconds(server.pid) - before,
    }  # fmt: skip


def exact(X: np.ndarray, queries: np.ndarray) -> np.ndarray:
    rows, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (X, queries))
    return np.argpartition(-(asked @ rows.T), K, axis=1)[:, :K]


def measured(
    servers: dict[str, Any], X: np.ndarray, Q: np.ndarray, judged: int, seconds: float, rounds: int
) -> dict[str, Any]:
    truth = exact(X, Q[:judged])
    results: dict[str, Any] = {}
    for kind, server in servers.items():
        ingested = written(server, X)
        effort, recall = enough(kind, server, Q[:judged], truth)
        results[kind] = {"ef_search": effort, "recall_at_10": recall, "ingest": ingested, "settings": server.settings}
        print(kind, json.dumps(results[kind]), file=sys.stderr, flush=True)
    for name, count in (("single", 1), ("many", CLIENTS)):
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in servers}
        for _ in range(rounds):
            for kind, server in servers.items():
                runs[kind].append(load(kind, server, results[kind]["ef_search"], Q, count, seconds / rounds))
        for kind, made in runs.items():
            results[kind][name] = {**max(made, key=lambda run: run["queries_per_second"]), "rounds": made}
    return results


ROWS = (
    ("1 client: p50, ms", "single", "p50_ms"),
    ("1 client: p99, ms", "single", "p99_ms"),
    ("1 client: queries/s", "single", "queries_per_second"),
    (f"{CLIENTS} clients: queries/s", "many", "queries_per_second"),
    (f"{CLIENTS} clients: server CPU ms a query", "many", "server_cpu_ms_per_query"),
    (f"{CLIENTS} clients: client CPU ms a query", "many", "client_cpu_ms_per_query"),
    ("rows/s written", "ingest", "rows_per_second"),
    ("rows/s indexed", "ingest", "indexed_rows_per_second"),
)


def ratios(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ours over theirs, of each figure."""
    ours = results["gingham"]
    return {
        kind: {f"{part}.{figure}": ours[part][figure] / found[part][figure] for _, part, figure in ROWS}
        for kind, found in results.items()
        if kind != "gingham"
    }


def table(results: dict[str, Any]) -> str:
    over = ratios(results)
    lines = [["", *results, *(f"ours / {kind}" for kind in over)]]
    for title, part, figure in ROWS:
        values = [found[part][figure] for found in results.values()]
        lines.append([
            title, *(f"{one:,.{max(0, 2 - math.floor(math.log10(one)))}f}" for one in values),
            *(f"{there[f'{part}.{figure}']:.2f}" for there in over.values()),
        ])  # fmt: skip
    for title, figure in (("ef_search", "ef_search"), ("recall@10", "recall_at_10")):
        lines.append([title, *(f"{found[figure]:.4g}" for found in results.values()), *("" for _ in over)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=30.0, help="of each measure, all rounds together")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--postgres", metavar="DSN", help="of a PostgreSQL on this machine, as libpq reads it")
    options.add_argument("--serve-options", default="", help="of `gingham serve`, in one argument")
    options.add_argument("--json", type=Path, default=HERE / "results" / "servers.json")
    options.add_argument("--clients", type=json.loads, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.clients is not None:
        return clients(given.clients)
    X, Q, data = vectors(given.rows, 1000)
    made: dict[str, Callable[[contextlib.ExitStack], Any]] = {
        "gingham": lambda stack: Gingham(stack, shlex.split(given.serve_options)),
        "chroma": Chroma,
        "pgvector": lambda stack: Postgres(stack, given.postgres),
    }
    with contextlib.ExitStack() as stack:
        servers, absent = {}, {}
        for kind, make in made.items():
            try:
                servers[kind] = make(stack)
            except Absent as reason:
                absent[kind] = str(reason)
                print(f"{kind} is left out: {reason}", file=sys.stderr)
        results = measured(servers, X, Q, 500, given.seconds, given.rounds)
    about = {"bench": "servers", "data": data, "rows": len(X), "dim": DIM, "k": K, "left_out": absent}
    report({**about, "results": results, "ratios": ratios(results)}, given.json)
    print(table(results))
    return None


if __name__ == "__main__":
    main()
