"""Opening a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gingham.config import DEFAULT_MEMORY_BYTES, SNAPSHOT_TIMEOUT_SECONDS, Durability, Mode, StoreOptions
from gingham.database import Database
from gingham.errors import InvalidArgument, MissingExtra
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
    device: str = "auto",
    device_memory: int | None = None,
    token: str | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
) -> Database:
    """Open a database folder, and make it where there is none; or a database that ``gingham serve`` has open.

    Parameters
    ----------
    path : the folder, on a local file system; or ``"grpc://HOST:PORT"``, or ``"grpcs://HOST:PORT"`` with TLS, with
        ``mode``, ``token`` and ``tls_*`` alone: the other settings are those of the server
    mode : ``"w"`` to read and write, ``"r"`` to read
    create : make the database where there is none
    durability : ``"commit"`` syncs before a write returns; ``"interval"`` syncs once a second and ``"none"``
        at close: a killed process loses nothing, a power cut may cost the file
    max_size : cap of the file in bytes, at least 1 MiB, a part of which stays for deletes; None leaves it to
        the disk
    lock_timeout : seconds a write waits for another process that writes, default 10
    memory_budget : bytes that maintenance may hold in memory at once, default 1 GiB
    snapshot_timeout : seconds after which a snapshot expires, default one hour
    device : what scans vectors and codes for batches of at least 16 queries and 128 MiB of rows times queries, without
        a graph or lists: ``"cuda"`` or ``"cuda:1"`` for an NVIDIA device, ``"cpu"``, or ``"auto"`` for the first device
        where it works, else the CPU. Results have the same bits on each. Codes in blocks (PQ x4fs and x8, RaBitQ1,
        Binary), and cosine over rows whose length is not one, stay on the CPU
    device_memory : bytes of rows that may stay on the device, those used longest ago making room; None takes what is
        free. Rows that do not fit are copied tile by tile for each batch
    token : key that ``gingham keys create`` showed, for a server that asks for one; to another machine it travels over
        TLS only
    tls_ca : PEM file of the authorities that a server's certificate may be signed by; None takes those that gRPC trusts
    tls_cert, tls_key : PEM files of the client's own certificate and its key, for a server that asks for one

    Returns
    -------
    Database : or, of a server, what has its methods

    Raises
    ------
    MissingExtra : the address of a server, and gRPC is not installed
    Unavailable : no server answers there, or none that is trusted
    Unauthenticated : the server expects another token
    NotFound : there is no database and ``create`` is false or ``mode`` is ``"r"``
    NotAStore : the folder holds something else
    FormatTooNew : a newer Gingham wrote it
    Corrupt : it is damaged
    PermissionDenied : the system refuses access
    InvalidArgument : a setting cannot be used, or another handle of this process writes with other settings
    NoDevice : ``device="cuda"``, and there is none that works; MissingExtra where numba-cuda is not installed
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
        device=device,
        device_memory=device_memory,
    )
    given = {"token": token, "ca": tls_ca, "cert": tls_cert, "key": tls_key}
    if _is_address(path):
        return _remote(path, options, given)
    if any(value is not None for value in given.values()):
        raise InvalidArgument(
            "open(token=, tls_ca=, tls_cert=, tls_key=) expects the address of a server, found a folder"
        )
    return Database(path, options)


def _is_address(path: object) -> bool:
    return isinstance(path, str) and path.startswith(("grpc://", "grpcs://"))


def _remote(path: Any, options: StoreOptions, given: dict[str, Any]) -> Database:
    if options != StoreOptions(mode=options.mode):
        raise InvalidArgument(
            "open(grpc://...) expects no settings but mode=, token= and tls_*=, found others; they are the server's"
        )
    try:
        from gingham.clients.credentials import Credentials
        from gingham.clients.remote import RemoteDatabase
    except ImportError as error:
        _check_installed(error)
        raise
    return cast("Database", RemoteDatabase(path, writable=options.mode == "w", credentials=Credentials(**given)))


