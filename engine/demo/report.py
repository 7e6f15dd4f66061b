"""``gingham demo``: ingest, search and evaluate SciFact, and say what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gingham.connect import open as open_database
from gingham.demo.dataset import Dataset, load_scifact
from gingham.embed import SentenceTransformerEmbedder
from gingham.embed.protocol import embed
from gingham.errors import MissingExtra
from gingham.evaluation import evaluate
from gingham.index.warmup import warmup
from gingham.query.ast import F
from gingham.query.nodes import DBSF, Query, fuse, match, near
from gingham.schema import Dense, Int, Text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from gingham.collection import Collection
    from gingham.query.hits import Hits

PUBLISHED = {"BM25": 0.679, "dense": 0.645, "hybrid": None}
"""nDCG@10 on BEIR SciFact: BM25 "flat" of Anserini's regressions; all-MiniLM-L6-v2 on the MTEB leaderboard."""
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
class Method:
    """How one way of searching did: quality over all claims, and queries per second one at a time."""

    name: str
    ndcg_at_10: float
    recall_at_100: float
    published_ndcg_at_10: float | None
    queries_per_s: float


@dataclass(frozen=True)
class DemoReport:
    """Figures of one run of the demo."""

    documents: int
    queries: int
    ingest_rows_per_s: float
    batch_queries_per_s: float
    file_bytes: int
    methods: tuple[Method, ...]
    examples: tuple[Example, ...]


def run_demo(
    path: str | os.PathLike[str], *, ask: str | None = None, progress: Callable[[int, int], None] | None = None
) -> DemoReport:
    """Make a database of SciFact at ``path`` and measure it.

    Parameters
    ----------
    path : where nothing is yet
    ask : a question of the reader's, answered after the examples; embedded where the ``embed`` extra is installed
    progress : called with rows written and rows in all
    """
    data = load_scifact()
    warmup()
    with open_database(path) as db:
        docs = db.create_collection(
            "scifact",
            fields={"title": Text(), "text": Text(bm25=True), "words": Int()},
            vectors={"dense": Dense(data.vectors.shape[1], "cosine", "float16")},
        )
        started = time.perf_counter()
        ingest(docs, data, progress)
        seconds = time.perf_counter() - started
        docs.maintain()
        _, file_bytes = db.compact()
        shown = examples(docs, data)
        return DemoReport(
            documents=docs.count(),
            queries=len(data.query_ids),
            ingest_rows_per_s=len(data.ids) / seconds,
            batch_queries_per_s=batch_rate(docs, data),
            file_bytes=file_bytes,
            methods=tuple(measure(name, docs, data) for name in PUBLISHED),
            examples=shown if ask is None else (*shown, answer(docs, ask)),
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
                "text": [f"{t}\n{b}" for t, b in zip(data.titles[part], data.texts[part], strict=True)],
                "words": [len(text.split()) for text in data.texts[part]],
            },
        )
        if progress is not None:
            progress(min(start + BATCH_ROWS, len(data.ids)), len(data.ids))


def hybrid(vector: Any, text: str) -> Query:
    """Meaning and words in one list: nearest vectors and BM25, fused by the distribution of their scores."""
    return fuse(near("dense", vector), match("text", text), by=DBSF())


def measure(name: str, docs: Collection, data: Dataset) -> Method:
    """Run all claims one at a time and judge the 100 best abstracts of each."""

    def query(vector: Any, text: str) -> Query:
        return {"BM25": match("text", text), "dense": near("dense", vector)}.get(name) or hybrid(vector, text)

    pairs = list(zip(data.query_vectors, data.queries, strict=True))
    docs.query(query(*pairs[0]).limit(100), fields=[])
    started = time.perf_counter()
    found = [docs.query(query(*pair).limit(100), fields=[]) for pair in pairs]
    seconds = time.perf_counter() - started
    quality = evaluate({q: [str(i) for i in h.ids] for q, h in zip(data.query_ids, found, strict=True)}, data.qrels)
    return Method(name, quality["nDCG@10"], quality["recall@100"], PUBLISHED[name], len(pairs) / seconds)


def batch_rate(docs: Collection, data: Dataset) -> float:
    """Vector queries per second, all in one call."""
    docs.search(data.query_vectors[:16])
    started = time.perf_counter()
    docs.search(data.query_vectors, fields=[])
    return len(data.query_ids) / (time.perf_counter() - started)


def examples(docs: Collection, data: Dataset) -> tuple[Example, ...]:
    """Three claims with their best abstracts; the last one among short abstracts only."""
    out = []
    for query_id in EXAMPLES:
        at = data.query_ids.index(query_id)
        where = F.words <= SHORT_TEXT if query_id == EXAMPLES[-1] else None
        hits = docs.query(hybrid(data.query_vectors[at], data.queries[at]).limit(3), where=where)
        relevant = frozenset(data.qrels[query_id])
        out.append(Example(data.queries[at], "" if where is None else f"words <= {SHORT_TEXT}", hits, relevant))
    return tuple(out)


def answer(docs: Collection, question: str) -> Example:
    """The abstracts nearest to a question: by meaning and words where the model is installed, else by words."""
    try:
        (vector,) = embed(SentenceTransformerEmbedder(), [question], queries=True)
    except MissingExtra:
        return Example(question, "", docs.query(match("text", question).limit(3)), frozenset())
    return Example(question, "", docs.query(hybrid(vector, question).limit(3)), frozenset())
