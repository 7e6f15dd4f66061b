"""SLIM on SciFact: tokens as sparse terms of an inverted index, and late interaction of what these find.

Tokens are those of ``embed_late.py``; terms are centroids. ``all`` scores every document by late interaction. Times are
of whole queries of a collection, median, one thread.

Run: python bench/slim.py --json bench/results/slim.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from embed_late import TARGET
from late import judged, matrices, ndcg, timed

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray

KEPT = (1, 4)
REFINED = (100, 500)


def recall(found: list[Array], qrels: Any, asked: list[int]) -> float:
    """Share of the judged documents among the first 100."""
    shares = [np.mean([d in set(rows[:100]) for d in qrels[q]]) for rows, q in zip(found, asked, strict=True)]
    return round(float(np.mean(shares)), 4)


def stages(docs: gg.Collection, name: str, slim: gg.SparseTokens, queries: list[Array], judge: Any) -> dict[str, Any]:
    """The first stage alone, and late interaction of its best."""
    qrels, asked = judge
    ways: dict[str, Callable[[Array], Any]] = {
        "terms alone": lambda q: docs.query(gg.sparse(name, slim.encode_query(q)).limit(100)).ids,
    }
    for k in REFINED:
        ways[f"best {k} by late interaction"] = lambda q, k=k: (
            docs.query(gg.sparse(name, slim.encode_query(q)).rerank(gg.maxsim("tokens", q), k=k).limit(10)).ids
        )
    out: dict[str, Any] = {}
    for way, search in ways.items():
        found, milliseconds = timed(search, queries)
        out[way] = {"nDCG@10": round(ndcg([rows[:10] for rows in found], qrels, asked), 4), "ms": milliseconds}  # type: ignore[arg-type]
        if way == "terms alone":
            out[way]["recall@100"] = recall(found, qrels, asked)
        print(name, way, out[way], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (TARGET / "docs.npy").exists():
        raise SystemExit("the tokens of SciFact are not there; bench/embed_late.py makes them")
    gg.set_threads(1)
    gg.warmup()
    asked, qrels = judged()
    every, given = matrices("queries.npy", "query_starts.npy"), matrices("docs.npy", "starts.npy")
    queries, flat = [every[at] for at in asked], np.concatenate(given)
    fitted = gg.SparseTokens.fit(flat)
    figures: dict[str, Any] = {
        "bench": "slim",
        "queries": len(queries),
        "documents": len(given),
        "terms": fitted.head.shape[1],
    }
    with tempfile.TemporaryDirectory() as folder, gg.open(Path(folder) / "db") as db:
        names = {f"slim{kept}": kept for kept in KEPT}
        docs = db.create_collection(
            "docs", vectors={"tokens": gg.Tokens(flat.shape[1]), **{name: gg.Sparse() for name in names}}
        )
        coders = {name: gg.SparseTokens(fitted.head, None, kept, kept) for name, kept in names.items()}
        encoded: dict[str, Any] = {}
        for name, coder in coders.items():
            started = time.process_time()
            encoded[name] = coder.encode_documents(given)
            figures[name] = {
                "seconds to encode": round(time.process_time() - started, 1),
                "terms a document": round(float(np.mean([len(terms) for terms, _ in encoded[name]])), 1),
            }
        docs.upsert(ids=list(range(len(given))), vectors={"tokens": given, **encoded})
        docs.maintain()
        found, milliseconds = timed(lambda q: docs.search(q, using="tokens", k=100).ids, queries)
        figures["all"] = {
            "nDCG@10": round(ndcg([rows[:10] for rows in found], qrels, asked), 4), "ms": milliseconds,  # type: ignore[arg-type]
            "recall@100": recall(found, qrels, asked),
        }  # fmt: skip
        print("all", figures["all"], flush=True)
        for name, coder in coders.items():
            figures[name] |= stages(docs, name, coder, queries, (qrels, asked))
    measure.report(figures, options.json)


if __name__ == "__main__":
    main()
