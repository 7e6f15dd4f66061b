"""Documents of a framework as rows of a collection: text, a vector, and metadata of any shape."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from gingham.clients.rag.extras import missing_extra
from gingham.clients.rag.metadata import FIELDS, KEYS, columns_of, field_of, for_schema
from gingham.errors import AlreadyExists, CollectionNotFound, InvalidArgument
from gingham.query.bind import filter_node
from gingham.query.nodes import MinMax, fuse, match, near
from gingham.schema import Dense, Json, Keyword, Metric, Text
from gingham.types import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from gingham.query.ast import Node
    from gingham.query.bind import Where
    from gingham.query.nodes import Query
    from gingham.schema import Schema

Mode = Literal["dense", "text", "hybrid"]
"""By the vector, by BM25 on the words, or by both, fused."""
METADATA, EXTRA, DOCUMENT_ID = "metadata", "extra", "document_id"


@dataclass(frozen=True)
class StoredDocument:
    """One row.

    Attributes
    ----------
    id : id of the row
    text : what is embedded, searched by its words and returned
    metadata : JSON values by key
    vector : of the text, or None
    extra : what else the framework wants back; it is not filtered
    """

    id: str
    text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    vector: Any = None
    extra: dict[str, Any] | None = None


class DocumentCollection:
    """A collection of documents, made when the first ones are written.

    Parameters
    ----------
    target : :class:`gingham.Database`, embedded or remote, :class:`gingham.Collection`, path of a folder or
        ``"grpc://HOST:PORT"``; what is opened here is closed by :meth:`close`
    collection : name in the database
    text_field, vector_field : where text and vectors are; a collection made otherwise may have them under other names,
        and its other fields are read and filtered as metadata
    metric : of the vectors where the collection or the vector field is made here: ``"cosine"`` (default), ``"dot"``,
        ``"l2"``
    language : of the words, where the collection is made here

    Raises
    ------
    InvalidArgument : ``target`` is something else
    MissingExtra : a remote target, and gRPC is not installed
    """

    def __init__(
        self,
        target: Any,
        collection: str = "documents",
        *,
        text_field: str = "text",
        vector_field: str = "embedding",
        metric: Metric = "cosine",
        language: str = "english",
    ) -> None:
        self.name, self.text_field, self.vector_field, self.metric = collection, text_field, vector_field, metric
        self.layout = frozenset({text_field, METADATA, EXTRA, DOCUMENT_ID, KEYS})
        self._text = Text(bm25=True, language=language)
        self._opened = _open(target) if isinstance(target, (str, os.PathLike)) else None
        self._database = target if self._opened is None else self._opened
        self._collection: Any = None
        if not hasattr(self._database, "create_collection"):
            if not (hasattr(target, "upsert") and hasattr(target, "search")):
                raise InvalidArgument(
                    "a backend expects a gingham Database or Collection, a path or grpc://HOST:PORT, "
                    f"found {type(target).__name__}"
                )
            self._collection, self.name = target, target.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here; may be called twice."""
        if self._opened is not None:
            self._opened.close()

    def write(self, documents: Sequence[StoredDocument]) -> None:
        """Insert documents, replacing those of the same id, in one commit; columns for new keys are added before."""
        if not documents:
            return
        columns = [columns_of(document.metadata) for document in documents]
        dims = {len(document.vector) for document in documents if document.vector is not None}
        collection = self._with_columns({name for row in columns for name in row}, max(dims, default=None))
        collection.upsert([self._row(*pair) for pair in zip(documents, columns, strict=True)])

    def _row(self, document: StoredDocument, columns: dict[str, Any]) -> dict[str, Any]:
        row = {
            "id": document.id, self.text_field: document.text, METADATA: document.metadata, EXTRA: document.extra,
            DOCUMENT_ID: document.id, **columns,
        }  # fmt: skip
        return row if document.vector is None else {**row, self.vector_field: document.vector}

    def _with_columns(self, columns: set[str], dim: int | None) -> Any:
        """The collection, made where there is none, with these columns of metadata and a vector field."""
        fields = {self.text_field: self._text, METADATA: Json(), EXTRA: Json(), DOCUMENT_ID: Keyword()}
        fields |= {name: field_of(name) or FIELDS["strs"] for name in sorted({KEYS, *columns})}
        vectors = {} if dim is None else {self.vector_field: Dense(dim, self.metric)}
        collection = self._existing()
        if collection is None:
            try:
                self._collection = self._database.create_collection(self.name, fields=fields, vectors=vectors)
                return self._collection
            except AlreadyExists:
                collection = self._database.collection(self.name)
        schema = collection.schema
        for add, missing in (
            (collection.add_field, {n: f for n, f in fields.items() if n not in schema.fields}),
            (collection.add_vector, {n: v for n, v in vectors.items() if n not in schema.vectors}),
        ):
            for name, kind in missing.items():
                try:
                    add(name, kind)
                except InvalidArgument:
                    now = collection.schema
                    if name not in now.fields and name not in now.vectors:  # nobody else added it meanwhile
                        raise
        return collection

    def _existing(self) -> Any:
        if self._collection is None:
            try:
                self._collection = self._database.collection(self.name)
            except CollectionNotFound:
                return None
        return self._collection

    def stored_metric(self) -> Metric:
        """Metric of the vectors: that of the collection where it has some."""
        collection = self._existing()
        found = None if collection is None else collection.schema.dense.get(self.vector_field)
        return self.metric if found is None else found.metric

    def get(self, ids: Iterable[str], *, include_vectors: bool = False) -> list[StoredDocument]:
        """Documents by id, in the order asked for; those that are not there are left out."""
        collection = self._existing()
        if collection is None:
            return []
        schema = collection.schema
        names = self._payload(schema)
        rows = collection.get(list(ids), fields=names, include_vectors=include_vectors)
        return [self._document(row["id"], row, names, row.get(self.vector_field)) for row in rows if row is not None]

    def scan(self, where: Where = None, *, include_vectors: bool = False) -> list[StoredDocument]:
        """All documents, or those that a filter selects, by id."""
        return list(self._scan(where, include_vectors))

    def _scan(self, where: Where, include_vectors: bool) -> Iterator[StoredDocument]:
        collection = self._existing()
        if collection is not None:
            schema = collection.schema
            condition, names = self._condition(where, schema), self._payload(schema)
            for row in collection.scan(where=condition, fields=names, include_vectors=include_vectors):
                yield self._document(row["id"], row, names, row.get(self.vector_field))

    def count(self, where: Where = None) -> int:
        """How many documents there are, or a filter selects."""
        collection = self._existing()
        return 0 if collection is None else collection.count(where=self._condition(where, collection.schema))

    def delete(self, *, ids: Iterable[str] | None = None, where: Where = None) -> int:
        """Remove documents by id or by a filter; how many there were."""
        collection = self._existing()
        if collection is None:
            return 0
        if ids is not None:
            return int(collection.delete(ids=list(ids)).deleted)
        return int(collection.delete(where=self._condition(where, collection.schema)).deleted)

    def search(
        self,
        *,
        k: int,
        vector: Any = None,
        text: str | None = None,
        mode: Mode = "dense",
        where: Where = None,
        weight: float | None = None,
        diversity: float | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
    ) -> list[tuple[StoredDocument, float]]:
        """Find documents.

        Parameters
        ----------
        k : documents returned at most
        vector, text : the query, as the mode asks for
        mode : ``"dense"``, ``"text"`` or ``"hybrid"``
        where : filter, before documents are scored
        weight : in hybrid mode the weight of the vector, from 0 to 1, in a convex sum of scaled scores
            (:class:`gingham.MinMax`); None fuses by reciprocal ranks (:class:`gingham.RRF`)
        diversity : reorder by maximal marginal relevance, from 0 (not at all) to 1
        candidates : documents that are reordered

        Returns
        -------
        list of (document, score) : best first; the score is that of the metric, of BM25 or of the fusion, greater is
            better; empty while nothing was written

        Raises
        ------
        InvalidArgument : a query is missing, or a number out of range
        """
        k = whole("search(k=)", k, 0)
        query = self._query(mode, vector, text, weight, candidates or max(k, 1))
        collection = self._existing()
        schema = None if collection is None else collection.schema
        if schema is None or k == 0 or (mode != "text" and self.vector_field not in schema.vectors):
            return []
        if diversity is not None:
            query = query.diversify(diversity, using=self.vector_field, candidates=candidates)
        names = self._payload(schema)
        found = collection.query(query.limit(k), where=self._condition(where, schema), fields=names)
        vectors = {d.id: d.vector for d in self.get(found.ids, include_vectors=True)} if include_vectors else {}
        return [(self._document(h.id, h.fields, names, vectors.get(h.id)), float(h.score)) for h in found]

    def _query(self, mode: Mode, vector: Any, text: str | None, weight: float | None, depth: int) -> Query:
        if mode not in get_args(Mode):
            raise InvalidArgument(f"mode= expects one of {', '.join(get_args(Mode))}, found {mode!r:.60}")
        if (mode != "text" and vector is None) or (mode != "dense" and text is None):
            raise InvalidArgument(
                f"mode={mode!r} expects a vector for dense search and a text for words, found too few"
            )
        if mode == "dense":
            return near(self.vector_field, vector)
        if mode == "text":
            return match(self.text_field, text or "")
        branches = (
            near(self.vector_field, vector, k=4 * depth + 64),
            match(self.text_field, text or "", k=4 * depth + 64),
        )
        return fuse(*branches, by=None if weight is None else MinMax(weights=(weight, 1 - weight)))

    def _condition(self, where: Where, schema: Schema) -> Node | None:
        node = filter_node(where)
        return None if node is None else for_schema(node, schema, self.layout)

    def _payload(self, schema: Schema) -> list[str]:
        """Fields to read: not the columns that only filters read."""
        return [name for name in schema.fields if name not in (KEYS, DOCUMENT_ID) and field_of(name) is None]

    def _document(self, row_id: Any, row: dict[str, Any], names: list[str], vector: Any) -> StoredDocument:
        own = {name: row[name] for name in names if name not in self.layout and row[name] is not None}
        metadata = {**own, **(row.get(METADATA) or {})}
        return StoredDocument(row_id, row.get(self.text_field), metadata, vector, row.get(EXTRA))


def _open(target: Any) -> Any:
    if isinstance(target, str) and target.startswith(("grpc://", "grpcs://")):
        try:
            from gingham.clients.remote import RemoteDatabase
        except ImportError as error:
            raise missing_extra("server", error) from error
        return RemoteDatabase(target)
    from gingham.config import StoreOptions
    from gingham.database import Database

    return Database(target, StoreOptions())
