"""Candidates of a graph search as integers that order by score, for kernels of several files.

A key is uint64: the bits of the negative score, which order as it does; 31 bits of the node; and one that is set once
the neighbours of the node were looked at. Ascending keys are descending scores, and equal scores order by node.
"""

from typing import Any

from llvmlite import ir
from numba import int64, types, uint64

from gingham.codecs.intrinsics import _I32, _I64, _operation, inline, prefetch


def _ascending_bits(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _I32)
    flip = builder.or_(builder.ashr(bits, _I32(31)), _I32(-(1 << 31)))
    return builder.zext(builder.xor(bits, flip), _I64)


def _from_ascending_bits(builder: Any, value: Any) -> Any:
    bits = builder.trunc(value, _I32)
    flip = builder.or_(builder.ashr(builder.not_(bits), _I32(31)), _I32(-(1 << 31)))
    return builder.bitcast(builder.xor(bits, flip), ir.FloatType())


ascending_bits = _operation(
    types.uint64, (types.float32,), _ascending_bits, "32 bits that order as the float32 do, -0 before 0."
)
from_ascending_bits = _operation(
    types.float32, (types.uint64,), _from_ascending_bits, "The float32 of :func:`ascending_bits`."
)


@inline
def key_of(score, node):
    """The key of a node."""
    return (ascending_bits(-score) << uint64(32)) | (uint64(node) << uint64(1))


@inline
def node_of(key):
    """The node of a key."""
    return int64((key >> uint64(1)) & uint64(0x7FFFFFFF))


@inline
def score_of(key):
    """The score of a key."""
    return -from_ascending_bits(key >> uint64(32))


@inline
def fetch(address, size):
    """Ask for some bytes."""
    for line in range(0, size, 64):
        prefetch(address + uint64(line))
