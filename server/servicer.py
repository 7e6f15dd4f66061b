"""The RPCs over an open database: each is one call of it."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import msgspec
import pyarrow as pa

from gingham.deadline import CancelScope, within
from gingham.errors import GinghamError, ResourceExhausted
from gingham.schema import Json
from gingham.server import convert
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.server.queries import QueryTrees, recall_arguments
from gingham.types import encode_id
from gingham.wire import MOST_MESSAGE_CHARACTERS, pack_error, pack_rows, pack_table, unpack_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from gingham.database import Database

LOG = logging.getLogger("gingham.server")
SCANNED_ROWS, SCANNED_VECTORS = 1000, 100
"""Rows of a message of a scan, without vectors and with them."""
SCAN_SECONDS = 2.0
"""What a scan waits for another one to end."""
LONGEST_WAIT = 1e9
"""Seconds: a deadline further away is none."""


def answered(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """An RPC that ends with its deadline or its caller, and whose errors become statuses."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        scope, timeout = _limits(context)
        try:
            with scope, within(timeout):
                return method(self, request)
        except Exception as error:
            failure = _failure(method, error)
        _abort(context, failure)

    return call


def streamed(method: Callable[[Any, Any], Generator[Any]]) -> Callable[[Any, Any, Any], Iterator[Any]]:
    """The same of an RPC that answers with several messages; each is made under its limits, none is sent under them."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        scope, timeout = _limits(context)
        frame, limit = contextvars.copy_context(), within(timeout)
        frame.run(scope.bind)
        frame.run(limit.__enter__)
        answers = method(self, request)
        try:
            while True:
                try:
                    answer = frame.run(next, answers, None)
                except Exception as error:
                    failure = _failure(method, error)
                    break
                if answer is None:
                    return
                yield answer
        finally:
            frame.run(answers.close)
            frame.run(limit.__exit__, None, None, None)
        _abort(context, failure)

    return call


def _limits(context: grpc.ServicerContext) -> tuple[CancelScope, float | None]:
    scope = CancelScope()
    context.add_callback(scope.cancel)
    left = context.time_remaining()
    return scope, None if left is None or left > LONGEST_WAIT else max(left, 1e-6)


def _failure(method: Callable[..., Any], error: Exception) -> GinghamError:
    if isinstance(error, GinghamError):
        return error
    LOG.error("%s failed", method.__name__, exc_info=error)
    return GinghamError(f"the server expected {method.__name__} to succeed, it failed; its log says why")


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

    @answered
    def AddField(self, request: pb.AddFieldRequest) -> pb.AddFieldResponse:
        """Add a payload field."""
        name, field = convert.column_of(request.schema, "fields")
        self._db[request.collection].add_field(name, field)
        return pb.AddFieldResponse()

    @answered
    def DropField(self, request: pb.DropFieldRequest) -> pb.DropFieldResponse:
        """Remove a payload field."""
        self._db[request.collection].drop_field(request.name)
        return pb.DropFieldResponse()

    @answered
    def AddVector(self, request: pb.AddVectorRequest) -> pb.AddVectorResponse:
        """Add a vector field."""
        name, vector = convert.column_of(request.schema, "vectors")
        self._db[request.collection].add_vector(name, vector)
        return pb.AddVectorResponse()

    @answered
    def DropVector(self, request: pb.DropVectorRequest) -> pb.DropVectorResponse:
        """Remove a vector field."""
        self._db[request.collection].drop_vector(request.name)
        return pb.DropVectorResponse()

    @answered
    def Maintain(self, request: pb.MaintainRequest) -> pb.MaintainResponse:
        """Seal and merge."""
        place = self._db[request.collection] if request.HasField("collection") else self._db
        timeout = request.timeout if request.HasField("timeout") else None
        return pb.MaintainResponse(done=place.maintain(wait=request.wait, timeout=timeout))

    @answered
    def Recall(self, request: pb.RecallRequest) -> pb.RecallResponse:
        """Measure recall."""
        report = self._db[request.collection].recall(**recall_arguments(request))
        return pb.RecallResponse(**asdict(report))


class RowService(services.RowServiceServicer):
    """Rows; ``scans`` is how many of them may go on at once, since each holds a worker while its caller reads."""

    def __init__(self, database: Database, scans: int) -> None:
        self._db = database
        self._most_scans = scans
        self._scans = threading.BoundedSemaphore(scans)

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

    @answered
    def Facets(self, request: pb.FacetsRequest) -> pb.FacetsResponse:
        """Count values."""
        query = QueryTrees().of(request.query) if request.HasField("query") else None
        limit = request.limit if request.HasField("limit") else None
        where = convert.filter_of(request.where)
        counts = self._db[request.collection].facets(request.field, where=where, query=query, limit=limit)
        return pb.FacetsResponse(counts=pack_table(pa.table({"value": [*counts], "count": [*counts.values()]})))

    @streamed
    def Scan(self, request: pb.ScanRequest) -> Generator[pb.ScanResponse]:
        """Go through rows."""
        if not self._scans.acquire(timeout=SCAN_SECONDS):
            raise ResourceExhausted(
                f"the server expected at most {self._most_scans} scans at once, found one more; read or close those "
                "that are open, or serve with more workers"
            )
        try:
            yield from self._scanned(request)
        finally:
            self._scans.release()

    def _scanned(self, request: pb.ScanRequest) -> Iterator[pb.ScanResponse]:
        collection = self._db[request.collection]
        schema = collection.schema
        rows = collection.scan(**convert.scan_arguments(request))
        json_fields = [name for name, kind in schema.fields.items() if isinstance(kind, Json)]
        yield pb.ScanResponse(json_fields=json_fields)
        if request.HasField("batch_size"):
            for batch in rows:
                yield pb.ScanResponse(rows=pack_table(pa.Table.from_batches([batch])))
            return
        most = SCANNED_VECTORS if request.include_vectors else SCANNED_ROWS
        while part := list(islice(rows, most)):
            yield pb.ScanResponse(rows=pack_rows(part, [encode_id(row["id"]) for row in part], schema))


class QueryService(services.QueryServiceServicer):
    """Searches."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @answered
    def Search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Find rows."""
        collection = self._db[request.collection]
        return convert.found(collection.search(convert.query_of(request), **convert.search_arguments(request)))

    @answered
    def Query(self, request: pb.QueryRequest) -> pb.QueryResponse:
        """Run query trees."""
        trees = QueryTrees()
        queries = [trees.of(one) for one in request.queries]
        where, fields = convert.filter_of(request.where), convert.names_of(request)
        results = self._db[request.collection].query(queries, where=where, fields=fields)
        single = request.single and len(results) == 1
        return pb.QueryResponse(results=[convert.found(hits) for hits in results], single=single)


def add_services(database: Database, server: grpc.Server, *, workers: int) -> None:
    """Answer all RPCs from a database; scans leave one of several workers to other calls."""
    services.add_CollectionServiceServicer_to_server(CollectionService(database), server)  # type: ignore[no-untyped-call]
    services.add_RowServiceServicer_to_server(RowService(database, max(1, workers - 1)), server)  # type: ignore[no-untyped-call]
    services.add_QueryServiceServicer_to_server(QueryService(database), server)  # type: ignore[no-untyped-call]
