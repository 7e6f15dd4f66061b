"""What each kernel of a device takes: registers, spills and instructions, compiled for sm_80 and sm_90 without a device.

Needs numba-cuda[cu13], and nvidia-cuda-nvcc, nvidia-nvvm and nvidia-cuda-cuobjdump of one version: ptxas refuses what a
newer NVVM made.

Run: python bench/gpu_resources.py --json bench/results/gpu_resources.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import measure
from numba import cuda, types

from gingham.codecs import cuda_kernels
from gingham.codecs.cuda_rows import CAPACITY, SORTERS, TOGETHER

PACKAGES = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-cuobjdump")
INSTRUCTIONS = {"products of integers": "IDP", "products of floats": "FFMA", "local memory": r"LDL|STL"}


def kernels() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Kernels with the types they are called with."""
    words, keys = types.Array(types.int32, 2, "C"), types.Array(types.uint64, 2, "C")
    bars, counts = types.Array(types.uint64, 1, "C"), types.Array(types.int32, 1, "C")
    parameters, allow = types.Array(types.float32, 2, "C"), types.Array(types.uint8, 1, "C")
    scan = (words, types.int64, types.int64, words, parameters, allow, bars, counts, keys)
    out = {"keep_best": (cuda_kernels.keep_best_kernel(CAPACITY, SORTERS), (bars, counts, keys, keys))}
    for queries in TOGETHER:
        out |= {
            f"8 bits, {queries} queries": (cuda_kernels.bytes_kernel(3, queries), scan),
            f"4 bits, {queries} queries": (cuda_kernels.planes_kernel(3, 4, queries), scan),
            f"7 bits, {queries} queries": (cuda_kernels.planes_kernel(3, 7, queries), scan),
            f"float32 l2, {queries} queries": (cuda_kernels.floats_kernel(1, 2, queries), scan),
            f"float16 dot, {queries} queries": (cuda_kernels.floats_kernel(2, 0, queries), scan),
        }
    return out


def resources(kernel: Any, signature: tuple[Any, ...], capability: tuple[int, int], folder: Path) -> dict[str, int]:
    """Of one kernel, as ptxas and cuobjdump tell."""
    tools = Path(str(importlib.metadata.distribution("nvidia-cuda-nvcc").locate_file("nvidia/cu13/bin")))
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
    (folder / "kernel.ptx").write_text(ptx)
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    compiled = [tools / "ptxas", arch, "-v", folder / "kernel.ptx", "-o", folder / "kernel.cubin"]
    told = subprocess.run(compiled, capture_output=True, text=True, check=True).stderr
    listed = [tools / "cuobjdump", "-sass", folder / "kernel.cubin"]
    code = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    found = {
        "registers": r"Used (\d+) registers", "shared bytes": r"(\d+) bytes smem", "stack bytes": r"(\d+) bytes stack",
        "spilled bytes": r"(\d+) bytes spill stores",
    }  # fmt: skip
    out = {name: int(match[1]) if (match := re.search(pattern, told)) else 0 for name, pattern in found.items()}
    return out | {name: len(re.findall(rf"\b(?:{op})\b", code)) for name, op in INSTRUCTIONS.items()}


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
    spilled = [
        n for a in ("sm_80", "sm_90") for n, one in figures[a].items() if one["spilled bytes"] or one["local memory"]
    ]
    if spilled:
        raise SystemExit(f"kernels keep numbers in local memory: {spilled}")


if __name__ == "__main__":
    main()
