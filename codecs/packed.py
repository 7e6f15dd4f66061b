"""Rows of packed integers: a header of factors and the codes of all dimensions, scored with integer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham.codecs.row_scores import PACKED, RowScores

if TYPE_CHECKING:
    from types import ModuleType

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.schema import Metric

Array = np.ndarray[Any, Any]

TILE_BYTES = 128 << 10
"""Rows that stay in the second-level cache while all queries pass over them."""
INT16_LIMIT, INT8_LIMIT = 32767, 127
SUM_LIMIT = 2.1e9
"""Sums of products stay below it, and so below 2^31."""
SECOND, THIRD = 2, 3
"""Columns of the parameters of a query: see :mod:`gingham.codecs.affine_row_kernels`."""


class PackedQueries(NamedTuple):
    """Queries rounded to integers.

    Attributes
    ----------
    integers : (n_queries, bytes) int8: the bytes of int16, or int8
    parameters : float32 (n_queries, 5), of :mod:`gingham.codecs.affine_row_kernels`
    """

    integers: Array
    parameters: Array


def centered(queries: Array, mean: Array, metric: Metric) -> tuple[Array, Array, Array]:
    """Queries less the mean of the rows, or less a share of it under dot and cosine.

    Returns
    -------
    tuple : queries float32 (n, dim) less ``share * mean``; the shares, float32 (n,); what scores have beside products
        with rows, float64 (n,)

    Notes
    -----
    ``q.x = q.mean + share <mean, x - mean> + (q - share mean).(x - mean)`` for any share. That between 0 and 1 which
    leaves the shortest query is taken, since errors grow with its length. A whole mean would drown queries much
    shorter than the rows.
    """
    from gingham.codecs import scalar_kernels

    n, dim = queries.shape
    out, shares, constants = np.empty((n, dim), np.float32), np.empty(n, np.float32), np.empty(n)
    scalar_kernels.center_queries(
        queries.ctypes.data, n, dim, mean.ctypes.data, 2 if metric == "l2" else 0, out, shares, constants
    )
    return out, shares, constants


@dataclass(frozen=True)
class PackedRows:
    """The layout of rows of :mod:`gingham.codecs.affine_row_kernels`.

    Attributes
    ----------
    dim : dimensions coded
    bits : of a code, 1 to 8
    factors : float32 factors in front
    """

    dim: int
    bits: int
    factors: int = 3

    @cached_property
    def width(self) -> int:
        """Dimensions with padding."""
        step = 16 if self.bits == 8 else 64
        return -(-self.dim // step) * step

    @cached_property
    def query_bytes(self) -> int:
        """Bytes of a rounded query."""
        return self.width * (2 if self.bits == 8 else 1)

    @cached_property
    def stride(self) -> int:
        """Bytes of a row."""
        return 4 * self.factors + self.width * self.bits // 8

    def pack(self, header: Array, values: Array) -> Array:
        """Rows from float32 (n, factors) and uint8 (n, width): uint8 (n, stride)."""
        codes = np.empty((len(values), self.stride), np.uint8)
        place = 4 * self.factors
        codes[:, :place] = np.ascontiguousarray(header, np.float32).view(np.uint8)
        if self.bits == 8:
            codes[:, place:] = values
        else:
            _kernels()[0].pack_planes(values, codes, place, self.bits)
        return codes

    def unpack(self, codes: Array) -> tuple[Array, Array]:
        """Headers float32 (n, factors) and values uint8 (n, dim) of rows."""
        place = 4 * self.factors
        header = np.ascontiguousarray(codes[:, :place]).view(np.float32)
        values = np.empty((len(codes), self.width), np.uint8)
        _kernels()[0].unpack_planes(codes.ctypes.data, self.stride, place, self.bits, values)
        return header, values[:, : self.dim]

    def prepare(
        self, queries: Array, metric: Metric, bias: Array, *, middle: float = 0.0, left: Array | None = None
    ) -> PackedQueries:
        """Round queries.

        Parameters
        ----------
        queries : float32 (n, dim or width), C-contiguous, as they meet the decoded vectors
        bias : float64 (n,), what the score of a row has beside its product with the query
        middle : subtracted from every code
        left : float32, shape of the queries, takes what rounding leaves out

        Notes
        -----
        Sums over a query use its integers too, so that rounding errs along decoded vectors and not along their
        offset.
        """
        n = len(queries)
        limit = INT16_LIMIT if self.bits == 8 else INT8_LIMIT
        integers = np.empty((n, self.query_bytes), np.int8)
        parameters = np.empty((n, 5), np.float32)
        parameters[:, THIRD], parameters[:, 4] = -1.0 if metric == "l2" else 1.0, bias
        _kernels()[1].round_queries(
            queries, queries.shape[1], limit, 2**self.bits - 1, SUM_LIMIT,
            2.0 if metric == "l2" else 1.0, middle, integers, parameters,
            np.empty((n, 0), np.float32) if left is None else left,
        )  # fmt: skip
        return PackedQueries(integers, parameters)

    def prepare_twice(
        self, queries: Array, metric: Metric, bias: Array, *, middle: float = 0.0
    ) -> tuple[PackedQueries, PackedQueries]:
        """Queries rounded, and what that left out of them, rounded itself: scores of both add up."""
        left = np.empty_like(queries)
        first = self.prepare(queries, metric, bias, middle=middle, left=left)
        second = self.prepare(left, metric, np.zeros(len(queries)), middle=middle)
        second.parameters[:, THIRD] = 0
        return first, second

    def scan(
        self, prepared: PackedQueries, codes: Array, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps: see :meth:`gingham.codecs.protocol.Codec.scan`."""
        tile = max(16, TILE_BYTES // self.stride)
        _kernels()[0].scan_packed(
            codes.ctypes.data, self.stride, self.factors, self.width, self.bits, start, stop, tile,
            prepared.integers, prepared.parameters, allow, scores, rows,
        )  # fmt: skip

    def scan_spans(self, prepared: PackedQueries, codes: Array, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows: see :meth:`gingham.codecs.protocol.SpanCodec.scan_spans`."""
        _kernels()[0].scan_packed_spans(
            codes.ctypes.data, self.stride, self.factors, self.width, self.bits, spans,
            prepared.integers, prepared.parameters, allow, *found.lines,
        )  # fmt: skip

    def score(self, prepared: PackedQueries, codes: Array, rows: Array, out: Array) -> None:
        """Score listed rows: see :meth:`gingham.codecs.protocol.Codec.score`."""
        _kernels()[0].score_packed(
            codes.ctypes.data, self.stride, self.factors, self.width, self.bits,
            prepared.integers, prepared.parameters, rows, out,
        )  # fmt: skip

    def row_scores(self, prepared: PackedQueries, address: int) -> RowScores:
        """See :meth:`gingham.codecs.protocol.Codec.row_scores`; rows begin at an address."""
        return RowScores(
            PACKED, address, self.stride, self.factors, self.width, self.bits, prepared.integers, prepared.parameters
        )

    def refine(
        self, prepared: tuple[PackedQueries, PackedQueries | None, PackedQueries], codes: tuple[int, int],
        fine: PackedRows, rows: Array, out: Array,
    ) -> None:  # fmt: skip
        """Score listed rows by both levels.

        Parameters
        ----------
        prepared : for the codes of this layout, what rounding left out of them if that counts, and for the fine ones
        codes : where the rows of this layout begin, and those of ``fine``
        """
        first, rest, last = prepared
        again = first if rest is None else rest
        _kernels()[0].refine_packed(
            codes[0], self.stride, self.factors, self.width, self.bits, first.integers,
            first.parameters, int(rest is not None), again.integers, again.parameters,
            codes[1], fine.stride, fine.width, fine.bits, last.integers, last.parameters,
            rows, out,
        )  # fmt: skip


@cache
def _kernels() -> tuple[ModuleType, ModuleType]:
    from gingham.codecs import affine_kernels, scalar_kernels

    return affine_kernels, scalar_kernels
