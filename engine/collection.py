"""A collection that can be changed: orchestration only. Storage and rows do the work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gingham.embed.rows import changed_sources, embed_rows
from gingham.errors import GinghamError, InvalidArgument, NotReady, SchemaMismatch
from gingham.query import read, select
from gingham.query.bind import bind, filter_node
from gingham.schema import check_named, unknown_name
from gingham.storage import schema_moves, writes
from gingham.types import RowBatch, UserId, WriteResult, decode_ids, is_id
from gingham.view import CollectionView, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.recode import RecodeReport
    from gingham.schema import Field, Schema, Vector
    from gingham.storage.session import WriteSession


class Collection(CollectionView):
    """A collection of the newest commit; see :meth:`gingham.Database.create_collection`."""

    def __init__(self, reader: Reader, cid: int, embedder: Embedder | None = None) -> None:
        super().__init__(reader, cid, embedder)
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
        from gingham.rows import given_rows

        schema = check_embedder_attached(self._reader, self._cid, self._embedder)
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

    def _prepared(self, batch: RowBatch, schema: Schema) -> writes.PreparedRows:
        return writes.prepare_rows(embed_rows(batch, schema, self._embedder), schema, self._store.options.memory_budget)

    def _upsert_batch(self, batch: RowBatch, schema: Schema) -> WriteResult:
        prepared = self._prepared(batch, schema)
        result = self._store.write(lambda session: self._upsert_prepared(session, prepared))
        if prepared.segments:
            self._store.maintenance.make_room(self._cid)
        return result

    def _upsert_prepared(self, session: WriteSession, prepared: writes.PreparedRows) -> WriteResult:
        return writes.upsert(session, self._cid, prepared)

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Change some fields or vectors of existing rows in one commit; unknown ids are counted as missing.

        Parameters
        ----------
        rows : dicts of an ``id`` and what to change in its row, which may differ from dict to dict, or an Arrow table
            or a frame; of several dicts of one id a later one changes what an earlier one left
        ids, vectors, fields : the same as columns, instead of ``rows``

        Raises
        ------
        InvalidArgument : a row without id, nothing to change, or a value that :meth:`upsert` refuses
        """
        from gingham.rows import given_changes

        schema = check_embedder_attached(self._reader, self._cid, self._embedder)
        return self._update_batches(given_changes(schema, rows, ids=ids, vectors=vectors, fields=fields), schema)

    def _update_batches(self, given: list[RowBatch], schema: Schema) -> WriteResult:
        while True:
            changes = [embed_changes(self, batch, schema, self._embedder) for batch in given]
            try:
                return self._store.write(partial(self._update_seen, changes, schema))
            except TextsMoved:
                continue

    def _update_seen(
        self, changes: list[tuple[RowBatch, dict[str, list[Any]]]], schema: Schema, session: WriteSession
    ) -> WriteResult:
        total = WriteResult(0)
        for batch, seen in changes:
            check_texts(session, self._cid, batch.ids, seen)
            total += writes.update_rows(session, self._cid, batch, schema)
        return total

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> WriteResult:
        """Remove rows by id or by filter in one commit; unknown ids are counted as missing."""
        return self._store.write(delete_change(self._cid, ids, where))

    def add_field(self, name: str, field: Field) -> None:
        """Add a payload field; rows that exist have null."""
        self._add(name, field, "fields")

    def add_vector(self, name: str, vector: Vector) -> None:
        """Add a vector field; rows that exist have no vector until they are updated."""
        self._add(name, vector, "vectors")

    def _add(self, name: str, column: Any, kind: str) -> None:
        check_named(name)

        def change(session: WriteSession) -> None:
            schema = session.collection_by_id(self._cid).schema
            if name in schema.fields or name in schema.vectors:
                raise InvalidArgument(f"the collection already has {name!r}; drop it first or choose another name")
            schema_moves.add_columns(session, self._cid, **{"fields": {}, "vectors": {}, kind: {name: column}})

        self._store.write(change)

    def drop_field(self, name: str) -> None:
        """Remove a payload field and its values."""
        self._drop(name, "fields")

    def drop_vector(self, name: str) -> None:
        """Remove a vector field and its vectors."""
        self._drop(name, "vectors")

    def _drop(self, name: str, kind: str) -> None:
        check_named(name)

        def change(session: WriteSession) -> None:
            known = getattr(session.collection_by_id(self._cid).schema, kind)
            if name not in known:
                raise SchemaMismatch(unknown_name(kind.removesuffix("s"), name, known))
            schema_moves.drop_column(session, self._cid, name)

        self._store.write(change)

    def recode(self, name: str, codec: str | None, *, min_recall: float = 0.0) -> RecodeReport:
        """Scan other codes of a vector field from now on, made from the stored vectors.

        Parameters
        ----------
        name : dense vector field
        codec : such as ``"RaBitQ4"``; None scans the vectors themselves
        min_recall : stay with the old codec where searches with the new one find a smaller share of the exact 10
            nearest rows, from 0 (default) to 1

        Returns
        -------
        RecodeReport : recall with both, measured before the switch, and whether it was made

        Raises
        ------
        InvalidArgument : a codec that does not parse or fit, or ``min_recall`` out of range
        SchemaMismatch : there is no such field

        Notes
        -----
        Runs in the calling thread while others read and write; one commit switches all segments. The vectors stay as
        they are, so recoding with the old codec goes back.
        """
        return self._recode("recode", name, {"codec": codec}, min_recall)

    def reindex(
        self,
        name: str,
        *,
        index: str | None = "keep",
        codec: str | None = "keep",
        min_recall: float = 0.0,
    ) -> RecodeReport:
        """Search a vector field by another index from now on, built from the stored vectors.

        Parameters
        ----------
        name : dense vector field
        index : such as ``"HNSW16"`` or ``"IVF"``; ``"Flat"`` scans, None scans codes, or is chosen by size where there
            are none; ``"keep"`` (default) leaves it as it is
        codec : of the rows of the index, as in :meth:`recode`; ``"keep"`` (default) leaves it as it is
        min_recall : as in :meth:`recode`

        Returns
        -------
        RecodeReport : recall with both, measured before the switch, and whether it was made

        Raises
        ------
        InvalidArgument : neither is given, an index or codec that does not parse or fit, or ``min_recall`` out of range
        SchemaMismatch : there is no such field

        Notes
        -----
        Runs in the calling thread while others read and write; one commit switches all segments. Codes that stay are
        not made again, but where they leave lists, and neither are graphs where only the codec changes.
        """
        given = {key: value for key, value in {"index": index, "codec": codec}.items() if value != "keep"}
        if not given:
            raise InvalidArgument("reindex() expects index= or codec=, found neither")
        return self._recode("reindex", name, given, min_recall)

    def _recode(self, call: str, name: str, given: dict[str, str | None], min_recall: float) -> RecodeReport:
        from gingham.recode import recode

        check_least_recall(call, min_recall)
        return recode(self._store, self._cid, name, given, min_recall)

    def calibrate(self, queries: Any, *, using: str | None = None) -> int:
        """Measure what ``target_recall`` takes of each index, with queries such as those to come.

        Without it graphs and lists are measured with rows of their own, which real queries may be harder than.

        Parameters
        ----------
        queries : vectors (m, dim), or texts where there is an embedder, some hundreds; up to 512 are kept with each
            index, and those that are built of its rows later are measured with them
        using : dense vector field; may be left out where there is one

        Returns
        -------
        int : indexes measured

        Raises
        ------
        InvalidArgument : no queries, or fewer than one
        SchemaMismatch : there is no such field
        """
        from gingham.storage.recode import measure_indexes

        with self._reader.session() as session:
            name, dense = session.collection_by_id(self._cid).schema.vector(using)
        asked = self._vectors(queries, dense)
        if not len(asked):
            raise InvalidArgument("calibrate(queries) expects at least one query, found none")
        return measure_indexes(self._store, self._cid, name, asked)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        return self._store.maintenance.ask(wait=wait, timeout=timeout)


