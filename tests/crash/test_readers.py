"""One process writes, others read: whole commits only, the newest at once, nobody waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gingham as gg

SCRIPT = Path(__file__).with_name("reader.py")


def write_while_others_read(tmp_path: Path, *, readers: int, seconds: float) -> None:
    path, newest = tmp_path / "db", tmp_path / "newest"
    rng = np.random.default_rng(0)
    with gg.open(path) as db:
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

        commit(1)
        a.maintain()
        idle = gg.open(path, mode="r")
        idle["a"].count()
        children = [
            subprocess.Popen([sys.executable, str(SCRIPT), str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
            for _ in range(readers)
        ]
        stamp, sizes = 1, []
        while any(child.poll() is None for child in children):
            stamp += 1
            commit(stamp)
            if stamp == 200:
                sizes.append(db.stats().file_bytes)
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
        idle.close()
        if sizes:
            assert db.stats().file_bytes <= 1.3 * sizes[0] + (4 << 20)
        assert db.verify().ok


def test_four_readers_see_whole_and_newest_commits_while_one_process_writes(tmp_path: Path) -> None:
    write_while_others_read(tmp_path, readers=4, seconds=3.0)


@pytest.mark.soak
def test_four_readers_see_whole_and_newest_commits_for_thirty_seconds(tmp_path: Path) -> None:
    write_while_others_read(tmp_path, readers=4, seconds=30.0)
