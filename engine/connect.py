"""Opening a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gingham.config import DEFAULT_MEMORY_BYTES, SNAPSHOT_TIMEOUT_SECONDS, Durability, Mode, StoreOptions
from gingham.database import Database
from gingham.errors import InvalidArgument, MissingExtra, NotReady
from gingham.storage import copies

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from gingham.aio import AsyncDatabase, Opening


def open(  # noqa: A001
    path: str | os.PathLike[str],
    *,
    mode: Mode = "w",
    create: bool = True,
    durability: Durability = "commit",
    max_size: int | None = None,
    lock_timeout: float = 10.0,
    memory_budget: int | None = None,
    snapshot_timeout: float = SNAPSHOT_TIMEOUT_SECONDS,
) -> Database:
    """Open a database folder, and make it where there is none; or a database that ``gingham serve`` has open.

    Parameters
    ----------
    path : the folder, on a local file system; or ``"grpc://HOST:PORT"``, with ``mode`` alone: the other settings are
        those of the server
    mode : ``"w"`` to read and write, ``"r"`` to read
    create : make the database where there is none
    durability : ``"commit"`` syncs before a write returns; ``"interval"`` syncs once a second and ``"none"``
        at close: a killed process loses nothing, a power cut may cost the file
    max_size : cap of the file in bytes, at least 1 MiB, a part of which stays for deletes; None leaves it to
        the disk
    lock_timeout : seconds a write waits for another process that writes, default 10
    memory_budget : bytes that maintenance may hold in memory at once, default 1 GiB
    snapshot_timeout : seconds after which a snapshot expires, default one hour

    Returns
    -------
    Database : or, of a server, what has its methods; those that are not there over gRPC yet raise NotReady

    Raises
    ------
    MissingExtra : the address of a server, and gRPC is not installed
    Unavailable : no server answers there
    NotFound : there is no database and ``create`` is false or ``mode`` is ``"r"``
    NotAStore : the folder holds something else
    FormatTooNew : a newer Gingham wrote it
    Corrupt : it is damaged
    PermissionDenied : the system refuses access
    InvalidArgument : a setting cannot be used, or another handle of this process writes with other settings
    NotReady : a search of a closed database still runs here, or a snapshot is open where ``mode`` changes to ``"w"``

    Notes
    -----
    O(1) in the number of rows: the file is mapped, not read. Handles of one process on one folder share the map;
    ``snapshot_timeout`` is that of each handle, the rest that of the first one that writes.
    """
    options = StoreOptions(
        mode=mode,
        create=create,
        durability=durability,
        max_size=max_size,
        lock_timeout=lock_timeout,
        memory_budget=DEFAULT_MEMORY_BYTES if memory_budget is None else memory_budget,
        snapshot_timeout=snapshot_timeout,
    )
    if _is_address(path):
        return _remote(path, options)
    return Database(path, options)


def _is_address(path: object) -> bool:
    return isinstance(path, str) and path.startswith(("grpc://", "grpcs://"))


def _remote(path: Any, options: StoreOptions) -> Database:
    if path.startswith("grpcs://"):
        raise NotReady(f"open() expects grpc://HOST:PORT on this machine, found {path!r:.80}: there is no TLS yet")
    if options != StoreOptions(mode=options.mode):
        raise InvalidArgument(
            "open(grpc://...) expects no setting but mode=, found others; they are those of the server"
        )
    try:
        from gingham.clients.remote import RemoteDatabase
    except ImportError as error:
        _check_installed(error)
        raise
    return cast("Database", RemoteDatabase(path, writable=options.mode == "w"))


def serve(
    path: str | os.PathLike[str], *, listen: str, max_workers: int, ready: Callable[[str], None] | None = None
) -> None:
    """Serve a database over gRPC until SIGTERM or SIGINT; see :func:`gingham.server.main.serve`.

    Raises
    ------
    MissingExtra : gRPC is not installed
    InvalidArgument : ``listen`` is an address that other machines reach
    Unavailable : the port is taken
    """
    try:
        from gingham.server.main import serve as serve_database
    except ImportError as error:
        _check_installed(error)
        raise
    serve_database(path, listen=listen, max_workers=max_workers, ready=ready)


def _check_installed(error: ImportError) -> None:
    """Raise MissingExtra where it is the packages of the server that cannot be imported."""
    if (error.name or "").partition(".")[0] in ("grpc", "google"):
        raise MissingExtra("remote databases need the server extra; run: pip install 'gingham[server]'") from error


def aopen(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "w",
    create: bool = True,
    durability: Durability = "commit",
    max_size: int | None = None,
    lock_timeout: float = 10.0,
    memory_budget: int | None = None,
    snapshot_timeout: float = SNAPSHOT_TIMEOUT_SECONDS,
) -> Opening[AsyncDatabase]:
    """Open a database folder for asyncio; parameters and errors are those of :func:`open`.

    Returns
    -------
    AsyncDatabase : what ``await`` gives; ``async with gingham.aopen(path) as db`` also closes it

    Notes
    -----
    The same methods as :class:`gingham.Database`, awaited; they run in threads, see :mod:`gingham.aio`.
    """
    from gingham.aio import opening

    if _is_address(path):
        raise NotReady("aopen() expects a folder, found the address of a server, which only open() takes yet")

    return opening(
        open,
        path,
        mode=mode,
        create=create,
        durability=durability,
        max_size=max_size,
        lock_timeout=lock_timeout,
        memory_budget=memory_budget,
        snapshot_timeout=snapshot_timeout,
    )


def restore(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Copy a backup to a new path after verifying it; nothing is at ``path`` until all of it is.

    Raises
    ------
    NotFound : ``source`` is no database
    AlreadyExists : something is at ``path``
    Corrupt : the backup is damaged
    """
    copies.restore(source, path)
