"""Reader processes: the same answers from each, writes through them, who may call, and how they end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import gingham as gg
from gingham import F, errors, match, near
from gingham.server import keys as key_files
from gingham.server import readers
from gingham.server.keys import create_key, revoke_key
from gingham.server.logs import CALLS
from gingham.server.main import Operation, Server
from gingham.server.observer import CallObserver
from gingham.server.proto import gingham_pb2 as pb
from library import filled
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="readers share a port as Linux lets them")
COUNT = 2
MOST_HITS = 5000
MESSAGE_BYTES = 2 << 20


def eventually(seen: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Readers among the children of a process, those that run alone."""
    found = " ".join(one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [int(one) for one in found if b"gingham-reader" in Path(f"/proc/{one}/cmdline").read_bytes()]


def connections(pid: int, port: int) -> set[str]:
    """Those to a port that a process has taken."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    taken = {f"socket:[{one[9]}]" for one in lines if one[3] == "01" and int(one[1].rpartition(":")[2], 16) == port}
    names = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            names.add(os.readlink(one))
    return names & taken


class Served:
    """A served database with readers, a key of each kind, and a connection to each reader."""

    def __init__(self, folder: Path) -> None:
        self.db = gg.open(folder / "db")
        filled(self.db)
        made = self.db.create_collection("many", fields={"n": gg.Int()}, vectors={"dense": gg.Dense(16)})
        self.vectors = np.random.default_rng(0).standard_normal((3000, 16), np.float32)
        made.upsert(ids=list(range(3000)), vectors={"dense": self.vectors}, fields={"n": list(range(3000))})
        self.file = folder / "keys.jsonl"
        kinds: dict[str, dict[str, Any]] = {
            "read": {}, "write": {"scope": "write"}, "admin": {"scope": "admin"}, "filtered": {"filter": "n < 10"},
            "docs": {"scope": "write", "collections": ["docs"]},
        }  # fmt: skip
        self.tokens = {name: create_key(self.file, **options)[0] for name, options in kinds.items()}
        self.server = Server(
            self.db, listen="127.0.0.1:0", max_workers=4, max_message_bytes=MESSAGE_BYTES, keys=self.file, readers=COUNT,
            operation=Operation(metrics="127.0.0.1:0", max_hits=MOST_HITS),
        )  # fmt: skip

    def open(self, name: str = "admin") -> Any:
        return gg.open(self.server.url, token=self.tokens[name])

    def pids(self) -> list[int]:
        return children(os.getpid())

    def each(self, name: str = "admin") -> list[Any]:
        """Connections, one to each reader, once each has one."""
        found: dict[int, Any] = {}
        port = int(self.server.address.rpartition(":")[2])
        end = time.monotonic() + 30
        while time.monotonic() < end:
            before = {pid: connections(pid, port) for pid in self.pids()}
            made = self.open(name)
            (at,) = [pid for pid, there in before.items() if connections(pid, port) - there]
            if at in found:
                made.close()
            else:
                found[at] = made
            if len(found) == COUNT:
                return list(found.values())
        raise AssertionError(f"connections came to {len(found)} readers")

    def close(self) -> None:
        self.server.stop()
        self.db.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(key_files, "SCRYPT_N", 1 << 8)
        made = Served(tmp_path_factory.mktemp("readers"))
    try:
        yield made
    finally:
        folder = Path(made.server._group.folder)  # type: ignore[union-attr]
        made.close()
    assert not made.pids()
    assert not folder.exists()


@pytest.fixture
def each(served: Served) -> Iterator[list[Any]]:
    made = served.each()
    yield made
    for one in made:
        one.close()


def test_every_reader_answers_as_the_folder_does_to_the_bit(served: Served, each: list[Any]) -> None:
    queries = served.vectors[:5] + np.float32(0.1)
    here, docs = served.db["many"], served.db["docs"]
    for one in each:
        there, texts = one["many"], one["docs"]
        same_hits(here.search(queries[0], k=7), there.search(queries[0], k=7))
        same_hits(here.search(queries, k=7, where=F.n > 100), there.search(queries, k=7, where=F.n > 100))
        same_hits(docs.query(match("title", "row 3")), texts.query(match("title", "row 3")))
        assert same(docs.get([1, "a", "no"], include_vectors=True), texts.get([1, "a", "no"], include_vectors=True))
        assert docs.facets("lang") == texts.facets("lang")
        assert same(list(here.scan(where=F.n < 50)), list(there.scan(where=F.n < 50)))
        assert (here.schema, here.stats(), served.db.collections()) == (there.schema, there.stats(), one.collections())
        assert served.db.stats().version == one.stats().version
        assert there.recall(n=5).recall == 1
        for call in (lambda c: c.search(np.ones(3)), lambda c: c.search(queries[0], where="x = 1")):
            inside, outside = raised(lambda c=call: c(here)), raised(lambda c=call, t=there: c(t))
            assert (type(inside), str(inside)) == (type(outside), str(outside))


def test_a_write_through_one_reader_is_read_at_once_by_all(served: Served, each: list[Any]) -> None:
    each[0].create_collection("new", fields={"n": gg.Int()}, vectors={"dense": gg.Dense(4)})
    for at, one in enumerate(each * 3):
        done = one["new"].upsert([{"id": at, "n": at, "dense": np.eye(4)[at % 4]}])
        assert (done.inserted, done.version) == (1, served.db.stats().version)
        for other in each:
            assert other.stats().version == done.version
            assert other["new"].get(at)["n"] == at
            assert at in other["new"].search(np.eye(4)[at % 4], k=10).ids
    with each[0].transaction() as both:
        both["new"].delete(where=F.n >= 0)
        both["docs"].update([{"id": "bare", "year": 1}])
    assert {(one["new"].count(), one["docs"].get("bare")["year"]) for one in each} == {(0, 1)}
    each[1].compact()  # after which they read another file
    each[1].drop_collection("new")
    for one in each:
        with pytest.raises(errors.CollectionNotFound):
            one["new"].count()
        assert one["many"].count() == 3000


def test_what_the_writer_refuses_is_raised_with_all_that_it_says(served: Served, each: list[Any]) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda db: db["many"].upsert(ids=[1], vectors={"dense": np.ones((1, 3))}),
        lambda db: db.create_collection("many"),
        lambda db: db["many"].add_field("n", gg.Int()),
        lambda db: db.drop_collection("none"),
        lambda db: db["many"].upsert({"id": at, "n": "x"} for at in range(3)),
    ]
    for call in calls:
        inside, outside = raised(lambda c=call: c(served.db)), raised(lambda c=call: c(each[0]))
        assert (type(inside), str(inside)) == (type(outside), str(outside))
    with pytest.raises(errors.InvalidArgument, match=f"at most {MOST_HITS} hits"):
        each[0]["many"].search(np.ones((3, 16)), k=2000)
    for call in (
        lambda c: c.upsert([{"id": 1, "title": "x" * MESSAGE_BYTES}]), lambda c: c.get(list(range(1 << 18))),
    ):  # fmt: skip
        with pytest.raises(errors.ResourceExhausted):
            call(each[0]["docs"])


def test_a_stream_of_rows_is_written_and_a_copy_comes_back(served: Served, each: list[Any], tmp_path: Path) -> None:
    streamed = each[0].create_collection("streamed", fields={"n": gg.Int()}, vectors={"dense": gg.Dense(16)})
    rows = [{"id": at, "n": at, "dense": served.vectors[at % 3000]} for at in range(25_000)]
    assert streamed.upsert(iter(rows)).inserted == 25_000
    assert [one["streamed"].count(where=F.n >= 20_000) for one in each] == [5000] * COUNT
    with gg.open(each[1].backup(tmp_path / "copy"), mode="r") as copy:
        assert copy["streamed"].count() == 25_000
    each[0].drop_collection("streamed")


def test_a_snapshot_of_one_connection_is_that_of_its_commit(served: Served, each: list[Any]) -> None:
    docs = each[0].create_collection("pinned", fields={"n": gg.Int()})
    docs.upsert([{"id": at, "n": at} for at in range(20)])
    with each[0].snapshot() as snapshot:
        docs.delete(where=F.n < 15)
        assert (snapshot["pinned"].count(), docs.count()) == (20, 5)
        assert len(list(snapshot["pinned"].scan())) == 20
        assert snapshot["pinned"].schema == docs.schema
        assert snapshot.version < each[0].stats().version
    each[0].drop_collection("pinned")


def code(channel: Any, method: str, request: bytes, metadata: Any = ()) -> str:
    """What a call ends with."""
    try:
        channel.unary_unary(f"/gingham.v1.{method}")(request, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def called(served: Served, method: str, request: Any, token: str | None, target: str | None = None) -> str:
    """The same with a key."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(target or served.server.address) as channel:
        return code(channel, method, request.SerializeToString(), metadata)


def test_reads_and_writes_ask_for_a_key_once_and_for_what_it_is_good_for(served: Served) -> None:
    reads = "RowService/Count", pb.CountRequest(collection="many")
    pinned = "RowService/Count", pb.CountRequest(collection="many", snapshot="0" * 32)
    writes = "RowService/Delete", pb.DeleteRequest(collection="many", ids=pb.Ids(values=[]))
    admin = "CollectionService/DropCollection", pb.DropCollectionRequest(name="none")
    wrong = served.tokens["admin"][:-3] + "AAA"
    for method, request in (reads, pinned, writes, admin):
        assert called(served, method, request, None) == "UNAUTHENTICATED"
        assert called(served, method, request, wrong) == "UNAUTHENTICATED"
        # Nor does the socket of the writer know better.
        socket = f"unix:{served.server._group.socket}"  # type: ignore[union-attr]
        assert called(served, method, request, wrong, socket) == "UNAUTHENTICATED"
        assert called(served, method, request, served.tokens["docs"]) == "PERMISSION_DENIED"
    found = {
        (name, method): called(served, method, request, served.tokens[name])
        for name in ("read", "write", "admin", "filtered")
        for method, request in (reads, writes, admin)
    }
    assert {what for what, code in found.items() if code == "PERMISSION_DENIED"} == {
        ("read", writes[0]), ("read", admin[0]), ("write", admin[0]), ("filtered", writes[0]), ("filtered", admin[0]),
    }  # fmt: skip
    assert [called(served, *pinned, served.tokens[name]) for name in ("read", "filtered")] == [
        "FAILED_PRECONDITION", "PERMISSION_DENIED",
    ]  # fmt: skip
    assert stat.S_IMODE(os.stat(served.server._group.folder).st_mode) == 0o700  # type: ignore[union-attr]


def test_a_key_shows_its_rows_alone_and_ends_when_it_is_revoked(served: Served) -> None:
    token, key = create_key(served.file, filter="n < 10")
    with served.open("filtered") as one:
        assert one["many"].count() == 10
        assert max(one["many"].search(served.vectors[0], k=100).ids) < 10
    with gg.open(served.server.url, token=token) as one:
        assert one["many"].count() == 10
        revoke_key(served.file, key.id)
        with pytest.raises(errors.Unauthenticated):
            one["many"].count()


def scraped(served: Served) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.server.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_metrics_count_the_calls_of_all_readers_once_each(served: Served, each: list[Any]) -> None:
    search, upsert = "QueryService/Search", "RowService/Upsert"
    before = scraped(served)
    handles = [one["docs"] for one in each]
    for handle in handles:
        handle.search(np.ones(8), using="dense")
        handle.upsert([{"id": "counted"}])
        with pytest.raises(errors.DimensionMismatch):
            handle.search(np.ones(9), using="dense")
    handles[0].delete(ids=["counted"])
    scan = each[0]["many"].scan(batch_size=1)
    next(scan)
    after = scraped(served)
    for key, count in (
        (("gingham_calls_total", "OK", search), COUNT), (("gingham_calls_total", "OK", upsert), COUNT),
        (("gingham_calls_total", "INVALID_ARGUMENT", search), COUNT), (("gingham_call_seconds_count", search), 2 * COUNT),
        (("gingham_call_seconds_count", upsert), COUNT),
    ):  # fmt: skip
        assert after[key] - before.get(key, 0) == count, key
    assert after["gingham_collection_rows", "many"] == 3000
    eventually(lambda: (scraped(served)["gingham_open_scans",], scraped(served)["gingham_open_calls",]) == (1, 1))
    scan.close()
    eventually(lambda: (scraped(served)["gingham_open_scans",], scraped(served)["gingham_open_calls",]) == (0, 0))


def test_the_log_tells_of_a_write_once_with_its_key_and_where_it_came_from(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger=CALLS.name), served.open("write") as one:
        caplog.clear()
        one["docs"].upsert([{"id": "logged"}])
        one["docs"].delete(ids=["logged"])
    told = [record.told for record in caplog.records if record.name == CALLS.name]  # type: ignore[attr-defined]
    assert [one["method"] for one in told] == ["RowService/Upsert", "RowService/Delete"]
    assert {(one["key"], one["peer"].rpartition(":")[0]) for one in told} == {
        (served.tokens["write"].split("_")[1], "ipv4:127.0.0.1")
    }


def test_a_call_that_is_given_up_ends_in_the_writer_and_so_does_its_time(served: Served) -> None:
    metadata = (("authorization", f"Bearer {served.tokens['write']}"),)
    scans = served.server._scans
    with grpc.insecure_channel(served.server.address) as channel:
        ingest = channel.stream_stream(
            "/gingham.v1.RowService/Ingest", request_serializer=pb.IngestRequest.SerializeToString
        )
        held, begun = threading.Event(), time.monotonic()

        def requests() -> Iterator[pb.IngestRequest]:
            yield pb.IngestRequest(header=pb.IngestHeader(collection="docs", job="held"))
            held.wait(30)

        for end in ("cancel", "deadline"):
            call = ingest(requests(), metadata=metadata, timeout=20 if end == "cancel" else 1.0)
            next(call)
            assert scans.open == 1
            if end == "cancel":
                call.cancel()
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    next(call)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            eventually(lambda: scans.open == 0)
        held.set()
        assert time.monotonic() - begun < 15


def test_a_reader_that_dies_is_replaced_and_only_what_it_was_at_fails(served: Served) -> None:
    before = served.pids()
    failed: list[Exception] = []
    over, done = threading.Event(), [0] * 4

    def reads(at: int) -> None:
        with served.open("write") as one:
            docs = one["docs"]
            while not over.is_set():
                try:
                    docs.search(np.ones(8), k=3, using="dense")
                    docs.upsert([{"id": f"kept {at}"}])
                    done[at] += 1
                except Exception as error:
                    failed.append(error)

    threads = [threading.Thread(target=reads, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: min(done) > 3)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(served.pids()) == COUNT and before[0] not in served.pids())
    at = list(done)
    eventually(lambda: all(now > then + 3 for now, then in zip(done, at, strict=True)))
    over.set()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, errors.Unavailable) for error in failed)
    assert len(failed) <= len(threads)
    for one in served.each():
        assert one["many"].count() == 3000
        one.close()
    served.db["docs"].delete(ids=[f"kept {at}" for at in range(4)])


