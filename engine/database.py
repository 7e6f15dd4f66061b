"""A database: its collections, snapshots, transactions and copies."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from gingham.collection import Collection
from gingham.embed.attach import embedder_record
from gingham.embed.rows import check_dimensions
from gingham.errors import AlreadyExists, Closed, ReadOnly
from gingham.schema import Schema, check_name
from gingham.storage import copies, schema_moves
from gingham.storage.environment import DATA_FILE
from gingham.storage.snapshot import Pin
from gingham.storage.store import Store, open_store, release_later, release_store
from gingham.storage.verify import VerifyReport, verify
from gingham.transaction import Transaction
from gingham.view import CollectionView, Reader

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from gingham.config import StoreOptions
    from gingham.embed import Embedder
    from gingham.embed.record import EmbedderRecord
    from gingham.schema import Field, Vector
    from gingham.storage.session import WriteSession


@dataclass(frozen=True)
class DatabaseStats:
    """Figures of a database.

    Attributes
    ----------
    path : its folder
    store_id : random name it was given when it was made
    version : number of commits
    collections : how many there are
    rows : live rows of all of them
    file_bytes : size of the data file
    used_bytes : up to the last page in use
    """

    path: str
    store_id: str
    version: int
    collections: int
    rows: int
    file_bytes: int
    used_bytes: int


class _Closing:
    """What a ``with`` block closes at its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is held."""
        raise NotImplementedError


class Database(_Closing):
    """An open database; use it in a ``with`` block or :meth:`close` it.

    Notes
    -----
    Handles of one process on one folder share its file. A handle may be used by several threads, and by the
    child of a fork.
    """

    def __init__(self, path: str | os.PathLike[str], options: StoreOptions) -> None:
        self._store = open_store(path, options)
        self._options = options
        self._writable = options.mode == "w"
        self._embedders: dict[int, Embedder] = {}
        self._finalizer = weakref.finalize(self, release_later, self._store)
        self._finalizer.atexit = False

    @property
    def path(self) -> Path:
        """Folder of the database."""
        return self._store.root

    def __repr__(self) -> str:
        return f"<Database {str(self.path)!r}{'' if self._finalizer.alive else ' closed'}>"

    def close(self) -> None:
        """Finish running work, end snapshots and unmap the file; may be called twice."""
        if self._finalizer.detach():
            release_store(self._store)

    def _reader(self, *, write: bool = False) -> Reader:
        if not self._finalizer.alive:
            raise Closed(f"the database {self.path} is closed; open it again")
        if write and not self._writable:
            raise ReadOnly(f"{self.path} is open for reading; open it with mode='w' to change it")
        return _HandleReader(self)

    def collections(self) -> list[str]:
        """Names of the collections, sorted."""
        with self._reader().session() as session:
            return sorted(session.store.names)

    def create_collection(
        self,
        name: str,
        *,
        fields: Mapping[str, Field] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        embedder: Embedder | None = None,
        exist_ok: bool = False,
    ) -> Collection:
        """Make a collection.

        Parameters
        ----------
        name : letters, digits and underscores, at most 64
        fields : payload fields by name
        vectors : vector fields by name
        embedder : makes vectors of texts, of rows and of queries; see :class:`gingham.Dense` ``source``
        exist_ok : return the collection of this name where there is one of the same schema

        Raises
        ------
        AlreadyExists : the name is taken
        InvalidArgument : a name or a field type cannot be used
        """
        check_name(name, "collection")
        schema = Schema.of(fields, vectors)
        schema = schema if embedder is None else schema.with_sources()
        reader = self._reader(write=True)
        stored = None if embedder is None else self._checked_embedder(schema, embedder)

        def change(session: WriteSession) -> int | None:
            if name in session.store.names:
                if exist_ok and session.collection(name).schema == schema:
                    return None
                raise AlreadyExists(f"the collection {name!r} exists already; open it as db[{name!r}] or drop it")
            record = schema_moves.create_collection(session, name, schema)
            record.embedder = stored
            return record.cid

        cid = reader.store.write(change)
        if cid is None:
            return self.collection(name, embedder=embedder)
        if embedder is not None:
            self._embedders[cid] = embedder
        return Collection(reader, cid, embedder)

    def collection(self, name: str, *, embedder: Embedder | None = None) -> Collection:
        """Open a collection.

        Parameters
        ----------
        embedder : attached to the collection for as long as this database is open; it has to be the one the
            collection was made with, and is stored as its embedder where there was none

        Raises
        ------
        CollectionNotFound : there is none of this name
        SchemaMismatch : the embedder is not the one the stored vectors come from
        """
        reader = self._reader()
        with reader.session() as session:
            record = session.collection(name)
        if embedder is not None:
            stored = self._checked_embedder(record.schema, embedder, record.embedder)
            if record.embedder is None and self._writable:
                reader.store.write(lambda session: schema_moves.set_embedder(session, record.cid, stored))
            self._embedders[record.cid] = embedder
        return Collection(reader, record.cid, self._embedders.get(record.cid))

    @staticmethod
    def _checked_embedder(schema: Schema, embedder: Embedder, known: EmbedderRecord | None = None) -> EmbedderRecord:
        made = embedder_record(embedder, known)
        check_dimensions(schema, embedder)
        return made

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def drop_collection(self, name: str) -> None:
        """Remove a collection with all its rows; raises CollectionNotFound."""
        self._reader(write=True).store.write(lambda session: schema_moves.drop_collection(session, name))

    def rename_collection(self, old: str, new: str) -> None:
        """Give a collection another name; open handles go on; raises CollectionNotFound or AlreadyExists."""
        check_name(new, "collection")

        def change(session: WriteSession) -> None:
            session.collection_id(old)
            if new in session.store.names:
                raise AlreadyExists(f"the collection {new!r} exists already; drop it first or choose another name")
            schema_moves.rename_collection(session, old, new)

        self._reader(write=True).store.write(change)

    def snapshot(self) -> Snapshot:
        """Pin the newest commit for reading; expires after ``snapshot_timeout``."""
        return Snapshot(self._reader().store, self._embedders)

    def transaction(self) -> Transaction:
        """Collect changes of several collections and apply them in one commit at the end of the block."""
        return Transaction(self._reader(write=True), self._embedders)

    def stats(self) -> DatabaseStats:
        """Rows, commits and bytes."""
        store = self._reader().store
        with store.read() as session:
            rows = sum(session.collection_by_id(cid).rows for cid in session.store.names.values())
            size = (session.env.folder / DATA_FILE).stat().st_size
            return DatabaseStats(
                str(store.root),
                session.store.store_id,
                session.store.version,
                len(session.store.names),
                rows,
                size,
                session.env.used_bytes(),
            )

    def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Read every page, record and blob and report all damage.

        Parameters
        ----------
        progress : called with the number of blob bytes read so far
        """
        with self._reader().session() as session:
            return verify(session, progress)

    def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; readers go on, writers wait.

        Returns
        -------
        tuple : bytes of the file before and after
        """
        return copies.compact(self._reader(write=True).store)

    def backup(self, path: str | os.PathLike[str]) -> Path:
        """Write a copy of the newest commit to a path where nothing is; it is a database of its own."""
        return copies.backup(self._reader().store, path)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        return self._reader(write=True).store.maintenance.ask(wait=wait, timeout=timeout)


class _HandleReader(Reader):
    """A reader that lives and ends with its database handle."""

    def __init__(self, database: Database) -> None:
        super().__init__(_HandleStore(database))  # type: ignore[arg-type]


class _HandleStore:
    """The store of a handle: refuses what the handle may not do, whatever other handles of the store may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def options(self) -> StoreOptions:
        """Settings of the handle."""
        return self._database._options

    def __getattr__(self, name: str) -> Any:
        self._database._reader(write=name in ("write", "writer", "maintenance"))
        return getattr(self._database._store, name)


class Snapshot(_Closing):
    """One commit, readable until it is closed or expires."""

    def __init__(self, store: Store, embedders: Mapping[int, Embedder]) -> None:
        self._pin = Pin(store)
        self._reader = Reader(store, self._pin)
        self._embedders = embedders

    def close(self) -> None:
        """Give the commit up; may be called twice."""
        self._pin.close()

    @property
    def version(self) -> int:
        """Number of the commit."""
        with self._pin.read() as session:
            return session.store.version

    def collections(self) -> list[str]:
        """Names of the collections, sorted."""
        with self._pin.read() as session:
            return sorted(session.store.names)

    def __getitem__(self, name: str) -> CollectionView:
        with self._pin.read() as session:
            cid = session.collection_id(name)
        return CollectionView(self._reader, cid, self._embedders.get(cid))
