"""Rows, filters, errors and limits of queries as they travel between a server and its clients.

It knows neither gRPC nor the messages of it, so that both sides share it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from gingham import errors
from gingham.columns import field_column, vector_column
from gingham.embed.record import EmbedderRecord
from gingham.errors import GinghamError, InvalidArgument
from gingham.query.ast import from_json, to_json
from gingham.query.bind import filter_node
from gingham.query.parse import MAX_CHARS
from gingham.schema import Tokens
from gingham.sparse_vectors import sparse_column, sparse_dict
from gingham.storage.columns import vector_list
from gingham.token_vectors import token_column, token_matrices
from gingham.types import decode_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.ast import Node
    from gingham.query.bind import Where
    from gingham.schema import Schema
    from gingham.types import RowBatch, UserId

Array = np.ndarray[Any, Any]
Row = dict[str, Any]

MOST_MESSAGE_CHARACTERS = 1500
"""Of an error; the headers of an answer, where it travels, end at 8 KiB."""
_MOST_HEADER_BYTES = 4000
"""Of an error as gRPC writes it, beside which it travels once more as bytes."""
MOST_QUERY_DEPTH = 32
"""Of nodes and values of a query tree; protobuf reads 100 messages in one another, two for each."""
MOST_QUERY_NODES = 512
"""Of a request; a long sum is a tree as deep as it has terms once it is read, and Python's stack ends at 1,000."""
MOST_FILTER_CHARACTERS = 16 << 20
"""Of the filters of a request as JSON."""
DIGEST_BYTES = 16
_ATTRIBUTES = ("pos", "hint", "pid", "durable_rows", "retry_after")
_CLASSES: dict[str, type[GinghamError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GinghamError)
}


class TreeSize:
    """Counts the nodes of the query trees of a request, and what there is to parse of their filters."""

    def __init__(self) -> None:
        self._nodes = self._expressions = 0

    def enter(self, depth: int) -> None:
        """Count a node at a depth, from 1 on; raises InvalidArgument where there are too many, or it is too deep."""
        self._nodes += 1
        if depth > MOST_QUERY_DEPTH:
            raise InvalidArgument(
                f"a query over gRPC expects nodes and values at most {MOST_QUERY_DEPTH} deep, found deeper ones; "
                "join fewer steps, or query where the folder is"
            )
        if self._nodes > MOST_QUERY_NODES:
            raise InvalidArgument(
                f"a call over gRPC expects at most {MOST_QUERY_NODES} nodes and values in its queries, found more; "
                "send fewer at once, or query where the folder is"
            )

    def enter_filter(self, expression: str) -> None:
        """Count a filter; raises InvalidArgument where all of them together are longer than one may be."""
        self._expressions += len(expression)
        if self._expressions > MAX_CHARS:
            raise InvalidArgument(
                f"a call over gRPC expects filters of at most {MAX_CHARS} characters together in its queries, found "
                "more; use expressions of F for long ones"
            )


def message_in_headers(text: str) -> str:
    """The beginning of a message that headers have room for: there, a byte that is not printable ASCII takes three."""
    text = text[:MOST_MESSAGE_CHARACTERS]
    room = _MOST_HEADER_BYTES
    for at, character in enumerate(text):
        plain = " " <= character <= "~" and character != "%"
        room -= 1 if plain else 3 * len(character.encode("utf-8", "backslashreplace"))
        if room < 0:
            return text[:at]
    return text


def pack_error(error: GinghamError) -> bytes:
    """The sentence and the attributes of an error."""
    found = {name: getattr(error, name) for name in _ATTRIBUTES if getattr(error, name, None)}
    message = str(error)[:MOST_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return msgspec.msgpack.encode({"message": message, **found})


def unpack_error(name: str, packed: bytes) -> GinghamError:
    """Invert :func:`pack_error`; a class that is not known here is the base class."""
    found = msgspec.msgpack.decode(packed, type=dict[str, Any])
    error = _CLASSES.get(name, GinghamError)(str(found.pop("message", "")))
    for attribute in _ATTRIBUTES:
        if attribute in found:
            setattr(error, attribute, found[attribute])
    return error


def pack_embedder(record: EmbedderRecord | None) -> bytes:
    """What is kept of an embedder; empty for none."""
    return b"" if record is None else msgspec.msgpack.encode(record)


def unpack_embedder(packed: bytes) -> EmbedderRecord | None:
    """Invert :func:`pack_embedder`."""
    try:
        return msgspec.msgpack.decode(packed, type=EmbedderRecord) if packed else None
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"an embedder expects a msgpack array of four values, found another: {error}") from None


