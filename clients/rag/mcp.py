"""A server of the Model Context Protocol: an assistant lists, reads and searches collections, and writes if allowed."""

# pyright: reportMissingImports=false
from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gingham.clients.rag.extras import missing_extra
from gingham.errors import GinghamError, InvalidArgument
from gingham.query.nodes import match, near
from gingham.types import whole

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise missing_extra("mcp", error) from error

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
MOST_ROWS = 100
"""Rows of one answer: what an assistant reads has to fit its context."""


def mcp_server(database: Any, *, writable: bool = False) -> MCPServer:
    """A server on a database.

    Parameters
    ----------
    database : :class:`gingham.Database`, embedded or remote
    writable : also offer tools that write and delete rows

    Returns
    -------
    MCPServer : of the official SDK; its ``run()`` speaks over standard input and output

    Notes
    -----
    Tools: ``list_collections``, ``get``, ``search``, and where ``writable`` ``upsert`` and ``delete``. An error of
    Gingham is the answer of the tool, marked as an error. UUIDs, bytes (as base64) and instants are text in answers.
    """
    server = MCPServer(
        "gingham", instructions="Collections of documents: list them first, then search by words or by a vector."
    )
    reads = ToolAnnotations(read_only_hint=True)

    @server.tool(annotations=reads)
    def list_collections() -> list[dict[str, Any]]:
        """Collections with their number of rows, fields and vectors."""
        return _answer(lambda: [_described(database[name]) for name in database.collections()])

    @server.tool(annotations=reads)
    def get(collection: str, ids: list[str | int], fields: list[str] | None = None) -> list[dict[str, Any]]:
        """Rows of a collection by id; those that are not there are left out."""
        return _answer(
            lambda: [row for row in database[collection].get(ids[:MOST_ROWS], fields=fields) if row is not None]
        )

    @server.tool(annotations=reads)
    def search(
        collection: str,
        text: str | None = None,
        vector: list[float] | None = None,
        using: str | None = None,
        where: str | None = None,
        k: int = 10,
        fields: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """The best k rows (at most 100) for words or a vector, each with its score; greater is better.

        text searches the field named by using, or the only one with a word index; vector searches a vector field.
        where is a filter such as: year >= 2020 AND lang IN ('en', 'de').
        """
        return _answer(lambda: _search(database[collection], text, vector, using, where, k, fields))

    if writable:
        _offer_writes(server, database)
    return server


def _offer_writes(server: MCPServer, database: Any) -> None:
    @server.tool()
    def upsert(collection: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Insert rows, replacing those of the same id; each has an id, fields and vectors."""
        return _answer(lambda: _counts(database[collection].upsert(rows)))

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def delete(collection: str, ids: list[str | int]) -> dict[str, Any]:
        """Remove rows by id."""
        return _answer(lambda: _counts(database[collection].delete(ids=ids)))


def _counts(result: Any) -> dict[str, Any]:
    return {"inserted": result.inserted, "updated": result.updated, "deleted": result.deleted}


def _described(collection: Any) -> dict[str, Any]:
    schema = collection.schema
    columns = {"fields": schema.fields, "vectors": schema.vectors}
    kinds = {what: {name: repr(kind) for name, kind in group.items()} for what, group in columns.items()}
    return {"name": collection.name, "rows": collection.count(), **kinds}


def _search(
    collection: Any,
    text: str | None,
    vector: list[float] | None,
    using: str | None,
    where: str | None,
    k: int,
    fields: list[str] | None,
) -> list[dict[str, Any]]:
    if (text is None) == (vector is None):
        raise InvalidArgument("search expects either text or vector, found both or neither")
    query = near(using, vector) if text is None else match(using, text)
    found = collection.query(query.limit(min(whole("search(k=)", k), MOST_ROWS)), where=where, fields=fields)
    return [{"id": hit.id, "score": float(hit.score), **hit.fields} for hit in found]


def _answer(call: Callable[[], _T]) -> _T:
    """What a call returns, in JSON values; an error of Gingham as one of the tool, without a traceback."""
    try:
        answer: _T = msgspec.to_builtins(call(), enc_hook=_plain)
        return answer
    except GinghamError as error:
        raise ToolError(str(error)) from error


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
