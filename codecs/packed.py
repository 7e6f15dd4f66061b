"""Rows of packed integers: a header of factors and the codes of all dimensions, scored with integer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.row_scores import PACKED, RowScores

if TYPE_CHECKING:
    from gingham.schema import Metric

Array = np.ndarray[Any, Any]

TILE_BYTES = 128 << 10
"""Rows that stay in the second-level cache while all queries pass over them."""
INT16_LIMIT, INT8_LIMIT = 32767, 127
SUM_LIMIT = 2.1e9
"""Sums of products stay below it, and so below 2^31."""
SECOND, THIRD = 2, 3
"""Columns of the parameters of a query: see :mod:`gingham.codecs.affine_row_kernels`."""


NOTHING_LEFT: Array = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class PackedQueries:
    """Queries rounded to integers.

    Attributes
    ----------
    integers : int16 or int8 (n_queries, width)
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

    @property
    def width(self) -> int:
        """Dimensions with padding."""
        step = 16 if self.bits == 8 else 64
        return -(-self.dim // step) * step

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return 4 * self.factors + self.width * self.bits // 8

    def pack(self, header: Array, values: Array) -> Array:
        """Rows from float32 (n, factors) and uint8 (n, width): uint8 (n, stride)."""
        from gingham.codecs import affine_kernels

        codes = np.empty((len(values), self.stride), np.uint8)
        place = 4 * self.factors
        codes[:, :place] = np.ascontiguousarray(header, np.float32).view(np.uint8)
        if self.bits == 8:
            codes[:, place:] = values
        else:
            affine_kernels.pack_planes(values, codes, place, self.bits)
        return codes

    def unpack(self, codes: Array) -> tuple[Array, Array]:
        """Headers float32 (n, factors) and values uint8 (n, dim) of rows."""
        from gingham.codecs import affine_kernels

        place = 4 * self.factors
        header = np.ascontiguousarray(codes[:, :place]).view(np.float32)
        values = np.empty((len(codes), self.width), np.uint8)
        affine_kernels.unpack_planes(codes.ctypes.data, self.stride, place, self.bits, values)
        return header, values[:, : self.dim]

    def prepare(
        self, queries: Array, metric: Metric, bias: Array, *, middle: float = 0.0, left: Array = NOTHING_LEFT
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
        from gingham.codecs import scalar_kernels

        n = len(queries)
        limit = INT16_LIMIT if self.bits == 8 else INT8_LIMIT
        integers = np.empty((n, self.width), np.int16 if self.bits == 8 else np.int8)
        parameters = np.empty((n, 5), np.float32)
        parameters[:, THIRD], parameters[:, 4] = -1.0 if metric == "l2" else 1.0, bias
        scalar_kernels.round_queries(
            queries.ctypes.data, n, queries.shape[1], self.width, limit, 2**self.bits - 1, SUM_LIMIT,
            2.0 if metric == "l2" else 1.0, middle, integers.ctypes.data, parameters, left,
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
        from gingham.codecs import affine_kernels

        tile = max(16, TILE_BYTES // self.stride)
        affine_kernels.scan_packed(
            codes.ctypes.data, self.stride, self.factors, self.width, self.bits, start, stop, tile,
            prepared.integers.ctypes.data, prepared.parameters, allow, scores, rows,
        )  # fmt: skip

    def score(self, prepared: PackedQueries, codes: Array, rows: Array, out: Array) -> None:
        """Score listed rows: see :meth:`gingham.codecs.protocol.Codec.score`."""
        from gingham.codecs import affine_kernels

        affine_kernels.score_packed(
            codes.ctypes.data, self.stride, self.factors, self.width, self.bits,
            prepared.integers.ctypes.data, prepared.parameters, rows, out,
        )  # fmt: skip

    def row_scores(self, prepared: PackedQueries, codes: Array) -> RowScores:
        """See :meth:`gingham.codecs.protocol.Codec.row_scores`."""
        return RowScores(PACKED, codes, self.factors, self.width, self.bits, prepared.integers, prepared.parameters)

    def refine(
        self, prepared: tuple[PackedQueries, PackedQueries | None, PackedQueries], codes: tuple[Array, Array],
        fine: PackedRows, rows: Array, out: Array,
    ) -> None:  # fmt: skip
        """Score listed rows by both levels.

        Parameters
        ----------
        prepared : for the codes of this layout, what rounding left out of them if that counts, and for the fine ones
        codes : of this layout, and of ``fine``
        """
        from gingham.codecs import affine_kernels

        first, rest, last = prepared
        again = first if rest is None else rest
        affine_kernels.refine_packed(
            codes[0].ctypes.data, self.stride, self.factors, self.width, self.bits, first.integers.ctypes.data,
            first.parameters, int(rest is not None), again.integers.ctypes.data, again.parameters,
            codes[1].ctypes.data, fine.stride, fine.width, fine.bits, last.integers.ctypes.data, last.parameters,
            rows, out,
        )  # fmt: skip
