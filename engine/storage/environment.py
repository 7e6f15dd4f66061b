"""One LMDB environment: the mapped file of one generation.

Only this module opens the LMDB of a store. Every process maps far more than the file holds (the map is sparse), so the
map is never resized while a snapshot lives: resizing under a reader would move the views it computes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from gingham.errors import (
    Corrupt,
    GinghamError,
    InvalidArgument,
    NotAStore,
    NotFound,
    NotReady,
    PermissionDenied,
    ResourceExhausted,
    StoreFull,
    Unavailable,
)
from gingham.storage import pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.storage.catalog import BlobRef

MAP_BYTES = 1 << 40
"""Address space asked for: 1 TiB costs half a millisecond and no memory; halved until it fits RLIMIT_AS."""
MIN_MAP_BYTES = 1 << 26
READER_SLOTS = 1024
_LITTLE_BYTES = 64 << 20
_TOLD = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""What the system says in errors of LMDB, which carry the words without the number."""
DATA_FILE = "data.mdb"
TABLES = ("catalog", "ids", "tail", "segments", "tombstones", "blobs", "staged")


class Environment:
    """The tables of one generation folder."""

    def __init__(
        self,
        folder: Path,
        *,
        writable: bool,
        sync: bool = True,
        max_size: int | None = None,
        create: bool = False,
    ) -> None:
        self.folder = folder
        self.max_size = max_size
        self.pid = os.getpid()
        self._sync = sync
        with translated(folder):
            if not create:
                pages.check_header(folder / DATA_FILE)
                self._raise_damage(pages.check_trees(folder / DATA_FILE, skip=("ids",), free_pages=False))
            self._env = self._open(writable, create)
            try:
                self._tables = self._open_tables(create)
                self.clear_dead_readers()
            except BaseException:
                self._env.close()
                raise
        self._ids_checked = create
        self._free_checked = create
        self.checked: dict[BlobRef, bytearray] = {}
        self.freed_bytes = 0
        self.damaged: set[tuple[str, int, str]] = set()
        self.uncoded: set[tuple[int, str, str]] = set()
        self.claimed_bytes = 0

    def _open(self, writable: bool, create: bool) -> Any:
        size = MAP_BYTES if self.max_size is None else self.max_size // pages.PAGE_BYTES * pages.PAGE_BYTES
        lock = writable or _lockable(self.folder)
        while True:
            try:
                return lmdb.open(
                    str(self.folder),
                    map_size=size,
                    max_dbs=len(TABLES),
                    max_readers=READER_SLOTS,
                    max_spare_txns=0,
                    readonly=not writable,
                    create=create,
                    sync=self._sync,
                    readahead=False,
                    meminit=False,
                    lock=lock,
                )
            except lmdb.MemoryError:
                if size <= MIN_MAP_BYTES:
                    raise ResourceExhausted(
                        f"the address space limit does not allow a map of {size} bytes; raise RLIMIT_AS"
                    ) from None
                size //= 2

    def _open_tables(self, create: bool) -> dict[str, Any]:
        if not create:
            return {name: self._env.open_db(name.encode(), create=False) for name in TABLES}
        return {name: self._env.open_db(name.encode()) for name in TABLES}

    def table(self, name: str) -> Any:
        """LMDB handle of a table."""
        return self._tables[name]

    def begin(self, *, write: bool = False) -> Any:
        """Begin a transaction; clears the slots of dead readers when the table is full."""
        try:
            return self._env.begin(write=write, buffers=True)
        except lmdb.ReadersFullError:
            self._env.reader_check()
            try:
                return self._env.begin(write=write, buffers=True)
            except lmdb.ReadersFullError:
                raise ResourceExhausted(
                    f"expected fewer than {READER_SLOTS} readers of {self.folder}, found the table full; close some"
                ) from None

    def child(self, parent: Any) -> Any:
        """Begin a nested write transaction that can fail alone."""
        return self._env.begin(write=True, buffers=True, parent=parent)

    def check_ids(self) -> None:
        """Check the structure of the ids tree once, before its first use by this process."""
        if not self._ids_checked:
            self._raise_damage(pages.check_tree(self.folder / DATA_FILE, "ids"))
            self._ids_checked = True

    def check_free_pages(self) -> None:
        """Check once, before the first write, that no free page is in use: LMDB would overwrite it."""
        if not self._free_checked:
            self._raise_damage(pages.check_trees(self.folder / DATA_FILE, free_pages=True))
            self._free_checked = self._ids_checked = True

    def _raise_damage(self, damage: list[pages.Damage]) -> None:
        if damage:
            raise Corrupt(
                f"{self.folder / DATA_FILE} is damaged at {damage[0].where}: {damage[0].what}; restore a backup"
            )

    def clear_dead_readers(self) -> int:
        """Free the reader slots of processes that ended; returns how many."""
        return int(self._env.reader_check())

    @property
    def data_file(self) -> Path:
        """The mapped file."""
        return self.folder / DATA_FILE

    def used_bytes(self) -> int:
        """Bytes up to the last page LMDB has used."""
        return (int(self._env.info()["last_pgno"]) + 1) * 4096

    def sync(self) -> None:
        """Flush everything committed to the disk."""
        with translated(self.folder):
            self._env.sync(True)

    def copy(self, folder: Path) -> None:
        """Write a compact copy into an existing folder and flush it."""
        with translated(folder):
            self._env.copy(str(folder), compact=True)
        with open(folder / DATA_FILE, "rb") as file:
            os.fsync(file.fileno())
        sync_folder(folder)

    def close(self) -> None:
        """Unmap the file; nothing may hold a view any more."""
        self._env.close()


