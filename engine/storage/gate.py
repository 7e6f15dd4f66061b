"""File locks that die with their process: the write gate and the maintenance lease.

LMDB has a writer lock of its own, but waiting for it has no time-out and ignores Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from gingham.errors import GinghamError, Locked, PermissionDenied, Unavailable
from gingham.storage.environment import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_SECONDS = (0.0005, 0.02)


@contextlib.contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn what the system says of a lock file into an error of Gingham."""
    try:
        with translated(path.parent):
            yield
    except GinghamError:
        raise
    except OSError as error:
        raise Unavailable(
            f"the system refuses to lock {path} ({error}); repeat the call when that has passed"
        ) from error


class FileLock:
    """An exclusive ``flock`` on a file that holds the pid of its owner."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; raises StoreFull or Unavailable where its file cannot be used."""
        with _typed(self._path):
            if self._fd is None:
                self._fd = self._open()
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise
            try:
                os.pwrite(self._fd, f"{os.getpid():<20d}".encode(), 0)
            except BaseException:
                self.release()
                raise
        return True

    def acquire(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds; raises Locked with the holder's pid."""
        deadline = time.monotonic() + timeout
        pause = _POLL_SECONDS[0]
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                pid = self.holder()
                raise Locked(
                    f"process {pid or 'unknown'} has held the write lock {self._path} for more than "
                    f"{timeout:g} s; wait for it or raise lock_timeout",
                    pid=pid,
                )
            time.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS[1])

    def holder(self) -> int | None:
        """Pid that the file names, or None."""
        if self._fd is None:
            return None
        text = os.pread(self._fd, 20, 0).strip()
        return int(text) if text.isdigit() else None

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; a held lock goes with it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except PermissionError as error:
            raise PermissionDenied(
                f"writing needs write permission on {self._path}; open with mode='r' or change the permissions"
            ) from error
