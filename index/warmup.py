"""Making kernels ready: behind the answers of NumPy, or at once when asked.

1. The first search asks for its kernel module and is answered by NumPy. A thread loads the module from the cache.
2. What the cache lacks is compiled by a child process of low priority, since compiling holds the interpreter's lock
   for tens of milliseconds at a time. The child goes on to the modules that nobody asked for yet.
3. Once the child names a module, the thread loads it. The child ends at the first module that it cannot report, so it
   outlives its parent by one module at most.
4. Where no child can be started, or the cache cannot be written, the thread compiles.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

KERNEL_MODULES = (
    "gingham.codecs.float_kernels",
    "gingham.index.inverted_kernels",
    "gingham.codecs.affine_kernels",
    "gingham.codecs.scalar_kernels",
    "gingham.codecs.rotation_kernels",
    "gingham.codecs.kmeans_kernels",
    "gingham.codecs.table_kernels",
    "gingham.codecs.fast_scan_kernels",
    "gingham.codecs.hamming_kernels",
    "gingham.codecs.projection_kernels",
    "gingham.codecs.byte_table_kernels",
    "gingham.codecs.maxsim_kernels",
    "gingham.index.list_kernels",
    "gingham.index.token_search_kernels",
    "gingham.codecs.pooling_kernels",
    "gingham.index.graph_kernels",
    "gingham.index.graph_build_kernels",
)
"""Modules whose import compiles their kernels, or loads them from the cache; the first are compiled first."""
NICE = 10
PATIENCE_SECONDS = 2.0

_lock = threading.Lock()
"""Held while what follows is looked at or changed."""
_ready: set[str] = set()
_wanted: list[str] = []
_failed: set[str] = set()
"""Modules whose import raised in the thread, which reported it: NumPy goes on answering, and nothing is tried again."""
_thread: threading.Thread | None = None
_tried = False
"""Whether :func:`load_cached` was called."""
_importing = threading.RLock()
"""Held while kernels are imported: the child of a fork cannot end an import that a thread of its parent began."""


def ready_kernels(name: str) -> ModuleType | None:
    """A kernel module, or None while it is being loaded or compiled; the first call for a module starts that."""
    global _thread
    if name in _ready:
        return sys.modules[name]
    with _lock:
        if name in _ready or name in _failed:
            return None
        if name not in _wanted:
            _wanted.append(name)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_make_ready, name="gingham-kernels", daemon=True)
            _thread.start()
    return None


def all_ready() -> bool:
    """Whether every kernel module is loaded; the first call starts what is missing."""
    return _ready.issuperset(KERNEL_MODULES) or None not in [ready_kernels(name) for name in KERNEL_MODULES]


def load_cached() -> bool:
    """Whether every kernel module is loaded, once this has loaded from the cache what is there; tried once.

    Notes
    -----
    Half a second to a second. It waits no longer than :data:`PATIENCE_SECONDS` for a thread that compiles.
    """
    global _tried
    with _lock:
        if _tried:
            return _ready.issuperset(KERNEL_MODULES)
        _tried = True
    if not _importing.acquire(timeout=PATIENCE_SECONDS):
        return False
    try:
        for name in KERNEL_MODULES:
            if name not in _ready and not _is_cached(name):
                return False
            _import(name)
    finally:
        _importing.release()
    return True


def warmup(progress: Callable[[str], None] | None = None) -> int:
    """Compile every kernel, or load it from the cache; returns the number of kernel modules.

    Parameters
    ----------
    progress : called with the name of each module before it is compiled
    """
    for name in KERNEL_MODULES:
        if progress is not None:
            progress(name)
        _import(name)
    return len(KERNEL_MODULES)


def _import(name: str) -> None:
    with _importing:
        importlib.import_module(name)
    with _lock:
        _ready.add(name)
        if name in _wanted:
            _wanted.remove(name)


def _is_cached(name: str) -> bool:
    """Load a module unless a kernel of it would have to be compiled."""
    with _importing:
        cache = importlib.import_module("gingham.codecs.kernel_cache")
        try:
            with cache.only_cached():
                importlib.import_module(name)
        except cache.KernelNotCachedError:
            return False
    return True


def _make_ready() -> None:
    """Make ready what is wanted, until nothing is wanted and no child compiles any more."""
    global _thread
    child: _Child | None = None
    while True:
        with _lock:
            name = _wanted[0] if _wanted else None
            if name is None and child is None:
                _thread = None
                return
        if name is None:
            assert child is not None
            child = child if child.next() else None
            continue
        try:
            child = _load(name, child)
        except BaseException:
            with _lock:
                _wanted[:] = [other for other in _wanted if other != name]
                _failed.add(name)
            raise


def _load(name: str, child: _Child | None) -> _Child | None:
    """Make one module ready; returns the child that goes on, if there is one."""
    if not _is_cached(name):
        child = child or _Child.start(name)
        while child is not None and name not in child.done:
            child = child if child.next() else None
    _import(name)
    return child


class _Child:
    """A process that compiles modules into the cache and names each on its standard output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.done: set[str] = set()

    @classmethod
    def start(cls, first: str) -> _Child | None:
        """Start it with one module first; None where that cannot work."""
        python = sys.executable or ""
        # In an application that embeds Python, or that was frozen, it is the application.
        if getattr(sys, "frozen", False) or not Path(python).name.lower().startswith("python"):
            return None
        folder = importlib.import_module("gingham.codecs.jit").CACHE_FOLDER
        if folder is None or not importlib.import_module("gingham.codecs.kernel_cache").can_write(folder):
            return None
        names = [first, *(name for name in KERNEL_MODULES if name not in {first, *_ready})]
        path = [entry for entry in sys.path if isinstance(entry, str)]
        call = "from gingham.index.warmup import _fill_cache; _fill_cache(*sys.argv[1:])"
        try:
            process = subprocess.Popen(
                [python, "-c", f"import sys; sys.path[:] = {path!r}; {call}", str(folder), *names],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
        except OSError:
            return None
        return cls(process)

    def next(self) -> bool:
        """Wait for the next module; False once the child has ended."""
        assert self.process.stdout is not None
        name = self.process.stdout.readline().strip()
        if name:
            self.done.add(name)
            return True
        self.process.stdout.close()
        self.process.wait()
        return False


def _fill_cache(folder: str, *names: str) -> None:
    """What the child does."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    for name in names:
        with _alone(Path(folder)):
            importlib.import_module(name)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process compile at a time: of many that start together, the others load what it made."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(held.enter_context((folder / ".lock").open("w")), fcntl.LOCK_EX)
        yield


def _hold_imports() -> None:
    _importing.acquire()
    _lock.acquire()


def _go_on() -> None:
    _lock.release()
    _importing.release()


def _begin_anew() -> None:
    global _thread
    _thread = None
    _go_on()


# What is registered later runs earlier: logging would hold its lock while an import, which may log, is waited for.
importlib.import_module("concurrent.futures.thread")
os.register_at_fork(before=_hold_imports, after_in_parent=_go_on, after_in_child=_begin_anew)
