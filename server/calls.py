"""How an RPC is called: under the limits of its call, with errors as statuses."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gingham.deadline import CancelScope, within
from gingham.errors import GinghamError, ResourceExhausted
from gingham.server.access import for_caller
from gingham.wire import MOST_MESSAGE_CHARACTERS, pack_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

LOG = logging.getLogger("gingham.server")
LONGEST_WAIT = 1e9
"""Seconds: a deadline further away is none."""
SCAN_SECONDS = 2.0
"""What a scan waits for another one to end."""
TAKEN_SECONDS = 60.0
"""What a client may leave a message of a stream untaken where another waits for its place."""


class _Sending:
    """A stream of answers, and since when its client has taken none."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self.end = end
        self.since = math.inf


_SENDING: contextvars.ContextVar[_Sending | None] = contextvars.ContextVar("gingham_sending", default=None)


def answered(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """An RPC that ends with its deadline or its caller, and whose errors become statuses."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        scope, timeout = _limits(context)
        try:
            with scope, within(timeout):
                return method(self, request)
        except Exception as error:
            failure = _failure(method, error)
        abort(context, failure)

    return call


def streamed(method: Callable[[Any, Any], Generator[Any]]) -> Callable[[Any, Any, Any], Iterator[Any]]:
    """The same of an RPC that answers with several messages; each is made under its limits, none is sent under them."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        scope, timeout = _limits(context)
        frame, limit = contextvars.copy_context(), within(timeout)
        frame.run(scope.bind)
        frame.run(limit.__enter__)
        sending = _Sending(context.cancel)
        frame.run(_SENDING.set, sending)
        answers = method(self, request)
        try:
            while True:
                try:
                    answer = frame.run(next, answers, None)
                except Exception as error:
                    failure = _failure(method, error)
                    break
                if answer is None:
                    return
                sending.since = time.monotonic()
                yield answer
                sending.since = math.inf
        finally:
            frame.run(answers.close)
            frame.run(limit.__exit__, None, None, None)
        abort(context, failure)

    return call


def _limits(context: grpc.ServicerContext) -> tuple[CancelScope, float | None]:
    scope = CancelScope()
    context.add_callback(scope.cancel)
    return scope, seconds_left(context)


def seconds_left(context: grpc.ServicerContext) -> float | None:
    """Until the deadline of a call; None without one."""
    left = context.time_remaining()
    return None if left is None or left > LONGEST_WAIT else max(left, 1e-6)


def _failure(method: Callable[..., Any], error: Exception) -> GinghamError:
    if isinstance(error, GinghamError):
        return for_caller(error)
    LOG.error("%s failed", method.__name__, exc_info=error)
    return GinghamError(f"the server expected {method.__name__} to succeed, it failed; its log says why")


def abort(context: grpc.ServicerContext, error: GinghamError) -> NoReturn:
    """End a call with an error."""
    details = str(error)[:MOST_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    trailing = [("gingham-error", type(error).__name__), ("gingham-error-bin", pack_error(error))]
    if isinstance(error, ResourceExhausted) and error.retry_after is not None:
        trailing.append(("grpc-status-details-bin", _retry_info(details, error.retry_after)))
    context.set_trailing_metadata(trailing)
    context.abort(grpc.StatusCode[error.grpc_code], details)
    raise AssertionError("abort() ends the call")


def _retry_info(details: str, seconds: float) -> bytes:
    """The status RESOURCE_EXHAUSTED with a google.rpc.RetryInfo, which clients in other languages read."""
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=details)
    status.details.add().Pack(info)
    return bytes(status.SerializeToString())


class Scans:
    """How many scans, backups and ingests may go on at once: each holds a worker while its caller reads or writes.

    Attributes
    ----------
    open : those that go on
    ending : ingests are to end, since the server does

    Notes
    -----
    Where there is no place, the one is ended whose client has taken nothing for longest, a minute at least.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = threading.BoundedSemaphore(most)
        self._counting = threading.Lock()
        self._sending: list[_Sending] = []
        self.ending = False

    @property
    def open(self) -> int:
        """How many go on."""
        return len(self._sending)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Let one go on for the time of a block; raises ResourceExhausted."""
        if not (self._free.acquire(timeout=SCAN_SECONDS) or self._taken_from_another()):
            error = ResourceExhausted(
                f"the server expected at most {self._most} scans and other streams at once, found one more; read or "
                "close those that are open, or serve with more workers"
            )
            error.retry_after = SCAN_SECONDS
            raise error
        mine = _SENDING.get() or _Sending(lambda: None)
        with self._counting:
            self._sending.append(mine)
        try:
            yield
        finally:
            with self._counting:
                self._sending.remove(mine)
            self._free.release()

    def _taken_from_another(self) -> bool:
        """Whether there is a place now, after the stream that was left longest has been ended."""
        with self._counting:
            left = min(self._sending, key=lambda one: one.since, default=None)
        if left is None or time.monotonic() - left.since < TAKEN_SECONDS:
            return False
        LOG.info("a stream was ended, since its client took nothing and another waited for its place")
        left.end()
        return self._free.acquire(timeout=SCAN_SECONDS)
