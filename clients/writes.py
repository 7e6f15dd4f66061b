"""Writes as messages of gRPC: rows, checked and embedded where a client has the embedder, and changes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from gingham.clients import convert
from gingham.clients.view import ids_message
from gingham.collection import embed_changes
from gingham.embed.rows import embed_rows
from gingham.errors import InvalidArgument
from gingham.rows import given_changes, given_rows
from gingham.schema import Schema, Tokens
from gingham.server.proto import gingham_pb2 as pb
from gingham.token_vectors import GivenTokens
from gingham.wire import pack_batch, pack_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.clients.view import RemoteCollectionView
    from gingham.embed import Embedder
    from gingham.query.bind import Where
    from gingham.types import RowBatch


class WriteMessages:
    """Makes the messages of one write.

    Parameters
    ----------
    view : the collection that is written to
    embedder : makes vectors of texts here; without one texts travel, for an embedder of the server
    """

    def __init__(self, view: RemoteCollectionView, embedder: Embedder | None) -> None:
        self._view = view
        self._embedder = embedder
        self._schema = _unpooled(view.schema)

    def given_rows(self, rows: Any, **columns: Any) -> Iterator[RowBatch]:
        """Check what an upsert is given."""
        return given_rows(self._schema, rows, **columns)

    def given_changes(self, rows: Any, **columns: Any) -> list[RowBatch]:
        """Check what an update is given."""
        return given_changes(self._schema, rows, **columns)

    @property
    def embedded(self) -> bool:
        """Whether texts are embedded here."""
        return self._embedder is not None

    def packed(self, batch: RowBatch) -> bytes:
        """Rows to be inserted, with vectors of their texts where these are embedded here."""
        if len(batch):
            batch = embed_rows(batch, self._schema, self._embedder)
        return pack_batch(batch, leave_out_nulls=True)

    def upsert(self, batch: RowBatch) -> pb.UpsertRequest:
        """The same as a request."""
        return pb.UpsertRequest(collection=self._view.name, rows=self.packed(batch), embedded=self.embedded)

    def update(self, batches: Sequence[RowBatch], *, may_see: bool = True) -> pb.UpdateRequest:
        """Changes of rows.

        Parameters
        ----------
        may_see : read texts that vectors are made from and that an update leaves alone; False raises InvalidArgument
        """
        view: Any = self._view
        changes = [embed_changes(view, batch, self._schema, self._embedder) for batch in batches]
        seen = [texts for _, texts in changes]
        if not may_see and any(seen):
            raise InvalidArgument(
                "update() in a transaction expects all texts that a vector is made from, "
                f"found none for {sorted({name for texts in seen for name in texts})}; give them too"
            )
        return pb.UpdateRequest(
            collection=self._view.name,
            batches=[pack_batch(batch, leave_out_nulls=False) for batch, _ in changes],
            embedded=self._embedder is not None,
            seen=[_pack_texts(batch, texts) for batch, texts in changes] if any(seen) else [],
        )


def delete_request(name: str, ids: Any, where: Where) -> pb.DeleteRequest:
    """Rows to be removed; raises InvalidArgument where both ways of saying which are used, or neither."""
    if (ids is None) == (where is None):
        raise InvalidArgument("delete() expects either ids= or where=, found both or neither")
    if ids is None:
        return pb.DeleteRequest(collection=name, where=convert.filter_message(where))
    return pb.DeleteRequest(collection=name, ids=ids_message(ids))


def _unpooled(schema: Schema) -> Schema:
    """Token matrices are pooled where they are stored, and must not be twice."""
    tokens = {
        name: GivenTokens(**msgspec.structs.asdict(kind))
        for name, kind in schema.vectors.items()
        if isinstance(kind, Tokens)
    }
    return Schema(schema.fields, {**schema.vectors, **tokens})


def _pack_texts(batch: RowBatch, texts: dict[str, list[Any]]) -> bytes:
    if not texts:
        return b""
    columns = {name: pa.array(values, pa.large_string()) for name, values in texts.items()}
    return pack_table(pa.table({"id": pa.array(batch.ids, pa.binary()), **columns}))
