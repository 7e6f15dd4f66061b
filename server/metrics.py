"""Metrics for Prometheus: calls, what is open, collections and their recall, the map, the process."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import prometheus_client as prometheus
from prometheus_client import values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gingham.errors import GinghamError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gingham.database import Database

LOG = logging.getLogger("gingham.server")
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds that calls take at most, each about double the one before."""
RECALL_QUERIES, RECALL_SECONDS = 50, 60.0
"""Rows that each measure of recall searches for, and the time after which it is given up."""
LOOK_SECONDS = 0.5
"""How old may be what a reader says that is open."""
_COLLECTION = {
    "rows": "Live rows.",
    "dead_rows": "Rows whose space is not given back yet.",
    "tail_rows": "Rows outside of segments.",
    "segments": "Segments.",
    "unindexed_rows": "Rows outside of indexes.",
    "nbytes": "Bytes of segments and tail.",
}
"""Figures of a collection, named as those of its stats()."""


class CallCounts:
    """How many calls have ended, and how long they took."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._calls = prometheus.Counter(
            "gingham_calls", "Calls that have ended.", ["method", "code"], registry=registry
        )
        self._seconds = prometheus.Histogram(
            "gingham_call_seconds", "Time of calls, waiting for a thread included.", ["method"], buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)


class Metrics:
    """What one server has counted.

    Parameters
    ----------
    database : whose collections are shown
    opened : by name, what counts the things that are open now
    recall_every : seconds between two measures of the recall of each dense vector field; None measures none
    shared : folder where other processes count the calls of this server; None where this one does

    Attributes
    ----------
    counts : of calls, where this process counts them
    """

    def __init__(
        self,
        database: Database,
        opened: Mapping[str, Callable[[], int]],
        *,
        recall_every: float | None = None,
        shared: str | None = None,
    ) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.counts = CallCounts(self.registry) if shared is None else None
        if shared is not None:
            MultiProcessCollector(self.registry, path=shared)  # type: ignore[no-untyped-call]
        for name, count in opened.items():
            gauge = prometheus.Gauge(f"gingham_open_{name}", f"Open {name}.", registry=self.registry)
            gauge.set_function(count)
        self.registry.register(_Figures(database))
        prometheus.ProcessCollector(registry=self.registry)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stop: list[Callable[[], None]] = []
        if recall_every is not None:
            self._recall = prometheus.Gauge(
                "gingham_recall", "Share of the exact 10 nearest that searches find.", ["collection", "vector"],
                registry=self.registry,
            )  # fmt: skip
            sampler = threading.Thread(target=self._sample, args=(database, recall_every), name="gingham-recall")
            sampler.start()
            self._threads.append(sampler)

    def listen(self, host: str, port: int) -> int:
        """Answer scrapes from now on; the port, or Unavailable where it is taken."""
        try:
            server, thread = prometheus.start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise Unavailable(
                f"serve() expects a free port for metrics, found {host}:{port}: {error.strerror}; choose another with "
                "metrics="
            ) from None
        self._threads.append(thread)
        self._stop += [server.shutdown, server.server_close]
        return int(server.server_port)

    def stop(self) -> None:
        """Answer and measure no more; may be called twice."""
        self._ended.set()
        for stop in self._stop:
            stop()
        self._stop.clear()
        for thread in self._threads:
            thread.join()

    def _sample(self, database: Database, every: float) -> None:
        while not self._ended.wait(every):
            for name in database.collections():
                try:
                    collection = database[name]
                    for vector in collection.schema.dense:
                        measured = collection.recall(n=RECALL_QUERIES, using=vector, timeout=RECALL_SECONDS)
                        self._recall.labels(name, vector).set(measured.recall)
                except GinghamError as error:  # dropped meanwhile, or it has no rows
                    LOG.debug("recall of %s was not measured: %s", name, error)


class ReaderMetrics:
    """What one of several processes counts for a server, in a folder that the one with the metrics reads.

    Parameters
    ----------
    number : of this process; one that takes its place counts on
    opened : by name, what counts the things that are open here now
    """

    def __init__(self, number: int, opened: Mapping[str, Callable[[], int]]) -> None:
        # prometheus_client takes the folder from the environment when it is imported.
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
        registry = prometheus.CollectorRegistry()
        self.counts = CallCounts(registry)
        gauges = [
            (prometheus.Gauge(
                f"gingham_open_{name}", f"Open {name}.", multiprocess_mode="livesum", registry=registry
            ), count)
            for name, count in opened.items()
        ]  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(gauges,), name="gingham-open", daemon=True)
        self._thread.start()

    def _look(self, gauges: list[tuple[prometheus.Gauge, Callable[[], int]]]) -> None:
        while True:
            for gauge, count in gauges:
                gauge.set(count())
            if self._ended.wait(LOOK_SECONDS):
                return

    def stop(self) -> None:
        """Look no more; may be called twice."""
        self._ended.set()
        self._thread.join()


def forget_open(folder: str, number: int) -> None:
    """Take what was open in a process that has ended out of the metrics."""
    mark_process_dead(number, folder)  # type: ignore[no-untyped-call]


class _Figures:
    """Reads the figures of a database when it is scraped."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The figures now."""
        whole = self._database.stats()
        yield GaugeMetricFamily("gingham_file_bytes", "Size of the data file, which is mapped.", whole.file_bytes)
        yield GaugeMetricFamily("gingham_used_bytes", "Bytes up to the last page in use.", whole.used_bytes)
        yield GaugeMetricFamily("gingham_version", "Number of commits.", whole.version)
        families = {
            name: GaugeMetricFamily(f"gingham_collection_{name}", told, labels=["collection"])
            for name, told in _COLLECTION.items()
        }
        for collection in self._database.collections():
            try:
                stats = self._database[collection].stats()
            except GinghamError:  # dropped meanwhile
                continue
            for name, family in families.items():
                family.add_metric([collection], getattr(stats, name))
        yield from families.values()
