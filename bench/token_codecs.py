"""Codes of tokens that were not built, beside those that were: SciFact, every document scored from decoded tokens.

nDCG@10, the share of the ten best by float16 tokens that are found, bytes a token, and for those that were built the time
in which one thread scores a token by its codes.

Run: python bench/token_codecs.py --json bench/results/token_codecs.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from embed_late import TARGET
from late import judged, matrices, ndcg

import gingham as gg
from gingham.codecs.kmeans import assign
from gingham.codecs.maxsim import QueryTokens, score_f16
from gingham.codecs.product import train_codebooks
from gingham.codecs.token_products import train_token_codec
from gingham.vector_types import TOKEN_CODECS

if TYPE_CHECKING:
    from collections.abc import Iterator

    Array = np.ndarray

SAMPLE, CENTROIDS, TIMED = 30_000, 4096, 200


def steps_between(tokens: Array, bits: int) -> Array:
    """LVQ: steps between the extremes of each token."""
    low, high = tokens.min(axis=1, keepdims=True), tokens.max(axis=1, keepdims=True)
    step = (high - low) / (2**bits - 1)
    return low + step * np.rint((tokens - low) / step)


def product(tokens: Array, m: int) -> Array:
    """PQ of m codes of 8 bits."""
    rows = np.sort(np.random.default_rng(0).choice(len(tokens), SAMPLE, replace=False))
    books, width = train_codebooks(tokens[rows], m, 256, seed=0), tokens.shape[1] // m
    out = np.empty_like(tokens)
    for at in range(m):
        book, part = books[at], slice(at * width, (at + 1) * width)
        out[:, part] = book[assign(np.ascontiguousarray(tokens[:, part]), book)]
    return out


def decoded(tokens: Array) -> Iterator[tuple[str, int, Array]]:
    """Name, bytes and decoded tokens of each codec."""
    dim = tokens.shape[1]
    yield "F16", 2 * dim, tokens
    yield "LVQ8", dim + 8, steps_between(tokens, 8)
    yield "LVQ4", dim // 2 + 8, steps_between(tokens, 4)
    for name in TOKEN_CODECS:
        learned = train_token_codec(name, tokens, unit=True)  # type: ignore[arg-type]
        ids, codes = learned.encode(tokens)
        yield name, 4 + learned.code_bytes, learned.decode(ids, codes)
        if name == "Residual2":
            centroids = learned.centroids[ids]
            left = tokens - centroids
            signs = centroids + np.sign(left) * np.abs(left).mean()
            yield "signs of residuals, one scale for all", 4 + dim // 8, signs
    yield "PQ32x8 of tokens", 32, product(tokens, 32)


def speeds(dim: int = 128) -> dict[str, float]:
    """Nanoseconds of a token of random codes: 32 query tokens, 512 documents of 100; the least of runs in turn."""
    rng = np.random.default_rng(0)
    asked, some = rng.standard_normal((32, dim), np.float32), rng.standard_normal((CENTROIDS, dim), np.float32)
    starts, documents = np.arange(0, 51_201, 100), np.arange(512)
    coded: dict[str, Any] = {}
    for name in TOKEN_CODECS:
        learned = train_token_codec(name, some, unit=False)  # type: ignore[arg-type]
        query = learned.turned(QueryTokens(asked))
        ids, codes = learned.encode(some[rng.integers(0, len(some), starts[-1])])
        coded[name] = (learned, query, codes, ids, query.centroid_scores(learned.centroids))
    seconds: dict[str, list[float]] = {name: [] for name in coded}
    for _ in range(TIMED):
        for name, (learned, *given) in coded.items():
            started = time.perf_counter()
            learned.score(*given, starts, documents)
            seconds[name].append(time.perf_counter() - started)
    return {name: round(min(took) / int(starts[-1]) * 1e9, 1) for name, took in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (TARGET / "docs.npy").exists():
        raise SystemExit("the tokens of SciFact are not there; bench/embed_late.py makes them")
    asked, qrels = judged()
    every = matrices("queries.npy", "query_starts.npy")
    queries = [QueryTokens(np.ascontiguousarray(every[at])) for at in asked]
    tokens, starts = np.load(TARGET / "docs.npy").astype(np.float32), np.load(TARGET / "starts.npy").astype(np.int64)
    gg.set_threads(1)
    documents, truth = np.arange(len(starts) - 1), None
    figures: dict[str, Any] = {"bench": "token_codecs", "queries": len(queries), "documents": len(documents)}
    for name, size, made in decoded(tokens):
        halves = np.ascontiguousarray(made, np.float16)
        found = [np.argsort(-score_f16(q, halves, starts, documents), kind="stable")[:10] for q in queries]
        truth = truth or found
        agreement = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
        figures[name] = {
            "bytes": size, "nDCG@10": round(ndcg(np.array(found), qrels, asked), 4), "of floats": round(float(agreement), 4),
        }  # fmt: skip
        print(name, figures[name], flush=True)
    for name, nanoseconds in speeds().items():
        figures[name]["ns"] = nanoseconds
        print(name, nanoseconds)
    measure.report(figures, options.json)


if __name__ == "__main__":
    main()
