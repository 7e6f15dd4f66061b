"""Rows that graphs find hard, and what is asked of an index over them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np

import gingham as gg

Array = np.ndarray[Any, Any]

DIM = 48


METRICS = ("cosine", "dot", "l2")


CODECS = ["F32", "F16", "BF16", "SQ8", "LVQ4", "LVQ8", "LVQ4x4", "LVQ4x8", "LVQ8x8", "RaBitQ2", "RaBitQ4", "RaBitQ8",
          "Rotate,LVQ4", "Center,SQ8", "PCA40,LVQ8"]  # fmt: skip


def clustered(n: int, seed: int = 1, dim: int = DIM) -> Array:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, dim))
    return (centers[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, dim))).astype(np.float32)


def gaussian(n: int, seed: int = 1, dim: int = DIM) -> Array:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def recall(found: Array, expected: Array) -> float:
    return float(
        np.mean([len(np.intersect1d(f, e[e >= 0])) / (e >= 0).sum() for f, e in zip(found, expected, strict=True)])
    )


def flat(rows: Array, metric: Any) -> gg.index.Flat:
    index = gg.index.Flat(rows.shape[1], metric=metric)
    index.add(rows)
    return index


def hnsw(rows: Array, **options: Any) -> gg.index.HNSW:
    index = gg.index.HNSW(rows.shape[1], **options)
    assert index.add(rows) == range(len(rows))
    return index


def unreached(index: gg.index.HNSW) -> int:
    """Rows that links do not lead to from the first of the uppermost layer, in plain Python."""
    graph = index._graph
    assert graph is not None
    reached = {int(graph.nodes[0])}
    waiting = list(reached)
    while waiting:
        for u in graph.links[waiting.pop()].tolist():
            if u >= len(graph):
                break
            if u not in reached:
                reached.add(u)
                waiting.append(u)
    return len(graph) - len(reached)


def same(left: tuple[Array, Array], right: tuple[Array, Array]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def child(code: str, *arguments: object, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, **settings}, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    return done.stdout
