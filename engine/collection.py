"""A collection: orchestration only. Storage, query and rows do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from gingham.errors import GinghamError, InvalidArgument, SchemaMismatch
from gingham.query import read, select
from gingham.query.bind import bind
from gingham.query.search import Request, search
from gingham.schema import Json, unknown_name
from gingham.storage import schema_moves, writes
from gingham.types import RowBatch, UserId, WriteResult, encode_id

if TYPE_CHECKING:
    import os
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from gingham.query.bind import Where
    from gingham.schema import Dense, Field, Schema
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session, WriteSession
    from gingham.storage.snapshot import Pin
    from gingham.storage.store import Store

_ID_KINDS = (str, int, bytes)


@dataclass(frozen=True)
class CollectionStats:
    """Figures of one collection.

    Attributes
    ----------
    rows : live rows
    dead_rows : rows deleted or replaced whose space is not yet given back
    segments : immutable segments
    tail_rows : rows not yet sealed into a segment
    tail_batches : batches they lie in
    unindexed_rows : rows that every search scans; all of them while there is no index
    nbytes : bytes of the segments and the tail
    version : commit that changed the collection last
    """

    rows: int
    dead_rows: int
    segments: int
    tail_rows: int
    tail_batches: int
    unindexed_rows: int
    nbytes: int
    version: int


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

    def __init__(self, reader: Reader, cid: int) -> None:
        self._reader = reader
        self._cid = cid

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
        single = _is_id(ids)
        encoded = [encode_id(i) for i in ([ids] if single else ids)]
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            vectors = tuple(record.schema.vectors) if include_vectors else ()
            rows = read.get(session, record, encoded, _fields(record, fields), vectors)
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
        if batch_size is not None and batch_size < 1:
            raise InvalidArgument(f"scan(batch_size=) expects at least 1, found {batch_size}")
        pin = self._reader.pin()
        try:
            with pin.read() as session:
                record = session.collection_by_id(self._cid)
                node = bind(where, record.schema)
                names = _fields(record, fields)
                _check_order(record, order_by)
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
        """Write all rows with their vectors to a Parquet file; returns the number of rows."""
        import pyarrow.parquet as pq

        rows = 0
        writer = None
        try:
            for batch in self.scan(where=where, include_vectors=True, batch_size=10_000):
                writer = writer or pq.ParquetWriter(path, batch.schema)
                writer.write_batch(batch)
                rows += batch.num_rows
            if writer is None:
                with self._reader.session() as session:
                    record = session.collection_by_id(self._cid)
                    nothing = np.empty(0, np.uint64)
                    batch = read.read_batch(
                        session, record, nothing, tuple(record.schema.fields), tuple(record.schema.vectors)
                    )
                writer = pq.ParquetWriter(path, batch.schema)
        finally:
            if writer is not None:
                writer.close()
        return rows

    def facets(self, field: str, *, where: Where = None, limit: int | None = 10) -> dict[Any, int]:
        """Count the rows of each value of a field, most frequent first; null is not counted."""
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            counts = read.facets(session, record, field, bind(where, record.schema))
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
        exact: bool = True,
    ) -> Any:
        """Find the nearest rows.

        Parameters
        ----------
        query : one vector of shape (dim,), or a batch of shape (n_queries, dim)
        k : hits per query; None returns all rows that reach ``radius``
        where : filter, applied before rows are scored
        using : vector field; may be left out where there is one
        radius : smallest score returned
        fields : payload to return; None returns all
        exact : scan all rows; every search is exact while there is no index

        Returns
        -------
        Hits for one vector, BatchHits for a batch; fewer than k hits where fewer rows are eligible

        Raises
        ------
        DimensionMismatch : the query has another width than the field
        InvalidArgument : k below 1, NaN or infinity in the query, neither k nor radius
        """
        from gingham.rows import query_matrix

        if k is None and radius is None:
            raise InvalidArgument("search() expects k= or radius=, found neither")
        if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1):
            raise InvalidArgument(f"search(k=) expects an integer of at least 1, found {k!r}")
        if radius is not None and not np.isfinite(radius):
            raise InvalidArgument(f"search(radius=) expects a finite score, found {radius!r}")
        del exact
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
            name, dense = record.schema.vector(using)
            queries, single = query_matrix(query, dense)
            request = Request(
                name, dense, queries, None if k is None else int(k), bind(where, record.schema), radius,
                _fields(record, fields),
            )  # fmt: skip
            results = search(session, record, request)
        return results[0] if single else results

    def stats(self) -> CollectionStats:
        """Rows, segments, tail and bytes."""
        with self._reader.session() as session:
            record = session.collection_by_id(self._cid)
        tail_rows = writes.tail_rows(record)
        return CollectionStats(
            rows=record.rows,
            dead_rows=sum(ref.dead for ref in record.segments) + record.tail_dead,
            segments=len(record.segments),
            tail_rows=tail_rows,
            tail_batches=len(record.tail),
            unindexed_rows=record.rows,
            nbytes=sum(ref.nbytes for ref in record.segments) + sum(entry.nbytes for entry in record.tail),
            version=record.epoch,
        )


class Collection(CollectionView):
    """A collection of the newest commit; see :meth:`gingham.Database.create_collection`."""

    def __init__(self, reader: Reader, cid: int) -> None:
        super().__init__(reader, cid)
        self._store = reader.store

    def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Insert rows, replacing those of the same id; they survive a crash when this returns.

        Parameters
        ----------
        rows : list of dicts, Arrow table, batch or reader, pandas or polars frame, Parquet path, or any
            iterable of dicts; a dict has ``id`` (a UUID is made where it is missing), fields and vectors
        ids, vectors, fields : the same as columns, instead of ``rows``

        Returns
        -------
        WriteResult : what was inserted and updated

        Raises
        ------
        InvalidArgument : a NaN or infinity (the row is named), an unusable id, columns of unequal length
        DimensionMismatch : a vector has another width than its field
        SchemaMismatch : an unknown field or a value of another type
        StoreFull : the size cap or the disk is full

        Notes
        -----
        Columns, lists, tables and frames are written in one commit or not at all. Readers, paths and
        iterators are written in commits of 10,000 rows; an error then has ``durable_rows``. Of several rows
        with one id in a batch the last wins.
        """
        from gingham import rows as source

        schema = self.schema
        if rows is None:
            if ids is None:
                raise InvalidArgument("upsert() expects rows, or ids= with vectors= and fields=, found neither")
            return self._upsert_batch(source.from_columns(schema, ids=ids, vectors=vectors, fields=fields))
        if ids is not None or vectors is not None or fields is not None:
            raise InvalidArgument("upsert() expects either rows or ids=, vectors= and fields=, found both")
        return self._upsert_stream(source.batches(rows, schema))

    def _upsert_stream(self, batches: Iterable[RowBatch]) -> WriteResult:
        total = WriteResult(0)
        durable = 0
        try:
            for batch in batches:
                total += self._upsert_batch(batch)
                durable += len(batch)
        except Exception as error:
            if isinstance(error, GinghamError):
                error.durable_rows = durable
            error.add_note(f"{durable} rows were written before")
            raise
        return total if total.version else self._upsert_batch(RowBatch([], {}, {}))

    def _upsert_batch(self, batch: RowBatch) -> WriteResult:
        prepared = writes.prepare_rows(batch, self.schema)
        result = self._store.write(
            lambda session: writes.upsert(session, self._cid, prepared), needs_bytes=prepared.nbytes
        )
        if prepared.blobs is not None:
            self._store.maintenance.make_room(self._cid)
        return result

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Change some fields or vectors of existing rows in one commit; unknown ids are counted as missing."""
        from gingham import rows as source

        if rows is not None or ids is None:
            raise InvalidArgument("update() expects ids= with vectors= or fields=, found rows or no ids")
        changes = source.from_columns(self.schema, ids=ids, vectors=vectors, fields=fields, partial=True)
        return self._store.write(lambda session: writes.update_rows(session, self._cid, changes), needs_bytes=1 << 16)

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> WriteResult:
        """Remove rows by id or by filter in one commit; unknown ids are counted as missing."""
        return self._store.write(delete_change(self._cid, ids, where))

    def add_field(self, name: str, field: Field) -> None:
        """Add a payload field; rows that exist have null."""
        self._add(name, fields={name: field}, vectors={})

    def add_vector(self, name: str, vector: Dense) -> None:
        """Add a vector field; rows that exist have no vector until they are updated."""
        self._add(name, fields={}, vectors={name: vector})

    def _add(self, name: str, *, fields: dict[str, Field], vectors: dict[str, Dense]) -> None:
        def change(session: WriteSession) -> None:
            schema = session.collection_by_id(self._cid).schema
            if name in schema.fields or name in schema.vectors:
                raise InvalidArgument(f"the collection already has {name!r}; drop it first or choose another name")
            schema_moves.add_columns(session, self._cid, fields=fields, vectors=vectors)

        self._store.write(change)

    def drop_field(self, name: str) -> None:
        """Remove a payload field and its values."""
        self._drop(name, "fields")

    def drop_vector(self, name: str) -> None:
        """Remove a vector field and its vectors."""
        self._drop(name, "vectors")

    def _drop(self, name: str, kind: str) -> None:
        def change(session: WriteSession) -> None:
            known = getattr(session.collection_by_id(self._cid).schema, kind)
            if name not in known:
                raise SchemaMismatch(unknown_name(kind.removesuffix("s"), name, known))
            schema_moves.drop_column(session, self._cid, name)

        self._store.write(change)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        if not wait:
            self._store.maintenance.wake()
            return True
        return self._store.maintenance.wait(timeout)


def delete_change(cid: int, ids: Any, where: Where) -> Callable[[WriteSession], WriteResult]:
    """The change that a delete makes in a write session."""
    if (ids is None) == (where is None):
        raise InvalidArgument("delete() expects either ids= or where=, found both or neither")
    encoded = None if ids is None else [encode_id(i) for i in ([ids] if _is_id(ids) else ids)]

    def change(session: WriteSession) -> WriteResult:
        chosen = encoded
        if chosen is None:
            record = session.collection_by_id(cid)
            chosen = select.selected_ids(session, record, bind(where, record.schema))
        return writes.delete_ids(session, cid, chosen)

    return change


def _is_id(value: object) -> bool:
    return isinstance(value, _ID_KINDS) or type(value).__name__ == "UUID" or not isinstance(value, Iterable)


def _fields(record: CollectionRecord, fields: Sequence[str] | None) -> tuple[str, ...]:
    if fields is None:
        return tuple(record.schema.fields)
    for name in fields:
        record.schema.field(name)
    return tuple(fields)


def _check_order(record: CollectionRecord, order_by: str | None) -> None:
    if order_by is not None:
        kind = record.schema.field(order_by)
        if isinstance(kind, Json) or getattr(kind, "many", False):
            raise SchemaMismatch(
                f"scan(order_by=) expects a field of single values, found {order_by!r}; choose another"
            )
