"""HyDE on SciFact between its bounds: a model that knows the answer, models that do not, and one that does not answer.

The models are made up. One "writes" eight times the text of the document that is judged relevant, which no real model
can; one writes texts of random documents of the collection, which lead elsewhere, and one mixes both. Vectors are those of
all-MiniLM-L6-v2 that ship with the demo, so nothing is embedded; passages as long as documents are what is simulated.

Run: python bench/hyde.py --json bench/results/hyde.json   (some seconds on one core; with the tokens that
``embed_late.py`` makes also late interaction, which takes minutes)
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np

import gingham as gg
from gingham import hyde, measure_gain, near
from gingham.demo.dataset import load_scifact

if TYPE_CHECKING:
    from collections.abc import Callable

N = 8
MIXES = (None, 0.5, 0.6, 0.8)
TIMEOUT = 0.05
LATE_QUERIES, LATE_PASSAGES, LATE_TOKENS = 40, 2, 64
"""Late interaction searches once for each passage: few of them, of their first tokens."""
DATA = load_scifact()


@dataclass(eq=False)
class Known:
    """An embedder that knows the vectors of SciFact, and other texts by the noise that they are."""

    vectors: dict[str, np.ndarray]
    name: str = "known"
    revision: str = "1"
    dim: int = 384

    def embed_documents(self, texts: Any) -> np.ndarray:
        return np.array([self.vectors.get(text, np.eye(1, self.dim)[0]) for text in texts], np.float32)

    embed_queries = embed_documents


@dataclass(eq=False)
class Model:
    """Writes what it is told to for the query in the prompt, and counts."""

    name: str
    write: Callable[[str], list[str]]
    calls: int = 0

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> list[str]:
        self.calls += 1
        return self.write(prompt)[:n]


def models() -> dict[str, Model]:
    texts, rng = dict(zip(DATA.ids, DATA.texts, strict=True)), np.random.default_rng(0)
    relevant = {
        text: texts[next(iter(DATA.qrels[key]))] for key, text in zip(DATA.query_ids, DATA.queries, strict=True)
    }
    noise = {text: [DATA.texts[row] for row in rng.integers(0, len(DATA.texts), N)] for text in DATA.queries}
    return {
        "gold": Model("gold", lambda query: [relevant[query]] * N),
        "half gold, half noise": Model("half", lambda query: [relevant[query]] * (N // 2) + noise[query][N // 2 :]),
        "noise": Model("noise", lambda query: noise[query]),
    }


def figures_of(gain: Any) -> dict[str, Any]:
    ndcg = gain["nDCG@10"]
    return {
        "nDCG@10": round(ndcg.new, 4),
        "gain": round(ndcg.difference, 4),
        "interval of 95 %": [round(end, 4) for end in ndcg.interval],
        "p": round(ndcg.p_value, 5),
        "MRR@10": round(gain["MRR@10"].new, 4),
    }


def dense(docs: gg.Collection) -> dict[str, Any]:
    queries = dict(zip(DATA.query_ids, DATA.queries, strict=True))
    out: dict[str, Any] = {}
    for name, llm in models().items():
        for mix in MIXES:

            def expanded(text: str, llm: Model = llm, mix: float | None = mix) -> Any:
                return hyde(text, llm=llm, n=N, task="{query}", mix=mix, cache={})

            gain = measure_gain(docs, queries, DATA.qrels, expanded=expanded)
            share = f"1 / {N + 1}" if mix is None else f"{mix:g}"
            out.setdefault("plain", {m: round(gain[m].old, 4) for m in ("nDCG@10", "MRR@10")})
            out[f"{name}, weight of the query {share}"] = figures_of(gain)
            print(name, share, figures_of(gain), flush=True)
    return out


def failing(docs: gg.Collection) -> dict[str, Any]:
    """Whether a model that takes too long leaves plain results, and whether a second run is the first."""
    slow = Model("slow", lambda query: time.sleep(4 * TIMEOUT) or ["late"])
    queries = DATA.queries[:20]
    same, flagged, longest = 0, 0, 0.0
    for query in queries:
        started = time.perf_counter()
        hits, plain = docs.search(hyde(query, llm=slow, timeout=TIMEOUT, cache={})), docs.search(query)
        longest = max(longest, time.perf_counter() - started)
        same += hits.ids == plain.ids and hits.scores.tobytes() == plain.scores.tobytes()
        flagged += "searched for the text alone" in hits.complete.why
    llm, cache = models()["half gold, half noise"], {}
    asked = [hyde(query, llm=llm, task="{query}", cache=cache) for query in queries]
    first = [docs.search(one) for one in asked]
    calls = llm.calls
    again = [docs.search(one) for one in asked]
    identical = sum(
        a.ids == b.ids and a.scores.tobytes() == b.scores.tobytes() for a, b in zip(first, again, strict=True)
    )
    return {
        "queries": len(queries),
        "time-out, seconds": TIMEOUT,
        "timed out: same bits as plain": same,
        "timed out: flagged": flagged,
        "timed out: longest search, seconds": round(longest, 3),
        "second run: calls": llm.calls - calls,
        "second run: same bits": identical,
    }


@dataclass(eq=False)
class KnownTokens(Known):
    """The same with token vectors."""

    tokens: dict[str, np.ndarray] | None = None

    def embed_tokens(self, texts: Any) -> list[np.ndarray]:
        return [(self.tokens or {})[text][:LATE_TOKENS] for text in texts]


def late(db: gg.Database) -> dict[str, Any]:
    """Rank fusion over the lists of passages by late interaction."""
    import late as late_bench

    documents = late_bench.matrices("docs.npy", "starts.npy")
    asked = dict(zip(DATA.queries, late_bench.matrices("queries.npy", "query_starts.npy"), strict=True))
    tokens = dict(zip(DATA.texts, documents, strict=True)) | asked
    dim = documents[0].shape[1]
    embedder = KnownTokens({}, dim=dim, tokens=tokens)
    docs = db.create_collection(
        "tokens",
        fields={"text": gg.Text()},
        vectors={"dense": gg.Dense(dim), "tokens": gg.Tokens(dim)},
        embedder=embedder,
    )
    docs.upsert(ids=DATA.ids, vectors={"dense": np.ones((len(documents), dim), np.float32), "tokens": documents})
    docs.maintain()
    queries = dict(list(zip(DATA.query_ids, DATA.queries, strict=True))[:LATE_QUERIES])
    out: dict[str, Any] = {"queries": len(queries), "passages": LATE_PASSAGES, "tokens of a passage": LATE_TOKENS}
    for name, llm in models().items():
        for mix in (None, 0.6) if name != "half gold, half noise" else ():

            def expanded(text: str, llm: Model = llm, mix: float | None = mix) -> Any:
                asked = hyde(text, llm=llm, n=LATE_PASSAGES, task="{query}", mix=mix, cache={})
                return near("tokens", asked)

            gain = measure_gain(docs, queries, DATA.qrels, plain=lambda text: near("tokens", text), expanded=expanded)
            share = f"1 / {LATE_PASSAGES + 1}" if mix is None else f"{mix:g}"
            out.setdefault("plain", {m: round(gain[m].old, 4) for m in ("nDCG@10", "MRR@10")})
            out[f"{name}, weight of the query {share}"] = figures_of(gain)
            print("late", name, share, figures_of(gain), flush=True)
    return out


def main() -> None:
    options = measure.arguments(__doc__).parse_args()
    vectors = dict(zip(DATA.texts, DATA.vectors, strict=True)) | dict(
        zip(DATA.queries, DATA.query_vectors, strict=True)
    )
    with tempfile.TemporaryDirectory() as folder, gg.open(Path(folder) / "db") as db:
        docs = db.create_collection(
            "docs", fields={"text": gg.Text()}, vectors={"dense": gg.Dense(384)}, embedder=Known(vectors)
        )
        docs.upsert(ids=DATA.ids, fields={"text": DATA.texts}, vectors={"dense": DATA.vectors.astype(np.float32)})
        result: dict[str, Any] = {"bench": "hyde", "queries": len(DATA.queries), "passages": N, "dense": dense(docs)}
        result["failures and caches"] = failing(docs)
        from embed_late import TARGET

        if (TARGET / "docs.npy").exists():
            result["late interaction"] = late(db)
    measure.report(result, options.json)


if __name__ == "__main__":
    main()
