"""A server under mixed load for long: no call fails, it holds no more memory or files, and it has what was written."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import pyarrow as pa
import pytest

import gingham as gg
from gingham import errors, fuse, match, near
from gingham.clients.health import check_health
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.types import RowBatch
from gingham.wire import pack_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESULT = Path(__file__).parents[2] / "bench" / "results" / "soak.json"
MINUTES = float(os.environ.get("GINGHAM_SOAK_MINUTES", "30"))
OPTIONS = shlex.split(os.environ.get("GINGHAM_SOAK_OPTIONS", ""))
"""Of ``gingham serve``."""
SAMPLE_SECONDS = 2.0
DIM, BASE, OWN = 32, 20_000, 3000
GROWTH, MEMORY_SLACK_MIB, FILES_SLACK = 1.10, 16, 4
"""The median of the last quarter may be this much over that of the second: the first one fills caches."""
SITE = "from gingham.storage import store\nstore.KEPT_BYTES = 32 << 20\n"
"""What every process of the server runs first: a smaller cache of plans and masks is full within seconds, and growth is
seen behind it."""
LANGUAGES = ["de", "en", "fr"]
WORDS = "moraine esker drumlin cirque kame till outwash kettle".split()
Row = tuple[int, str, str, bytes]


class Wire:
    """Carries connections to a server until it is cut, which neither side is told before."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("grpc://").rpartition(":")
        self._to = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(self._to)
            with self._lock:
                self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=(one, other))
                thread.start()
                self._threads.append(thread)

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while got := one.recv(1 << 16):
                other.sendall(got)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
                end.shutdown(socket.SHUT_RD)
            end.close()


class Writer:
    """Writes rows of one owner and knows what they are; their number stays bounded."""

    def __init__(self, owner: str, seed: int) -> None:
        self.owner = owner
        self.rng = np.random.default_rng(seed)
        self.rows: dict[str, Row] = {}

    def made(self, count: int, of: int = OWN) -> dict[str, list[Any]]:
        """Columns of rows, of which one id may come twice."""
        words = self.rng.choice(WORDS, (count, 3))
        return {
            "id": [f"{self.owner}{number}" for number in self.rng.integers(0, of, count)],
            "n": self.rng.integers(0, 1000, count).tolist(),
            "lang": self.rng.choice(LANGUAGES, count).tolist(),
            "title": [" ".join(line) for line in words],
            "v": list(self.rng.standard_normal((count, DIM)).astype(np.float32)),
        }

    def keep(self, made: dict[str, list[Any]]) -> tuple[int, int]:
        """Remember them; how many are new, and how many are not."""
        new = {one[0]: (*one[1:4], one[4].tobytes()) for one in zip(*made.values(), strict=True)}
        inserted = len(new.keys() - self.rows.keys())
        self.rows.update(new)
        return inserted, len(new) - inserted

    def upsert(self, docs: Any, count: int) -> None:
        made = self.made(count)
        done = docs.upsert(**as_arguments(made, self.owner))
        assert (done.inserted, done.updated) == self.keep(made)

    def update(self, docs: Any) -> None:
        ids = [f"{self.owner}{number}" for number in self.rng.integers(0, OWN, 20)]
        n = int(self.rng.integers(0, 1000))
        known = {one for one in ids if one in self.rows}
        assert docs.update(ids=ids, fields={"n": [n] * 20}).updated == len(known)
        self.rows.update({one: (n, *self.rows[one][1:]) for one in known})

    def delete(self, docs: Any) -> None:
        ids = {f"{self.owner}{number}" for number in self.rng.integers(0, OWN, 20)}
        assert docs.delete(ids=list(ids)).deleted == len(ids & self.rows.keys())
        self.rows = {one: row for one, row in self.rows.items() if one not in ids}

    def delete_where(self, docs: Any) -> None:
        least = int(self.rng.integers(0, 1000))
        done = docs.delete(where=f"owner = '{self.owner}' AND n >= {least} AND n < {least + 20}")
        gone = {one for one, row in self.rows.items() if least <= row[0] < least + 20}
        assert done.deleted == len(gone)
        self.rows = {one: row for one, row in self.rows.items() if one not in gone}

    def change_together(self, db: Any) -> None:
        made = self.made(10)
        with db.transaction() as both:
            both["docs"].upsert(**as_arguments(made, self.owner))
            both["docs"].delete(ids=made["id"][:1])
        self.keep(made)
        del self.rows[made["id"][0]]

    def ingest(self, docs: Any, wire: Wire) -> None:
        """A stream whose connection breaks twice."""
        parts = [self.made(200) for _ in range(20)]

        def batches() -> Iterator[pa.RecordBatch]:
            for at, made in enumerate(parts):
                if at in (7, 14):
                    wire.cut()
                yield as_batch(made, self.owner)

        done = docs.upsert(batches())
        before = len(self.rows)
        for made in parts:
            self.keep(made)
        assert done.inserted == len(self.rows) - before


def as_arguments(made: dict[str, list[Any]], owner: str) -> dict[str, Any]:
    fields = {"owner": [owner] * len(made["id"]), **{name: made[name] for name in ("n", "lang", "title")}}
    return {"ids": made["id"], "fields": fields, "vectors": {"v": np.stack(made["v"])}}


