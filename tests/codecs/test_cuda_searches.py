"""Searches of arrays on a device: what their kernels find in numba's simulator, what they refuse, what they take."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gingham.codecs import cuda_searches
from gingham.codecs.row_scores import F16, PACKED, RowScores
from gingham.errors import InvalidArgument
from simulators import simulated

HERE = Path(__file__).parent
BENCH = HERE.parents[1] / "bench"
CHECKED_WITH = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm")


def child(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ | environment)


def missing() -> list[str]:
    def found(name: str) -> bool:
        try:
            return bool(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            return False

    return [name for name in CHECKED_WITH if not found(name)]


def test_searches_on_a_device_find_what_numpy_and_the_cpu_find() -> None:
    done = simulated("codecs/cuda_searches_simulated.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(bool(missing()), reason=f"pip install 'gingham[gpu-check]' for {', '.join(missing())}")
def test_kernels_of_devices_keep_everything_in_registers_and_within_limits() -> None:
    done = child(str(BENCH / "gpu_resources.py"))
    assert done.returncode == 0, done.stderr
    assert '"sm_80"' in done.stdout
    assert '"sm_90"' in done.stdout


def test_a_kernel_that_takes_too_much_is_named_with_what_it_takes() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(BENCH)!r}); import gpu_resources as g;"
        "taken = {'registers': 128, 'shared bytes': 49152, 'stack bytes': 0, 'spilled bytes': 0, 'local memory': 0,"
        " 'threads': 256};"
        "print(g.broken(taken), *(g.broken(taken | {name: taken[name] + 1}) for name in taken))"
    )
    done = child("-c", code, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "[] ['129 registers of 128'] ['49153 shared bytes of 49152'] ['1 stack bytes of 0'] ['1 spilled bytes of 0'] "
        "['1 local memory of 0'] ['128 registers of 127']"
    )


class Columns:
    """As an array on the device."""

    shape, dtype = (2, 4096), np.dtype(np.uint64)


SIGNS, TABLES = np.zeros((1, 2), np.uint64), np.zeros((1, 8, 256), np.float32)
ENTRIES, SCALES, TOKENS = np.zeros((1, 1), np.int32), np.zeros((1, 2), np.float32), np.zeros((3, 4), np.uint8)


def coded(kind: int, bits: int, words: int = 4) -> RowScores:
    return RowScores(kind, 0, 4, 3, 16, bits, np.zeros((1, 4 * words), np.int8), np.zeros((1, 5), np.float32))


def maxsim(documents: np.ndarray) -> np.ndarray:
    integers, parameters = np.zeros((2, 5, 4), np.int8), np.zeros((2, 3, 5), np.float32)
    return cuda_searches.maxsim_scores(TOKENS, None, None, np.array([0, 3]), documents, integers, parameters)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cuda_searches.sign_columns(SIGNS.astype(np.int64)), "codes expects uint64"),
        (lambda: cuda_searches.nearest_signs(Columns, SIGNS[0], 1), "queries expects uint64"),
        (lambda: cuda_searches.nearest_signs(Columns, SIGNS, 0), "k expects 1 to 2048"),
        (lambda: cuda_searches.nearest_signs(Columns, SIGNS, 2049), "k expects 1 to 2048"),
        (lambda: cuda_searches.code_columns(SIGNS), "rows expects uint8"),
        (lambda: cuda_searches.best_by_tables(Columns, 9, TABLES[:, :3], SCALES, 1), "tables expects those of 8 codes"),
        (lambda: cuda_searches.best_by_tables(Columns, 4097, TABLES, SCALES, 1), "4096 rows, found 8, 4097"),
        (lambda: cuda_searches.best_by_tables(Columns, 9, TABLES, SCALES, 1025), "k expects 1 to 1024"),
        (lambda: cuda_searches.best_by_tables(Columns, 9, TABLES[:, :, :9], SCALES, 1), "the last of 256"),
        (lambda: maxsim(np.zeros((3, 1), np.int64)), "documents expects 1 or 2 lines of numbers below 1"),
        (lambda: maxsim(np.ones((1, 1), np.int64)), "documents expects 1 or 2 lines of numbers below 1"),
        (lambda: cuda_searches.nearest_centroids(SCALES, np.zeros((2, 3), np.float32)), "the last of 2"),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS[:, :3], coded(PACKED, 8), ENTRIES, 1), "a multiple of 4"),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS, coded(PACKED, 8), ENTRIES, 1), "rows expects 1 that fit"),
        (
            lambda: cuda_searches.graph_best(ENTRIES, TOKENS[:1], coded(PACKED, 8), ENTRIES, 1),
            "of 16 bytes, found 1 of 4",
        ),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS, coded(F16, 16), ENTRIES, 1), "8 bits or float32"),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS, coded(PACKED, 4), ENTRIES, 1), "8 bits or float32"),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS, coded(PACKED, 8), ENTRIES, 1025), "ef expects 1 to 1024"),
        (lambda: cuda_searches.graph_best(ENTRIES, TOKENS, coded(PACKED, 8, 2049), ENTRIES, 1), "found 1 and 8196"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_copied(call: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        call()  # type: ignore[operator]
