"""What each kernel of a device takes: registers, spills and instructions, compiled for sm_80 and sm_90 without a device.

Needs what ``pip install -e '.[gpu-check]'`` installs: numba-cuda, and NVVM, ptxas and the disassembler of one version,
since ptxas refuses what a newer NVVM made. Fails where a kernel keeps numbers in local memory, or takes more registers
or shared memory than the limits below.

Run: python bench/gpu_resources.py --json bench/results/gpu_resources.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import measure
from numba import cuda, types

from gingham.codecs import (
    cuda_graph_kernels,
    cuda_hamming_kernels,
    cuda_kernels,
    cuda_kmeans_kernels,
    cuda_maxsim_kernels,
    cuda_select_kernels,
    cuda_tables_kernels,
)
from gingham.codecs import cuda_searches as searches
from gingham.codecs.cuda_rows import CAPACITY, SORTERS, TOGETHER

PACKAGES = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm")
INSTRUCTIONS = {
    "products of integers": "IDP", "products of floats": "FFMA", "bits counted": "POPC", "local memory": r"LDL|STL",
}  # fmt: skip
MOST_SHARED = 48 << 10
"""Bytes of shared memory that a block gets without asking for more."""
REGISTERS, BLOCKS = 1 << 16, 2
"""Of a multiprocessor, and blocks that are to share it at least, so that some threads add while others wait."""


def kernels() -> dict[str, tuple[Any, tuple[Any, ...], int]]:
    """Kernels with the types they are called with, and threads of a block."""
    words, keys = types.Array(types.int32, 2, "C"), types.Array(types.uint64, 2, "C")
    bars, counts = types.Array(types.uint64, 1, "C"), types.Array(types.int32, 1, "C")
    parameters, allow = types.Array(types.float32, 2, "C"), types.Array(types.uint8, 1, "C")
    scan = (words, types.int64, types.int64, words, parameters, allow, bars, counts, keys)
    out = {"keep_best": (cuda_kernels.keep_best_kernel(CAPACITY, SORTERS), (bars, counts, keys, keys), SORTERS)}
    for queries in TOGETHER:
        out |= {
            f"8 bits, {queries} queries": (cuda_kernels.bytes_kernel(3, queries), scan, cuda_kernels.THREADS),
            f"4 bits, {queries} queries": (cuda_kernels.planes_kernel(3, 4, queries), scan, cuda_kernels.THREADS),
            f"7 bits, {queries} queries": (cuda_kernels.planes_kernel(3, 7, queries), scan, cuda_kernels.THREADS),
            f"float32 l2, {queries} queries": (cuda_kernels.floats_kernel(1, 2, queries), scan, cuda_kernels.THREADS),
            f"float16 dot, {queries} queries": (cuda_kernels.floats_kernel(2, 0, queries), scan, cuda_kernels.THREADS),
        }
    return out | search_kernels()


def search_kernels() -> dict[str, tuple[Any, tuple[Any, ...], int]]:
    """Kernels of :mod:`gingham.codecs.cuda_searches` likewise."""

    def array(kind: Any, ndim: int) -> Any:
        return types.Array(kind, ndim, "C")

    ints, floats, keys = array(types.int32, 2), array(types.float32, 2), array(types.uint64, 3)
    longs, bytes_, number = array(types.uint64, 2), array(types.uint8, 1), types.int64
    some_floats, some_ints = array(types.float32, 1), array(types.int32, 1)
    cube = array(types.float32, 3)
    tokens = array(types.int64, 1), array(types.int64, 2), array(types.int32, 3), cube, cube, floats
    walk = (ints, ints, ints, floats, ints, longs, ints)
    graphs = {"8 bits": (True, 3), "float32 l2": (False, 2)}
    merge = cuda_select_kernels.merge_kernel(2 * searches.SORTERS, searches.SORTERS)
    out = {"merge": (merge, (longs, longs), searches.SORTERS)}
    for queries in (1, searches.TILE):
        kernel = cuda_hamming_kernels.signs_kernel(queries, searches.KEYS // searches.TILE, searches.COMPARERS)
        taken: Any = (longs, number, longs, bytes_, number, keys)
        out[f"signs, {queries} queries"] = (kernel, taken, searches.COMPARERS)
    for name, entry, staged in (
        ("float32", types.float32, searches.STAGED), ("uint8", types.uint8, searches.STAGED_SMALL)
    ):  # fmt: skip
        shape = staged, searches.ROWS, searches.KEYS // 2, searches.THREADS
        kernel = cuda_tables_kernels.tables_kernel(name == "uint8", *shape)
        taken = (ints, number, number, array(entry, 3), floats, bytes_, number, keys)
        out[f"tables of {name}"] = (kernel, taken, searches.THREADS)
    for name, near in (("maxsim", False), ("maxsim near centroids", True)):
        kernel = cuda_maxsim_kernels.maxsim_kernel(*searches.TOKENS, searches.TOKEN_WORDS, near)
        taken = (ints, some_floats, some_ints if near else some_floats, *tokens)
        out[name] = (kernel, taken, math.prod(searches.TOKENS))
    kernel = cuda_kmeans_kernels.nearest_kernel(*searches.SPLIT, searches.DIMENSIONS)
    taken = (floats, floats, some_floats, some_ints, some_floats)
    out["nearest centroids"] = (kernel, taken, math.prod(searches.SPLIT))
    for name, (packed, factors) in graphs.items():
        for ef in (64, searches.MOST_EF):
            shape = searches.walk_shape(ef, 32, 768 // 2 if packed else 768)
            kernel = cuda_graph_kernels.graph_kernel(packed, factors, *shape)
            out[f"graph of {name}, ef {ef}"] = (kernel, walk, searches.WALKERS)
    return out


def resources(
    kernel: Any, signature: tuple[Any, ...], threads: int, capability: tuple[int, int], folder: Path
) -> dict[str, int]:
    """Of one kernel, as ptxas and cuobjdump tell."""
    tools = Path(str(importlib.metadata.distribution("nvidia-cuda-nvcc").locate_file("nvidia/cu13/bin")))
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
    (folder / "kernel.ptx").write_text(ptx)
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    compiled = [tools / "ptxas", arch, "-v", folder / "kernel.ptx", "-o", folder / "kernel.cubin"]
    told = subprocess.run(compiled, capture_output=True, text=True, check=True).stderr
    listed = [tools / "cuobjdump", "-sass", folder / "kernel.cubin"]
    found_by = os.environ | {"NVDISASM_PATH": str(tools / "nvdisasm")}
    code = subprocess.run(listed, capture_output=True, text=True, check=True, env=found_by).stdout
    found = {
        "registers": r"Used (\d+) registers", "shared bytes": r"(\d+) bytes smem", "stack bytes": r"(\d+) bytes stack",
        "spilled bytes": r"(\d+) bytes spill stores",
    }  # fmt: skip
    out = {name: int(match[1]) if (match := re.search(pattern, told)) else 0 for name, pattern in found.items()}
    out["threads"] = threads
    return out | {name: len(re.findall(rf"\b(?:{op})\b", code)) for name, op in INSTRUCTIONS.items()}


def broken(figures: dict[str, int]) -> list[str]:
    """The limits that a kernel does not keep."""
    limits = {
        "registers": REGISTERS // (BLOCKS * figures["threads"]), "shared bytes": MOST_SHARED, "stack bytes": 0,
        "spilled bytes": 0, "local memory": 0,
    }  # fmt: skip
    return [f"{figures[name]} {name} of {most}" for name, most in limits.items() if figures[name] > most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"bench": "gpu resources", "tools": {p: importlib.metadata.version(p) for p in PACKAGES}}
    with tempfile.TemporaryDirectory() as folder:
        for capability in ((8, 0), (9, 0)):
            found = {name: resources(*one, capability, Path(folder)) for name, one in kernels().items()}
            figures[f"sm_{capability[0]}{capability[1]}"] = found
    measure.report(figures, options.json)
    wrong = {f"{name} {arch}": broken(one) for arch in ("sm_80", "sm_90") for name, one in figures[arch].items()}
    if any(wrong.values()):
        raise SystemExit(f"kernels take more than they may: {[f'{name}: {why}' for name, why in wrong.items() if why]}")


if __name__ == "__main__":
    main()
