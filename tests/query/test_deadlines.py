"""Searches give up when their time is over, and leave the store as it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import fuse, match, near
from gingham.errors import DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gg.Collection]:
    rng, words = np.random.default_rng(0), np.array([f"w{i}" for i in range(50)])
    with gg.open(tmp_path_factory.mktemp("big") / "db") as db:
        docs = db.create_collection(
            "big",
            fields={"body": gg.Text(bm25=True, positions=True)},
            vectors={"dense": gg.Dense(256, dtype="float16")},
        )
        for start in range(0, 60_000, 10_000):
            texts = [" ".join(row) for row in rng.choice(words, (10_000, 8))]
            vectors = rng.standard_normal((10_000, 256), dtype=np.float32)
            docs.upsert(ids=list(range(start, start + 10_000)), vectors={"dense": vectors}, fields={"body": texts})
        yield docs


@pytest.mark.parametrize(
    "call",
    [
        lambda docs: docs.search(np.ones((4000, 256)), timeout=0.02),
        lambda docs: docs.search(np.ones(256), k=None, radius=-1.0, timeout=1e-5),
        lambda docs: docs.search([" ".join(f"w{i}" for i in range(40))] * 3000, using="body", timeout=0.02),
        lambda docs: docs.query([fuse(near("dense", np.ones(256)), match("body", "w1 w2"))] * 500, timeout=0.02),
        lambda docs: docs.query(near("dense", np.ones(256)).diversify(0.5).limit(20_000), timeout=0.2),
        lambda docs: docs.query(match("body", "word " * 60_000), timeout=0.001),
        lambda docs: docs.query(match("body", "w1 w2", op="phrase"), timeout=0.0005),
        lambda docs: docs.query(match("body", " ".join(f"wx{i}" for i in range(300)), op="fuzzy"), timeout=0.0005),
        lambda docs: docs.facets("body", query=match("body", "w1"), timeout=1e-5),
    ],
)
def test_a_search_ends_soon_after_its_time(big: gg.Collection, call: Any) -> None:
    big.search("w1", using="body")
    started = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match="timeout"):
        call(big)
    assert time.perf_counter() - started < 1.0
    assert len(big.search(np.ones(256), timeout=60)) == 10


def test_a_timeout_that_is_no_time_is_refused(big: gg.Collection) -> None:
    for wrong in (0, -1, float("nan"), "soon"):
        with pytest.raises(InvalidArgument, match="timeout"):
            big.search(np.ones(256), timeout=wrong)
