"""Single instructions of NVIDIA devices, and what they do in Python for numba's simulator.

Sums of small integers are one instruction for four of them, and the products and sums of floats here are never fused:
so scores have the bits of those that the CPU computes. The simulator knows barriers and atomic sums only in the file of
a kernel; those here may stand in functions that the kernels of several files share.
"""

from __future__ import annotations

from threading import Lock, current_thread
from typing import Any

import numpy as np
from numba import cuda
from numba.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
"""Whether numba runs kernels of devices in Python."""


def _instruction(template: str, kinds: str) -> Any:
    """A function of one instruction; ``kinds`` are those of the result and the arguments, "i" int32, "f" float32."""
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    types: Any = cuda.types
    llvm = {"i": ir.IntType(32), "f": ir.FloatType()}
    numba = {"i": types.int32, "f": types.float32}
    register = {"i": "r", "f": "f"}
    result, given = kinds[0], list(kinds[1:])
    constraints = ",".join(["=" + register[result], *(register[kind] for kind in given)])

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.InlineAsm(ir.FunctionType(llvm[result], [llvm[kind] for kind in given]), template, constraints)
        return builder.call(line, arguments)

    def typed(*_: Any) -> Any:
        return numba[result](*(numba[kind] for kind in given)), build

    define: Any = intrinsic
    if len(given) == 1:
        return define(lambda typing, a: typed())
    if len(given) == 2:
        return define(lambda typing, a, b: typed())
    return define(lambda typing, a, b, c: typed())


def _halves(word: Any) -> Any:
    return np.array([word], np.int32).view(np.int16).astype(np.int64)


def _bytes(word: Any, kind: Any) -> Any:
    return np.array([word], np.int32).view(kind).astype(np.int64)


if SIMULATED:
    _adding = Lock()

    def barrier() -> None:
        """Wait for all threads of the block."""
        simulated: Any = current_thread()
        simulated.syncthreads()

    def barrier_any(value: Any) -> Any:
        """As :func:`barrier`; whether the value of any thread is not zero."""
        simulated: Any = current_thread()
        return int(simulated.syncthreads_or(value))

    def next_place(counts: Any, i: Any) -> Any:
        """Raise a count by one, and return what it was."""
        with _adding:
            place = int(counts[i])
            counts[i] += 1
        return place

    def add_pairs_low(query: Any, codes: Any, total: Any) -> Any:
        """Total plus the products of two int16 with the lower two uint8."""
        return int(total + (_halves(query) * _bytes(codes, np.uint8)[:2]).sum())

    def add_pairs_high(query: Any, codes: Any, total: Any) -> Any:
        """Total plus the products of two int16 with the upper two uint8."""
        return int(total + (_halves(query) * _bytes(codes, np.uint8)[2:]).sum())

    def add_quads(query: Any, codes: Any, total: Any) -> Any:
        """Total plus the products of four int8 with four uint8."""
        return int(total + (_bytes(query, np.int8) * _bytes(codes, np.uint8)).sum())

    def multiply(a: Any, b: Any) -> Any:
        """A product of float32, rounded."""
        return np.float32(a) * np.float32(b)

    def add(a: Any, b: Any) -> Any:
        """A sum of float32, rounded."""
        return np.float32(a) + np.float32(b)

    def bits_of(value: Any) -> Any:
        """The bits of a float32 as int32."""
        return np.array([value], np.float32).view(np.int32)[0]

    def float_of(bits: Any) -> Any:
        """The float32 of the bits of an int32."""
        return np.array([bits], np.int32).view(np.float32)[0]

    def low_half(word: Any) -> Any:
        """The float16 in the lower half of a word, as float32."""
        return np.array([word], np.int32).view(np.float16)[0].astype(np.float32)

    def high_half(word: Any) -> Any:
        """The float16 in the upper half of a word, as float32."""
        return np.array([word], np.int32).view(np.float16)[1].astype(np.float32)

else:
    _device: Any = cuda
    _function = _device.jit(device=True, inline=True)
    barrier = _function(lambda: _device.syncthreads())
    barrier_any = _function(lambda value: _device.syncthreads_or(value))
    next_place = _function(lambda counts, i: _device.atomic.add(counts, i, 1))
    add_pairs_low = _instruction("dp2a.lo.s32.u32 $0, $1, $2, $3;", "iiii")
    add_pairs_high = _instruction("dp2a.hi.s32.u32 $0, $1, $2, $3;", "iiii")
    add_quads = _instruction("dp4a.s32.u32 $0, $1, $2, $3;", "iiii")
    multiply = _instruction("mul.rn.f32 $0, $1, $2;", "fff")
    add = _instruction("add.rn.f32 $0, $1, $2;", "fff")
    bits_of = _instruction("mov.b32 $0, $1;", "if")
    float_of = _instruction("mov.b32 $0, $1;", "fi")
    _HALF = "{{ .reg .b16 low, high; mov.b32 {{low, high}}, $1; cvt.f32.f16 $0, {}; }}"
    low_half = _instruction(_HALF.format("low"), "fi")
    high_half = _instruction(_HALF.format("high"), "fi")
