"""Whole-store copies: compaction, backup, restore."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import TYPE_CHECKING

from gingham.errors import AlreadyExists, Corrupt, NotFound, NotReady
from gingham.storage import crash, generation
from gingham.storage.environment import DATA_FILE, Environment, make_folder, sync_folder, translated
from gingham.storage.session import KeptCache, Session, Shared, WriteSession
from gingham.storage.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gingham.storage.holds import Mapped
    from gingham.storage.store import Store


def compact(store: Store) -> tuple[int, int]:
    """Copy the live pages into a new generation and switch to it; readers go on meanwhile.

    Returns
    -------
    tuple : bytes of the file before and after
    """

    def switch(old: Mapped) -> tuple[int, int]:
        before = (old.env.folder / DATA_FILE).stat().st_size
        generation.sweep_generations(store.root, keep=old.name)
        name = generation.next_generation(old.name)
        folder = store.root / (name + ".new")
        with translated(store.root):
            try:
                folder.mkdir()
                old.env.copy(folder)
                crash.point("compact copied")
                folder.rename(store.root / name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            sync_folder(store.root)
            mark_superseded(old.env, name)
            crash.point("compact superseded")
            generation.set_current(store.root, name)
        crash.point("compact switched")
        store.follow(old, name)
        generation.remove_generation(store.root, old.name)
        return before, (store.root / name / DATA_FILE).stat().st_size

    return store.writer.submit(switch, exclusive=True)


def mark_superseded(env: Environment, name: str) -> None:
    """Commit the last transaction of a generation."""
    txn = env.begin(write=True)
    try:
        session = WriteSession(env, txn)
        session.store.superseded = name
        session.finish()
        txn.commit()
    except BaseException:
        txn.abort()
        raise
    env.sync()


def backup(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write a compact copy of the newest commit as a store of its own; readers and writers go on.

    Raises
    ------
    AlreadyExists : something is at ``path``
    """
    target = free_path(path)
    with store.read() as session:
        _build(target, lambda folder: session.env.copy(folder), new_identity=False)
    return target


def free_path(path: str | os.PathLike[str]) -> Path:
    """A path where nothing is; raises AlreadyExists."""
    target = generation.store_folder(path)
    with translated(target):
        taken = target.exists()
    if taken:
        raise AlreadyExists(f"{target} exists; choose a path where nothing is")
    return target


def received(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> Path:
    """Write the data file of a backup that arrives in pieces, verified, as a store of its own.

    Raises
    ------
    AlreadyExists : something is at ``path``
    Corrupt : it is damaged
    """

    def copy(folder: Path) -> None:
        with (folder / DATA_FILE).open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    target = free_path(path)
    _build(target, copy, new_identity=False)
    return target


def restore(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Copy a backup to a new path, verified first, under a temporary name that is renamed last.

    Raises
    ------
    NotFound : ``source`` is no store
    AlreadyExists : something is at ``path``
    Corrupt : the backup is damaged
    """
    root = generation.store_folder(source)
    if not generation.is_store(root):
        raise NotFound(f"no backup at {root}; check the path")
    target = free_path(path)

    def copy(folder: Path) -> None:
        names = generation.generations(root, first=generation.named_generation(root))
        if not names:
            raise Corrupt(f"{root} expects a generation folder with a {DATA_FILE}, found none; take another backup")
        shutil.copyfile(root / names[0] / DATA_FILE, folder / DATA_FILE)

    _build(target, copy, new_identity=True)
    return target


def _build(target: Path, copy: object, *, new_identity: bool) -> None:
    """Make a store folder under a temporary name, check it, rename it."""
    assert callable(copy)
    with translated(target):
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        folder = temporary / generation.FIRST
        try:
            make_folder(folder, target)
            copy(folder)
            crash.point("copy written")
            _check(folder, new_identity=new_identity)
            (folder / "lock.mdb").unlink(missing_ok=True)
            generation.set_current(temporary, generation.FIRST)
            sync_folder(folder)
            temporary.rename(target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _check(folder: Path, *, new_identity: bool) -> None:
    env = Environment(folder, writable=True)
    try:
        txn = env.begin()
        report = verify(Session(env, txn, Shared(txn.id()), KeptCache()))
        txn.abort()
        if not report.ok:
            raise Corrupt(f"the copy in {folder} is damaged ({report.damage[0]}); nothing was restored")
        txn = env.begin(write=True)
        try:
            session = WriteSession(env, txn)
            if session.store.superseded is not None:
                raise NotReady(
                    f"the source of {folder} was stopped in a compaction; open it once for writing, then copy"
                )
            session.store.unsynced_boot = None
            if new_identity:
                session.store.store_id = uuid.uuid4().hex
            session.finish()
            txn.commit()
        except BaseException:
            txn.abort()
            raise
        env.sync()
        with open(folder / DATA_FILE, "rb") as file:
            os.fsync(file.fileno())
    finally:
        env.close()
