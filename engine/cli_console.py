"""The command that shows a database in a browser of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PACKAGED_MODEL = "all-MiniLM-L6-v2"


def console(
    db: Annotated[str, typer.Argument(help="Folder of the database, or grpc://HOST:PORT.", show_default=False)],
    port: Annotated[int, typer.Option(help="Port of this machine; 0 takes a free one.")] = 7444,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Model that embeds texts of queries: a folder, or {PACKAGED_MODEL}, which gingham[embed] installs.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Key, where a server asks for one.", envvar="GINGHAM_TOKEN", show_default=False),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority of a grpcs:// server.", show_default=False)
    ] = None,
) -> None:
    """Show a database in a browser of this machine, to read only, until SIGTERM or Ctrl-C."""
    from gingham.clients.console.app import serve_console
    from gingham.connect import open as open_database

    embedder = None
    if model is not None:
        from gingham.embed import SentenceTransformerEmbedder

        embedder = SentenceTransformerEmbedder(None if model == PACKAGED_MODEL else model)
    name = db if "://" in db else Path(db).absolute().name
    with open_database(db, mode="r", token=token, tls_ca=tls_ca) as database:
        serve_console(
            database, port=port, name=name, embedder=embedder, ready=lambda at: typer.echo(f"showing {name} at {at}")
        )
