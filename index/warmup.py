"""Compiling kernels: in the background while NumPy answers, or at once when asked."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

KERNEL_MODULES = (
    "gingham.codecs.float_kernels",
    "gingham.index.inverted_kernels",
    "gingham.codecs.affine_kernels",
    "gingham.codecs.scalar_kernels",
    "gingham.codecs.rotation_kernels",
    "gingham.codecs.kmeans_kernels",
    "gingham.codecs.table_kernels",
)
"""Modules whose import compiles their kernels, or loads them from the cache."""

_lock = threading.Lock()
_ready = threading.Event()
_thread: threading.Thread | None = None


def ready_kernels(name: str) -> ModuleType | None:
    """A kernel module, or None while it is being compiled; the first call starts that."""
    global _thread
    if _ready.is_set():
        return sys.modules[name]
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_import_all, name="gingham-compile", daemon=True)
            _thread.start()
    return None


def warmup(progress: Callable[[str], None] | None = None) -> int:
    """Compile every kernel, or load it from the cache; returns the number of kernel modules.

    Parameters
    ----------
    progress : called with the name of each module before it is compiled
    """
    for name in KERNEL_MODULES:
        if progress is not None:
            progress(name)
        importlib.import_module(name)
    _ready.set()
    return len(KERNEL_MODULES)


def _import_all() -> None:
    warmup()


def _finish_before_fork() -> None:
    """Wait for a compilation that runs: a child cannot end an import that a thread of its parent began."""
    if _thread is not None and _thread is not threading.current_thread():
        _thread.join()


os.register_at_fork(before=_finish_before_fork)
