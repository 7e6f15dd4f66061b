"""The async twin of a database, made at import from the sync classes, so that there is one definition of each.

- A public method is a coroutine function of the same signature; it runs in a thread, in a copy of the caller's
  context (deadlines of :func:`gingham.deadline.within` hold there).
- A method that returns an iterator is an async generator, which pulls items in one thread of its own; wrong
  arguments are refused at the first item. ``contextlib.aclosing`` ends it where the loop over it is left early.
- A method that returns a context manager gives an :class:`Opening`: ``await db.snapshot()`` or
  ``async with db.snapshot() as s``.
- Properties, ``db[name]``, ``name in db`` and iterating over names stay sync: they look at records already
  decoded, a matter of microseconds. ``len(docs)`` has no twin; await ``docs.count()``.
- Cancelling the awaiting task stops the work at its next check, at most some 50 ms later; CancelledError is
  raised once the thread has let go of its session, so the database may be closed right after. A write that was
  cancelled is in the store as a whole or not at all, and which of both is unknown.

Calls of one snapshot run one after the other in a thread of the snapshot's, since a snapshot is locked while it is
read, by a scan from its first item to its last. What can be asked of a snapshot without awaiting is read when it
is taken, so that no search of it ever holds the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gingham import deadline
from gingham.collection import Collection
from gingham.database import Database, Snapshot
from gingham.errors import GinghamError
from gingham.transaction import Transaction, TransactionCollection
from gingham.view import CollectionView

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

T = TypeVar("T")

WORKERS = 32
"""Threads of all calls of the process, started as they are needed; further calls wait in line. More than cores,
since writes wait for the disk and share a sync; searches are spread over the cores by `parallel` as ever."""
PULL_ITEMS = 256
PULL_SECONDS = 0.005
"""Items fetched by one change of threads (50 us) stop at this number or time, whichever comes first."""

SYNC = (CollectionView, Collection, TransactionCollection, Snapshot, Transaction, Database)
"""Classes that have a twin, parents first."""
LOOKUPS = ("__getitem__", "__contains__", "__iter__")
TWINS: dict[type, type[Twin]] = {}
_NOTHING: Mapping[str, Any] = MappingProxyType({})

Kind = Literal["call", "iterate", "open", "lookup", "property"]


class _Threads(Executor):
    """A thread pool that the child of a fork replaces by its own."""

    def __init__(self, threads: int, name: str) -> None:
        self.threads, self._name = threads, name
        self._pid = 0
        self._pool: ThreadPoolExecutor

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._pid != os.getpid():
            self._pool, self._pid = ThreadPoolExecutor(self.threads, thread_name_prefix=self._name), os.getpid()
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._pid == os.getpid():
            self._pool.shutdown(wait, cancel_futures=cancel_futures)


_shared = _Threads(WORKERS, "gingham-async")


class _Work:
    """What one task has done in threads, one call after the other, in one context."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._scope = deadline.CancelScope()
        self._context = contextvars.copy_context()
        self._context.run(self._scope.bind)

    async def run(self, work: Callable[[], T], *, closing: bool = False) -> T:
        """Run in a thread; CancelledError is raised when the thread is done. ``closing`` work runs in any case."""
        thread = self._executor.submit(self._context.run, work)
        done = asyncio.wrap_future(thread)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            self._scope.cancel()
            if not closing:
                thread.cancel()
            await _ended(done)
            if not done.cancelled() and done.exception() is None:
                await self._give_back(done.result())
            raise
        finally:
            if not done.done():
                self._scope.cancel()

    async def _give_back(self, value: object) -> None:
        """Close what nobody will receive."""
        close = getattr(value._sync, "close", None) if isinstance(value, Twin) else None
        if close is not None:
            await _ended(asyncio.wrap_future(self._executor.submit(close)))


async def _ended(done: asyncio.Future[Any]) -> None:
    """Wait for a thread even where the task is cancelled again: the first cancellation is about to be raised."""
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([done])


