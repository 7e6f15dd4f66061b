"""Calls that a reader passes on to the process that writes, as the bytes that came, and as its caller sees them.

Neither side of a call is read here: the writer asks for the key and for the rule of what it is passed, as if it had
come from outside, and the reader of what it answers.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from typing import TYPE_CHECKING, Any

import grpc

from gingham.server.calls import seconds_left
from gingham.server.limits import CallPool
from gingham.server.logs import CURRENT_CALL
from gingham.server.observer import PEER
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWERED = frozenset(
    f"/gingham.v1.{name}"
    for name in (
        "CollectionService/ListCollections", "CollectionService/GetSchema", "CollectionService/GetCollectionStats",
        "CollectionService/GetDatabaseStats", "CollectionService/Recall", "RowService/Get", "RowService/Count",
        "RowService/Facets", "RowService/Scan", "QueryService/Search", "QueryService/Query",
    )
)  # fmt: skip
"""Calls that a reader answers itself; all others are the writer's."""
RECONNECT_MS = 50
_OWN = frozenset({"user-agent", PEER})
"""Metadata that each connection has of its own."""


class Forwarding(grpc.ServerInterceptor):  # type: ignore[misc]
    """Passes calls on that are the writer's, and reads of snapshots, which it holds.

    Parameters
    ----------
    socket : where the writer listens
    workers : calls that may be under way at once; others wait
    counted : counts them

    Attributes
    ----------
    streams : calls under way of which each holds a worker for as long as its caller likes
    """

    def __init__(self, socket: str, workers: int, counted: CallPool) -> None:
        self._pool = CallPool(workers, counted)
        self._channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=[
                # Both ends have the limit.
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
                ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
            ],
        )
        self._counting = threading.Lock()
        self.streams = 0
        self._forwards: dict[str, Any] = {}
        self._pinned: dict[str, tuple[re.Pattern[bytes], Any]] = {}
        for service in pb.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                self._add(f"/{service.full_name}/{method.name}", method)

    def _add(self, path: str, method: Any) -> None:
        kind = ("unary", "stream")[method.client_streaming] + "_" + ("unary", "stream")[method.server_streaming]
        call = getattr(self._channel, kind)(path)
        forward: Any = functools.partial(self._streamed if method.server_streaming else self._answered, call)
        if path not in ANSWERED:
            forward.experimental_thread_pool = self._pool
            self._forwards[path] = getattr(grpc, f"{kind}_rpc_method_handler")(forward)
        elif "snapshot" in method.input_type.fields_by_name:
            self._pinned[path] = _names_snapshot(method.input_type.fields_by_name["snapshot"].number), forward

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler that passes a call on, or the one that is there."""
        forwarding = self._forwards.get(details.method)
        if forwarding is not None:
            return forwarding
        handler = continuation(details)
        if handler is None or details.method not in self._pinned:
            return handler
        pattern, forward = self._pinned[details.method]
        kind = "unary_stream" if handler.response_streaming else "unary_unary"
        behaviour, serialize = getattr(handler, kind), handler.response_serializer

        def either(raw: bytes, context: grpc.ServicerContext) -> Any:
            return (forward if pattern.search(raw) else behaviour)(raw, context)

        def serialized(answer: Any) -> bytes:
            return answer if isinstance(answer, bytes) else serialize(answer)

        return getattr(grpc, f"{kind}_rpc_method_handler")(either, response_serializer=serialized)

    def _answered(self, method: Any, raw: bytes, context: grpc.ServicerContext) -> bytes | None:
        call = method.future(raw, **_as_called(context))
        _end_with(context, call)
        answer: bytes | None = None
        with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
            answer = call.result()
        _send_initial(call, context)
        _end_as(call, context)
        return answer

    def _streamed(self, method: Any, sent: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        over = threading.Event()
        with self._counted():
            try:
                call = method(sent if isinstance(sent, bytes) else _requests(sent, over), **_as_called(context))
                _end_with(context, call)
                _send_initial(call, context)
                with contextlib.suppress(grpc.RpcError):
                    yield from call
                _end_as(call, context)
            finally:
                over.set()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self.streams += 1
        try:
            yield
        finally:
            with self._counting:
                self.streams -= 1

    def close(self) -> None:
        """End the connection; may be called twice."""
        self._pool.shutdown()
        self._channel.close()


def _names_snapshot(number: int) -> re.Pattern[bytes]:
    """What a message has in it that names a snapshot, which :class:`gingham.server.views.Views` makes, in a field.

    Where other bytes look like one, the writer answers all the same.
    """
    tag = number << 3 | 2  # protobuf: a field of the wire type 2, its length, its bytes
    key = bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])
    return re.compile(re.escape(key + b"\x20") + rb"[0-9a-f]{32}")


def _as_called(context: grpc.ServicerContext) -> dict[str, Any]:
    """Deadline and metadata of a call that is passed on."""
    call = CURRENT_CALL.get()
    if call is not None:
        call.forwarded = True
    given = [
        (name, value)
        for name, value in context.invocation_metadata() or ()
        if name not in _OWN and (not name.startswith("grpc-") or name.endswith("-bin"))
    ]
    return {"metadata": [*given, (PEER, context.peer())], "timeout": seconds_left(context)}


def _end_with(context: grpc.ServicerContext, call: Any) -> None:
    """Cancel a call once its caller has gone."""
    if not context.add_callback(call.cancel):
        call.cancel()


def _send_initial(call: Any, context: grpc.ServicerContext) -> None:
    initial = call.initial_metadata()
    if initial:
        context.send_initial_metadata(initial)


def _end_as(call: Any, context: grpc.ServicerContext) -> None:
    """End as a call has ended."""
    context.set_trailing_metadata(call.trailing_metadata() or ())
    if call.code() is not grpc.StatusCode.OK:
        context.abort(call.code(), call.details() or "")


def _requests(sent: Iterator[bytes], over: threading.Event) -> Iterator[bytes]:
    """What a caller sends; where it breaks off, that is not taken for its end."""
    try:
        yield from sent
    except grpc.RpcError:
        over.wait()
