"""The command that serves a database to assistants by the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer


def mcp(
    db: Annotated[str, typer.Argument(help="Folder of the database, or grpc://HOST:PORT.", show_default=False)],
    write: Annotated[bool, typer.Option("--write", help="Also offer tools that write and delete rows.")] = False,
) -> None:
    """Serve a database to an assistant over standard input and output (MCP); read-only unless --write is given."""
    from gingham.clients.rag.mcp import mcp_server
    from gingham.connect import open as open_database

    with open_database(db, mode="w" if write else "r", create=False) as database:
        mcp_server(database, writable=write).run()
