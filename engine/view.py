"""The reading half of a collection: orchestration only. Query and storage do the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from gingham.deadline import within
from gingham.embed.hyde import Written
from gingham.embed.rows import embed_queries
from gingham.errors import InvalidArgument, NotReady
from gingham.query import read, select
from gingham.query.bind import bind
from gingham.query.combine import Combined
from gingham.query.effort import Effort
from gingham.query.expansion import answered, answered_queries
from gingham.query.export import write_parquet
from gingham.query.nodes import Query
from gingham.query.recall import RecallReport, measure_recall
from gingham.query.search import Request, query_rows, run_query, search
from gingham.query.stats import CollectionStats, collection_stats
from gingham.schema import Dense, Sparse, Text, Tokens, check_named
from gingham.sparse_vectors import sparse_query
from gingham.storage.verify import VerifyReport, verify
from gingham.token_vectors import tokens_queries
from gingham.types import is_id, least_score, whole

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.query.hits import Hits
    from gingham.schema import Schema
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session
    from gingham.storage.snapshot import Pin
    from gingham.storage.store import Store
    from gingham.types import UserId


class Reader:
    """Opens sessions: on the newest commit, or on a pinned one."""

    def __init__(self, store: Store, pin: Pin | None = None) -> None:
        self.store = store
        self._pin = pin

    def session(self) -> AbstractContextManager[Session]:
        """A session for the time of a block."""
        return self.store.read() if self._pin is None else self._pin.read()

    def pin(self) -> Pin:
        """A session that outlives the call, to be closed with :meth:`unpin`."""
        from gingham.storage.snapshot import Pin

        return Pin(self.store) if self._pin is None else self._pin

    def unpin(self, pin: Pin) -> None:
        """Close a session of :meth:`pin`, unless it is a snapshot's."""
        if pin is not self._pin:
            pin.close()


