"""The questions of the page, put to a database that is embedded or elsewhere; nothing is written."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import itertools
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from gingham.clients.console.messages import (
    MOST_HITS,
    MOST_POINTS,
    MOST_QUERIES,
    AskedMap,
    AskedMeasure,
    AskedSearch,
    CollectionAnswer,
    Column,
    HitAnswer,
    Id,
    LatencyAnswer,
    MapAnswer,
    Overview,
    SearchAnswer,
    StepAnswer,
    Way,
)
from gingham.clients.console.plane import principal_plane
from gingham.deadline import check, within
from gingham.errors import InvalidArgument, NotFound, PermissionDenied
from gingham.query.nodes import like
from gingham.schema import Bool, Float, Int, Keyword, Text, Timestamp
from gingham.types import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gingham.embed import Embedder
    from gingham.query.recall import RecallReport
    from gingham.types import UserId

SECONDS = 30.0
"""What one answer may take."""
SCANNED = 100_000
"""Rows whose ids a sample is drawn from."""
BLOCK = 100
"""Rows read at once with their vectors."""
LONGEST_TEXT = 2_000
"""Characters of a value that is shown."""
SAFE_INTEGER = (1 << 53) - 1
"""Greatest integer that JavaScript holds exactly."""


class Answers:
    """Answers from one database; see :func:`gingham.clients.console.app.console_app`."""

    def __init__(self, database: Any, name: str, embedder: Embedder | None) -> None:
        self._database = database
        self._name = name
        self._embedder = embedder

    def overview(self) -> Overview:
        """The collections and what they can be asked."""
        described = [self._described(name) for name in self._database.collections()]
        return Overview(importlib.metadata.version("gingham"), self._name, described)

    def search(self, asked: AskedSearch) -> SearchAnswer:
        """Rows for a text, or like a stored row.

        Raises
        ------
        InvalidArgument : neither or both of them, or k is out of range
        NotFound : no row has the id
        """
        if (asked.text is None) == (asked.like is None):
            raise InvalidArgument("a search expects either a text or the id of a row, found both or neither")
        k = whole("search(k=)", asked.k, most=MOST_HITS)
        collection = self._collection(asked.collection)[0]
        if asked.like is None:
            ask: dict[str, Any] = {"query": asked.text, "using": asked.using, "k": k}
            call = collection.search
        else:
            ask = {"query": like(_stored(collection, asked.like), using=asked.using).limit(k)}
            call = collection.query
        started = time.perf_counter()
        hits = call(**ask, where=asked.where or None, timeout=SECONDS)
        seconds = time.perf_counter() - started
        return SearchAnswer(
            [HitAnswer(Id.of(hit.id), float(hit.score), _shown(hit.fields)) for hit in hits],
            hits.complete.why,
            seconds * 1e3,
            [
                StepAnswer(label, step.seconds * 1e3, step.rows, step.detail)
                for label, step in hits.explain().root.lines()
            ],
        )

    def map(self, asked: AskedMap) -> MapAnswer:
        """A sample of rows in the plane of greatest variance of their vectors.

        Raises
        ------
        InvalidArgument : no row has a vector
        """
        n = whole("map(n=)", asked.n, most=MOST_POINTS)
        collection = self._collection(asked.collection)[0]
        schema = collection.schema
        name, dense = schema.vector(asked.using)
        if asked.colour is not None:
            schema.field(asked.colour)
        with within(SECONDS):
            rows, first = _sample(collection, name, n, asked.where, [] if asked.colour is None else [asked.colour])
            if not rows:
                raise InvalidArgument(f"a map expects rows with a vector {name!r}, found none")
            vectors = np.stack([row[name] for row in rows]).astype(np.float64)
            if dense.metric == "cosine":
                vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
            points, shares = principal_plane(vectors)
        values = None if asked.colour is None else [_plain(row[asked.colour]) for row in rows]
        return MapAnswer(
            collection.count(where=asked.where or None),
            first,
            shares.round(4).tolist(),
            [Id.of(row["id"]) for row in rows],
            points[:, 0].round(5).tolist(),
            points[:, 1].round(5).tolist(),
            values,
        )

    def recall(self, asked: AskedMeasure) -> RecallReport:
        """What searches find of what exact ones find; see :meth:`gingham.Collection.recall`."""
        n = whole("recall(n=)", asked.n, most=MOST_QUERIES)
        k = whole("recall(k=)", asked.k, most=MOST_HITS)
        report: RecallReport = self._collection(asked.collection)[0].recall(
            k=k, n=n, where=asked.where or None, using=asked.using, timeout=SECONDS
        )
        return report

    def latency(self, asked: AskedMeasure) -> LatencyAnswer:
        """How long single searches for the vectors of stored rows take, payload left out.

        Raises
        ------
        InvalidArgument : no row has a vector
        """
        n = whole("latency(n=)", asked.n, most=MOST_QUERIES)
        k = whole("latency(k=)", asked.k, most=MOST_HITS)
        collection = self._collection(asked.collection)[0]
        name, _ = collection.schema.vector(asked.using)
        with within(SECONDS):
            rows, _ = _sample(collection, name, n, None, [])
            if not rows:
                raise InvalidArgument(f"a latency expects rows with a vector {name!r}, found none")
            # This waits for kernels, which searches do without until they are loaded.
            collection.recall(k=1, n=1, using=name)
            times = []
            for row in [rows[0], *rows]:  # the first is not counted: it reads pages and plans
                check()
                started = time.perf_counter()
                collection.search(row[name], k=k, using=name, where=asked.where or None, fields=[])
                times.append((time.perf_counter() - started) * 1e3)
        median, p99 = np.percentile(times[1:], [50, 99])
        return LatencyAnswer(len(rows), float(median), float(p99), max(times[1:]))

    def _collection(self, name: str) -> tuple[Any, bool]:
        """A collection, and whether the embedder is that of its vectors."""
        if self._embedder is not None:
            with contextlib.suppress(InvalidArgument):
                return self._database.collection(name, embedder=self._embedder), True
        return self._database.collection(name), False

    def _described(self, name: str) -> CollectionAnswer:
        collection, embeds = self._collection(name)
        schema = collection.schema
        meaning = (
            schema.embedded if embeds else [name for name, kind in schema.dense.items() if kind.source is not None]
        )
        ways = [
            *(Way("words", name) for name, kind in schema.inverted.items() if isinstance(kind, Text)),
            *(Way("meaning", name) for name in meaning),
            *(Way("like", name) for name in schema.dense),
        ]
        try:
            figures = asdict(collection.stats())
        except PermissionDenied:
            figures = None
        return CollectionAnswer(
            name,
            collection.count(),
            figures,
            [Column(name, repr(kind)) for name, kind in [*schema.fields.items(), *schema.vectors.items()]],
            ways,
            [
                name
                for name, kind in schema.fields.items()
                if isinstance(kind, (Bool, Float, Int, Keyword, Timestamp)) and not getattr(kind, "many", False)
            ],
        )


def _stored(collection: Any, asked: Id) -> UserId:
    """The id of a row that is there."""
    ids = asked.read_as()
    found = collection.get(ids, fields=[])
    for user_id, row in zip(ids, found, strict=True):
        if row is not None:
            return user_id
    raise NotFound(f"a search like a row expects the id of one that is there, found {asked.text[:60]!r}")


def _sample(
    collection: Any, vector: str, n: int, where: str | None, fields: list[str]
) -> tuple[list[dict[str, Any]], int]:
    """At most ``n`` rows that have a vector, drawn at random and always the same, and of how many they were drawn."""
    with contextlib.closing(collection.scan(where=where or None, fields=[])) as scan:
        ids = [row["id"] for row in itertools.islice(scan, SCANNED)]
    drawn: NDArray[np.intp] = np.random.default_rng(0).choice(len(ids), min(n, len(ids)), replace=False)
    chosen = [ids[at] for at in np.sort(drawn)]
    rows = []
    for start in range(0, len(chosen), BLOCK):
        check()
        block = collection.get(chosen[start : start + BLOCK], fields=fields, include_vectors=True)
        kept = ("id", vector, *fields)
        rows += [{key: row[key] for key in kept} for row in block if row is not None and row[vector] is not None]
    return rows, len(ids)


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    """A value as the page shows it: long texts cut, and as text what JSON or JavaScript cannot hold."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "…"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (dict, list)):
        return _plain(msgspec.json.encode(value, enc_hook=str).decode())
    if isinstance(value, int) and not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
