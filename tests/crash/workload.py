"""A deterministic stream of changes, the child that applies it, and the model of what it leaves.

Run as a script: ``python workload.py PATH SEED FIRST LAST``; each change is acknowledged by its number.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

DIM = 4
IDS = 400
BIG = 60

State = dict[str, tuple[int, float]]


def change_at(seed: int, number: int) -> tuple[str, Any]:
    """Change ``number`` of the stream."""
    rng = np.random.default_rng([seed, number])
    kind = rng.choice(["upsert", "big", "delete", "where", "two", "maintain", "compact", "backup"],
                      p=[0.46, 0.14, 0.12, 0.08, 0.08, 0.06, 0.04, 0.02])  # fmt: skip
    if kind in ("upsert", "two"):
        return str(kind), sorted(set(rng.integers(0, IDS, rng.integers(1, 12)).tolist()))
    if kind == "big":
        return "big", sorted(set(rng.integers(0, IDS, BIG).tolist()))
    if kind == "delete":
        return "delete", sorted(set(rng.integers(0, IDS, 20).tolist()))
    if kind == "where":
        return "where", int(rng.integers(0, max(number, 1)))
    return str(kind), None


def apply_to_model(state: State, number: int, change: tuple[str, Any]) -> State:
    """The state after a change."""
    kind, value = change
    state = dict(state)
    if kind in ("upsert", "big", "two"):
        state.update({f"r{i}": (number, float(number + i)) for i in value})
    elif kind == "delete":
        for i in value:
            state.pop(f"r{i}", None)
    elif kind == "where":
        state = {k: v for k, v in state.items() if not value - 3 <= v[0] <= value}
    return state


def model(seed: int, count: int) -> State:
    """The state after the first ``count`` changes."""
    state: State = {}
    for number in range(count):
        state = apply_to_model(state, number, change_at(seed, number))
    return state


def columns(number: int, ids: list[int]) -> dict[str, Any]:
    """Arguments of an upsert; the vector carries the stamp again."""
    vectors = np.array([[number + i, 1, i, 2] for i in ids], np.float32)
    return {
        "ids": [f"r{i}" for i in ids],
        "vectors": {"v": vectors},
        "fields": {"stamp": [number] * len(ids)},
    }


def read_state(database: Any) -> State:
    """What a database holds."""
    return {row["id"]: (row["stamp"], float(row["v"][0])) for row in database["a"].scan(include_vectors=True)}


def small_bounds() -> None:
    """Make seals and merges happen every few changes."""
    from gingham.storage import rewrite, writes

    rewrite.SEAL_ROWS, rewrite.MERGE_FANOUT = 30, 3
    writes.SEAL_ROWS, writes.SEAL_BATCHES, writes.DIRECT_ROWS, writes.REWRITE_BYTES = 30, 5, 40, 2000


def create(path: str) -> Any:
    """Open a database and its two collections; ``b`` repeats what transactions write to ``a``."""
    import gingham as gg

    database = gg.open(path)
    for name in ("a", "b"):
        database.create_collection(name, fields={"stamp": gg.Int()}, vectors={"v": gg.Dense(DIM, "l2")}, exist_ok=True)
    return database


def apply(database: Any, number: int, change: tuple[str, Any]) -> None:
    """Make a change."""
    from gingham import F

    kind, value = change
    docs = database["a"]
    if kind in ("upsert", "big"):
        docs.upsert(**columns(number, value))
    elif kind == "two":
        with database.transaction() as both:
            both["a"].upsert(**columns(number, value))
            both["b"].upsert(ids=["last"], fields={"stamp": [number]})
    elif kind == "delete":
        docs.delete(ids=[f"r{i}" for i in value])
    elif kind == "where":
        docs.delete(where=(F.stamp >= value - 3) & (F.stamp <= value))
    elif kind == "maintain":
        docs.maintain()
    elif kind == "compact":
        database.compact()
    else:
        database.backup(f"{database.path}.backup-{number}")


def main() -> None:
    path, seed, first, last = sys.argv[1], *map(int, sys.argv[2:])
    small_bounds()
    database = create(path)
    print("open", flush=True)
    for number in range(first, last):
        apply(database, number, change_at(seed, number))
        print(number, flush=True)


if __name__ == "__main__":
    main()
