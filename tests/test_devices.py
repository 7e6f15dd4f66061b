"""The switch between the CPU and a device, where there is no device."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gingham as gg
from gingham.codecs import devices
from gingham.errors import InvalidArgument, MissingExtra, NoDevice
from gingham.index.device_copies import Bars, DeviceCopies
from simulators import simulated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE_BATCH = """
import json, sys
import numpy as np, gingham as gg
from typer.testing import CliRunner
from gingham.cli import app
from gingham.codecs import devices

asked = []
devices.find_spec = lambda name: asked.append(name)
folder = sys.argv[1]
rows = np.random.default_rng(0).standard_normal((2048, 64), np.float32)
with gg.open(folder + "/db") as db:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(64, index="Flat")})
    docs.upsert(ids=[str(i) for i in range(2048)], vectors={"v": rows})
    hits = docs.search(rows[:256], k=3)
    docs.recall(k=1, n=256)
    gg.evaluate({"a": ["0"]}, {"a": {"0": 1}})
with open(folder + "/queries", "w") as file:
    for i in range(256):
        print(json.dumps({"id": str(i), "vector": rows[i].tolist()}), file=file)
with open(folder + "/qrels", "w") as file:
    print("query\\tdocument\\tgrade\\n" + "\\n".join(f"{i}\\t{i}\\t1" for i in range(256)), file=file)
given = ["--db", folder + "/db", "--queries", folder + "/queries", "--qrels", folder + "/qrels", "--json"]
done = CliRunner().invoke(app, ["eval", *given])
assert json.loads(done.output)["MRR@10"] == 1, done.output
assert set(asked) == {"numba_cuda"}
heavy = ("numba.cuda.cudadrv", "numba.cuda.simulator", "numba_cuda", "cuda", "cupy", "torch")
print([hits[i].ids[0] for i in (0, 255)], [m for m in sys.modules if m.startswith(heavy)])
"""


def test_codes_graphs_and_tokens_on_a_simulated_device_are_found_as_by_the_cpu_and_explained() -> None:
    done = simulated("devices_simulated.py")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    devices._first.cache_clear()
    devices._opened.cache_clear()
    yield
    devices._first.cache_clear()


def test_large_batches_evaluations_and_commands_import_nothing_of_cuda_where_numba_cuda_is_missing(
    tmp_path: Path,
) -> None:
    code = [sys.executable, "-W", "error", "-c", LARGE_BATCH, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['0', '255'] []\n"


@pytest.mark.usefixtures("nothing_installed")
def test_a_database_asked_to_use_a_device_that_is_not_there_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"gingham\[gpu\]"):
        gg.open(tmp_path / "db", device="cuda:1")
    with gg.open(tmp_path / "db", device="cpu") as db:
        db.create_collection("docs", vectors={"v": gg.Dense(2)}).upsert(ids=["a"], vectors={"v": [[1, 0]]})
    with gg.open(tmp_path / "db", device="auto") as db:
        assert db["docs"].search([1.0, 0.0], k=1).ids == ["a"]


def test_handles_of_one_folder_use_one_device(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db", device="cpu"), pytest.raises(InvalidArgument, match="device='cpu', found 'auto'"):
        gg.open(tmp_path / "db")


@pytest.mark.parametrize(
    "options",
    [{"device": "gpu"}, {"device": "cuda:"}, {"device": None}, {"device_memory": 0}, {"device_memory": True}],
)
def test_a_device_or_budget_that_cannot_be_is_an_error(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=r"open\(device"):
        gg.open(tmp_path / "db", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "db").exists()


def test_the_device_of_a_server_is_not_chosen_by_its_clients() -> None:
    with pytest.raises(InvalidArgument, match="the server's"):
        gg.open("grpc://127.0.0.1:1", device="cpu")


class Device(devices.Device):
    """One that nothing runs on."""

    def __init__(self) -> None:
        super().__init__(0, "none", (9, 0), 1)


def test_a_failure_is_logged_once_and_leaves_the_rest_to_the_cpu_unless_the_device_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []

    def fail(device: devices.Device) -> None:
        calls.append(device)
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    auto = DeviceCopies("auto", device=Device())
    assert [auto.attempt(fail) for _ in range(3)] == [None] * 3
    assert (len(calls), len(caplog.records)) == (1, 1)
    with pytest.raises(NoDevice, match="ILLEGAL_ADDRESS"):
        DeviceCopies("cuda", device=Device()).attempt(fail)


def test_small_batches_stay_on_the_cpu_and_so_does_all_where_it_was_asked_for() -> None:
    large = DeviceCopies("cuda", device=Device(), bars=Bars(16, 1 << 20))
    assert large.takes(16, 1 << 16)
    assert not large.takes(15, 1 << 30)
    assert not large.takes(1 << 10, 1 << 9)
    asked = DeviceCopies("cpu", device=Device())
    assert not asked.takes(1 << 20, 1 << 30)
    assert asked.attempt(lambda device: np.zeros(1)) is None
