"""Databases that live in the process that uses them, behind one small interface: what benchmarks compare.

Each takes vectors with three fields, ``year`` (int), ``lang`` (keyword) and ``title`` (text), in its best documented way:
Arrow tables where it takes them, indexes on the fields that are filtered, no telemetry. ``synced`` says what a write
that has returned has done for it to outlive a power cut, as far as the source or the manual of the store says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Effort = dict[str, int]
Where = tuple[str, Any]
"""A field and the value that it has to have."""

EF = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1024, 1280)
PROBES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64)
NAME = "docs"
K = 10
LANGS = ("de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt")


def columns(numbers: Sequence[int]) -> dict[str, list[Any]]:
    """Fields of rows: one of 100 years and one of ten languages at random, and a title of 40 characters."""
    rng = np.random.default_rng(len(numbers))
    return {
        "year": rng.integers(1925, 2025, len(numbers)).tolist(),
        "lang": [LANGS[number] for number in rng.integers(0, len(LANGS), len(numbers))],
        "title": [f"A title of some forty characters, {number:06d}" for number in numbers],
    }


class Store:
    """A collection with vectors ``v``; what its ladders hold are efforts, from low to high.

    With ``read`` it is opened to be read by one process of several.
    """

    modules: ClassVar[Sequence[str]]
    """Imported by those who use it."""
    synced: ClassVar[str]
    ladders: Sequence[Sequence[Effort]] = ((),)
    settings: dict[str, Any]

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        """Write rows; they are acknowledged when this returns."""
        raise NotImplementedError

    def index(self) -> None:
        """Return when all rows are in the index."""

    def prepare(self, effort: Effort) -> None:
        """Before searches of an effort, where calls cannot say it."""

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        """Ids of the nearest rows; titles are read as well where they are asked for."""
        raise NotImplementedError

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        """Ids of the nearest rows of each query, in one call."""
        raise NotImplementedError

    def present(self, ids: Sequence[Any]) -> int:
        """How many of these rows are there."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the folder."""


class Gingham(Store):
    """Ours, with the options of ``Dense``."""

    modules = ("gingham", "gingham.connect")
    synced = "fsync before a write returns"

    def __init__(self, path: Path, dim: int, *, metric: str = "cosine", read: bool = False, **dense: Any) -> None:
        import gingham as gg

        self.gg = gg
        self.db = gg.open(path, mode="r" if read else "w")
        fields = {"year": gg.Int(), "lang": gg.Keyword(), "title": gg.Text()}
        if not read and NAME not in self.db:
            self.db.create_collection(NAME, fields=fields, vectors={"v": gg.Dense(dim, metric, **dense)})  # type: ignore[arg-type]
        self.docs: Any = self.db[NAME]
        self.settings = dense
        if "index" in dense:
            self.ladders = (tuple({"ef_search": ef} for ef in EF),)

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        self.docs.upsert(ids=ids, vectors={"v": vectors}, fields=fields)

    def index(self) -> None:
        self.docs.maintain()
        stats = self.docs.stats()
        found = stats.vectors["v"]
        self.settings = {
            **self.settings, "segments": stats.segments, "indexed_rows": found.indexed_rows,
            "code_bytes": found.code_bytes, "link_bytes": found.link_bytes,
        }  # fmt: skip

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        condition = None if where is None else self.gg.F[where[0]] == where[1]
        hits = self.docs.search(query, k=K, fields=["title"] if title else [], where=condition, **effort)
        if title:
            assert all(hit["title"] for hit in hits)
        return list(hits.ids)

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        return self.docs.search(queries, k=K, fields=[], **effort).ids  # type: ignore[no-any-return]

    def present(self, ids: Sequence[Any]) -> int:
        return sum(row is not None for row in self.docs.get(ids, fields=[]))

    def close(self) -> None:
        self.db.close()


