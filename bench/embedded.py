"""Whole databases in one process, indexed and with payload, at equal recall; and with the process killed while it writes.

    python bench/embedded.py [--rows 100000] [--stores gingham chroma ...] [--pull [10]]

Needs the extra `bench`, and `pip install 'pymilvus[milvus-lite]' qdrant-client`; what is not installed is left out, and said.

Each store is built by a process of its own, then opened by others, one at work at a time, with the threads that it takes
by itself. An effort is the least of a ladder that finds a recall@10 of 0.95 against exact search (of several ladders, the
one whose effort is fastest); where none does, the greatest is timed and its recall stands beside it. "As it comes" are
searches that say nothing. Stores take turns, and figures are medians of the rounds; ratios are medians of those of the
rounds, above 1 where ours is better. Filters are equality of a keyword (10 % of the rows) and of an int (1 %), at random.

``--pull`` kills a writer (SIGKILL) at a random moment, opens the store in a new process and counts the rows that were
acknowledged and are gone. That is no power cut: what the kernel has, it still writes. A store that syncs nothing passes
as well as one that does; `tests/crash` and each store's ``synced`` are about the other kind.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import stores
from measure import arguments, report
from workers import Refused, Worker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RECALL = 0.95
ASKED_IDS = 5000
BATCH_ROWS, ASKED_AT_ONCE, PULL_ROWS = 10_000, 100, 100
JUDGED_SECONDS = 6.0
"""Time for judging one effort; a store that needs more is judged by fewer queries."""
FILTERS: dict[str, stores.Where | None] = {"all": None, "10 %": ("lang", "fi"), "1 %": ("year", 2024)}
DIM = 384
OPENED, OPENING_ANSWERS = 3, 50
READERS = 4

CONTESTANTS: dict[str, tuple[type[stores.Store], dict[str, Any]]] = {
    "gingham": (stores.Gingham, {"codec": "LVQ8", "index": "HNSW16"}),
    "gingham-default": (stores.Gingham, {}),
    "lancedb-hnsw-sq": (stores.Lance, {"kind": "HnswSq"}),
    "lancedb-ivf-pq": (stores.Lance, {"kind": "IvfPq", "num_sub_vectors": 48}),
    "chroma": (stores.Chroma, {}),
    "milvus-lite": (stores.Milvus, {"kind": "HNSW", "M": 16, "efConstruction": 200}),
    "qdrant-local": (stores.Qdrant, {}),
}
OURS = ("gingham", "gingham-default")
PULLED = ("gingham-default", "lancedb-hnsw-sq", "chroma", "milvus-lite", "qdrant-local")
PACKAGES = ("pymilvus", "milvus-lite", "qdrant-client")


class Desk:
    """The commands of a worker."""

    store: Any = None

    def __init__(self, channel: Connection, name: str, folder: Path) -> None:
        self._folder, self._home, self._channel = folder, folder / name / "db", channel
        self._home.parent.mkdir(exist_ok=True)
        self._class, self._options = CONTESTANTS[name]
        if (folder / "truth.npy").exists():
            self._queries, self._truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy").tolist()

    def _open(self, *, read: bool = False) -> tuple[float, float]:
        """Seconds that the imports of a store took, and opening it."""
        begun = time.perf_counter()
        for module in self._class.modules:
            importlib.import_module(module)
        imported = time.perf_counter()
        self.store = self._class(self._home, DIM, read=read, **self._options)
        return imported - begun, time.perf_counter() - imported

    def end(self) -> None:
        if self.store is not None:
            self.store.close()

    def build(self) -> dict[str, Any]:
        """Write all rows, then wait for the index."""
        X = np.load(self._folder / "rows.npy")
        columns = stores.columns(range(len(X)))
        self._open()
        begun, cpu = time.perf_counter(), time.process_time()
        for at in range(0, len(X), BATCH_ROWS):
            part = slice(at, at + BATCH_ROWS)
            fields = {name: values[part] for name, values in columns.items()}
            self.store.add(list(range(len(X)))[part], X[part], fields)
        stored = time.perf_counter() - begun
        self.store.index()
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        self.store.close()
        size = sum(path.stat().st_blocks * 512 for path in self._home.parent.rglob("*") if path.is_file())
        about = {"settings": self.store.settings, "synced": self.store.synced}
        self.store = None
        return {
            "stored_seconds": stored, "indexed_seconds": took, "cpu_seconds": cpu, "disk_bytes": size, **about,
        }  # fmt: skip

    def open(self, *, read: bool = False) -> dict[str, float]:
        """Seconds of a new process: for its imports, opening the store, and from then on to answers."""
        imported, opened = self._open(read=read)
        begun, answered = time.perf_counter(), []
        while len(answered) < OPENING_ANSWERS:
            self.store.search(self._queries[len(answered)], {}, title=True)
            answered.append(time.perf_counter() - begun)
        return {"import": imported, "open": opened, "first": answered[0], "fiftieth": answered[-1]}

    def warm_up(self) -> None:
        """Compile the kernels that are not kept yet."""
        import gingham as gg

        gg.warmup()

    def memory(self) -> dict[str, int]:
        """Bytes resident after searches; those of files are pages that the system may take back."""
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")}

    def judged(self, effort: stores.Effort, kind: str) -> dict[str, Any]:
        """Recall of an effort, and its mean time, by as many queries as there is time for."""
        self.store.prepare(effort)
        self.store.search(self._queries[-1], effort, FILTERS[kind])
        begun, found, asked = time.perf_counter(), 0, 0
        truth = self._truth[list(FILTERS).index(kind)]
        while asked < len(truth) and time.perf_counter() < begun + JUDGED_SECONDS:
            ids = self.store.search(self._queries[asked], effort, FILTERS[kind])
            found += len({int(number) for number in ids} & {*truth[asked]})
            asked += 1
        seconds = (time.perf_counter() - begun) / asked
        return {"effort": effort, "recall": found / asked / stores.K, "seconds": seconds, "judged": asked}

    def tune(self, kind: str) -> dict[str, Any]:
        """The effort that reaches the recall, else what finds most."""
        tops, reached = [self.judged({}, kind)], []
        for ladder in self.store.ladders:
            for effort in ladder:
                tops.append(self.judged(effort, kind))
                if tops[-1]["recall"] >= RECALL:
                    reached.append(tops[-1])
                    break
        if not self.store.ladders[0]:
            return tops[0]
        return min(reached, key=lambda one: one["seconds"]) if reached else max(tops, key=lambda one: one["recall"])

    def rate(
        self, effort: stores.Effort, kind: str, seconds: float, *, title: bool = False, many: bool = False
    ) -> float:
        """Queries a second."""
        self.store.prepare(effort)
        for query in self._queries[:5]:
            self.store.search(query, effort, FILTERS[kind], title=title)
        done, begun = 0, time.perf_counter()
        while (now := time.perf_counter()) < begun + seconds or not done:
            if many:
                done += len(self.store.many(self._queries[:ASKED_AT_ONCE], effort))
            else:
                self.store.search(self._queries[done % len(self._queries)], effort, FILTERS[kind], title=title)
                done += 1
        return done / (now - begun)

    def write(self, first: int) -> None:
        """Write batches until killed, and say which have been acknowledged."""
        self._open()
        for number in range(first, first + 1_000_000):
            self.store.add(*_batch(number))
            self._channel.send((True, number))

    def check(self, batches: list[int]) -> dict[str, Any]:
        """What is left of acknowledged batches, and of the one after the last."""
        ids, vectors, _ = _batch(batches[-1])
        _, seconds = self._open()
        begun = time.perf_counter()
        found = self.store.search(vectors[-1], {})
        seconds += time.perf_counter() - begun
        written = [number for batch in batches for number in _numbers(batch)]
        parts = [written[at : at + ASKED_IDS] for at in range(0, len(written), ASKED_IDS)]
        present = sum(self.store.present(part) for part in parts)
        after = self.store.present(_numbers(batches[-1] + 1))
        return {
            "seconds": seconds, "missing": len(written) - present, "half": 0 < after < PULL_ROWS,
            "found": bool(found) and int(found[0]) == ids[-1],
        }  # fmt: skip


def _numbers(batch: int) -> list[int]:
    return list(range(batch * PULL_ROWS, (batch + 1) * PULL_ROWS))


def _batch(number: int) -> tuple[list[int], np.ndarray, dict[str, list[Any]]]:
    vectors = np.random.default_rng(number).standard_normal((PULL_ROWS, DIM), dtype=np.float32)
    ids = _numbers(number)
    return ids, vectors, stores.columns(ids)


def prepared(folder: Path, rows: int, judged: int) -> int:
    """Rows, their fields, queries and exact answers, in files for the workers; returns how many rows there are."""
    # Here alone: LanceDB takes a loaded module of this name for the package that is called so.
    import datasets

    data = datasets.load("minilm", 1000, rows)
    if data is None:
        raise SystemExit("minilm is not made; bench/embed_wordnet.py makes it")
    columns = stores.columns(range(len(data.rows)))
    np.save(folder / "rows.npy", data.rows)
    np.save(folder / "queries.npy", data.queries)
    truth = []
    for where in FILTERS.values():
        allowed = np.arange(len(data.rows))
        if where is not None:
            allowed = np.flatnonzero(np.array([value == where[1] for value in columns[where[0]]]))
        part = datasets.Dataset(data.name, data.metric, data.rows[allowed], data.queries[:judged])
        truth.append(allowed[part.nearest(stores.K)])
    np.save(folder / "truth.npy", np.array(truth))
    return len(data.rows)


def started(name: str, folder: Path) -> Worker:
    return Worker(Desk, name, folder)


AS_IT_COMES = "as it comes"
TASKS: dict[str, dict[str, Any]] = {
    AS_IT_COMES: {"kind": "all", "title": True},
    "with titles": {"kind": "all", "title": True},
    "ids": {"kind": "all"},
    "10 % of the rows": {"kind": "10 %", "title": True},
    "1 % of the rows": {"kind": "1 %", "title": True},
    f"{ASKED_AT_ONCE} in a call, ids": {"kind": "all", "many": True},
}


def measured(names: list[str], folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """All figures of all stores but those of killed writers."""
    results: dict[str, Any] = {}
    for name in names:
        try:
            with started(name, folder) as worker:
                results[name] = {"build": worker.ask("build"), "opens": []}
        except Refused as reason:
            results[name] = {"left_out": str(reason)}
        _say(name, results[name])
    names = [name for name in names if "build" in results[name]]
    for _ in range(OPENED):
        for name in names:
            with started(name, folder) as worker:
                results[name]["opens"].append(worker.ask("open"))
    with ExitStack() as stack:
        workers = {name: stack.enter_context(started(name, folder)) for name in names}
        for name, worker in workers.items():
            worker.ask("open")
            found = results[name]
            found |= {"comes": worker.ask("judged", effort={}, kind="all"), "memory": worker.ask("memory")}
            found |= {"tuned": {kind: worker.ask("tune", kind=kind) for kind in FILTERS}, "rates": {}}
            _say(name, {what: found[what] for what in ("opens", "comes", "memory", "tuned")})
        for task, given in TASKS.items():
            turns: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name, worker in workers.items():
                    effort = {} if task == AS_IT_COMES else results[name]["tuned"][given["kind"]]["effort"]
                    turns[name].append(worker.ask("rate", effort=effort, seconds=seconds, **given))
            for name in names:
                results[name]["rates"][task] = turns[name]
            _say(task, {name: float(np.median(one)) for name, one in turns.items()})
    for name in names:
        results[name]["readers"] = several(name, folder, results[name]["tuned"]["all"]["effort"], seconds * rounds)
    return results


def several(name: str, folder: Path, effort: stores.Effort, seconds: float) -> Any:
    """Queries a second of several processes that read at once, or why there may be but one."""
    with ExitStack() as stack:
        workers = [stack.enter_context(started(name, folder)) for _ in range(READERS)]
        try:
            for worker in workers:
                worker.ask("open", read=True)
            for worker in workers:
                worker.begin("rate", effort=effort, kind="all", seconds=seconds, title=True)
            return sum(worker.answer() for worker in workers)
        except Refused as reason:
            return str(reason)


def pulled(name: str, folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Kill a writer again and again, and count what is gone."""
    shutil.rmtree(folder / name, ignore_errors=True)
    moments = random.Random(seed)
    acknowledged: list[int] = []
    checks: list[dict[str, Any]] = []
    failed: list[str] = []
    for _ in range(times):
        with started(name, folder) as writer:
            # One batch that may be there and was not acknowledged is left alone.
            writer.begin("write", first=acknowledged[-1] + 2 if acknowledged else 0)
            try:
                acknowledged.append(writer.answer(60))
                time.sleep(moments.uniform(0.05, 1.5))
            except (Refused, TimeoutError) as reason:
                failed.append(f"writing: {reason}")
            writer.kill()
            with suppress(Refused, TimeoutError):
                while True:
                    acknowledged.append(writer.answer(0))
        if not acknowledged:
            break
        with started(name, folder) as reader:
            reader.begin("check", batches=acknowledged)
            try:
                checks.append(reader.answer(60))
            except (Refused, TimeoutError) as reason:
                failed.append(f"opening: {reason}")
    return {
        "kills": times, "failed": failed, "acknowledged_rows": len(acknowledged) * PULL_ROWS,
        "missing_rows": max((one["missing"] for one in checks), default=None),
        "half_batches": sum(one["half"] for one in checks), "not_found": sum(not one["found"] for one in checks),
        "seconds_to_answer": sorted(one["seconds"] for one in checks),
    }  # fmt: skip


