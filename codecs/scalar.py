"""Codecs of one number a dimension: floats of 32 and 16 bits, and bytes between the extremes of each dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.codecs.packed import THIRD, PackedQueries, PackedRows
from gingham.codecs.protocol import Codes, join_rows
from gingham.codecs.row_scores import BF16, F16, F32, RowScores
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

MIDDLE = 127.5
"""Of the codes of a dimension."""
_KINDS = {"F32": 0, "F16": 1, "BF16": 2}


@dataclass(frozen=True)
class FloatQueries:
    """Queries float32 (n, dim) and what is added to the scores of each, float32 (n,)."""

    vectors: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Float:
    """Floats as they are, or rounded to 16 bits.

    Attributes
    ----------
    dim : dimensions
    metric : what scores are
    kind : ``"F32"``; ``"F16"``, IEEE half precision, 11 bits of mantissa, at most 65504; ``"BF16"``, 8 bits of
        mantissa and the range of float32

    Notes
    -----
    Array of codes: "vectors", float32, float16 or the bits of bfloat16 as uint16, (n, dim).
    """

    dim: int
    metric: Metric
    kind: Literal["F32", "F16", "BF16"] = "F32"

    @property
    def spec(self) -> str:
        """The kind."""
        return self.kind

    @property
    def trained(self) -> bool:
        """True: there is nothing to learn."""
        return True

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self.dim * (4 if self.kind == "F32" else 2)

    @property
    def levels(self) -> int:
        """1."""
        return 1

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Float:
        """Itself."""
        return self

    def encode(self, vectors: Array) -> Codes:
        """Round to nearest, ties to even.

        Raises
        ------
        InvalidArgument : a number beyond 65504 for F16
        """
        if self.kind == "F32":
            # A copy: the caller may go on to write to its vectors.
            return Codes(len(vectors), {"vectors": vectors.copy()})
        if self.kind == "F16":
            with np.errstate(over="ignore"):
                half = vectors.astype(np.float16)
            bad = np.flatnonzero(np.isinf(half).any(axis=1))
            if len(bad):
                raise InvalidArgument(
                    f"codec F16 expects numbers of at most 65504 in magnitude, found a greater one in row {bad[0]}; "
                    "use BF16 or F32, or scale the vectors"
                )
            return Codes(len(vectors), {"vectors": half})
        bits = vectors.view(np.uint32)
        return Codes(len(vectors), {"vectors": ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)})

    def decode(self, codes: Codes) -> Array:
        """The rounded vectors."""
        stored = codes.arrays["vectors"]
        if self.kind == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> FloatQueries:
        """Queries as they are."""
        added = np.zeros(len(queries), np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
        return FloatQueries(queries, added)

    def scan(
        self, prepared: FloatQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        from gingham.codecs import float_kernels

        float_kernels.scan_rows(
            codes.arrays["vectors"].ctypes.data, _KINDS[self.kind], start, stop, prepared.vectors.ctypes.data,
            self.dim, 2 if self.metric == "l2" else 0, 0, prepared.bias, allow, scores, rows,
        )  # fmt: skip

    def scan_spans(self, prepared: FloatQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows."""
        from gingham.codecs import float_kernels

        float_kernels.scan_row_spans(
            codes.arrays["vectors"].ctypes.data, _KINDS[self.kind], spans, prepared.vectors.ctypes.data,
            self.dim, 2 if self.metric == "l2" else 0, prepared.bias, allow, *found.lines,
        )  # fmt: skip

    def score(self, prepared: FloatQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        from gingham.codecs import float_kernels

        float_kernels.score_candidates(
            codes.arrays["vectors"].ctypes.data, _KINDS[self.kind], prepared.vectors.ctypes.data,
            self.dim, 2 if self.metric == "l2" else 0, 0, prepared.bias, rows, out,
        )  # fmt: skip

    def refine(self, prepared: FloatQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: FloatQueries, codes: Codes) -> RowScores:
        """Of the floats."""
        kind = (F32, F16, BF16)[_KINDS[self.kind]]
        metric = 2 if self.metric == "l2" else 0
        bias = prepared.bias[:, None]
        queries = prepared.vectors.view(np.int8)
        return RowScores(kind, codes.addresses["vectors"], self.code_size, metric, self.dim, 0, queries, bias)

    def bound(self, prepared: FloatQueries, codes: Codes, rows: Array) -> Array | None:
        """None."""
        return None

    def optimistic(self, prepared: FloatQueries) -> None:
        """None."""

    def arrays(self) -> dict[str, Array]:
        """Nothing."""
        return {}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Float:
        """Itself."""
        return self


@dataclass(frozen=True)
class SQ8Queries:
    """Queries for the high halves of the codes, what rounding left out of them, and queries for the low halves."""

    high: PackedQueries
    rest: PackedQueries
    low: PackedQueries


@dataclass(frozen=True, eq=False)
class SQ8:
    """One byte a dimension, between the extremes of that dimension in the training sample; beyond them it is clipped.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    lows, steps : float32 (dim,), learned: the least value of each dimension, and its step

    Notes
    -----
    Bytes are stored as two halves of four bits: a scan reads the high ones only, and candidates are refined with both,
    so that it costs half the memory traffic. Steps are folded into the query. Arrays of codes: "high" and "low"
    (n, bytes), with what l2 needs in front: the squared distance of what the high halves decode to, each taken in the
    middle of its 16 values, to the middles of all dimensions, and what is missing from it to the whole. Distances are
    taken from there, not from zero, which may be far away.
    """

    dim: int
    metric: Metric
    lows: Array | None = None
    steps: Array | None = None

    @property
    def spec(self) -> str:
        """``"SQ8"``."""
        return "SQ8"

    @property
    def trained(self) -> bool:
        """Whether the extremes are known."""
        return self.lows is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return 2 * self._layout.stride

    @property
    def levels(self) -> int:
        """2: the high halves, and both."""
        return 2

    @property
    def _layout(self) -> PackedRows:
        return PackedRows(self.dim, 4, 1)

    def _learned(self) -> tuple[Array, Array]:
        if self.lows is None or self.steps is None:
            raise InvalidArgument("SQ8 expects to be trained before it is used; call train() first")
        return self.lows, self.steps

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> SQ8:
        """Learn the extremes of each dimension."""
        lows, highs = sample.min(axis=0), sample.max(axis=0)
        steps = (highs.astype(np.float64) - lows) / 255
        return replace(self, lows=np.ascontiguousarray(lows), steps=steps.astype(np.float32))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows."""
        from gingham.codecs import scalar_kernels

        lows, steps = self._learned()
        n = len(vectors)
        with np.errstate(over="ignore"):
            factors = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
        factors[~np.isfinite(factors)] = 0
        high, low = (np.zeros((n, self._layout.width), np.uint8) for _ in range(2))
        squares = np.empty((2, n, 1), np.float32)
        scalar_kernels.encode_ranges(
            vectors.ctypes.data, n, self.dim, lows.ctypes.data, factors.ctypes.data, steps, high, low, squares
        )
        return Codes(n, {"high": self._layout.pack(squares[0], high), "low": self._layout.pack(squares[1], low)})

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for."""
        lows, steps = self._learned()
        high, low = (self._layout.unpack(codes.arrays[name])[1] for name in ("high", "low"))
        out: Array = lows + steps * (16 * high + low)
        return out

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> SQ8Queries:
        """Scale by the steps and round."""
        lows, steps = self._learned()
        constant = np.zeros(len(queries)) if bias is None else bias.astype(np.float64)
        middles = lows + MIDDLE * steps.astype(np.float64)
        if self.metric == "l2":
            queries = (queries - middles).astype(np.float32)
            constant = constant - np.square(queries, dtype=np.float64).sum(axis=1)
        else:
            constant = constant + (queries * middles).sum(axis=1)
        scaled = queries * steps
        high, rest = self._layout.prepare_twice(16 * scaled, self.metric, constant, middle=7.5)
        low = self._layout.prepare(scaled, self.metric, np.zeros(len(queries)), middle=7.5)
        if self.metric != "l2":
            high.parameters[:, THIRD] = low.parameters[:, THIRD] = 0
        return SQ8Queries(high, rest, low)

    def scan(
        self, prepared: SQ8Queries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps by their high halves."""
        self._layout.scan(prepared.high, codes.arrays["high"], start, stop, allow, scores, rows)

    def scan_spans(self, prepared: SQ8Queries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows by their high halves."""
        self._layout.scan_spans(prepared.high, codes.arrays["high"], spans, allow, found)

    def score(self, prepared: SQ8Queries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows by their high halves."""
        self._layout.score(prepared.high, codes.arrays["high"], rows, out)

    def refine(self, prepared: SQ8Queries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows by the whole bytes."""
        halves = codes.addresses["high"], codes.addresses["low"]
        self._layout.refine((prepared.high, prepared.rest, prepared.low), halves, self._layout, rows, out)

    def row_scores(self, prepared: SQ8Queries, codes: Codes) -> RowScores:
        """Of the high halves."""
        return self._layout.row_scores(prepared.high, codes.addresses["high"])

    def bound(self, prepared: SQ8Queries, codes: Codes, rows: Array) -> Array | None:
        """None."""
        return None

    def optimistic(self, prepared: SQ8Queries) -> None:
        """None."""

    def arrays(self) -> dict[str, Array]:
        """The extremes."""
        lows, steps = self._learned()
        return {"lows": lows, "steps": steps}

    def with_arrays(self, arrays: Mapping[str, Array]) -> SQ8:
        """A trained copy."""
        # Copied, since the kernel that encodes takes no read-only steps.
        return replace(self, lows=np.array(arrays["lows"], np.float32), steps=np.array(arrays["steps"], np.float32))
