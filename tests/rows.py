"""Rows that tests of collections begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gingham as gg


def fill(docs: gg.Collection, n: int = 40) -> Any:
    vectors = np.random.default_rng(3).standard_normal((n, 8)).astype(np.float32)
    docs.upsert(
        ids=[f"r{i:03d}" for i in range(n)],
        vectors={"dense": vectors},
        fields={
            "year": [2000 + i % 10 for i in range(n)],
            "lang": ["en", "de"] * (n // 2),
            "tags": [["x"], None] * (n // 2),
        },
    )
    return vectors
