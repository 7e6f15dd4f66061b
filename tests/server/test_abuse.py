"""Clients that mean no good: the server stays up, its memory is bounded, and what it refuses tells nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import gingham as gg
from gingham import errors
from gingham.server import arrival, health, ingest, messages
from gingham.server import keys as key_files
from gingham.server.keys import create_key
from gingham.server.main import Operation, Server
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import RowBatch
from gingham.wire import message_in_headers, pack_batch
from library import IDS, filled

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
HEALTH = "/grpc.health.v1.Health/"
SLOW = {"/gingham.v1.CollectionService/Maintain", "/gingham.v1.AdminService/Compact", "/gingham.v1.AdminService/Backup"}
"""Calls whose shortest request is a good one, and does a lot."""
ANSWER_SECONDS = 5.0
"""A search of ten rows takes a few milliseconds; a machine that is busy with other things has this long."""
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files and memory are read from /proc")


class Target:
    """A server in this process with keys, connections of those that attack it, and one of a client that does not."""

    def __init__(self, folder: Path) -> None:
        self.db = gg.open(folder / "db")
        filled(self.db)
        file = folder / "keys"
        self.tokens = {scope: create_key(file, scope=scope)[0] for scope in ("read", "write", "admin")}  # type: ignore[arg-type]
        self.server = Server(
            self.db, listen="127.0.0.1:0", max_workers=4, max_message_bytes=(2 << 20) - 1, keys=file,
            operation=Operation(max_hits=50),
        )  # fmt: skip
        self.good = grpc.insecure_channel(self.server.address)

    @contextlib.contextmanager
    def attacker(self) -> Iterator[grpc.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(self.server.address, options=options) as channel:
            yield channel

    def headers(self, scope: str | None) -> tuple[tuple[str, str], ...]:
        return () if scope is None else (("authorization", f"Bearer {self.tokens[scope]}"),)

    def check(self) -> None:
        """Raise unless a search, a scan and a probe are answered."""
        ask = {"metadata": self.headers("read"), "timeout": ANSWER_SECONDS}
        search = pb.SearchRequest(collection="docs", texts=pb.Texts(values=["words"]), using="title", k=3)
        found = self.good.unary_unary("/gingham.v1.QueryService/Search")(search.SerializeToString(), **ask)
        assert len(pb.SearchResponse.FromString(found).results[0].ids) == 3
        scan = pb.ScanRequest(collection="docs").SerializeToString()
        assert len(list(self.good.unary_stream("/gingham.v1.RowService/Scan")(scan, **ask))) == 2
        self.good.unary_unary(f"{HEALTH}Check")(b"", timeout=ANSWER_SECONDS)

    def close(self) -> None:
        self.good.close()
        self.server.stop(0)
        self.db.close()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(key_files, "SCRYPT_N", 1 << 8)
        patched.setattr(arrival, "ARRIVAL_SECONDS", 0.5)
        made = Target(tmp_path_factory.mktemp("abused"))
    yield made
    made.close()


def send(channel: grpc.Channel, method: str, raw: bytes, headers: Any = (), timeout: float = 20) -> tuple[str, str]:
    """Status and details of a call with one request."""
    kind = METHODS[method]
    try:
        if kind.client_streaming:
            list(channel.stream_stream(method)(iter([raw]), metadata=headers, timeout=timeout))
        elif kind.server_streaming:
            list(channel.unary_stream(method)(raw, metadata=headers, timeout=timeout))
        else:
            channel.unary_unary(method)(raw, metadata=headers, timeout=timeout)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


class Silent:
    """Requests of a client that begins calls and sends nothing."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._over = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self._over.wait()
        yield from ()

    def call(self, method: str, headers: Any = ()) -> Any:
        """A call that is begun."""
        return self._channel.stream_stream(method)(iter(self), metadata=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


@pytest.mark.parametrize("method", METHODS)
def test_a_call_without_a_key_that_sends_no_request_is_refused_at_once(target: Target, method: str) -> None:
    with target.attacker() as channel, Silent(channel) as silent:
        calls = [silent.call(method, headers) for headers in ((), (("authorization", "Bearer gg_" + "0" * 12),))]
        assert [call.code().name for call in calls] == ["UNAUTHENTICATED"] * 2


def test_calls_that_send_no_request_hold_threads_for_a_while_at_most(target: Target) -> None:
    headers = target.headers("read")
    with target.attacker() as channel, Silent(channel) as silent:
        waiting = [silent.call("/gingham.v1.QueryService/Search", headers) for _ in range(4)]
        waiting += [silent.call("/gingham.v1.RowService/Scan", headers) for _ in range(4)]
        waiting += [silent.call(f"{HEALTH}Check") for _ in range(4)]
        target.check()
        assert {call.code().name for call in waiting} == {"CANCELLED"}


def test_an_ingest_begins_with_a_key_that_may_write_and_soon_with_a_header(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "IDLE_SECONDS", 0.3)
    method = "/gingham.v1.RowService/Ingest"
    with target.attacker() as channel, Silent(channel) as silent:
        refused = [silent.call(method, target.headers("read")) for _ in range(4)]
        assert {call.code().name for call in refused} == {"PERMISSION_DENIED"}
        held = [silent.call(method, target.headers("write")) for _ in range(3)]
        target.check()
        assert {call.code().name for call in held} == {"UNAVAILABLE"}


@pytest.mark.parametrize("service", ["", "a service that is not there" * 9])
def test_watching_health_without_a_key_is_bounded_and_leaves_nothing_behind(target: Target, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    with target.attacker() as channel:
        calls = [channel.unary_stream(f"{HEALTH}Watch")(request) for _ in range(2 * health.MOST_WATCHING)]
        refused = []
        for call in calls:
            try:
                next(call)
            except grpc.RpcError as error:
                refused.append(error.code().name)
        # A call that is refused before its stream has begun may end as cancelled.
        assert len(refused) == health.MOST_WATCHING
        assert {"RESOURCE_EXHAUSTED"} <= {*refused} <= {"RESOURCE_EXHAUSTED", "CANCELLED"}
        target.check()
        watching: Any = target.server._health
        assert len(watching._watching) == health.MOST_WATCHING
        for call in calls:
            call.cancel()
    assert soon(lambda: not watching._watching)
    assert len(watching._send_response_callbacks) <= len(pb.DESCRIPTOR.services_by_name) + 1


def soon(holds: Any, seconds: float = 10.0) -> bool:
    """Whether something holds within a time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@linux
def test_idle_and_half_open_connections_leave_searches_fast_and_files_closed(target: Target) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip(f"1,100 connections need 4,000 open files, the system allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < 4000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, hard))
    host, _, port = target.server.address.rpartition(":")
    target.check()
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as opened:
        for number in range(1100):
            connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
            if number >= 1000:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nS")
        assert soon(lambda: len(os.listdir("/proc/self/fd")) >= before + 2200), "the server has accepted them all"
        started = time.monotonic()
        target.check()
        assert time.monotonic() - started < ANSWER_SECONDS
    assert soon(lambda: len(os.listdir("/proc/self/fd")) <= before + 5)
    target.check()


SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0"
"""The preface of HTTP/2, empty settings, and that those of the server are known (RFC 9113, sections 3.4 and 6.5)."""


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n", SETTINGS], ids=["nothing", "half a preface", "settings"])
def test_a_connection_that_falls_silent_is_ended(sent: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=arrival.connection_options(0.6, 60))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1 << 16):
                    pass
        server.stop(0).wait()


def anonymous_mib() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) >> 10


@linux
def test_a_slow_reader_of_a_scan_fills_no_memory(target: Target) -> None:
    long = target.db.create_collection("long", fields={"text": gg.Text()})
    for first in range(0, 96, 8):
        long.upsert([{"id": at, "text": chr(97 + at % 26) * (1 << 20)} for at in range(first, first + 8)])
    request = pb.ScanRequest(collection="long", batch_size=1).SerializeToString()
    before = anonymous_mib()
    with target.attacker() as channel:
        calls = [
            channel.unary_stream("/gingham.v1.RowService/Scan")(request, metadata=target.headers("read"))
            for _ in range(2)
        ]
        for call in calls:
            next(call)
        time.sleep(0.8)
        assert anonymous_mib() - before < 48, "of 192 MiB that two readers have asked for"
        target.check()
        for call in calls:
            call.cancel()
    target.db.drop_collection("long")


def value_of(rng: random.Random, field: Any) -> Any:
    """Something that a field may hold, good or not."""
    if field.type == field.TYPE_BYTES:
        if field.name in ("rows", "batches", "seen"):
            ids = [b"s" + bytes([97 + at]) for at in range(rng.randrange(3))]
            return pack_batch(RowBatch(ids, {"dense": np.ones((len(ids), 8), np.float32)}, {}), leave_out_nulls=False)
        return rng.choice([b"", b"s\xff", b"sa", b"\x93", np.ones(8, "<f4").tobytes()])
    if field.type == field.TYPE_STRING:
        if field.name in ("collection", "name", "new_name"):
            return rng.choice(["mine", "mine", "gone", "", "a b", "ü" * 70])
        return rng.choice(
            ["dense", "title", "year", "words", "year > 3", "(" * 300, "NOT " * 400 + "ok", "x" * 5000, '{"op": []}']
        )
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return rng.choice([0.5, -1.0, float("nan"), float("inf"), 1e308])
    if field.type == field.TYPE_SINT64:
        return rng.choice([0, -(1 << 63), (1 << 63) - 1])
    return rng.choice(
        [0, 1, 2, 3, 8, (1 << 31) - 1] if field.type == field.TYPE_ENUM else [0, 1, 2, 8, 8, (1 << 32) - 1]
    )


def fill(rng: random.Random, message: Any, depth: int = 0) -> None:
    """Set fields of a message, and of those within it, at random."""
    chosen = {one.name: rng.choice(one.fields).name for one in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        named = field.name in ("collection", "name")
        if (oneof is not None and chosen[oneof.name] != field.name) or rng.random() < (0.05 if named else 0.4):
            continue
        times = rng.randrange(3) if field.is_repeated else 1
        if field.message_type is None:
            values = [value_of(rng, field) for _ in range(times)]
            if field.is_repeated:
                getattr(message, field.name).extend(values)
            else:
                setattr(message, field.name, values[0])
        elif depth < 8:
            for _ in range(times):
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                fill(rng, inner, depth + 1)


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """Bytes of a message with some of them changed, lost or doubled."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randrange(1, 9)]
            case 1:
                data[at:at] = data[: rng.randrange(1, 33)]
            case _:
                data[at : at + 1] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])])
    return bytes(data)


