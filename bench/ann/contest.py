"""The protocol: one process a contestant, pinned to one core with one thread, that works only when it is asked to.

A worker knows ``build``, ``load``, ``search``, ``memory`` and ``quit``. It times itself, by the clock and by the
processor time of its process. Indexes are kept in the folder of the task, with what building them cost.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from runners import CONTESTANTS, DEFAULT, Contestant
from shared import datasets, measure
from task import QUERIES, K, Task, load

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from multiprocessing.connection import Connection


ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "FAISS_SIMD_LEVEL": "AVX2",
}
"""Set for workers unless it is set already."""


class Refused(Exception):
    """A contestant that is not installed, or that cannot do what was asked."""


class Worker:
    """The process of one contestant."""

    def __init__(self, contestant: Contestant, task: Task, core: int) -> None:
        self.name = contestant.name
        spawning = multiprocessing.get_context("spawn")
        self._channel, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_work, args=(theirs, contestant, str(task.folder), core), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; Refused where the worker fails or ends."""
        try:
            self._channel.send((command, arguments))
            worked, answer = self._channel.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Refused("the process ended") from None
        if not worked:
            raise Refused(answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send(("quit", {}))
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def built(task: Task, name: str, core: int, *, again: bool = False, reuse: bool = False) -> dict[str, Any]:
    """What building a contestant's index cost; built now where no index of this version, or of this code, is kept.

    Raises
    ------
    Refused : not installed, or not able to
    """
    kept = task.folder / name / "build.json"
    with Worker(CONTESTANTS[name], task, core) as worker:
        if kept.exists() and not again:
            record: dict[str, Any] = json.loads(kept.read_text())
            if reuse or record["sources"] == worker.ask("sources"):
                return record
        print(f"building {name} of {task.data.name}", file=sys.stderr, flush=True)
        built: dict[str, Any] = worker.ask("build", data=task.data.name, n_rows=len(task.data.rows))
        return built


@contextmanager
def opened(task: Task, options: Namespace) -> Iterator[tuple[dict[str, Worker], dict[str, Any]]]:
    """Workers with loaded indexes, and what is known of each contestant: the build, the bytes, or why it is out."""
    workers: dict[str, Worker] = {}
    about: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in options.contestants:
            try:
                record = built(task, name, options.core, again=options.rebuild, reuse=options.reuse)
                worker = stack.enter_context(Worker(CONTESTANTS[name], task, options.core))
                loaded = worker.ask("load", metric=task.data.metric)
            except Refused as refusal:
                about[name] = {"refused": str(refusal)}
                print(f"{name}: {refusal}", file=sys.stderr, flush=True)
                continue
            workers[name] = worker
            about[name] = {**record, **loaded}
        yield workers, about


def arguments(description: str | None) -> ArgumentParser:
    """Parser with the options that all contests have."""
    parser = measure.arguments(description)
    parser.add_argument("--data", default="minilm", choices=datasets.GRAPH_NAMES)
    parser.add_argument("--rows", type=int, help="search only so many rows")
    parser.add_argument("--contestants", nargs="+", default=DEFAULT, choices=CONTESTANTS)
    parser.add_argument(
        "--core", type=int, default=max(os.sched_getaffinity(0)), help="where all of them run, in turns"
    )
    parser.add_argument("--rebuild", action="store_true", help="build indexes anew")
    parser.add_argument("--reuse", action="store_true", help="take kept indexes though their code has changed")
    return parser


def start(options: Namespace) -> Task:
    """The task of the options, with the environment of workers set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    found = load(options.data, options.rows)
    if found is None:
        raise SystemExit(f"{options.data} is not installed; bench/datasets.py says what it needs")
    return found


def settings(task: Task, options: Namespace) -> dict[str, Any]:
    """What a result says of its task."""
    return {
        "data": task.data.name, "rows": len(task.data.rows), "dim": task.data.rows.shape[1], "metric": task.data.metric,
        "k": K, "core": options.core, "environment": {name: os.environ[name] for name in ENVIRONMENT},
    }  # fmt: skip


def _work(channel: Connection, contestant: Contestant, folder: str, core: int) -> None:
    """Answer commands until ``quit``."""
    os.sched_setaffinity(0, {core})
    desk = _Desk(contestant, Path(folder))
    while True:
        command, arguments = channel.recv()
        if command == "quit":
            return
        try:
            answer = True, getattr(desk, command)(**arguments)
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        channel.send(answer)


class _Desk:
    """The commands of a worker."""

    def __init__(self, contestant: Contestant, folder: Path) -> None:
        self._contestant, self._queries = contestant, np.load(folder / "queries.npy")
        self._home = folder / contestant.name
        self._given: dict[Any, np.ndarray] = {}
        self._allow: np.ndarray | None = None

    def sources(self) -> str:
        return self._contestant.sources()

    def build(self, data: str, n_rows: int) -> dict[str, Any]:
        """Build and save; seconds of the build, and bytes that it took beside the rows."""
        loaded = datasets.load(data, QUERIES, n_rows)
        assert loaded is not None
        self._runner = self._contestant.runner(loaded.rows.shape[1], loaded.metric)
        before = _reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        self._runner.build(loaded.rows)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = _memory("VmHWM") - before
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        self._runner.save(self._home)
        saved = sum(path.stat().st_size for path in self._home.rglob("*") if path.is_file())
        record = {
            "wall seconds": wall, "cpu seconds": cpu, "peak bytes": peak, "saved bytes": saved, "rows": len(loaded.rows),
            "dim": loaded.rows.shape[1], "about": self._runner.about(), "sources": self._contestant.sources(),
        }  # fmt: skip
        (self._home / "build.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        return record

    def load(self, metric: str) -> dict[str, Any]:
        """Load the saved index; bytes that the process then has more."""
        self._runner = self._contestant.runner(self._queries.shape[1], metric)
        before = _memory("VmRSS")
        self._runner.load(self._home)
        # An index that is mapped from its file comes into memory as searches read it.
        self._runner.search(self._asked(slice(None)), K, 64)
        return {"resident bytes": _memory("VmRSS") - before, "about": self._runner.about()}

    def allow(self, bits: bytes | None, n: int) -> None:
        """Searches from now on find only rows of this bitmap, least bit first."""
        self._allow = None
        if bits is not None:
            self._allow = np.unpackbits(np.frombuffer(bits, np.uint8), count=n, bitorder="little").astype(bool)

    def search(self, effort: int, part: slice | np.ndarray, seconds: float, single: bool = False) -> dict[str, Any]:
        """Search all queries of a part once untimed, then until that many seconds have passed.

        Returns the rows found, and the time of one pass by the clock and of the processor.
        """
        queries = self._asked(part)
        found = self._pass(queries, effort, single)
        passes, wall, cpu = 0, time.perf_counter(), time.process_time()
        while not passes or time.perf_counter() - wall < seconds:
            self._pass(queries, effort, single)
            passes += 1
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"found": found, "wall": wall / passes, "cpu": cpu / passes, "queries": len(queries)}

    def start(self, data: str, n_rows: int) -> None:
        """An empty index, to be changed; rows are those of the data set."""
        loaded = datasets.load(data, QUERIES, n_rows)
        assert loaded is not None
        self._rows = loaded.rows
        self._runner = self._contestant.runner(loaded.rows.shape[1], loaded.metric)
        self._runner.start(n_rows)

    def change(self, gone: np.ndarray, new: np.ndarray) -> float:
        """Processor seconds of removing rows by their numbers and adding others."""
        fresh = self._rows[new]
        cpu = time.process_time()
        if len(gone):
            self._runner.remove(gone)
        self._runner.add(fresh, new)
        return time.process_time() - cpu

    def memory(self) -> dict[str, int]:
        return {"resident bytes": _memory("VmRSS"), "peak bytes": _memory("VmHWM")}

    def _asked(self, part: slice | np.ndarray) -> np.ndarray:
        key = part.tobytes() if isinstance(part, np.ndarray) else part.indices(len(self._queries))
        if key not in self._given:
            self._given[key] = self._runner.prepared(np.ascontiguousarray(self._queries[part]))
        return self._given[key]

    def _pass(self, queries: np.ndarray, effort: int, single: bool) -> np.ndarray:
        if not single:
            return self._runner.search(queries, K, effort, self._allow)
        return np.concatenate(
            [self._runner.search(queries[i : i + 1], K, effort, self._allow) for i in range(len(queries))]
        )


def _memory(line: str) -> int:
    """Bytes of a line of this process's status."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(found.split()[1]) for found in status if found.startswith(line + ":")) * 1024


def _reset_peak() -> int:
    """Resident bytes, from which the peak is counted from now on (Linux, proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")
