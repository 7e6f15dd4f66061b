"""LLVM vector values as numba types, with the jit settings of :mod:`gingham.codecs.jit`: what kernels import.

Vectors are generic LLVM vectors of 32 bytes: LLVM lowers them to AVX2, SSE or NEON, so one kernel runs everywhere.
Some operations have no generic form that LLVM turns into the one instruction meant: ``shuffle_bytes``,
``multiply_bytes``, ``multiply_words`` and loads of float16. They are lowered to AVX2 and F16C where ``SIMD`` says so,
and to generic code with the same bits elsewhere: an instruction that the CPU lacks would end the process. Kernels take
addresses instead of arrays where memory may be read-only: a read-only array is another numba type and would compile
every kernel twice.

Operations on vectors are never reassociated, so the order of every sum stands in the kernel's source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

from gingham.codecs.jit import SIMD as SIMD
from gingham.codecs.jit import WIDENS_HALVES
from gingham.codecs.jit import function as function
from gingham.codecs.jit import inline as inline
from gingham.codecs.jit import kernel as kernel

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 8

_I1 = ir.IntType(1)
_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_F32 = ir.VectorType(ir.FloatType(), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(_I8, 32)
_WORDS = ir.VectorType(ir.IntType(16), 16)
_INTS = ir.VectorType(_I32, LANES)


class _Vector(types.Type):
    def __init__(self, name: str, llvm: Any) -> None:
        self.llvm = llvm
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.llvm)  # type: ignore[no-untyped-call]


float32x8: Any = _Vector("float32x8", _F32)
bytes32: Any = _Vector("bytes32", _BYTES)
"""32 bytes, signed or not as the operation says."""
words16: Any = _Vector("words16", _WORDS)
"""16 integers of 16 bits."""
ints8: Any = _Vector("ints8", _INTS)
"""8 int32."""


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


@intrinsic
def load_f32(typing: Any, address: Any) -> Any:
    """Eight float32 from an address of any alignment."""
    return float32x8(types.uintp), lambda context, builder, sig, args: _loaded(builder, args[0], _F32)


def _widened(builder: Any, half: Any, wide: Any, result: Any) -> Any:
    """The bits of float16 as float32; generic code calls a function of the C library that may be missing.

    The exponent moves from a bias of 15 to one of 127 (IEEE 754, 3.4); a subnormal is its fraction times 2**-24.
    """
    if WIDENS_HALVES:
        short = ir.HalfType() if result == ir.FloatType() else ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(builder.bitcast(half, short), result)
    lanes = getattr(wide, "count", 0)

    def constant(kind: Any, value: float) -> Any:
        return ir.Constant(kind, [value] * lanes if lanes else value)

    bits = builder.zext(half, wide)
    exponent = builder.and_(bits, constant(wide, 0x7C00))
    sign = builder.shl(builder.and_(bits, constant(wide, 0x8000)), constant(wide, 16))
    moved = builder.shl(builder.and_(bits, constant(wide, 0x7FFF)), constant(wide, 13))
    special = builder.icmp_unsigned("==", exponent, constant(wide, 0x7C00))
    moved = builder.add(moved, builder.select(special, constant(wide, 224 << 23), constant(wide, 112 << 23)))
    fraction = builder.sitofp(builder.and_(bits, constant(wide, 0x3FF)), result)
    small = builder.bitcast(builder.fmul(fraction, constant(result, 2.0**-24)), wide)
    moved = builder.select(builder.icmp_unsigned("==", exponent, constant(wide, 0)), small, moved)
    return builder.bitcast(builder.or_(moved, sign), result)


@intrinsic
def load_f16(typing: Any, address: Any) -> Any:
    """Eight float16 from an address of any alignment, widened to float32."""
    return float32x8(types.uintp), lambda context, builder, sig, args: _widened(
        builder, _loaded(builder, args[0], _SHORTS), _INTS, _F32
    )


@intrinsic
def load_one_f16(typing: Any, address: Any) -> Any:
    """One float16 from an address, widened to float32."""
    return types.float32(types.uintp), lambda context, builder, sig, args: _widened(
        builder, _loaded(builder, args[0], ir.IntType(16)), _I32, ir.FloatType()
    )


@intrinsic
def load_one_f32(typing: Any, address: Any) -> Any:
    """One float32 from an address."""
    return types.float32(types.uintp), lambda context, builder, sig, args: _loaded(builder, args[0], ir.FloatType())


@intrinsic
def load_one_u8(typing: Any, address: Any) -> Any:
    """One byte from an address."""
    return types.uint8(types.uintp), lambda context, builder, sig, args: _loaded(builder, args[0], ir.IntType(8))


@intrinsic
def load_one_u32(typing: Any, address: Any) -> Any:
    """One uint32 from an address."""
    return types.uint32(types.uintp), lambda context, builder, sig, args: _loaded(builder, args[0], _I32)


@intrinsic
def zeros(typing: Any) -> Any:
    """Eight zeros."""
    return float32x8(), lambda context, builder, sig, args: ir.Constant(_F32, [0.0] * LANES)


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """One float32 in all lanes."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = builder.insert_element(ir.Constant(_F32, ir.Undefined), args[0], _I32(0))
        return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    return float32x8(types.float32), code


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """Lane by lane ``a + b``."""
    return float32x8(float32x8, float32x8), lambda context, builder, sig, args: builder.fadd(*args)


