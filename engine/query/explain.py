"""How a search went: a tree of steps with time, rows and the reason of each choice."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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


class Trace:
    """Collects steps while a search runs."""

    def __init__(self, name: str) -> None:
        self.root = Step(name)
        self._open = [self.root]
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[Step]:
        """Time a step; steps begun inside it are its parts."""
        step = Step(name, detail)
        self._open[-1].steps.append(step)
        self._open.append(step)
        started = time.perf_counter()
        try:
            yield step
        finally:
            step.seconds = time.perf_counter() - started
            self._open.pop()

    def finish(self, rows: int) -> Explanation:
        """The whole tree."""
        self.root.seconds = time.perf_counter() - self._started
        self.root.rows = rows
        return Explanation(self.root)
