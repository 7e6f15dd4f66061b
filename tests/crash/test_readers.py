"""One process writes, others read: whole commits only, the newest at once, nobody waits."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("reader.py")
IDLE = Path(__file__).with_name("idle.py")


@contextlib.contextmanager
def idle_readers(path: Path, count: int) -> Iterator[list[Any]]:
    """Processes that have queried the store once and stay open."""
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(IDLE), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(count)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        yield children


def ask(child: Any) -> list[int]:
    """What an idle reader sees now."""
    child.stdin.write("\n")
    child.stdin.flush()
    return [int(word) for word in child.stdout.readline().split()]


def write_while_others_read(tmp_path: Path, *, readers: int, seconds: float) -> None:
    path, newest = tmp_path / "db", tmp_path / "newest"
    rng = np.random.default_rng(0)
    with gg.open(path) as db, contextlib.ExitStack() as stack:
        a = db.create_collection("a", fields={"stamp": gg.Int()}, vectors={"v": gg.Dense(16)})
        db.create_collection("b", fields={"stamp": gg.Int()})
        ids = list(range(200))

        def commit(stamp: int) -> None:
            with db.transaction() as change:
                vectors = rng.standard_normal((200, 16)).astype(np.float32)
                change["a"].upsert(ids=ids, vectors={"v": vectors}, fields={"stamp": [stamp] * 200})
                change["b"].upsert(ids=["last"], fields={"stamp": [stamp]})
            (tmp_path / "newest.tmp").write_text(str(stamp))
            os.replace(tmp_path / "newest.tmp", newest)

        ballast = {"v": rng.standard_normal((24_000, 128)).astype(np.float32)}
        db.create_collection("c", vectors={"v": gg.Dense(128)}).upsert(ids=list(range(24_000)), vectors=ballast)
        for stamp in range(1, 61):
            commit(stamp)
        a.maintain()
        size = db.stats().file_bytes
        idle = stack.enter_context(idle_readers(path, 1))[0]
        children = [
            subprocess.Popen([sys.executable, str(SCRIPT), str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
            for _ in range(readers)
        ]
        while any(child.poll() is None for child in children):
            stamp += 1
            commit(stamp)
            time.sleep(0.001)
        seen = []
        for child in children:
            with child:
                out, _ = child.communicate()
                assert child.returncode == 0
                seen.append(json.loads(out))
        for report in seen:
            assert (report["torn"], report["stale"]) == (0, 0)
            assert report["queries"] > 5
            assert report["slowest"] < 2.0
            assert report["last"] > report["first"]
        assert stamp > 100
        assert ask(idle)[0] == a.stats().version
        # Merges in flight take a few MB of a file this small; a page held back by each of 1,000 commits takes more.
        assert db.stats().file_bytes <= 1.3 * size + (4 << 20), "about 400 commits would fill the difference"
        assert db.verify().ok


def test_four_readers_see_whole_and_newest_commits_while_one_process_writes(tmp_path: Path) -> None:
    write_while_others_read(tmp_path, readers=4, seconds=3.0)


@pytest.mark.soak
def test_four_readers_see_whole_and_newest_commits_for_thirty_seconds(tmp_path: Path) -> None:
    write_while_others_read(tmp_path, readers=4, seconds=30.0)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="shared pages are counted by Linux")
def test_eight_reader_processes_share_the_pages_of_the_file(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((20_000, 256)).astype(np.float32)
    with gg.open(tmp_path / "db") as db:
        db.create_collection("a", vectors={"v": gg.Dense(256)}).upsert(ids=list(range(20_000)), vectors={"v": vectors})
    with idle_readers(tmp_path / "db", 8) as children:
        seen = [ask(child)[1:] for child in children]
    read = vectors.nbytes >> 10
    assert all(rss >= 0.9 * read for rss, _ in seen)
    assert sum(pss for _, pss in seen) <= 1.3 * read, seen