@pytest.mark.parametrize("method", METHODS)
def test_malformed_requests_get_a_typed_error_and_the_server_goes_on(target: Target, method: str) -> None:
    rng = random.Random(method)
    mine = target.db.create_collection("mine", fields=target.db["docs"].schema.fields,
                                       vectors=target.db["docs"].schema.vectors, exist_ok=True)  # fmt: skip
    mine.upsert(ids=IDS, vectors={"dense": np.ones((len(IDS), 8), np.float32)})
    bad = []
    with target.attacker() as channel:
        for number in range(6 if method in SLOW else 50):
            request = getattr(pb, METHODS[method].input_type.name)()
            fill(rng, request)
            raw = request.SerializeToString()
            if number % 2:
                raw = mutated(rng, raw) if number % 10 != 1 else rng.randbytes(rng.randrange(200))
            status, details = send(channel, method, raw, target.headers("admin"))
            if status in ("UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED") or re.search(
                rf'Traceback|File "|\.py\b|{re.escape(str(target.db.path))}', details
            ):
                bad.append((status, details, raw))
        target.check()
    assert not bad


def test_a_request_over_the_limit_is_refused_by_every_call(target: Target) -> None:
    long, headers = bytes(2 << 20), target.headers("admin")
    with target.attacker() as channel, ThreadPoolExecutor(8) as at_once:
        found = dict(
            zip(METHODS, at_once.map(lambda name: send(channel, name, long, headers)[0], METHODS), strict=True)
        )
    assert found == dict.fromkeys(METHODS, "RESOURCE_EXHAUSTED")
    target.check()


