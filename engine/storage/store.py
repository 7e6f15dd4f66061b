"""A store in this process: one mapped generation, a writer thread, and everyone who reads it."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gingham.errors import Closed, Corrupt, InvalidArgument, NotFound, NotReady, ReadOnly
from gingham.storage import generation
from gingham.storage.boot import boot_id
from gingham.storage.catalog import StoreRecord
from gingham.storage.environment import Environment, sync_folder, translated
from gingham.storage.gate import FileLock
from gingham.storage.maintenance import Maintenance
from gingham.storage.records import FORMAT_VERSION
from gingham.storage.session import KEPT_BYTES, KeptCache, Session, Shared, WriteSession
from gingham.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.config import StoreOptions

T = TypeVar("T")

FORK_WAIT_SECONDS = 10.0
"""Longest time a fork waits for running searches and writes to finish."""


@dataclass
class Mapped:
    """A mapped generation and the sessions on it."""

    env: Environment
    name: str
    shared: Shared = field(default_factory=lambda: Shared(-1))
    kept: KeptCache = field(default_factory=KeptCache)
    active: int = 0
    retired: bool = False


class Store:
    """Shared by all handles of this process on one folder; see :func:`open_store`."""

    def __init__(self, root: Path, options: StoreOptions) -> None:
        self.root = root
        self.options = options
        self.pid = os.getpid()
        self.handles = 0
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._frozen = False
        self._pinned = 0
        self._orphaned = False
        self.gate = FileLock(root / generation.WRITE_LOCK)
        self.writable = options.mode == "w"
        if self.writable and not generation.is_store(root):
            self._create()
        self._mapped: Mapped | None = self._open_current()
        self._after_open()
        self.writer = Writer(self)
        self.maintenance = Maintenance(self)

    # opening -----------------------------------------------------------------------------------------

    def _create(self) -> None:
        if not self.options.create:
            raise NotFound(f"no database at {self.root}; check the path, or open it with create=True")
        with translated(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self.gate.acquire(self.options.lock_timeout)
        try:
            if generation.is_store(self.root):
                return
            generation.sweep_generations(self.root, keep="")
            folder = self.root / (generation.FIRST + ".new")
            with translated(self.root):
                folder.mkdir()
                env = Environment(folder, writable=True, create=True, max_size=self.options.max_size)
                txn = env.begin(write=True)
                session = WriteSession(env, txn)
                session.shared.store = StoreRecord(format=FORMAT_VERSION, store_id=uuid.uuid4().hex)
                session.finish()
                txn.commit()
                env.close()
                (folder / "lock.mdb").unlink(missing_ok=True)
                sync_folder(folder)
                folder.rename(self.root / generation.FIRST)
                sync_folder(self.root)
                generation.set_current(self.root, generation.FIRST)
                sync_folder(self.root.parent)
        finally:
            self.gate.release()

    def _open_current(self) -> Mapped:
        for _ in range(10):
            name = generation.current_generation(self.root)
            try:
                mapped = self.map_generation(name)
            except (FileNotFoundError, NotFound):
                continue
            successor = self._peek(mapped).store.superseded
            if successor is None:
                return mapped
            mapped.env.close()
            if not (self.root / successor).is_dir():
                raise Corrupt(
                    f"{self.root / name} names its successor {successor!r}, which is missing; restore a backup"
                )
            if self.writable:
                generation.set_current(self.root, successor)
            else:
                return self.map_generation(successor)
        raise NotReady(f"the generation of {self.root} changed ten times while it was opened; open it again")

    def map_generation(self, name: str) -> Mapped:
        """Map one generation folder."""
        sync = self.options.durability == "commit"
        env = Environment(self.root / name, writable=self.writable, sync=sync, max_size=self.options.max_size)
        return Mapped(env, name, kept=KeptCache(min(KEPT_BYTES, self.options.memory_budget // 4)))

    @staticmethod
    def _peek(mapped: Mapped) -> Session:
        txn = mapped.env.begin()
        try:
            session = Session(mapped.env, txn, Shared(txn.id()), mapped.kept)
            assert session.store is not None
            return session
        finally:
            txn.abort()

    def _after_open(self) -> None:
        mapped = self._current()
        unsynced = self._peek(mapped).store.unsynced_boot
        if unsynced is not None and unsynced != boot_id():
            from gingham.storage.verify import verify_session

            with self.read() as session:
                damage = verify_session(session)
            if damage:
                raise Corrupt(
                    f"{self.root} was written with durability={self.options.durability!r} and the system stopped "
                    f"before it was flushed; {damage[0]}; restore a backup"
                )

    def _current(self) -> Mapped:
        if self._mapped is None:
            raise Closed(f"the database {self.root} is closed; open it again")
        return self._mapped

    # reading -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session on the newest commit for the time of the block."""
        mapped, session = self.begin()
        try:
            yield session
        finally:
            self.end(mapped, session)

    def begin(self, *, pinned: bool = False) -> tuple[Mapped, Session]:
        """Open a session that :meth:`end` closes; a pinned one may outlive the call."""
        while True:
            mapped = self._enter(pinned)
            try:
                session = self._session(mapped)
            except BaseException:
                self._leave(mapped, pinned)
                raise
            successor = session.store.superseded
            if successor is None:
                return mapped, session
            self.end(mapped, session, pinned=pinned)
            self.follow(mapped, successor)

    def end(self, mapped: Mapped, session: Session, *, pinned: bool = False) -> None:
        """Close a session."""
        session.txn.abort()
        self._leave(mapped, pinned)

    def _enter(self, pinned: bool) -> Mapped:
        with self._changed:
            self._recover_from_fork()
            self._changed.wait_for(lambda: not self._frozen)
            if self._closed:
                raise Closed(f"the database {self.root} is closed; open it again")
            mapped = self._current()
            mapped.active += 1
            self._pinned += pinned
            return mapped

    def _leave(self, mapped: Mapped, pinned: bool) -> None:
        with self._changed:
            mapped.active -= 1
            self._pinned -= pinned
            if mapped.retired and mapped.active == 0:
                mapped.env.close()
            self._changed.notify_all()

    @staticmethod
    def _session(mapped: Mapped) -> Session:
        txn = mapped.env.begin()
        txn_id = txn.id()
        shared = mapped.shared
        if shared.txn_id != txn_id:
            shared = Shared(txn_id)
            if txn_id > mapped.shared.txn_id:
                mapped.shared = shared
        return Session(mapped.env, txn, shared, mapped.kept)

    def follow(self, old: Mapped, successor: str) -> None:
        """Serve new sessions from the successor of ``old``, which its last session unmaps."""
        with self._changed:
            if self._mapped is not old:
                return
            try:
                self._mapped = self.map_generation(successor)
            except FileNotFoundError:
                self._mapped = self._open_current()
            old.retired = True
            if old.active == 0:
                old.env.close()

    # writing -----------------------------------------------------------------------------------------

    def write(self, change: Callable[[WriteSession], T]) -> T:
        """Run a change in the writer thread and return its result once it is committed.

        Parameters
        ----------
        change : called with the write session; what it raises aborts it and is raised here
        """
        if not self.writable:
            raise ReadOnly(f"{self.root} is open for reading; open it with mode='w' to change it")
        with self._changed:
            self._recover_from_fork()
            self._changed.wait_for(lambda: not self._frozen)
            if self._closed:
                raise Closed(f"the database {self.root} is closed; open it again")
        result = self.writer.submit(change)
        self.maintenance.wake()
        return result

    def sync(self) -> None:
        """Flush what is committed to the disk."""
        with self.read() as session:
            session.env.sync()

    def write_mapped(self) -> Mapped:
        """The newest generation, for the writer, which holds the gate."""
        mapped = self._current()
        successor = self._peek(mapped).store.superseded
        if successor is not None:
            self.follow(mapped, successor)
        return self._current()

    # the end, and forks ------------------------------------------------------------------------------

    def upgrade(self, options: StoreOptions) -> None:
        """Map the store again for writing; raises NotReady while snapshots are open."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._current().active == self._pinned, FORK_WAIT_SECONDS):
                raise NotReady(
                    f"{self.root} is open for reading and busy; close that handle before opening it to write"
                )
            if self._pinned:
                raise NotReady(f"{self.root} has open snapshots for reading; close them before opening it to write")
            self._current().env.close()
            self.options, self.writable = options, True
            self._mapped = self._open_current()

    def close(self) -> None:
        """Refuse new work, finish what runs, unmap."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        if self.pid != os.getpid():
            return
        self.maintenance.stop()
        self.writer.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._current().active == self._pinned)
            mapped = self._current()
            mapped.retired = True
            if mapped.active == 0:
                mapped.env.close()
            self._mapped = None
        self.gate.close()

    def freeze(self) -> None:
        """Wait for running work and start no more: a fork copies no half-done state."""
        if self._closed or self._orphaned:
            return
        self.writer.pause()
        with self._changed:
            self._frozen = True
            self._changed.wait_for(lambda: self._current().active <= self._pinned, FORK_WAIT_SECONDS)

    def thaw(self) -> None:
        """Go on after a fork, in the parent."""
        if self._closed or self._orphaned:
            return
        with self._changed:
            self._frozen = False
            self._changed.notify_all()
        self.writer.resume()

    def orphan(self) -> None:
        """Mark the store as inherited, in the child of a fork."""
        self._changed = threading.Condition(threading.RLock())
        self._frozen = False
        self._orphaned = True

    def _recover_from_fork(self) -> None:
        """Replace an inherited environment by one of this process."""
        if not self._orphaned or self._closed:
            return
        if self._current().active:
            raise NotReady(
                f"{self.root} had an open snapshot or scan when this process was forked; "
                "close it before forking, or start processes with spawn"
            )
        self._current().env.close()
        self.gate.close()
        self.pid = os.getpid()
        self._orphaned = False
        self._mapped = self._open_current()
        self.writer = Writer(self)
        self.maintenance = Maintenance(self)


