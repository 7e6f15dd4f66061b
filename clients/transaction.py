"""Several changes in one commit of a server, sent in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from gingham.clients import convert
from gingham.clients.view import RemoteCollectionView
from gingham.clients.writes import WriteMessages, delete_request
from gingham.errors import Closed
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from gingham.clients.channel import Channel
    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.types import UserId, WriteResult


class RemoteTransaction:
    """Changes that are sent when the block ends without an error, and applied in order, in one commit.

    Parameters
    ----------
    embedder_of : checks that there is a collection, and finds its embedder

    Attributes
    ----------
    result : what was done, once it is applied
    """

    def __init__(self, channel: Channel, embedder_of: Callable[[str], Embedder | None]) -> None:
        self._channel = channel
        self._embedder_of = embedder_of
        self._changes: list[pb.Change] = []
        self._ended = False
        self.result: WriteResult | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        changes, ended = self._changes, self._ended
        self._changes, self._ended = [], True
        if kind is None and changes and not ended:
            answer = self._channel.write(self._channel.rows.WriteBatch, pb.WriteBatchRequest(changes=changes))
            self.result = convert.write_result(answer.result)

    def __getitem__(self, name: str) -> RemoteTransactionCollection:
        return RemoteTransactionCollection(self, self._channel, name, self._embedder_of(name))

    def abort(self) -> None:
        """Forget the changes."""
        self._changes.clear()
        self._ended = True

    def add(self, change: pb.Change) -> None:
        """Take a change up; raises Closed after the end."""
        if self._ended:
            raise Closed("the transaction has ended; begin another with db.transaction()")
        self._changes.append(change)


class RemoteTransactionCollection(RemoteCollectionView):
    """A collection inside a transaction: reads see the state before it."""

    def __init__(self, transaction: RemoteTransaction, channel: Channel, name: str, embedder: Embedder | None) -> None:
        super().__init__(channel, name, embedder=embedder)
        self._transaction = transaction

    def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Insert or replace rows at the end of the transaction."""
        messages = WriteMessages(self, self._embedder)
        given = messages.given_rows(rows, ids=ids, vectors=vectors, fields=fields)
        for change in [pb.Change(upsert=messages.upsert(batch)) for batch in given]:
            self._transaction.add(change)

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Change rows at the end of the transaction."""
        messages = WriteMessages(self, self._embedder)
        given = messages.given_changes(rows, ids=ids, vectors=vectors, fields=fields)
        self._transaction.add(pb.Change(update=messages.update(given, may_see=False)))

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> None:
        """Remove rows at the end of the transaction."""
        self._transaction.add(pb.Change(delete=delete_request(self._name, ids, where)))
