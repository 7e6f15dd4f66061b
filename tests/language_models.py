"""Language models that answer what tests tell them to, and texts to find by them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import gingham as gg
from gingham.embed import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable

EMBEDDER = HashingEmbedder(dim=256)
SUBJECTS = {
    "glacier": "Ice that moves slowly downhill carves valleys and leaves moraines behind",
    "violin": "A bow drawn over four strings makes the wooden body resonate",
    "tariff": "A levy on imported goods raises prices for consumers at home",
    "enzyme": "Proteins that speed up reactions in cells lower the activation energy",
    "comet": "A tail of dust points away from the sun when frozen gas evaporates",
    "sourdough": "Wild yeast and lactic bacteria raise the dough over many hours",
    "chess": "White opens with the queen pawn and offers the bishop pawn next",
    "monsoon": "Seasonal winds bring heavy rain to the coast each summer",
    "lighthouse": "A lens turns the beam so that ships see it from far away",
    "vaccine": "Weakened germs train antibodies before the real infection comes",
    "bridge": "Steel cables hang from towers and carry the deck over the strait",
    "orchid": "Flowers imitate insects so that pollinators visit them",
}
QUESTIONS = [f"what about question number {i}" for i in range(len(SUBJECTS))]
GOLD = dict(zip(QUESTIONS, SUBJECTS.values(), strict=True))
NOISE = "Nothing of this has to do with anything that was asked for today or tomorrow"


@dataclass
class Fake:
    """A model that answers each prompt with what it is told to, and counts."""

    answer: Callable[[str, int], Any]
    name: str = ""
    calls: int = 0
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or f"fake {id(self)} {time.monotonic_ns()}"

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> Any:
        self.calls += 1
        self.prompts.append(prompt)
        return self.answer(prompt, n)


def knowing() -> Fake:
    """A model that knows the passage of each question."""
    return Fake(lambda prompt, n: [next(gold for question, gold in GOLD.items() if f"{question}\n" in prompt)] * n)


def says(*texts: Any) -> Fake:
    return Fake(lambda prompt, n: list(texts))


def raises(error: Exception) -> Fake:
    def answer(prompt: str, n: int) -> Any:
        raise error

    return Fake(answer)


@dataclass(eq=False)
class Long:
    """An embedder of vectors as long as their texts, which tells queries from documents."""

    name: str = "long"
    revision: str = "1"
    dim: int = 2
    texts: int = 0

    def embed_documents(self, texts: Any) -> Any:
        self.texts += len(texts)
        return np.array([[len(text), 0] for text in texts], np.float32)

    def embed_queries(self, texts: Any) -> Any:
        self.texts += len(texts)
        return np.array([[0, len(text)] for text in texts], np.float32)


def failures() -> dict[str, Fake]:
    return {
        "raises": raises(RuntimeError("no memory")),
        "nothing": says(),
        "empty": says("", " "),
        "none": Fake(lambda prompt, n: None),
        "a text": Fake(lambda prompt, n: "text"),
        "numbers": says(1, 2),
        "a failure of ours": raises(gg.errors.DeadlineExceeded("too slow")),
    }