def serve(
    path: str | os.PathLike[str],
    *,
    listen: str,
    max_workers: int,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    client_ca: str | os.PathLike[str] | None = None,
    keys: str | os.PathLike[str] | None = None,
    max_hits: int = 1_000_000,
    metrics: str | None = None,
    recall_every: float | None = None,
    reflection: bool | None = None,
    readers: int = 0,
    device: str = "auto",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a database over gRPC until SIGTERM or SIGINT; see :func:`gingham.server.main.serve`.

    ``max_hits`` and the three options after it are those of :class:`gingham.server.main.Operation`; ``device`` is that
    of :func:`open`.

    Raises
    ------
    MissingExtra : gRPC is not installed
    InvalidArgument : ``listen`` is an address that other machines reach and there are not both TLS and keys, or a
        certificate cannot be used
    Unavailable : the port is taken, or the keys cannot be read
    """
    if (tls_cert is None) != (tls_key is None) or (client_ca is not None and tls_cert is None):
        raise InvalidArgument(
            "serve() expects tls_cert= and tls_key= together, and client_ca= with them, found some alone"
        )
    try:
        from gingham.server.main import Operation
        from gingham.server.main import serve as serve_database
        from gingham.server.tls import TlsFiles
    except ImportError as error:
        _check_installed(error)
        raise
    tls = None if tls_cert is None or tls_key is None else TlsFiles(tls_cert, tls_key, client_ca)
    operation = Operation(max_hits=max_hits, metrics=metrics, recall_every=recall_every, reflection=reflection)
    serve_database(
        path, listen=listen, max_workers=max_workers, tls=tls, keys=keys, operation=operation, readers=readers,
        device=device, ready=ready,
    )  # fmt: skip


def check_health(
    url: str,
    *,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    timeout: float = 5.0,
) -> None:
    """Return where a server takes calls; see :func:`gingham.clients.health.check_health`.

    Raises
    ------
    MissingExtra : gRPC is not installed
    Unavailable : no server answers there, none that is trusted, or one that drains
    DeadlineExceeded : the time is over
    """
    try:
        from gingham.clients import health
        from gingham.clients.credentials import Credentials
    except ImportError as error:
        _check_installed(error)
        raise
    health.check_health(url, credentials=Credentials(ca=tls_ca, cert=tls_cert, key=tls_key), timeout=timeout)


_PACKAGES = ("grpc", "google", "grpc_health", "grpc_reflection", "prometheus_client")
"""Of the server extra."""


def _check_installed(error: ImportError) -> None:
    """Raise MissingExtra where it is the packages of the server that cannot be imported."""
    if (error.name or "").partition(".")[0] in _PACKAGES:
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
    device: str = "auto",
    device_memory: int | None = None,
    token: str | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
) -> Opening[AsyncDatabase]:
    """Open a database folder, or a database of a server, for asyncio; parameters and errors are those of :func:`open`.

    Returns
    -------
    AsyncDatabase : what ``await`` gives; ``async with gingham.aopen(path) as db`` also closes it

    Notes
    -----
    The same methods as :class:`gingham.Database`, awaited; they run in threads, see :mod:`gingham.aio`. What is not
    awaited, such as ``db["docs"]`` and ``docs.schema``, is a call of the server that the event loop waits for:
    ``await db.collection("docs")`` and keep it.
    """
    from gingham.aio import opening

    return opening(
        _open_to_await,
        path,
        mode=mode,
        create=create,
        durability=durability,
        max_size=max_size,
        lock_timeout=lock_timeout,
        memory_budget=memory_budget,
        snapshot_timeout=snapshot_timeout,
        device=device,
        device_memory=device_memory,
        token=token,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )


def _open_to_await(path: Any, **settings: Any) -> Database:
    """A database whose class has a twin."""
    database = open(path, **settings)
    if _is_address(path):
        import gingham.clients.aio  # noqa: F401
    return database


def restore(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Copy a backup to a new path after verifying it; nothing is at ``path`` until all of it is.

    Raises
    ------
    NotFound : ``source`` is no database
    AlreadyExists : something is at ``path``
    Corrupt : the backup is damaged
    """
    copies.restore(source, path)
