"""``gingham demo``: ingest, search and evaluate SciFact, and say what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gingham.connect import open as open_database
from gingham.demo.dataset import Dataset, load_scifact
from gingham.evaluation import evaluate
from gingham.index.warmup import warmup
from gingham.query.ast import F
from gingham.schema import Dense, Int, Text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import numpy as np

    from gingham.collection import Collection
    from gingham.query.hits import Hits

PUBLISHED_NDCG = 0.645
"""nDCG@10 of all-MiniLM-L6-v2 on BEIR SciFact (model card of the MTEB leaderboard: 64.51)."""
EXAMPLES = ("42", "1370", "1024")
SHORT_TEXT = 250
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Example:
    """A claim, the filter used, what was found, and which documents are known to be relevant."""

    claim: str
    where: str
    hits: Hits
    relevant: frozenset[str]


@dataclass(frozen=True)
class DemoReport:
    """Figures of one run of the demo."""

    documents: int
    queries: int
    ingest_rows_per_s: float
    single_queries_per_s: float
    batch_queries_per_s: float
    ndcg_at_10: float
    recall_at_100: float
    published_ndcg_at_10: float
    file_bytes: int
    examples: tuple[Example, ...]


def run_demo(path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> DemoReport:
    """Make a database of SciFact at ``path`` and measure it.

    Parameters
    ----------
    path : where nothing is yet
    progress : called with rows written and rows in all
    """
    data = load_scifact()
    warmup()
    with open_database(path) as db:
        docs = db.create_collection(
            "scifact",
            fields={"title": Text(), "text": Text(), "words": Int()},
            vectors={"dense": Dense(data.vectors.shape[1], "cosine", "float16")},
        )
        started = time.perf_counter()
        ingest(docs, data, progress)
        seconds = time.perf_counter() - started
        run, batch_seconds = search_all(docs, data)
        quality = evaluate(run, data.qrels)
        docs.maintain()
        _, file_bytes = db.compact()
        return DemoReport(
            documents=docs.count(),
            queries=len(data.query_ids),
            ingest_rows_per_s=len(data.ids) / seconds,
            single_queries_per_s=single_rate(docs, data.query_vectors),
            batch_queries_per_s=len(data.query_ids) / batch_seconds,
            ndcg_at_10=quality["nDCG@10"],
            recall_at_100=quality["recall@100"],
            published_ndcg_at_10=PUBLISHED_NDCG,
            file_bytes=file_bytes,
            examples=examples(docs, data),
        )


def ingest(docs: Collection, data: Dataset, progress: Callable[[int, int], None] | None) -> None:
    """Write the documents in commits of 1,000 rows."""
    for start in range(0, len(data.ids), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        docs.upsert(
            ids=data.ids[part],
            vectors={"dense": data.vectors[part]},
            fields={
                "title": data.titles[part],
                "text": data.texts[part],
                "words": [len(text.split()) for text in data.texts[part]],
            },
        )
        if progress is not None:
            progress(min(start + BATCH_ROWS, len(data.ids)), len(data.ids))


def search_all(docs: Collection, data: Dataset) -> tuple[dict[str, list[str]], float]:
    """The 100 best documents of each query, and the seconds it took."""
    docs.search(data.query_vectors[:16])
    started = time.perf_counter()
    results = docs.search(data.query_vectors, k=100, fields=[])
    seconds = time.perf_counter() - started
    return {q: [str(i) for i in hits.ids] for q, hits in zip(data.query_ids, results, strict=True)}, seconds


def single_rate(docs: Collection, queries: np.ndarray[Any, Any]) -> float:
    """Queries per second, one by one, ten hits with their payload."""
    docs.search(queries[0])
    started = time.perf_counter()
    for query in queries[:100]:
        docs.search(query)
    return min(len(queries), 100) / (time.perf_counter() - started)


def examples(docs: Collection, data: Dataset) -> tuple[Example, ...]:
    """Three claims with their best abstracts; the last one among short abstracts only."""
    out = []
    for query_id in EXAMPLES:
        at = data.query_ids.index(query_id)
        where = F.words <= SHORT_TEXT if query_id == EXAMPLES[-1] else None
        hits = docs.search(data.query_vectors[at], k=3, where=where)
        relevant = frozenset(data.qrels[query_id])
        out.append(Example(data.queries[at], "" if where is None else f"words <= {SHORT_TEXT}", hits, relevant))
    return tuple(out)
