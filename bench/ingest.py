"""Durable ingest and exact search of whole databases: Gingham, LanceDB, Chroma, sqlite-vec.

384-d float32 vectors and three fields in batches of 10,000 rows; Gingham and SQLite sync every batch to the
disk, LanceDB writes files per batch, Chroma leaves it to SQLite's log. Searches return ten ids; the batch has
256 queries, where a library has no batch call they are asked one by one.

Bars: ingest at least as fast as every embedded database that syncs per batch, and 0.6 of LanceDB.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import arguments, report

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 10_000
LANGS = ["en", "de", "fr", "es"]


class Ours:
    syncs = True

    def __init__(self, path: Path, dim: int) -> None:
        self.db = gg.open(path)
        fields = {"year": gg.Int(), "lang": gg.Keyword(), "title": gg.Text()}
        self.docs = self.db.create_collection("c", fields=fields, vectors={"v": gg.Dense(dim, "l2")})

    def add(self, ids: list[str], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        self.docs.upsert(ids=ids, vectors={"v": vectors}, fields=fields)

    def one(self, query: np.ndarray) -> list[str]:
        return [str(i) for i in self.docs.search(query, k=10, fields=[]).ids]

    def many(self, queries: np.ndarray) -> None:
        self.docs.search(queries, k=10, fields=[])

    def close(self) -> None:
        self.db.close()


class Lance:
    syncs = False

    def __init__(self, path: Path, dim: int) -> None:
        import lancedb
        import pyarrow as pa

        self.db = lancedb.connect(str(path))
        self.pa = pa
        kinds = [("id", pa.string()), ("v", pa.list_(pa.float32(), dim)), ("year", pa.int64())]
        self.table = self.db.create_table(
            "c", schema=pa.schema([*kinds, ("lang", pa.string()), ("title", pa.string())])
        )

    def add(self, ids: list[str], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        pa = self.pa
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        self.table.add(pa.table({"id": ids, "v": column, **fields}, schema=self.table.schema))

    def one(self, query: np.ndarray) -> list[str]:
        return self.table.search(query).select(["id", "_distance"]).limit(10).to_arrow()["id"].to_pylist()

    def many(self, queries: np.ndarray) -> None:
        self.table.search(list(queries)).select(["id", "_distance"]).limit(10).to_arrow()

    def close(self) -> None:
        pass


class Chroma:
    syncs = False

    def __init__(self, path: Path, dim: int) -> None:
        import chromadb
        from chromadb.config import Settings

        self.client = chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))
        self.docs = self.client.create_collection("documents", metadata={"hnsw:space": "l2"}, embedding_function=None)
        self.step = self.client.get_max_batch_size()

    def add(self, ids: list[str], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        rows = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        for at in range(0, len(ids), self.step):
            part = slice(at, at + self.step)
            self.docs.add(ids=ids[part], embeddings=vectors[part], metadatas=rows[part])

    def one(self, query: np.ndarray) -> list[str]:
        return self.docs.query(query_embeddings=[query], n_results=10, include=[])["ids"][0]

    def many(self, queries: np.ndarray) -> None:
        self.docs.query(query_embeddings=list(queries), n_results=10, include=[])

    def close(self) -> None:
        pass


class SqliteVec:
    syncs = True

    def __init__(self, path: Path, dim: int) -> None:
        import apsw
        import sqlite_vec

        self.db = apsw.Connection(str(path))
        self.db.enable_load_extension(True)
        self.db.load_extension(sqlite_vec.loadable_path())
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            f"CREATE VIRTUAL TABLE c USING vec0(id TEXT PRIMARY KEY, v FLOAT[{dim}], year INTEGER, lang TEXT, +title TEXT)"
        )

    def add(self, ids: list[str], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        rows = zip(ids, (v.tobytes() for v in vectors), *fields.values(), strict=True)
        with self.db:
            self.db.executemany("INSERT INTO c(id, v, year, lang, title) VALUES (?, ?, ?, ?, ?)", rows)

    def one(self, query: np.ndarray) -> list[str]:
        found = self.db.execute("SELECT id FROM c WHERE v MATCH ? AND k = 10 ORDER BY distance", (query.tobytes(),))
        return [row[0] for row in found]

    def many(self, queries: np.ndarray) -> None:
        for query in queries:
            self.one(query)

    def close(self) -> None:
        self.db.close()


def run(make: Callable[[Path, int], Any], vectors: np.ndarray, queries: np.ndarray, truth: list[str]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    try:
        engine = make(folder / "db", vectors.shape[1])
        seconds = 0.0
        for first in range(0, len(vectors), BATCH):
            numbers = range(first, min(first + BATCH, len(vectors)))
            ids = [f"doc-{i}" for i in numbers]
            fields = {
                "year": [2000 + i % 25 for i in numbers],
                "lang": [LANGS[i % 4] for i in numbers],
                "title": [f"title of {i}" for i in numbers],
            }
            block = vectors[first : first + BATCH]
            started = time.perf_counter()
            engine.add(ids, block, fields)
            seconds += time.perf_counter() - started
        engine.one(queries[0])
        engine.many(queries[:8])
        started = time.perf_counter()
        found = [engine.one(q) for q in queries[:30]]
        single = 30 / (time.perf_counter() - started)
        started = time.perf_counter()
        engine.many(queries)
        batch = len(queries) / (time.perf_counter() - started)
        size = sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())
        recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=False)]))
        engine.close()
        return {
            "ingest_rows_per_s": len(vectors) / seconds, "single_qps": single, "batch_qps": batch,
            "recall_at_10": recall, "disk_bytes": size, "syncs_each_batch": engine.syncs,
        }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    gg.warmup()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.rows, options.dim), dtype=np.float32)
    queries = rng.standard_normal((256, options.dim), dtype=np.float32)
    distances = (vectors**2).sum(axis=1)[None] - 2 * queries[:30] @ vectors.T
    truth = [[f"doc-{i}" for i in np.argsort(row)[:10]] for row in distances]
    engines = {"gingham": Ours, "lancedb": Lance, "sqlite-vec": SqliteVec, "chroma": Chroma}
    results = {name: run(make, vectors, queries, truth) for name, make in engines.items()}
    ours = results["gingham"]
    ratios = {
        name: {what: ours[what] / other[what] for what in ("ingest_rows_per_s", "single_qps", "batch_qps")}
        for name, other in results.items()
        if name != "gingham"
    }
    report(
        {"bench": "ingest", "rows": options.rows, "dim": options.dim, "results": results, "ratios": ratios},
        options.json,
    )


if __name__ == "__main__":
    main()
