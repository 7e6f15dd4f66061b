"""What a server tells of itself: its health, and by reflection its interface."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection

from gingham.errors import ResourceExhausted
from gingham.server.calls import abort
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

HEALTH = "/grpc.health.v1.Health/"
_NAME = "grpc.health.v1.Health"
_SERVICES = [service.full_name for service in pb.DESCRIPTOR.services_by_name.values()]
_NAMES = frozenset(_SERVICES)
MOST_WATCHING = 64
"""Calls that watch at once, of all clients: they need no key."""


class Health(HealthServicer):  # type: ignore[misc]
    """The standard health service: ``""`` and the name of each service are SERVING until it drains."""

    def __init__(self) -> None:
        super().__init__()
        self._watching: set[Any] = set()
        for name in _SERVICES:
            self.set(name, health_pb2.HealthCheckResponse.SERVING)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        """Tell the health now and whenever it changes; it holds no thread."""
        if len(self._watching) >= MOST_WATCHING:
            abort(context, ResourceExhausted(
                f"the server expected at most {MOST_WATCHING} calls that watch its health, found one more; check it "
                "now and then instead"
            ))  # fmt: skip
        self._watching.add(send_response_callback)
        context.add_callback(lambda: self._watching.discard(send_response_callback))
        if request.service and request.service not in _NAMES:
            # No service is added while a server goes on; what it is called by is not kept, since anybody may call.
            unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            return send_response_callback(health_pb2.HealthCheckResponse(status=unknown))
        return super().Watch(request, context, send_response_callback)

    def drain(self) -> None:
        """Be NOT_SERVING from now on."""
        self.enter_graceful_shutdown()

    def end(self) -> None:
        """End the streams of those that watch, so that the server need not wait for them."""
        for send in list(self._watching):
            send(None)

    def add_to(self, server: grpc.Server, pool: ThreadPoolExecutor) -> None:
        """Answer probes in threads of their own: a server whose workers are all at work is healthy."""
        check, watch = functools.partial(self.Check), functools.partial(self.Watch)
        for behaviour in (check, watch):
            behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        read, write = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(check, read, write),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, read, write),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_NAME, handlers),))


def add_reflection(server: grpc.Server) -> None:
    """Let clients ask for the interface; where calls need keys, so does this."""
    reflection.enable_server_reflection([*_SERVICES, _NAME, reflection.SERVICE_NAME], server)