class Opening(Coroutine[Any, Any, T]):
    """Await it for the object, or enter it with ``async with``, which closes the object at the end."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._opened: Any = None

    def send(self, value: Any) -> Any:
        """Go on; part of being a coroutine."""
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:
        """Raise inside; part of being a coroutine."""
        return self._work.throw(kind if value is None else value)

    def close(self) -> None:
        """Give up; part of being a coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._work
        entered: T = await self._opened.__aenter__()
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)


class Twin:
    """Base of the twins.

    Parameters
    ----------
    sync : the object that does the work; both may be used at the same time
    executor : threads to work in; None takes those that all twins share
    """

    def __init__(self, sync: Any, executor: Executor | None = None) -> None:
        self._sync = sync
        self._executor: Executor = executor or _shared
        self._known: dict[str, Any] = {}
        self._views: dict[str, Twin] | None = None
        if isinstance(sync, Snapshot):
            self._executor = _Threads(1, "gingham-snapshot")
            self._known = _properties(self)
            self._views = {name: _twin_of(sync[name], self._executor) for name in sync.collections()}
            for view in self._views.values():
                view._known = _properties(view)

    def __repr__(self) -> str:
        # The sync object's would open a session, and a snapshot may be locked.
        return f"<{type(self).__name__} at {id(self):#x}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._sync, name)

    async def _call(self, name: str, args: Any = (), kwargs: Any = _NOTHING, *, closing: bool = False) -> Any:
        def work() -> Any:
            return _twin_of(getattr(self._sync, name)(*args, **kwargs), self._executor)

        return await _Work(self._executor).run(work, closing=closing)

    async def _stream(self, name: str, args: Any, kwargs: Any) -> AsyncGenerator[Any, None]:
        # One thread and one context from first to last: the iterator may hold a lock or a context variable.
        pinned = isinstance(self._executor, _Threads) and self._executor.threads == 1
        threads = self._executor if pinned else _Threads(1, "gingham-scan")
        work = _Work(threads)
        try:
            iterator = await work.run(lambda: iter(getattr(self._sync, name)(*args, **kwargs)))
            try:
                while items := await work.run(lambda: _some(iterator)):
                    for item in items:
                        yield item
            finally:
                await work.run(getattr(iterator, "close", lambda: None), closing=True)
        finally:
            if not pinned:
                threads.shutdown(wait=False)


def _some(iterator: Iterator[T]) -> list[T]:
    deadline.check()
    until = time.monotonic() + PULL_SECONDS
    items: list[T] = []
    for item in iterator:
        items.append(item)
        if len(items) == PULL_ITEMS or time.monotonic() >= until:
            break
    return items


def _twin_of(value: Any, executor: Executor) -> Any:
    """The twin of a sync object; any other value as it is."""
    twin = next((TWINS[cls] for cls in type(value).__mro__ if cls in TWINS), None)
    return value if twin is None else twin(value, executor)


def _properties(twin: Twin) -> dict[str, Any]:
    """Values of the properties, or what reading them raised."""
    values: dict[str, Any] = {}
    for name, member in inspect.getmembers_static(type(twin)):
        if isinstance(member, property):
            try:
                values[name] = getattr(twin._sync, name)
            except GinghamError as error:
                values[name] = error
    return values


# generation -----------------------------------------------------------------------------------------


def members(cls: type) -> dict[str, Any]:
    """What the twin of a class defines: public members and lookups that no twinned parent has."""
    known = next((parent for parent in cls.__mro__[1:] if parent in SYNC), object)
    found: dict[str, Any] = {}
    for parent in reversed([parent for parent in cls.__mro__ if parent not in known.__mro__]):
        found |= {name: value for name, value in vars(parent).items() if name[0] != "_" or name in LOOKUPS}
    return {name: value for name, value in found.items() if inspect.isfunction(value) or _is_property(value)}


def _is_property(value: object) -> bool:
    return isinstance(value, (property, functools.cached_property))


def kind_of(member: Any) -> Kind:
    """What becomes of a member, told by its return annotation."""
    if _is_property(member):
        return "property"
    if member.__name__ in LOOKUPS:
        return "lookup"
    returns = str(member.__annotations__.get("return", ""))
    if returns.startswith(("Iterator[", "Generator[")):
        return "iterate"
    return "open" if any(cls.__name__ == returns and hasattr(cls, "__exit__") for cls in SYNC) else "call"


