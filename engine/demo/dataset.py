"""The SciFact collection that ships with the package; credits stand beside the data."""

from __future__ import annotations

import gzip
import importlib.resources
import json
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """Documents, queries and judgements, with unit vectors of shape (n, 384)."""

    ids: list[str]
    titles: list[str]
    texts: list[str]
    vectors: np.ndarray[Any, Any]
    query_ids: list[str]
    queries: list[str]
    query_vectors: np.ndarray[Any, Any]
    qrels: dict[str, dict[str, int]]


def load_scifact() -> Dataset:
    """Read SciFact and its all-MiniLM-L6-v2 vectors from the package."""
    folder = importlib.resources.files(__package__) / "scifact"

    def lines(name: str) -> list[dict[str, str]]:
        with (folder / name).open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def vectors(name: str) -> np.ndarray[Any, Any]:
        with (folder / name).open("rb") as file:
            return np.asarray(np.load(file))

    corpus, queries = lines("corpus.jsonl.gz"), lines("queries.jsonl.gz")
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return Dataset(
        [row["id"] for row in corpus],
        [row["title"] for row in corpus],
        [row["text"] for row in corpus],
        vectors("corpus.f16.npy"),
        [row["id"] for row in queries],
        [row["text"] for row in queries],
        vectors("queries.f16.npy"),
        qrels,
    )
