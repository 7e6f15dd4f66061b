"""Token fields that change: nDCG@10 after a fifth of the documents came, changed and went; memory of a stream of tokens.

Quality: SciFact's tokens (``embed_late.py``) among WordNet definitions, in a collection and in the bare index. A fifth of
SciFact's documents is added late, another fifth first has the tokens of other texts, and as many documents as a fifth are
there and go; what is there in the end is what the rebuild has.

Memory: tokens around 4,000 centres, written in batches by a process of its own, then ``maintain()``. The peak is that of
anonymous memory, read every 10 ms, over that before the first batch; the peak of resident memory counts pages of the file
too, which the system takes back when it needs them.

Bars: nDCG@10 within .005 of the rebuild; memory that does not grow with the tokens once it reaches the budget.
Run: python bench/late_churn.py --json bench/results/late_churn.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from late import judged, matrices, ndcg
from measure import arguments, report

import gingham as gg

Array = np.ndarray
DIM, BATCH = 128, 500
OTHERS = 10_000
SHARE = 0.2
CODEC = "Residual4"
STREAMS = ((250_000, 1024), (1_000_000, 1024), (4_000_000, 1024), (1_000_000, 256), (4_000_000, 256))
"""Tokens, and MiB of the memory budget."""
DOCUMENT_TOKENS, CENTRES = 100, 4000


def upserted(docs: Any, ids: list[int], tokens: list[Array]) -> None:
    for at in range(0, len(ids), BATCH):
        docs.upsert(ids=ids[at : at + BATCH], vectors={"t": tokens[at : at + BATCH]})


class Churn:
    """What is there before and after."""

    def __init__(self, own: list[Array], others: list[Array]) -> None:
        order = np.random.default_rng(0).permutation(len(own))
        n = int(SHARE * len(own))
        self.late, self.changed = order[:n].tolist(), order[n : 2 * n].tolist()
        self.gone = list(range(len(own) + OTHERS, len(own) + OTHERS + n))
        self.final = own + others[:OTHERS]
        self.wrong, self.going = others[OTHERS : OTHERS + n], others[OTHERS + n : OTHERS + 2 * n]

    def collection(self, folder: Path, queries: list[Array], qrels: Any, asked: list[int]) -> dict[str, Any]:
        def quality(docs: Any) -> float:
            rows = [[int(i) for i in docs.search(query, using="t", k=10).ids] for query in queries]
            return round(ndcg(np.array(rows), qrels, asked), 4)

        out: dict[str, Any] = {}
        with gg.open(folder) as db:
            kinds = {"t": gg.Tokens(DIM, codec=CODEC)}
            docs, rebuilt = (db.create_collection(name, vectors=kinds) for name in ("churned", "rebuilt"))
            first = sorted({*range(len(self.final))} - {*self.late, *self.changed})
            upserted(docs, first, [self.final[i] for i in first])
            upserted(docs, self.changed, self.wrong)
            upserted(docs, self.gone, self.going)
            docs.maintain()
            out["before"] = quality(docs)
            upserted(docs, self.late, [self.final[i] for i in self.late])
            for at in range(0, len(self.changed), BATCH):
                some = self.changed[at : at + BATCH]
                docs.update(ids=some, vectors={"t": [self.final[i] for i in some]})
            docs.delete(ids=self.gone)
            out["after"] = quality(docs)
            docs.maintain()
            out["after maintain()"] = quality(docs)
            upserted(rebuilt, list(range(len(self.final))), self.final)
            rebuilt.maintain()
            out["rebuilt"] = quality(rebuilt)
        return out

    def bare(self, queries: list[Array], qrels: Any, asked: list[int]) -> dict[str, Any]:
        """An update is a new document in place of a deleted one."""

        def quality(index: Any, ids: Array) -> float:
            rows = [ids[index.search(query, 10)[1][0]] for query in queries]
            return round(ndcg(np.array(rows), qrels, asked), 4)

        first = sorted({*range(len(self.final))} - {*self.late, *self.changed})
        churned, rebuilt = (gg.index.LateInteraction(DIM, codec=CODEC) for _ in range(2))
        churned.add([*(self.final[i] for i in first), *self.wrong, *self.going])
        again = [*self.late, *self.changed]
        for at in range(0, len(again), BATCH):
            churned.add([self.final[i] for i in again[at : at + BATCH]])
        churned.delete(range(len(first), len(first) + len(self.wrong) + len(self.going)))
        rebuilt.add(self.final)
        ids = np.array([*first, *self.changed, *self.gone, *again])
        return {"after": quality(churned, ids), "rebuilt": quality(rebuilt, np.arange(len(self.final)))}


def anonymous() -> float:
    """MiB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon")


def stream(folder: str, tokens: int, budget: int) -> None:
    """What the process does whose memory is measured."""
    import resource

    gg.warmup()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, DIM), dtype=np.float32)
    peaks, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peaks[-1] = max(peaks[-1], anonymous())

    with gg.open(folder, memory_budget=budget << 20) as db:
        docs = db.create_collection("docs", vectors={"t": gg.Tokens(DIM, codec=CODEC)})
        before = anonymous()
        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        for first in range(0, tokens // DOCUMENT_TOKENS, BATCH):
            given = centres[rng.integers(0, CENTRES, (BATCH, DOCUMENT_TOKENS))]
            given += 0.5 * rng.standard_normal(given.shape, dtype=np.float32)
            docs.upsert(ids=list(range(first, first + BATCH)), vectors={"t": list(given)})
        written = time.perf_counter() - started
        peaks.append(0.0)
        docs.maintain()
        ended.set()
        watcher.join()
        found = {
            "MiB before": round(before), "peak MiB more, writing": round(peaks[0] - before),
            "peak MiB more, maintain()": round(peaks[1] - before),
            "peak resident MiB with pages of the file": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "seconds to write": round(written, 1), "seconds in all": round(time.perf_counter() - started, 1),
            "segments": docs.stats().segments, "MiB of tokens": tokens * DIM * 2 >> 20,
        }  # fmt: skip
    print(json.dumps(found))


def memory() -> dict[str, Any]:
    out = {}
    for tokens, budget in STREAMS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--stream", f"{folder}/db", str(tokens), str(budget)]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
        name = f"{tokens:,} tokens, budget of {budget} MiB"
        out[name] = json.loads(found.stdout.splitlines()[-1])
        print(name, out[name], flush=True)
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--stream", nargs=3, help="used by the script itself")
    options = parser.parse_args()
    if options.stream:
        stream(options.stream[0], int(options.stream[1]), int(options.stream[2]))
        return
    gg.warmup()
    figures: dict[str, Any] = {"bench": "late_churn", "codec": CODEC, "memory": memory()}
    asked, qrels = judged()
    every = matrices("queries.npy", "query_starts.npy")
    queries = [every[at] for at in asked]
    churn = Churn(matrices("docs.npy", "starts.npy"), matrices("distractors.npy", "distractor_starts.npy"))
    figures["nDCG@10 of the bare index"] = churn.bare(queries, qrels, asked)
    print(figures["nDCG@10 of the bare index"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures["nDCG@10 of a collection"] = churn.collection(Path(folder) / "db", queries, qrels, asked)
    report(figures, options.json)


if __name__ == "__main__":
    main()
