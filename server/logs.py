"""What is known of a call while it runs, and the log as lines of JSON."""

from __future__ import annotations

import contextvars
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = logging.getLogger("gingham.server.calls")
"""One line, at INFO, for each call."""
_REQUEST_ID = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)
# W3C Trace Context, section 3.2: version 00 has four fields; later ones may add to them, and ff is none. Ids are not 0.
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


@dataclass(slots=True)
class Call:
    """A call while it runs.

    Attributes
    ----------
    method : service and name
    request_id : of the metadata ``x-request-id``, or made here
    trace_id, parent_id : of the metadata ``traceparent``
    key_id : of the key that it showed; None without one
    collections : names in its request
    peer : where its caller is, if another process has passed it on
    forwarded : another process answers it, and logs it
    """

    method: str
    request_id: str
    trace_id: str | None = None
    parent_id: str | None = None
    key_id: str | None = None
    collections: Sequence[str] = ()
    peer: str | None = None
    forwarded: bool = False
    begun: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, details: Any) -> Call:
        """The call that metadata announce."""
        request_id = trace = None
        for name, value in details.invocation_metadata or ():
            if name == "x-request-id":
                request_id = value if _REQUEST_ID.fullmatch(value) else None
            elif name == "traceparent":
                trace = _TRACE.fullmatch(value)
        ids = (trace[1], trace[2]) if trace is not None else (None, None)
        method = details.method.removeprefix("/").removeprefix("gingham.v1.")
        return cls(method, request_id or secrets.token_hex(8), *ids)


CURRENT_CALL: contextvars.ContextVar[Call | None] = contextvars.ContextVar("gingham_call", default=None)


def note_call(key_id: str | None, collections: Sequence[str]) -> None:
    """Say what was found out about the call that runs here, if it is observed."""
    call = CURRENT_CALL.get()
    if call is not None:
        call.key_id, call.collections = key_id, collections


def log_to_stderr(*, as_json: bool) -> None:
    """Write the log of this package to standard error."""
    log = logging.getLogger("gingham")
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if as_json else text)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    CALLS.setLevel(logging.INFO if as_json else logging.WARNING)


def form_of_log() -> Literal["json", "text"] | None:
    """How the log of this package is written, where it has a handler of its own."""
    handlers = logging.getLogger("gingham").handlers
    if not handlers:
        return None
    return "json" if any(isinstance(one.formatter, JsonLines) for one in handlers) else "text"


class JsonLines(logging.Formatter):
    """Each record as a JSON object on a line; those made within a call have its request and trace ids."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname, "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        line |= getattr(record, "told", {})
        call = CURRENT_CALL.get()
        if call is not None:
            ids = {"request_id": call.request_id, "trace_id": call.trace_id, "parent_id": call.parent_id}
            line |= {name: value for name, value in ids.items() if value is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
