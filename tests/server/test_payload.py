"""Rows of long texts: what an answer holds is bounded in bytes, and scans bring them in messages that fit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import gingham as gg
from gingham import errors
from gingham.server.main import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = 100_000
LIMIT = 2 << 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    with gg.open(tmp_path_factory.mktemp("long") / "db") as db:
        docs = db.create_collection("docs", fields={"text": gg.Text()}, vectors={"v": gg.Dense(4)})
        vectors = np.eye(4, dtype=np.float32).repeat(10, axis=0)
        docs.upsert(
            ids=range(40), vectors={"v": vectors}, fields={"text": [chr(97 + n % 26) * LONG for n in range(40)]}
        )
        server = Server(db, listen="127.0.0.1:0", max_message_bytes=LIMIT)
        with gg.open(server.url) as remote:
            yield docs, remote["docs"]
        server.stop(0)


def test_answers_of_more_bytes_than_a_message_are_refused_before_they_are_made(served: tuple[Any, Any]) -> None:
    here, there = served
    queries = np.eye(4, dtype=np.float32).repeat(300, axis=0)
    for ask in (
        lambda docs: docs.get([3] * 600),
        lambda docs: docs.search(queries, k=10),
        lambda docs: docs.query([gg.near("v", query) for query in queries[:100]]),
    ):
        assert ask(here)
        with pytest.raises(errors.ResourceExhausted, match="MiB of payload"):
            ask(there)
    assert there.get([3] * 5) == here.get([3] * 5)
    assert there.search(queries, k=10, fields=[]).ids == here.search(queries, k=10, fields=[]).ids
    found = there.search(queries[0], k=3)
    assert found[0]["text"] == here.search(queries[0], k=3)[0]["text"]


def test_scans_bring_long_rows_in_messages_that_fit(served: tuple[Any, Any], tmp_path: Path) -> None:
    here, there = served
    assert list(there.scan()) == list(here.scan())
    batches = list(there.scan(batch_size=1000))
    assert sum(map(len, batches)) == 40
    assert max(batch.nbytes for batch in batches) <= LIMIT // 2
    assert [row for batch in batches for row in batch["text"].to_pylist()] == [row["text"] for row in here.scan()]
    assert there.to_parquet(tmp_path / "rows.parquet") == 40


def test_a_row_that_no_message_can_hold_is_a_typed_error_of_a_scan(served: tuple[Any, Any]) -> None:
    here, there = served
    here.upsert(ids=["longest"], vectors={"v": np.ones((1, 4), np.float32)}, fields={"text": ["z" * (2 * LIMIT)]})
    with pytest.raises(errors.ResourceExhausted):
        list(there.scan())
    here.delete(ids=["longest"])


def test_probes_that_send_no_request_keep_nobody_from_being_answered(served: tuple[Any, Any]) -> None:
    here, there = served
    address = repr(there._channel.address).strip("'")
    held = threading.Event()

    def silent() -> Iterator[bytes]:
        if held.wait(20):
            yield b""

    channels = [grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(6)]
    calls = [
        channel.stream_unary("/grpc.health.v1.Health/Check").future(silent())
        for channel in channels
        for _ in range(120)
    ]
    try:
        for _ in range(30):
            assert there.count() == len(here)
    finally:
        held.set()
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()
