"""Locally-adaptive vector quantization: every vector is rounded between its own extremes.

Source: Aguerrebere et al., "Similarity search in the blink of an eye with compressed indices", VLDB 2023, sections 3
and 4. The mean of the training sample is subtracted first, from queries too: a share of it under dot and cosine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham.codecs.packed import SUM_LIMIT, PackedQueries, PackedRows
from gingham.codecs.protocol import Codes, join_rows
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.codecs.row_scores import RowScores
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]


_NO_INTEGERS = np.empty((0, 0), np.int8)


class LVQQueries(NamedTuple):
    """Queries for both levels: the rounded one, what rounding left out, and the one for the second level."""

    coarse: PackedQueries
    rest: PackedQueries | None
    fine: PackedQueries | None


@dataclass(frozen=True, eq=False)
class LVQ:
    """LVQ of one level, or of two, of which the first finds and the second decides.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    bits : of a dimension in the first level, 4 or 8
    fine_bits : in the second level, 0 for none, 4 or 8
    mean : float32 (dim,), learned

    Notes
    -----
    The greatest error of a coordinate is half a step, step = (greatest - least) / (2^bits - 1), and with a second
    level half of step / (2^fine_bits - 1).

    Arrays of codes: "coarse" and "fine" (n, bytes). A row has three factors and the codes: step, offset and, for dot
    and cosine, <mean, x - mean> exactly, for l2 the squared length of the decoded vector.
    """

    dim: int
    metric: Metric
    bits: int = 8
    fine_bits: int = 0
    mean: Array | None = None

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.fine_bits not in (0, 4, 8):
            raise InvalidArgument(f"LVQ expects 4 or 8 bits in each level, found {self.bits} and {self.fine_bits}")

    @property
    def spec(self) -> str:
        """``"LVQ8"`` or ``"LVQ4x8"``."""
        return f"LVQ{self.bits}" + (f"x{self.fine_bits}" if self.fine_bits else "")

    @property
    def trained(self) -> bool:
        """Whether the mean is known."""
        return self.mean is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self._coarse.stride + (self._fine.stride if self.fine_bits else 0)

    @property
    def levels(self) -> int:
        """2 with a second level."""
        return 2 if self.fine_bits else 1

    @cached_property
    def _coarse(self) -> PackedRows:
        return PackedRows(self.dim, self.bits)

    @cached_property
    def _fine(self) -> PackedRows:
        return PackedRows(self.dim, self.fine_bits)

    @property
    def _mean(self) -> Array:
        if self.mean is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.mean

    @cached_property
    def _mean_address(self) -> int:
        return int(self._mean.ctypes.data)

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> LVQ:
        """Learn the mean."""
        return replace(self, mean=sample.mean(axis=0, dtype=np.float64).astype(np.float32))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows."""
        mean, n = self._mean, len(vectors)
        coarse, fine = self._coarse, self._fine if self.fine_bits else self._coarse
        values, header = np.zeros((n, coarse.width), np.uint8), np.empty((n, 3), np.float32)
        fine_n = n if self.fine_bits else 0
        fine_values, fine_header = np.zeros((fine_n, fine.width), np.uint8), np.empty((fine_n, 3), np.float32)
        _kernels().encode_levels(
            vectors.ctypes.data, n, self.dim, mean.ctypes.data, 2**self.bits - 1, 2**self.fine_bits - 1,
            2 if self.metric == "l2" else 0, np.empty(self.dim + 16, np.float32),
            values, header, fine_values, fine_header,
        )  # fmt: skip
        arrays = {"coarse": coarse.pack(header, values)}
        if self.fine_bits:
            arrays["fine"] = fine.pack(fine_header, fine_values)
        return Codes(n, arrays)

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for, from both levels where there are two."""
        header, values = self._coarse.unpack(codes.arrays["coarse"])
        out: Array = self._mean + header[:, 1:2] + header[:, :1] * values
        if self.fine_bits:
            header, values = self._fine.unpack(codes.arrays["fine"])
            out += header[:, 1:2] + header[:, :1] * values
        return out

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> LVQQueries:
        """Subtract the mean and round."""
        n, twice, levels = len(queries), self.fine_bits > 0 and self.bits == 4, 1
        integers = np.empty((n, self._coarse.query_bytes), np.int8)
        rest = fine = _NO_INTEGERS
        if twice:
            rest, levels = np.empty(integers.shape, np.int8), 2
        if self.fine_bits:
            fine, levels = np.empty((n, self._fine.query_bytes), np.int8), levels + 1
        parameters = np.empty((levels, n, 5), np.float32)
        _kernels().prepare_levels(
            queries.ctypes.data, n, self.dim, self._mean_address, 2 if self.metric == "l2" else 0, SUM_LIMIT, self.bits,
            self.fine_bits, integers, rest, fine, parameters,
        )  # fmt: skip
        if bias is not None:
            parameters[0, :, 4] += bias
        rounded = PackedQueries(integers, parameters[0])
        if not self.fine_bits:
            return LVQQueries(rounded, None, None)
        left = PackedQueries(rest, parameters[1]) if twice else None
        return LVQQueries(rounded, left, PackedQueries(fine, parameters[-1]))

    def scan(
        self, prepared: LVQQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps by their first level."""
        self._coarse.scan(prepared.coarse, codes.arrays["coarse"], start, stop, allow, scores, rows)

    def scan_spans(self, prepared: LVQQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows by their first level."""
        self._coarse.scan_spans(prepared.coarse, codes.arrays["coarse"], spans, allow, found)

    def score(self, prepared: LVQQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows by their first level."""
        self._coarse.score(prepared.coarse, codes.arrays["coarse"], rows, out)

    def refine(self, prepared: LVQQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows by all levels."""
        if prepared.fine is None:
            self.score(prepared, codes, rows, out)
            return
        levels = codes.addresses["coarse"], codes.addresses["fine"]
        self._coarse.refine((prepared.coarse, prepared.rest, prepared.fine), levels, self._fine, rows, out)

    def row_scores(self, prepared: LVQQueries, codes: Codes) -> RowScores:
        """Of the first level."""
        return self._coarse.row_scores(prepared.coarse, codes.addresses["coarse"])

    def bound(self, prepared: LVQQueries, codes: Codes, rows: Array) -> Array | None:
        """None: LVQ bounds the error of a coordinate, not that of a score."""
        return None

    def optimistic(self, prepared: LVQQueries) -> None:
        """None."""

    def arrays(self) -> dict[str, Array]:
        """The mean."""
        return {"mean": self._mean}

    def with_arrays(self, arrays: Mapping[str, Array]) -> LVQ:
        """A trained copy."""
        return replace(self, mean=np.ascontiguousarray(arrays["mean"], np.float32))


@cache
def _kernels() -> ModuleType:
    from gingham.codecs import scalar_kernels

    return scalar_kernels