def test_headers_without_end_are_refused(target: Target) -> None:
    with target.attacker() as channel:
        for headers in (
            [("authorization", "Bearer " + "g" * (1 << 20))],
            [(f"x-{at}", "y" * 99) for at in range(5000)],
        ):
            status, _ = send(channel, "/gingham.v1.RowService/Count", b"", headers, ANSWER_SECONDS)
            assert status in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
    target.check()


def tiny(field: int, times: int) -> bytes:
    """Empty messages, texts or bytes of a field: two bytes each, and some fifty once they are read."""
    return bytes([field << 3 | 2, 0]) * times


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("QueryService/Query", tiny(2, 700_000)),
        ("RowService/WriteBatch", tiny(1, 700_000)),
        ("QueryService/Search", pb.SearchRequest(vectors=pb.Array(shape=[1] * 1_600_000)).SerializeToString()),
        ("RowService/Get", pb.GetRequest(ids=pb.Ids(values=[b""] * 700_000)).SerializeToString()),
        ("RowService/Get", pb.GetRequest(fields=pb.Names(values=["x" * (1 << 20)])).SerializeToString()),
        (
            "RowService/Get",
            pb.GetRequest(collection="docs", fields=pb.Names(values=["x" * (1 << 20)])).SerializeToString()[:-1],
        ),
    ],
    ids=["query nodes", "changes", "shape", "ids", "name", "cut"],
)
def test_long_requests_are_measured_before_they_are_read(
    target: Target, monkeypatch: pytest.MonkeyPatch, method: str, raw: bytes
) -> None:
    monkeypatch.setattr(messages, "MOST_FIELDS", 100_000)
    with target.attacker() as channel:
        status, details = send(channel, f"/gingham.v1.{method}", raw, target.headers("admin"))
    assert (status, re.search("at most|whole fields", details) is not None) == ("INVALID_ARGUMENT", True), details


