"""The writing process is killed; what it acknowledged is there, and nothing is there in part."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import gingham as gg
import workload

SCRIPT = Path(__file__).with_name("workload.py")
POINTS = [
    "before commit",
    "after commit",
    "staged",
    "seal before switch",
    "seal after switch",
    "merge before switch",
    "merge after switch",
    "compact copied",
    "compact superseded",
    "compact switched",
    "copy written",
]


def run_child(
    path: Path, seed: int, first: int, *, crash_at: str | None, seconds: float, durability: str = "commit"
) -> int:
    """Run the workload until it dies; returns the number of acknowledged changes."""
    env = {k: v for k, v in os.environ.items() if k != "GINGHAM_CRASH_AT"}
    if crash_at is not None:
        env["GINGHAM_CRASH_AT"] = crash_at
    child = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(path), str(seed), str(first), str(first + 400), durability],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    done = first
    timer = threading.Timer(60.0, child.kill)
    with child:
        for line in child.stdout:
            if line.strip() == "open":
                timer.cancel()
                timer = threading.Timer(seconds, child.kill)
                timer.start()
            else:
                done = int(line) + 1
        timer.cancel()
        errors = child.stderr.read()
        code = child.wait()
    assert code in (0, -signal.SIGKILL), errors
    return done


def check_survivor(path: Path, seed: int, done: int) -> int:
    """Compare the reopened database with the model; returns how many changes it holds."""
    with gg.open(path) as database:
        report = database.verify()
        assert report.ok, report.damage[:3]
        before = workload.model(seed, done)
        after = workload.apply_to_model(before, done, workload.change_at(seed, done))
        found = workload.read_state(database) if "a" in database else {}
        assert found in (before, after), f"after change {done}: neither the state before nor the state after it"
        if "b" in database and done:
            stamps = [n for n in range(done) if workload.change_at(seed, n)[0] == "two"]
            last = database["b"].get("last")
            held = {None if last is None else last["stamp"]}
            both = workload.change_at(seed, done)[0] == "two"
            assert held <= {stamps[-1] if stamps else None, done if both and found == after else None}
            if len(database["a"]):
                one = np.array([next(iter(found.values()))[1], 1, 0, 2], np.float32)
                assert len(database["a"].search(one, k=len(found) + 5)) == len(found)
    for backup in path.parent.glob("db.backup-*"):
        with gg.open(backup, mode="r") as copy:
            assert copy.verify().ok
        shutil.rmtree(backup)
    left = [p.name for p in path.iterdir() if p.name.startswith("generation")]
    assert len(left) <= 2
    return done if found == before and found != after else done + 1


def rounds(tmp_path: Path, count: int, seed: int, durability: str = "commit") -> None:
    rng = np.random.default_rng(seed)
    path, done = tmp_path / "db", 0
    for number in range(count):
        point = POINTS[number % len(POINTS)] if number % 3 else None
        crash_at = None if point is None else f"{point}:{rng.integers(1, 4)}"
        seconds = float(rng.uniform(0.05, 0.8))
        acknowledged = run_child(path, seed, done, crash_at=crash_at, seconds=seconds, durability=durability)
        done = check_survivor(path, seed, acknowledged)


def test_no_acknowledged_row_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    rounds(tmp_path, 20, seed=3)


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_no_acknowledged_row_is_lost_where_commits_are_not_synced(tmp_path: Path, durability: str) -> None:
    rounds(tmp_path, 4, seed=11, durability=durability)


def test_row_ids_are_never_used_again_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "db"
    code = f"""
        import gingham as gg
        from gingham.storage.writes import find_rows
        from gingham.types import encode_id
        with gg.open({str(path)!r}) as db:
            docs = db.create_collection("c", exist_ok=True)
            for n in range(10_000):
                docs.upsert(ids=["same", f"gone {{n}}"])
                with db._store.read() as session:
                    row = max(find_rows(session, docs._cid, [encode_id(f"gone {{n}}")]).values())
                docs.delete(ids=[f"gone {{n}}"] if n % 2 else ["same", f"gone {{n}}"])
                print(row, flush=True)
    """
    highest = -1
    for number in range(4):
        env = {**os.environ, "GINGHAM_CRASH_AT": f"{('before', 'after')[number % 2]} commit:{10 + 7 * number}"}
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env, check=False
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        rows = [int(line) for line in child.stdout.split()]
        assert rows == sorted(set(rows))
        assert rows[0] > highest
        highest = rows[-1]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_no_acknowledged_row_is_lost_in_two_hundred_kills(tmp_path: Path, seed: int) -> None:
    rounds(tmp_path, 20, seed=100 + seed)


@pytest.mark.parametrize("point", POINTS)
def test_every_named_crash_point_is_reached(tmp_path: Path, point: str) -> None:
    path = tmp_path / "db"
    acknowledged = run_child(path, 5, 0, crash_at=point, seconds=20.0)
    assert acknowledged < 400
    check_survivor(path, 5, acknowledged)
