"""What one caller may hold of what all share: places of streams, snapshots, threads that wait for a hash."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import gingham as gg
from gingham import errors
from gingham.server import calls, views
from gingham.server import keys as key_files
from gingham.server.keys import KeyRing, create_key
from gingham.server.main import Server
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

LONG = pb.ScanRequest(collection="docs", batch_size=10).SerializeToString()


def scan_of_a_client(channel: Any) -> Any:
    """A scan of more bytes than a connection holds, of which a client has taken the first message."""
    call = channel.unary_stream("/gingham.v1.RowService/Scan")(LONG)
    next(call)
    return call


def test_a_scan_that_nobody_reads_makes_room_for_another_and_one_that_is_read_does_not(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SCAN_SECONDS", 0.3)
    docs = db.create_collection("docs", fields={"text": gg.Text()})
    docs.upsert([{"id": at, "text": chr(97 + at % 26) * 100_000} for at in range(150)])
    with Server(db, listen="127.0.0.1:0", max_workers=2) as server, grpc.insecure_channel(server.address) as channel:
        left = scan_of_a_client(channel)
        with gg.open(server.url) as remote:
            monkeypatch.setattr("gingham.clients.channel.MOST_WAITS", 0)
            with pytest.raises(errors.ResourceExhausted, match="at most 1 scans"):
                list(remote["docs"].scan())
            monkeypatch.setattr(calls, "TAKEN_SECONDS", 0.1)
            assert len(list(remote["docs"].scan())) == 150
        with pytest.raises(grpc.RpcError) as ended:
            list(left)
        assert ended.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]
        assert server._scans.open == 0


def test_the_snapshots_of_one_key_leave_room_for_those_of_others(
    tmp_path: Path, db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST_OF_A_KEY", 2)
    one, other = (create_key(tmp_path / "keys")[0] for _ in range(2))
    with (
        Server(db, listen="127.0.0.1:0", keys=tmp_path / "keys") as server,
        gg.open(server.url, token=one) as greedy,
        gg.open(server.url, token=other) as modest,
    ):
        held = [greedy.snapshot(), greedy.snapshot()]
        with pytest.raises(errors.ResourceExhausted, match="at most 2 open snapshots of a key"):
            greedy.snapshot()
        assert modest.snapshot().collections() == []
        held[0].close()
        assert greedy.snapshot().collections() == []


def test_few_threads_wait_for_hashes_and_a_secret_that_many_show_at_once_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "MOST_WAITING", 3)
    token, key = create_key(tmp_path / "keys")
    ring, go, hashed, entered = KeyRing(tmp_path / "keys"), threading.Event(), key_files._scrypt, threading.Event()
    secrets: list[str] = []

    def slowly(*given: Any) -> bytes:
        secrets.append(given[0])
        entered.set()
        assert go.wait(10)
        return hashed(*given)

    monkeypatch.setattr(key_files, "_scrypt", slowly)
    found: list[Any] = []
    waiting = [threading.Thread(target=lambda: found.append(ring.verify(token))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert entered.wait(10)
    while ring._waiting.acquire(blocking=False):
        ring._waiting.release()
    with pytest.raises(errors.ResourceExhausted, match="call again in a moment") as refused:
        ring.verify(token[:-3] + "AAA")
    assert refused.value.retry_after is not None
    go.set()
    for thread in waiting:
        thread.join(10)
    assert found == [key] * 3
    assert len(secrets) == 1
    with pytest.raises(errors.Unauthenticated):
        ring.verify(token[:-3] + "AAA")
