"""The RPCs over an open database: each is one call of it."""

from __future__ import annotations

import functools
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pyarrow as pa

from gingham.query.fetch import payload_within
from gingham.query.hits import BatchHits
from gingham.schema import Json
from gingham.server import convert, writes
from gingham.server.admin import AdminService
from gingham.server.calls import Scans, answered, streamed
from gingham.server.found import check_asked, check_found, check_recall, most_in_radius
from gingham.server.ingest import ingest
from gingham.server.limits import check_queries, check_search
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.server.queries import QueryTrees, recall_arguments
from gingham.server.views import Views
from gingham.types import encode_id
from gingham.wire import pack_embedder, pack_rows, pack_table, unpack_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import grpc

    from gingham.database import Database
    from gingham.schema import Schema
    from gingham.wire import Row

SCANNED_ROWS, SCANNED_VECTORS = 1000, 100
"""Rows of a message of a scan, without vectors and with them."""
SCANNED_BYTES = 8 << 20
"""Of such a message, and no more than half of what a message may have; unless one row is longer."""
T = TypeVar("T")


class CollectionService(services.CollectionServiceServicer):
    """Collections and pinned commits."""

    def __init__(self, views: Views, max_hits: int) -> None:
        self._views = views
        self._db = views.database
        self._max_hits = max_hits

    @answered
    def ListCollections(self, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Names of the collections."""
        return pb.ListCollectionsResponse(names=self._views.of(request).collections())

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
        view = self._views.of(request)[request.name]
        with view._reader.session() as session:
            record = session.collection_by_id(view._cid)
        return pb.GetSchemaResponse(
            schema=msgspec.msgpack.encode(record.schema), embedder=pack_embedder(record.embedder)
        )

    @answered
    def GetCollectionStats(self, request: pb.GetCollectionStatsRequest) -> pb.GetCollectionStatsResponse:
        """Figures of a collection."""
        return convert.stats_message(self._views.of(request)[request.name].stats())

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
        collection, arguments = self._views.collection(request), recall_arguments(request)
        check_recall(collection, arguments, self._max_hits)
        report = collection.recall(**arguments)
        return pb.RecallResponse(**asdict(report))

    @answered
    def AttachEmbedder(self, request: pb.AttachEmbedderRequest) -> pb.AttachEmbedderResponse:
        """Keep the embedder of a collection."""
        writes.attach_embedder(self._db, request)
        return pb.AttachEmbedderResponse()

    @answered
    def OpenSnapshot(self, request: pb.OpenSnapshotRequest) -> pb.OpenSnapshotResponse:
        """Pin the newest commit."""
        del request
        name, version = self._views.open()
        return pb.OpenSnapshotResponse(snapshot=name, version=version)

    @answered
    def CloseSnapshot(self, request: pb.CloseSnapshotRequest) -> pb.CloseSnapshotResponse:
        """Give a pinned commit up."""
        self._views.close(request.snapshot)
        return pb.CloseSnapshotResponse()


class RowService(services.RowServiceServicer):
    """Rows."""

    def __init__(self, views: Views, scans: Scans, max_hits: int, most_bytes: int) -> None:
        self._views = views
        self._db = views.database
        self._scans = scans
        self._max_hits = max_hits
        self._most_bytes = most_bytes

    @answered
    def Upsert(self, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Insert rows or replace them."""
        return writes.upsert(self._db, request)

    @answered
    def Update(self, request: pb.UpdateRequest) -> pb.UpdateResponse:
        """Change rows."""
        return writes.update(self._db, request)

    @answered
    def Delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Remove rows."""
        return writes.delete(self._db, request)

    @answered
    def WriteBatch(self, request: pb.WriteBatchRequest) -> pb.WriteBatchResponse:
        """Apply several changes."""
        return writes.write_batch(self._db, request)

    @answered
    def Get(self, request: pb.GetRequest) -> pb.GetResponse:
        """Read rows."""
        collection = self._views.collection(request)
        asked = unpack_ids(request.ids.values)
        fields, vectors = convert.names_of(request), request.include_vectors
        check_asked(len(asked), self._max_hits)
        with payload_within(self._most_bytes):
            rows = collection.get(asked, fields=fields, include_vectors=vectors)
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
        return pb.CountResponse(count=self._views.collection(request).count(where=convert.filter_of(request.where)))

    @answered
    def Facets(self, request: pb.FacetsRequest) -> pb.FacetsResponse:
        """Count values."""
        trees = QueryTrees()
        query = trees.of(request.query) if request.HasField("query") else None
        limit = request.limit if request.HasField("limit") else None
        where = convert.filter_of(request.where)
        with payload_within(self._most_bytes):
            counts = self._views.collection(request).facets(request.field, where=where, query=query, limit=limit)
        if unscored := trees.unscored():
            return pb.FacetsResponse(unscored=unscored)
        return pb.FacetsResponse(counts=pack_table(pa.table({"value": [*counts], "count": [*counts.values()]})))

    @streamed
    def Scan(self, request: pb.ScanRequest) -> Generator[pb.ScanResponse]:
        """Go through rows."""
        with self._scans.one():
            yield from self._scanned(request)

    @streamed
    def Ingest(self, request: Iterator[pb.IngestRequest]) -> Generator[pb.IngestResponse]:
        """Insert the rows of a stream."""
        with self._scans.one():
            yield from ingest(self._db, request, self._scans)

    def _scanned(self, request: pb.ScanRequest) -> Iterator[pb.ScanResponse]:
        most_bytes = min(SCANNED_BYTES, self._most_bytes // 2)
        collection = self._views.collection(request)
        schema = collection.schema
        rows = collection.scan(**convert.scan_arguments(request))
        json_fields = [name for name, kind in schema.fields.items() if isinstance(kind, Json)]
        if request.HasField("batch_size"):
            nothing = collection._no_rows(convert.names_of(request), include_vectors=request.include_vectors)
            yield pb.ScanResponse(json_fields=json_fields, rows=pack_table(pa.Table.from_batches([nothing])))
            for batch in rows:
                yield from (
                    pb.ScanResponse(rows=packed) for packed in _parts(batch, len(batch), most_bytes, _packed_batch)
                )
            return
        yield pb.ScanResponse(json_fields=json_fields)
        most = SCANNED_VECTORS if request.include_vectors else SCANNED_ROWS
        while part := list(islice(rows, most)):
            packed_rows = functools.partial(_packed_rows, schema)
            yield from (pb.ScanResponse(rows=packed) for packed in _parts(part, len(part), most_bytes, packed_rows))


def _packed_batch(batch: pa.RecordBatch, start: int, stop: int) -> bytes:
    return pack_table(pa.Table.from_batches([batch.slice(start, stop - start)]))


def _packed_rows(schema: Schema, rows: Sequence[Row], start: int, stop: int) -> bytes:
    part = rows[start:stop]
    return pack_rows(part, [encode_id(row["id"]) for row in part], schema)


def _parts(rows: T, n: int, most: int, packed: Callable[[T, int, int], bytes]) -> Iterator[bytes]:
    """Rows in messages of at most so many bytes, unless one row has more."""
    start, step = 0, n
    while start < n:
        found = packed(rows, start, min(start + step, n))
        if len(found) <= most or step == 1:
            yield found
            start += step
        else:
            step = max(1, min(step - 1, step * most // len(found)))


class QueryService(services.QueryServiceServicer):
    """Searches."""

    def __init__(self, views: Views, max_hits: int, most_bytes: int) -> None:
        self._views = views
        self._max_hits = max_hits
        self._most_bytes = most_bytes

    @answered
    def Search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """Find rows."""
        collection = self._views.collection(request)
        query = convert.query_of(request)
        check_search(request, collection, self._max_hits)
        arguments = convert.search_arguments(request)
        if not request.HasField("k") and request.HasField("radius"):
            arguments["k"] = most_in_radius(request, collection, self._max_hits)
        with payload_within(self._most_bytes):
            results = collection.search(query, **arguments)
        check_found(results if isinstance(results, BatchHits) else [results], self._max_hits)
        return convert.found(results, explain_tokens=request.explain_tokens)

    @answered
    def Query(self, request: pb.QueryRequest) -> pb.QueryResponse:
        """Run query trees."""
        trees = QueryTrees()
        queries = [trees.of(one) for one in request.queries]
        collection = self._views.collection(request)
        check_queries(request, collection, self._max_hits)
        where, fields = convert.filter_of(request.where), convert.names_of(request)
        with payload_within(self._most_bytes):
            results = collection.query(queries, where=where, fields=fields)
        if unscored := trees.unscored():
            return pb.QueryResponse(unscored=unscored)
        check_found(results, self._max_hits)
        single = request.single and len(results) == 1
        each = [convert.found(hits, explain_tokens=request.explain_tokens) for hits in results]
        return pb.QueryResponse(results=each, single=single)


def add_services(
    database: Database, server: grpc.Server, *, workers: int, max_hits: int, most_bytes: int
) -> tuple[Views, Scans]:
    """Answer all RPCs from a database; scans and backups leave one of several workers to other calls.

    Parameters
    ----------
    max_hits, most_bytes : hits and bytes that one answer may have

    Returns
    -------
    tuple : what clients have pinned, to be closed with the server, and the scans that go on
    """
    views = Views(database)
    scans = Scans(max(1, workers - 1))
    services.add_CollectionServiceServicer_to_server(CollectionService(views, max_hits), server)  # type: ignore[no-untyped-call]
    services.add_RowServiceServicer_to_server(RowService(views, scans, max_hits, most_bytes), server)  # type: ignore[no-untyped-call]
    services.add_QueryServiceServicer_to_server(QueryService(views, max_hits, most_bytes), server)  # type: ignore[no-untyped-call]
    services.add_AdminServiceServicer_to_server(AdminService(views, scans), server)  # type: ignore[no-untyped-call]
    return views, scans