def as_batch(made: dict[str, list[Any]], owner: str) -> pa.RecordBatch:
    vectors = pa.FixedSizeListArray.from_arrays(np.concatenate(made["v"]), DIM)
    return pa.record_batch({**made, "owner": [owner] * len(made["id"]), "v": vectors})


class Load:
    """Workers, each a thread that does its steps in turn, and all their failures; the first one ends them."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, steps: Sequence[Callable[[], Any]], pause: float = 0.0) -> None:
        thread = threading.Thread(target=self._run, args=(steps, pause))
        thread.start()
        self._threads.append(thread)

    def _run(self, steps: Sequence[Callable[[], Any]], pause: float) -> None:
        try:
            while not self.ended.is_set():
                for step in steps:
                    step()
                    self.done[step.__name__] += 1
                    self.ended.wait(pause)
        except BaseException:
            self.failures.append(traceback.format_exc())
            self.ended.set()

    def end(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()


def reads(db: Any, seed: int) -> list[Callable[[], None]]:
    docs, rng = db["docs"], np.random.default_rng(seed)

    def search() -> None:
        assert len(docs.search(rng.standard_normal(DIM), k=10, fields=["n", "title"])) == 10

    def batch() -> None:
        found = docs.search(rng.standard_normal((32, DIM)).astype(np.float32), k=10, fields=[])
        assert [len(hits) for hits in found] == [10] * 32

    def filtered() -> None:
        least = int(rng.integers(0, 900))
        hits = docs.search(rng.standard_normal(DIM), k=10, where=f"n >= {least} AND lang = 'de'", fields=["n", "lang"])
        assert len(hits) == 10
        assert all(hit["n"] >= least and hit["lang"] == "de" for hit in hits)

    def fused() -> None:
        word = str(rng.choice(WORDS))
        hits = docs.query(fuse(match("title", word), near("v", rng.standard_normal(DIM))).limit(10), where="n < 800")
        assert len(hits) == 10

    def read() -> None:
        number = int(rng.integers(0, BASE))
        assert docs.get(f"base{number}", fields=["owner"])["owner"] == "base"
        assert docs.count(where="owner = 'base'") == BASE
        assert sum(docs.facets("lang", where="owner = 'base'").values()) == BASE

    return [search, filtered, search, batch, search, fused, read]


def probes(db: Any, url: str, metrics: int) -> list[Callable[[], None]]:
    docs = db["docs"]

    def health() -> None:
        check_health(url)

    def scrape() -> None:
        assert "gingham_calls_total" in scraped(metrics)

    def pinned() -> None:
        with db.snapshot() as snapshot:
            rows = snapshot["docs"].count()
            assert sum(part.num_rows for part in snapshot["docs"].scan(fields=["n"], batch_size=5000)) == rows

    def stats() -> None:
        assert db.stats().version > 0
        assert docs.stats().rows >= BASE

    return [health, scrape, pinned, stats]


def vanishing(url: str) -> list[Callable[[], None]]:
    """Clients whose connection, or patience, ends while the server works for them."""
    rng = np.random.default_rng(11)
    whole = pack_batch(RowBatch([b"sx"], {}, {"n": pa.array([1])}), leave_out_nulls=False)

    def scan_vanished() -> None:
        with Wire(url) as wire, gg.open(f"grpc://{wire.address}") as db:
            parts = db["docs"].scan(include_vectors=True, batch_size=100)
            assert next(parts).num_rows == 100
            wire.cut()
            with pytest.raises(errors.GinghamError):
                list(parts)

    def ingest_vanished() -> None:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        requests.put(pb.IngestRequest(header=pb.IngestHeader(collection="docs", job=rng.bytes(8).hex())))
        requests.put(pb.IngestRequest(batch=pb.IngestBatch(sequence=1, rows=whole[:50], more=True)))
        with Wire(url) as wire, grpc.insecure_channel(wire.address) as channel:
            stub = services.RowServiceStub(channel)  # type: ignore[no-untyped-call]
            answers = stub.Ingest(iter(requests.get, None), timeout=60)
            assert next(answers).sequence == 0
            wire.cut()
            with pytest.raises(grpc.RpcError):
                next(answers)
            requests.put(None)

    def scan_closed() -> None:
        with gg.open(url) as db:
            rows = db["docs"].scan(fields=["title"])
            assert "title" in next(rows)
            rows.close()

    def search_hurried() -> None:
        with gg.open(url) as db, contextlib.suppress(errors.DeadlineExceeded):
            db["docs"].search(rng.standard_normal((256, DIM)).astype(np.float32), k=100, timeout=0.01)

    return [scan_vanished, ingest_vanished, scan_closed, search_hurried]


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[int, str, int, Path]]:
    """A server with metrics: its pid, address, port of metrics, and log; it ends well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics = free.getsockname()[1]
    log = folder / "log"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    paths = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "gingham", "serve", str(folder / "db"), "--listen", "127.0.0.1:0"]
    with (
        log.open("w") as told,
        subprocess.Popen(
            [*command, "--metrics", f"127.0.0.1:{metrics}", *OPTIONS],
            stdout=subprocess.PIPE, stderr=told, text=True, env={**os.environ, "PYTHONPATH": paths},
        ) as server,
    ):  # fmt: skip
        assert server.stdout is not None
        try:
            yield server.pid, server.stdout.readline().split()[-1], metrics, log
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()


