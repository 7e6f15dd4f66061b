"""RaBitQ of one bit a dimension, scanned 32 rows at a time: four signs are one code of 4 bits.

Source: Gao and Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate
nearest neighbor search", SIGMOD 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.nibble_blocks import BlockQueries, Factors, NibbleBlocks, in_blocks
from gingham.codecs.protocol import Codes
from gingham.codecs.rotation import Rotate
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

EPSILON = 1.9
"""Default of the bound, as in the paper; for a query independent of the data 94 % of errors are within it."""
SIGNS = 4
"""Dimensions of one code."""
SINE_SQUARED = 1 - 2 / np.pi
"""Of the angle between a rotated vector and its signs: the cosine is E|x| / sqrt(E x^2) of a normal variable."""


@dataclass(frozen=True, eq=False)
class RaBitQBlocksQueries:
    """Queries as tables.

    Attributes
    ----------
    blocks : the tables
    near : float32 (n, dim), what the tables are made of, before it was rotated
    epsilon : the bound in standard deviations, twice for l2
    """

    blocks: BlockQueries
    near: Array
    epsilon: float

    @cached_property
    def bounds(self) -> Array:
        """What the error of a row is multiplied with to bound that of its score: float32 (n,).

        Notes
        -----
        Rounding an entry of a table errs by a twelfth of a squared step, in the mean of squares. What that adds to the
        error of a row is counted as a longer query: both grow with |r|, and the angle of r and y is about the same in
        all rows.
        """
        squares = np.square(self.near, dtype=np.float64).sum(axis=1)
        rounding = self.blocks.tables.shape[1] * np.square(self.blocks.parameters[:, 0], dtype=np.float64) / 12
        out: Array = (self.epsilon * np.sqrt(squares + rounding / SINE_SQUARED)).astype(np.float32)
        return out


@dataclass(frozen=True, eq=False)
class RaBitQBlocks:
    """RaBitQ of one bit.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    epsilon : the bound in standard deviations; 3.1 covers 99.7 % of errors
    mean : float32 (dim,), learned
    rotation : drawn from the seed of the training

    Notes
    -----
    With r = P (x - mean) and its signs y, <r, q> is estimated by |r|^2 <y, q> / <r, y>, which is unbiased over
    rotations P (RaBitQ, theorem 3.2). Arrays of codes: "blocks" uint8 (n_blocks, pairs, 32) of
    :mod:`gingham.codecs.fast_scan_kernels`, bit t of code m being the sign of dimension 4 m + t, and float32
    (n_blocks, 32) each: "add", for l2 -|r|^2, else <mean, x - mean>; "mul", |r|^2 / <r, y>, twice that for l2; "error",
    the standard deviation of the estimate for a query of length one.
    """

    dim: int
    metric: Metric
    epsilon: float = EPSILON
    mean: Array | None = None
    rotation: Rotate | None = None

    def __post_init__(self) -> None:
        _ = self._layout

    @property
    def spec(self) -> str:
        """``"RaBitQ1"``."""
        return "RaBitQ1"

    @property
    def trained(self) -> bool:
        """Whether the mean and the rotation are known."""
        return self.mean is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self._layout.pairs + 12

    @property
    def levels(self) -> int:
        """1."""
        return 1

    @cached_property
    def _layout(self) -> NibbleBlocks:
        return NibbleBlocks(Rotate(self.dim).out_dim // SIGNS)

    @property
    def _times(self) -> int:
        return 2 if self.metric == "l2" else 1

    def _learned(self) -> tuple[Array, Rotate]:
        if self.mean is None or self.rotation is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.mean, self.rotation

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> RaBitQBlocks:
        """Learn the mean and draw the rotation."""
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        return replace(self, mean=mean, rotation=Rotate(self.dim).train(sample[:1], seed=seed))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows.

        Notes
        -----
        For y of signs, |y|^2 = D and <r, y> = sum |r_j|. The error is |r| tan(r, y) / sqrt(D - 1) (RaBitQ, equation
        14). A row that is the mean itself has factors of zero: its score is exact.
        """
        mean, rotation = self._learned()
        centered = vectors - mean
        rotated = rotation.apply(centered)
        dim = rotation.out_dim
        squares = np.square(rotated, dtype=np.float64).sum(axis=1)
        lengths = np.abs(rotated).sum(axis=1, dtype=np.float64)
        some = lengths > 0
        scale = np.divide(squares, lengths, out=np.zeros_like(squares), where=some)
        tangent = np.divide(scale * dim, lengths, out=np.ones_like(squares), where=some) - 1
        error = np.sqrt(squares * np.maximum(tangent, 0) / (dim - 1))
        plus = -squares if self.metric == "l2" else (centered.astype(np.float64) * mean).sum(axis=1)
        arrays = {
            "blocks": self._layout.pack(_nibbles(rotated > 0)),
            "add": in_blocks(plus),
            "mul": in_blocks(self._times * scale),
            "error": in_blocks(error),
        }
        return Codes(len(vectors), arrays)

    def decode(self, codes: Codes) -> Array:
        """The vectors whose inner products are the estimates."""
        mean, rotation = self._learned()
        nibbles = self._layout.unpack(codes.arrays["blocks"], 0, codes.n)
        bits = np.unpackbits(nibbles[:, ::2] | nibbles[:, 1::2] << 4, axis=1, bitorder="little")
        scale = codes.arrays["mul"].reshape(-1)[: codes.n] / np.float32(self._times)
        signs = np.where(bits == 1, np.float32(1), np.float32(-1))
        return rotation.invert(signs * scale[:, None]) + mean

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts, packed again where a part does not fill its blocks."""
        arrays = {"blocks": self._layout.join([(part.n, part.arrays["blocks"]) for part in parts])}
        for name in ("add", "mul", "error"):
            arrays[name] = in_blocks(np.concatenate([part.arrays[name].reshape(-1)[: part.n] for part in parts]))
        return Codes(sum(part.n for part in parts), arrays)

    def prepare(self, queries: Array, bias: Array | None = None) -> RaBitQBlocksQueries:
        """Subtract the mean, rotate, and sum the signed numbers of every four dimensions."""
        from gingham.codecs import byte_table_kernels

        mean, rotation = self._learned()
        n, dim = queries.shape
        blocks, near = self._layout.queries(n), np.empty((n, dim), np.float32)
        byte_table_kernels.rotated_sign_tables(
            queries.ctypes.data, n, dim, mean.ctypes.data, 2 if self.metric == "l2" else 0, *rotation.steps, near,
            blocks.tables, blocks.parameters,
        )  # fmt: skip
        if bias is not None:
            blocks.parameters[:, 2] += bias
        return RaBitQBlocksQueries(blocks, near, self._times * self.epsilon)

    def scan(
        self, prepared: RaBitQBlocksQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        self._layout.scan(
            prepared.blocks, codes.arrays["blocks"], start, stop, allow, scores, rows, factors=_factors(codes)
        )

    def scan_spans(
        self, prepared: RaBitQBlocksQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs
    ) -> None:
        """Gather spans of rows."""
        self._layout.scan_spans(prepared.blocks, codes, spans, allow, found)

    def score(self, prepared: RaBitQBlocksQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self._layout.score(prepared.blocks, codes.arrays["blocks"], rows, out, factors=_factors(codes))

    def refine(self, prepared: RaBitQBlocksQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: RaBitQBlocksQueries, codes: Codes) -> None:
        """None: rows are not scored by themselves."""

    def bound(self, prepared: RaBitQBlocksQueries, codes: Codes, rows: Array) -> Array | None:
        """``epsilon`` standard deviations of the score of listed rows: those of the row times |q - mean|.

        Notes
        -----
        Exceeded by chance: see :data:`EPSILON`. Rows of -1 get the bound of the last row.
        """
        out: Array = codes.arrays["error"].reshape(-1)[: codes.n][rows] * prepared.bounds[:, None]
        return out

    def optimistic(self, prepared: RaBitQBlocksQueries) -> RaBitQBlocksQueries:
        """Queries under which rows score the most that the bound allows."""
        parameters = prepared.blocks.parameters.copy()
        parameters[:, 3] = prepared.bounds
        return replace(prepared, blocks=BlockQueries(prepared.blocks.tables, parameters))

    def arrays(self) -> dict[str, Array]:
        """The mean, and the rotation under "rotation.*"."""
        mean, rotation = self._learned()
        return {"mean": mean} | {f"rotation.{name}": value for name, value in rotation.arrays().items()}

    def with_arrays(self, arrays: Mapping[str, Array]) -> RaBitQBlocks:
        """A trained copy."""
        prefix = "rotation."
        inner = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        mean = np.ascontiguousarray(arrays["mean"], np.float32)
        return replace(self, mean=mean, rotation=Rotate(self.dim).with_arrays(inner))


def _nibbles(bits: Array) -> Array:
    """Four bools a code, the first lowest: bool (n, dim) to uint8 (n, dim / 4); dim is a multiple of 8."""
    whole = np.packbits(bits, axis=1, bitorder="little")
    return np.stack([whole & 15, whole >> 4], axis=2).reshape(len(bits), -1)


def _factors(codes: Codes) -> Factors:
    return Factors(codes.arrays["add"], codes.arrays["mul"], codes.arrays["error"])
