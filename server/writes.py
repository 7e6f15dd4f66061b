"""Writes of clients: rows from messages, rows that a client has embedded, and several changes in one commit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pyarrow as pa

from gingham.collection import TextsMoved
from gingham.errors import InvalidArgument, NotReady, SchemaMismatch
from gingham.rows import from_columns
from gingham.schema import Tokens
from gingham.server.access import known_by
from gingham.server.convert import filter_of, written
from gingham.server.proto import gingham_pb2 as pb
from gingham.storage.receipts import OnceStore
from gingham.storage.schema_moves import set_embedder
from gingham.token_vectors import token_matrices
from gingham.transaction import Transaction
from gingham.types import encode_id
from gingham.wire import unpack_batch, unpack_embedder, unpack_ids

if TYPE_CHECKING:
    from gingham.collection import Collection
    from gingham.database import Database
    from gingham.embed.record import EmbedderRecord
    from gingham.schema import Schema
    from gingham.storage.session import WriteSession
    from gingham.storage.store import Store
    from gingham.types import RowBatch

MOST_ID_BYTES = 64
"""Of a request."""


class _ElsewhereEmbedder:
    """Stands for the embedder of a client, which has embedded the texts of the rows that it sends."""

    def __init__(self, record: EmbedderRecord) -> None:
        self.name, self.revision, self.dim = record.name, record.revision, record.dim

    def embed_documents(self, texts: Any) -> NoReturn:
        """Raise NotReady."""
        raise NotReady(
            f"rows that a client has embedded expect a vector beside each text, found {len(texts)} texts without; "
            f"embed them by {self.name!r}"
        )

    embed_queries = embed_documents


def columns_of(packed: bytes, schema: Schema) -> dict[str, Any]:
    """Arguments ``ids``, ``vectors`` and ``fields`` of rows."""
    ids, columns = unpack_batch(packed)
    vectors = {
        name: _matrices(column) if isinstance(schema.vectors[name], Tokens) else column
        for name, column in columns.items()
        if name in schema.vectors
    }
    fields = {name: column for name, column in columns.items() if name not in vectors}
    return {"ids": ids, "vectors": vectors, "fields": fields}


def _matrices(column: pa.Array) -> Any:
    """Token matrices; anything else as it is, for the checks of rows."""
    tokens = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not (pa.types.is_fixed_size_list(tokens) and tokens.list_size and pa.types.is_list(column.type)):
        return column
    numbers = column.values.values
    if not pa.types.is_floating(numbers.type) or numbers.null_count or column.values.null_count:
        return column
    return token_matrices(column, tokens.list_size)


def upsert(database: Database, request: pb.UpsertRequest) -> pb.UpsertResponse:
    """Insert rows."""
    collection = written_to(database, request)
    return pb.UpsertResponse(result=written(collection.upsert(**columns_of(request.rows, collection.schema))))


def update(database: Database, request: pb.UpdateRequest) -> pb.UpdateResponse:
    """Change rows; what a client saw of them has to be there still."""
    collection = written_to(database, request)
    schema = collection.schema
    batches = [from_columns(schema, **columns_of(packed, schema), partial=True) for packed in request.batches]
    for batch in batches:
        if not (batch.vectors or batch.fields):
            raise InvalidArgument("update() expects vectors= or fields= with what to change, found neither")
    if not any(request.seen):
        return pb.UpdateResponse(result=written(collection._update_batches(batches, schema)))
    if not request.embedded or len(request.seen) != len(batches):
        raise InvalidArgument(
            f"an update expects what was seen of each of {len(batches)} embedded batches, found {len(request.seen)}"
        )
    changes = [(batch, _seen(batch, packed)) for batch, packed in zip(batches, request.seen, strict=True)]
    try:
        result = collection._store.write(partial(collection._update_seen, changes, schema))
    except TextsMoved:
        return pb.UpdateResponse(texts_moved=True)
    return pb.UpdateResponse(result=written(result))


def _seen(batch: RowBatch, packed: bytes) -> dict[str, list[Any]]:
    """Texts of the rows of a batch, in its order."""
    if not packed:
        return {}
    ids, columns = unpack_batch(packed)
    if [encode_id(user_id) for user_id in ids] != batch.ids:
        raise InvalidArgument(f"what was seen of a batch expects its {len(batch)} ids, found {len(ids)} others")
    return {name: column.to_pylist() for name, column in columns.items()}


def delete(database: Database, request: pb.DeleteRequest) -> pb.DeleteResponse:
    """Remove rows."""
    result = written_to(database, request).delete(**delete_arguments(request))
    return pb.DeleteResponse(result=written(result))


def delete_arguments(request: pb.DeleteRequest) -> dict[str, Any]:
    """Keyword arguments of ``delete``."""
    kind = request.WhichOneof("rows")
    ids = unpack_ids(request.ids.values) if kind == "ids" else None
    return {"ids": ids, "where": filter_of(request.where) if kind == "where" else None}


def write_batch(database: Database, request: pb.WriteBatchRequest) -> pb.WriteBatchResponse:
    """Apply changes in one commit."""
    if not request.changes:
        raise InvalidArgument("a batch of writes expects at least one change, found none")
    kinds = [change.WhichOneof("kind") for change in request.changes]
    if None in kinds:
        raise InvalidArgument("a change expects rows to insert, to change or to remove, found none of them")
    changes = [(str(kind), getattr(change, str(kind))) for kind, change in zip(kinds, request.changes, strict=True)]
    reader = database._reader(write=True)
    reader.store = _once(reader.store, request)
    with Transaction(reader, _embedders(database, changes)) as transaction:
        for kind, change in changes:
            collection = transaction[change.collection]
            if kind == "upsert":
                collection.upsert(**columns_of(change.rows, collection.schema))
            elif kind == "delete":
                collection.delete(**delete_arguments(change))
            else:
                if any(change.seen):
                    raise InvalidArgument("an update in a transaction expects nothing that was seen, found texts")
                if not change.batches:
                    raise InvalidArgument("an update expects at least one batch of rows, found none")
                for packed in change.batches:
                    collection.update(**columns_of(packed, collection.schema))
    assert transaction.result is not None
    return pb.WriteBatchResponse(result=written(transaction.result))


def attach_embedder(database: Database, request: pb.AttachEmbedderRequest) -> None:
    """Keep the embedder of a collection, which a client has checked; raises SchemaMismatch where it has another one."""
    embedder = unpack_embedder(request.embedder)
    if embedder is None:
        raise InvalidArgument("an embedder expects a name, a revision, a width and a fingerprint, found none of them")

    def change(session: WriteSession) -> None:
        record = session.collection(request.collection)
        if record.embedder is None:
            set_embedder(session, record.cid, embedder)
        elif record.embedder != embedder:
            raise SchemaMismatch(
                f"the stored vectors come from {record.embedder.name!r}, found the embedder {embedder.name!r}; attach "
                "the former, or embed the texts again into a new collection"
            )

    database._reader(write=True).store.write(change)


def written_to(
    database: Database, request: pb.UpsertRequest | pb.UpdateRequest | pb.DeleteRequest | pb.IngestHeader
) -> Collection:
    """The collection that a request writes to, once where the request has an id."""
    collection = database[request.collection]
    collection._store = _once(collection._store, request)
    if getattr(request, "embedded", False):
        with collection._reader.session() as session:
            record = session.collection_by_id(collection._cid)
        collection._embedder = None if record.embedder is None else _ElsewhereEmbedder(record.embedder)
    return collection


def _once(store: Store, request: Any) -> Store:
    """A store that makes the change of a request once, if it has an id."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name or not request.HasField("request_id"):
        return store
    if not 0 < len(request.request_id) <= MOST_ID_BYTES:
        raise InvalidArgument(
            f"the id of a request expects 1 to {MOST_ID_BYTES} bytes, found {len(request.request_id)}"
        )
    return cast("Store", OnceStore(store, known_by("request", request.request_id)))


def _embedders(database: Database, changes: list[tuple[str, Any]]) -> dict[int, Any]:
    """The embedders of collections by number, those of the client where it has embedded the rows."""
    found: dict[int, Any] = dict(database._embedders)
    names = {change.collection for kind, change in changes if kind != "delete" and change.embedded}
    with database._reader().session() as session:
        for record in [session.collection(name) for name in sorted(names)]:
            if record.embedder is not None:
                found[record.cid] = _ElsewhereEmbedder(record.embedder)
    return found
