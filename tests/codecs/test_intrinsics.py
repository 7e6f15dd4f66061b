"""Vector operations give the bits of their NumPy twins, lowered to AVX2 and to generic code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("operations.py")


@pytest.mark.parametrize("settings", [{}, {"GINGHAM_SIMD": "portable"}, {"NUMBA_CPU_NAME": "generic"}], ids=str)
def test_operations_are_those_of_numpy(settings: dict[str, str]) -> None:
    import os

    environment = {**os.environ, **settings}
    done = subprocess.run([sys.executable, "-W", "error", str(CHECK)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    if settings:
        assert done.stdout == "portable\n"
