"""Running a server: health, reflection, metrics, the log, limits, and the recipes of deployment."""

from __future__ import annotations

import configparser
import json
import logging
import re
import shlex
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import typer
import yaml
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import gingham as gg
from gingham import cli, errors
from gingham.clients.channel import Channel
from gingham.query.recall import RecallReport
from gingham.server import keys as key_files
from gingham.server.keys import create_key
from gingham.server.logs import Call, JsonLines
from gingham.server.main import Operation, Server
from gingham.server.proto import gingham_pb2 as pb
from gingham.wire import MOST_MESSAGE_CHARACTERS, pack_error, unpack_error

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
COUNT = pb.CountRequest(collection="docs")


@pytest.fixture
def docs(db: gg.Database) -> Any:
    made = db.create_collection("docs", fields={"body": gg.Text(bm25=True)}, vectors={"dense": gg.Dense(4)})
    vectors = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    made.upsert(ids=list(range(50)), fields={"body": ["a secret"] * 50}, vectors={"dense": vectors})
    return made


class Gate:
    """Holds calls of ``count`` until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def count(self) -> int:
        self.entered.release()
        assert self.opened.wait(20)
        return 50

    def wait(self, calls: int) -> None:
        """Return once as many calls run."""
        for _ in range(calls):
            assert self.entered.acquire(timeout=10)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(gg.Collection, "count", lambda self, **given: made.count())
    return made


@contextmanager
def served(db: gg.Database, **options: Any) -> Iterator[tuple[Server, Any]]:
    options = {"listen": "127.0.0.1:0", "max_workers": 2, **options}
    with Server(db, **options) as server, grpc.insecure_channel(server.address) as channel:
        yield server, channel


def check(channel: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


def counting(channel: Any, **options: Any) -> Any:
    method = channel.unary_unary(
        "/gingham.v1.RowService/Count", request_serializer=pb.CountRequest.SerializeToString,
        response_deserializer=pb.CountResponse.FromString,
    )  # fmt: skip
    return method.future(COUNT, timeout=20, **options)


def test_probes_are_answered_without_a_key_while_all_workers_are_at_work(
    db: gg.Database, docs: Any, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "SCRYPT_N", 1 << 8)
    token, _ = create_key(tmp_path / "keys")
    with served(db, keys=tmp_path / "keys") as (_, channel):
        running = [counting(channel, metadata=(("authorization", f"Bearer {token}"),)) for _ in range(6)]
        gate.wait(2)
        names = ["", *(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())]
        assert {check(channel, name) for name in names} == {SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "gingham.v1.Nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        gate.opened.set()
        assert [one.result().count for one in running] == [50] * 6


def test_a_server_that_drains_says_so_ends_what_runs_and_takes_nothing_more(
    db: gg.Database, docs: Any, gate: Gate
) -> None:
    with served(db) as (server, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == SERVING
        running = counting(channel)
        gate.wait(1)
        ending = threading.Thread(target=server.stop)
        ending.start()
        assert next(watch).status == NOT_SERVING
        assert check(channel) == NOT_SERVING
        with pytest.raises(errors.Unavailable, match="NOT_SERVING"):
            gg.connect.check_health(server.url)
        with pytest.raises(grpc.RpcError) as caught:
            counting(channel).result()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.opened.set()
        assert running.result().count == 50
        assert list(watch) == []
        ending.join(timeout=5)
        assert not ending.is_alive()


def test_one_call_too_many_hears_when_to_call_again_and_the_client_does(
    db: gg.Database, docs: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gingham.server.main.WAITING_CALLS", 1)
    with served(db) as (server, channel), gg.open(server.url) as remote:
        handle = remote["docs"]
        running = [counting(channel) for _ in range(2)]
        gate.wait(2)
        with pytest.raises(grpc.RpcError) as caught:
            counting(channel).result()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert (status.message, info.retry_delay.ToTimedelta().total_seconds()) == (caught.value.details(), 0.2)

        with pytest.raises(errors.ResourceExhausted, match="at most 2 calls") as failed:
            handle.search(np.ones(4), timeout=0.1)  # there is no time to wait
        assert failed.value.retry_after == 0.2
        threading.Timer(0.1, gate.opened.set).start()
        assert handle.upsert(ids=["new"]).inserted == 1
        assert [one.result().count for one in running] == [50, 50]


def test_a_client_waits_for_room_three_times_and_not_for_other_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    full, made = errors.ResourceExhausted("full"), []

    class Refused(grpc.RpcError):
        def code(self) -> Any:
            return grpc.StatusCode.RESOURCE_EXHAUSTED

        def details(self) -> str:
            return "full"

        def trailing_metadata(self) -> Any:
            return (("gingham-error", "ResourceExhausted"), ("gingham-error-bin", pack_error(full)))

    def call(request: object, **_: object) -> None:
        made.append(request)
        raise Refused

    channel = Channel("grpc://127.0.0.1:1")
    for asked, calls in ((None, 1), (0.001, 4)):
        full.retry_after = asked
        with pytest.raises(errors.ResourceExhausted):
            channel.call(call, "request")
        assert len(made) == calls
        made.clear()
    channel.close()


def reflected(channel: Any, **options: Any) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10, **options)
    return {one.name for one in answer.list_services_response.service}


def test_the_interface_is_told_where_calls_need_no_keys_and_else_on_demand(
    db: gg.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "SCRYPT_N", 1 << 8)
    token, _ = create_key(tmp_path / "keys")
    shown = {"authorization": f"Bearer {token}"}.items()
    with served(db) as (_, channel):
        assert {"gingham.v1.QueryService", "grpc.health.v1.Health"} <= reflected(channel)
    codes = []
    for options, metadata in (
        ({"operation": Operation(reflection=False)}, ()),
        ({"keys": tmp_path / "keys"}, tuple(shown)),
        ({"keys": tmp_path / "keys", "operation": Operation(reflection=True)}, ()),
    ):
        with served(db, **options) as (_, channel), pytest.raises(grpc.RpcError) as caught:
            reflected(channel, metadata=metadata)
        codes.append(caught.value.code().name)
    assert codes == ["UNIMPLEMENTED", "UNIMPLEMENTED", "UNAUTHENTICATED"]
    with served(db, keys=tmp_path / "keys", operation=Operation(reflection=True)) as (_, channel):
        assert "gingham.v1.RowService" in reflected(channel, metadata=tuple(shown))


def scraped(server: Server) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_calls_errors_and_what_is_open(db: gg.Database, docs: Any) -> None:
    with (
        served(db, operation=Operation(metrics="127.0.0.1:0")) as (server, _),
        gg.open(server.url) as remote,
    ):
        handle, search = remote["docs"], "QueryService/Search"
        for _ in range(3):
            handle.search(np.ones(4))
        with pytest.raises(errors.DimensionMismatch):
            handle.search(np.ones(5))
        snapshot, scan = remote.snapshot(), handle.scan(batch_size=1)
        next(scan)
        found, stats = scraped(server), docs.stats()
        assert found["gingham_calls_total", "OK", search] == 3
        assert found["gingham_calls_total", "INVALID_ARGUMENT", search] == 1
        assert found["gingham_call_seconds_count", search] == 4
        assert found["gingham_call_seconds_bucket", "+Inf", search] == 4
        assert 0 < found["gingham_call_seconds_sum", search] < 20
        assert (found["gingham_open_snapshots",], found["gingham_file_bytes",]) == (1, db.stats().file_bytes)
        for name in ("rows", "tail_rows", "segments", "unindexed_rows", "nbytes"):
            assert found[f"gingham_collection_{name}", "docs"] == getattr(stats, name)
        snapshot.close()
        scan.close()
        assert scraped(server)["gingham_open_snapshots",] == 0
        with pytest.raises(errors.Unavailable, match="free port for metrics"):
            Server(db, listen="127.0.0.1:0", operation=Operation(metrics=f"127.0.0.1:{server.metrics_port}"))


def test_recall_is_measured_now_and_then(db: gg.Database, docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = RecallReport(0.875, 0.8, 0.9, 10, 50, 0.1, 0.1)
    monkeypatch.setattr(gg.Collection, "recall", lambda self, **given: report)
    with served(db, operation=Operation(metrics="127.0.0.1:0", recall_every=0.0002)) as (server, _):
        end = time.monotonic() + 10
        while scraped(server).get(("gingham_recall", "dense", "docs")) != 0.875:
            assert time.monotonic() < end


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": "0.0.0.0:9464"}, {"metrics": "10.0.0.1:9464"}, {"metrics": "9464"}, {"recall_every": 5.0},
        {"metrics": "127.0.0.1:0", "recall_every": 0.0}, {"max_hits": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_or_show_figures_to_others_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match="expects"):
        Operation(**options)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    out: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            out.append(self.format(record))

    handler = Kept()
    handler.setFormatter(JsonLines())
    log = logging.getLogger("gingham")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield out
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def test_each_call_is_a_line_of_json_that_tells_neither_texts_nor_vectors(
    db: gg.Database, docs: Any, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "SCRYPT_N", 1 << 8)
    token, key = create_key(tmp_path / "keys")
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    metadata = (
        ("authorization", f"Bearer {token}"), ("x-request-id", "job-7"), ("traceparent", f"00-{trace}-{parent}-01"),
    )  # fmt: skip
    secret = pb.SearchRequest(collection="docs", texts=pb.Texts(values=["a secret"], single=True), k=3, using="body")
    with served(db, keys=tmp_path / "keys") as (_, channel):
        search = channel.unary_unary("/gingham.v1.QueryService/Search", pb.SearchRequest.SerializeToString)
        search(secret, metadata=metadata, timeout=10)
        secret.k = 1 << 40
        secret.using = "nothing"
        with pytest.raises(grpc.RpcError):
            search(secret, metadata=(metadata[0], ("x-request-id", "two words"), ("traceparent", "01")), timeout=10)
        scan = channel.unary_stream("/gingham.v1.RowService/Scan", pb.ScanRequest.SerializeToString)
        assert len(list(scan(pb.ScanRequest(collection="docs"), metadata=metadata, timeout=10))) == 2
        with pytest.raises(grpc.RpcError):
            search(secret, timeout=10)
    found = [json.loads(line) for line in lines]
    first, second, scanned, refused = [one for one in found if one["logger"] == "gingham.server.calls"]
    assert (first["method"], first["collections"], first["code"]) == ("QueryService/Search", ["docs"], "OK")
    assert (first["key"], first["request_id"], first["trace_id"]) == (key.id, "job-7", trace)
    assert (first["parent_id"], first["level"]) == (parent, "INFO")
    assert 0 < first["ms"] < 10_000
    assert second["code"] == "INVALID_ARGUMENT"
    assert re.fullmatch("[0-9a-f]{16}", second["request_id"])
    assert "trace_id" not in second
    assert (scanned["method"], scanned["code"], scanned["key"]) == ("RowService/Scan", "OK", key.id)
    assert (refused["code"], refused["key"]) == ("UNAUTHENTICATED", None)
    # Other lines that the call leaves are found by its id.
    audit = next(one for one in found if one["logger"] == "gingham.audit")
    assert audit["request_id"] == refused["request_id"]
    assert not any("secret" in line or token in line for line in lines)


@given(st.text(max_size=60), st.text("0123456789abcdef-", max_size=60))
def test_metadata_of_any_shape_leave_ids_that_are_well_formed(request_id: str, trace: str) -> None:
    class Details:
        method = "/gingham.v1.RowService/Get"
        invocation_metadata = (("x-request-id", request_id), ("traceparent", trace))

    call = Call.of(Details)
    assert re.fullmatch(r"[A-Za-z0-9_.:@/+=-]{1,128}", call.request_id)
    assert call.trace_id is None or f"{call.trace_id}-{call.parent_id}" == trace[3:52]


def test_a_request_asks_for_so_many_hits_at_most_where_there_are_as_many(db: gg.Database, docs: Any) -> None:
    queries = np.ones((3, 4))
    with served(db, operation=Operation(max_hits=100)) as (server, _), gg.open(server.url) as remote:
        handle = remote["docs"]
        assert len(handle.search(queries[0], k=1 << 60).ids) == 50
        assert len(handle.search(queries[:2], k=50)) == 2
        assert len(handle.query([gg.near("dense", q).limit(50) for q in queries[:2]])) == 2
        assert len(handle.query([gg.near("dense", q) for q in queries])) == 3
        for call in (
            lambda: handle.search(queries, k=40),
            lambda: handle.query([gg.near("dense", q).limit(1 << 60) for q in queries]),
        ):
            with pytest.raises(errors.InvalidArgument, match=r"at most 100 hits.*--max-hits"):
                call()


def test_a_probe_of_the_command_line_says_whether_a_server_is_well(
    db: gg.Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(db) as (server, _):
        monkeypatch.setattr("sys.argv", ["gingham", "health", server.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0, capsys.readouterr().out) == (0, "SERVING\n")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "gingham serve" in capsys.readouterr().err


def check_command(words: list[str]) -> None:
    """Assert that the command line has the command and its options."""
    group: Any = typer.main.get_command(cli.app)
    command = group.commands[words[0]]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known
    assert used


def test_recipes_of_deployment_call_the_command_line_as_it_is() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["gingham"]
    check_command(service["command"])
    check_command(service["healthcheck"]["test"][2:])
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert {name.partition(":")[0] for name in service["volumes"] if name[0] not in "./"} == set(compose["volumes"])

    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(DEPLOY / "gingham.service")
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    started = shlex.split(unit["Service"]["ExecStart"])
    assert started[0].endswith("/bin/gingham")
    check_command(started[1:])

    image = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(None, 1) for line in image.splitlines() if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= {
        "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "HEALTHCHECK",
    }  # fmt: skip
    told = dict(steps)
    check_command(json.loads(told["CMD"]))
    check_command(json.loads(told["HEALTHCHECK"].partition(" CMD ")[2])[1:])
    assert told["USER"] == "gingham"
    copied = {source for name, rest in steps if name == "COPY" for source in rest.split()[:-1] if source[0] not in "-/"}
    assert all((DEPLOY.parents[1] / source).exists() for source in copied)
    assert {"engine", "index", "codecs", "server", "clients", "pyproject.toml"} <= copied


def test_an_error_of_the_longest_message_still_carries_when_to_call_again() -> None:
    error = errors.ResourceExhausted("x" * 5000)
    error.retry_after = 1.5
    again = unpack_error("ResourceExhausted", pack_error(error))
    assert isinstance(again, errors.ResourceExhausted)
    assert (again.retry_after, len(str(again))) == (1.5, MOST_MESSAGE_CHARACTERS)
