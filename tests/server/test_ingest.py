"""Rows in a stream: what is acknowledged stays, and a job goes on where it stood."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pyarrow as pa
import pytest

import gingham as gg
from gingham import errors
from gingham.clients import ingest as client
from gingham.server import ingest as served
from gingham.server.main import Server
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services
from gingham.storage import receipts
from gingham.types import RowBatch
from gingham.wire import pack_batch, unpack_error

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = Path(__file__).with_name("serve.py")


def packed(first: int, rows: int = 3) -> bytes:
    ids = [b"s" + str(at).encode() for at in range(first, first + rows)]
    return pack_batch(RowBatch(ids, {}, {"n": pa.array(range(first, first + rows))}), leave_out_nulls=False)


def header(job: str = "job", collection: str = "docs") -> pb.IngestRequest:
    return pb.IngestRequest(header=pb.IngestHeader(collection=collection, job=job))


def batch(sequence: int, rows: bytes, *, more: bool = False) -> pb.IngestRequest:
    return pb.IngestRequest(batch=pb.IngestBatch(sequence=sequence, rows=rows, more=more))


@pytest.fixture
def server(db: gg.Database) -> Iterator[Server]:
    db.create_collection("docs", fields={"n": gg.Int()}, vectors={"v": gg.Dense(8)})
    with Server(db, listen="127.0.0.1:0", max_workers=3) as running:
        yield running


def exchange(server: Server, *requests: pb.IngestRequest) -> tuple[list[Any], gg.GinghamError | None]:
    """All answers to a stream, and the error that ended it."""
    answers = []
    with grpc.insecure_channel(server.address) as channel:
        call = services.RowServiceStub(channel).Ingest(iter(requests), timeout=20)  # type: ignore[no-untyped-call]
        try:
            for answer in call:
                answers.append(answer)
        except grpc.RpcError as error:
            trailing = dict(error.trailing_metadata())  # type: ignore[attr-defined]
            return answers, unpack_error(trailing["gingham-error"], trailing["gingham-error-bin"])
    return answers, None


def test_a_job_goes_on_where_it_stood_and_counts_all_of_it(server: Server, db: gg.Database) -> None:
    answers, error = exchange(server, header(), batch(1, packed(0)), batch(2, packed(2)))
    assert error is None
    assert (answers[0].sequence, answers[0].window) == (0, served.WINDOW_BYTES)
    assert (answers[-1].sequence, answers[-1].result.inserted, answers[-1].result.updated) == (2, 5, 1)
    answers, error = exchange(server, header(), batch(3, packed(5)))
    assert [answer.sequence for answer in answers] == [2, 3]
    assert (answers[-1].result.inserted, error) == (8, None)
    assert exchange(server, header("other"))[0][0].sequence == 0
    assert db["docs"].count() == 8
    assert db.verify().ok
    db.drop_collection("docs")
    db.create_collection("docs", fields={"n": gg.Int()})
    assert exchange(server, header())[0][0].sequence == 0


def test_batches_that_go_together_are_written_together_or_not_at_all(server: Server, db: gg.Database) -> None:
    rows = packed(0, 50)
    first, second, third = rows[:100], rows[100:200], rows[200:]
    answers, error = exchange(server, header(), batch(1, first, more=True), batch(2, second, more=True))
    assert (answers[-1].sequence, db["docs"].count()) == (0, 0)
    assert isinstance(error, errors.InvalidArgument)
    assert "found its end" in str(error)
    answers, error = exchange(
        server, header(), batch(1, first, more=True), batch(2, second, more=True), batch(3, third)
    )
    assert (answers[-1].sequence, db["docs"].count(), error) == (3, 50, None)


@pytest.mark.parametrize(
    ("requests", "durable", "words"),
    [
        ([], 0, "header"),
        ([batch(1, packed(0))], 0, "header"),
        ([header("")], 0, "1 to 128 characters"),
        ([header("x" * 129)], 0, "1 to 128 characters"),
        ([header(), batch(0, packed(0))], 0, "expects batch 1, found batch 0"),
        ([header(), batch(2, packed(0))], 0, "expects batch 1, found batch 2"),
        ([header(), batch(1, packed(0)), batch(1, packed(0))], 3, "expects batch 2, found batch 1"),
        ([header(), batch(1, packed(0)), header()], 3, "expects batch 2, found none"),
        ([header(), batch(1, packed(0)), pb.IngestRequest()], 3, "expects batch 2, found none"),
        ([header(), batch(1, packed(0)), batch(2, b"no arrow")], 3, "batch 2: rows expect one Arrow IPC stream"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_in_a_stream_is_a_typed_error_and_what_was_before_it_stays(
    server: Server, db: gg.Database, requests: list[Any], durable: int, words: str
) -> None:
    answers, error = exchange(server, *requests)
    assert isinstance(error, errors.InvalidArgument)
    assert words in str(error)
    assert db["docs"].count() == durable
    assert not answers or answers[-1].sequence == bool(durable)


def test_an_error_in_a_row_names_it_and_its_batch(server: Server, db: gg.Database) -> None:
    bad = RowBatch([b"sx", b"sy"], {"v": np.array([[1.0] * 8, [np.inf] * 8], np.float32)}, {})
    _, error = exchange(
        server, header(), batch(1, packed(0)), batch(2, pack_batch(bad, leave_out_nulls=True)), batch(3, packed(9))
    )
    assert isinstance(error, errors.InvalidArgument)
    assert str(error).startswith("batch 2: ")
    assert "row 1" in str(error)
    assert db["docs"].count() == 3
    assert isinstance(exchange(server, header(collection="none"))[1], errors.CollectionNotFound)


def test_batches_that_wait_share_a_commit_and_one_that_fails_costs_no_other(
    server: Server, db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gg.Collection._upsert_prepared
    begun, failing = threading.Event(), [7]

    def slow(self: Any, session: Any, rows: Any) -> Any:
        begun.set()
        time.sleep(0.01)
        if len(rows.batch.ids) == failing[0]:
            raise errors.PermissionDenied("no")
        return real(self, session, rows)

    monkeypatch.setattr(gg.Collection, "_upsert_prepared", slow)
    version = db.stats().version
    answers, error = exchange(
        server, header(), *(batch(at, packed(10 * at, 7 if at == 9 else 3)) for at in range(1, 12))
    )
    assert isinstance(error, errors.PermissionDenied)
    assert str(error) == "batch 9: no"
    assert (answers[-1].sequence, db["docs"].count()) == (8, 24)
    failing[0] = 0
    commits = db.stats().version - version
    answers, error = exchange(server, header(), *(batch(at, packed(10 * at)) for at in range(9, 30)))
    assert (error, answers[-1].sequence, db["docs"].count()) == (None, 29, 29 * 3)
    assert db.stats().version - version - commits < 21
    assert answers[-1].result.version == db.stats().version


def test_a_client_sends_no_more_than_the_window_ahead(
    server: Server, db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "WINDOW_BYTES", 30_000)
    ahead, most = [0], [0]
    send, take = client._Stream.send, client.Ingest._take

    def sent(self: Any, part: Any) -> None:
        ahead[0] += len(part.packed)
        most[0] = max(most[0], ahead[0])
        send(self, part)

    def taken(self: Any, answer: Any) -> None:
        before = sum(len(one.packed) for one in self._sent)
        take(self, answer)
        ahead[0] -= before - sum(len(one.packed) for one in self._sent)

    monkeypatch.setattr(client._Stream, "send", sent)
    monkeypatch.setattr(client.Ingest, "_take", taken)
    monkeypatch.setattr(client, "MESSAGE_BYTES", 1000)
    table = pa.table({"id": pa.array(range(2000)), "n": pa.array(range(2000))})
    with gg.open(server.url) as remote:
        done = remote["docs"].upsert(pa.RecordBatchReader.from_batches(table.schema, table.to_batches(300)))
    assert (done.inserted, db["docs"].count(), ahead[0]) == (2000, 2000, 0)
    assert 20_000 < most[0] <= 30_000


def test_a_slow_client_keeps_its_stream_until_it_is_idle_for_long(
    server: Server, db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "IDLE_SECONDS", 0.15)
    begun: list[None] = []
    real = served.ingest

    def counted(*args: Any) -> Any:
        begun.append(None)
        return real(*args)

    monkeypatch.setattr("gingham.server.servicer.ingest", counted)

    def rows() -> Iterator[pa.RecordBatch]:
        for at in range(6):
            yield pa.record_batch({"id": [at], "n": [at]})
            time.sleep(0.35 if at == 3 else 0.03)

    with gg.open(server.url) as remote:
        assert remote["docs"].upsert(rows()).inserted == 6
    assert (len(begun), db["docs"].count()) == (2, 6)


def test_a_server_that_drains_ends_streams_which_go_on_with_the_next_one(db: gg.Database) -> None:
    db.create_collection("docs", fields={"n": gg.Int()})
    first = Server(db, listen="127.0.0.1:0", max_workers=3)
    later: list[Server] = []
    written = threading.Event()

    def rows() -> Iterator[pa.RecordBatch]:
        for at in range(8):
            yield pa.record_batch({"id": [at], "n": [at]})
            if at == 3:
                written.set()
                time.sleep(0.3)

    with gg.open(first.url) as remote, ThreadPoolExecutor(1) as pool:
        done = pool.submit(remote["docs"].upsert, rows())
        assert written.wait(10)
        began = time.monotonic()
        first.stop()
        assert time.monotonic() - began < 5
        later.append(Server(db, listen=first.address, max_workers=3))
        assert done.result(20).inserted == 8
    later[0].stop()
    assert db["docs"].count() == 8


def test_a_server_without_room_for_a_stream_takes_rows_in_single_calls(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gingham.server.calls.SCAN_SECONDS", 0.05)
    monkeypatch.setattr("gingham.clients.channel.MOST_WAITS", 0)
    old = db.create_collection("old")
    old.upsert(ids=list(range(2500)))
    db.create_collection("new")
    with Server(db, listen="127.0.0.1:0", max_workers=2) as server, gg.open(server.url) as remote:
        assert remote["new"].upsert(remote["old"].scan(batch_size=1000)).inserted == 2500


def test_a_write_that_is_asked_for_again_is_not_done_again(server: Server, db: gg.Database) -> None:
    rows = packed(0)
    with grpc.insecure_channel(server.address) as channel:
        stub = services.RowServiceStub(channel)  # type: ignore[no-untyped-call]
        asked = [pb.UpsertRequest(collection="docs", rows=rows, request_id=one) for one in (b"1", b"1", b"2", b"1")]
        first, again, second, last = (stub.Upsert(request).result for request in asked)
        assert first == again == last
        assert (first.inserted, second.inserted, second.updated) == (3, 0, 3)
        assert second.version > first.version
        delete = pb.DeleteRequest(collection="docs", ids=pb.Ids(values=[b"s1"]), request_id=b"gone")
        change = pb.WriteBatchRequest(changes=[pb.Change(delete=delete)], request_id=b"gone too")
        update = pb.UpdateRequest(collection="docs", batches=[rows], request_id=b"new")
        for call, request in ((stub.Delete, delete), (stub.WriteBatch, change), (stub.Update, update)):
            assert call(request).result == call(request).result
        for wrong in (b"", b"x" * 65):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Delete(pb.DeleteRequest(collection="docs", ids=pb.Ids(), request_id=wrong))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert db["docs"].count() == 2


def test_the_oldest_receipts_are_forgotten(db: gg.Database) -> None:
    few = receipts.Receipts(b"t", 3)
    digests = [bytes([at]) * 16 for at in range(5)]

    def keep(sequence: int, digest: bytes) -> None:
        def change(session: Any) -> None:
            few.keep(session, digest, sequence, gg.WriteResult(1, sequence))

        db._store.write(change)

    for at, digest in enumerate(digests):
        keep(at, digest)
        keep(at + 10, digests[max(at - 1, 0)])
    with db._store.read() as session:
        found = [few.find(session, digest) for digest in digests]
    assert [one and (one.sequence, one.result.inserted) for one in found] == [None, None, (13, 13), (14, 14), (4, 4)]
    assert db.verify().ok


def serve(path: Path, listen: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, str(SERVE), str(path), listen], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        return process, said.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(20)


def test_a_killed_server_has_what_it_acknowledged_and_the_client_goes_on_without_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, url = serve(tmp_path / "db", "127.0.0.1:0")
    acknowledged, take, killed = [0], client.Ingest._take, threading.Event()

    def taken(self: Any, answer: Any) -> None:
        take(self, answer)
        acknowledged.append(self._rows)

    def kill_and_serve_again() -> tuple[int, int, subprocess.Popen[str]]:
        while acknowledged[-1] < 1200:
            time.sleep(0.001)
        kill(process)
        durable = acknowledged[-1]
        with gg.open(tmp_path / "db") as db:
            there = db["docs"].count()
            assert db.verify().ok
        killed.set()
        return durable, there, serve(tmp_path / "db", url.removeprefix("grpc://"))[0]

    def rows() -> Iterator[pa.RecordBatch]:
        for at in range(0, 16_000, 400):
            numbers = np.arange(at, at + 400)
            vectors = pa.FixedSizeListArray.from_arrays(np.repeat(numbers, 2).astype(np.float32), 2)
            yield pa.record_batch({"id": numbers % 14_000, "n": numbers, "v": vectors})
            time.sleep(0.005)
        assert killed.wait(30)

    monkeypatch.setattr(client.Ingest, "_take", taken)
    with gg.open(url) as remote, ThreadPoolExecutor(1) as pool:
        remote.create_collection("docs", fields={"n": gg.Int()}, vectors={"v": gg.Dense(2, "l2")})
        again = pool.submit(kill_and_serve_again)
        done = remote["docs"].upsert(rows())
        durable, there, last = again.result(30)
        try:
            assert 1200 <= durable <= there < 14_000
            assert (done.inserted, done.updated) == (14_000, 2000)
            docs = remote["docs"]
            assert docs.count() == 14_000
            found = {row["id"]: (row["n"], row["v"].tolist()) for row in docs.scan(include_vectors=True)}
            assert found == {at % 14_000: (at, [at, at]) for at in range(16_000)}
        finally:
            kill(last)
