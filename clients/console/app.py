"""The console as a web application, and the server that shows it to this machine alone."""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import re
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gingham.clients.console.answers import Answers
from gingham.clients.console.messages import AskedMap, AskedMeasure, AskedSearch, ErrorAnswer
from gingham.errors import GinghamError, InvalidArgument, MissingExtra, Unavailable
from gingham.types import whole

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtra(
        f"the console expects the extra 'console', found no {error.name or 'package of it'}; "
        "run: pip install 'gingham[console]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gingham.embed import Embedder

_Asked = TypeVar("_Asked")

LOG = logging.getLogger("gingham.console")
HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
"""Names that a browser of this machine may ask for; another one is a page elsewhere that rebinds its name to here."""
MOST_BYTES = 1 << 20
"""Of a question."""
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATUSES = {
    "INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "FAILED_PRECONDITION": 409,
    "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "DATA_LOSS": 500, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
    "CANCELLED": 503, "INTERNAL": 500, "RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501,
}  # fmt: skip
"""HTTP statuses of errors, by their gRPC status."""


def console_app(database: Any, *, name: str = "", embedder: Embedder | None = None) -> Starlette:
    """The page and its JSON, for a server of ASGI.

    Parameters
    ----------
    database : :class:`gingham.Database`, embedded or remote, best opened with ``mode="r"``
    name : what the page calls it
    embedder : embeds the texts of queries, for collections whose vectors it makes; a database open for writing keeps it
        as that of a collection that has none, as :meth:`gingham.Database.collection` does

    Notes
    -----
    Nothing is written. It answers to names of this machine only, takes questions as JSON, which pages of other sites
    cannot send, and asks for no key: whoever can connect reads the database.
    """
    answers = Answers(database, name, embedder)
    root = str(getattr(database, "path", ""))

    async def overview(request: Request) -> Response:
        del request
        return await run_in_threadpool(_answered, answers.overview, root)

    routes = [
        *(Route(path, _page(*page), methods=["GET"]) for path, page in PAGES.items()),
        Route("/api/collections", overview, methods=["GET"]),
        Route("/api/search", _question(AskedSearch, answers.search, root), methods=["POST"]),
        Route("/api/map", _question(AskedMap, answers.map, root), methods=["POST"]),
        Route("/api/recall", _question(AskedMeasure, answers.recall, root), methods=["POST"]),
        Route("/api/latency", _question(AskedMeasure, answers.latency, root), methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    return Starlette(routes=routes, middleware=[Middleware(_SafeHeaders), hosts])


def serve_console(
    database: Any,
    *,
    port: int,
    name: str = "",
    embedder: Embedder | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Show a database to browsers of this machine until SIGTERM or SIGINT; other parameters as of :func:`console_app`.

    Parameters
    ----------
    port : of 127.0.0.1; 0 takes a free one
    ready : called with the address of the page once it can be opened

    Raises
    ------
    Unavailable : the port is taken
    """
    port = whole("console(port=)", port, 0, 65535)
    app = console_app(database, name=name, embedder=embedder)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise Unavailable(f"console() expects a free port, found {port} taken; choose another") from error
        listener.listen()
        if ready is not None:
            ready(f"http://{HOST}:{listener.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


class _SafeHeaders:
    """Sets headers of all responses that keep other sites and inserted scripts away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _page(file: str, media_type: str) -> Callable[[Request], Response]:
    content = (importlib.resources.files(__package__) / file).read_bytes()
    return lambda _: Response(content, media_type=media_type)


def _question(kind: type[_Asked], call: Callable[[_Asked], Any], root: str) -> Callable[[Request], Any]:
    """The endpoint of a question that comes as JSON."""

    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, "a question expects the content type application/json, found another")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return _refused(413, f"a question expects at most {MOST_BYTES:,} bytes, found more")
        return await run_in_threadpool(_answered, lambda: call(_read(bytes(body), kind)), root)

    return endpoint


def _read(body: bytes, kind: type[_Asked]) -> _Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"a question expects JSON of the form of the page, found other: {error}") from error


def _answered(call: Callable[[], Any], root: str) -> Response:
    """What a call returns as JSON; or its error, without the folder of the database."""
    try:
        return Response(msgspec.json.encode(call()), media_type="application/json")
    except GinghamError as error:
        told = re.sub(re.escape(root) + r"[^\s'\",;:()]*", "the database", str(error)) if root else str(error)
        return _refused(STATUSES[error.grpc_code], told, type(error).__name__)
    except Exception:
        LOG.exception("an answer of the console failed")
        return _refused(500, "the console expected to answer, it failed; its log says why", "GinghamError")


def _refused(status: int, message: str, kind: str = "InvalidArgument") -> Response:
    text = message.encode("utf-8", "backslashreplace").decode()
    return Response(msgspec.json.encode(ErrorAnswer(kind, text)), status, media_type="application/json")
