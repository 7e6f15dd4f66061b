"""Resources that end when they are closed and out of use, counted so that no interrupt falsifies the count.

Ctrl-C strikes between any two steps, also between taking a lock and the block that would give it back. So there
is no lock and no counter on the way of a read: a use is an object, its resource knows it weakly, and a use that
nobody holds any more has ended, whoever forgot it. Beginning is "enter, then look whether it is closed", closing
is "mark closed, then look whether anyone is in": whichever comes second sees the other.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from gingham.storage.session import KeptCache, Shared

if TYPE_CHECKING:
    from gingham.storage.environment import Environment

T = TypeVar("T")

POLL_SECONDS = 0.001
"""Pause between two looks at what others do; a lock to wait on would be left taken by an interrupt."""


class Weakly(Generic[T]):
    """A set that does not keep its members alive; adding and discarding are single steps."""

    def __init__(self) -> None:
        self._refs: set[weakref.ref[T]] = set()

    def add(self, member: T) -> None:
        """Take a member up."""
        self._refs.add(weakref.ref(member, self._refs.discard))

    def discard(self, member: T) -> None:
        """Remove a member; it may be absent."""
        self._refs.discard(weakref.ref(member))

    def members(self) -> list[T]:
        """Members that are alive."""
        return [member for ref in self._refs.copy() if (member := ref()) is not None]


class Flag:
    """An event of threading without the lock that an interrupt in it would leave taken."""

    def __init__(self) -> None:
        self._set = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Raise the flag and wake the thread that waits for it."""
        self._set = True
        self._bell.put(None)

    def clear(self) -> None:
        """Lower the flag."""
        self._set = False
        with contextlib.suppress(queue.Empty):
            while True:
                self._bell.get_nowait()

    def is_set(self) -> bool:
        """Whether it is up."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait until it is up, at most so long; returns whether it is."""
        if not self._set:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=seconds)
        return self._set


class Use:
    """One use of a resource; it lasts until it is given back or dropped."""

    __slots__ = ("__weakref__", "pinned", "resource")

    def __init__(self, resource: Resource, *, pinned: bool) -> None:
        self.resource = resource
        self.pinned = pinned


class Resource:
    """Something that ends once it is closed and nobody uses it; see the head of the module."""

    def __init__(self) -> None:
        self.closed = False
        self.ended = False
        self._ending = threading.Lock()
        self._uses: Weakly[Use] = Weakly()

    def enter(self, *, pinned: bool = False) -> Use | None:
        """Begin a use, one that may outlive the call that began it where ``pinned``; None where it is closed."""
        use = Use(self, pinned=pinned)
        self._uses.add(use)
        if self.closed:
            self.leave(use)
            return None
        return use

    def leave(self, use: Use) -> None:
        """End a use."""
        self._uses.discard(use)
        self._end_if_unused()

    def close(self) -> None:
        """Refuse new uses; what is in use ends with its last one."""
        self.closed = True
        self._end_if_unused()

    def in_use(self, *, pinned: bool = True) -> bool:
        """Whether there are uses, those that may outlive their call included."""
        return any(pinned or not use.pinned for use in self._uses.members())

    def wait(self, seconds: float, *, pinned: bool = True) -> bool:
        """Wait until nobody uses it; False where that took longer."""
        deadline = time.monotonic() + seconds
        while self.in_use(pinned=pinned):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        self._end_if_unused()
        return True

    def _end_if_unused(self) -> None:
        if self.closed and not self.ended and not self.in_use():
            with self._ending:
                if not self.ended:
                    self._end()
                    self.ended = True

    def _end(self) -> None:
        """Release what is behind it."""
        raise NotImplementedError


@dataclass(eq=False)
class Mapped(Resource):
    """A mapped generation.

    Attributes
    ----------
    named : CURRENT is known to name it
    """

    env: Environment
    name: str
    named: bool
    shared: Shared = field(default_factory=lambda: Shared(-1))
    kept: KeptCache = field(default_factory=KeptCache)

    def __post_init__(self) -> None:
        super().__init__()

    def _end(self) -> None:
        self.env.close()