def test_hits_are_bounded_also_where_no_k_bounds_them(target: Target) -> None:
    rows = [{"id": at, "dense": [1.0, at], "part": "p", "at": at} for at in range(60)]
    many = target.db.create_collection(
        "many", fields={"part": gg.Keyword(), "at": gg.Int()}, vectors={"dense": gg.Dense(2)}, exist_ok=True
    )
    many.upsert(rows)
    with gg.open(target.server.url, token=target.tokens["read"]) as db:
        remote = db["many"]
        assert len(remote.search([1.0, 0.0], k=None, radius=0.5)) == len(many.search([1.0, 0.0], k=None, radius=0.5))
        near = gg.near("dense", [1.0, 0.0], k=1)
        for ask in (
            lambda: remote.search([1.0, 0.0], k=None, radius=-2.0),
            lambda: remote.search(np.ones((9, 2)), k=None, radius=-2.0),
            lambda: remote.query(near.expand(100, parent="part", ordinal="at")),
            lambda: remote.recall(k=10, n=6),
        ):
            with pytest.raises(errors.InvalidArgument, match="at most 50 hits"):
                ask()
        assert remote.recall(k=9, n=5).queries == 5
        assert len(remote.query(near.expand(100, parent="part", ordinal="at").limit(50))) == 50


@pytest.mark.parametrize("name", ["漢" * 1400, "%" * 1400, "\x01" * 1400, "a" * 1400])
def test_errors_that_quote_what_was_sent_fit_into_headers(target: Target, name: str) -> None:
    assert len(message_in_headers(f"what {name * 5}")) >= 400
    with gg.open(target.server.url, token=target.tokens["read"]) as db:
        with pytest.raises(errors.GinghamError) as told:
            db["docs"].facets(name)
        with pytest.raises(errors.GinghamError) as here:
            target.db["docs"].facets(name)
    assert type(told.value) is type(here.value)
    assert str(here.value).startswith(str(told.value))


def test_filters_and_updates_that_lead_nowhere_are_typed_errors(target: Target) -> None:
    deep = pb.CountRequest(collection="docs", where=pb.Filter(expression="NOT " * 900 + "ok"))
    nothing = pb.WriteBatchRequest()
    nothing.changes.add().update.collection = "docs"
    wide = pb.QueryRequest(collection="docs")
    for _ in range(3):
        where = wide.queries.add().where
        where.where.expression = "year IN (" + "1, " * 15_000 + "1)"
        where.child.match.text = "words"
    huge = pb.CountRequest(collection="docs", where=pb.Filter(json="1" * (1 << 20)))
    with target.attacker() as channel, pytest.MonkeyPatch.context() as patched:
        patched.setattr("gingham.wire.MOST_FILTER_CHARACTERS", 1 << 19)
        for method, request in (("RowService/Count", deep), ("RowService/WriteBatch", nothing),
                                ("QueryService/Query", wide), ("RowService/Count", huge)):  # fmt: skip
            raw = request.SerializeToString()
            assert send(channel, f"/gingham.v1.{method}", raw, target.headers("admin"))[0] == "INVALID_ARGUMENT", method


def test_a_line_of_the_audit_log_names_few_collections(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gingham.audit")
    request = pb.WriteBatchRequest()
    for at in range(5000):
        request.changes.add().delete.collection = f"c{at % 100}"
    with target.attacker() as channel:
        raw = request.SerializeToString()
        assert send(channel, "/gingham.v1.RowService/WriteBatch", raw, target.headers("read"))[0] == "PERMISSION_DENIED"
    assert soon(lambda: caplog.records)
    assert len(caplog.records[-1].getMessage()) < 400