def check_least_recall(call: str, min_recall: float) -> None:
    """Raise InvalidArgument unless it is a number from 0 to 1."""
    if isinstance(min_recall, bool) or not isinstance(min_recall, (int, float)) or not 0 <= min_recall <= 1:
        raise InvalidArgument(f"{call}(min_recall=) expects a number from 0 to 1, found {min_recall!r:.60}")


def check_embedder_attached(reader: Reader, cid: int, embedder: Embedder | None) -> Schema:
    """Schema of a collection that is about to be written; raises NotReady where its embedder is missing."""
    with reader.session() as session:
        record = session.collection_by_id(cid)
        if record.embedder is not None and embedder is None:
            raise NotReady(
                f"the text of {record.name!r} is embedded by {record.embedder.name!r}, which is not attached; "
                "open the collection with db.collection(name, embedder=...)"
            )
        return record.schema


class TextsMoved(Exception):
    """A text that a vector was made from is no longer the one that was read."""


def embed_changes(
    view: CollectionView, changes: RowBatch, schema: Schema, embedder: Embedder | None
) -> tuple[RowBatch, dict[str, list[Any]]]:
    """Add the vectors of texts that an update changes.

    Returns
    -------
    tuple : the changes with vectors, and the texts that were read for them because the update leaves them alone
    """
    needed = changed_sources(changes, schema, embedder)
    if not needed:
        return changes, {}
    ids = decode_ids(changes.ids)
    absent = [name for name in needed if name not in changes.fields]
    rows = view.get(ids, fields=absent) if absent else []
    seen = {name: [None if row is None else row[name] for row in rows] for name in absent}
    texts = {name: pa.array(values, pa.large_string()) for name, values in seen.items()}
    whole = embed_rows(RowBatch(changes.ids, changes.vectors, {**changes.fields, **texts}), schema, embedder)
    return RowBatch(changes.ids, whole.vectors, changes.fields), seen


def check_texts(session: WriteSession, cid: int, ids: list[bytes], seen: dict[str, list[Any]]) -> None:
    """Raise TextsMoved unless the texts that vectors were made from are still there."""
    if seen:
        rows = read.get(session, session.collection_by_id(cid), ids, list(seen), ())
        for name, values in seen.items():
            if values != [None if row is None else row[name] for row in rows]:
                raise TextsMoved


def delete_change(cid: int, ids: Any, where: Where) -> Callable[[WriteSession], WriteResult]:
    """The change that a delete makes in a write session."""
    if (ids is None) == (where is None):
        raise InvalidArgument("delete() expects either ids= or where=, found both or neither")
    from gingham.rows import encode_ids

    encoded = None if ids is None else encode_ids([ids] if is_id(ids) else ids)

    node = filter_node(where)

    def change(session: WriteSession) -> WriteResult:
        chosen = encoded
        if chosen is None:
            record = session.collection_by_id(cid)
            chosen = select.selected_ids(session, record, bind(node, record.schema))
        return writes.delete_ids(session, cid, chosen)

    return change
