"""A collection of a server to be read: the newest commit of it, or a pinned one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from gingham.clients import convert
from gingham.clients.explained import explaining_query, explaining_search
from gingham.clients.models import scored
from gingham.clients.queries import QueryMessages
from gingham.clients.texts import TextQueries
from gingham.deadline import within
from gingham.embed.hyde import Written
from gingham.errors import InvalidArgument
from gingham.query.effort import Effort
from gingham.query.expansion import answered, answered_queries
from gingham.query.export import write_parquet
from gingham.query.nodes import Query
from gingham.rows import encode_ids
from gingham.schema import Schema
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import is_id, least_score, whole
from gingham.wire import unpack_embedder, unpack_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from gingham.clients.channel import Channel
    from gingham.embed import Embedder
    from gingham.embed.record import EmbedderRecord
    from gingham.query.bind import Where
    from gingham.query.recall import RecallReport
    from gingham.query.stats import CollectionStats
    from gingham.storage.verify import VerifyReport

EXPORTED_ROWS = 200
"""Of a message of an export, with their vectors."""


class RemoteCollectionView:
    """The reading half of a collection of a server; see :class:`gingham.Collection`.

    Parameters
    ----------
    embedder : embeds the texts of queries here; without one they travel, for an embedder of the server
    snapshot : what the server calls a pinned commit; None reads the newest
    """

    def __init__(
        self, channel: Channel, name: str, *, embedder: Embedder | None = None, snapshot: str | None = None
    ) -> None:
        self._channel = channel
        self._name = name
        self._embedder = embedder
        self._at: dict[str, Any] = {} if snapshot is None else {"snapshot": snapshot}

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self._name

    @property
    def schema(self) -> Schema:
        """Fields and vectors."""
        return described(self._channel, self._name, self._at)[0]

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} of {len(self)} rows>"

    def _texts(self) -> TextQueries:
        return TextQueries(lambda: self.schema, self._embedder)

    def get(self, ids: Any, *, fields: Sequence[str] | None = None, include_vectors: bool = False) -> Any:
        """Read rows by id: a dict or None for one id, a list of these in the order asked for several."""
        request = pb.GetRequest(
            collection=self._name,
            ids=ids_message(ids),
            fields=convert.names_message(fields),
            include_vectors=bool(include_vectors),
            **self._at,
        )
        answer = self._channel.call(self._channel.rows.Get, request)
        rows = iter(unpack_rows(answer.rows, answer.json_fields))
        out = [next(rows) if there else None for there in answer.found]
        return out[0] if is_id(ids) else out

    def count(self, *, where: Where = None) -> int:
        """Count rows, or those a filter selects."""
        request = pb.CountRequest(collection=self._name, where=convert.filter_message(where), **self._at)
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
        if using is not None:
            convert.checked_name(using)
        started = time.monotonic()
        with within(timeout):
            asked = answered(query)
            message = self._texts().search(asked, using)
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
            **message,
            **self._at,
        )
        spent = time.monotonic() - started
        answer = self._channel.call(self._channel.queries.Search, request, timeout, spent=spent)
        remarks = asked.remarks if isinstance(asked, Written) else ()

        def again(number: int) -> pb.ResultSet:
            asked = explaining_search(request, number)
            found: pb.ResultSet = self._channel.call(self._channel.queries.Search, asked, timeout).results[0]
            return found

        return convert.search_results(answer, again, remarks)

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
        Language models and cross encoders run here: passages travel with the query, and the texts that a cross encoder
        has to score come back before their scores are sent with the query again.
        """
        condition, names = convert.filter_message(where), convert.names_message(fields)
        started = time.monotonic()
        with within(timeout):
            asked = answered_queries(query)
            several = [asked] if isinstance(asked, (Query, str, bytes)) or not isinstance(asked, Iterable) else asked
            messages = QueryMessages(self._texts())
            trees: list[pb.QueryNode] = []
            remarks: list[list[str]] = []
            for one in several:
                if not isinstance(one, Query):
                    raise InvalidArgument(f"query() expects near(), match(), fuse() and the like, found {one!r:.80}")
                trees.append(messages.of(one))
                remarks.append(messages.remarks)
            request = pb.QueryRequest(
                collection=self._name,
                queries=trees,
                single=isinstance(query, Query),
                where=condition,
                fields=names,
                **self._at,
            )
            answer = scored(
                lambda: self._channel.call(
                    self._channel.queries.Query, request, timeout, spent=time.monotonic() - started
                ),
                request.queries,
                messages.models,
            )

        def again(number: int) -> pb.ResultSet:
            asked = explaining_query(request, number)
            found: pb.SearchResponse = self._channel.call(self._channel.queries.Query, asked, timeout).results[0]
            one: pb.ResultSet = found.results[0]
            return one

        return convert.query_results(answer, again, remarks)

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
        convert.checked_name(field)
        condition = convert.filter_message(where)
        started = time.monotonic()
        with within(timeout):
            messages = QueryMessages(self._texts())
            tree = None if query is None else messages.of(answered_queries(query))
            request = pb.FacetsRequest(
                collection=self._name, field=field, where=condition, query=tree, limit=limit, **self._at
            )
            answer = scored(
                lambda: self._channel.call(
                    self._channel.rows.Facets, request, timeout, spent=time.monotonic() - started
                ),
                [] if query is None else [request.query],
                messages.models,
            )
        return convert.facet_counts(answer)

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
            **self._at,
        )
        answers = self._channel.stream(self._channel.rows.Scan, request)
        return convert.scanned(answers) if size is None else convert.scanned_batches(answers)[1]

    def to_parquet(self, path: str | os.PathLike[str], *, where: Where = None) -> int:
        """Write all rows with their vectors to a Parquet file here; nothing is at ``path`` until all of it is."""
        request = pb.ScanRequest(
            collection=self._name,
            where=convert.filter_message(where),
            include_vectors=True,
            batch_size=EXPORTED_ROWS,
            **self._at,
        )
        schema, batches = convert.scanned_batches(self._channel.stream(self._channel.rows.Scan, request))
        return write_parquet(path, convert.joined(batches), convert.empty_batch(schema))

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
            **({} if queries is None else self._texts().near(queries, using)),
            **self._at,
        )
        return convert.recall_report(self._channel.call(self._channel.collections.Recall, request, timeout))

    def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Read every record and blob of this collection, and the pages that all share, and report all damage.

        Parameters
        ----------
        progress : called once, at the end, with the number of blob bytes read
        """
        return verified(self._channel, pb.VerifyRequest(collection=self._name, **self._at), progress)

    def stats(self) -> CollectionStats:
        """Rows, segments, tail and bytes, and what vectors are searched by."""
        request = pb.GetCollectionStatsRequest(name=self._name, **self._at)
        return convert.collection_stats(self._channel.call(self._channel.collections.GetCollectionStats, request))


def described(channel: Channel, name: str, at: dict[str, Any]) -> tuple[Schema, EmbedderRecord | None]:
    """Schema of a collection, and what is kept of its embedder; raises CollectionNotFound."""
    answer = channel.call(channel.collections.GetSchema, pb.GetSchemaRequest(name=name, **at))
    return msgspec.msgpack.decode(answer.schema, type=Schema), unpack_embedder(answer.embedder)


def verified(channel: Channel, request: pb.VerifyRequest, progress: Callable[[int], None] | None) -> VerifyReport:
    """What a server found when it read all that it stores."""
    report = convert.verify_report(channel.call(channel.admin.Verify, request))
    if progress is not None:
        progress(report.blob_bytes)
    return report


def ids_message(ids: Any) -> pb.Ids:
    """Ids, or the only one."""
    return pb.Ids(values=encode_ids([ids] if is_id(ids) else ids))
