"""Fixtures: a database in a temporary folder, small maintenance bounds, warm kernels."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gingham as gg
from kernels import compiled_from_the_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    with compiled_from_the_end():
        gg.warmup()
    # What compiling leaves is looked through by every collection else.
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[gg.Database]:
    with gg.open(tmp_path / "db") as database:
        yield database


@pytest.fixture
def docs(db: gg.Database) -> gg.Collection:
    return db.create_collection(
        "docs",
        fields={"year": gg.Int(), "lang": gg.Keyword(), "title": gg.Text(), "tags": gg.Keyword(many=True)},
        vectors={"dense": gg.Dense(8, "cosine")},
    )


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal, merge and direct segments at a few rows, so that small tests reach them."""
    from gingham.storage import rewrite, writes

    monkeypatch.setattr(rewrite, "SEAL_ROWS", 20)
    monkeypatch.setattr(rewrite, "MERGE_FANOUT", 3)
    monkeypatch.setattr(writes, "SEAL_ROWS", 20)
    monkeypatch.setattr(writes, "SEAL_BATCHES", 4)
    monkeypatch.setattr(writes, "DIRECT_ROWS", 15)
    monkeypatch.setattr(writes, "REWRITE_BYTES", 2000)
