"""Compiled kernels kept between processes, in one folder of the user's for each version of the shared sources.

numba's own cache knows a kernel by the file it stands in: a function inlined from another file could change unnoticed.
It also writes beside the sources where it can, refuses folders that it can only read, and lets a full disk or a
damaged file end the import. So kernels have a cache of their own, one file each:

1. the folder's name stands for the sources that kernels inline from, for numba and llvmlite, and for the lowering;
2. the file's name stands for the kernel's own source, its signature, Python, and the CPU it was compiled for;
3. the file starts with the SHA-256 of the rest; a file that does not match is compiled anew;
4. it is written under another name and renamed, so that readers see whole files and writers need no lock.

A folder that cannot be written is read all the same, and what is missing is compiled for this process only.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
from numba.core import compiler, config, serialize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARED_SOURCES = (
    "affine_row_kernels.py",
    "beam_kernels.py",
    "fast_scan_kernels.py",
    "float_kernels.py",
    "float_row_kernels.py",
    "intrinsics.py",
    "jit.py",
    "kernel_cache.py",
    "maxsim_intrinsics.py",
    "reservoir_kernels.py",
    "rotation_kernels.py",
    "scalar_kernels.py",
    "topk_kernels.py",
    "wide_intrinsics.py",
)
"""Files of this folder whose functions stand inside the kernels of other files, or that decide how those are kept."""
KEPT_FOLDERS = 16
"""Folders that stay when a new one is made, the last used; all kernels take some megabytes."""
_DIGEST = hashlib.sha256().digest_size

_asked = threading.local()


class KernelNotCachedError(ImportError):
    """A kernel would have to be compiled where only loading was asked for."""


@contextlib.contextmanager
def only_cached() -> Iterator[None]:
    """In this thread and block a kernel that is not in the cache raises :class:`KernelNotCachedError`."""
    _asked.only_cached = True
    try:
        yield
    finally:
        _asked.only_cached = False


def cache_folder(lowering: str) -> Path | None:
    """The folder of these sources: ``<base>/gingham/<version>/kernels-<hash>-<lowering>``.

    The base is NUMBA_CACHE_DIR, else where the platform keeps caches. Nothing is created; None without base or sources.

    Parameters
    ----------
    lowering : "avx2" or "portable", since one never loads what was compiled for the other
    """
    base = _base()
    content = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    try:
        for name in SHARED_SOURCES:
            content.update(Path(__file__).with_name(name).read_bytes())
    except OSError:
        return None
    # By name: the root imports every layer lazily, and an import from it would turn the layers upside down.
    version = import_module("gingham").__version__
    return base and base / "gingham" / version / f"kernels-{content.hexdigest()[:16]}-{lowering}"


def _base() -> Path | None:
    chosen = config.CACHE_DIR  # type: ignore[attr-defined]
    if chosen:
        return Path(chosen).absolute()
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        place = os.path.expanduser("~/Library/Caches")
    else:
        # The XDG base directory specification ignores a relative path.
        place = os.environ.get("XDG_CACHE_HOME", "")
        place = place if os.path.isabs(place) else os.path.expanduser("~/.cache")
    # A user without a home keeps the tilde.
    return Path(place) if os.path.isabs(place) else None


def can_write(folder: Path) -> bool:
    """Whether files can be put into a folder, which is made where it is missing."""
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _remove_oldest(folder)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _remove_oldest(made: Path) -> None:
    """Remove the folders used longest ago; a process that still loads from one compiles instead."""
    others = [path for path in made.parents[1].glob("*/kernels-*") if path != made]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_FOLDERS - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _used(folder: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(folder)


class KernelCache:
    """What a numba dispatcher asks for compiled code of one function, and gives it to.

    Parameters
    ----------
    function : the function to compile
    folder : of :func:`cache_folder`; None keeps nothing
    """

    def __init__(self, function: Callable[..., Any], folder: Path | None) -> None:
        self._folder = folder
        self._name = f"{function.__module__}.{function.__qualname__}"
        try:
            self._source = Path(function.__code__.co_filename).read_bytes()
        except OSError:
            self._folder = None

    @property
    def cache_path(self) -> str | None:
        """The folder, as ``dispatcher.stats`` shows it."""
        return None if self._folder is None else str(self._folder)

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function for a signature, or None where it has to be compiled."""
        target.refresh()
        path = self._path(signature, target.codegen())
        found = None if path is None else _read(path, target)
        if found is None and getattr(_asked, "only_cached", False):
            raise KernelNotCachedError(f"{self._name} is not in the cache of kernels")
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled function where the folder can be written."""
        path = self._path(signature, compiled.codegen)
        if path is None or compiled.library.has_dynamic_globals or not can_write(path.parent):
            return
        content = serialize.dumps(compiled._reduce())  # type: ignore[no-untyped-call]
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            part.write_bytes(hashlib.sha256(content).digest() + content)
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        if self._folder is None:
            return None
        _used(self._folder)
        key = (self._name, str(signature), sys.implementation.cache_tag, sys.abiflags, codegen.magic_tuple())
        digest = hashlib.sha256(repr(key).encode() + self._source).hexdigest()
        return self._folder / f"{self._name}-{digest[:16]}"


def _read(path: Path, target: Any) -> Any:
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:_DIGEST], stored[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return compiler.CompileResult._rebuild(target, *pickle.loads(content))  # type: ignore[no-untyped-call]
