"""Answers of language models kept on disk, in an LMDB environment of their own."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from gingham.errors import ChecksumMismatch, Corrupt, NotAStore, StoreFull
from gingham.storage import pages
from gingham.storage.environment import DATA_FILE, make_folder, translated
from gingham.storage.generation import CURRENT, store_folder
from gingham.storage.records import open_record, seal_record
from gingham.types import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = b"answers"
_LEAST_BYTES = 1 << 20
_lock = threading.Lock()
"""LMDB must not have one file open twice in a process."""
_sound: set[tuple[int, int]] = set()
"""Device and inode of the files whose trees this process has walked."""


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)


@dataclass(frozen=True)
class HydeCache:
    """Passages and vectors of :func:`gingham.hyde`, kept in a folder for all processes.

    Parameters
    ----------
    path : folder of the cache, made when something is kept; not that of a database
    max_bytes : most that it takes on disk, at least 1 MiB

    Raises
    ------
    InvalidArgument : no folder can have this path, or ``max_bytes`` is out of range
    NotAStore : something else stands at ``path``

    Notes
    -----
    The file is open only while an entry is read (0.2 ms) or kept (a sync of the disk), so there is nothing to close,
    and objects may be copied, sent to other processes and taken through forks. Entries have checksums; one that is
    damaged is as good as none.
    """

    path: str | os.PathLike[str]
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        folder = store_folder(self.path)
        object.__setattr__(self, "path", str(folder))
        object.__setattr__(self, "max_bytes", whole("HydeCache(max_bytes=)", self.max_bytes, _LEAST_BYTES))
        if (folder.exists() and not folder.is_dir()) or (folder / CURRENT).exists():
            raise NotAStore(f"HydeCache(path) expects a folder of its own, found something else at {folder}")

    def get(self, key: bytes, /) -> bytes | None:
        """Value of a key; None where there is none, or it is damaged.

        Raises
        ------
        Corrupt : the file is damaged
        NotAStore : it is no cache
        """
        if not self._begun():
            return None
        with self._opened(write=False) as (env, table):
            if table is None:
                return None
            with env.begin(db=table) as txn:
                value = txn.get(key)
        try:
            return None if value is None else bytes(open_record("answers", key, value))
        except ChecksumMismatch:
            return None

    def __setitem__(self, key: bytes, value: bytes, /) -> None:
        """Keep a value.

        Raises
        ------
        StoreFull : ``max_bytes`` or the disk is full
        Corrupt, NotAStore : as of :meth:`get`
        """
        with translated(self.path):
            make_folder(Path(self.path))
        with self._opened(write=True) as (env, table), env.begin(write=True, db=table) as txn:
            txn.put(key, seal_record(key, value))

    def _begun(self) -> bool:
        """Whether there is a file that LMDB has begun."""
        file = Path(self.path) / DATA_FILE
        return file.is_file() and file.stat().st_size > 0

    @contextlib.contextmanager
    def _opened(self, *, write: bool) -> Iterator[tuple[Any, Any]]:
        """The environment and its table, which is None before the first entry."""
        with _lock, translated(self.path):
            size = self.max_bytes
            if self._begun():
                size = max(size, _checked_bytes(Path(self.path) / DATA_FILE))
            env = lmdb.open(
                str(self.path),
                map_size=size // pages.PAGE_BYTES * pages.PAGE_BYTES,
                max_dbs=1,
                readonly=not write,
                create=write,
                metasync=False,
                readahead=False,
            )
            try:
                empty = not env.stat()["entries"]
                yield env, None if empty and not write else env.open_db(_TABLE, create=write and empty)
            except lmdb.NotFoundError as error:
                raise NotAStore(
                    f"HydeCache(path) expects a folder of its own, found a database at {self.path}; choose another"
                ) from error
            except lmdb.MapFullError as error:
                raise StoreFull(
                    f"{self.path} expects at most {self.max_bytes} bytes of answers, found no room for another; raise "
                    "max_bytes= or remove the folder"
                ) from error
            finally:
                env.close()


def _checked_bytes(file: Path) -> int:
    """Size of a file that is sound: LMDB follows a damaged page number out of its map, which ends the process."""
    pages.check_header(file)
    stat = file.stat()
    if (stat.st_dev, stat.st_ino) not in _sound:
        damage = pages.check_trees(file)
        if damage:
            raise Corrupt(f"{file} is damaged at {damage[0].where}: {damage[0].what}; remove the folder")
        _sound.add((stat.st_dev, stat.st_ino))
    return stat.st_size
