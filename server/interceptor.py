"""What every call passes before its RPC runs: its key and its rule, and a line in the audit log for changes."""

from __future__ import annotations

import contextvars
import functools
import logging
from typing import TYPE_CHECKING, Any

import grpc

from gingham.errors import GinghamError, InvalidArgument, PermissionDenied
from gingham.server.access import RULES, Caller, call_for, called_by, check_allowed, check_callable
from gingham.server.calls import abort
from gingham.server.logs import note_call
from gingham.server.messages import check_fields
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.server.access import Rule
    from gingham.server.keys import Key, KeyRing

AUDIT = logging.getLogger("gingham.audit")
"""One line, at INFO, for each call that changes something, and for each that is refused."""
PACKAGE = "/gingham.v1."
INPUTS = {
    f"{service.name}/{method.name}": method.input_type
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Messages that are asked with, by service and method of gingham.v1."""
MOST_NAMES = 16
"""Collections of a call that a line of a log names."""
OPEN = ("/grpc.health.v1.Health/",)
"""Services that ask for no key: probes have none."""
_CHANGED = "the server expected the key that the call began with, found it changed"
_COUNTS = ("version", "inserted", "updated", "deleted", "missing")


class AccessInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Admits calls.

    Parameters
    ----------
    root : folder of the database, which callers are not told
    keys : those that calls need, or None where all may do everything
    """

    def __init__(self, root: str, keys: KeyRing | None) -> None:
        self._root = root
        self._keys = keys

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """A handler that admits a call before the one that is there runs it."""
        handler = continuation(details)
        if handler is None or details.method.startswith(OPEN):
            return handler
        return _Door(self._root, self._keys, details, handler).handler()


class _Door:
    """One call: requests come as bytes, so that none is read before its key is good."""

    def __init__(self, root: str, keys: KeyRing | None, details: Any, handler: Any) -> None:
        self._root = root
        self._keys = keys
        self._handler = handler
        self._ours = details.method.startswith(PACKAGE)
        self._method = details.method.removeprefix(PACKAGE).lstrip("/")
        self._rule: Rule | None = RULES.get(self._method)
        self._token = bearer(details.invocation_metadata)
        self._key: Key | None = None
        self._named: list[str] = []

    def handler(self) -> Any:
        """The handler of the same kind of RPC."""
        inner = self._handler
        kind = ("unary", "stream")[inner.request_streaming] + "_" + ("unary", "stream")[inner.response_streaming]
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        behaviour = functools.partial(self._streamed if inner.response_streaming else self._answered)
        return make(behaviour, response_serializer=inner.response_serializer)

    def _answered(self, raw: Any, context: grpc.ServicerContext) -> Any:
        request = self._admitted(raw, context)
        behaviour = self._handler.stream_unary if self._handler.request_streaming else self._handler.unary_unary
        try:
            with called_by(Caller(self._key, self._root)):
                response = behaviour(request, context)
        except BaseException:
            self._record("failed")
            raise
        self._trim(response)
        self._record("done", response)
        return response

    def _streamed(self, raw: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        request = self._admitted(raw, context)
        behaviour = self._handler.stream_stream if self._handler.request_streaming else self._handler.unary_stream
        frame = contextvars.copy_context()
        frame.run(call_for, Caller(self._key, self._root))
        answers = behaviour(request, context)
        outcome, last = "failed", None
        try:
            while (response := frame.run(next, answers, None)) is not None:
                self._trim(response)
                self._check_still(context)
                last = response
                yield response
            outcome = "done"
        finally:
            frame.run(answers.close)
            self._record(outcome, last)

    def _admitted(self, raw: Any, context: grpc.ServicerContext) -> Any:
        """The request, or the requests, of a call that is admitted; others end here."""
        if not self._handler.request_streaming:
            return self._checked(raw, context)
        try:
            self._key = self._verified()
            if self._key is not None and self._ours:
                check_callable(self._method, self._key)  # before the first request, for which clients may take long
        except GinghamError as error:
            refusal = error
        else:
            return (self._checked(one, context) for one in raw)
        self._refused(refusal)
        return abort(context, refusal)

    def _verified(self) -> Key | None:
        return None if self._keys is None else self._keys.verify(self._token)

    def _checked(self, raw: bytes, context: grpc.ServicerContext) -> Any:
        streaming = self._handler.request_streaming
        try:
            key = self._verified()
            if streaming and key != self._key:
                raise PermissionDenied(_CHANGED)
            self._key = key
            request = self._read(raw)
            named = (self._rule.collections(request) or []) if self._rule is not None else []
            names = list(dict.fromkeys(named))[:MOST_NAMES]
            if names or not streaming:
                self._named = names
                note_call(None if key is None else key.id, names)
            if key is not None and self._ours:
                check_allowed(self._method, key, request)
        except GinghamError as error:
            refusal = error
        else:
            return request
        self._refused(refusal)
        if streaming and self._ours:
            raise refusal  # which the RPC ends its call with
        return abort(context, refusal)

    def _check_still(self, context: grpc.ServicerContext) -> None:
        """End a stream whose key has been revoked or has expired."""
        try:
            if self._verified() == self._key:
                return
            raise PermissionDenied(_CHANGED)
        except GinghamError as error:
            refusal = error
        self._refused(refusal)
        abort(context, refusal)

    def _read(self, raw: bytes) -> Any:
        if self._ours:
            check_fields(raw, INPUTS[self._method])
        try:
            return self._handler.request_deserializer(raw)
        except Exception:
            raise InvalidArgument(f"{self._method} expects its message, found {len(raw)} bytes that are none") from None

    def _trim(self, response: Any) -> None:
        if self._key is not None and self._rule is not None and self._rule.trim is not None:
            self._rule.trim(self._key, response)

    def _refused(self, error: GinghamError) -> None:
        if AUDIT.isEnabledFor(logging.INFO):
            AUDIT.info("%s refused=%s", self._who(), type(error).__name__)

    def _record(self, outcome: str, response: Any = None) -> None:
        if self._rule is None or self._rule.scope == "read" or not AUDIT.isEnabledFor(logging.INFO):
            return
        counts = ""
        if response is not None and "result" in response.DESCRIPTOR.fields_by_name:
            counts = "".join(f" {name}={getattr(response.result, name)}" for name in _COUNTS)
        AUDIT.info("%s outcome=%s%s", self._who(), outcome, counts)

    def _who(self) -> str:
        """Key, method and collections; names are those of a request and may hold anything."""
        key = "-" if self._key is None else self._key.id
        return f"key={key} method={self._method} collections={[name[:80] for name in self._named]!a}"


def bearer(metadata: Any) -> str | None:
    """The token of a call; None without one."""
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return None
