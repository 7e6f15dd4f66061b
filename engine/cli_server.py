"""The commands of a server: serving a database, and the keys of those who call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

keys_app = typer.Typer(
    help="Make, list and revoke the keys of those who call a server.", no_args_is_help=True, rich_markup_mode=None
)

KeysArgument = Annotated[Path, typer.Argument(help="Folder of a database, or a file of keys.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def serve(
    db: Annotated[Path, typer.Argument(help="Folder of the database.", show_default=False)],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 takes a free one. Beyond this machine only with TLS and keys.")
    ] = "127.0.0.1:7443",
    workers: Annotated[int, typer.Option(help="Calls that run at once, in each process.")] = 8,
    readers: Annotated[
        int, typer.Option(help="Processes that answer reads, on Linux; 0 leaves them to the one that writes.")
    ] = 0,
    device: Annotated[str, typer.Option(help="What scans for large batches: auto, cpu, cuda or cuda:N.")] = "auto",
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate; read again when it changes.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.", show_default=False)] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of authorities: clients need a certificate of one.", show_default=False),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of keys that calls need; that of the folder, where it has one.", show_default=False),
    ] = None,
    max_hits: Annotated[int, typer.Option(help="Hits that one request may ask for.")] = 1_000_000,
    metrics: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of this machine for Prometheus, such as 127.0.0.1:9464.", show_default=False),
    ] = None,
    recall_every: Annotated[
        float | None, typer.Option(help="Minutes between two measures of recall for the metrics.", show_default=False)
    ] = None,
    reflection: Annotated[
        bool | None,
        typer.Option(
            "--reflection/--no-reflection",
            help="Tell clients the interface; unless said, where calls need no keys.",
            show_default=False,
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON, with a line for each call.")] = False,
) -> None:
    """Serve a database over gRPC until SIGTERM or Ctrl-C; the log goes to standard error."""
    from gingham.connect import serve as serve_database
    from gingham.server.logs import log_to_stderr

    log_to_stderr(as_json=log_json)
    serve_database(
        db, listen=listen, max_workers=workers, readers=readers, tls_cert=tls_cert, tls_key=tls_key,
        client_ca=client_ca, keys=keys, max_hits=max_hits, metrics=metrics, recall_every=recall_every,
        reflection=reflection, device=device,
        ready=lambda at: typer.echo(f"serving {at}"),
    )  # fmt: skip


def health(
    url: Annotated[str, typer.Argument(help="grpc://HOST:PORT or grpcs://HOST:PORT.", show_default=False)],
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities of its certificate.", show_default=False)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate of the client.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.", show_default=False)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the answer may take.")] = 5.0,
) -> None:
    """Probe a server: exit code 0 where it takes calls, else 1; no key is needed."""
    from gingham.connect import check_health

    check_health(url, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, timeout=timeout)
    typer.echo("SERVING")


@keys_app.command()
def create(
    path: KeysArgument,
    scope: Annotated[
        str, typer.Option(help="read; write, which also reads; or admin, which also changes collections.")
    ] = "read",
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection",
            "-c",
            show_default=False,
            help="Collection, or the beginning of names and *; may be given several times. All where it is not.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter",
            show_default=False,
            help="Rows that are there to the holder, such as \"tenant = 'a'\"; for read and write.",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Time after which it is refused, such as 12h or 30d.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print its token, which is shown this once and stored nowhere."""
    from gingham.server.keys import Scope, create_key, lifetime

    token, key = create_key(
        path, scope=cast("Scope", scope), collections=collection or ("*",), filter=where,
        expires=None if expires is None else lifetime(expires),
    )  # fmt: skip
    typer.echo(json.dumps({"token": token, "id": key.id}) if as_json else token)


@keys_app.command(name="list")
def list_command(path: KeysArgument, as_json: JsonOption = False) -> None:
    """Show keys with what they are good for, never their tokens."""
    from gingham.server.keys import list_keys

    shown: list[dict[str, Any]] = [
        {
            "id": key.id, "scope": key.scope, "collections": list(key.collections), "filter": key.filter,
            "created": key.created.isoformat(), "expires": key.expires and key.expires.isoformat(),
            "expired": key.expired,
        }
        for key in list_keys(path)
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for one in shown:
        where = "" if one["filter"] is None else f"  where {one['filter']}"
        ends = "" if one["expires"] is None else f"  {'expired' if one['expired'] else 'expires'} {one['expires']}"
        typer.echo(f"{one['id']}  {one['scope']:<5}  {' '.join(one['collections'])}{where}{ends}")


@keys_app.command()
def revoke(
    path: KeysArgument, key: Annotated[str, typer.Argument(help="Id of the key, as listed.", show_default=False)]
) -> None:
    """Take a key away: running servers refuse it from now on."""
    from gingham.server.keys import revoke_key

    revoke_key(path, key)
    typer.echo(f"revoked {key}")
