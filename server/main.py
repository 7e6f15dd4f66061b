"""A server in this process: where it listens, its limits, and how it ends."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import queue
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from gingham.config import StoreOptions
from gingham.database import Database
from gingham.errors import InvalidArgument, Unavailable
from gingham.server.access import GuardedDatabase
from gingham.server.arrival import Arrivals, connection_options
from gingham.server.health import Health, add_reflection
from gingham.server.interceptor import AccessInterceptor
from gingham.server.keys import KEYS_FILE, KeyRing
from gingham.server.limits import CallPool, LimitInterceptor
from gingham.server.logs import form_of_log
from gingham.server.metrics import Metrics
from gingham.server.observer import CallObserver
from gingham.server.readers import MOST_READERS, ReaderGroup, ReaderSetup
from gingham.server.servicer import add_services
from gingham.server.tls import server_credentials
from gingham.types import whole

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from gingham.server.metrics import ReaderMetrics
    from gingham.server.tls import TlsFiles

DEFAULT_LISTEN = "127.0.0.1:7443"
DEFAULT_WORKERS = 8
MAX_MESSAGE_BYTES = 128 << 20
"""10,000 rows, the part in which streams are sent, of 3,072 float32 dimensions."""
WAITING_CALLS = 16
"""Calls per worker that wait for it; more are refused."""
DRAIN_SECONDS = 30.0
"""What running calls have to end in after SIGTERM."""
MAX_HITS = 1_000_000
LOOK_SECONDS = 1.0
"""Between two looks at signals: one that comes just before a thread waits does not wake it."""
_PROBE_WORKERS = 16
"""Threads for probes of health: most of them may wait for requests that do not come."""
_REFUSING_WORKERS = 4


@dataclass(frozen=True)
class Operation:
    """How a server is watched and bounded.

    Attributes
    ----------
    max_hits : hits that one request may ask for: k of each of its queries, or the rows that there are
    metrics : HOST:PORT of this machine where Prometheus finds metrics at ``/metrics``; None counts nothing
    recall_every : minutes between two measures of the recall of each dense vector, which cost 50 exact searches; None
        measures none
    reflection : whether clients may ask for the interface; None where calls need no keys
    """

    max_hits: int = MAX_HITS
    metrics: str | None = None
    recall_every: float | None = None
    reflection: bool | None = None

    def __post_init__(self) -> None:
        whole("serve(max_hits=)", self.max_hits)
        if self.recall_every is not None and not (self.metrics is not None and 0 < self.recall_every < math.inf):
            raise InvalidArgument(
                f"serve(recall_every=) expects minutes above 0, and metrics=, found {self.recall_every!r:.40} and "
                f"{self.metrics!r:.60}"
            )
        if self.metrics is not None:
            metrics_address(self.metrics)


def metrics_address(metrics: str) -> tuple[str, int]:
    """Host and port for metrics; raises InvalidArgument for an address that other machines reach."""
    try:
        return address_of(metrics)
    except InvalidArgument:
        raise InvalidArgument(
            f"serve(metrics=) expects HOST:PORT of this machine alone, such as 127.0.0.1:9464, found {metrics!r:.60}; "
            "let those who scrape from elsewhere come through a tunnel"
        ) from None


def address_of(listen: str, *, tls: bool = False, keys: bool = False) -> tuple[str, int]:
    """Host and port; raises InvalidArgument for an address that other machines reach, unless there are TLS and keys."""
    host, colon, port = str(listen).rpartition(":")
    host = host.strip("[]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InvalidArgument(f"listen= expects HOST:PORT, such as {DEFAULT_LISTEN}, found {listen!r:.60}")
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not (inside or (tls and keys)):
        missing = " and ".join(
            name for name, there in (("TLS (--tls-cert, --tls-key)", tls), ("keys (--keys)", keys)) if not there
        )
        raise InvalidArgument(
            f"listen= expects an address of this machine alone, such as {DEFAULT_LISTEN}, found {listen!r:.60} without "
            f"{missing}; give both, or let clients elsewhere come through a tunnel"
        )
    return host, int(port)


class Server:
    """A gRPC server over an open database, which stays the caller's; use it in a ``with`` block or :meth:`stop` it.

    Parameters
    ----------
    listen : HOST:PORT; port 0 takes a free one; other machines may reach it where there are both ``tls`` and ``keys``
    max_workers : calls that run at once
    max_message_bytes : longest request and longest answer
    tls : certificate and key, read again when they change; None does not encrypt
    keys : file of keys, or the folder with it, read again when it changes; None lets every caller do everything
    operation : how it is watched and bounded
    interceptors : of gRPC, which see calls first, such as those of OpenTelemetry
    readers : processes that answer reads, on Linux, with as many workers each; 0 leaves them to this one. They know no
        embedders that are attached to ``database``
    device : that readers scan with for large batches, as of :func:`gingham.open`

    Attributes
    ----------
    address : where it listens, HOST:PORT
    url : the same for :func:`gingham.open`
    metrics_port : where it shows metrics; None where it does not

    Raises
    ------
    InvalidArgument : ``listen`` reaches further than it may, or certificates cannot be used, or there are both
        ``readers`` and ``interceptors``
    Unavailable : the port is taken, the keys cannot be read, or readers do not start
    """

    _shares_port = False

    def __init__(
        self,
        database: Database,
        *,
        listen: str = DEFAULT_LISTEN,
        max_workers: int = DEFAULT_WORKERS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: TlsFiles | None = None,
        keys: str | os.PathLike[str] | None = None,
        operation: Operation | None = None,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
        readers: int = 0,
        device: str = "auto",
    ) -> None:
        self._device = device
        operation = operation or Operation()
        readers = whole("serve(readers=)", readers, 0, MOST_READERS)
        host, port = address_of(listen, tls=tls is not None, keys=keys is not None)
        workers = whole("serve(max_workers=)", max_workers, most=1024)
        limit = whole("serve(max_message_bytes=)", max_message_bytes, most=(1 << 31) - 1)
        credentials = None if tls is None else server_credentials(tls)
        ring = None if keys is None else KeyRing(keys)
        access = AccessInterceptor(str(database.path), ring)
        self._pool = self._pool_of(workers)
        self._probes = ThreadPoolExecutor(_PROBE_WORKERS, thread_name_prefix="gingham-probes")
        self._refusals = ThreadPoolExecutor(_REFUSING_WORKERS, thread_name_prefix="gingham-refusals")
        arrivals = Arrivals(ring, self._refusals)
        self._limits = LimitInterceptor(self._pool, self._refusals, workers * WAITING_CALLS)
        self._observer = CallObserver(behind=readers > 0)
        self._grpc = grpc.server(
            self._pool,
            interceptors=[*interceptors, self._observer, arrivals, self._limits, *self._forwarding(workers), access],
            options=self._options(limit),
            # Those that are refused count too; beyond this, they are not even told when to call again.
            maximum_concurrent_rpcs=workers * WAITING_CALLS * 4,
        )
        self._views, self._scans = add_services(
            cast("Database", GuardedDatabase(database)), self._grpc, workers=workers, max_hits=operation.max_hits,
            most_bytes=limit,
        )  # fmt: skip
        self._health = Health()
        self._health.add_to(self._grpc, self._probes)
        if operation.reflection or (operation.reflection is None and keys is None):
            add_reflection(self._grpc)
        self.metrics_port: int | None = None
        self._metrics: Metrics | ReaderMetrics | None = None
        self._group: ReaderGroup | None = None
        try:
            if readers:
                self._group = ReaderGroup(host, port, readers, interceptors)
            self._listen(host, port, credentials)
            self._show_metrics(database, operation)
            self._grpc.start()
            if self._group is not None:
                self._group.start(self._told(database, operation, workers, limit, tls, keys))
        except BaseException:
            self.stop(0)
            raise

    def _options(self, limit: int) -> list[tuple[str, int]]:
        lengths = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
        # Another server on the same port is to be told so, and not to share its calls.
        return [*connection_options(), *lengths, ("grpc.so_reuseport", int(self._shares_port))]

    def _pool_of(self, workers: int) -> CallPool:
        return CallPool(workers)

    def _forwarding(self, workers: int) -> list[grpc.ServerInterceptor]:
        """What passes calls on to another process: what comes after it sees those that are answered here."""
        del workers
        return []

    def _told(
        self,
        database: Database,
        operation: Operation,
        workers: int,
        limit: int,
        tls: TlsFiles | None,
        keys: str | os.PathLike[str] | None,
    ) -> ReaderSetup:
        """What readers have to know."""
        assert self._group is not None
        authorities = None if tls is None or tls.client_ca is None else str(tls.client_ca)
        return ReaderSetup(
            path=str(database.path),
            listen=self.address,
            socket=self._group.socket,
            readers=self._group.readers,
            device=self._device,
            max_workers=workers,
            max_message_bytes=limit,
            max_hits=operation.max_hits,
            tls=None if tls is None else (str(tls.cert), str(tls.key), authorities),
            keys=None if keys is None else str(keys),
            reflection=operation.reflection,
            metrics=operation.metrics is not None,
            log=form_of_log(),
        )

    def _show_metrics(self, database: Database, operation: Operation) -> None:
        if operation.metrics is None:
            return
        opened = {"calls": lambda: self._pool.calls, "scans": lambda: self._scans.open, "snapshots": self._views.count}
        shared = None
        if self._group is not None:  # readers count calls and scans, also those that they pass on
            opened, shared = {"snapshots": self._views.count}, self._group.folder
        every = None if operation.recall_every is None else operation.recall_every * 60
        self._metrics = Metrics(database, opened, recall_every=every, shared=shared)
        self._observer.counts = self._metrics.counts
        self.metrics_port = self._metrics.listen(*metrics_address(operation.metrics))

    def _listen(self, host: str, port: int, credentials: Any) -> None:
        shown = f"[{host}]" if ":" in host else host
        try:
            if self._group is not None:
                bound = self._group.port if self._grpc.add_insecure_port(f"unix:{self._group.socket}") else 0
            elif credentials is None:
                bound = self._grpc.add_insecure_port(f"{shown}:{port}")
            else:
                bound = self._grpc.add_secure_port(f"{shown}:{port}", credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            raise Unavailable(f"serve() expects a free port, found {shown}:{port} taken; choose another with listen=")
        self.address = f"{shown}:{bound}"
        self.url = f"{'grpc' if credentials is None else 'grpcs'}://{self.address}"

    def stop(self, grace: float = DRAIN_SECONDS) -> None:
        """Take no more calls, and wait for those that run; may be called twice.

        Parameters
        ----------
        grace : seconds that they have; until they are over, the server answers probes, as one that does not serve
        """
        end = time.monotonic() + grace
        self._health.drain()
        self._scans.ending = True
        if self._group is not None:  # what they have passed on is answered here
            self._group.drain(grace)
        self._limits.draining = True
        self._pool.wait(max(0.0, end - time.monotonic()))
        self._health.end()
        self._grpc.stop(max(0.0, end - time.monotonic())).wait()
        self._pool.shutdown()
        self._probes.shutdown()
        self._refusals.shutdown()
        self._views.close_all()
        if self._metrics is not None:
            self._metrics.stop()
        if self._group is not None:
            self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    path: str | os.PathLike[str],
    *,
    listen: str = DEFAULT_LISTEN,
    max_workers: int = DEFAULT_WORKERS,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    tls: TlsFiles | None = None,
    keys: str | os.PathLike[str] | None = None,
    operation: Operation | None = None,
    readers: int = 0,
    device: str = "auto",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a database until SIGTERM or SIGINT; running calls have half a minute to end.

    Parameters
    ----------
    path : folder of the database, made where there is none
    listen, max_workers, max_message_bytes, tls, keys, operation, readers : as of :class:`Server`; where no keys are
        named, those in the folder are used if there are some
    device : that scans for large batches, as of :func:`gingham.open`
    ready : called with the address for :func:`gingham.open` once calls are taken

    Raises
    ------
    InvalidArgument : ``listen`` reaches further than it may, certificates cannot be used, or the system has no readers
    Unavailable : the port is taken, the keys cannot be read, or readers do not start
    """
    own = Path(path) / KEYS_FILE
    keys = own if keys is None and own.exists() else keys
    address_of(listen, tls=tls is not None, keys=keys is not None)  # refused before a database is made
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()  # a lock of threading might be held where a signal comes
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: ends.put(number)) for number in signals]
    try:
        with (
            Database(path, StoreOptions(device=device)) as database,
            Server(
                database,
                listen=listen,
                max_workers=max_workers,
                max_message_bytes=max_message_bytes,
                tls=tls,
                keys=keys,
                operation=operation,
                readers=readers,
                device=device,
            ) as server,
        ):
            if ready is not None:
                ready(server.url)
            _wait(ends)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _wait(ends: queue.SimpleQueue[int]) -> None:
    """Return once there is something."""
    while True:
        with contextlib.suppress(queue.Empty):
            ends.get(timeout=LOOK_SECONDS)
            return