class CollectionView:
    """The reading half of a collection."""

    def __init__(self, reader: Reader, cid: int, embedder: Embedder | None = None) -> None:
        self._reader = reader
        self._cid = cid
        self._embedder = embedder

    @property
    def name(self) -> str:
        """Name of the collection."""
        with self._reader.session() as session:
            return session.collection_by_id(self._cid).name

    @property
    def schema(self) -> Schema:
        """Fields and vectors."""
        with self._reader.session() as session:
            return session.collection_by_id(self._cid).schema

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {len(self)} rows>"

    def count(self, *, where: Where = None) -> int:
        """Count rows, or those a filter selects."""
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            return select.count(session, record, bind(where, record.schema))

    @overload
    def get(  # type: ignore[overload-overlap]
        self, ids: UserId, *, fields: Sequence[str] | None = None, include_vectors: bool = False
    ) -> dict[str, Any] | None: ...
    @overload
    def get(
        self, ids: Iterable[UserId], *, fields: Sequence[str] | None = None, include_vectors: bool = False
    ) -> list[dict[str, Any] | None]: ...
    def get(self, ids: Any, *, fields: Sequence[str] | None = None, include_vectors: bool = False) -> Any:
        """Read rows by id.

        Parameters
        ----------
        ids : one id, or several
        fields : payload to read; None reads all
        include_vectors : also return the stored vectors, as NumPy arrays

        Returns
        -------
        dict or None for one id; a list of these in the order asked for several
        """
        from gingham.rows import encode_ids

        single = is_id(ids)
        encoded = encode_ids([ids] if single else ids)
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            vectors = tuple(record.schema.vectors) if include_vectors else ()
            rows = read.get(session, record, encoded, read.payload(record, fields), vectors)
        return rows[0] if single else rows

    @overload
    def scan(
        self,
        *,
        where: Where = ...,
        order_by: str | None = ...,
        descending: bool = ...,
        fields: Sequence[str] | None = ...,
        include_vectors: bool = ...,
        batch_size: None = ...,
    ) -> Iterator[dict[str, Any]]: ...
    @overload
    def scan(
        self,
        *,
        where: Where = ...,
        order_by: str | None = ...,
        descending: bool = ...,
        fields: Sequence[str] | None = ...,
        include_vectors: bool = ...,
        batch_size: int,
    ) -> Iterator[pa.RecordBatch]: ...
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
        """Go through all rows of one commit, whatever is written meanwhile.

        Parameters
        ----------
        where : only rows that this filter selects
        order_by : field to order by, nulls last; None orders by id (int < str < UUID < bytes)
        descending : reverse the order of ``order_by``
        fields : payload to read; None reads all
        include_vectors : also return the stored vectors
        batch_size : rows of each Arrow record batch; None yields one dict a row

        Yields
        ------
        dict, or pyarrow.RecordBatch where ``batch_size`` is given
        """
        batch_size = None if batch_size is None else whole("scan(batch_size=)", batch_size)
        pin = self._reader.pin()
        try:
            with pin.read() as session:
                record = session.collection_by_id(self._cid)
                node = bind(where, record.schema)
                names = read.payload(record, fields)
                read.check_order(record, order_by, descending=descending)
        except BaseException:
            self._reader.unpin(pin)
            raise
        return self._scan(pin, node, order_by, descending, names, include_vectors, batch_size)

    def _scan(
        self,
        pin: Pin,
        node: Any,
        order_by: str | None,
        descending: bool,
        names: Sequence[str],
        vectors: bool,
        size: int | None,
    ) -> Iterator[Any]:
        """Read block by block; the pin is in use only while a block is read, so that it can expire in between."""
        try:
            with pin.read() as session:
                record = session.collection_by_id(self._cid)
                wanted = tuple(record.schema.vectors) if vectors else ()
                step = size or 1000
                if order_by is None:
                    blocks = read.rows_by_id(session, record, node, step)
                else:
                    blocks = read.rows_by_field(session, record, node, order_by, descending=descending, size=step)
            while True:
                with pin.read():
                    rows = next(blocks, None)
                    if rows is None:
                        return
                    if size is None:
                        block = read.read_dicts(session, record, rows, names, wanted)
                    else:
                        block = [read.read_batch(session, record, rows, names, wanted)]
                yield from block
        finally:
            self._reader.unpin(pin)

    def to_parquet(self, path: str | os.PathLike[str], *, where: Where = None) -> int:
        """Write all rows with their vectors to a Parquet file; nothing is at ``path`` until all of it is.

        ``upsert(path)`` brings the rows back with ids of the type they had.

        Returns
        -------
        int : rows written

        Raises
        ------
        InvalidArgument : the folder cannot be written to, or ids are of several kinds
        """
        return write_parquet(path, self.scan(where=where, include_vectors=True, batch_size=10_000), self._no_rows())

    def _no_rows(self, fields: Sequence[str] | None = None, *, include_vectors: bool = True) -> pa.RecordBatch:
        """What :meth:`scan` yields batches like."""
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            vectors = tuple(record.schema.vectors) if include_vectors else ()
            return read.read_batch(session, record, np.empty(0, np.uint64), read.payload(record, fields), vectors)

    def facets(
        self,
        field: str,
        *,
        where: Where = None,
        query: Query | None = None,
        limit: int | None = 10,
        timeout: float | None = None,
    ) -> dict[Any, int]:
        """Count the rows of each value of a field, most frequent first; null is not counted.

        Parameters
        ----------
        where : count only rows that this filter selects
        query : count only rows that this query finds: all of them, unless it has a limit or a ``k``
        limit : values returned; None returns all
        timeout : seconds after which the call gives up
        """
        limit = None if limit is None else whole("facets(limit=)", limit, 0)
        with within(timeout), nullcontext(answered_queries(query)) as query, self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            node = bind(where, record.schema)
            rows = None if query is None else query_rows(session, record, query, where=node, queries_of=self._vectors)
            counts = read.facets(session, record, field, node, rows)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        return dict(ordered[:limit])

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
        """Find the nearest rows, or those with the words of a text.

        Parameters
        ----------
        query : one vector of shape (dim,) or a batch of shape (n_queries, dim), or :func:`gingham.combine` of several;
            a text, a list of texts or :func:`gingham.hyde`, which the embedder turns into vectors, and which BM25
            searches for where there is none or ``using`` names a text field; a sparse vector or a list of them where
            ``using`` names a sparse field; tokens of shape (n, dim) or a list of such where it names a token field
        k : hits per query; None returns all rows that reach ``radius``
        where : filter, applied before rows are scored
        using : field to search; may be left out where there is one
        radius : smallest score returned
        fields : payload to return; None returns all
        exact : scan the vectors even where they have codes
        oversample : candidates of the codes that are scored from the vectors, times k; more finds more, None takes
            4 k + 64
        ef_search : candidates of a graph that are scored from the vectors, at least k; more finds more, None takes 64
        nprobe : lists that are read of each segment; more finds more, None takes 16
        target_recall : in place of ``ef_search`` and ``nprobe``, the share of the k nearest rows that graphs and lists
            should lead to on average, above 0 and below 1; each was measured with rows of its segment, and with real
            queries where :meth:`gingham.Collection.calibrate` was called
        timeout : seconds after which the search gives up; None waits

        Returns
        -------
        Hits for one query, BatchHits for a batch; fewer than k hits where fewer rows are eligible

        Raises
        ------
        DimensionMismatch : the query has another width than the field
        InvalidArgument : k below 1, NaN or infinity in the query, neither k nor radius
        NotReady : a text for a collection whose embedder is not attached
        DeadlineExceeded : ``timeout`` has passed
        """
        if k is None and radius is None:
            raise InvalidArgument("search() expects k= or radius=, found neither")
        k = None if k is None else whole("search(k=)", k)
        radius = None if radius is None else least_score("search(radius=)", radius)
        effort = Effort(
            exact=exact, oversample=oversample, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall
        )
        with within(timeout), nullcontext(answered(query)) as query, self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            name, kind, queries, single = self._query_of(record, query, using)
            condition, names = bind(where, record.schema), read.payload(record, fields)
            remarks = query.remarks if isinstance(query, Written) else ()
            request = Request(name, kind, queries, k, condition, radius, effort, names, remarks)
            results = search(session, record, request)
        return results[0] if single else results

    def query(
        self,
        query: Query | Sequence[Query],
        *,
        where: Where = None,
        fields: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run a query built of ``near``, ``match``, ``sparse``, ``like`` and ``fuse``.

        Parameters
        ----------
        query : the query, which returns 10 rows unless it has a limit; or several, run on one commit
        where : filter, pushed down into every leaf
        fields : payload to return; None returns all
        timeout : seconds after which the call gives up; None waits

        Returns
        -------
        Hits, or BatchHits for several queries

        Raises
        ------
        SchemaMismatch : a field is unknown or of another kind than the query needs
        NotFound : ``like`` names a row that does not exist
        DeadlineExceeded : ``timeout`` has passed
        """
        from gingham.query.hits import BatchHits

        with within(timeout), nullcontext(answered_queries(query)) as asked, self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            node, names = bind(where, record.schema), read.payload(record, fields)

            def run(one: Query) -> Hits:
                return run_query(session, record, one, where=node, fields=names, queries_of=self._vectors)

            if isinstance(asked, Query):
                return run(asked)
            several = asked if isinstance(asked, list) else [asked]
            for one in several:
                if not isinstance(one, Query):
                    raise InvalidArgument(f"query() expects near(), match(), fuse() and the like, found {one!r:.80}")
            return BatchHits([run(one) for one in several])

    def _query_of(self, record: CollectionRecord, query: Any, using: str | None) -> tuple[str, Any, Any, bool]:
        """Name and kind of the field that is searched, the checked queries, and whether one was given."""
        from gingham.rows import query_matrix

        schema = record.schema
        if using is not None:
            check_named(using)
        in_words = isinstance(schema.fields.get(using or ""), Text)
        if isinstance(query, Combined) or (isinstance(query, Written) and self._embedder is not None and not in_words):
            name, dense = schema.vector(using)
            return name, dense, self._vectors(query, dense), True
        query = query.words if isinstance(query, Written) else query
        texts = [query] if isinstance(query, str) else query
        if in_words and not _all_texts(texts):
            raise InvalidArgument(f"search(using={using!r}) expects a text or a list of texts, found {query!r:.80}")
        if _all_texts(texts):
            single = isinstance(query, str)
            if in_words or (using is None and record.embedder is None):
                if using is None and self._embedder is None and not schema.inverted:
                    raise InvalidArgument(
                        f"a text query expects an embedder or a text field with bm25=True; {record.name!r} has neither"
                    )
                if self._embedder is None or using is not None:
                    name, kind = schema.searchable(using, Text)
                    return name, kind, texts, single
            name, dense = schema.vector(using)
            return name, dense, self._vectors(list(texts), dense), single
        tokens = schema.vectors.get(using or "")
        if isinstance(tokens, Tokens):
            return using or "", tokens, *tokens_queries(query, tokens)
        if isinstance(schema.vectors.get(using or ""), Sparse) or (using is None and not schema.dense):
            name, kind = schema.searchable(using, Sparse)
            single = isinstance(query, (Mapping, tuple)) or not isinstance(query, Sequence)
            return name, kind, [sparse_query(one) for one in ([query] if single else query)], single
        name, dense = schema.vector(using)
        return name, dense, *query_matrix(query, dense)

    def _vectors(self, query: Any, dense: Dense) -> np.ndarray[Any, Any]:
        """Checked vectors of a dense query, embedded where it is text."""
        from gingham.rows import query_matrix

        if isinstance(query, Combined):
            query = query.vector(lambda texts: self._vectors(texts, dense))
        texts = [query] if isinstance(query, str) else query
        if not (isinstance(texts, Written) or _all_texts(texts)):
            return query_matrix(query, dense)[0]
        if self._embedder is None:
            raise NotReady(
                f"the text of {self.name!r} is embedded and no embedder is attached; open the collection with "
                "db.collection(name, embedder=...), or name a text field with using= to search its words"
            )
        return embed_queries(self._embedder, texts, dense)

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
        """Measure what searches find now of what exact ones find.

        Parameters
        ----------
        k : nearest rows of each query
        n : rows that are taken for queries, at random and always the same; what a graph holds is found more easily than
            what it does not, so give queries where there are some
        where : filter of all searches
        using : dense vector field; may be left out where there is one
        queries : vectors (m, dim), or texts where there is an embedder, in place of rows
        oversample, ef_search, nprobe, target_recall : as of :meth:`search`
        timeout : seconds after which the call gives up

        Returns
        -------
        RecallReport : recall, its 95 % confidence interval, and the time of both

        Raises
        ------
        InvalidArgument : there are neither rows nor queries, or an argument is out of range
        """
        k, n = whole("recall(k=)", k), whole("recall(n=)", n)
        effort = Effort(oversample=oversample, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall)
        with within(timeout), self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            name, dense = record.schema.vector(using)
            asked = n if queries is None else self._vectors(queries, dense)
            return measure_recall(session, record, name, dense, bind(where, record.schema), effort, k, asked)

    def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Read every record and blob of this collection, and the pages that all share, and report all damage.

        Parameters
        ----------
        progress : called with the number of blob bytes read so far
        """
        with self._reader.session() as session:
            return verify(session, progress, only=self._cid)

    def stats(self) -> CollectionStats:
        """Rows, segments, tail and bytes, and what vectors are searched by."""
        with self._reader.session() as session:
            return collection_stats(session, session.collection_by_id(self._cid))


def _all_texts(query: Any) -> bool:
    return isinstance(query, Sequence) and len(query) > 0 and all(isinstance(text, str) for text in query)
