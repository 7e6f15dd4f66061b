"""A store in this process: one mapped generation, a writer thread, and everyone who reads it."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from gingham.errors import Closed, Corrupt, GinghamError, InvalidArgument, NotFound, NotReady, ReadOnly
from gingham.index.device_copies import DeviceCopies
from gingham.storage import generation
from gingham.storage.boot import boot_id
from gingham.storage.catalog import StoreRecord
from gingham.storage.environment import Environment, make_folder, sync_folder, translated
from gingham.storage.gate import FileLock
from gingham.storage.holds import POLL_SECONDS, Mapped, Weakly
from gingham.storage.maintenance import Maintenance
from gingham.storage.records import FORMAT_VERSION
from gingham.storage.session import KEPT_BYTES, KeptCache, Session, Shared, WriteSession
from gingham.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gingham.config import StoreOptions
    from gingham.storage.snapshot import Pin

T = TypeVar("T")

FORK_WAIT_SECONDS = 10.0
"""Longest time a fork waits for running searches and writes to finish."""
OPEN_SECONDS = 1.0
"""Longest time to look for the generation in use: each look takes milliseconds, a compaction longer."""
CLOSE_WAIT_SECONDS = 10.0
"""Longest time that closing waits for running searches."""


class Store:
    """Shared by all handles of this process on one folder; see :func:`open_store`.

    Notes
    -----
    ``closing`` is set before anything is torn down, ``_frozen`` while a fork or a remapping waits for running work
    to end; both are looked at after a use of the map has begun, so that whoever sets one sees every earlier use.
    """

    def __init__(self, root: Path, options: StoreOptions) -> None:
        self.root = root
        self.options = options
        self.handles = 0
        self.closing = False
        self.pins: Weakly[Pin] = Weakly()
        self._frozen = False
        self._orphaned = False
        self._switch = threading.RLock()
        self._copies = DeviceCopies(options.device, budget=options.device_memory)
        self._inherited: DeviceCopies | None = None
        self.gate = FileLock(root / generation.WRITE_LOCK)
        self.writable = options.mode == "w"
        if self.writable and not generation.is_store(root):
            self._create()
        self._mapped: Mapped | None = self._open_current()
        self.writer = Writer(self)
        self.maintenance = Maintenance(self)
        try:
            self._verify_after_unclean_stop()
        except BaseException:
            self._mapped.close()
            raise

    # opening -----------------------------------------------------------------------------------------

    def _create(self) -> None:
        if not self.options.create:
            raise NotFound(f"no database at {self.root}; check the path, or open it with create=True")
        with translated(self.root):
            make_folder(self.root)
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

    def _open_current(self, successor: str | None = None) -> Mapped:
        """Map the generation in use, whatever is compacted meanwhile; looks at ``successor`` and later ones only."""
        deadline = time.monotonic() + OPEN_SECONDS
        while True:
            named = generation.named_generation(self.root)
            for name in generation.generations(self.root, first=successor or named):
                if successor is not None and name < successor:
                    continue
                try:
                    mapped = self._map(name, named=name == named)
                except NotFound:
                    continue  # it was superseded and removed since its name was read
                if mapped is not None:
                    return mapped
            if time.monotonic() >= deadline:
                found = [p.name for p in sorted(self.root.glob("generation-*"))]
                raise Corrupt(
                    f"{self.root / generation.CURRENT} expects the name of a generation folder in use, "
                    f"found {named!r} beside {found}; restore a backup"
                )
            time.sleep(10 * POLL_SECONDS)

    def _map(self, name: str, *, named: bool) -> Mapped | None:
        """Map one generation folder; None where it is superseded."""
        sync = self.options.durability == "commit"
        env = Environment(self.root / name, writable=self.writable, sync=sync, max_size=self.options.max_size)
        mapped = Mapped(env, name, named, kept=KeptCache(min(KEPT_BYTES, self.options.memory_budget // 4)))
        try:
            session = self._session(mapped)
            superseded = session.store.superseded
            session.end()
        except BaseException:
            mapped.close()
            raise
        if superseded is not None:
            mapped.close()
            return None
        return mapped

    def _verify_after_unclean_stop(self) -> None:
        """Read everything where unsynced commits may have been lost, once: the next commit forgets the stop."""
        with self.read() as session:
            if session.store.unsynced_boot in (None, boot_id()):
                return
            from gingham.storage.verify import verify_session

            damage = verify_session(session)
        if damage:
            raise Corrupt(
                f"{self.root} was written without a sync and the system stopped before it was flushed; "
                f"{damage[0]}; restore a backup"
            )
        if self.writable:
            with contextlib.suppress(GinghamError):
                self.writer.submit(lambda session: None)

    def _current(self) -> Mapped:
        if self._mapped is None:
            raise Closed(f"the database {self.root} is closed; open it again")
        return self._mapped

    # reading -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session on the newest commit for the time of the block."""
        session = self.begin()
        try:
            yield session
        finally:
            session.end()

    def begin(self, *, pinned: bool = False) -> Session:
        """Open a session, to be ended by its method; a pinned one may outlive the call."""
        return self._begin(pinned=pinned)[1]

    def _begin(self, *, pinned: bool = False, last: bool = False) -> tuple[Mapped, Session]:
        """Begin a session on the newest generation; while the store closes only where ``last``."""
        while True:
            self._ready(last=last)
            mapped = self._mapped
            if mapped is None and not self._frozen:
                raise Closed(f"the database {self.root} is closed; open it again")
            use = None if mapped is None else mapped.enter(pinned=pinned)
            if mapped is None or use is None:
                time.sleep(POLL_SECONDS)
                continue
            if (self._frozen or self.closing) and not last:
                mapped.leave(use)
                continue
            try:
                session = self._session(mapped)
                session.use = use
                successor = session.store.superseded
            except BaseException:
                mapped.leave(use)
                raise
            if successor is None:
                return mapped, session
            session.end()
            self.follow(mapped, successor)

    def _ready(self, *, last: bool = False) -> None:
        """Wait while work is frozen; raises Closed."""
        while self._frozen and not last:
            time.sleep(POLL_SECONDS)
        if self.closing and not last:
            raise Closed(f"the database {self.root} is closed; open it again")
        if self._orphaned:
            self._recover_from_fork()

    def _session(self, mapped: Mapped) -> Session:
        txn = mapped.env.begin()
        txn_id = txn.id()
        shared = mapped.shared
        if shared.txn_id != txn_id:
            shared = Shared(txn_id)
            if txn_id > mapped.shared.txn_id:
                mapped.shared = shared
        session = Session(mapped.env, txn, shared, mapped.kept)
        session.copies = self._copies
        return session

    def follow(self, old: Mapped, successor: str) -> None:
        """Serve new sessions from the successor of ``old``, which its last session unmaps."""
        with self._switch:
            if self._mapped is old:
                self._mapped = self._open_current(successor)
        old.close()

    # writing -----------------------------------------------------------------------------------------

    def write(self, change: Callable[[WriteSession], T]) -> T:
        """Run a change in the writer thread and return its result once it is committed.

        Parameters
        ----------
        change : called with the write session; what it raises aborts it and is raised here
        """
        if not self.writable:
            raise ReadOnly(f"{self.root} is open for reading; open it with mode='w' to change it")
        self._ready()
        result = self.writer.submit(change)
        self.maintenance.wake()
        return result

    def sync(self) -> None:
        """Flush what is committed to the disk."""
        with self.read() as session:
            session.env.sync()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Mapped]:
        """The newest generation, for the writer, which holds the gate; CURRENT names it from here on."""
        mapped, session = self._begin(last=True)
        try:
            session.txn.abort()
            if not mapped.named:
                generation.set_current(self.root, mapped.name)
                mapped.named = True
            yield mapped
        finally:
            session.end()

    # the end, and forks ------------------------------------------------------------------------------

    def upgrade(self, options: StoreOptions) -> None:
        """Map the store again for writing; raises NotReady while it is read, and changes nothing where it fails."""
        with self._switch:
            old, before = self._current(), self.options
            copies = DeviceCopies(options.device, budget=options.device_memory)
            self._frozen = True
            try:
                if not old.wait(FORK_WAIT_SECONDS, pinned=False):
                    raise NotReady(
                        f"{self.root} is open for reading and busy; close that handle before opening it to write"
                    )
                if old.in_use():
                    raise NotReady(f"{self.root} has open snapshots for reading; close them before opening it to write")
                old.close()
                self._mapped = None
                try:
                    self.options, self.writable = options, True
                    self._mapped = self._open_current()
                    self._copies = copies
                except BaseException:
                    self.options, self.writable = before, False
                    self._mapped = self._open_current()
                    raise
            finally:
                self._frozen = False

    def close(self) -> None:
        """Refuse new work, end snapshots, finish what runs, unmap; may be repeated where it was interrupted.

        Notes
        -----
        A search that still runs after ``CLOSE_WAIT_SECONDS`` unmaps the file when it ends.
        """
        self.closing = True
        mapped = self._mapped
        if mapped is None:
            return
        if self._orphaned:
            if not mapped.in_use():
                mapped.close()
            return
        for pin in self.pins.members():
            pin.end_because("belongs to a database that was closed")
        self.maintenance.stop()
        self.writer.stop()
        mapped = self._current()
        mapped.close()
        mapped.wait(CLOSE_WAIT_SECONDS)
        self._mapped = None
        self.gate.close()

    def freeze(self) -> None:
        """Wait for running work and start no more: a fork copies no half-done state."""
        if self.closing or self._orphaned:
            return
        self.maintenance.pause(FORK_WAIT_SECONDS)
        self.writer.pause()
        self._frozen = True
        self._current().wait(FORK_WAIT_SECONDS, pinned=False)

    def thaw(self) -> None:
        """Go on after a fork, in the parent."""
        self._frozen = False
        self.writer.resume()
        self.maintenance.resume()

    def orphan(self) -> None:
        """Mark the store as inherited, in the child of a fork; the parent's locks must not live on in it."""
        self._switch = threading.RLock()
        self._frozen = False
        self._orphaned = True
        self.gate.close()
        self.maintenance.lease.close()
        for pin in self.pins.members():
            pin.forget()

    def _recover_from_fork(self) -> None:
        """Replace an inherited environment by one of this process."""
        with self._switch:
            if not self._orphaned:
                return
            mapped = self._current()
            if mapped.in_use():
                raise NotReady(
                    f"{self.root} was being read or scanned when this process was forked; "
                    "end that before forking, or start processes with spawn"
                )
            mapped.close()
            self._inherited = self._copies  # rows on a device are freed by the process that copied them
            self._copies = DeviceCopies(self.options.device, budget=self.options.device_memory)
            self._mapped = self._open_current()
            self.writer = Writer(self)
            self.maintenance = Maintenance(self)
            self._orphaned = False


