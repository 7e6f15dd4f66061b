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

    from gingham.server.metrics import CallCounts

PEER = "gingham-peer"
"""Metadata in which a process that passes calls on says where they come from."""


class CallObserver(grpc.ServerInterceptor):  # type: ignore[misc]
    """Tells log and metrics of every call, the time included that it waits for a thread; probes of health pass unseen.

    Parameters
    ----------
    behind : calls come from other processes of this server, which say where theirs come from

    Attributes
    ----------
    counts : what counts; None for the log alone
    """

    def __init__(self, *, behind: bool = False) -> None:
        self._behind = behind
        self.counts: CallCounts | None = None

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """A handler that is seen while it runs."""
        handler = continuation(details)
        if handler is None or details.method.startswith(HEALTH):
            return handler
        if self.counts is None and not CALLS.isEnabledFor(logging.INFO):
            return handler
        kind = ("unary", "stream")[handler.request_streaming] + "_" + ("unary", "stream")[handler.response_streaming]
        behaviour = getattr(handler, kind)
        call = Call.of(details)
        if self._behind:
            call.peer = dict(details.invocation_metadata or ()).get(PEER)
        seen: Any = functools.partial(self._streamed if handler.response_streaming else self._answered, call, behaviour)
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
        if self.counts is not None:
            self.counts.call_ended(call.method, code, seconds)
        if CALLS.isEnabledFor(logging.INFO) and not call.forwarded:
            told = {
                "method": call.method, "collections": list(call.collections), "code": code,
                "ms": round(seconds * 1e3, 3), "key": call.key_id, "peer": call.peer or context.peer(),
            }  # fmt: skip
            CALLS.info("%s %s %.3f ms", call.method, code, told["ms"], extra={"told": told})
