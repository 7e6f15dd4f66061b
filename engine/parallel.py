"""The one thread pool, and the limit on BLAS threads while our own threads work."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from gingham import deadline
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
U = TypeVar("U")

_lock = threading.Lock()
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None
_controller: Any = None
_limited = 0
_limit: Any = None


def set_threads(threads: int) -> None:
    """Set how many threads a search or a build may use; the default is one per core of the process.

    Raises
    ------
    InvalidArgument : fewer than one
    """
    global _threads, _pool
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidArgument(f"set_threads() expects an integer of at least 1, found {threads!r}")
    with _lock:
        if threads != _threads:
            old, _pool, _threads = _pool, None, threads
            if old is not None:
                old.shutdown(wait=False)


def get_threads() -> int:
    """Threads that a search or a build may use."""
    return _threads


def run_blocks(work: Callable[[T], U], blocks: Sequence[T]) -> list[U]:
    """Apply ``work`` to each block, in the pool where there are several; results in order.

    Raises
    ------
    DeadlineExceeded, Cancelled : checked before each block
    BaseException : the first error of a block; no other block is started, and those that run have ended

    Notes
    -----
    Blocks run in copies of the caller's context, so that ``work`` sees its deadline. They may read mapped
    pages, which the caller unmaps once this returns or raises: nothing may still run then.
    """
    global _pool
    if len(blocks) == 1 or _threads == 1:
        return [_checked(work, block) for block in blocks]
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_threads, thread_name_prefix="gingham")
        pool = _pool
    scope = deadline.CancelScope()
    errors: list[BaseException] = []

    def run(block: T) -> U:
        try:
            return _checked(work, block)
        except BaseException as error:
            errors.append(error)
            scope.cancel()
            raise

    futures: list[Future[U]] = []
    try:
        with scope:
            for block in blocks:
                futures.append(pool.submit(contextvars.copy_context().run, run, block))
        for future in futures:
            future.exception()  # waits; cheaper than wait() by 8 us
        if errors:
            raise errors[0]
        return [future.result() for future in futures]
    except BaseException:  # of a block, or Ctrl-C here
        scope.cancel()
        for future in futures:
            future.cancel()
        wait(futures)
        raise
    finally:
        # An error holds this frame: without it the two free each other only at the next garbage collection.
        errors.clear()
        futures.clear()


def start_thread(thread: threading.Thread) -> None:
    """Start a thread; an interrupt of the wait for its first step comes out as one.

    Notes
    -----
    CPython (3.11) lets a RuntimeError about an unlocked lock stand in its place, though the thread runs.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _checked(work: Callable[[T], U], block: T) -> U:
    deadline.check()
    return work(block)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run BLAS with one thread inside the block; the last of several overlapping blocks restores the user's setting.

    Notes
    -----
    The controller is made once: making one scans the loaded libraries and costs milliseconds.
    """
    global _controller, _limited, _limit
    with _lock:
        if _controller is None:
            from threadpoolctl import ThreadpoolController

            _controller = ThreadpoolController().select(user_api="blas")
        if _limited == 0:
            _limit = _controller.limit(limits=1)
            _limit.__enter__()
        _limited += 1
    try:
        yield
    finally:
        with _lock:
            _limited -= 1
            if _limited == 0:
                _limit.__exit__(None, None, None)
                _limit = None


def _forget_after_fork() -> None:
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None


os.register_at_fork(after_in_child=_forget_after_fork)