def figures(found: dict[str, Any]) -> dict[str, list[float]]:
    """What is compared; the greater the better, by turns where there were turns."""
    opens, rates = found["opens"], found["rates"]
    least = {
        "seconds until indexed": [found["build"]["indexed_seconds"]], "its CPU seconds": [found["build"]["cpu_seconds"]],
        "bytes on disk": [found["build"]["disk_bytes"]], "resident bytes": [found["memory"]["VmRSS"]],
        "seconds to the first answer": [one["import"] + one["open"] + one["first"] for one in opens],
        "seconds to the fiftieth": [one["import"] + one["open"] + one["fiftieth"] for one in opens],
    }  # fmt: skip
    most = {f"queries/s, {task}": turns for task, turns in rates.items()}
    if not isinstance(found["readers"], str):
        most[f"queries/s, {READERS} processes"] = [found["readers"]]
    return {**{name: [1 / one for one in values] for name, values in least.items()}, **most}


def ratios(results: dict[str, Any]) -> dict[str, Any]:
    """Ours over each peer, above 1 where ours is better."""
    made = {name: figures(found) for name, found in results.items() if "rates" in found}
    return {
        ours: {
            peer: {
                name: float(np.median(np.array(mine) / theirs[name]))
                for name, mine in made[ours].items()
                if name in theirs
            }
            for peer, theirs in made.items()
            if peer not in OURS
        }
        for ours in OURS
        if ours in made
    }


