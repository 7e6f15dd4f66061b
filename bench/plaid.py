"""Search of token matrices beside fast-plaid: SciFact alone and with WordNet definitions among it, one thread.

Both take the tokens of ``embed_late.py`` (all-MiniLM-L6-v2, not trained for late interaction) with 4 bits a dimension; a
query has its own number of tokens. fast-plaid brings torch, so this runs in an environment of its own, with the packages
``gingham`` needs, ``torch`` and ``fast-plaid``.

Run: OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python bench/plaid.py --json bench/results/plaid.json
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from late import judged, matrices, ndcg
from measure import arguments, report

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray

K, ROUNDS, ASKED = 10, 2, 100
PROBES = (8, 32)
"""Centroids that fast-plaid probes for a query token; it takes 8 by itself."""
TOGETHER: dict[str, Callable[[list[Array]], list[Array]]] = {}
"""Searches of several queries in one call."""


def ours(documents: list[Array]) -> dict[str, Callable[[Array], Array]]:
    index = gg.index.LateInteraction(documents[0].shape[1], codec="Residual4")
    index.add(documents)
    return {
        "gingham": lambda query: index.search(query, K)[1][0],
        "gingham, all codes": lambda query: index.search(query, K, exact=True)[1][0],
    }


def theirs(documents: list[Array], folder: str) -> dict[str, Callable[[Array], Array]]:
    import torch
    from fast_plaid import search

    torch.set_num_threads(1)
    index = search.FastPlaid(index=folder, device="cpu")
    index.create(documents_embeddings=[torch.from_numpy(one) for one in documents], nbits=4)

    def at(probes: int) -> Callable[[Array], Array]:
        def run(query: Array) -> Array:
            return together([query])[0]

        def together(queries: list[Array]) -> list[Array]:
            asked = [torch.from_numpy(query) for query in queries]
            found = index.search(asked, top_k=K, n_ivf_probe=probes, show_progress=False)
            return [np.array([number for number, _ in one]) for one in found]

        TOGETHER[f"fast-plaid, {probes} probes"] = together
        return run

    return {f"fast-plaid, {probes} probes": at(probes) for probes in PROBES}


def compared(documents: list[Array], queries: list[Array], qrels: Any, asked: list[int]) -> dict[str, Any]:
    """Quality and milliseconds a query of all, in turns."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[Array], Array]] = {}
        for name, make in (("gingham", lambda: ours(documents)), ("fast-plaid", lambda: theirs(documents, folder))):
            started = time.perf_counter()
            ways |= make()
            out[f"{name} built in s"] = round(time.perf_counter() - started, 1)
            print(f"{name}: {len(documents)} documents in {out[f'{name} built in s']} s", file=sys.stderr, flush=True)
        best = dict.fromkeys(ways, np.inf)
        found: dict[str, list[Array]] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                found[name] = [way(queries[number]) for number in asked]
                took = (time.perf_counter() - started) / len(asked)
                best[name] = min(best[name], took)
                print(f"{name}: {took * 1e3:.1f} ms a query", file=sys.stderr, flush=True)
        together = {}
        for name, search in TOGETHER.items():
            started = time.perf_counter()
            search([queries[number] for number in asked])
            together[name] = (time.perf_counter() - started) / len(asked)
            print(f"{name}, all in a call: {together[name] * 1e3:.1f} ms a query", file=sys.stderr, flush=True)
    for name in ways:
        rows = np.array([np.pad(one, (0, K - len(one)), constant_values=-1) for one in found[name]])
        out[name] = {"nDCG@10": round(ndcg(rows, qrels, asked), 4), "ms": round(best[name] * 1e3, 2)}
        if name in together:
            out[name]["ms, all queries in a call"] = round(together[name] * 1e3, 2)
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--alone", action="store_true", help="without the definitions")
    parser.add_argument("--documents", type=int, default=0, help="so many of SciFact, judged ones first; 0 takes all")
    options = parser.parse_args()
    gg.set_threads(1)
    gg.warmup()
    documents, queries = matrices("docs.npy", "starts.npy"), matrices("queries.npy", "query_starts.npy")
    asked, qrels = judged()
    asked = asked[:ASKED]
    result: dict[str, Any] = {"bench": "plaid", "fast-plaid": importlib.metadata.version("fast-plaid")}
    if options.documents:
        relevant = {document for query in asked for document in qrels[query]}
        others = [number for number in range(len(documents)) if number not in relevant]
        kept = sorted([*relevant, *others[: max(0, options.documents - len(relevant))]])
        places = {document: place for place, document in enumerate(kept)}
        documents = [documents[number] for number in kept]
        qrels = {query: {places[one]: grade for one, grade in qrels[query].items()} for query in asked}
        result["documents"] = len(documents)
    result["SciFact"] = compared(documents, queries, qrels, asked)
    if not options.alone:
        distractors = matrices("distractors.npy", "distractor_starts.npy")
        result[f"with {len(distractors)} distractors"] = compared(documents + distractors, queries, qrels, asked)
    report(result, options.json)


if __name__ == "__main__":
    main()
