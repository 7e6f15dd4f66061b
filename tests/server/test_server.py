"""The server process: where it listens, what it refuses, and how it ends."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import numpy as np
import pyarrow as pa
import pytest

import gingham as gg
from gingham import deadline, errors, wire
from gingham.server import admin, calls, servicer
from gingham.server.main import Server, address_of, serve
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import RowBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TWO_IDS = wire.pack_batch(RowBatch([b"sa", b"sb"], {}, {}), leave_out_nulls=False)
TWO_YEARS = wire.pack_batch(RowBatch([b"sa", b"sc"], {}, {"year": pa.array([1, 2])}), leave_out_nulls=False)


@pytest.fixture
def server(db: gg.Database) -> Iterator[Server]:
    db.create_collection("docs", fields={"year": gg.Int(), "extra": gg.Json()}, vectors={"dense": gg.Dense(4)})
    with Server(db, listen="127.0.0.1:0", max_workers=2, max_message_bytes=50_000) as running:
        yield running


@pytest.fixture
def remote(server: Server) -> Iterator[Any]:
    with gg.open(f"grpc://{server.address}") as database:
        yield database


def methods() -> list[tuple[str, Any]]:
    return [
        (f"/{service.full_name}/{method.name}", method)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def raw_call(server: Server, path: str, request: bytes) -> Any:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        return call.with_call(request, timeout=20)


def test_sigterm_ends_a_served_process_after_its_calls(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from gingham.cli import main; main()",
        "serve",
        str(tmp_path / "db"),
        "--listen",
        "127.0.0.1:0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with gg.open(address) as remote:
            docs = remote.create_collection("docs", fields={"year": gg.Int()})
            assert docs.upsert(ids=list(range(50)), fields={"year": list(range(50))}).inserted == 50
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, process.stderr.read() if process.stderr else ""
            with pytest.raises(errors.Unavailable, match="gingham serve"):
                docs.count()
    with gg.open(tmp_path / "db", mode="r") as again:
        assert again["docs"].count() == 50


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:7443", "[::]:7443", "10.1.2.3:7443", "example.com:1", ":7443", "127.0.0.1", "127.0.0.1:99999", "x:y"],
)
def test_only_this_machine_reaches_a_server(tmp_path: Path, listen: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=re.escape("127.0.0.1:7443")):
        serve(tmp_path / "db", listen=listen)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:7443", "localhost:7443"])
def test_addresses_of_this_machine_are_taken(listen: str) -> None:
    assert address_of(listen)[1] == int(listen.rpartition(":")[2])


def test_a_port_that_is_taken_is_said_to_be(db: gg.Database, server: Server) -> None:
    with pytest.raises(errors.Unavailable, match="free port"):
        Server(db, listen=server.address)


def test_an_address_where_nobody_listens_is_said_to_be_such() -> None:
    with pytest.raises(errors.Unavailable, match=re.escape("gingham serve DIR --listen 127.0.0.1:1")):
        gg.open("grpc://127.0.0.1:1")
    for malformed in ("grpc://127.0.0.1", "grpc://:1", "grpc://host:port"):
        with pytest.raises(errors.InvalidArgument, match="grpc://HOST:PORT"):
            gg.open(malformed)
    with pytest.raises(errors.InvalidArgument, match="mode="):
        gg.open("grpc://127.0.0.1:1", durability="none")


def test_without_grpc_the_line_that_installs_it_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["grpc"] = None
import gingham.connect
for call in (lambda: gingham.open("grpc://127.0.0.1:1"), lambda: gingham.connect.serve({str(tmp_path)!r}, listen="127.0.0.1:0", max_workers=1)):
    try:
        call()
    except gingham.errors.MissingExtra as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("run: pip install 'gingham[server]'\n") == 2


def test_a_message_that_is_too_long_is_a_typed_error(remote: Any) -> None:
    docs = remote["docs"]
    with pytest.raises(errors.ResourceExhausted, match="fewer rows"):
        docs.upsert(ids=list(range(10_000)), vectors={"dense": np.ones((10_000, 4))})
    assert docs.count() == 0
    for part in range(3):
        docs.upsert(ids=[f"{part} {at}" for at in range(1000)], vectors={"dense": np.ones((1000, 4))})
    with pytest.raises(errors.ResourceExhausted):
        docs.search(np.ones((20, 4)), k=3000)
    assert docs.count() == 3000


def test_batches_of_a_scan_that_are_too_long_for_a_message_come_in_several(remote: Any, db: gg.Database) -> None:
    db["docs"].upsert(ids=list(range(3000)), fields={"year": list(range(3000))})
    assert len(list(remote["docs"].scan(batch_size=100))) == 30
    batches = list(remote["docs"].scan(batch_size=3000, include_vectors=True))
    assert len(batches) > 1
    assert [year for batch in batches for year in batch["year"].to_pylist()] == list(range(3000))


def test_scans_leave_a_worker_to_other_calls(remote: Any, db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SCAN_SECONDS", 0.1)
    db["docs"].upsert(ids=[f"{at:0450}" for at in range(9000)])
    docs = remote["docs"]
    scan = docs.scan(batch_size=50)  # of 9,000 long ids, more than a connection holds
    next(scan)
    with pytest.raises(errors.ResourceExhausted, match="close"):
        docs.scan()
    assert docs.count() == 9000
    assert 1 + sum(1 for _ in scan) == 180
    for _ in range(20):
        monkeypatch.setattr(calls, "SCAN_SECONDS", 10)
        next(docs.scan(batch_size=50))  # given up, which ends the call
    remote.close()
    with pytest.raises(errors.Closed):
        docs.scan()


def test_a_failure_in_a_scan_shows_neither_trace_nor_reason(
    remote: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, **_: object) -> Iterator[Any]:
        yield {"id": 1, "year": 1, "extra": None}
        raise RuntimeError("a secret of /some/path")

    monkeypatch.setattr(gg.Collection, "scan", fail)
    with pytest.raises(gg.GinghamError, match="its log says why") as caught:
        list(remote["docs"].scan())
    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_a_scan_ends_with_the_deadline_of_its_call_or_its_cancellation(
    server: Server, db: gg.Database, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    raised: list[BaseException] = []
    ended = threading.Event()

    def slow(self: object, **_: object) -> Iterator[Any]:
        try:
            while True:
                deadline.check()
                time.sleep(0.002)
                yield pa.record_batch({"id": [1]})
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    monkeypatch.setattr(gg.Collection, "scan", slow)
    request = pb.ScanRequest(collection="docs", batch_size=1).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        answers = channel.unary_stream("/gingham.v1.RowService/Scan", request_serializer=bytes)(
            request, timeout=0.3 if end == "deadline" else 60
        )
        next(answers)
        next(answers)  # the first comes before a row is read
        if end == "cancel":
            answers.cancel()
        else:
            with pytest.raises(grpc.RpcError) as caught:
                list(answers)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ended.wait(5)
    assert isinstance(raised[0], (errors.DeadlineExceeded, errors.Cancelled, GeneratorExit))


@pytest.mark.parametrize(("path", "method"), methods(), ids=lambda value: value if isinstance(value, str) else "")
def test_malformed_requests_leave_the_server_up(
    server: Server, remote: Any, path: str, method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "grpc")
    rng = np.random.default_rng(0)
    for request in (b"\xff" * 40, rng.bytes(300), b"\x0a\x04docs" + rng.bytes(40)):
        try:
            raw_call(server, path, request)
        except grpc.RpcError as error:
            assert error.code() in (
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.INVALID_ARGUMENT,
            )
    assert remote.collections() == ["docs"]


@pytest.mark.parametrize(
    ("path", "request_message"),
    [
        ("RowService/Upsert", pb.UpsertRequest(collection="docs", rows=b"no arrow")),
        ("RowService/Upsert", pb.UpsertRequest(collection="docs")),
        ("RowService/Update", pb.UpdateRequest(collection="docs", batches=[b"", b"ARROW1"])),
        ("RowService/Get", pb.GetRequest(collection="docs", ids=pb.Ids(values=[b"", b"q?"]))),
        ("RowService/Get", pb.GetRequest(collection="docs", ids=pb.Ids(values=[b"s\xff"]))),
        ("RowService/Count", pb.CountRequest(collection="docs", where=pb.Filter(json="[" * 9000))),
        ("RowService/Count", pb.CountRequest(collection="docs", where=pb.Filter(json='{"op": "or"}'))),
        ("RowService/Delete", pb.DeleteRequest(collection="docs")),
        ("CollectionService/CreateCollection", pb.CreateCollectionRequest(name="x", schema=b"\xc1")),
        ("CollectionService/CreateCollection", pb.CreateCollectionRequest(name="x", schema=b"\x80")),
        ("CollectionService/AddField", pb.AddFieldRequest(collection="docs", schema=b"\xc1")),
        ("CollectionService/AddField", pb.AddFieldRequest(collection="docs", schema=msgspec.msgpack.encode(gg.Schema.of()))),
        ("CollectionService/AddField", pb.AddFieldRequest(collection="docs", schema=msgspec.msgpack.encode(gg.Schema.of({}, {"v": gg.Dense(3)})))),
        ("CollectionService/AddVector", pb.AddVectorRequest(collection="docs", schema=msgspec.msgpack.encode(gg.Schema.of({"f": gg.Int()})))),
        ("CollectionService/Recall", pb.RecallRequest(collection="docs", k=1, n=1, vectors=pb.Array())),
        ("RowService/Facets", pb.FacetsRequest(collection="docs", field="year", query=pb.QueryNode())),
        ("RowService/Scan", pb.ScanRequest(collection="docs", batch_size=0)),
        ("RowService/Scan", pb.ScanRequest(collection="docs", descending=True)),
        ("RowService/Update", pb.UpdateRequest(collection="docs", batches=[TWO_IDS])),
        ("RowService/Update", pb.UpdateRequest(collection="docs", batches=[TWO_YEARS], seen=[TWO_IDS])),
        ("RowService/Update", pb.UpdateRequest(collection="docs", batches=[TWO_YEARS] * 2, seen=[TWO_IDS], embedded=True)),
        ("RowService/WriteBatch", pb.WriteBatchRequest()),
        ("RowService/WriteBatch", pb.WriteBatchRequest(changes=[pb.Change()])),
        ("RowService/WriteBatch", pb.WriteBatchRequest(changes=[pb.Change(delete=pb.DeleteRequest(collection="docs"))])),
        ("RowService/WriteBatch", pb.WriteBatchRequest(changes=[pb.Change(update=pb.UpdateRequest(collection="docs", batches=[TWO_YEARS], seen=[TWO_IDS]))])),
        ("CollectionService/AttachEmbedder", pb.AttachEmbedderRequest(collection="docs")),
        ("CollectionService/AttachEmbedder", pb.AttachEmbedderRequest(collection="docs", embedder=b"\xc1")),
        ("AdminService/Reindex", pb.ReindexRequest(collection="docs", name="dense")),
        ("AdminService/Reindex", pb.ReindexRequest(collection="docs", name="dense", index="x")),
        ("AdminService/Reindex", pb.ReindexRequest(collection="docs", name="dense", index="IVF", min_recall=7)),
        ("AdminService/Calibrate", pb.CalibrateRequest(collection="docs")),
        ("AdminService/RenameCollection", pb.RenameCollectionRequest(name="docs", new_name="a b")),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3)),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, vectors=pb.Array(data=b"1234", dtype=2, shape=[4]))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, vectors=pb.Array(dtype=9, shape=[4]))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, vectors=pb.Array(dtype=2, shape=[2**32 - 1] * 2))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, sparse=pb.SparseVectors(values=[pb.SparseVector(dimensions=b"1234")]))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, sparse=pb.SparseVectors(values=[pb.SparseVector(dimensions=b"1234", weights=b"1234")]))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=3, tokens=pb.TokenMatrices(values=[pb.Array(dtype=2, shape=[0, 4])]))),
        ("QueryService/Search", pb.SearchRequest(collection="docs", k=0, vectors=pb.Array(data=bytes(16), dtype=2, shape=[4]))),
    ],
    ids=str,
)  # fmt: skip
def test_requests_of_other_clients_are_checked_and_refused_with_a_reason(
    server: Server, path: str, request_message: Any
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(server, f"/gingham.v1.{path}", request_message.SerializeToString())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details()


def test_rows_with_flipped_bytes_are_refused_or_read_and_never_worse() -> None:
    batch = RowBatch(
        [b"sa", b"sb"], {"dense": np.ones((2, 4), np.float32)}, {"extra": pa.array(["{}", None], pa.large_string())}
    )
    packed = wire.pack_batch(batch, leave_out_nulls=False)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(500):
        damaged = bytearray(packed)
        damaged[rng.integers(len(packed))] = rng.integers(256)
        try:
            wire.unpack_batch(bytes(damaged))
        except errors.InvalidArgument:
            refused += 1
    assert 0 < refused < 500


def test_a_server_that_stops_lets_running_calls_end(
    server: Server, remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, began = remote["docs"], threading.Event()

    def slow(self: object, **_: object) -> int:
        began.set()
        time.sleep(0.3)
        return 42

    monkeypatch.setattr(gg.Collection, "count", slow)
    with ThreadPoolExecutor(1) as pool:
        counted = pool.submit(docs.count)
        assert began.wait(10)
        server.stop()
        assert counted.result(10) == 42
    with pytest.raises(errors.Unavailable):
        docs.count()


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_work_on_the_server_ends_with_the_deadline_of_its_call_or_its_cancellation(
    server: Server, remote: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    raised: list[BaseException] = []
    began, ended = threading.Event(), threading.Event()

    def spin(self: object, **_: object) -> None:
        began.set()
        try:
            for _at in range(5000):
                deadline.check()
                time.sleep(0.002)
        except gg.GinghamError as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    monkeypatch.setattr(gg.Collection, "count", spin)
    request = pb.CountRequest(collection="docs").SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/gingham.v1.RowService/Count", request_serializer=bytes)
        future = call.future(request, timeout=0.3 if end == "deadline" else 60)
        assert began.wait(10)
        if end == "cancel":
            future.cancel()
        assert ended.wait(5)
    # The end of a deadline also ends the call, and the server may see either first.
    expected = (errors.Cancelled,) if end == "cancel" else (errors.DeadlineExceeded, errors.Cancelled)
    assert isinstance(raised[0], expected)


def test_a_failure_of_the_server_shows_neither_trace_nor_reason(
    db: gg.Database, remote: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("a secret of /some/path")

    docs = remote["docs"]
    monkeypatch.setattr(gg.Collection, "stats", fail)
    with pytest.raises(gg.GinghamError, match="its log says why") as caught:
        docs.stats()
    assert type(caught.value) is gg.GinghamError
    assert "secret" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "a secret" in caplog.text
    assert docs.count() == 0


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, gg.GinghamError)]
)
def test_every_error_travels_as_its_class_and_status(
    remote: Any, monkeypatch: pytest.MonkeyPatch, kind: type[gg.GinghamError]
) -> None:
    def fail(self: object, **_: object) -> None:
        raise kind("what was expected, what was found: ü")

    docs = remote["docs"]
    monkeypatch.setattr(gg.Collection, "count", fail)
    with pytest.raises(kind, match="found: ü") as caught:
        docs.count()
    assert type(caught.value) is kind
    assert kind.grpc_code in {code.name for code in grpc.StatusCode}


def test_attributes_of_errors_travel_with_them_and_long_sentences_are_cut() -> None:
    error = errors.Locked("busy", pid=7)
    error.durable_rows = 3
    back = wire.unpack_error("Locked", wire.pack_error(error))
    assert isinstance(back, errors.Locked)
    assert (back.pid, back.durable_rows, str(back)) == (7, 3, "busy")
    assert (
        len(str(wire.unpack_error("Unheard", wire.pack_error(gg.GinghamError("x" * 10_000)))))
        == wire.MOST_MESSAGE_CHARACTERS
    )


def test_every_rpc_has_a_handler_and_a_client_method() -> None:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "clients").glob("*.py"))
    for path, method in methods():
        name = method.containing_service.name
        service = getattr(admin if name == "AdminService" else servicer, name)
        assert method.name in vars(service), path
        assert re.search(rf"\.{method.name}\b", text), path
        assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")
