"""The jit settings of every kernel: what the CPU can, how kernels are compiled, and where they are kept."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any, Literal

from llvmlite import binding
from numba import njit
from numba.core import config

from gingham.codecs.kernel_cache import KernelCache, cache_folder
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable


def _features() -> list[str]:
    """Features of the CPU that numba compiles for: those it was told of, or those of the host."""
    chosen = config.CPU_FEATURES  # type: ignore[attr-defined]
    return (binding.get_host_cpu_features().flatten() if chosen is None else chosen).split(",")  # type: ignore[no-any-return]


def _simd() -> Literal["avx2", "portable"]:
    """What the special operations are lowered to; read once, before anything is compiled.

    Raises
    ------
    InvalidArgument : the environment variable GINGHAM_SIMD is neither empty nor "portable"
    """
    asked = os.environ.get("GINGHAM_SIMD", "")
    if asked not in ("", "portable"):
        raise InvalidArgument(f"GINGHAM_SIMD expects 'portable' or nothing, found {asked!r}")
    return "avx2" if not asked and {"+avx2", "+f16c"}.issubset(_features()) else "portable"


SIMD = _simd()
WIDE = SIMD == "avx2" and "+avx512bw" in _features()
"""Whether operations on 64 bytes are one instruction each; where not, kernels use those on 32."""
WIDENS_HALVES = SIMD == "avx2" or platform.machine() in ("aarch64", "arm64")
"""Whether LLVM has an instruction that widens float16: with F16C, and on every 64-bit ARM."""


CACHE_FOLDER = cache_folder(SIMD)
"""Where compiled kernels are kept; None where they are not."""


def kernel(signature: str, *, allocates: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel for one signature, or load it from the cache; it runs without the GIL.

    Parameters
    ----------
    allocates : whether it makes arrays. For one that does not, numba counts no references: a pair of atomic additions
        for each array that an inlined function is given, a sixth of the time of a walk of a graph
    """

    def compiled(function: Callable[..., Any]) -> Any:
        settings: Any = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": allocates}
        dispatcher: Any = njit(**settings)(function)
        if not config.DISABLE_JIT:  # type: ignore[attr-defined]
            dispatcher._cache = KernelCache(function, CACHE_FOLDER)
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return compiled


inline = njit(inline="always", nogil=True, error_model="numpy", boundscheck=False)
"""Decorator of a function that exists only inside the kernels of its file."""

function = njit(nogil=True, error_model="numpy", boundscheck=False)
"""Decorator of a function that kernels of its file call, compiled once for all the places they call it from."""
