"""Dot products of four bytes added to int32, and codes unpacked in the order of dimensions: what MaxSim needs more.

Sums of integers are exact, so what the products are lowered to changes no bit: one VNNI instruction where the CPU has
it, two of AVX2, or generic code. Operations on 64 bytes are for kernels that choose their functions by ``WIDE_DOTS``.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gingham.codecs.intrinsics import (
    _BYTES,
    _F32,
    _I8,
    _I32,
    _INTS,
    _WORDS,
    SIMD,
    _called,
    _constant,
    _lanes,
    _load,
    _operation,
    _store,
    _Vector,
    bytes32,
    float32x8,
    ints8,
)
from gingham.codecs.jit import WIDE, _features
from gingham.codecs.wide_intrinsics import bytes64

WIDE_DOTS = WIDE and "+avx512vnni" in _features()
"""Whether a dot product of 64 bytes is one instruction."""
DOTS = SIMD == "avx2" and ("+avxvnni" in _features() or {"+avx512vnni", "+avx512vl"}.issubset(_features()))
"""Whether a dot product of 32 bytes is one instruction."""
_DOT = "llvm.x86.avx512.vpdpbusd"
_WIDE_INTS = ir.VectorType(_I32, 16)
ints16: Any = _Vector("ints16", _WIDE_INTS)
"""16 int32."""


def _repeated(llvm: Any, count: int) -> Any:
    return lambda b, v: b.bitcast(
        _lanes(b, b.insert_element(ir.Constant(ir.VectorType(_I32, count), ir.Undefined), v, _I32(0)), [0] * count),
        llvm,
    )


load_4_bytes_eight_times = _load(bytes32, _I32, "4 bytes, eight times.", _repeated(_BYTES, 8))
load_4_bytes_sixteen_times = _load(bytes64, _I32, "4 bytes, sixteen times.", _repeated(ir.VectorType(_I8, 64), 16))
store_bytes = _operation(types.none, (types.uintp, bytes32), _store, "Store 32 bytes at an address of any alignment.")


def _nibbles_in_order(builder: Any, value: Any) -> Any:
    wide = builder.zext(value, _WORDS)
    both = builder.or_(wide, builder.shl(wide, _constant(_WORDS, 4)))
    return builder.and_(builder.bitcast(both, _BYTES), _constant(_BYTES, 15))


def _crumbs_in_order(builder: Any, value: Any) -> Any:
    wide = builder.zext(value, _INTS)
    two = builder.or_(wide, builder.shl(wide, _constant(_INTS, 12)))
    four = builder.or_(two, builder.shl(two, _constant(_INTS, 6)))
    return builder.and_(builder.bitcast(four, _BYTES), _constant(_BYTES, 3))


load_nibbles = _load(
    bytes32, ir.VectorType(_I8, 16), "The 32 codes of 4 bits in 16 bytes, low bits first.", _nibbles_in_order
)
load_crumbs = _load(
    bytes32, ir.VectorType(_I8, 8), "The 32 codes of 2 bits in 8 bytes, low bits first.", _crumbs_in_order
)
floats_of_ints = _operation(float32x8, (ints8,), lambda b, v: b.sitofp(v, _F32), "The lanes as float32.")


@intrinsic
def add_dots(typing: Any, sums: Any, a: Any, b: Any) -> Any:
    """Add the products of four neighbours, bytes without sign times bytes with sign; only where :data:`DOTS`."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (builder.bitcast(value, _INTS) for value in args[1:])
        return _called(builder, f"{_DOT}.256", _INTS, args[0], x, y)

    return ints8(ints8, bytes32, bytes32), code


@intrinsic
def add_wide_dots(typing: Any, sums: Any, a: Any, b: Any) -> Any:
    """Do what :func:`add_dots` does to 64 bytes; only where :data:`WIDE_DOTS`."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (builder.bitcast(value, _WIDE_INTS) for value in args[1:])
        return _called(builder, f"{_DOT}.512", _WIDE_INTS, args[0], x, y)

    return ints16(ints16, bytes64, bytes64), code


zero_wide_ints = _operation(ints16, (), lambda b: _constant(_WIDE_INTS, 0), "16 zeros.")
add_wide_ints = _operation(ints16, (ints16, ints16), lambda b, x, y: b.add(x, y), "Lane by lane ``a + b``.")
first_ints = _operation(ints8, (ints16,), lambda b, v: _lanes(b, v, [*range(8)]), "The first eight lanes.")
last_ints = _operation(ints8, (ints16,), lambda b, v: _lanes(b, v, [*range(8, 16)]), "The last eight lanes.")