def test_an_address_is_that_of_one_server(served: Served, tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        for options in ({}, {"readers": 1}):
            with pytest.raises(errors.Unavailable, match="free port"):
                Server(db, listen=served.server.address, **options)  # type: ignore[arg-type]


def test_readers_that_cannot_be_had_are_refused(
    db: gg.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.InvalidArgument, match="no interceptors"):
        Server(db, listen="127.0.0.1:0", readers=1, interceptors=[CallObserver()])
    for number in (-1, 1000, "two"):
        with pytest.raises(errors.InvalidArgument, match="readers="):
            Server(db, listen="127.0.0.1:0", readers=number)  # type: ignore[arg-type]
    ending = [sys.executable, "-c", "import sys; sys.exit(3)"]
    monkeypatch.setattr(
        readers, "_started", lambda setup: subprocess.Popen(ending, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    with pytest.raises(errors.Unavailable, match="readers that start"):
        Server(db, listen="127.0.0.1:0", readers=2)
    (deep := tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(errors.InvalidArgument, match="TMPDIR"):
        Server(db, listen="127.0.0.1:0", readers=1)
    assert not list(deep.iterdir())


@contextmanager
def started(
    tmp_path: Path, *options: str, count: int = COUNT
) -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """A server of the command line over 3,000 rows, where it listens, and its readers."""
    with gg.open(tmp_path / "db") as db:
        made = db.create_collection("many", vectors={"dense": gg.Dense(256)})
        made.upsert(ids=list(range(3000)), vectors={"dense": np.ones((3000, 256), np.float32)})
    (tmp_path / "t").mkdir()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "gingham", "serve", str(tmp_path / "db"), "--listen", "127.0.0.1:0", "--readers",
            str(count), "--log-json", *options,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path / "t")},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        pids = children(process.pid)
        assert len(pids) == count
        yield process, url, pids
    finally:
        process.kill()
        process.communicate()


def test_sigterm_drains_all_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with started(tmp_path) as (process, url, pids), gg.open(url) as one:
        scan = one["many"].scan(batch_size=100, include_vectors=True)  # more than is sent unread
        next(scan)
        channel = one._channel._grpc
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for method in ("RowService/Count", "RowService/Upsert"):
            eventually(lambda name=method: code(channel, name, b"") == "UNAVAILABLE")  # type: ignore[misc]
        assert len(list(scan)) == 29  # it had begun
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr]
    assert not any(map(alive, pids))
    assert not list((tmp_path / "t").glob("gingham-*"))
    assert {"RowService/Scan", "CollectionService/GetSchema"} <= {line.get("method") for line in lines}
    assert not [line for line in lines if line["level"] in ("WARNING", "ERROR")]


def test_readers_end_with_the_process_that_started_them_also_behind_tls(tmp_path: Path, authority: Any) -> None:
    folder = authority.folder
    files = ("--tls-cert", "server.pem"), ("--tls-key", "server.key"), ("--client-ca", "ca.pem")
    options = [word for name, file in files for word in (name, str(folder / file))]
    shown = {"tls_cert": folder / "client.pem", "tls_key": folder / "client.key"}
    with (
        started(tmp_path, *options, count=1) as (process, url, pids),
        gg.open(url, tls_ca=authority.ca, **shown) as one,
    ):
        assert one["many"].query(near("dense", np.ones(256)).limit(3)).ids == [0, 1, 2]
        assert one["many"].upsert([{"id": "new"}]).inserted == 1
        alone = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        with grpc.secure_channel(url.removeprefix("grpcs://"), alone) as channel:
            assert code(channel, "RowService/Count", b"") == "UNAVAILABLE"
        process.kill()
        eventually(lambda: not any(map(alive, pids)))
    assert not list((tmp_path / "t").glob("gingham-*"))
