"""How a search went: a tree of steps with time, rows and the reason of each choice."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


@dataclass
class Step:
    """One step of a search.

    Attributes
    ----------
    name : what was done
    detail : what was chosen and why
    seconds : time taken, the steps below included
    rows : rows looked at by a leaf, rows handed on by any other step
    steps : the steps it consists of
    """

    name: str
    detail: str = ""
    seconds: float = 0.0
    rows: int = 0
    steps: list[Step] = field(default_factory=list)

    def lines(self, first: str = "", rest: str = "") -> Iterator[tuple[str, Step]]:
        """Each step with the branch of the tree that leads to it."""
        yield first + self.name, self
        for number, step in enumerate(self.steps):
            last = number == len(self.steps) - 1
            yield from step.lines(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


@dataclass(frozen=True)
class Explanation:
    """The steps of a search; prints as a tree."""

    root: Step

    def __str__(self) -> str:
        lines = list(self.root.lines())
        width = max(len(name) for name, _ in lines)
        return "\n".join(
            f"{name:<{width}} {step.seconds * 1e3:10.3f} ms {step.rows:>11,} rows   {step.detail}".rstrip()
            for name, step in lines
        )


class _Timed:
    """A block that a step takes; a generator in its place costs microseconds."""

    __slots__ = ("_open", "_started", "_step")

    def __init__(self, open_steps: list[Step], step: Step) -> None:
        self._open = open_steps
        self._step = step

    def __enter__(self) -> Step:
        self._open[-1].steps.append(self._step)
        self._open.append(self._step)
        self._started = time.perf_counter()
        return self._step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step.seconds = time.perf_counter() - self._started
        self._open.pop()


class Trace:
    """Collects steps while a search runs."""

    def __init__(self, name: str) -> None:
        self.root = Step(name)
        self._open = [self.root]
        self._started = time.perf_counter()

    def step(self, name: str, detail: str = "") -> _Timed:
        """Time a step; steps begun inside it are its parts."""
        return _Timed(self._open, Step(name, detail))

    def finish(self, rows: int) -> Explanation:
        """The whole tree."""
        self.root.seconds = time.perf_counter() - self._started
        self.root.rows = rows
        return Explanation(self.root)