def _lockable(folder: Path) -> bool:
    lock = folder / "lock.mdb"
    if os.access(lock, os.W_OK) if lock.exists() else os.access(folder, os.W_OK):
        return True
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    raise PermissionDenied(
        f"reading needs write permission on {lock}, where readers register; "
        "grant it, or put the files on a read-only medium"
    )


def make_folder(folder: Path, where: Path | None = None) -> None:
    """Make a folder and those above it, inside :func:`translated`; ``where`` is its name in a message."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise PermissionDenied(
            f"the system makes no folder {where or folder}; choose a path that can be written"
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def translated(where: object) -> Iterator[None]:
    """Turn LMDB's and the system's errors into Gingham's."""
    try:
        yield
    except GinghamError:
        raise
    except lmdb.MapFullError as error:
        raise StoreFull(
            f"{where} has reached its size cap and nothing was written; delete rows, compact, or raise max_size"
        ) from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError) as error:
        raise Corrupt(f"LMDB found {where} damaged ({error}); run verify() or restore a backup") from error
    except (lmdb.Error, OSError) as error:
        _raise_system(where, error)


def _raise_system(where: object, error: Exception) -> None:
    text = str(error)
    code = getattr(error, "errno", None) or next((c for c in _TOLD if os.strerror(c) in text), None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (code == errno.EIO and _nearly_full(where)):
        raise StoreFull(
            f"the disk of {where} is full and nothing was written; free some space and repeat the call"
        ) from error
    if code == errno.EIO:
        raise Unavailable(f"the disk of {where} reports an input/output error and nothing was written") from error
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise PermissionDenied(f"the system refuses access to {where}; check its owner and permissions") from error
    if code == errno.ENOENT:
        raise NotFound(f"expected files at {where}, found nothing there; check the path") from error
    if code in (errno.ENOTDIR, errno.EISDIR):
        raise NotAStore(f"a part of {where} is a file where a folder is expected, or the reverse; check it") from error
    if code in (errno.ENAMETOOLONG, errno.ELOOP):
        raise InvalidArgument(f"the system cannot use the path {where} ({error}); choose another") from error
    if "already open in this process" in text:
        raise NotReady(f"{where} is still in use in this process; wait until the searches in it have ended") from error
    if isinstance(error, OSError):
        raise Unavailable(f"the system refuses to use {where} ({error}); repeat the call later") from error
    raise error


def _nearly_full(where: object) -> bool:
    """Whether a short write, which LMDB reports as an input/output error, was one for want of space."""
    folder = Path(str(where))
    disk = os.statvfs(folder)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max((p.stat().st_size for p in folder.glob("*.mdb")), default=0)
    return disk.f_bavail * disk.f_frsize < _LITTLE_BYTES or (
        limit != resource.RLIM_INFINITY and limit - largest < _LITTLE_BYTES
    )
