"""The RPCs over an open database: each is one call of it."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import msgspec

from gingham.deadline import CancelScope, within
from gingham.errors import GinghamError
from gingham.schema import Json
from gingham.server import convert
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.types import encode_id
from gingham.wire import MOST_MESSAGE_CHARACTERS, pack_error, pack_rows, unpack_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.database import Database

LOG = logging.getLogger("gingham.server")
LONGEST_WAIT = 1e9
"""Seconds: a deadline further away is none."""


def answered(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """An RPC that ends with its deadline or its caller, and whose errors become statuses."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        scope = CancelScope()
        context.add_callback(scope.cancel)
        left = context.time_remaining()
        timeout = None if left is None or left > LONGEST_WAIT else max(left, 1e-6)
        try:
            with scope, within(timeout):
                return method(self, request)
        except GinghamError as error:
            failure = error
        except Exception:
            LOG.exception("%s failed", method.__name__)
            failure = GinghamError(f"the server expected {method.__name__} to succeed, it failed; its log says why")
        _abort(context, failure)

    return call


def _abort(context: grpc.ServicerContext, error: GinghamError) -> NoReturn:
    name = type(error).__name__
    context.set_trailing_metadata((("gingham-error", name), ("gingham-error-bin", pack_error(error))))
    details = str(error)[:MOST_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    context.abort(grpc.StatusCode[error.grpc_code], details)
    raise AssertionError("abort() ends the call")


class CollectionService(services.CollectionServiceServicer):
    """Collections."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @answered
    def ListCollections(self, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Names of the collections."""
        del request
        return pb.ListCollectionsResponse(names=self._db.collections())

    @answered
    def CreateCollection(self, request: pb.CreateCollectionRequest) -> pb.CreateCollectionResponse:
        """Make a collection."""
        schema = convert.schema_of(request.schema)
        self._db.create_collection(
            request.name, fields=schema.fields, vectors=schema.vectors, exist_ok=request.exist_ok
        )
        return pb.CreateCollectionResponse()

    @answered
    def DropCollection(self, request: pb.DropCollectionRequest) -> pb.DropCollectionResponse:
        """Drop a collection."""
        self._db.drop_collection(request.name)
        return pb.DropCollectionResponse()

    @answered
    def GetSchema(self, request: pb.GetSchemaRequest) -> pb.GetSchemaResponse:
        """Fields and vectors of a collection."""
        return pb.GetSchemaResponse(schema=msgspec.msgpack.encode(self._db[request.name].schema))

    @answered
    def GetCollectionStats(self, request: pb.GetCollectionStatsRequest) -> pb.GetCollectionStatsResponse:
        """Figures of a collection."""
        return convert.stats_message(self._db[request.name].stats())

    @answered
    def GetDatabaseStats(self, request: pb.GetDatabaseStatsRequest) -> pb.GetDatabaseStatsResponse:
        """Figures of the database."""
        del request
        stats = self._db.stats()
        names = pb.GetDatabaseStatsResponse.DESCRIPTOR.fields_by_name
        return pb.GetDatabaseStatsResponse(**{name: getattr(stats, name) for name in names})


class RowService(services.RowServiceServicer):
    """Rows."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @answered
    def Upsert(self, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Insert rows or replace them."""
        collection = self._db[request.collection]
        result = collection.upsert(**convert.columns_of(request.rows, collection.schema))
        return pb.UpsertResponse(result=convert.written(result))

    @answered
    def Update(self, request: pb.UpdateRequest) -> pb.UpdateResponse:
        """Change rows."""
        collection = self._db[request.collection]
        result = collection.update(**convert.changes_of(request.batches, collection.schema))
        return pb.UpdateResponse(result=convert.written(result))

    @answered
    def Delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Remove rows."""
        kind = request.WhichOneof("rows")
        ids = unpack_ids(request.ids.values) if kind == "ids" else None
        where = convert.filter_of(request.where) if kind == "where" else None
        result = self._db[request.collection].delete(ids=ids, where=where)
        return pb.DeleteResponse(result=convert.written(result))

    @answered
    def Get(self, request: pb.GetRequest) -> pb.GetResponse:
        """Read rows."""
        collection = self._db[request.collection]
        asked = unpack_ids(request.ids.values)
        rows = collection.get(asked, fields=convert.names_of(request), include_vectors=request.include_vectors)
        schema = collection.schema
        present = [row for row in rows if row is not None]
        return pb.GetResponse(
            found=[row is not None for row in rows],
            rows=pack_rows(present, [encode_id(row["id"]) for row in present], schema),
            json_fields=[name for name, kind in schema.fields.items() if isinstance(kind, Json)],
        )

    @answered
    def Count(self, request: pb.CountRequest) -> pb.CountResponse:
        """Count rows."""
        return pb.CountResponse(count=self._db[request.collection].count(where=convert.filter_of(request.where)))


class QueryService(services.QueryServiceServicer):
    """Searches."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @answered
    def Search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Find rows."""
        collection = self._db[request.collection]
        query = convert.query_of(request, collection.schema)
        return convert.found(collection.search(query, **convert.search_arguments(request)))


def add_services(database: Database, server: grpc.Server) -> None:
    """Answer all RPCs from a database."""
    services.add_CollectionServiceServicer_to_server(CollectionService(database), server)  # type: ignore[no-untyped-call]
    services.add_RowServiceServicer_to_server(RowService(database), server)  # type: ignore[no-untyped-call]
    services.add_QueryServiceServicer_to_server(QueryService(database), server)  # type: ignore[no-untyped-call]
