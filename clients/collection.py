"""A collection of a server: the same methods, arguments, results and errors as an embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.clients import convert
from gingham.clients.ingest import Ingest
from gingham.clients.view import RemoteCollectionView
from gingham.clients.writes import WriteMessages, delete_request
from gingham.collection import check_least_recall
from gingham.errors import InvalidArgument, ReadOnly
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import RowBatch, WriteResult, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.clients.channel import Channel
    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.recode import RecodeReport
    from gingham.schema import Field, Vector
    from gingham.types import UserId


class RemoteCollection(RemoteCollectionView):
    """A collection of a server; what methods take, return and raise is what :class:`gingham.Collection` says.

    Notes
    -----
    It is known by its name: after :meth:`gingham.Database.rename_collection`, open it again. It is pickled with the
    address of the server, and connects anew where it is unpickled.
    """

    def __init__(self, channel: Channel, name: str, *, writable: bool = True, embedder: Embedder | None = None) -> None:
        super().__init__(channel, name, embedder=embedder)
        self._writable = writable

    def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Insert rows, replacing those of the same id; they survive a crash of the server when this returns."""
        messages = self._messages()
        with Ingest(self._channel, self._name, embedded=messages.embedded) as ingest:
            for batch in messages.given_rows(rows, ids=ids, vectors=vectors, fields=fields):
                ingest.add(messages.packed(batch), len(batch))
        total = ingest.result
        return total if total.version else self._upsert_nothing(messages)

    def _upsert_nothing(self, messages: WriteMessages) -> WriteResult:
        request = messages.upsert(RowBatch([], {}, {}))
        return convert.write_result(self._channel.write(self._channel.rows.Upsert, request).result)

    def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Change some fields or vectors of existing rows in one commit; unknown ids are counted as missing."""
        messages = self._messages()
        given = messages.given_changes(rows, ids=ids, vectors=vectors, fields=fields)
        while True:
            answer = self._channel.write(self._channel.rows.Update, messages.update(given))
            if not answer.texts_moved:
                return convert.write_result(answer.result)

    def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> WriteResult:
        """Remove rows by id or by filter in one commit; unknown ids are counted as missing."""
        check_writable(self._writable, self._channel)
        request = delete_request(self._name, ids, where)
        return convert.write_result(self._channel.write(self._channel.rows.Delete, request).result)

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

    def recode(self, name: str, codec: str | None, *, min_recall: float = 0.0) -> RecodeReport:
        """Scan other codes of a vector field from now on, made by the server from the stored vectors."""
        return self._recode("recode", name, {"codec": codec}, min_recall)

    def reindex(
        self,
        name: str,
        *,
        index: str | None = "keep",
        codec: str | None = "keep",
        min_recall: float = 0.0,
    ) -> RecodeReport:
        """Search a vector field by another index from now on, built by the server from the stored vectors."""
        given = {key: value for key, value in {"index": index, "codec": codec}.items() if value != "keep"}
        if not given:
            raise InvalidArgument("reindex() expects index= or codec=, found neither")
        return self._recode("reindex", name, given, min_recall)

    def _recode(self, call: str, name: str, given: dict[str, str | None], min_recall: float) -> RecodeReport:
        check_writable(self._writable, self._channel)
        check_least_recall(call, min_recall)
        self.schema.vector(convert.checked_name(name))
        request = pb.ReindexRequest(
            collection=self._name, name=name, min_recall=min_recall, **convert.spec_messages(given)
        )
        return convert.recode_report(self._channel.call(self._channel.admin.Reindex, request))

    def calibrate(self, queries: Any, *, using: str | None = None) -> int:
        """Measure what ``target_recall`` takes of each index, with queries such as those to come."""
        check_writable(self._writable, self._channel)
        if using is not None:
            convert.checked_name(using)
        message = self._texts().near(queries, using)
        request = pb.CalibrateRequest(collection=self._name, using=using, **message)
        return int(self._channel.call(self._channel.admin.Calibrate, request).indexes)

    def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool:
        """Seal and merge what is due; nobody has to call this. False where it took longer than ``timeout`` s."""
        check_writable(self._writable, self._channel)
        return ask_maintenance(self._channel, self._name, wait=wait, timeout=timeout)

    def _messages(self) -> WriteMessages:
        check_writable(self._writable, self._channel)
        return WriteMessages(self, self._embedder)


def check_writable(writable: bool, channel: Channel) -> None:
    """Raise ReadOnly unless calls that write are sent."""
    if not writable:
        raise ReadOnly(f"{channel.url} is open for reading; open it with mode='w' to change it")


def ask_maintenance(channel: Channel, name: str | None, *, wait: bool, timeout: float | None) -> bool:
    """Have a server seal and merge, for a collection or, where ``name`` is None, for the whole database."""
    seconds = None if timeout is None else finite("maintain(timeout=)", timeout)
    request = pb.MaintainRequest(collection=name, wait=bool(wait), timeout=seconds)
    return bool(channel.call(channel.collections.Maintain, request).done)
