"""BM25, dense and hybrid search on five collections of real text, with the significance of their differences.

Needs the ``embed`` extra: documents and queries are embedded by all-MiniLM-L6-v2 from its package (SciFact's vectors
ship with the demo). Vectors are kept in ``--cache``, so that a second run does not embed again. The hybrid fuses by
distribution (DBSF), with no weight tuned to any collection.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, report

import gingham as gg
from gingham.demo.dataset import load_scifact
from gingham.embed import SentenceTransformerEmbedder
from gingham.embed.protocol import embed

SHARED = Path(os.environ.get("GINGHAM_DATA", Path(__file__).parents[2] / "shared" / "data"))
COLLECTIONS = ("cranfield", "cisi", "xquad_en", "medquad_liveqa")


def load(name: str) -> tuple[list[str], list[str], list[str], list[str], dict[str, dict[str, int]]]:
    """Ids and texts of documents, ids and texts of queries, judgements."""

    def lines(file: str) -> list[dict[str, str]]:
        with gzip.open(SHARED / name / file, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    corpus, queries = lines("corpus.jsonl.gz"), lines("queries.jsonl.gz")
    qrels: dict[str, dict[str, int]] = {}
    for line in (SHARED / name / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    texts = [f"{row.get('title', '')}\n{row['text']}".strip() for row in corpus]
    return [r["id"] for r in corpus], texts, [r["id"] for r in queries], [r["text"] for r in queries], qrels


def vectors_of(texts: list[str], path: Path, *, queries: bool) -> np.ndarray:
    """Vectors of texts, from the cache where they are there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, embed(SentenceTransformerEmbedder(), texts, queries=queries).astype(np.float16))
    return np.load(path).astype(np.float32)


def measure(ids: Any, texts: Any, vectors: Any, names: Any, queries: Any, asked: Any, qrels: Any) -> dict[str, Any]:
    """Quality of the three ways, and what the hybrid gains over each of the others."""
    names_of = {
        "BM25": lambda text, vector: gg.match("text", text),
        "dense": lambda text, vector: gg.near("dense", vector),
        "hybrid": lambda text, vector: gg.fuse(gg.near("dense", vector), gg.match("text", text), by=gg.DBSF()),
        "hybrid RRF": lambda text, vector: gg.fuse(gg.near("dense", vector), gg.match("text", text)),
    }
    judged = [n for n, q in enumerate(names) if q in qrels]
    runs: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, gg.open(Path(folder) / "db") as db:
        dense = gg.Dense(vectors.shape[1])
        docs = db.create_collection("docs", fields={"text": gg.Text(bm25=True)}, vectors={"dense": dense})
        docs.upsert(ids=ids, vectors={"dense": vectors}, fields={"text": texts})
        for way, make in names_of.items():
            found = docs.query([make(queries[n], asked[n]).limit(100) for n in judged], fields=[])
            runs[way] = {
                names[n]: dict(zip(hits.ids, map(float, hits.scores), strict=True))
                for n, hits in zip(judged, found, strict=True)
            }
    quality = {way: gg.evaluate(run, qrels).means for way, run in runs.items()}
    gains = {}
    for way in ("BM25", "dense"):
        change = gg.compare(runs[way], runs["hybrid"], qrels)
        gains[f"hybrid over {way}"] = {
            "nDCG@10": change.difference,
            "interval_95": list(change.interval),
            "p": change.p_value,
        }
    return {"documents": len(ids), "queries": len(judged), "quality": quality, "gains": gains}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "gingham-quality")
    options = parser.parse_args()
    data = load_scifact()
    documents = [f"{t}\n{b}" for t, b in zip(data.titles, data.texts, strict=True)]
    result: dict[str, Any] = {"bench": "quality"}
    result["scifact"] = measure(
        data.ids, documents, data.vectors.astype(np.float32), data.query_ids, data.queries,
        data.query_vectors.astype(np.float32), data.qrels,
    )  # fmt: skip
    for name in COLLECTIONS:
        ids, texts, names, queries, qrels = load(name)
        vectors = vectors_of(texts, options.cache / f"{name}.npy", queries=False)
        asked = vectors_of(queries, options.cache / f"{name}.queries.npy", queries=True)
        result[name] = measure(ids, texts, vectors, names, queries, asked, qrels)
    report(result, options.json)


if __name__ == "__main__":
    main()
