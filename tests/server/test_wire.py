"""Arrow bytes that a message brings: what is taken, and that few bytes never become many."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import InvalidArgument
from gingham.wire import pack_table, unpack_table


def written(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


TABLE = pa.table({
    "n": pa.array([1, None, 3], pa.int64()), "ok": [True, False, None], "text": ["a", "ü", None],
    "many": pa.array([["x"], [], None], pa.list_(pa.string())), "at": pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
    "tokens": pa.array([[[1.0, 2.0]], [], None], pa.list_(pa.list_(pa.float32(), 2))),
    "sparse": pa.array([[{"index": 1, "weight": 0.5}], None, []], pa.list_(pa.struct([("index", pa.uint32()), ("weight", pa.float32())]))),
})  # fmt: skip


def test_tables_come_back_as_they_were() -> None:
    assert unpack_table(pack_table(TABLE)).equals(TABLE)
    assert unpack_table(written(TABLE)).equals(TABLE)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_batches_are_refused_since_few_bytes_would_become_many(codec: str) -> None:
    packed = written(pa.table({"n": pa.array([0] * 1_000_000)}), compression=codec)
    assert len(packed) < 200_000
    with pytest.raises(InvalidArgument, match="not compressed"):
        unpack_table(packed)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([None, None], pa.list_(pa.null())),
        pa.array([None, None], pa.list_(pa.list_(pa.list_(pa.list_(pa.int64()))))),
        pa.RunEndEncodedArray.from_arrays([2], ["a"]),
    ],
)
def test_types_of_which_few_bytes_are_many_values_are_refused(column: pa.Array) -> None:
    with pytest.raises(InvalidArgument, match="cast it first"):
        unpack_table(written(pa.table({"x": column})))


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 5000), st.integers(0, 255))
def test_bytes_that_are_no_table_are_one_typed_error(junk: bytes, at: int, value: int) -> None:
    damaged = bytearray(pack_table(TABLE))
    damaged[at % len(damaged)] = value
    for packed in (junk, bytes(damaged), bytes(damaged[: at % len(damaged)])):
        try:
            table = unpack_table(packed)
        except InvalidArgument:
            continue
        table.validate(full=True)
