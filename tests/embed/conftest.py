"""A collection that embeds its text, and a model that does not answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import gingham as gg
from language_models import EMBEDDER, SUBJECTS, Fake

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def docs(db: gg.Database) -> gg.Collection:
    made = db.create_collection(
        "texts",
        fields={"body": gg.Text(bm25=True, positions=True), "n": gg.Int()},
        vectors={"dense": gg.Dense(256)},
        embedder=EMBEDDER,
    )
    made.upsert(ids=list(SUBJECTS), fields={"body": list(SUBJECTS.values()), "n": list(range(len(SUBJECTS)))})
    return made


@pytest.fixture
def stuck() -> Iterator[Fake]:
    release = threading.Event()
    yield Fake(lambda prompt, n: release.wait(20) and ["late"])
    release.set()