def text_digest(text: str) -> bytes:
    """What a text that a model has scored is known by."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def pack_filter(where: Where) -> str | None:
    """A filter in any of its forms as JSON text; None is no filter."""
    node = filter_node(where)
    try:
        return None if node is None else json.dumps(to_json(node))
    except RecursionError:
        raise InvalidArgument("a filter expects fewer nested conditions; use IN for many values") from None


def unpack_filter(text: str) -> Node:
    """Invert :func:`pack_filter`."""
    if len(text) > MOST_FILTER_CHARACTERS:
        raise InvalidArgument(
            f"a filter over gRPC expects at most {MOST_FILTER_CHARACTERS} characters of JSON, found {len(text)}; "
            "ask for fewer values at once"
        )
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        if isinstance(error, GinghamError):
            raise
        raise InvalidArgument(f"a filter expects a tree as JSON text, found {text!r:.120}") from None


def pack_batch(batch: RowBatch, *, leave_out_nulls: bool) -> bytes:
    """Checked rows as an Arrow stream.

    Parameters
    ----------
    leave_out_nulls : columns of nulls alone are left out: an insert fills them in, an update would not
    """
    columns = {name: _vectors_or_null(matrix) for name, matrix in batch.vectors.items()} | batch.fields
    if leave_out_nulls:
        columns = {name: column for name, column in columns.items() if column.null_count < len(column)}
    return pack_table(pa.table({"id": pa.array(batch.ids, pa.binary()), **columns}))


def pack_table(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack_table(packed: bytes) -> pa.Table:
    """Invert :func:`pack_table`; raises InvalidArgument unless every offset stays within the bytes.

    Notes
    -----
    Compressed batches are refused, and types of which few bytes say many values (dictionaries, runs, views, nulls in
    lists): a table takes about the memory of its bytes.
    """
    try:
        reader = pa.ipc.MessageReader.open_stream(packed)
        first = reader.read_next_message()
        if first.type != "schema":  # of which Arrow would take other bytes for one, unchecked
            raise InvalidArgument(f"rows expect an Arrow stream that begins with a schema, found a {first.type}")
        schema = pa.ipc.read_schema(first)
        _check_types(schema)
        batches = []
        for message in reader:
            if message.type != "record batch" or _is_compressed(message.metadata):
                raise InvalidArgument(
                    f"rows expect record batches that are not compressed, found a {message.type}; write the Arrow "
                    "stream without compression= and dictionaries"
                )
            batches.append(pa.ipc.read_record_batch(message, schema))
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)
    except StopIteration:
        raise InvalidArgument("rows expect one Arrow IPC stream, found no bytes") from None
    except InvalidArgument:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, struct.error) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidArgument(f"rows expect one Arrow IPC stream, found bytes that are none: {reason:.200}") from None
    return table.combine_chunks()


def _check_types(schema: pa.Schema) -> None:
    for name, kind in zip(schema.names, schema.types, strict=True):
        if not (pa.types.is_null(kind) or _is_plain(kind, 3)):
            raise InvalidArgument(
                f"rows expect columns of numbers, texts, bytes, times, and lists of them, found {name!r:.80} of "
                f"{kind!s:.80}; cast it first"
            )


def _is_plain(kind: pa.DataType, depth: int) -> bool:
    """Whether each value of a type has bytes of its own."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or (types.is_fixed_size_list(kind) and kind.list_size > 0):
        return depth > 0 and _is_named(kind.value_field) and _is_plain(kind.value_type, depth - 1)
    if types.is_struct(kind):
        fields = [kind.field(at) for at in range(kind.num_fields)]
        return bool(fields) and depth > 0 and all(_is_named(one) and _is_plain(one.type, depth - 1) for one in fields)
    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_date(kind)
        or types.is_time(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
        or types.is_decimal(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _is_named(field: pa.Field) -> bool:
    """True; raises UnicodeDecodeError where a name is not UTF-8, which Arrow takes and Python does not."""
    return isinstance(field.name, str)


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a record batch has the field ``compression``, the fourth of its flatbuffer (Arrow, Message.fbs)."""
    data = memoryview(metadata)
    (root,) = struct.unpack_from("<I", data)
    header = _flat_field(data, root, 2)
    (offset,) = struct.unpack_from("<I", data, header)
    return _flat_field(data, header + offset, 3) > 0


def _flat_field(data: memoryview, table: int, slot: int) -> int:
    """Where a field of a flatbuffer table lies, 0 where it is not there (FlatBuffers internals, Tables)."""
    (back,) = struct.unpack_from("<i", data, table)
    (size,) = struct.unpack_from("<H", data, table - back)
    at = 4 + 2 * slot
    (offset,) = struct.unpack_from("<H", data, table - back + at) if at < size else (0,)
    return table + offset if offset else 0


def unpack_batch(packed: bytes) -> tuple[list[UserId], dict[str, pa.Array]]:
    """Ids and columns of an Arrow stream; raises InvalidArgument where it has no column of ids."""
    table = unpack_table(packed)
    names = table.column_names
    if names.count("id") != 1 or len(set(names)) < len(names) or table.schema.field("id").type != pa.binary():
        raise InvalidArgument(f"rows expect a binary column 'id' and others named once, found {table.schema.names}")
    columns = {name: _whole(table[name]) for name in names}
    return unpack_ids(columns.pop("id").to_pylist()), columns


def unpack_ids(encoded: Sequence[bytes | None]) -> list[UserId]:
    """Ids as the user gave them; raises InvalidArgument where bytes are no id."""
    try:
        return decode_ids([one or b"" for one in encoded])
    except ValueError as error:
        raise InvalidArgument(f"ids expect a tag and the value, found something else: {error}") from None


def pack_rows(rows: Sequence[Row], ids: Sequence[bytes], schema: Schema) -> bytes:
    """Rows that were read, as dicts of the same names, as an Arrow stream; ids are encoded."""
    columns: dict[str, Any] = {"id": pa.array(ids, pa.binary())}
    for name in rows[0] if rows else ():
        if name != "id":
            columns[name] = _column([row[name] for row in rows], schema, name)
    return pack_table(pa.table(columns))


def unpack_rows(packed: bytes, json_fields: Sequence[str]) -> list[Row]:
    """Invert :func:`pack_rows` on the side that has no schema."""
    ids, columns = unpack_batch(packed)
    values = {}
    for name, column in columns.items():
        if pa.types.is_fixed_size_list(column.type):
            values[name] = _dense_values(column)
        elif pa.types.is_list(column.type) and pa.types.is_fixed_size_list(column.type.value_type):
            values[name] = token_matrices(column, column.type.value_type.list_size)
        elif _is_sparse(column.type):
            values[name] = [sparse_dict(entries) for entries in column.to_pylist()]
        else:
            values[name] = column.to_pylist()
            if name in json_fields:
                values[name] = [None if text is None else json.loads(text) for text in values[name]]
    return [{"id": user_id, **{name: v[at] for name, v in values.items()}} for at, user_id in enumerate(ids)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _vectors_or_null(matrix: Array) -> pa.Array:
    """Vectors as a column, null where a row of NaN means that there is none."""
    column = vector_list(matrix)
    missing = np.isnan(matrix[:, 0]) if len(matrix) else np.zeros(0, np.bool_)
    if not missing.any():
        return column
    return pa.FixedSizeListArray.from_arrays(column.values, matrix.shape[1], mask=pa.array(missing))


def _column(values: list[Any], schema: Schema, name: str) -> pa.Array:
    if name in schema.dense:
        return _vectors_or_null(vector_column(name, values, schema.dense[name], len(values)))
    kind = schema.vectors.get(name)
    if isinstance(kind, Tokens):
        return token_column(values, kind.dim)
    if kind is not None:
        return sparse_column(name, values, len(values))
    return field_column(name, values, schema.fields[name], len(values))


def _dense_values(column: pa.FixedSizeListArray) -> list[Any]:
    width = column.type.list_size
    numbers = column.values.slice(column.offset * width, len(column) * width).to_numpy(zero_copy_only=False)
    matrix = numbers.reshape(len(column), width)
    if not column.null_count:
        return [vector.copy() for vector in matrix]
    return [vector.copy() if ok else None for vector, ok in zip(matrix, column.is_valid().to_pylist(), strict=True)]


def _is_sparse(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    return {"index", "weight"} == {kind.value_type.field(at).name for at in range(kind.value_type.num_fields)}
