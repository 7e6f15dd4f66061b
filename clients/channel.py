"""A connection: calls, and what their failures are raised as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from gingham import errors
from gingham.errors import Closed, DeadlineExceeded, GinghamError, InvalidArgument, NotReady
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.wire import unpack_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT_SECONDS = 10.0
"""What the first answer of a server may take."""
SCHEME = "grpc://"


class Channel:
    """Calls of one server.

    Attributes
    ----------
    address : HOST:PORT
    collections, rows, queries : stubs of the services
    """

    def __init__(self, target: str) -> None:
        self.address = target.removeprefix(SCHEME).rstrip("/")
        host, colon, port = self.address.rpartition(":")
        if not (target.startswith(SCHEME) and host and colon and port.isascii() and port.isdigit()):
            raise InvalidArgument(
                f"open() expects grpc://HOST:PORT, such as grpc://127.0.0.1:7443, found {target!r:.80}"
            )
        # Answers are as long as the server lets them be: it has the limit.
        self._grpc = grpc.insecure_channel(self.address, options=[("grpc.max_receive_message_length", -1)])
        self.collections = services.CollectionServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.rows = services.RowServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.queries = services.QueryServiceStub(self._grpc)  # type: ignore[no-untyped-call]
        self.open = True

    def close(self) -> None:
        """End the connection; may be called twice."""
        self.open = False
        self._grpc.close()

    def call(self, method: Callable[..., Any], request: Any, timeout: float | None = None) -> Any:
        """The answer to a request; what the server raised is raised here."""
        if not self.open:
            raise Closed(f"the connection to {self.address} is closed; open it again")
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            failure = self._failure(error, timeout)
        raise failure

    def stream(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """The answers to a request; closing the generator ends the call."""
        if not self.open:
            raise Closed(f"the connection to {self.address} is closed; open it again")
        call = method(request)
        try:
            yield from call
            return
        except grpc.RpcError as error:
            failure = self._failure(error, None)
        finally:
            call.cancel()
        raise failure

    def _failure(self, error: Any, timeout: float | None) -> GinghamError:
        code, details = error.code().name, str(error.details()).partition("\n")[0][:300]
        trailing = dict(error.trailing_metadata() or ())
        if code == DeadlineExceeded.grpc_code and timeout is not None:
            # Either side may have noticed first; the server knows only what was left of the time.
            return DeadlineExceeded(
                f"the call expected to end within timeout={timeout:g} s, found work left; "
                "raise timeout= or ask for less"
            )
        if "gingham-error" in trailing:
            return unpack_error(trailing["gingham-error"], trailing.get("gingham-error-bin", b"\x80"))
        if code == "UNIMPLEMENTED":
            return NotReady(f"the server at {self.address} expected a call that it knows, found a newer one: {details}")
        if code == "RESOURCE_EXHAUSTED":
            return errors.ResourceExhausted(
                f"the server at {self.address} expected fewer calls or a smaller message, found: {details}; send fewer "
                "rows at once, or an iterable of dicts, which is sent in parts; ask for a smaller k= or batch_size="
            )
        if code == "UNAVAILABLE":
            return errors.Unavailable(
                f"a server was expected at {self.address}, found none that answers: {details}; start one there with: "
                f"gingham serve DIR --listen {self.address}"
            )
        kinds = {"CANCELLED": errors.Cancelled, "DEADLINE_EXCEEDED": DeadlineExceeded}
        return kinds.get(code, GinghamError)(f"the call of {self.address} expected an answer, found {code}: {details}")
