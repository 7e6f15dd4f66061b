"""MUVERA on SciFact: one vector for each token matrix, and late interaction of what is nearest by these.

Tokens are those of ``embed_late.py``. Encodings are scanned as float32; times are of whole queries of a collection, their
encoding included, median, one thread.

Run: python bench/muvera.py --json bench/results/muvera.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
from embed_late import TARGET
from late import judged, matrices, ndcg, timed
from slim import REFINED, recall

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Array = np.ndarray

SETTINGS: dict[str, dict[str, int]] = {
    "2,560": {"bits": 4, "repetitions": 20, "part_dim": 8},
    "10,240": {"bits": 5, "repetitions": 20, "part_dim": 16},
    "10,240 of 20,480": {"bits": 5, "repetitions": 40, "part_dim": 16, "out_dim": 10_240},
}


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
    queries, dim = [every[at] for at in asked], given[0].shape[1]
    figures: dict[str, Any] = {"bench": "muvera", "queries": len(queries), "documents": len(given)}
    for name, setting in SETTINGS.items():
        encoding = gg.FixedEncoding(dim, **setting)
        started = time.process_time()
        encoded = encoding.encode_documents(given)
        out: dict[str, Any] = {"width": encoding.width, "seconds to encode": round(time.process_time() - started, 1)}
        with tempfile.TemporaryDirectory() as folder, gg.open(Path(folder) / "db") as db:
            vectors = {"tokens": gg.Tokens(dim), "fixed": gg.Dense(encoding.width, "dot", index="Flat")}
            docs = db.create_collection("docs", vectors=vectors)
            docs.upsert(ids=list(range(len(given))), vectors={"tokens": given, "fixed": encoded})
            docs.maintain()

            def first(q: Array, coder: gg.FixedEncoding = encoding) -> gg.Query:
                return gg.near("fixed", coder.encode_queries([q])[0])

            ways: dict[str, Callable[[Array], Any]] = {
                "encodings alone": lambda q, docs=docs, first=first: docs.query(first(q).limit(100)).ids
            }
            for k in REFINED:
                ways[f"best {k} by late interaction"] = lambda q, k=k, docs=docs, first=first: (
                    docs.query(first(q).rerank(gg.maxsim("tokens", q), k=k).limit(10)).ids
                )
            for way, search in ways.items():
                found, milliseconds = timed(search, queries)
                out[way] = {"nDCG@10": round(ndcg([r[:10] for r in found], qrels, asked), 4), "ms": milliseconds}  # type: ignore[arg-type]
                if way == "encodings alone":
                    out[way]["recall@100"] = recall(found, qrels, asked)
                print(name, way, out[way], flush=True)
        figures[name] = out
    measure.report(figures, options.json)


if __name__ == "__main__":
    main()
