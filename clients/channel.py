"""A connection: calls, and what their failures are raised as."""

from __future__ import annotations

import json
import random
import secrets
import time
from typing import TYPE_CHECKING, Any

import grpc

from gingham import deadline, errors
from gingham.clients.credentials import ENCRYPTED, PLAIN, Credentials, tls_advice
from gingham.errors import Closed, DeadlineExceeded, GinghamError, InvalidArgument, NotReady
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.wire import unpack_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT_SECONDS = 10.0
"""What the first answer of a server may take."""
FIRST_RECONNECT_MS, LAST_RECONNECT_MS = 100, 1000
"""What gRPC waits before it connects again, where a server has gone: at first, and at most."""
CHECK_SECONDS = 0.05
"""How soon a call is given up once its deadline is over or it is cancelled."""
READS = {
    "CollectionService": ("ListCollections", "GetSchema", "GetCollectionStats", "GetDatabaseStats", "Recall"),
    "RowService": ("Get", "Count", "Facets", "Scan"),
    "QueryService": ("Search", "Query"),
    "AdminService": ("Verify",),
}
"""Calls that change nothing: gRPC makes them again, up to three times in a second, where the server is not there."""
PAUSES = 0.05, 0.15, 0.45
"""Seconds before a write is made again."""
MOST_WAITS = 3
"""Times that a call which found no room is made again, of any kind: nothing was done of it."""
_RETRIES = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


