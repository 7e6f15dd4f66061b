"""A collection with every kind of field that most tests of the server are about."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import numpy as np

import gingham as gg

IDS: list[Any] = [1, -(1 << 70), "a", "ü" * 40, uuid.UUID(int=5), b"\x00\xff"]
FIELDS = {
    "year": gg.Int(), "rating": gg.Float(), "ok": gg.Bool(), "lang": gg.Keyword(), "tags": gg.Keyword(many=True),
    "title": gg.Text(bm25=True), "on": gg.Timestamp(), "extra": gg.Json(),
}  # fmt: skip
VECTORS = {"dense": gg.Dense(8), "half": gg.Dense(4, "l2", dtype="float16"), "splade": gg.Sparse()}


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    out: list[dict[str, Any]] = []
    for at, user_id in enumerate(IDS):
        out.append({
            "id": user_id, "year": 2020 + at, "rating": at / 3, "ok": at % 2 == 0, "lang": "de" if at % 2 else "en",
            "tags": ["x", f"t{at}"], "title": f"words of row {at}", "extra": {"n": [at, None, "é"]},
            "on": datetime.datetime(2024, 1, 1 + at, tzinfo=datetime.UTC), "dense": rng.standard_normal(8, np.float32),
            "half": rng.standard_normal(4).astype(np.float16), "splade": {7: 0.5, 9 + at: 1.25},
        })  # fmt: skip
    return [*out, {"id": "bare"}]


def filled(database: Any) -> Any:
    docs = database.create_collection("docs", fields=FIELDS, vectors=VECTORS)
    docs.upsert(rows())
    return docs
