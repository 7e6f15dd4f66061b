"""Devices: what their kernels find, checked in numba's simulator, and what is said where there is none."""

import os
import subprocess
import sys

import numpy as np
import pytest

import gingham as gg
from gingham.codecs import devices
from gingham.errors import InvalidArgument, MissingExtra, NoDevice, ResourceExhausted
from simulators import simulated


def child(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_of_devices_find_the_rows_and_the_bits_that_the_cpu_finds() -> None:
    done = simulated("codecs/cuda_simulated.py")
    assert done.returncode == 0, done.stderr


def test_an_index_for_any_device_imports_nothing_of_cuda_where_numba_cuda_is_missing() -> None:
    code = (
        "import sys, numpy as np, gingham as gg; from gingham.codecs import devices;"
        "devices.find_spec = lambda name: None;"
        "index = gg.index.Flat(8, device='auto'); index.add(np.eye(8)); index.search(np.eye(8));"
        "print([m for m in sys.modules if m.startswith(('numba.cuda.cudadrv', 'numba_cuda', 'cuda', 'cupy'))])"
    )
    assert child("-c", code) == "[]\n"


def test_a_device_without_its_package_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gingham\[gpu\]'$"):
        gg.index.Flat(8, device="cuda")


class NoDriver:
    """As ``numba.cuda`` where there is no driver."""

    @staticmethod
    def is_available() -> bool:
        return False


class Broken:
    """As ``numba.cuda`` with a driver that fails."""

    @staticmethod
    def is_available() -> bool:
        raise OSError("libcuda.so.1 is of another version")


@pytest.mark.parametrize(("driver", "message"), [(NoDriver, "found 0"), (Broken, "another version")])
def test_a_device_that_is_not_there_is_an_error_when_asked_for_and_logged_once_otherwise(
    driver: object, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: object())
    monkeypatch.setattr(devices, "_cuda", lambda: driver)
    for kept in (devices._opened, devices._first):
        kept.cache_clear()
    try:
        with pytest.raises(NoDevice, match=message):
            gg.index.Flat(8, device="cuda:1")
        for _ in range(2):
            index = gg.index.Flat(8, device="auto")
            index.add(np.eye(8))
            assert index.search(np.eye(8), 1)[1].ravel().tolist() == list(range(8))
        assert [message in record.message for record in caplog.records] == [True]
    finally:
        for kept in (devices._opened, devices._first):
            kept.cache_clear()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", "", None, 0])
def test_a_device_of_no_such_name_is_an_error(name: object) -> None:
    with pytest.raises(InvalidArgument, match="device="):
        gg.index.Flat(8, device=name)


def test_codes_in_blocks_are_refused_by_a_device_and_scanned_by_the_cpu_for_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gingham.index import flat

    monkeypatch.setattr(flat, "find_device", lambda name: object())
    with pytest.raises(InvalidArgument, match="LVQ"):
        gg.index.Flat(64, codec="RaBitQ1", device="cuda")
    index = gg.index.Flat(64, codec="RaBitQ1", device="auto")
    index.add(np.eye(64))
    assert index.search(np.eye(64)[3], 1)[1].tolist() == [[3]]


def test_a_device_without_room_is_an_error_when_asked_for_and_the_cpu_scans_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gingham.codecs import cuda_rows
    from gingham.index import flat

    def full(*_: object, **__: object) -> None:
        raise ResourceExhausted("device='cuda:0' expects 300 MiB free")

    monkeypatch.setattr(flat, "find_device", lambda name: object())
    monkeypatch.setattr(cuda_rows, "CudaRows", full)
    for name in ("cuda", "auto"):
        index = gg.index.Flat(100, codec="LVQ8", device=name)
        index.add(np.eye(100))
        if name == "cuda":
            with pytest.raises(ResourceExhausted):
                index.search(np.eye(100)[5])
        else:
            assert index.search(np.eye(100)[5], 1)[1].tolist() == [[5]]
    assert len(caplog.records) == 1
