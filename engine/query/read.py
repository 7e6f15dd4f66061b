"""Reading rows that are named, or all of them: get, scan, facets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.query.fetch import fetch
from gingham.query.ids import id_column, schema_with_ids
from gingham.query.select import allowed, find, selected
from gingham.schema import Json, Tokens
from gingham.sparse_vectors import sparse_dict
from gingham.storage.columns import concat, vector_list
from gingham.storage.part import take_field, take_vectors
from gingham.storage.records import open_row
from gingham.storage.writes import locate
from gingham.token_vectors import token_matrices
from gingham.types import decode_id, decode_ids, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.query.ast import Node
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session

Row = dict[str, Any]

_ID_BLOCK = 10_000


def payload(record: CollectionRecord, fields: Any) -> tuple[str, ...]:
    """Checked names of the payload to read, each once; None is all of it.

    Raises
    ------
    InvalidArgument : no list of names
    SchemaMismatch : an unknown name
    """
    if fields is None:
        return tuple(record.schema.fields)
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Iterable):
        raise InvalidArgument(f"fields= expects a list of names, such as fields=['title'], found {shown(fields)}")
    names = tuple(fields)
    for name in names:
        record.schema.field(name)
    return tuple(dict.fromkeys(names))


def check_order(record: CollectionRecord, order_by: str | None, *, descending: bool) -> None:
    """Raise InvalidArgument unless rows can be read in this order."""
    if order_by is not None:
        kind = record.schema.field(order_by)
        if isinstance(kind, Json) or getattr(kind, "many", False):
            raise SchemaMismatch(
                f"scan(order_by=) expects a field of single values, found {order_by!r}; choose another"
            )
    elif descending:
        raise InvalidArgument("scan(descending=True) expects order_by= with a field, found none; name one")


def get(
    session: Session,
    record: CollectionRecord,
    ids: Sequence[bytes],
    fields: Sequence[str],
    vectors: Sequence[str],
) -> list[Row | None]:
    """Rows by encoded id in the order asked, None where there is none."""
    found = find(session, record, list(dict.fromkeys(ids)))
    wanted = [encoded for encoded in ids if encoded in found]
    rows = read_dicts(session, record, np.array([found[e] for e in wanted], np.uint64), fields, vectors)
    stream = iter(rows)
    return [next(stream) if encoded in found else None for encoded in ids]


def read_dicts(
    session: Session,
    record: CollectionRecord,
    rows: np.ndarray[Any, Any],
    fields: Sequence[str],
    vectors: Sequence[str],
) -> list[Row]:
    """Rows by row id as dicts; JSON is decoded, a missing vector is None."""
    if not len(rows):
        return []
    ids, table = fetch(session, record, rows, fields)
    out = [{"id": decode_id(encoded), **row} for encoded, row in _payload(ids, table)]
    for name, kind in record.schema.fields.items():
        if isinstance(kind, Json) and name in fields:
            for row in out:
                row[name] = None if row[name] is None else json.loads(row[name])
    others = [name for name in vectors if name not in record.schema.dense]
    if others:
        _, stored = fetch(session, record, rows, others)
        for name in others:
            vector_kind = record.schema.vectors[name]
            if isinstance(vector_kind, Tokens):
                found: list[Any] = token_matrices(stored[name].combine_chunks(), vector_kind.dim)
            else:
                found = [sparse_dict(entries) for entries in stored[name].to_pylist()]
            for row, vector in zip(out, found, strict=True):
                row[name] = vector
    for name in vectors:
        if name in others:
            continue
        matrix = read_vectors(session, record, name, rows)
        for row, vector in zip(out, matrix, strict=True):
            row[name] = None if np.isnan(vector[0]) else vector
    return out


def _payload(ids: list[bytes], table: pa.Table) -> Iterator[tuple[bytes, Row]]:
    rows = table.to_pylist() if table.num_columns else [{} for _ in ids]
    return zip(ids, rows, strict=True)


def read_vectors(
    session: Session, record: CollectionRecord, name: str, rows: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Copy of vectors by row id, shape (n, dim)."""
    dense = record.schema.dense[name]
    out = np.empty((len(rows), dense.dim), dense.dtype)
    for part, offsets, where in locate(session.parts(record), rows):
        out[where] = take_vectors(part, name, dense, offsets)
    return out


