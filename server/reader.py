"""What a reader process runs: a server for the reads of a folder, which passes the other calls on.

Lines on its standard input say what it is (the first), and that it is to drain within so many seconds; where that input
ends, the process that wrote them has ended, and so does this one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gingham.config import StoreOptions
from gingham.database import Database
from gingham.errors import GinghamError
from gingham.index.warmup import load_cached
from gingham.parallel import start_thread
from gingham.server.forward import Forwarding
from gingham.server.limits import CallPool
from gingham.server.logs import log_to_stderr
from gingham.server.main import DRAIN_SECONDS, Operation, Server
from gingham.server.readers import END_SECONDS, READY, ReaderSetup
from gingham.server.tls import TlsFiles

if TYPE_CHECKING:
    import io

    import grpc


LOOK_SECONDS = 10.0
"""Between two looks at the newest commit: without calls, a reader would hold the file from before a compaction."""


class ReaderServer(Server):
    """One of several servers on an address.

    Parameters
    ----------
    database : open for reading
    """

    _shares_port = True

    def __init__(self, database: Database, setup: ReaderSetup) -> None:
        self._setup = setup
        super().__init__(
            database,
            listen=setup.listen,
            max_workers=setup.max_workers,
            max_message_bytes=setup.max_message_bytes,
            tls=None if setup.tls is None else TlsFiles(*setup.tls),
            keys=setup.keys,
            operation=Operation(max_hits=setup.max_hits, reflection=setup.reflection),
        )

    def _pool_of(self, workers: int) -> CallPool:
        # Others compute as well: those of a core for each.
        return CallPool(workers, cores=max(1, (os.cpu_count() or 1) // self._setup.readers))

    def _forwarding(self, workers: int) -> list[grpc.ServerInterceptor]:
        self._forward = Forwarding(self._setup.socket, workers, self._pool)
        return [self._forward]

    def _show_metrics(self, database: Database, operation: Operation) -> None:
        del database, operation
        if self._setup.metrics:
            from gingham.server.metrics import ReaderMetrics

            opened = {"calls": lambda: self._pool.calls, "scans": lambda: self._scans.open + self._forward.streams}
            self._metrics = ReaderMetrics(self._setup.number, opened)
            self._observer.counts = self._metrics.counts

    def stop(self, grace: float = DRAIN_SECONDS) -> None:
        """Take no more calls, and wait for those that run; may be called twice."""
        super().stop(grace)
        self._forward.close()


def main() -> None:
    """Answer calls until a line, a signal or the end of the other process says to stop."""
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - a buffer would be held when the process ends
    told = lines.readline()
    if not told:  # the other process has ended already
        return
    setup = msgspec.json.decode(told, type=ReaderSetup)
    if setup.log is not None:
        log_to_stderr(as_json=setup.log == "json")
    ends: queue.SimpleQueue[float] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):  # which a terminal or a supervisor sends to all processes
        signal.signal(number, lambda *_: ends.put(DRAIN_SECONDS))
    folder = Path(setup.socket).parent
    start_thread(threading.Thread(target=_listen, args=(lines, ends, folder), name="gingham-lifeline", daemon=True))
    load_cached()
    options = StoreOptions(mode="r", device=setup.device)
    with Database(setup.path, options) as database, ReaderServer(database, setup) as server:
        os.write(1, READY)
        os.dup2(2, 1)  # nobody reads what is printed from here on
        server.stop(_wait(ends, database))


def _wait(ends: queue.SimpleQueue[float], database: Database) -> float:
    """Return once it is to end, with the seconds that running calls have."""
    while True:
        try:
            return ends.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            with contextlib.suppress(GinghamError):
                database.collections()


def _listen(lines: io.FileIO, ends: queue.SimpleQueue[float], folder: Path) -> None:
    """Hand on when to drain; ends with the process that says so."""
    while line := lines.readline():
        ends.put(float(line))
    shutil.rmtree(folder, ignore_errors=True)
    late = threading.Timer(END_SECONDS, os._exit, (1,))
    late.daemon = True
    late.start()
    ends.put(0.0)
