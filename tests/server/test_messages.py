"""Bytes that arrive: what is counted before it is read, Arrow that is none, and what names a snapshot."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gingham import errors
from gingham.server import forward, messages
from gingham.server.access import RULES
from gingham.server.proto import gingham_pb2 as pb
from gingham.wire import pack_table, unpack_batch, unpack_table


def test_long_requests_of_the_usual_kind_are_read() -> None:
    for request in (
        pb.UpsertRequest(collection="docs", rows=bytes(messages.SHORT_BYTES)),
        pb.GetRequest(ids=pb.Ids(values=[b"i" + bytes(9)] * 120_000), include_vectors=True),
        pb.SearchRequest(texts=pb.Texts(values=["x" * messages.SHORT_BYTES]), radius=0.5),
        pb.QueryRequest(queries=[pb.QueryNode(fuse=pb.FuseNode(rrf=pb.Rrf(k=60, weights=[1.0] * 150_000)))]),
    ):
        raw = request.SerializeToString()
        assert len(raw) > messages.SHORT_BYTES
        messages.check_fields(raw, request.DESCRIPTOR)


def test_arrow_bytes_of_another_kind_end_no_process() -> None:
    table = pa.table(
        {"id": pa.array([b"sa", None], pa.binary()), "vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))}
    )
    packed, refused = pack_table(table), 0
    for at in range(len(packed)):
        for value in (0, 1, 3, 0xA9, 0xFF):
            try:
                unpack_batch(packed[:at] + bytes([value]) + packed[at + 1 :])
            except errors.InvalidArgument:
                refused += 1
    assert refused > len(packed)
    none = pack_table(table.slice(0, 0)).replace(b"item", b"\xff\xff\xff\xff").replace(b"element", b"\xff" * 7)
    with pytest.raises(errors.InvalidArgument, match="found bytes that are none"):
        unpack_batch(none)
    months = pa.table({"id": pa.array([], pa.binary()), "x": pa.array([], pa.month_day_nano_interval())})
    with pytest.raises(errors.InvalidArgument, match="cast it first"):
        unpack_table(pack_table(months))


def test_what_names_a_snapshot_is_seen_in_every_request_that_can() -> None:
    assert {name.rpartition(".")[2] for name in forward.ANSWERED} == {
        name for name, rule in RULES.items() if rule.scope == "read" and not name.endswith("Snapshot")
    }
    seen = 0
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            if "snapshot" not in method.input_type.fields_by_name or method.name == "CloseSnapshot":
                continue
            pattern = forward._names_snapshot(method.input_type.fields_by_name["snapshot"].number)
            kind = getattr(pb, method.input_type.name)
            assert pattern.search(kind(snapshot="0123456789abcdef" * 2).SerializeToString())
            assert not pattern.search(kind().SerializeToString())
            seen += 1
    assert seen == 11
