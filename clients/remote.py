"""A database of a server: the same methods, arguments, results and errors as an embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from gingham.clients.channel import CONNECT_SECONDS, SCHEME, Channel
from gingham.clients.collection import RemoteCollection, ask_maintenance, check_writable, later
from gingham.clients.convert import checked_text
from gingham.database import DatabaseStats
from gingham.errors import CollectionNotFound, NotReady
from gingham.schema import Schema, check_name
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from gingham.schema import Field, Vector


class RemoteDatabase:
    """A database of a server; use it in a ``with`` block or :meth:`close` it. :func:`gingham.open` makes it.

    Parameters
    ----------
    target : ``grpc://HOST:PORT``
    writable : whether calls that write are sent

    Notes
    -----
    A handle may be used by several threads, and is pickled as its address; a child of a fork opens its own.
    """

    def __init__(self, target: str, *, writable: bool = True) -> None:
        self._channel = Channel(target)
        self._writable = writable
        try:
            self._channel.call(self._channel.collections.ListCollections, pb.ListCollectionsRequest(), CONNECT_SECONDS)
        except BaseException:
            self._channel.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _connected, (f"{SCHEME}{self._channel.address}", self._writable)

    def __repr__(self) -> str:
        closed = "" if self._channel.open else " closed"
        return f"<{type(self).__name__} {SCHEME}{self._channel.address}{closed}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; may be called twice."""
        self._channel.close()

    def collections(self) -> list[str]:
        """Names of the collections, sorted."""
        return list(self._channel.call(self._channel.collections.ListCollections, pb.ListCollectionsRequest()).names)

    def create_collection(
        self,
        name: str,
        *,
        fields: Mapping[str, Field] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        embedder: None = None,
        exist_ok: bool = False,
    ) -> RemoteCollection:
        """Make a collection; ``embedder`` is not there over gRPC yet."""
        check_writable(self._writable, self._channel)
        check_name(name, "collection")
        schema = Schema.of(fields, vectors)
        _refuse_embedder(embedder)
        request = pb.CreateCollectionRequest(name=name, schema=msgspec.msgpack.encode(schema), exist_ok=bool(exist_ok))
        self._channel.call(self._channel.collections.CreateCollection, request)
        return RemoteCollection(self._channel, name, writable=self._writable)

    def collection(self, name: str, *, embedder: None = None) -> RemoteCollection:
        """Open a collection; raises CollectionNotFound; ``embedder`` is not there over gRPC yet."""
        _refuse_embedder(embedder)
        if not isinstance(name, str):
            raise CollectionNotFound(f"the name of a collection expects text, found {shown(name)}")
        checked_text(name)
        found = RemoteCollection(self._channel, name, writable=self._writable)
        _ = found.schema  # raises where there is none
        return found

    def __getitem__(self, name: str) -> RemoteCollection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def drop_collection(self, name: str) -> None:
        """Remove a collection with all its rows; raises CollectionNotFound."""
        check_writable(self._writable, self._channel)
        self._channel.call(self._channel.collections.DropCollection, pb.DropCollectionRequest(name=checked_text(name)))

    def stats(self) -> DatabaseStats:
        """Rows, commits and bytes; ``path`` is the address of the server, which does not tell its folder."""
        answer = self._channel.call(self._channel.collections.GetDatabaseStats, pb.GetDatabaseStatsRequest())
        figures = {name: getattr(answer, name) for name in DatabaseStats.__dataclass_fields__ if name != "path"}
        return DatabaseStats(f"{SCHEME}{self._channel.address}", **figures)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        check_writable(self._writable, self._channel)
        return ask_maintenance(self._channel, None, wait=wait, timeout=timeout)

    backup = later("backup")
    compact = later("compact")
    rename_collection = later("rename_collection")
    snapshot = later("snapshot")
    transaction = later("transaction")
    verify = later("verify")


def _connected(target: str, writable: bool) -> RemoteDatabase:
    return RemoteDatabase(target, writable=writable)


def _refuse_embedder(embedder: object) -> None:
    if embedder is not None:
        raise NotReady("embedder= is not there over gRPC yet; embed texts yourself and give their vectors")