class Channel:
    """Calls of one server.

    Attributes
    ----------
    address : HOST:PORT
    url : the same behind ``grpc://``, or ``grpcs://`` with TLS
    credentials : what is shown with calls, and what is expected of the server
    collections, rows, queries, admin : stubs of the services

    Notes
    -----
    It is pickled as what it was made of, and opened anew where it is unpickled.
    """

    def __init__(self, target: str, credentials: Credentials | None = None) -> None:
        scheme = next((one for one in (PLAIN, ENCRYPTED) if target.startswith(one)), "")
        self.address = target.removeprefix(scheme).rstrip("/")
        self.url = f"{scheme}{self.address}"
        host, colon, port = self.address.rpartition(":")
        if not (scheme and host and colon and port.isascii() and port.isdigit()):
            raise InvalidArgument(
                "open() expects grpc://HOST:PORT or grpcs://HOST:PORT, such as grpc://127.0.0.1:7443, found "
                f"{target!r:.80}"
            )
        self.credentials = credentials or Credentials()
        self._metadata = self.credentials.metadata()
        # Answers are as long as the server lets them be: it has the limit.
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.service_config", _service_config()),
            ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", LAST_RECONNECT_MS),
            # A connection of its own: those of one process may come to different readers of a server.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._grpc = self.credentials.channel(scheme, self.address, options)
        self.collections = services.CollectionServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.rows = services.RowServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.queries = services.QueryServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.admin = services.AdminServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.open = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Channel, (self.url, self.credentials)

    def close(self) -> None:
        """End the connection; may be called twice."""
        self.open = False
        self._grpc.close()

    def call(self, method: Any, request: Any, timeout: float | None = None, *, spent: float = 0.0) -> Any:
        """The answer to a request; what the server raised is raised here.

        Parameters
        ----------
        timeout : seconds that the caller gave
        spent : seconds of them that are over
        """
        end = None if timeout is None else time.monotonic() + timeout - spent
        waits = 0
        while True:
            if not self.open:
                raise Closed(f"the connection to {self.address} is closed; open it again")
            left = None if end is None else end - time.monotonic()
            if timeout is not None and left is not None and left <= 0:
                raise _too_late(timeout)  # gRPC would wait a millisecond, and might have the answer by then
            try:
                given = {"timeout": left, "metadata": self._metadata}
                return _awaited(method, request, given) if deadline.limited() else method(request, **given)
            except grpc.RpcError as error:
                failure = self.failure(error, timeout)
            if waits == MOST_WAITS or not _waited(failure, end):
                raise failure
            waits += 1

    def write(self, method: Any, request: Any) -> Any:
        """The answer to a write, which is made again where the server is not there, up to three times within a second.

        Its random id tells the server whether it has been done.
        """
        request.request_id = secrets.token_bytes(16)
        for pause in PAUSES:
            try:
                return self.call(method, request)
            except errors.Unavailable as error:
                if type(error) is not errors.Unavailable:
                    raise
            time.sleep(pause)
        return self.call(method, request)

    def begin(self, method: Any, requests: Iterator[Any]) -> Any:
        """A call of several requests and answers; see :meth:`failure` for what it raises."""
        if not self.open:
            raise Closed(f"the connection to {self.address} is closed; open it again")
        return method(requests, metadata=self._metadata)

    def stream(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """The answers to a request; closing the generator ends the call."""
        if not self.open:
            raise Closed(f"the connection to {self.address} is closed; open it again")
        call = method(request, metadata=self._metadata)
        try:
            for answer in call:
                deadline.check()
                yield answer
            return
        except grpc.RpcError as error:
            failure = self.failure(error, None)
        finally:
            call.cancel()
        raise failure

    def failure(self, error: Any, timeout: float | None = None) -> GinghamError:
        """The error that a call of gRPC has ended with."""
        code, details = error.code().name, str(error.details()).partition("\n")[0][:300]
        trailing = dict(error.trailing_metadata() or ())
        if code == DeadlineExceeded.grpc_code and timeout is not None:
            # Either side may have noticed first; the server knows only what was left of the time.
            return _too_late(timeout)
        if "gingham-error" in trailing:
            return unpack_error(trailing["gingham-error"], trailing.get("gingham-error-bin", b"\x80"))
        if code == "UNIMPLEMENTED":
            return NotReady(f"the server at {self.address} expected a call that it knows, found a newer one: {details}")
        if code == "RESOURCE_EXHAUSTED":
            return errors.ResourceExhausted(
                f"the server at {self.address} expected fewer calls or a smaller message, found: {details}; send fewer "
                "rows at once, or an iterable of dicts, which is sent in parts; ask for a smaller k= or batch_size="
            )
        if code == "UNAVAILABLE" and (advice := tls_advice(self.url, details)):
            return errors.Unavailable(f"a server was expected at {self.url}, found none that is trusted: {advice}")
        if code == "UNAVAILABLE":
            return errors.Unavailable(
                f"a server was expected at {self.address}, found none that answers: {details}; start one there with: "
                f"gingham serve DIR --listen {self.address}"
            )
        kinds = {"CANCELLED": errors.Cancelled, "DEADLINE_EXCEEDED": DeadlineExceeded}
        return kinds.get(code, GinghamError)(f"the call of {self.address} expected an answer, found {code}: {details}")


def _too_late(timeout: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the call expected to end within timeout={timeout:g} s, found work left; raise timeout= or ask for less"
    )


def _awaited(method: Any, request: Any, given: dict[str, Any]) -> Any:
    """The answer to a request, unless the work around it has to end before."""
    future = method.future(request, **given)
    try:
        while True:
            deadline.check()
            try:
                return future.result(timeout=CHECK_SECONDS)
            except grpc.FutureTimeoutError:
                continue
    finally:
        future.cancel()


def _waited(failure: GinghamError, end: float | None) -> bool:
    """Whether a call may be made again: it found no room, and what the server asked to wait, and a part more, is over.

    The part is random, so that many clients do not come back at once.
    """
    asked = failure.retry_after if isinstance(failure, errors.ResourceExhausted) else None
    if asked is None:
        return False
    over = time.monotonic() + asked * (1 + random.random())
    if end is not None and over >= end:
        return False
    while (left := over - time.monotonic()) > 0:
        deadline.check()
        time.sleep(min(left, CHECK_SECONDS))
    return True


def _service_config() -> str:
    names = [{"service": f"gingham.v1.{service}", "method": name} for service in READS for name in READS[service]]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRIES}]})