_stores: dict[Path, Store] = {}
_lock = threading.Lock()


def open_store(path: str | os.PathLike[str], options: StoreOptions) -> Store:
    """Store of a folder, shared by every handle of this process; :func:`release_store` gives it back."""
    root = Path(path).expanduser().resolve()
    if options.mode == "r" and not generation.is_store(root):
        raise NotFound(f"no database at {root}; check the path, or open it with mode='w'")
    with _lock:
        store = _stores.get(root)
        if store is None:
            store = _stores[root] = Store(root, options)
        elif options.mode == "w" and not store.writable:
            store.upgrade(options)
        elif options.mode == "w" and store.options.durability != options.durability:
            raise InvalidArgument(
                f"{root} is open in this process with durability={store.options.durability!r}, "
                f"found {options.durability!r}; use the same or close the other handle"
            )
        store.handles += 1
        return store


def release_store(store: Store) -> None:
    """Give a handle back; the last one closes the store."""
    with _lock:
        store.handles -= 1
        if store.handles == 0:
            if _stores.get(store.root) is store:
                del _stores[store.root]
            store.close()


def _before_fork() -> None:
    _lock.acquire()
    for store in _stores.values():
        store.freeze()


def _after_fork_in_parent() -> None:
    for store in _stores.values():
        store.thaw()
    _lock.release()


def _after_fork_in_child() -> None:
    for store in _stores.values():
        store.orphan()
    _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
