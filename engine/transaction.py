"""Several changes in one commit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from gingham.collection import check_embedder_attached, delete_change, embed_changes
from gingham.embed.rows import embed_rows
from gingham.errors import Closed, InvalidArgument
from gingham.storage import writes
from gingham.types import WriteResult
from gingham.view import CollectionView, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.schema import Schema
    from gingham.storage.session import WriteSession
    from gingham.types import RowBatch, UserId


class Transaction:
    """Changes that are applied in order, in one commit, when the block ends without an error.

    Attributes
    ----------
    result : what was done, once it is applied
    """

    def __init__(self, reader: Reader, embedders: Mapping[int, Embedder]) -> None:
        self._reader = reader
        self._embedders = embedders
        self._changes: list[Callable[[WriteSession], WriteResult]] = []
        self._ended = False
        self.result: WriteResult | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._apply()
        self._ended = True

    def __getitem__(self, name: str) -> TransactionCollection:
        with self._reader.session() as session:
            cid = session.collection_id(name)
        return TransactionCollection(self, self._reader, cid, self._embedders.get(cid))

    def abort(self) -> None:
        """Forget the changes."""
        self._changes.clear()
        self._ended = True

    def add(self, change: Callable[[WriteSession], WriteResult]) -> None:
        """Take a change up; raises Closed after the end."""
        if self._ended:
            raise Closed("the transaction has ended; begin another with db.transaction()")
        self._changes.append(change)

    def _apply(self) -> None:
        if self._ended or not self._changes:
            return

        def change(session: WriteSession) -> WriteResult:
            total = WriteResult(session.next_version())
            for one in self._changes:
                total += one(session)
            return total

        self.result = self._reader.store.write(change)


class TransactionCollection(CollectionView):
    """A collection inside a transaction: reads see the state before it."""

    def __init__(self, transaction: Transaction, reader: Reader, cid: int, embedder: Embedder | None) -> None:
        super().__init__(reader, cid, embedder)
        self._transaction = transaction

    def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Insert or replace rows at the end of the transaction; see :meth:`Collection.upsert`."""
        from gingham.rows import given_rows, owned

        schema = check_embedder_attached(self._reader, self._cid, self._embedder)
        memory = self._reader.store.options.memory_budget
        batches = [
            writes.prepare_rows(embed_rows(owned(batch), schema, self._embedder), schema, memory)
            for batch in given_rows(schema, rows, ids=ids, vectors=vectors, fields=fields)
        ]
        for prepared in batches:
            self._transaction.add(partial(self._upsert, prepared))

    def _upsert(self, prepared: writes.PreparedRows, session: WriteSession) -> WriteResult:
        return writes.upsert(session, self._cid, prepared)

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Change rows at the end of the transaction; see :meth:`Collection.update`."""
        from gingham.rows import given_changes, owned

        schema = check_embedder_attached(self._reader, self._cid, self._embedder)
        given = given_changes(schema, rows, ids=ids, vectors=vectors, fields=fields)
        changes = [embed_changes(self, owned(batch), schema, self._embedder) for batch in given]
        texts = sorted({name for _, seen in changes for name in seen})
        if texts:
            raise InvalidArgument(
                "update() in a transaction expects all texts that a vector is made from, "
                f"found none for {texts}; give them too"
            )
        for batch, _ in changes:
            self._transaction.add(partial(self._update, batch, schema))

    def _update(self, changes: RowBatch, schema: Schema, session: WriteSession) -> WriteResult:
        return writes.update_rows(session, self._cid, changes, schema)

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> None:
        """Remove rows at the end of the transaction; see :meth:`Collection.delete`."""
        self._transaction.add(delete_change(self._cid, ids, where))