def _say(name: str, found: Any) -> None:
    print(name, json.dumps(found), file=sys.stderr, flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--stores", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measure in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--judged", type=int, default=300, help="queries that recall is measured with")
    parser.add_argument("--pull", type=int, nargs="?", const=10, default=0, metavar="TIMES", help="also kill writers")
    parser.add_argument("--only-pull", action="store_true", help="measure nothing else")
    options = parser.parse_args()
    os.environ |= {"ANONYMIZED_TELEMETRY": "False", "DO_NOT_TRACK": "1"}
    load = os.getloadavg()
    result: dict[str, Any] = {
        "bench": "embedded",
        "data": "minilm",
        "k": stores.K,
        "recall": RECALL,
        "load_before": load,
    }
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            result[package] = importlib.metadata.version(package)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with started("gingham", folder) as worker:
            worker.ask("warm_up")
        if not options.only_pull:
            result["rows"] = prepared(folder, options.rows, options.judged)
            found = measured(options.stores, folder, options.seconds, options.rounds)
            result |= {"results": found, "ratios": ratios(found)}
        if options.pull:
            names = [name for name in PULLED if name in options.stores]
            result["pulled"] = {name: pulled(name, folder, options.pull, seed=1) for name in names}
    result["load_after"] = os.getloadavg()
    report(result, options.json)


if __name__ == "__main__":
    main()