def annotation_of(kind: Kind, returns: str) -> str:
    """Return annotation of a twin's member, from that of the sync member."""
    names = "|".join(cls.__name__ for cls in SYNC)
    returns = re.sub(rf"\b({names})\b", r"Async\1", returns)
    if kind == "iterate":
        return re.sub(r"^(Iterator|Generator)\[(.*)\]$", r"AsyncGenerator[\2]", returns)
    return f"Opening[{returns}]" if kind == "open" else returns


def _twin_class(cls: type) -> type[Twin]:
    base = next((TWINS[parent] for parent in cls.__mro__[1:] if parent in TWINS), Twin)
    body: dict[str, Any] = {"__doc__": f"Async twin of :class:`gingham.{cls.__name__}`: {cls.__doc__}"}
    for name, member in members(cls).items():
        kind = kind_of(member)
        body[name] = _MAKERS[kind](name) if kind != "property" else property(_reading(name), doc=member.__doc__)
        if kind != "property":
            body[name] = _signed(body[name], member, kind)
    if hasattr(cls, "__exit__"):
        body |= {"__aenter__": _enter, "__aexit__": _exit}
    return type(f"Async{cls.__name__}", (base,), {**body, "__module__": __name__})


def _signed(made: Callable[..., Any], member: Any, kind: Kind) -> Callable[..., Any]:
    functools.update_wrapper(made, member)
    signature = inspect.signature(member)
    returns = annotation_of(kind, str(signature.return_annotation))
    made.__annotations__ = {**member.__annotations__, "return": returns}
    made.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
    return made


def _reading(name: str) -> Callable[[Twin], Any]:
    def read(self: Twin) -> Any:
        value = self._known[name] if name in self._known else getattr(self._sync, name)
        if isinstance(value, GinghamError):
            raise value
        return value

    return read


def _looking(name: str) -> Callable[..., Any]:
    def look(self: Twin, *args: Any) -> Any:
        find = getattr(self._sync, name)
        if self._views is None:
            return _twin_of(find(*args), self._executor)
        # Names that no collection has: the sync object says so, in the one thread that never waits for its lock.
        return self._views[args[0]] if args[0] in self._views else self._executor.submit(find, *args).result()

    return look


def _calling(name: str) -> Callable[..., Any]:
    async def call(self: Twin, *args: Any, **kwargs: Any) -> Any:
        return await self._call(name, args, kwargs, closing=name == "close")

    return call


def _iterating(name: str) -> Callable[..., Any]:
    def iterate(self: Twin, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        return self._stream(name, args, kwargs)

    return iterate


def _opening(name: str) -> Callable[..., Any]:
    def open_(self: Twin, *args: Any, **kwargs: Any) -> Opening[Any]:
        return Opening(self._call(name, args, kwargs))

    return open_


async def _enter(self: Twin) -> Twin:
    self._sync.__enter__()
    return self


async def _exit(self: Twin, kind: Any, error: Any, trace: Any) -> None:
    await self._call("__exit__", (kind, error, trace), closing=True)


_MAKERS: dict[Kind, Callable[[str], Callable[..., Any]]] = {
    "call": _calling,
    "iterate": _iterating,
    "lookup": _looking,
    "open": _opening,
}
for _cls in SYNC:
    TWINS[_cls] = _twin_class(_cls)
AsyncCollectionView = TWINS[CollectionView]
AsyncCollection = TWINS[Collection]
AsyncTransactionCollection = TWINS[TransactionCollection]
AsyncSnapshot = TWINS[Snapshot]
AsyncTransaction = TWINS[Transaction]
AsyncDatabase = TWINS[Database]


def opening(opener: Callable[..., Any], *args: Any, **kwargs: Any) -> Opening[Any]:
    """Open something in a thread and give its twin."""
    return Opening(_Work(_shared).run(lambda: _twin_of(opener(*args, **kwargs), _shared)))
