"""Vectors of four longs, and of 64 bytes for CPUs that have them: more of :mod:`gingham.codecs.intrinsics`.

Operations on 64 bytes are for kernels that choose their functions by ``WIDE`` when they are imported.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from gingham.codecs.intrinsics import (
    _I8,
    _I32,
    _LONGS,
    _called,
    _constant,
    _lanes,
    _load,
    _operation,
    _store,
    _Vector,
    words16,
)
from gingham.codecs.jit import WIDE as WIDE

longs4: Any = _Vector("longs4", _LONGS)
"""4 integers of 64 bits."""
load_longs = _load(longs4, _LONGS, "4 integers of 64 bits.")
store_longs = _operation(types.none, (types.uintp, longs4), _store, "Store 4 longs at an address of any alignment.")
zero_longs = _operation(longs4, (), lambda b: _constant(_LONGS, 0), "4 zeros.")
splat_longs = _operation(
    longs4, (types.int64,),
    lambda b, v: _lanes(b, b.insert_element(ir.Constant(_LONGS, ir.Undefined), v, _I32(0)), [0] * 4),
    "One long in all lanes.",
)  # fmt: skip
add_longs = _operation(longs4, (longs4, longs4), lambda b, x, y: b.add(x, y), "Lane by lane ``a + b``.")
mask_longs = _operation(longs4, (longs4, longs4), lambda b, x, y: b.and_(x, y), "Bitwise and.")
count_differences = _operation(
    longs4, (longs4, longs4), lambda b, x, y: _called(b, "llvm.ctpop.v4i64", _LONGS, b.xor(x, y)),
    "Number of bits that differ, lane by lane.",
)  # fmt: skip


def _pair_sums(builder: Any, a: Any, b: Any) -> Any:
    return builder.add(_lanes(builder, a, [0, 4, 2, 6], b), _lanes(builder, a, [1, 5, 3, 7], b))


add_neighbours = _operation(longs4, (longs4, longs4), _pair_sums, "``a0 + a1, b0 + b1, a2 + a3, b2 + b3``.")


def _half_sums(builder: Any, a: Any, b: Any) -> Any:
    return builder.add(_lanes(builder, a, [0, 1, 4, 5], b), _lanes(builder, a, [2, 3, 6, 7], b))


add_long_halves = _operation(longs4, (longs4, longs4), _half_sums, "The two halves of a added, then those of b.")


def _less_longs(builder: Any, a: Any, b: Any) -> Any:
    return builder.zext(builder.bitcast(builder.icmp_signed("<", a, b), ir.IntType(4)), _I32)


less_longs = _operation(
    types.uint32, (longs4, longs4), _less_longs, "Bit i is set where lane i of a is below that of b."
)

_WIDE_BYTES = ir.VectorType(_I8, 64)
_WIDE_WORDS = ir.VectorType(ir.IntType(16), 32)
bytes64: Any = _Vector("bytes64", _WIDE_BYTES)
"""64 bytes."""
words32: Any = _Vector("words32", _WIDE_WORDS)
"""32 integers of 16 bits."""
load_wide_bytes = _load(bytes64, _WIDE_BYTES, "64 bytes.")
zero_wide_words = _operation(words32, (), lambda b: _constant(_WIDE_WORDS, 0), "32 zeros.")
wide_low_nibbles = _operation(
    bytes64, (bytes64,), lambda b, v: b.and_(v, _constant(_WIDE_BYTES, 15)), "The low four bits of each byte."
)


def _wide_high_nibbles(builder: Any, value: Any) -> Any:
    shifted = builder.lshr(builder.bitcast(value, _WIDE_WORDS), _constant(_WIDE_WORDS, 4))
    return builder.and_(builder.bitcast(shifted, _WIDE_BYTES), _constant(_WIDE_BYTES, 15))


wide_high_nibbles = _operation(bytes64, (bytes64,), _wide_high_nibbles, "The high four bits of each byte.")
shuffle_wide_bytes = _operation(
    bytes64, (bytes64, bytes64), lambda b, x, y: _called(b, "llvm.x86.avx512.pshuf.b.512", _WIDE_BYTES, x, y),
    "``table[index]`` in each quarter of 16 bytes on its own; only where :data:`WIDE`.",
)  # fmt: skip
wide_words_of_bytes = _operation(words32, (bytes64,), lambda b, v: b.bitcast(v, _WIDE_WORDS), "The same bits as words.")
add_wide_words = _operation(words32, (words32, words32), lambda b, x, y: b.add(x, y), "Lane by lane ``a + b``.")
wide_words_right_8 = _operation(
    words32, (words32,), lambda b, v: b.lshr(v, _constant(_WIDE_WORDS, 8)), "Words without sign divided by 256."
)
sum_of_halves = _operation(
    words16, (words32,), lambda b, v: b.add(_lanes(b, v, [*range(16)]), _lanes(b, v, [*range(16, 32)])),
    "The two halves added.",
)  # fmt: skip