@intrinsic
def sub(typing: Any, a: Any, b: Any) -> Any:
    """Lane by lane ``a - b``."""
    return float32x8(float32x8, float32x8), lambda context, builder, sig, args: builder.fsub(*args)


@intrinsic
def mul(typing: Any, a: Any, b: Any) -> Any:
    """Lane by lane ``a * b``."""
    return float32x8(float32x8, float32x8), lambda context, builder, sig, args: builder.fmul(*args)


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Lane by lane ``a * b + c``, fused where the CPU can."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = f"llvm.fmuladd.v{LANES}f32"
        known = builder.module.globals.get(name)
        fused = known or ir.Function(builder.module, ir.FunctionType(_F32, [_F32] * 3), name=name)
        return builder.call(fused, args)

    return float32x8(float32x8, float32x8, float32x8), code


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum of the lanes: halves, then pairs, in one fixed order."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[0]
        for width in (4, 2, 1):
            low = ir.Constant(ir.VectorType(_I32, width), list(range(width)))
            high = ir.Constant(ir.VectorType(_I32, width), list(range(width, 2 * width)))
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, _I32(0))

    return types.float32(float32x8), code


@intrinsic
def greater_mask(typing: Any, a: Any, b: Any) -> Any:
    """Bit i is set where lane i of a is greater than that of b; false for NaN."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.fcmp_ordered(">", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), _I32)

    return types.uint32(float32x8, float32x8), code


@intrinsic
def count_bits(typing: Any, mask: Any) -> Any:
    """Number of set bits of a mask."""
    return types.intp(types.uint32), lambda context, builder, sig, args: builder.zext(
        builder.ctpop(args[0]), ir.IntType(64)
    )


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Position of the lowest set bit of a mask that is not zero."""
    return types.intp(types.uint32), lambda context, builder, sig, args: builder.zext(
        builder.cttz(args[0], ir.Constant(ir.IntType(1), 1)), ir.IntType(64)
    )


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, for the second-level cache.

    Notes
    -----
    The first level follows few lines at once: a walk over a graph that asks it for the rows of all neighbours takes
    1.25 to 1.3 times as long (Fashion-MNIST, LVQ4x8, Zen 5 beside other work).
    """

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        fetch = builder.module.globals.get(name) or ir.Function(builder.module, kind, name=name)
        builder.call(fetch, [builder.inttoptr(args[0], pointer), _I32(0), _I32(2), _I32(1)])
        return context.get_dummy_value()

    return types.none(types.uintp), code


def _constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _lanes(builder: Any, vector: Any, lanes: list[int], other: Any = None) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, vector if other is None else other, mask)


def _called(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, kind, name=name), args)


def _operation(result: Any, arguments: tuple[Any, ...], code: Callable[..., Any], doc: str) -> Any:
    """Make an intrinsic of fixed types from ``code(builder, *values)``; one that gives no value stores."""
    signature = result(*arguments)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = code(builder, *args)
        return context.get_dummy_value() if value is None else value

    def typed0(typing: Any) -> Any:
        return signature, lower

    def typed1(typing: Any, a: Any) -> Any:
        return signature, lower

    def typed2(typing: Any, a: Any, b: Any) -> Any:
        return signature, lower

    typed = (typed0, typed1, typed2)[len(arguments)]
    typed.__doc__ = doc
    return intrinsic(typed)


def _load(result: Any, llvm: Any, doc: str, widen: Callable[..., Any] = lambda builder, value: value) -> Any:
    return _operation(result, (types.uintp,), lambda b, address: widen(b, _loaded(b, address, llvm)), doc)


def _store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def _shift_right(kind: Any, amounts: list[int], mask: int) -> Callable[..., Any]:
    """Shift the lanes of ``kind`` right by their amounts and keep ``mask`` of each byte."""

    def code(builder: Any, value: Any) -> Any:
        shifted = builder.lshr(builder.bitcast(value, kind), ir.Constant(kind, amounts))
        return builder.and_(builder.bitcast(shifted, _BYTES), _constant(_BYTES, mask))

    return code


load_bytes = _load(bytes32, _BYTES, "32 bytes.")
load_words = _load(words16, _WORDS, "16 integers of 16 bits.")
load_bytes_as_words = _load(
    words16, ir.VectorType(_I8, 16), "16 bytes without sign, widened to words.", lambda b, v: b.zext(v, _WORDS)
)
load_16_bytes_twice = _load(
    bytes32, ir.VectorType(_I8, 16), "16 bytes, twice.", lambda b, v: _lanes(b, v, [*range(16), *range(16)])
)
load_8_bytes_four_times = _load(
    bytes32, ir.VectorType(_I8, 8), "8 bytes, four times.", lambda b, v: _lanes(b, v, [*range(8)] * 4)
)
load_bf16 = _load(
    float32x8,
    ir.VectorType(ir.IntType(16), LANES),
    "Eight bfloat16, widened to float32.",
    lambda b, v: b.bitcast(b.shl(b.zext(v, _INTS), _constant(_INTS, 16)), _F32),
)
load_one_bf16 = _load(
    types.float32,
    ir.IntType(16),
    "One bfloat16, widened to float32.",
    lambda b, v: b.bitcast(b.shl(b.zext(v, _I32), _I32(16)), ir.FloatType()),
)
load_one_u16 = _load(types.uint16, ir.IntType(16), "One uint16 from an address.")
load_one_i16 = _load(types.int16, ir.IntType(16), "One int16 from an address.")
load_one_u64 = _load(types.uint64, _I64, "One uint64 from an address.")

store_words = _operation(types.none, (types.uintp, words16), _store, "Store 16 words at an address of any alignment.")
store_f32 = _operation(types.none, (types.uintp, float32x8), _store, "Store 8 float32 at an address of any alignment.")
store_one_u8 = _operation(types.none, (types.uintp, types.uint8), _store, "Store one byte.")

low_nibbles = _operation(
    bytes32, (bytes32,), lambda b, v: b.and_(v, _constant(_BYTES, 15)), "The low four bits of each byte."
)
high_nibbles = _operation(bytes32, (bytes32,), _shift_right(_WORDS, [4] * 16, 15), "The high four bits of each byte.")
first_crumbs = _operation(
    bytes32, (bytes32,), _shift_right(_INTS, [0] * 4 + [2] * 4, 3),
    "Of 16 bytes twice: bits 0 and 1 of each byte, then bits 2 and 3.",
)  # fmt: skip
second_crumbs = _operation(
    bytes32, (bytes32,), _shift_right(_INTS, [4] * 4 + [6] * 4, 3),
    "Of 16 bytes twice: bits 4 and 5 of each byte, then bits 6 and 7.",
)  # fmt: skip
_LONGS = ir.VectorType(_I64, 4)
first_bits = _operation(
    bytes32, (bytes32,), _shift_right(_LONGS, [0, 1, 2, 3], 1), "Of 8 bytes four times: bit 0 of each, then 1, 2 and 3."
)
second_bits = _operation(
    bytes32, (bytes32,), _shift_right(_LONGS, [4, 5, 6, 7], 1), "Of 8 bytes four times: bit 4 of each, then 5, 6 and 7."
)
times_4 = _operation(
    bytes32, (bytes32,),
    lambda b, v: b.bitcast(b.shl(b.bitcast(v, _WORDS), _constant(_WORDS, 2)), _BYTES), "Bytes below 64, times 4.",
)  # fmt: skip
times_16 = _operation(
    bytes32, (bytes32,),
    lambda b, v: b.bitcast(b.shl(b.bitcast(v, _WORDS), _constant(_WORDS, 4)), _BYTES), "Bytes below 16, times 16.",
)  # fmt: skip
merge_bytes = _operation(bytes32, (bytes32, bytes32), lambda b, x, y: b.or_(x, y), "Bitwise or.")
xor_bytes = _operation(bytes32, (bytes32, bytes32), lambda b, x, y: b.xor(x, y), "Bitwise exclusive or.")


def _shuffle_bytes(builder: Any, table: Any, index: Any) -> Any:
    if SIMD == "avx2":
        return _called(builder, "llvm.x86.avx2.pshuf.b", _BYTES, table, index)
    result = ir.Constant(_BYTES, ir.Undefined)
    for lane in range(32):
        at = builder.and_(builder.extract_element(index, _I32(lane)), _I8(15))
        place = builder.add(builder.zext(at, _I32), _I32(lane & 16))
        result = builder.insert_element(result, builder.extract_element(table, place), _I32(lane))
    return result


shuffle_bytes = _operation(
    bytes32, (bytes32, bytes32), _shuffle_bytes,
    "``table[index]`` in each half of 16 bytes on its own; indexes are below 16.",
)  # fmt: skip


def _multiply_bytes(builder: Any, a: Any, b: Any) -> Any:
    if SIMD == "avx2":
        return _called(builder, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, a, b)
    wide = ir.VectorType(_I32, 32)
    products = builder.mul(builder.zext(a, wide), builder.sext(b, wide))
    even, odd = _lanes(builder, products, [*range(0, 32, 2)]), _lanes(builder, products, [*range(1, 32, 2)])
    return builder.trunc(builder.add(even, odd), _WORDS)


multiply_bytes = _operation(
    words16, (bytes32, bytes32), _multiply_bytes,
    "Bytes without sign times bytes with sign, neighbours added; the caller keeps sums within 16 bits.",
)  # fmt: skip


def _multiply_words(builder: Any, a: Any, b: Any) -> Any:
    if SIMD == "avx2":
        return _called(builder, "llvm.x86.avx2.pmadd.wd", _INTS, a, b)
    wide = ir.VectorType(_I32, 16)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = _lanes(builder, products, [*range(0, 16, 2)]), _lanes(builder, products, [*range(1, 16, 2)])
    return builder.add(even, odd)


multiply_words = _operation(
    ints8, (words16, words16), _multiply_words, "Words with sign multiplied, neighbours added to int32."
)
add_words = _operation(words16, (words16, words16), lambda b, x, y: b.add(x, y), "Lane by lane ``a + b``.")
sub_words = _operation(words16, (words16, words16), lambda b, x, y: b.sub(x, y), "Lane by lane ``a - b``.")
add_ints = _operation(ints8, (ints8, ints8), lambda b, x, y: b.add(x, y), "Lane by lane ``a + b``.")
zero_words = _operation(words16, (), lambda b: _constant(_WORDS, 0), "16 zeros.")
one_words = _operation(words16, (), lambda b: _constant(_WORDS, 1), "16 ones.")
zero_bytes = _operation(bytes32, (), lambda b: _constant(_BYTES, 0), "32 zeros.")
zero_ints = _operation(ints8, (), lambda b: _constant(_INTS, 0), "8 zeros.")
words_of_bytes = _operation(words16, (bytes32,), lambda b, v: b.bitcast(v, _WORDS), "The same bits as words.")
words_right_8 = _operation(
    words16, (words16,), lambda b, v: b.lshr(v, _constant(_WORDS, 8)), "Words without sign divided by 256."
)
words_left_8 = _operation(words16, (words16,), lambda b, v: b.shl(v, _constant(_WORDS, 8)), "Words times 256.")
splat_words = _operation(
    words16, (types.uint16,),
    lambda b, v: _lanes(b, b.insert_element(ir.Constant(_WORDS, ir.Undefined), v, _I32(0)), [0] * 16),
    "One word in all lanes.",
)  # fmt: skip


def _add_halves(builder: Any, a: Any, b: Any) -> Any:
    low = _lanes(builder, a, [*range(8), *range(16, 24)], b)
    return builder.add(low, _lanes(builder, a, [*range(8, 16), *range(24, 32)], b))


add_halves = _operation(words16, (words16, words16), _add_halves, "The two halves of a added, then those of b.")


def _greater_words(builder: Any, a: Any, b: Any) -> Any:
    bits = builder.bitcast(builder.icmp_unsigned(">", a, b), ir.IntType(16))
    return builder.zext(bits, _I32)


greater_words = _operation(
    types.uint32,
    (words16, words16),
    _greater_words,
    "Bit i is set where word i of a, unsigned, is above that of b.",
)
floats_of_low_words = _operation(
    float32x8, (words16,), lambda b, v: b.uitofp(b.zext(_lanes(b, v, [*range(8)]), _INTS), _F32),
    "The first eight words, without sign, as float32.",
)  # fmt: skip
floats_of_high_words = _operation(
    float32x8, (words16,), lambda b, v: b.uitofp(b.zext(_lanes(b, v, [*range(8, 16)]), _INTS), _F32),
    "The last eight words, without sign, as float32.",
)  # fmt: skip


def _sum_ints(builder: Any, value: Any) -> Any:
    for width in (4, 2, 1):
        low, high = [*range(width)], [*range(width, 2 * width)]
        value = builder.add(_lanes(builder, value, low), _lanes(builder, value, high))
    return builder.extract_element(value, _I32(0))


sum_ints = _operation(types.int32, (ints8,), _sum_ints, "Sum of the lanes.")
minimum = _operation(
    float32x8, (float32x8, float32x8), lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y),
    "Lane by lane the smaller; b where either is NaN.",
)  # fmt: skip
maximum = _operation(
    float32x8, (float32x8, float32x8), lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y),
    "Lane by lane the greater; b where either is NaN.",
)  # fmt: skip


def _store_as_bytes(builder: Any, address: Any, value: Any) -> None:
    _store(builder, address, builder.trunc(builder.fptosi(value, _INTS), ir.VectorType(_I8, LANES)))


store_as_bytes = _operation(
    types.none, (types.uintp, float32x8), _store_as_bytes, "Store eight float32 from 0 to below 256 as bytes, cut down."
)
count_ones = _operation(types.int64, (types.uint64,), lambda b, v: b.ctpop(v), "Number of set bits of 64.")


def _hadamard(builder: Any, value: Any) -> Any:
    for step in (1, 2, 4):
        swapped = _lanes(builder, value, [lane ^ step for lane in range(LANES)])
        signs = ir.Constant(_F32, [-1.0 if lane & step else 1.0 for lane in range(LANES)])
        value = builder.fadd(swapped, builder.fmul(value, signs))
    return value


hadamard = _operation(float32x8, (float32x8,), _hadamard, "Walsh-Hadamard transform of the lanes, not normalised.")
