"""A database of a server: the same methods, arguments, results and errors as an embedded one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self

import msgspec

from gingham.clients.channel import CONNECT_SECONDS, Channel
from gingham.clients.collection import RemoteCollection, ask_maintenance, check_writable
from gingham.clients.convert import checked_text
from gingham.clients.snapshot import RemoteSnapshot, dropped, unpin
from gingham.clients.transaction import RemoteTransaction
from gingham.clients.view import described, verified
from gingham.database import DatabaseStats
from gingham.embed.attach import embedder_record
from gingham.embed.protocol import check_embedder
from gingham.embed.rows import check_dimensions
from gingham.errors import CollectionNotFound, Corrupt
from gingham.schema import Schema, check_name
from gingham.server.proto import gingham_pb2 as pb
from gingham.storage import copies
from gingham.types import shown
from gingham.wire import pack_embedder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from gingham.clients.credentials import Credentials
    from gingham.embed import Embedder
    from gingham.embed.record import EmbedderRecord
    from gingham.schema import Field, Vector
    from gingham.storage.verify import VerifyReport


class RemoteDatabase:
    """A database of a server; use it in a ``with`` block or :meth:`close` it. :func:`gingham.open` makes it.

    Parameters
    ----------
    target : ``grpc://HOST:PORT``, or ``grpcs://HOST:PORT`` with TLS
    writable : whether calls that write are sent
    credentials : what is shown with calls, and what is expected of the server

    Notes
    -----
    A handle may be used by several threads, and is pickled as its address; a child of a fork opens its own. A read
    where the server is away for a moment is asked again; a write is not, since it may have been done.
    """

    def __init__(self, target: str, *, writable: bool = True, credentials: Credentials | None = None) -> None:
        self._channel = Channel(target, credentials)
        self._writable = writable
        self._embedders: dict[str, tuple[EmbedderRecord, Embedder]] = {}
        self._pinned: set[str] = set()
        self._snapshots: weakref.WeakSet[RemoteSnapshot] = weakref.WeakSet()
        try:
            self._channel.call(self._channel.collections.ListCollections, pb.ListCollectionsRequest(), CONNECT_SECONDS)
        except BaseException:
            self._channel.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _connected, (self._channel.url, self._writable, self._channel.credentials)

    def __repr__(self) -> str:
        closed = "" if self._channel.open else " closed"
        return f"<{type(self).__name__} {self._channel.url}{closed}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End snapshots and the connection; may be called twice."""
        if self._channel.open:
            unpin(self._channel, self._pinned, list(self._pinned))
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
        embedder: Embedder | None = None,
        exist_ok: bool = False,
    ) -> RemoteCollection:
        """Make a collection; an ``embedder`` embeds here what this connection writes and searches for."""
        check_writable(self._writable, self._channel)
        check_name(name, "collection")
        schema = Schema.of(fields, vectors)
        if embedder is not None:
            schema = schema.with_sources()
            check_embedder(embedder)
            check_dimensions(schema, embedder)
        request = pb.CreateCollectionRequest(name=name, schema=msgspec.msgpack.encode(schema), exist_ok=bool(exist_ok))
        self._channel.call(self._channel.collections.CreateCollection, request)
        return self.collection(name, embedder=embedder)

    def collection(self, name: str, *, embedder: Embedder | None = None) -> RemoteCollection:
        """Open a collection; raises CollectionNotFound.

        Parameters
        ----------
        embedder : embeds here what this connection writes and searches for, as long as it is open; it has to be the one
            the collection was made with, and is stored as its embedder where there was none
        """
        schema, known = described(self._channel, _checked_name(name), {})
        if embedder is not None:
            made = embedder_record(embedder, known)
            check_dimensions(schema, embedder)
            if known is None and self._writable:
                request = pb.AttachEmbedderRequest(collection=name, embedder=pack_embedder(made))
                self._channel.call(self._channel.collections.AttachEmbedder, request)
            self._embedders[name] = made, embedder
            known = made
        return RemoteCollection(self._channel, name, writable=self._writable, embedder=self._attached(name, known))

    def _attached(self, name: str, known: EmbedderRecord | None) -> Embedder | None:
        """The embedder of a collection, unless it belongs to one that had the name before."""
        record, embedder = self._embedders.get(name, (None, None))
        return embedder if record == known else None

    def _embedder_of(self, name: str, snapshot: str | None = None) -> Embedder | None:
        """The embedder of a collection; raises CollectionNotFound."""
        at = {} if snapshot is None else {"snapshot": snapshot}
        return self._attached(name, described(self._channel, _checked_name(name), at)[1])

    def __getitem__(self, name: str) -> RemoteCollection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def drop_collection(self, name: str) -> None:
        """Remove a collection with all its rows; raises CollectionNotFound."""
        check_writable(self._writable, self._channel)
        self._channel.call(self._channel.collections.DropCollection, pb.DropCollectionRequest(name=_checked_name(name)))

    def stats(self) -> DatabaseStats:
        """Rows, commits and bytes; ``path`` is the address of the server, which does not tell its folder."""
        answer = self._channel.call(self._channel.collections.GetDatabaseStats, pb.GetDatabaseStatsRequest())
        figures = {name: getattr(answer, name) for name in DatabaseStats.__dataclass_fields__ if name != "path"}
        return DatabaseStats(self._channel.url, **figures)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        check_writable(self._writable, self._channel)
        return ask_maintenance(self._channel, None, wait=wait, timeout=timeout)

    def rename_collection(self, old: str, new: str) -> None:
        """Give a collection another name; raises CollectionNotFound or AlreadyExists."""
        check_writable(self._writable, self._channel)
        check_name(new, "collection")
        request = pb.RenameCollectionRequest(name=_checked_name(old), new_name=new)
        self._channel.call(self._channel.admin.RenameCollection, request)
        if old in self._embedders:
            self._embedders[new] = self._embedders.pop(old)

    def snapshot(self) -> RemoteSnapshot:
        """Pin the newest commit for reading; expires after the ``snapshot_timeout`` of the server."""
        unpin(self._channel, self._pinned, dropped(self._pinned, self._snapshots))
        made = RemoteSnapshot(self._channel, self._embedder_of, self._pinned)
        self._snapshots.add(made)
        return made

    def transaction(self) -> RemoteTransaction:
        """Collect changes of several collections and have them applied in one commit at the end of the block."""
        check_writable(self._writable, self._channel)
        return RemoteTransaction(self._channel, self._embedder_of)

    def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Read every page, record and blob and report all damage.

        Parameters
        ----------
        progress : called once, at the end, with the number of blob bytes read
        """
        return verified(self._channel, pb.VerifyRequest(), progress)

    def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; readers go on, writers wait.

        Returns
        -------
        tuple : bytes of the file before and after
        """
        check_writable(self._writable, self._channel)
        answer = self._channel.call(self._channel.admin.Compact, pb.CompactRequest())
        return answer.before, answer.after

    def backup(self, path: str | os.PathLike[str]) -> Path:
        """Write a copy of the newest commit to a path here where nothing is; it is a database of its own.

        Notes
        -----
        The server makes its copy in its folder for temporary files first.
        """
        copies.free_path(path)
        return copies.received(path, self._received())

    def _received(self) -> Iterator[bytes]:
        answers = self._channel.stream(self._channel.admin.Backup, pb.BackupRequest())
        left = next(answers).length
        for answer in answers:
            left -= len(answer.data)
            yield answer.data
        if left:
            raise Corrupt(
                f"a backup expects all bytes of its file, found {abs(left)} too {'few' if left > 0 else 'many'}"
            )


def _checked_name(name: object) -> str:
    """Name of a collection that may be there; raises CollectionNotFound unless it is text."""
    if not isinstance(name, str):
        raise CollectionNotFound(f"the name of a collection expects text, found {shown(name)}")
    return checked_text(name)


def _connected(target: str, writable: bool, credentials: Credentials) -> RemoteDatabase:
    return RemoteDatabase(target, writable=writable, credentials=credentials)
