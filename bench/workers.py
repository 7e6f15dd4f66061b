"""Processes that do what they are asked, one for each contestant of a benchmark."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


class Refused(Exception):
    """What was asked could not be done; the message is that of the worker."""


class Worker:
    """A process with an object, made there by ``make(channel, *given)``, whose methods are its commands.

    Methods may send ``(True, anything)`` to the channel before they return; the object has ``end()``.
    """

    def __init__(self, make: Callable[..., Any], *given: Any) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._channel, theirs = spawning.Pipe()
        self.process = spawning.Process(target=_work, args=(theirs, make, given), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, command: str, **given: Any) -> None:
        """Ask without waiting for the answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send((command, given))

    def answer(self, timeout: float | None = None) -> Any:
        """Next answer.

        Raises
        ------
        TimeoutError : there was none in time
        Refused : the command failed, or the process has ended
        """
        try:
            if not self._channel.poll(timeout):
                raise TimeoutError(f"no answer within {timeout} s")
            worked, found = self._channel.recv()
        except (EOFError, ConnectionResetError):
            raise Refused("the process ended") from None
        if not worked:
            raise Refused(found)
        return found

    def ask(self, command: str, **given: Any) -> Any:
        """Do a command, and wait for the answer."""
        self.begin(command, **given)
        return self.answer()

    def kill(self) -> None:
        """By SIGKILL; what it had answered can still be read."""
        self.process.kill()
        self.process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.begin("quit")
        self.process.join(20)
        self.kill()


def _work(channel: Connection, make: Callable[..., Any], given: tuple[Any, ...]) -> None:
    desk = make(channel, *given)
    with suppress(EOFError):
        while (asked := channel.recv())[0] != "quit":
            try:
                channel.send((True, getattr(desk, asked[0])(**asked[1])))
            except Exception as error:
                channel.send((False, f"{type(error).__name__}: {str(error).strip()[:300]}"))
    desk.end()
