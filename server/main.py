"""A server in this process: where it listens, its limits, and how it ends."""

from __future__ import annotations

import ipaddress
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import grpc

from gingham.config import StoreOptions
from gingham.database import Database
from gingham.errors import InvalidArgument, Unavailable
from gingham.server.access import GuardedDatabase
from gingham.server.interceptor import AccessInterceptor
from gingham.server.keys import KEYS_FILE, KeyRing
from gingham.server.servicer import add_services
from gingham.server.tls import server_credentials
from gingham.types import whole

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from types import TracebackType

    from gingham.server.tls import TlsFiles

DEFAULT_LISTEN = "127.0.0.1:7443"
DEFAULT_WORKERS = 8
MAX_MESSAGE_BYTES = 128 << 20
"""10,000 rows, the part in which streams are sent, of 3,072 float32 dimensions."""
WAITING_CALLS = 16
"""Calls per worker that wait for it; more are refused."""
DRAIN_SECONDS = 30.0
"""What running calls have to end in after SIGTERM."""


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

    Attributes
    ----------
    address : where it listens, HOST:PORT
    url : the same for :func:`gingham.open`

    Raises
    ------
    InvalidArgument : ``listen`` reaches further than it may, or certificates cannot be used
    Unavailable : the port is taken, or the keys cannot be read
    """

    def __init__(
        self,
        database: Database,
        *,
        listen: str = DEFAULT_LISTEN,
        max_workers: int = DEFAULT_WORKERS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: TlsFiles | None = None,
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        host, port = address_of(listen, tls=tls is not None, keys=keys is not None)
        workers = whole("serve(max_workers=)", max_workers, most=1024)
        limit = whole("serve(max_message_bytes=)", max_message_bytes, most=(1 << 31) - 1)
        credentials = None if tls is None else server_credentials(tls)
        access = AccessInterceptor(str(database.path), None if keys is None else KeyRing(keys))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="gingham-grpc")
        self._grpc = grpc.server(
            self._pool,
            interceptors=[access],
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                # Another server on the same port is to be told so, and not to share its calls.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=workers * WAITING_CALLS,
        )
        self._views = add_services(cast("Database", GuardedDatabase(database)), self._grpc, workers=workers)
        shown = f"[{host}]" if ":" in host else host
        try:
            if credentials is None:
                bound = self._grpc.add_insecure_port(f"{shown}:{port}")
            else:
                bound = self._grpc.add_secure_port(f"{shown}:{port}", credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            self.stop(0)
            raise Unavailable(f"serve() expects a free port, found {listen} taken; choose another with listen=")
        self.address = f"{shown}:{bound}"
        self.url = f"{'grpc' if credentials is None else 'grpcs'}://{self.address}"
        self._grpc.start()

    def stop(self, grace: float = DRAIN_SECONDS) -> None:
        """Take no more calls, and wait for those that run; may be called twice."""
        self._grpc.stop(grace).wait()
        self._pool.shutdown()
        self._views.close_all()

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
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a database until SIGTERM or SIGINT; running calls have half a minute to end.

    Parameters
    ----------
    path : folder of the database, made where there is none
    listen, max_workers, max_message_bytes, tls, keys : as of :class:`Server`; where no keys are named, those in the
        folder are used if there are some
    ready : called with the address for :func:`gingham.open` once calls are taken

    Raises
    ------
    InvalidArgument : ``listen`` reaches further than it may, or certificates cannot be used
    Unavailable : the port is taken, or the keys cannot be read
    """
    own = Path(path) / KEYS_FILE
    keys = own if keys is None and own.exists() else keys
    address_of(listen, tls=tls is not None, keys=keys is not None)  # refused before a database is made
    ended = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: ended.set()) for number in signals]
    try:
        with (
            Database(path, StoreOptions()) as database,
            Server(
                database,
                listen=listen,
                max_workers=max_workers,
                max_message_bytes=max_message_bytes,
                tls=tls,
                keys=keys,
            ) as server,
        ):
            if ready is not None:
                ready(server.url)
            ended.wait()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