_stores: dict[Path, Store] = {}
_collected: deque[Store] = deque()
_lock = threading.RLock()


def open_store(path: str | os.PathLike[str], options: StoreOptions) -> Store:
    """Store of a folder, shared by every handle of this process; :func:`release_store` gives it back."""
    root = generation.store_folder(path)
    if options.mode == "r" and not generation.is_store(root):
        raise NotFound(f"no database at {root}; check the path, or open it with mode='w'")
    with _lock:
        _release_collected()
        store = _stores.get(root)
        if store is not None and store.handles == 0:
            _close(store)  # an interrupt ended its close early
            store = None
        if store is None:
            store = _stores[root] = Store(root, options)
        elif options.mode == "w" and not store.writable:
            store.upgrade(options)
        elif options.mode == "w":
            _check_same(root, store.options, options)
        store.handles += 1
        return store


def _check_same(root: Path, known: StoreOptions, wanted: StoreOptions) -> None:
    for name in ("durability", "max_size", "lock_timeout", "memory_budget", "device", "device_memory"):
        if getattr(known, name) != getattr(wanted, name):
            raise InvalidArgument(
                f"{root} is open in this process with {name}={getattr(known, name)!r}, "
                f"found {getattr(wanted, name)!r}; use the same or close the other handle"
            )


def release_store(store: Store) -> None:
    """Give a handle back; the last one closes the store."""
    with _lock:
        store.handles -= 1
        if store.handles == 0:
            _close(store)


def release_later(store: Store) -> None:
    """Give the handle of a collected object back, in a thread of its own.

    Notes
    -----
    The garbage collector runs in the midst of anything: in the writer thread, which closing waits for, or in
    :func:`open_store`.
    """
    _collected.append(store)
    _thread.start_new_thread(_release_collected, ())


def _release_collected() -> None:
    with _lock:
        while _collected:
            release_store(_collected.popleft())


def _close(store: Store) -> None:
    store.close()
    if _stores.get(store.root) is store:
        del _stores[store.root]


def _close_all() -> None:
    """Close what is still open when the interpreter ends."""
    with _lock:
        for store in list(_stores.values()):
            _close(store)


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


atexit.register(_close_all)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
