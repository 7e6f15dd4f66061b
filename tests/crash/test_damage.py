"""Damaged files are reported: never a signal, never a wrong answer without an error."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import damage
import gingham as gg

SCRIPT = Path(__file__).with_name("damage.py")
PAGE = 4096


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store with segments, tail, tombstones and two collections."""
    path = tmp_path_factory.mktemp("damage") / "db"
    rng = np.random.default_rng(1)
    with gg.open(path) as db:
        for name in ("a", "b"):
            docs = db.create_collection(
                name, fields={"year": gg.Int(), "title": gg.Text()}, vectors={"v": gg.Dense(8, "l2")}
            )
            for first, rows in ((0, 3000), (100, 150), (280, 40)):
                ids = [f"r{i}" for i in range(first, first + rows)]
                docs.upsert(
                    ids=ids,
                    vectors={"v": rng.standard_normal((rows, 8))},
                    fields={"year": list(range(rows)), "title": [f"title {i}" for i in ids]},
                )
            docs.delete(ids=[f"r{i}" for i in range(0, 300, 9)])
        db.compact()
        assert db.verify().ok
        (path.parent / "truth.json").write_text(json.dumps(damage.answers(db)))
    return path


def copy_with(healthy: Path, name: str, change: Any) -> Path:
    """A copy of the store with its data file changed."""
    folder = healthy.parent / name
    source = next(healthy.glob("generation-*")) / "data.mdb"
    target = folder / source.parent.name / "data.mdb"
    target.parent.mkdir(parents=True)
    (folder / "CURRENT").write_text((healthy / "CURRENT").read_text())
    target.write_bytes(change(bytearray(source.read_bytes())))
    return folder


def look(healthy: Path, folders: list[Path]) -> dict[str, tuple[str, str]]:
    """Run children over the copies; the name of a copy that ends one by a signal is in the error."""

    def run(part: list[Path]) -> dict[str, tuple[str, str]]:
        truth = str(healthy.parent / "truth.json")
        child = subprocess.run(
            [sys.executable, str(SCRIPT), truth, *map(str, part)], capture_output=True, text=True, timeout=300
        )
        lines = [line.split() for line in child.stdout.splitlines()]
        assert child.returncode == 0, f"{part[min(len(lines), len(part) - 1)].name}: {child.returncode} {child.stderr}"
        return {name: (answer, verified) for name, answer, verified in lines}

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [folders[0::2], folders[1::2]]))
    return {**results[0], **results[1]}


def live_bytes(healthy: Path) -> np.ndarray[Any, Any]:
    """Positions of bytes that matter: pages in use, without the gaps and padding in them."""
    data = np.frombuffer((next(healthy.glob("generation-*")) / "data.mdb").read_bytes(), np.uint8)
    live = np.zeros(len(data), np.bool_)
    newest = max((0, PAGE), key=lambda at: int(data[at + 144 : at + 152].view("<u8")[0]))
    live[newest + 16 : newest + 24] = True
    live[newest + 48 : newest + 152] = True
    page = 2
    while page * PAGE < len(data):
        at = page * PAGE
        flags, low = (int(v) for v in data[at + 10 : at + 14].view("<u2"))
        live[at : at + 8] = live[at + 10 : at + 16] = True
        if flags & 4:
            pages = int(data[at + 12 : at + 16].view("<u4")[0])
            page += pages
            continue
        live[at + 16 : at + low] = True
        for pointer in data[at + 16 : at + low].view("<u2"):
            begin = at + int(pointer)
            node = [int(v) for v in data[begin : begin + 8].view("<u2")]
            size = 0 if flags & 1 else 8 if node[2] & 1 else node[0] | node[1] << 16
            live[begin : begin + 8 + node[3] + size] = True
        page += 1
    return np.flatnonzero(live)


def mark_blobs(healthy: Path, live: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Add the used bytes of overflow pages, which hold blobs and long records."""
    data = np.frombuffer((next(healthy.glob("generation-*")) / "data.mdb").read_bytes(), np.uint8)
    more = []
    for page in range(2, len(data) // PAGE):
        at = page * PAGE
        flags, low, high = (int(v) for v in data[at + 10 : at + 16].view("<u2"))
        if flags != 2 or not 16 < low <= high <= PAGE:
            continue
        for pointer in data[at + 16 : at + low].view("<u2"):
            node = data[at + int(pointer) : at + int(pointer) + 8].view("<u2")
            if int(node[2]) & 1:
                begin = at + int(pointer) + 8 + int(node[3])
                first = int(data[begin : begin + 8].view("<u8")[0])
                size = int(node[0]) | int(node[1]) << 16
                more.append(np.arange(first * PAGE + 16, first * PAGE + 16 + size))
    return np.concatenate([live, *more])


def flips(healthy: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = live_bytes(healthy)
    everything = mark_blobs(healthy, structure)
    folders, where = [], {}
    for number in range(count):
        position = int(rng.choice(structure if number % 2 else everything))
        bit = int(rng.integers(8))

        def flip(data: bytearray, position: int = position, bit: int = bit) -> bytearray:
            data[position] ^= 1 << bit
            return data

        folder = copy_with(healthy, f"flip-{seed}-{number}", flip)
        folders.append(folder)
        where[folder.name] = (position, position // PAGE, position % PAGE, bit)
    found = look(healthy, folders)
    wrong = {where[name]: result for name, result in found.items() if result[0].startswith("wrong")}
    silent = {where[name]: result for name, result in found.items() if result[1] == "clean"}
    assert not wrong
    assert not silent


def truncations(healthy: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (next(healthy.glob("generation-*")) / "data.mdb").stat().st_size
    folders = [
        copy_with(healthy, f"cut-{seed}-{number}", lambda data, at=int(at): data[:at])
        for number, at in enumerate(rng.integers(0, size - 1, count))
    ]
    found = look(healthy, folders)
    assert {answer.partition(":")[0] for answer, _ in found.values()} == {"error"}
    assert {verified for _, verified in found.values()} == {"reported"}


def test_a_flipped_bit_is_reported_and_never_ends_the_process(healthy: Path) -> None:
    flips(healthy, 60, seed=1)


def test_a_file_that_is_cut_off_is_reported_and_never_ends_the_process(healthy: Path) -> None:
    truncations(healthy, 40, seed=1)


@pytest.mark.soak
def test_three_hundred_flips_and_cuts_are_reported(healthy: Path) -> None:
    flips(healthy, 300, seed=2)
    truncations(healthy, 300, seed=2)
