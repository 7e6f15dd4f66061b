"""The tail: recent rows as Arrow record batches, searched exactly until they are sealed into a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gingham.errors import Corrupt
from gingham.storage.columns import (
    concat,
    no_vectors,
    pack_batch,
    unpack_batch,
    vector_list,
    vector_matrix,
)
from gingham.storage.part import Chunk
from gingham.storage.records import child_key, open_record, seal_record
from gingham.storage.tombstones import TAIL, read_dead
from gingham.text.postings import Postings, make_postings, no_postings

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gingham.schema import Column, Sparse, Text, Tokens
    from gingham.storage.catalog import CollectionRecord, TailBatch
    from gingham.storage.session import Session

REWRITE_BYTES = 64 << 10
"""A commit this small is appended to the last batch instead of starting one: 128 batches hold thousands of rows."""
SEAL_ROWS = 4096
SEAL_BATCHES = 64
SEAL_BYTES = 32 << 20
HARD_FACTOR = 4
"""At this multiple of the seal bounds the writing call seals itself."""

_ID, _VECTOR, _NORMS, _FIELD = "id", "v:", "n:", "f:"


def tail_batch(
    ids: pa.Array,
    vectors: dict[str, np.ndarray[Any, Any]],
    norms: dict[str, np.ndarray[Any, Any]],
    fields: dict[str, pa.Array],
) -> pa.RecordBatch:
    """Columns of one tail batch."""
    columns: dict[str, Any] = {_ID: ids}
    columns |= {_VECTOR + name: vector_list(matrix) for name, matrix in vectors.items()}
    columns |= {_NORMS + name: pa.array(norm) for name, norm in norms.items()}
    columns |= {_FIELD + name: column for name, column in fields.items()}
    return pa.record_batch(columns)


def write_tail_batch(session: Session, cid: int, seq: int, batch: pa.RecordBatch) -> int:
    """Store a batch; returns its bytes."""
    key = child_key(cid, seq)
    value = seal_record(key, pack_batch(batch).to_pybytes())
    session.txn.put(key, value, db=session.env.table("tail"))
    return len(value)


def read_tail_batch(session: Session, cid: int, entry: TailBatch) -> pa.RecordBatch:
    """A stored batch, copied off the map."""
    key = child_key(cid, entry.seq)
    value = session.txn.get(key, db=session.env.table("tail"))
    if value is None:
        raise Corrupt(f"tail batch {entry.seq} of collection {cid} is missing; restore a backup")
    batch = unpack_batch(pa.py_buffer(bytes(open_record("tail", key, value))))
    if batch.num_rows != entry.rows:
        raise Corrupt(f"tail batch {entry.seq} of collection {cid} expects {entry.rows} rows, found {batch.num_rows}")
    return batch


class TailPart:
    """The tail as a :class:`~gingham.storage.part.Part` of an open session."""

    def __init__(self, session: Session, record: CollectionRecord) -> None:
        self._session = session
        self._record = record
        self.rows = sum(entry.rows for entry in record.tail)
        self._cache: dict[str, Any] = {}

    @property
    def key(self) -> Hashable:
        """Collection and the batches with their sizes."""
        batches = tuple((entry.seq, entry.rows) for entry in self._record.tail)
        return ("tail", self._record.cid, self._record.schema_epoch, batches)

    def _batches(self) -> list[pa.RecordBatch]:
        return [self._batch(entry) for entry in self._record.tail]

    def _batch(self, entry: TailBatch) -> pa.RecordBatch:
        cid = self._record.cid
        key = ("batch", cid, entry.seq, entry.rows, self._record.schema_epoch)
        return self._session.kept(key, lambda: read_tail_batch(self._session, cid, entry))

    @property
    def dead(self) -> np.ndarray[Any, Any]:
        """Ascending offsets of dead rows."""
        if self._record.tail_dead == 0:
            return np.empty(0, np.int64)
        rows = read_dead(self._session.env, self._session.txn, self._record.cid, TAIL).astype(np.uint64)
        mine = self.row_ids
        at = np.searchsorted(mine, rows)
        if len(rows) != self._record.tail_dead or np.any(at >= len(mine)) or np.any(mine[at] != rows):
            raise Corrupt(f"the tombstones of the tail of {self._record.name!r} do not fit it; run verify()")
        return at.astype(np.int64)

    @property
    def row_ids(self) -> np.ndarray[Any, Any]:
        """Ascending row ids."""
        spans = [np.arange(e.first_row, e.first_row + e.rows, dtype=np.uint64) for e in self._record.tail]
        return np.concatenate(spans) if spans else np.empty(0, np.uint64)

    @property
    def ids(self) -> pa.Array:
        """Encoded user ids."""
        return self._joined(_ID, pa.binary())

    def field(self, name: str, field: Column) -> pa.Array:
        """Payload column; all null in batches older than the field."""
        return self._joined(_FIELD + name, field.arrow_type)

    def token_codes(self, name: str, kind: Tokens) -> None:
        """None."""

    def postings(self, name: str, kind: Text | Sparse) -> list[tuple[int, Postings]]:
        """Postings of a column, made once for each batch and process."""
        out, start = [], 0
        for entry, batch in zip(self._record.tail, self._batches(), strict=True):
            out.append((start, self._batch_postings(name, kind, entry, batch)))
            start += batch.num_rows
        return out

    def _batch_postings(self, name: str, kind: Text | Sparse, entry: TailBatch, batch: pa.RecordBatch) -> Postings:
        if _FIELD + name not in batch.schema.names:
            return no_postings(batch.num_rows)
        key = ("postings", self._record.cid, entry.seq, entry.rows, self._record.schema_epoch, name)
        return self._session.kept(key, lambda: make_postings(kind, batch.column(_FIELD + name)))

    def _joined(self, column: str, kind: pa.DataType) -> pa.Array:
        if column not in self._cache:
            self._cache[column] = concat(
                [
                    batch.column(column) if column in batch.schema.names else pa.nulls(batch.num_rows, kind)
                    for batch in self._batches()
                ],
                kind,
            )
        return self._cache[column]

    def coded(self, name: str) -> None:
        """None: the tail is scanned."""

    def chunks(self, name: str) -> list[Chunk]:
        """One chunk a batch."""
        dense = self._session.vector_of(self._record.cid, name)
        out: list[Chunk] = []
        start = 0
        for batch in self._batches():
            if _VECTOR + name in batch.schema.names:
                matrix = vector_matrix(batch.column(_VECTOR + name), dense.dim)
                norms = batch.column(_NORMS + name).to_numpy()
            else:
                matrix = no_vectors(batch.num_rows, dense.dim, dense.dtype)
                norms = np.full(batch.num_rows, np.nan, np.float32)
            out.append(Chunk(start, matrix, norms))
            start += batch.num_rows
        return out
