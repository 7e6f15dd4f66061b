"""Programs in which numba simulates a device, each in a process, all begun with the first that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("codecs/cuda_simulated.py", "devices_simulated.py", "codecs/cuda_searches_simulated.py")
"""The longest first."""


def simulated(name: str) -> subprocess.CompletedProcess[str]:
    """One of the programs, once it has ended."""
    return _begun()[name].result()


@cache
def _begun() -> dict[str, Future[subprocess.CompletedProcess[str]]]:
    pool = ThreadPoolExecutor(2)
    begun = {name: pool.submit(_run, name) for name in PROGRAMS}
    pool.shutdown(wait=False)
    return begun


def _run(name: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-W", "error", str(HERE / name), str(Path(folder, "made"))],
            capture_output=True, text=True, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        )  # fmt: skip