class Lance(Store):
    """LanceDB; without ``kind`` it has no index on the vectors."""

    modules = ("lancedb",)
    synced = "files are written and renamed, not synced"

    def __init__(
        self, path: Path, dim: int, *, metric: str = "cosine", read: bool = False, kind: str | None = None,
        ids: str = "int64", **options: Any,
    ) -> None:  # fmt: skip
        import lancedb
        import pyarrow as pa

        self.db, self.pa, self.metric, self.kind, self.options = lancedb.connect(str(path)), pa, metric, kind, options
        kinds = {"id": ids, "year": "int64", "lang": "string", "title": "string"}
        columns = [("v", pa.list_(pa.float32(), dim)), *((name, getattr(pa, kind)()) for name, kind in kinds.items())]
        self.table = self.db.create_table(NAME, schema=pa.schema(columns), exist_ok=True)
        self.settings = {"index": kind, **options}
        if kind == "HnswSq":  # ef may not be below the rows that are asked for or refined
            plain = tuple({"ef": ef} for ef in EF)
            self.ladders = plain, tuple({"ef": ef, "refine_factor": 2} for ef in EF if ef >= 2 * K)
        elif kind == "IvfPq":
            self.ladders = tuple(tuple({"nprobes": n, "refine_factor": r} for n in PROBES) for r in (2, 5, 10))

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        pa = self.pa
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        self.table.add(pa.table({"v": column, "id": ids, **fields}, schema=self.table.schema))

    def index(self) -> None:
        import lancedb.index

        self.table.optimize()
        if self.kind is not None:
            config = getattr(lancedb.index, self.kind)(distance_type=self.metric, **self.options)
            self.table.create_index("v", config=config)
            self.table.create_index("year", config=lancedb.index.BTree())
            self.table.create_index("lang", config=lancedb.index.Bitmap())

    def _query(self, query: Any, effort: Effort, columns: list[str]) -> Any:
        found = self.table.search(query, vector_column_name="v").distance_type(self.metric).select(columns).limit(K)
        for name, value in effort.items():
            found = getattr(found, name)(value)
        return found

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        found = self._query(query, effort, ["id", "_distance", *(["title"] if title else [])])
        if where is not None:
            found = found.where(f"{where[0]} = {where[1]!r}")
        rows = found.to_arrow()
        if title:
            assert all(rows["title"].to_pylist())
        return rows["id"].to_pylist()  # type: ignore[no-any-return]

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        rows = self._query(list(queries), effort, ["id", "_distance"]).to_arrow()
        found: list[list[Any]] = [[] for _ in queries]
        for at, number in zip(rows["query_index"].to_pylist(), rows["id"].to_pylist(), strict=True):
            found[at].append(number)
        return found

    def present(self, ids: Sequence[Any]) -> int:
        return len({*self.table.search().select(["id"]).to_arrow()["id"].to_pylist()} & {*ids})


class Chroma(Store):
    """Chroma's PersistentClient; ids are strings."""

    modules = ("chromadb",)
    synced = "left to SQLite's log"

    def __init__(self, path: Path, dim: int, *, metric: str = "cosine", read: bool = False, **hnsw: Any) -> None:
        self.path, self.metric, self.hnsw, self.read = path, metric, hnsw, read
        self.ladders = (tuple({"ef_search": ef} for ef in EF),)
        self._open()
        self.settings = dict(self.docs.configuration["hnsw"])

    def _open(self) -> None:
        import chromadb
        from chromadb.config import Settings

        self.client = chromadb.PersistentClient(str(self.path), Settings(anonymized_telemetry=False))
        self.step = self.client.get_max_batch_size()
        if self.read:
            self.docs = self.client.get_collection(NAME, embedding_function=None)
            return
        graph: Any = {"space": self.metric, **self.hnsw}
        self.docs = self.client.get_or_create_collection(NAME, configuration={"hnsw": graph}, embedding_function=None)

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        names = [str(number) for number in ids]
        rows = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        for at in range(0, len(ids), self.step):
            part = slice(at, at + self.step)
            self.docs.add(ids=names[part], embeddings=vectors[part], metadatas=rows[part])  # type: ignore[arg-type]

    def index(self) -> None:
        """A query reads what the log has and the graph has not."""
        self.search(self.docs.peek(1)["embeddings"][0], {})  # type: ignore[index]

    def prepare(self, effort: Effort) -> None:
        """A graph that is loaded keeps the ef_search that it was loaded with; readers take what the last writer said."""
        if self.read:
            return
        self.docs.modify(configuration={"hnsw": effort or {"ef_search": self.settings["ef_search"]}})  # type: ignore[typeddict-item]
        self.close()
        self._open()

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        found = self.docs.query(
            query_embeddings=[query], n_results=K, include=["metadatas"] if title else [],
            where=None if where is None else dict([where]),
        )  # fmt: skip
        if title:
            assert all(row["title"] for row in found["metadatas"][0])  # type: ignore[index]
        return found["ids"][0]

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        return self.docs.query(query_embeddings=list(queries), n_results=K, include=[])["ids"]  # type: ignore[no-any-return]

    def present(self, ids: Sequence[Any]) -> int:
        return len(self.docs.get(ids=[str(number) for number in ids], include=[])["ids"])

    def close(self) -> None:
        self.client.close()


