"""Late interaction on SciFact: quality by pooling and codes, and the speed of stages, beside peers that are installed.

Tokens are those of ``embed_late.py``: all-MiniLM-L6-v2, which is not trained for late interaction. Judgements are
SciFact's; distractors are WordNet definitions. One thread.

Run: python bench/late.py --json bench/results/late.json
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from embed_late import SCIFACT, TARGET

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray

K = 100
FACTORS = (1, 2, 3, 4)
CODECS = ("F16", "Residual8", "Residual4", "Residual2", "RaBitQ1")


def matrices(name: str, starts: str) -> list[Array]:
    flat, ends = np.load(TARGET / name), np.load(TARGET / starts)
    return [flat[a:b].astype(np.float32) for a, b in itertools.pairwise(ends)]


def judged() -> tuple[list[int], dict[int, dict[int, int]]]:
    """Queries with judgements, and these by place of the document."""
    import gzip
    import json

    def ids(name: str) -> dict[str, int]:
        with gzip.open(SCIFACT / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return {str(json.loads(line)["id"]): at for at, line in enumerate(file)}

    docs, queries = ids("corpus"), ids("queries")
    out: dict[int, dict[int, int]] = {}
    for line in (SCIFACT / "qrels.tsv").read_text().splitlines()[1:]:
        query, doc, grade = line.split("\t")
        if int(grade) and query in queries and doc in docs:
            out.setdefault(queries[query], {})[docs[doc]] = int(grade)
    return sorted(out), out


def ndcg(found: Array, qrels: dict[int, dict[int, int]], asked: list[int]) -> float:
    """nDCG@10."""
    scores = []
    for rows, query in zip(found, asked, strict=True):
        gains = [qrels[query].get(int(row), 0) / np.log2(rank + 2) for rank, row in enumerate(rows[:10])]
        best = sorted(qrels[query].values(), reverse=True)[:10]
        scores.append(sum(gains) / sum(g / np.log2(rank + 2) for rank, g in enumerate(best)))
    return float(np.mean(scores))


def timed(search: Callable[[Array], Any], queries: list[Array]) -> tuple[list[Any], float]:
    """What each query finds, and milliseconds of the median."""
    found, seconds = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - started)
    return found, round(float(np.median(seconds)) * 1e3, 3)


def quality(docs: list[Array], queries: list[Array], qrels: Any, asked: list[int]) -> dict[str, Any]:
    """nDCG@10 and bytes a document by codec and pooling, all documents scored."""
    out: dict[str, Any] = {}
    for factor in FACTORS:
        for codec in CODECS:
            index = gg.index.LateInteraction(docs[0].shape[1], codec=codec, pool_factor=factor)
            started = time.process_time()
            index.add(docs)
            built = time.process_time() - started
            rows = [index.search(query, 10, exact=True)[1][0] for query in queries]
            stats = index.stats()
            out[f"{codec}, pooled by {factor}"] = {
                "nDCG@10": round(ndcg(np.array(rows), qrels, asked), 4), "seconds to add": round(built, 1),
                "bytes a document": round(stats.tokens / stats.n * stats.token_bytes),
            }  # fmt: skip
            print(factor, codec, out[f"{codec}, pooled by {factor}"], flush=True)
    sequential = gg.index.LateInteraction(docs[0].shape[1], codec="F16")
    from gingham.codecs.pooling import pool_tokens

    for factor in FACTORS[1:]:
        sequential = gg.index.LateInteraction(docs[0].shape[1], codec="F16")
        sequential.add([pool_tokens(one, factor=factor, method="sequential", protected=0)[0] for one in docs])
        rows = [sequential.search(query, 10)[1][0] for query in queries]
        out[f"F16, runs of {factor}"] = {"nDCG@10": round(ndcg(np.array(rows), qrels, asked), 4)}
    return out


def stages(docs: list[Array], queries: list[Array], qrels: Any, asked: list[int]) -> dict[str, Any]:
    """nDCG@10 and milliseconds of a query: all documents by floats and by codes, and in stages."""
    floats, coded = (gg.index.LateInteraction(docs[0].shape[1], codec=codec) for codec in ("F16", "Residual4"))
    floats.add(docs)
    started = time.process_time()
    coded.add(docs)
    out: dict[str, Any] = {
        "documents": len(docs),
        "tokens": coded.stats().tokens,
        "centroids": coded.stats().n_centroids,
    }
    out["seconds to add"] = round(time.process_time() - started, 1)
    ways: dict[str, Callable[[Array], Any]] = {
        "floats, all": lambda q: floats.search(q, 10)[1][0], "codes, all": lambda q: coded.search(q, 10, exact=True)[1][0],
    }  # fmt: skip
    for nprobe, candidates in ((8, 128), (16, 256), (32, 256), (32, 512), (64, 1024)):
        ways[f"stages, nprobe {nprobe}, {candidates} candidates"] = lambda q, n=nprobe, c=candidates: coded.search(
            q, 10, nprobe=n, candidates=c
        )[1][0]
    coded.search(queries[0], 10)
    truth = None
    for name, way in ways.items():
        found, milliseconds = timed(way, queries)
        truth = found if name == "codes, all" else truth
        same = (
            None
            if truth is None
            else round(float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])), 4)
        )
        out[name] = {
            "nDCG@10": round(ndcg(np.array(found), qrels, asked), 4),
            "ms": milliseconds,
            "of codes, all": same,
        }
        print(name, out[name], flush=True)
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
    every = matrices("queries.npy", "query_starts.npy")
    queries, docs = [every[at] for at in asked], matrices("docs.npy", "starts.npy")
    figures: dict[str, Any] = {
        "bench": "late", "queries": len(queries), "documents": len(docs), "quality": quality(docs, queries, qrels, asked),
    }  # fmt: skip
    more = matrices("distractors.npy", "distractor_starts.npy") if (TARGET / "distractors.npy").exists() else []
    figures["with distractors"] = stages(docs + more, queries, qrels, asked)
    measure.report(figures, options.json)


if __name__ == "__main__":
    main()
