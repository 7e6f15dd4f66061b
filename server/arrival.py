"""What calls pass before their requests are there: those without a key are refused, and slow requests are ended."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from gingham.errors import GinghamError, InvalidArgument, ResourceExhausted
from gingham.parallel import start_thread
from gingham.server.calls import abort
from gingham.server.health import HEALTH
from gingham.server.interceptor import AUDIT, PACKAGE, bearer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import ThreadPoolExecutor

    from gingham.server.keys import KeyRing

LOG = logging.getLogger("gingham.server")
ARRIVAL_SECONDS = 60.0
"""What the request of a call may take from when a thread waits for it: 128 MiB at 18 Mbit/s."""
PROBE_SECONDS = 1.0
"""The same of a probe of health, which is a few bytes and needs no key."""
WAITING_PROBES = 12
"""Probes whose requests are waited for; more are refused unread."""
MOST_STREAMS = 128
"""Calls at once of one connection; more wait on the side of the client."""
SILENT_SECONDS = 60.0
"""After which a connection is asked for a sign of life, for which it has a third of that; and for how long one may
begin to be one."""
IDLE_SECONDS = 3600.0
"""After which a connection without calls ends; clients make another when they need one."""
_SWEEP_SECONDS = 0.25
_IDLE_SWEEPS = 40


def connection_options(silent: float = SILENT_SECONDS, idle: float = IDLE_SECONDS) -> list[tuple[str, int]]:
    """Options of a gRPC server that end connections whose other side has gone without a word, or does nothing.

    Parameters
    ----------
    silent : seconds without a byte, after which the other side has a third of them to answer a ping
    idle : seconds without a call
    """
    third = int(silent * 1000 / 3)
    return [
        ("grpc.keepalive_time_ms", int(silent * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_timeout_ms", third),
        ("grpc.http2.ping_timeout_ms", third),  # the longer of both holds
        ("grpc.http2.min_recv_ping_interval_without_data_ms", third),
        ("grpc.server_handshake_timeout_ms", int(silent * 1000)),
        ("grpc.max_connection_idle_ms", int(idle * 1000)),
        ("grpc.max_concurrent_streams", MOST_STREAMS),
    ]


class Arrivals(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets no call hold a thread that sends no request.

    Of a call with one request, gRPC begins it before the request is there, and a thread of the pool then waits for as
    long as the client likes. So a call without a good key is refused before that, and others are ended after a while.

    Parameters
    ----------
    keys : those that calls need, or None where all may do everything
    refusals : threads where calls end that are refused, so that they need not wait for others
    seconds : what a request may take; None for ``ARRIVAL_SECONDS``
    """

    def __init__(self, keys: KeyRing | None, refusals: ThreadPoolExecutor, seconds: float | None = None) -> None:
        self._keys = keys
        self._refusals = refusals
        self._seconds = ARRIVAL_SECONDS if seconds is None else seconds
        self._waiting, self._probing = _Waiting(), _Waiting()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """A handler whose request is waited for under a limit, or one that refuses a call without reading it."""
        handler = continuation(details)
        if handler is None:
            return None
        probe = details.method.startswith(HEALTH)
        if self._keys is not None and not probe:
            try:
                self._keys.check(bearer(details.invocation_metadata))
            except GinghamError as error:
                return self._refusing(details.method, error)
        if handler.request_streaming:
            return handler
        if not probe:
            return self._waited_for(handler, self._seconds, self._waiting)
        if self._probing.calls >= WAITING_PROBES:
            return self._refusing(details.method, _too_many_probes())
        return self._waited_for(handler, min(self._seconds, PROBE_SECONDS), self._probing)

    def _refusing(self, method: str, error: GinghamError) -> Any:
        def refuse(requests: Any, context: grpc.ServicerContext) -> NoReturn:
            del requests
            name = method.removeprefix(PACKAGE)
            AUDIT.info("key=- method=%s collections=[] refused=%s", name, type(error).__name__)
            abort(context, error)

        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _waited_for(self, handler: Any, seconds: float, waiting: _Waiting) -> Any:
        """The same of a handler that reads the only request of its call itself."""
        kind = "unary_stream" if handler.response_streaming else "unary_unary"
        behaviour = getattr(handler, kind)

        def first(requests: Iterator[Any], context: grpc.ServicerContext, *sender: Any) -> Any:
            number = waiting.begin(context, seconds)
            try:
                request = next(requests, None)
            finally:
                waiting.end(number)
            if request is None:
                abort(context, InvalidArgument("a call expects a request, found none"))
            return behaviour(request, context, *sender)

        def with_sender(requests: Any, context: grpc.ServicerContext, send_response_callback: Any) -> Any:
            return first(requests, context, send_response_callback)

        unblocking = getattr(behaviour, "experimental_non_blocking", False)
        outer: Any = with_sender if unblocking else first
        for name in ("experimental_thread_pool", "experimental_non_blocking"):
            if hasattr(behaviour, name):
                setattr(outer, name, getattr(behaviour, name))
        make = getattr(grpc, f"stream_{kind.partition('_')[2]}_rpc_method_handler")
        return make(outer, handler.request_deserializer, handler.response_serializer)


def _too_many_probes() -> GinghamError:
    error = ResourceExhausted(
        f"the server expected at most {WAITING_PROBES} probes whose requests it waits for, found one more; probe again"
    )
    error.retry_after = PROBE_SECONDS
    return error


class _Waiting:
    """Calls whose requests are waited for; a thread, while there are any, ends those that take too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._last = 0
        self._sweeping = False

    @property
    def calls(self) -> int:
        """How many wait."""
        return len(self._calls)

    def begin(self, context: grpc.ServicerContext, seconds: float) -> int:
        """Note a call that may wait for so long; the number it is known by."""
        with self._lock:
            self._last += 1
            number = self._last
            self._calls[number] = time.monotonic() + seconds, context
            start, self._sweeping = not self._sweeping, True
        if start:
            start_thread(threading.Thread(target=self._sweep, name="gingham-arrivals", daemon=True))
        return number

    def end(self, number: int) -> None:
        """Forget a call."""
        with self._lock:
            del self._calls[number]

    def _sweep(self) -> None:
        """End calls that take too long; returns once none has waited for a while."""
        idle = 0
        while True:
            time.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            with self._lock:
                late = [context for end, context in self._calls.values() if end < now]
                idle = 0 if self._calls else idle + 1
                if idle >= _IDLE_SWEEPS:
                    self._sweeping = False
                    return
            for context in late:
                LOG.info("a call from %s was ended, since its request took too long", context.peer())
                context.cancel()