class Milvus(Store):
    """Milvus Lite by its client: a server in threads of this process, asked over loopback."""

    modules = ("pymilvus", "milvus_lite.db")
    synced = "written to a log, not synced"

    def __init__(
        self, path: Path, dim: int, *, metric: str = "cosine", read: bool = False, kind: str = "HNSW", **options: Any
    ) -> None:
        from pymilvus import DataType, MilvusClient

        self.path = path
        self._open()
        self.settings = {"index": kind, **options}
        self.ladders = (tuple({"ef": ef} for ef in EF),)
        if self.client.has_collection(NAME):
            self.client.load_collection(NAME)
            return
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("year", DataType.INT64)
        schema.add_field("lang", DataType.VARCHAR, max_length=16)
        schema.add_field("title", DataType.VARCHAR, max_length=200)
        indexes = self.client.prepare_index_params()
        indexes.add_index("v", index_type=kind, metric_type=metric.upper(), params=options)
        for name in ("year", "lang"):
            indexes.add_index(name, index_type="INVERTED")
        self.client.create_collection(NAME, schema=schema, index_params=indexes)

    def _open(self) -> None:
        from pymilvus import MilvusClient

        self.client = MilvusClient(f"{self.path}.db")

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        columns = zip(ids, vectors, *fields.values(), strict=True)
        self.client.insert(NAME, [dict(zip(("id", "v", *fields), row, strict=True)) for row in columns])

    def index(self) -> None:
        """A thread makes indexes after a flush; closing waits for it, and so far searches compare with every row."""
        self.client.flush(NAME)
        self.close()
        self._open()
        self.client.load_collection(NAME)

    def _search(self, queries: np.ndarray, effort: Effort, where: Where | None, columns: list[str]) -> Any:
        condition = "" if where is None else f"{where[0]} == {where[1]!r}"
        params = {"params": effort} if effort else None
        return self.client.search(
            NAME, data=list(queries), limit=K, filter=condition, output_fields=columns, search_params=params
        )

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        (hits,) = self._search(query[None], effort, where, ["title"] if title else [])
        if title:
            assert all(hit["entity"]["title"] for hit in hits)
        return [hit["id"] for hit in hits]

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        return [[hit["id"] for hit in hits] for hits in self._search(queries, effort, None, [])]

    def present(self, ids: Sequence[Any]) -> int:
        return len(self.client.get(NAME, ids=list(ids), output_fields=["id"]))

    def close(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        self.client.close()
        server_manager_instance.release_all()


class Qdrant(Store):
    """Local mode of qdrant-client, which compares a query with every row."""

    modules = ("qdrant_client",)
    synced = "SQLite commits"

    def __init__(self, path: Path, dim: int, *, metric: str = "cosine", read: bool = False) -> None:
        import warnings

        from qdrant_client import QdrantClient, models

        warnings.filterwarnings("ignore", "Local mode is not recommended")
        self.client, self.models = QdrantClient(path=str(path)), models
        self.settings = {"index": None}
        if not self.client.collection_exists(NAME):
            shape = models.VectorParams(size=dim, distance=getattr(models.Distance, metric.upper()))
            self.client.create_collection(NAME, vectors_config=shape)

    def add(self, ids: Sequence[Any], vectors: np.ndarray, fields: dict[str, list[Any]]) -> None:
        payloads = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        batch = self.models.Batch(ids=list(ids), vectors=vectors.tolist(), payloads=payloads)
        self.client.upsert(NAME, batch)

    def search(
        self, query: np.ndarray, effort: Effort, where: Where | None = None, *, title: bool = False
    ) -> list[Any]:
        models = self.models
        condition = None
        if where is not None:
            equal = models.FieldCondition(key=where[0], match=models.MatchValue(value=where[1]))
            condition = models.Filter(must=[equal])
        points = self.client.query_points(
            NAME, query, limit=K, query_filter=condition, with_payload=["title"] if title else False
        ).points
        if title:
            assert all(point.payload["title"] for point in points)  # type: ignore[index]
        return [point.id for point in points]

    def many(self, queries: np.ndarray, effort: Effort) -> list[list[Any]]:
        asked = [self.models.QueryRequest(query=query.tolist(), limit=K) for query in queries]
        return [[point.id for point in found.points] for found in self.client.query_batch_points(NAME, asked)]

    def present(self, ids: Sequence[Any]) -> int:
        return len(self.client.retrieve(NAME, list(ids), with_payload=False))

    def close(self) -> None:
        self.client.close()
