"""The jit settings of every kernel, and LLVM vector values as numba types.

Vectors are generic LLVM vectors of eight lanes: LLVM lowers them to AVX2, SSE or NEON, so one kernel runs
everywhere and no instruction that the CPU lacks can be asked for. Kernels take addresses instead of arrays
where memory may be read-only: a read-only array is another numba type and would compile every kernel twice.

Operations on vectors are never reassociated, so the order of every sum stands in the kernel's source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import njit, types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 8

_I32 = ir.IntType(32)
_F32 = ir.VectorType(ir.FloatType(), LANES)
_F16 = ir.VectorType(ir.HalfType(), LANES)


def kernel(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel for one signature, or load it from the cache; it runs without the GIL."""
    return njit(signature, nogil=True, cache=True, error_model="numpy", boundscheck=False)


inline = njit(inline="always", nogil=True, error_model="numpy", boundscheck=False)
"""Decorator of a function that exists only inside the kernels of its file."""


class _Float32x8(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x8")


float32x8: Any = _Float32x8()


@register_model(_Float32x8)
class _Float32x8Model(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _F32)  # type: ignore[no-untyped-call]


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


@intrinsic
def load_f32(typing: Any, address: Any) -> Any:
    """Eight float32 from an address of any alignment."""
    return float32x8(types.uintp), lambda context, builder, sig, args: _loaded(builder, args[0], _F32)


@intrinsic
def load_f16(typing: Any, address: Any) -> Any:
    """Eight float16 from an address of any alignment, widened to float32."""
    return float32x8(types.uintp), lambda context, builder, sig, args: builder.fpext(
        _loaded(builder, args[0], _F16), _F32
    )


@intrinsic
def load_one_f16(typing: Any, address: Any) -> Any:
    """One float16 from an address, widened to float32."""
    return types.float32(types.uintp), lambda context, builder, sig, args: builder.fpext(
        _loaded(builder, args[0], ir.HalfType()), ir.FloatType()
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
    """Ask for the cache line at an address."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        fetch = builder.module.globals.get(name) or ir.Function(builder.module, kind, name=name)
        builder.call(fetch, [builder.inttoptr(args[0], pointer), _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.none(types.uintp), code
