"""A database of a server, and its collections: the same methods, arguments, results and errors as embedded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self

import msgspec

from gingham.clients import convert
from gingham.clients.channel import CONNECT_SECONDS, SCHEME, Channel
from gingham.database import DatabaseStats
from gingham.deadline import within
from gingham.errors import CollectionNotFound, GinghamError, InvalidArgument, NotReady, ReadOnly
from gingham.query.effort import Effort
from gingham.rows import encode_ids, given_changes, given_rows
from gingham.schema import Schema, Tokens, check_name, check_named
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import RowBatch, WriteResult, is_id, least_score, shown, whole
from gingham.wire import pack_batch, unpack_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from gingham.query.bind import Where
    from gingham.query.stats import CollectionStats
    from gingham.schema import Field, Vector
    from gingham.types import UserId


def _later(name: str) -> Callable[..., Any]:
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
        _check_writable(self._writable, self._channel)
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
            check_named(using)
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
            **convert.query_message(query, using, lambda: self.schema),
        )
        return convert.search_results(self._channel.call(self._channel.queries.Search, request, timeout))

    def stats(self) -> CollectionStats:
        """Rows, segments, tail and bytes, and what vectors are searched by."""
        request = pb.GetCollectionStatsRequest(name=self._name)
        return convert.collection_stats(self._channel.call(self._channel.collections.GetCollectionStats, request))

    def _schema_to_write(self) -> Schema:
        _check_writable(self._writable, self._channel)
        return self.schema

    add_field = _later("add_field")
    add_vector = _later("add_vector")
    calibrate = _later("calibrate")
    drop_field = _later("drop_field")
    drop_vector = _later("drop_vector")
    facets = _later("facets")
    maintain = _later("maintain")
    query = _later("query")
    recall = _later("recall")
    recode = _later("recode")
    reindex = _later("reindex")
    scan = _later("scan")
    to_parquet = _later("to_parquet")
    verify = _later("verify")


class RemoteDatabase:
    """A database of a server; use it in a ``with`` block or :meth:`close` it. :func:`gingham.open` makes it.

    Parameters
    ----------
    target : ``grpc://HOST:PORT``
    writable : whether calls that write are sent

    Notes
    -----
    A handle may be used by several threads, and is pickled as its address; a child of a fork opens its own.
    """

    def __init__(self, target: str, *, writable: bool = True) -> None:
        self._channel = Channel(target)
        self._writable = writable
        try:
            self._channel.call(self._channel.collections.ListCollections, pb.ListCollectionsRequest(), CONNECT_SECONDS)
        except BaseException:
            self._channel.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _connected, (f"{SCHEME}{self._channel.address}", self._writable)

    def __repr__(self) -> str:
        closed = "" if self._channel.open else " closed"
        return f"<{type(self).__name__} {SCHEME}{self._channel.address}{closed}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; may be called twice."""
        self._channel.close()

    def collections(self) -> list[str]:
        """Names of the collections, sorted."""
        return list(self._channel.call(self._channel.collections.ListCollections, pb.ListCollectionsRequest()).names)

    def create_collection(
        self,
        name: str,
        *,
        fields: Mapping[str, Field] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        embedder: None = None,
        exist_ok: bool = False,
    ) -> RemoteCollection:
        """Make a collection; ``embedder`` is not there over gRPC yet."""
        _check_writable(self._writable, self._channel)
        check_name(name, "collection")
        schema = Schema.of(fields, vectors)
        _refuse_embedder(embedder)
        request = pb.CreateCollectionRequest(name=name, schema=msgspec.msgpack.encode(schema), exist_ok=bool(exist_ok))
        self._channel.call(self._channel.collections.CreateCollection, request)
        return RemoteCollection(self._channel, name, writable=self._writable)

    def collection(self, name: str, *, embedder: None = None) -> RemoteCollection:
        """Open a collection; raises CollectionNotFound; ``embedder`` is not there over gRPC yet."""
        _refuse_embedder(embedder)
        if not isinstance(name, str):
            raise CollectionNotFound(f"the name of a collection expects text, found {shown(name)}")
        found = RemoteCollection(self._channel, name, writable=self._writable)
        _ = found.schema  # raises where there is none
        return found

    def __getitem__(self, name: str) -> RemoteCollection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def drop_collection(self, name: str) -> None:
        """Remove a collection with all its rows; raises CollectionNotFound."""
        _check_writable(self._writable, self._channel)
        self._channel.call(self._channel.collections.DropCollection, pb.DropCollectionRequest(name=name))

    def stats(self) -> DatabaseStats:
        """Rows, commits and bytes; ``path`` is the address of the server, which does not tell its folder."""
        answer = self._channel.call(self._channel.collections.GetDatabaseStats, pb.GetDatabaseStatsRequest())
        figures = {name: getattr(answer, name) for name in DatabaseStats.__dataclass_fields__ if name != "path"}
        return DatabaseStats(f"{SCHEME}{self._channel.address}", **figures)

    backup = _later("backup")
    compact = _later("compact")
    maintain = _later("maintain")
    rename_collection = _later("rename_collection")
    snapshot = _later("snapshot")
    transaction = _later("transaction")
    verify = _later("verify")


def _connected(target: str, writable: bool) -> RemoteDatabase:
    return RemoteDatabase(target, writable=writable)


def _check_writable(writable: bool, channel: Channel) -> None:
    if not writable:
        raise ReadOnly(f"{SCHEME}{channel.address} is open for reading; open it with mode='w' to change it")


def _refuse_embedder(embedder: object) -> None:
    if embedder is not None:
        raise NotReady("embedder= is not there over gRPC yet; embed texts yourself and give their vectors")


def _refuse_tokens(batch: RowBatch, schema: Schema) -> None:
    """Token matrices are pooled where they are stored, and must not be twice."""
    for name in batch.fields:
        if isinstance(schema.vectors.get(name), Tokens) and batch.fields[name].null_count < len(batch):
            raise NotReady(
                f"rows over gRPC expect no token vectors yet, found {name!r}; write them where the folder is"
            )


def _ids_message(ids: Any) -> pb.Ids:
    return pb.Ids(values=encode_ids([ids] if is_id(ids) else ids))