def sample(pid: int) -> dict[str, float]:
    """What a process and its children hold now: memory of their own, which mapped pages of files are not, and files."""
    status = Path(f"/proc/{pid}/status").read_text()
    anonymous, threads = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("RssAnon", "Threads"))
    held = {"memory_mib": anonymous / 1024, "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": threads}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread, or a child, that has ended meanwhile
            for child in task.read_text().split():
                held = {name: value + sample(int(child))[name] for name, value in held.items()}
    return held


def quarter(samples: list[dict[str, float]], number: int, figure: str) -> float:
    """Median of one of the four quarters of a run."""
    part = samples[number * len(samples) // 4 : (number + 1) * len(samples) // 4]
    return statistics.median(one[figure] for one in part)


def sampled(pid: int, load: Load) -> list[dict[str, float]]:
    """Samples for as long as the load is to run."""
    samples, begun = [], time.monotonic()
    while time.monotonic() - begun < MINUTES * 60 and not load.ended.wait(SAMPLE_SECONDS):
        samples.append(sample(pid))
    return samples


def everything_ends(metrics: int) -> None:
    """Nothing that clients had is open any more."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        held = re.findall(r"^gingham_open_(\w+) ([\d.]+)$", scraped(metrics), re.MULTILINE)
        assert len(held) == 3
        if not any(float(count) for _, count in held):
            return
        time.sleep(0.1)
    raise AssertionError(f"still open after 30 s: {held}")


def report(load: Load, samples: list[dict[str, float]], **about: Any) -> dict[str, Any]:
    """Write the figures of the run."""
    figures = {
        name: {f"quarter_{at + 1}": quarter(samples, at, name) for at in range(4)} for name in samples[0]
    }  # fmt: skip
    every = max(1, len(samples) // 60)
    result = {
        "minutes": MINUTES, "options": OPTIONS, "done": dict(sorted(load.done.items())), "failures": len(load.failures),
        **about, "medians": figures, "memory_mib": [round(one["memory_mib"], 1) for one in samples[::every]],
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return figures


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory and files are read from /proc")
def test_a_server_under_mixed_load_holds_no_more_as_time_goes_by_and_loses_nothing(tmp_path: Path) -> None:
    base, small, streamed = Writer("base", 1), Writer("small", 2), Writer("streamed", 3)
    load = Load()
    with contextlib.ExitStack() as clients, served(tmp_path) as (pid, url, metrics, log):
        db = clients.enter_context(gg.open(url))
        fields = {"owner": gg.Keyword(), "n": gg.Int(), "lang": gg.Keyword(), "title": gg.Text(bm25=True)}
        docs = db.create_collection("docs", fields=fields, vectors={"v": gg.Dense(DIM, index="HNSW16", codec="LVQ8")})
        made = {**base.made(BASE), "id": [f"base{number}" for number in range(BASE)]}
        base.keep(made)
        docs.upsert(**as_arguments(made, "base"))
        wire = clients.enter_context(Wire(url))
        broken = clients.enter_context(gg.open(f"grpc://{wire.address}"))["docs"]

        def upsert() -> None:
            small.upsert(docs, int(small.rng.integers(1, 50)))

        def ingest() -> None:
            streamed.ingest(broken, wire)

        def update() -> None:
            small.update(docs)

        def delete() -> None:
            small.delete(docs)
            small.delete_where(docs)

        def transaction() -> None:
            small.change_together(db)

        def delete_streamed() -> None:
            streamed.delete(docs)

        for seed in (21, 22):
            load.start(reads(db, seed))
        load.start([upsert, update, upsert, delete, transaction], 0.02)
        load.start([ingest, delete_streamed], 0.1)
        load.start(probes(db, url, metrics), 0.2)
        load.start(vanishing(url), 0.2)
        try:
            samples = sampled(pid, load)
        finally:
            load.end()
        assert not load.failures, "\n".join(load.failures)
        everything_ends(metrics)
        expected = {**base.rows, **small.rows, **streamed.rows}
        found = {
            row["id"]: (row["n"], row["lang"], row["title"], row["v"].tobytes())
            for row in docs.scan(include_vectors=True)
        }
        figures = report(load, samples, rows=len(found), file_bytes=db.stats().file_bytes)
        assert found == expected
        assert " ERROR " not in log.read_text()
    with gg.open(tmp_path / "db") as here:
        assert here["docs"].count() == len(expected)
        assert here.verify().ok
    memory, files = figures["memory_mib"], figures["files"]
    assert memory["quarter_4"] <= GROWTH * memory["quarter_2"] + MEMORY_SLACK_MIB, figures
    assert files["quarter_4"] <= files["quarter_2"] + FILES_SLACK, figures
