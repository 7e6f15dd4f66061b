"""What sees calls: a line of the log for each, and what metrics count."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from gingham.server.health import HEALTH
from gingham.server.logs import CALLS, CURRENT_CALL, Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.server.metrics import Metrics


class CallObserver(grpc.ServerInterceptor):  # type: ignore[misc]
    """Tells log and metrics of every call, the time included that it waits for a thread; probes of health pass unseen.

    Attributes
    ----------
    metrics : what counts; None for the log alone
    """

    def __init__(self) -> None:
        self.metrics: Metrics | None = None

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """A handler that is seen while it runs."""
        handler = continuation(details)
        if handler is None or details.method.startswith(HEALTH):
            return handler
        if self.metrics is None and not CALLS.isEnabledFor(logging.INFO):
            return handler
        kind = ("unary", "stream")[handler.request_streaming] + "_" + ("unary", "stream")[handler.response_streaming]
        behaviour = getattr(handler, kind)
        seen: Any = functools.partial(
            self._streamed if handler.response_streaming else self._answered, Call.of(details), behaviour
        )
        if hasattr(behaviour, "experimental_thread_pool"):
            seen.experimental_thread_pool = behaviour.experimental_thread_pool
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(seen, handler.request_deserializer, handler.response_serializer)

    def _answered(self, call: Call, behaviour: Any, request: Any, context: grpc.ServicerContext) -> Any:
        token, failed = CURRENT_CALL.set(call), True
        try:
            response = behaviour(request, context)
            failed = False
            return response
        finally:
            self._ended(call, context, failed)
            CURRENT_CALL.reset(token)

    def _streamed(self, call: Call, behaviour: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        CURRENT_CALL.set(call)
        failed = True
        try:
            yield from behaviour(request, context)
            failed = False
        finally:
            self._ended(call, context, failed)
            CURRENT_CALL.set(None)

    def _ended(self, call: Call, context: grpc.ServicerContext, failed: bool) -> None:
        seconds, status = time.perf_counter() - call.begun, context.code()
        if status is not None:
            code = status.name
        elif not context.is_active():
            code = "CANCELLED"
        else:
            code = "UNKNOWN" if failed else "OK"
        if self.metrics is not None:
            self.metrics.call_ended(call.method, code, seconds)
        if CALLS.isEnabledFor(logging.INFO):
            told = {
                "method": call.method, "collections": list(call.collections), "code": code,
                "ms": round(seconds * 1e3, 3), "key": call.key_id, "peer": context.peer(),
            }  # fmt: skip
            CALLS.info("%s %s %.3f ms", call.method, code, told["ms"], extra={"told": told})
