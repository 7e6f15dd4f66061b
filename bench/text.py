"""BM25 against bm25s: the same tokens, one thread; and quality of BM25, dense and hybrid search on real text.

Bars: queries per second at least those of bm25s (method lucene, backend numba) on SciFact and on 100,000 short
texts, equal scores within rounding; on a million short texts the 99th percentile at most 5 times the median.

The index of Gingham is timed twice: alone, on the tokens bm25s gets, and through ``Collection.search`` with
texts, analysis and hits included.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, interleaved, report

import gingham as gg
from gingham.demo.dataset import load_scifact
from gingham.index.inverted import Bm25, from_pairs, search_inverted
from gingham.text.analyze import analyzer

K = 10
SHARED = Path(os.environ.get("GINGHAM_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Tokens:
    """Texts and queries as lists of numbers, analyzed once for both contestants."""

    def __init__(self, texts: list[str], queries: list[str]) -> None:
        analyze = analyzer("english")
        vocabulary: dict[str, int] = {}
        self.rows = [
            [vocabulary.setdefault(t, len(vocabulary)) for s in analyze.surfaces(text) if (t := analyze.term_of(s))]
            for text in texts
        ]
        self.queries = [
            [vocabulary[t] for s in analyze.surfaces(q) if (t := analyze.term_of(s)) in vocabulary] for q in queries
        ]
        self.vocabulary = vocabulary


class Ours:
    """The bare inverted index on the tokens."""

    def __init__(self, tokens: Tokens) -> None:
        lengths = np.array([len(row) for row in tokens.rows])
        terms = np.concatenate([np.array(row, np.int64) for row in tokens.rows])
        bm25 = Bm25()
        self.index = from_pairs(
            len(lengths),
            np.arange(len(tokens.vocabulary), dtype=np.uint64),
            terms,
            np.repeat(np.arange(len(lengths)), lengths),
            lengths=lengths.astype(np.float32),
            bm25=bm25,
        )
        self.norms = bm25.norms(self.index.lengths, self.index.average_length)
        frequencies = np.diff(self.index.starts)
        keys, weights, counts = [], [], []
        for query in tokens.queries:
            distinct, times = np.unique(np.array(query, np.int64), return_counts=True)
            keys.append(distinct.astype(np.uint64))
            weights.append(times * bm25.idf(len(lengths), frequencies[distinct]))
            counts.append(len(distinct))
        self.keys, self.weights = np.concatenate(keys), np.concatenate(weights).astype(np.float32)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        return search_inverted(self.index, self.keys, self.weights, self.starts, K, norms=self.norms)

    def one(self, query: int) -> None:
        part = slice(self.starts[query], self.starts[query + 1])
        starts = np.array([0, part.stop - part.start])
        search_inverted(self.index, self.keys[part], self.weights[part], starts, K, norms=self.norms)


def theirs(tokens: Tokens, queries: list[str]) -> Any:
    """Calls of bm25s: on the tokens, and on texts with its own tokenizer."""
    import bm25s
    import Stemmer

    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4, backend="numba")
    index.index((tokens.rows, tokens.vocabulary), show_progress=False)
    stemmer = Stemmer.Stemmer("english")

    def retrieve(queries: Any = tokens.queries) -> Any:
        return index.retrieve(queries, k=K, show_progress=False, n_threads=1, backend_selection="numba")

    def with_tokenizer() -> Any:
        return retrieve(bm25s.tokenize(queries, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False))

    return retrieve, with_tokenizer


def compare(texts: list[str], queries: list[str], repeats: int) -> dict[str, Any]:
    """Queries per second of both indexes, and of the collection."""
    tokens = Tokens(texts, queries)
    ours, (retrieve, with_tokenizer) = Ours(tokens), theirs(tokens, queries)
    scores = ours.all()[0]
    difference = np.abs(np.where(np.isfinite(scores), scores, 0) - retrieve().scores).max()
    with tempfile.TemporaryDirectory() as folder, gg.open(Path(folder) / "db") as db:
        docs = db.create_collection("docs", fields={"text": gg.Text(bm25=True)})
        started = time.perf_counter()
        for start in range(0, len(texts), 10_000):
            part = texts[start : start + 10_000]
            docs.upsert(ids=list(range(start, start + len(part))), fields={"text": part})
        ingest = time.perf_counter() - started
        docs.maintain()
        seconds = interleaved(
            {
                "gingham index": ours.all,
                "bm25s": retrieve,
                "bm25s with its tokenizer": with_tokenizer,
                "gingham collection, one call": lambda: docs.search(queries, k=K, fields=[]),
            },
            repeats,
        )
        segments = docs.stats().segments
    rates = {name: len(queries) / s for name, s in seconds.items()}
    return {
        "texts": len(texts),
        "queries": len(queries),
        "segments": segments,
        "ingest_rows_per_s": len(texts) / ingest,
        "queries_per_s": rates,
        "ratio": rates["gingham index"] / rates["bm25s"],
        "largest_score_difference": float(difference),
    }


def latency(texts: list[str], queries: list[str]) -> dict[str, float]:
    """Milliseconds of single queries on the bare index."""
    ours = Ours(Tokens(texts, queries))
    times = np.empty((5, len(queries)))
    for run in range(-1, 5):
        for query in range(len(queries)):
            started = time.perf_counter()
            ours.one(query)
            times[run, query] = time.perf_counter() - started
    best = np.percentile(times.min(axis=0) * 1e3, [50, 99])
    return {"texts": len(texts), "p50_ms": best[0], "p99_ms": best[1], "p99_over_p50": best[1] / best[0]}


def sentences(n: int) -> list[str]:
    """Short texts: WordNet's glosses, and for more of them random mixtures of two glosses."""
    path = SHARED / "wordnet_minilm" / "docs.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        base = [line.strip() for line in file]
    if n <= len(base):
        return base[:n]
    rng = np.random.default_rng(0)
    words = [text.split() for text in base]
    pairs = rng.integers(0, len(base), (n - len(base), 2))
    return base + [" ".join(words[a][: len(words[a]) // 2] + words[b][len(words[b]) // 2 :]) for a, b in pairs]


def questions() -> list[str]:
    with gzip.open(SHARED / "wordnet_minilm" / "queries.txt.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file][:1000]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--million", type=int, default=1_000_000)
    options = parser.parse_args()
    gg.set_threads(1)
    gg.warmup()
    scifact = load_scifact()
    documents = [f"{t}\n{b}" for t, b in zip(scifact.titles, scifact.texts, strict=True)]
    result = {"bench": "text", "k": K, "scifact": compare(documents, scifact.queries, options.repeats)}
    if SHARED.is_dir():
        result["short texts"] = compare(sentences(100_000), questions(), options.repeats)
        result["a million short texts"] = latency(sentences(options.million), questions())
    report(result, options.json)


if __name__ == "__main__":
    main()
