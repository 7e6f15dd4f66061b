"""Products as terms: PQ codes in the inverted index of a sparse field, beside lists of codes.

Every row has M terms, one for each sub-space: its centroid there. A query weighs the p nearest centroids of each sub-space
by their product with it, above that of the next one, and the rows with the greatest sums are scored from the vectors, as
many as lists score (sub-vectors as tokens: Mu et al., "Towards practical visual search engine within Elasticsearch", 2018).
One thread.

Run: python bench/ann/product_terms.py --data minilm --json bench/results/ann/product-terms-minilm.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from shared import datasets, measure

import gingham as gg
from gingham.codecs.spec import parse_codec

if TYPE_CHECKING:
    from collections.abc import Callable

K, CANDIDATES, QUERIES = 10, 104, 300
PROBES = (1, 2, 4, 8, 16, 32)
NPROBES = (2, 4, 8, 16, 32, 64, 128)


def terms_of(codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """A sparse vector for each row: sub-space times 256 and centroid, weight 1."""
    ones = np.ones(codes.shape[1], np.float32)
    numbers = codes.astype(np.int64) + 256 * np.arange(codes.shape[1])
    return [(row, ones) for row in numbers]


def asked(query: np.ndarray, codebooks: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """Terms and weights of a query: the best centroids of each sub-space above the next one."""
    count, _, width = codebooks.shape
    products = np.einsum("mkw,mw->mk", codebooks, query.reshape(count, width))
    order = np.argsort(-products, axis=1)[:, : probes + 1]
    best = np.take_along_axis(products, order, axis=1)
    weights = best[:, :probes] - best[:, probes:]
    return (order[:, :probes] + 256 * np.arange(count)[:, None]).ravel(), np.maximum(weights.ravel(), 1e-6)


def timed(search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall and queries a second, one at a time."""
    found, started = [], time.perf_counter()
    for query in queries:
        found.append(search(query))
    seconds = time.perf_counter() - started
    recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
    return {"recall": round(recall, 4), "queries/s": round(len(queries) / seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm", choices=datasets.NAMES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data, QUERIES)
    if data is None or data.metric == "l2":
        raise SystemExit("product_terms.py expects an installed data set whose metric is cosine or dot")
    gg.set_threads(1)
    gg.warmup()
    n, dim = data.rows.shape
    codec = parse_codec(f"PQ{dim // 8}x8", dim, data.metric).train(data.rows[:65_536])
    codes, arrays = codec.encode(data.rows).arrays, codec.arrays()
    (code,) = (array for array in codes.values() if array.ndim == 2)
    codebooks = next(array for array in arrays.values() if array.ndim == 3)
    truth = data.nearest(K)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, gg.open(folder, durability="none") as db:
        docs = db.create_collection("docs", vectors={"terms": gg.Sparse()})
        terms = terms_of(code)
        for start in range(0, n, 20_000):
            part = terms[start : start + 20_000]
            docs.upsert(ids=list(range(start, start + len(part))), vectors={"terms": part})
        docs.maintain()
        figures["bytes a vector, terms"] = round(docs.stats().nbytes / n)
        for probes in PROBES:

            def by_terms(query: np.ndarray, probes: int = probes) -> np.ndarray:
                hits = docs.search(asked(query, codebooks, probes), using="terms", k=CANDIDATES)
                rows = np.array(hits.ids)
                return rows[np.argsort(-(data.rows[rows] @ query))[:K]]

            figures[f"terms, {probes} a sub-space"] = timed(by_terms, data.queries, truth)
            print(figures[f"terms, {probes} a sub-space"], flush=True)
    lists = gg.index.IVF(dim, metric=data.metric, codec="RaBitQ1")
    lists.add(data.rows)
    for nprobe in NPROBES:
        figures[f"lists, nprobe {nprobe}"] = timed(
            lambda query, p=nprobe: lists.search(query, K, nprobe=p)[1][0], data.queries, truth
        )
    about = {"bench": "ann product terms", "data": data.name, "rows": n, "codec": codec.spec, "candidates": CANDIDATES}
    measure.report({**about, "found": figures}, options.json)


if __name__ == "__main__":
    main()
