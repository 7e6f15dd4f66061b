"""A collection of a server: the same methods, arguments, results and errors as an embedded one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from gingham.clients import convert
from gingham.clients.channel import SCHEME
from gingham.clients.queries import QueryMessages
from gingham.deadline import within
from gingham.errors import GinghamError, InvalidArgument, NotReady, ReadOnly
from gingham.query.effort import Effort
from gingham.query.nodes import Query
from gingham.rows import encode_ids, given_changes, given_rows
from gingham.schema import Schema, Tokens
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import RowBatch, WriteResult, finite, is_id, least_score, whole
from gingham.wire import pack_batch, unpack_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gingham.clients.channel import Channel
    from gingham.query.bind import Where
    from gingham.query.recall import RecallReport
    from gingham.query.stats import CollectionStats
    from gingham.schema import Field, Vector
    from gingham.types import UserId


def later(name: str) -> Callable[..., Any]:
    """A method that is not there over gRPC yet."""

    def method(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotReady(f"{name}() is not there over gRPC yet; open the folder itself to call it")

    method.__name__ = name
    method.__doc__ = "Not there over gRPC yet; raises NotReady."
    return method


class RemoteCollection:
    """A collection of a server; what methods take, return and raise is what :class:`gingham.Collection` says."""

    def __init__(self, channel: Channel, name: str, *, writable: bool = True) -> None:
        self._channel = channel
        self._name = name
        self._writable = writable

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self._name

    @property
    def schema(self) -> Schema:
        """Fields and vectors."""
        answer = self._channel.call(self._channel.collections.GetSchema, pb.GetSchemaRequest(name=self._name))
        return msgspec.msgpack.decode(answer.schema, type=Schema)

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} of {len(self)} rows>"

    def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Insert rows, replacing those of the same id; they survive a crash of the server when this returns."""
        schema = self._schema_to_write()
        total = WriteResult(0)
        durable = 0
        try:
            for batch in given_rows(schema, rows, ids=ids, vectors=vectors, fields=fields):
                total += self._upsert_batch(batch, schema)
                durable += len(batch)
        except Exception as error:
            if isinstance(error, GinghamError):
                error.durable_rows = durable
            error.add_note(f"{durable} rows were written before")
            raise
        return total if total.version else self._upsert_batch(RowBatch([], {}, {}), schema)

    def _upsert_batch(self, batch: RowBatch, schema: Schema) -> WriteResult:
        _refuse_tokens(batch, schema)
        request = pb.UpsertRequest(collection=self._name, rows=pack_batch(batch, leave_out_nulls=True))
        return convert.write_result(self._channel.call(self._channel.rows.Upsert, request).result)

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Change some fields or vectors of existing rows in one commit; unknown ids are counted as missing."""
        schema = self._schema_to_write()
        batches = given_changes(schema, rows, ids=ids, vectors=vectors, fields=fields)
        for batch in batches:
            _refuse_tokens(batch, schema)
        packed = [pack_batch(batch, leave_out_nulls=False) for batch in batches]
        request = pb.UpdateRequest(collection=self._name, batches=packed)
        return convert.write_result(self._channel.call(self._channel.rows.Update, request).result)

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> WriteResult:
        """Remove rows by id or by filter in one commit; unknown ids are counted as missing."""
        check_writable(self._writable, self._channel)
        if (ids is None) == (where is None):
            raise InvalidArgument("delete() expects either ids= or where=, found both or neither")
        if ids is None:
            request = pb.DeleteRequest(collection=self._name, where=convert.filter_message(where))
        else:
            request = pb.DeleteRequest(collection=self._name, ids=_ids_message(ids))
        return convert.write_result(self._channel.call(self._channel.rows.Delete, request).result)

    def get(self, ids: Any, *, fields: Sequence[str] | None = None, include_vectors: bool = False) -> Any:
        """Read rows by id: a dict or None for one id, a list of these in the order asked for several."""
        request = pb.GetRequest(
            collection=self._name,
            ids=_ids_message(ids),
            fields=convert.names_message(fields),
            include_vectors=bool(include_vectors),
        )
        answer = self._channel.call(self._channel.rows.Get, request)
        rows = iter(unpack_rows(answer.rows, answer.json_fields))
        out = [next(rows) if there else None for there in answer.found]
        return out[0] if is_id(ids) else out

    def count(self, *, where: Where = None) -> int:
        """Count rows, or those a filter selects."""
        request = pb.CountRequest(collection=self._name, where=convert.filter_message(where))
        return int(self._channel.call(self._channel.rows.Count, request).count)

    def search(
        self,
        query: Any,
        *,
        k: int | None = 10,
        where: Where = None,
        using: str | None = None,
        radius: float | None = None,
        fields: Sequence[str] | None = None,
        exact: bool = False,
        oversample: float | None = None,
        ef_search: int | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Find the nearest rows, or those with the words of a text: Hits for one query, BatchHits for a batch."""
        if k is None and radius is None:
            raise InvalidArgument("search() expects k= or radius=, found neither")
        k = None if k is None else min(whole("search(k=)", k), convert.MOST_K)
        radius = None if radius is None else least_score("search(radius=)", radius)
        effort = Effort(
            exact=exact, oversample=oversample, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall
        )
        within(timeout)  # refuses what is no time
        if using is not None:
            convert.checked_name(using)
        request = pb.SearchRequest(
            collection=self._name,
            k=k,
            where=convert.filter_message(where),
            using=using,
            radius=radius,
            fields=convert.names_message(fields),
            exact=effort.exact,
            oversample=effort.oversample,
            ef_search=effort.ef_search,
            nprobe=effort.nprobe,
            target_recall=effort.target_recall,
            **convert.search_message(query, using, lambda: self.schema),
        )
        return convert.search_results(self._channel.call(self._channel.queries.Search, request, timeout))

    def query(
        self,
        query: Query | Sequence[Query],
        *,
        where: Where = None,
        fields: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run a query built of ``near``, ``match``, ``sparse``, ``like`` and ``fuse``: Hits, or BatchHits for several.

        Notes
        -----
        What asks a model does not travel, and raises NotReady: ``cross_encoder`` and ``hyde``. Text of ``near`` is for
        an embedder of the server.
        """
        within(timeout)  # refuses what is no time
        condition, names = convert.filter_message(where), convert.names_message(fields)
        several = [query] if isinstance(query, (Query, str, bytes)) or not isinstance(query, Iterable) else list(query)
        for one in several:
            if not isinstance(one, Query):
                raise InvalidArgument(f"query() expects near(), match(), fuse() and the like, found {one!r:.80}")
        messages = QueryMessages(lambda: self.schema)
        request = pb.QueryRequest(
            collection=self._name,
            queries=[messages.of(one) for one in several],
            single=isinstance(query, Query),
            where=condition,
            fields=names,
        )
        return convert.query_results(self._channel.call(self._channel.queries.Query, request, timeout))

    def facets(
        self,
        field: str,
        *,
        where: Where = None,
        query: Query | None = None,
        limit: int | None = 10,
        timeout: float | None = None,
    ) -> dict[Any, int]:
        """Count the rows of each value of a field, most frequent first; null is not counted."""
        limit = None if limit is None else min(whole("facets(limit=)", limit, 0), convert.MOST_K)
        within(timeout)  # refuses what is no time
        convert.checked_name(field)
        tree = None if query is None else QueryMessages(lambda: self.schema).of(query)
        condition = convert.filter_message(where)
        request = pb.FacetsRequest(collection=self._name, field=field, where=condition, query=tree, limit=limit)
        return convert.facet_counts(self._channel.call(self._channel.rows.Facets, request, timeout))

    def scan(
        self,
        *,
        where: Where = None,
        order_by: str | None = None,
        descending: bool = False,
        fields: Sequence[str] | None = None,
        include_vectors: bool = False,
        batch_size: int | None = None,
    ) -> Iterator[Any]:
        """Go through all rows of one commit: dicts, or record batches where ``batch_size`` is given.

        Notes
        -----
        A worker of the server is held until the iterator ends or is closed.
        """
        size = None if batch_size is None else min(whole("scan(batch_size=)", batch_size), convert.MOST_K)
        if order_by is not None:
            convert.checked_name(order_by)
        request = pb.ScanRequest(
            collection=self._name,
            where=convert.filter_message(where),
            order_by=order_by,
            descending=bool(descending),
            fields=convert.names_message(fields),
            include_vectors=bool(include_vectors),
            batch_size=size,
        )
        return convert.scanned(self._channel.stream(self._channel.rows.Scan, request), batches=size is not None)

    def recall(
        self,
        *,
        k: int = 10,
        n: int = 100,
        where: Where = None,
        using: str | None = None,
        queries: Any = None,
        oversample: float | None = None,
        ef_search: int | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        timeout: float | None = None,
    ) -> RecallReport:
        """Measure what searches find now of what exact ones find."""
        effort = Effort(oversample=oversample, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall)
        within(timeout)  # refuses what is no time
        if using is not None:
            convert.checked_name(using)
        request = pb.RecallRequest(
            collection=self._name,
            k=min(whole("recall(k=)", k), convert.MOST_K),
            n=min(whole("recall(n=)", n), convert.MOST_K),
            where=convert.filter_message(where),
            using=using,
            effort=convert.effort_message(effort),
            **({} if queries is None else convert.query_message(queries, using, lambda: self.schema)),
        )
        return convert.recall_report(self._channel.call(self._channel.collections.Recall, request, timeout))

    def add_field(self, name: str, field: Field) -> None:
        """Add a payload field; rows that exist have null."""
        check_writable(self._writable, self._channel)
        packed = convert.column_message(name, field, "fields")
        request = pb.AddFieldRequest(collection=self._name, schema=packed)
        self._channel.call(self._channel.collections.AddField, request)

    def add_vector(self, name: str, vector: Vector) -> None:
        """Add a vector field; rows that exist have no vector until they are updated."""
        check_writable(self._writable, self._channel)
        packed = convert.column_message(name, vector, "vectors")
        request = pb.AddVectorRequest(collection=self._name, schema=packed)
        self._channel.call(self._channel.collections.AddVector, request)

    def drop_field(self, name: str) -> None:
        """Remove a payload field and its values."""
        check_writable(self._writable, self._channel)
        convert.checked_name(name)
        request = pb.DropFieldRequest(collection=self._name, name=name)
        self._channel.call(self._channel.collections.DropField, request)

    def drop_vector(self, name: str) -> None:
        """Remove a vector field and its vectors."""
        check_writable(self._writable, self._channel)
        convert.checked_name(name)
        request = pb.DropVectorRequest(collection=self._name, name=name)
        self._channel.call(self._channel.collections.DropVector, request)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        check_writable(self._writable, self._channel)
        return ask_maintenance(self._channel, self._name, wait=wait, timeout=timeout)

    def stats(self) -> CollectionStats:
        """Rows, segments, tail and bytes, and what vectors are searched by."""
        request = pb.GetCollectionStatsRequest(name=self._name)
        return convert.collection_stats(self._channel.call(self._channel.collections.GetCollectionStats, request))

    def _schema_to_write(self) -> Schema:
        check_writable(self._writable, self._channel)
        return self.schema

    calibrate = later("calibrate")
    recode = later("recode")
    reindex = later("reindex")
    to_parquet = later("to_parquet")
    verify = later("verify")


def check_writable(writable: bool, channel: Channel) -> None:
    """Raise ReadOnly unless calls that write are sent."""
    if not writable:
        raise ReadOnly(f"{SCHEME}{channel.address} is open for reading; open it with mode='w' to change it")


def ask_maintenance(channel: Channel, name: str | None, *, wait: bool, timeout: float | None) -> bool:
    """Have a server seal and merge, for a collection or, where ``name`` is None, for the whole database."""
    seconds = None if timeout is None else finite("maintain(timeout=)", timeout)
    request = pb.MaintainRequest(collection=name, wait=bool(wait), timeout=seconds)
    return bool(channel.call(channel.collections.Maintain, request).done)


def _refuse_tokens(batch: RowBatch, schema: Schema) -> None:
    """Token matrices are pooled where they are stored, and must not be twice."""
    for name in batch.fields:
        if isinstance(schema.vectors.get(name), Tokens) and batch.fields[name].null_count < len(batch):
            raise NotReady(
                f"rows over gRPC expect no token vectors yet, found {name!r}; write them where the folder is"
            )


def _ids_message(ids: Any) -> pb.Ids:
    return pb.Ids(values=encode_ids([ids] if is_id(ids) else ids))