def rows_by_id(
    session: Session, record: CollectionRecord, node: Node | None, size: int
) -> Iterator[np.ndarray[Any, Any]]:
    """Row ids that a filter selects, in the order of user ids, in arrays of ``size``."""
    session.env.check_ids()
    chosen = None
    if node is not None or session.scope is not None:
        hits = [part.row_ids[offsets] for part, offsets in selected(session, record, node)]
        chosen = np.sort(np.concatenate([np.empty(0, np.uint64), *hits]))
    prefix = record.cid.to_bytes(4, "big")
    cursor = session.txn.cursor(db=session.env.table("ids"))
    held = np.empty(0, np.uint64)
    more = cursor.set_range(prefix)
    while more:
        block: list[int] = []
        while more and len(block) < _ID_BLOCK:
            key = bytes(cursor.key())
            if key[:4] != prefix:
                more = False
                break
            block.append(open_row(key, cursor.value()))
            more = cursor.next()
        rows = np.array(block, np.uint64)
        held = np.concatenate([held, rows if chosen is None else rows[np.isin(rows, chosen)]])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held


def rows_by_field(
    session: Session, record: CollectionRecord, node: Node | None, field: str, *, descending: bool, size: int
) -> Iterator[np.ndarray[Any, Any]]:
    """Row ids that a filter selects, ordered by a field, nulls last, ties by row."""
    kind = record.schema.field(field)
    values, rows = [], [np.empty(0, np.uint64)]
    for part, offsets in selected(session, record, node):
        values.append(take_field(part, field, kind, offsets))
        rows.append(part.row_ids[offsets])
    all_rows = np.concatenate(rows)
    table = pa.table({"value": concat(values, kind.arrow_type), "row": all_rows})
    order = pc.sort_indices(
        table, sort_keys=[("value", "descending" if descending else "ascending"), ("row", "ascending")]
    ).to_numpy()
    for start in range(0, len(order), size):
        yield all_rows[order[start : start + size]]


def read_batch(
    session: Session,
    record: CollectionRecord,
    rows: np.ndarray[Any, Any],
    fields: Sequence[str],
    vectors: Sequence[str],
) -> pa.RecordBatch:
    """Rows by row id as an Arrow record batch with a column ``id``."""
    dense = [name for name in vectors if name in record.schema.dense]
    columns_read = [*fields, *(name for name in vectors if name not in dense)]
    ids, table = fetch(session, record, rows, columns_read)
    users = decode_ids(ids)
    columns: dict[str, Any] = {"id": id_column(users)}
    columns |= {name: table[name].combine_chunks() for name in columns_read}
    columns |= {name: _vector_column(read_vectors(session, record, name, rows)) for name in dense}
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema_with_ids(users, columns))


def _vector_column(matrix: np.ndarray[Any, Any]) -> pa.Array:
    missing = np.isnan(matrix[:, 0]) if len(matrix) else np.zeros(0, np.bool_)
    column = vector_list(matrix)
    if not missing.any():
        return column
    return pc.if_else(pa.array(missing), pa.scalar(None, column.type), column)


def facets(
    session: Session, record: CollectionRecord, field: str, node: Node | None, rows: np.ndarray[Any, Any] | None
) -> Counter[Any]:
    """How many rows have each value of a field; each element of a list counts.

    Parameters
    ----------
    node : count the rows that this filter selects
    rows : count these row ids instead, where not None
    """
    kind = record.schema.field(field)
    counts: Counter[Any] = Counter()
    for part in session.parts(record):
        mask = allowed(session, record, part, node) if rows is None else np.isin(part.row_ids, rows)
        column = part.field(field, kind)
        if mask is not None:
            column = column.filter(pa.array(mask))
        if pa.types.is_list(column.type):
            column = column.flatten()
        for entry in pc.value_counts(column).to_pylist():
            if entry["values"] is not None:
                counts[entry["values"]] += entry["counts"]
    return counts
