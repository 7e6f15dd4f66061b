"""RaBitQ: rotated residuals on a grid, with unbiased scores and a bound of their error.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; Gao et al., "Practical and asymptotically optimal quantization of
high-dimensional vectors in Euclidean space", 2024, for more than one bit, in its fast mode of one constant scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.packed import SECOND, THIRD, PackedQueries, PackedRows, centered
from gingham.codecs.protocol import Codes, join_rows
from gingham.codecs.rotation import Rotate
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.codecs.row_scores import RowScores
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

EPSILON = 1.9
"""Default of the bound, as in the paper; for a query independent of the data 94 % of errors are within it."""


@dataclass(frozen=True)
class RaBitQQueries:
    """Rounded queries, and float32 (n,) what the error of a row is multiplied with to bound that of its score."""

    packed: PackedQueries
    bounds: Array


@dataclass(frozen=True, eq=False)
class RaBitQ:
    """RaBitQ of 1 to 8 bits in rows.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    bits : of a dimension
    epsilon : the bound in standard deviations; 3.1 covers 99.7 % of errors
    mean : float32 (dim,), learned
    rotation : drawn from the seed of the training

    Notes
    -----
    With r = P (x - mean) and its grid point y, <r, q> is estimated by |r|^2 <y, q> / <r, y>, which is unbiased over
    rotations P (RaBitQ, theorem 3.2). Array of codes: "rows" (n, bytes): |r|^2 / <r, y>; the standard deviation of the
    estimate for a query of length one; for l2 |r|^2, else <mean, x - mean>; and the codes.
    """

    dim: int
    metric: Metric
    bits: int = 4
    epsilon: float = EPSILON
    mean: Array | None = None
    rotation: Rotate | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InvalidArgument(f"RaBitQ expects 1 to 8 bits, found {self.bits}")

    @property
    def spec(self) -> str:
        """``"RaBitQ4"``."""
        return f"RaBitQ{self.bits}"

    @property
    def trained(self) -> bool:
        """Whether the mean and the rotation are known."""
        return self.mean is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self._layout.stride

    @property
    def levels(self) -> int:
        """1."""
        return 1

    @property
    def _layout(self) -> PackedRows:
        return PackedRows(Rotate(self.dim).out_dim, self.bits)

    @property
    def _middle(self) -> float:
        return float(2**self.bits - 1) / 2

    def _learned(self) -> tuple[Array, Rotate]:
        if self.mean is None or self.rotation is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.mean, self.rotation

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> RaBitQ:
        """Learn the mean and draw the rotation."""
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        return replace(self, mean=mean, rotation=Rotate(self.dim).train(sample[:1], seed=seed))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows."""
        from gingham.codecs import scalar_kernels

        mean, rotation = self._learned()
        centered = vectors - mean
        rotated = rotation.apply(centered)
        values, header = np.empty(rotated.shape, np.uint8), np.empty((len(vectors), 3), np.float32)
        scale = _grid(self.bits)[0] * np.sqrt(rotation.out_dim)
        scalar_kernels.encode_grid(rotated, scale, self.bits, values, header)
        if self.metric != "l2":
            header[:, 2] = (centered.astype(np.float64) * mean).sum(axis=1)
        return Codes(len(vectors), {"rows": self._layout.pack(header, values)})

    def decode(self, codes: Codes) -> Array:
        """The vectors whose inner products are the estimates."""
        mean, rotation = self._learned()
        header, values = self._layout.unpack(codes.arrays["rows"])
        grid = (values - np.float32(self._middle)) * header[:, :1]
        return rotation.invert(np.ascontiguousarray(grid)) + mean

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> RaBitQQueries:
        """Subtract the mean, rotate and round."""
        mean, rotation = self._learned()
        near, share, constant = centered(queries, mean, self.metric)
        squares = np.square(near, dtype=np.float64).sum(axis=1)
        rotated, _ = rotation.apply_queries(near)
        constant = constant if bias is None else constant + bias
        packed = self._layout.prepare(rotated, self.metric, constant, middle=self._middle)
        packed.parameters[:, SECOND] = 0
        packed.parameters[:, THIRD] *= share
        times = 2 if self.metric == "l2" else 1
        steps = packed.parameters[:, :1] / np.float32(times)
        rest = np.square(
            (rotated - steps * packed.integers.view(np.int16 if self.bits == 8 else np.int8)).astype(np.float64)
        ).sum(axis=1)
        cosine = _grid(self.bits)[1]
        lengths = np.sqrt(squares + rest / (1 - cosine**2))
        return RaBitQQueries(packed, (times * self.epsilon * lengths).astype(np.float32))

    def scan(
        self, prepared: RaBitQQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        self._layout.scan(prepared.packed, codes.arrays["rows"], start, stop, allow, scores, rows)

    def scan_spans(self, prepared: RaBitQQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows."""
        self._layout.scan_spans(prepared.packed, codes.arrays["rows"], spans, allow, found)

    def score(self, prepared: RaBitQQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self._layout.score(prepared.packed, codes.arrays["rows"], rows, out)

    def refine(self, prepared: RaBitQQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: RaBitQQueries, codes: Codes) -> RowScores:
        """Of the rows."""
        return self._layout.row_scores(prepared.packed, codes.addresses["rows"])

    def bound(self, prepared: RaBitQQueries, codes: Codes, rows: Array) -> Array | None:
        """``epsilon`` standard deviations of the score of listed rows.

        Notes
        -----
        |q| |r| tan(r, y) / sqrt(D - 1) (RaBitQ, equation 14). Rounding the query leaves out a vector e, whose product
        with |r|^2 y / <r, y> deviates by |e| |r| / (cos(r, y) sqrt(D)); the cosine of all rows is about the same, so
        that part is counted as a longer query.
        """
        errors = codes.arrays["rows"][:, 4:8][rows].copy().view(np.float32)[..., 0]
        out: Array = errors * prepared.bounds[:, None]
        return out

    def optimistic(self, prepared: RaBitQQueries) -> RaBitQQueries:
        """Queries under which rows score the most that the bound allows."""
        parameters = prepared.packed.parameters.copy()
        parameters[:, SECOND] = prepared.bounds
        return replace(prepared, packed=PackedQueries(prepared.packed.integers, parameters))

    def arrays(self) -> dict[str, Array]:
        """The mean, and the rotation under "rotation.*"."""
        mean, rotation = self._learned()
        return {"mean": mean} | {f"rotation.{name}": value for name, value in rotation.arrays().items()}

    def with_arrays(self, arrays: Mapping[str, Array]) -> RaBitQ:
        """A trained copy."""
        prefix = "rotation."
        inner = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        mean = np.ascontiguousarray(arrays["mean"], np.float32)
        return replace(self, mean=mean, rotation=Rotate(self.dim).with_arrays(inner))


@lru_cache
def _grid(bits: int) -> tuple[float, float]:
    """Grid steps per standard deviation that bring a normal variable and its grid point closest in angle; the cosine.

    Notes
    -----
    The constant of the fast mode: for a rotated vector of D dimensions the scale of |r_j| / |r| is sqrt(D) times this.
    The cosine <|x|, y> / sqrt(<x, x> <y, y>), y = min(floor(t |x|), 2^(bits-1) - 1) + 1/2, is taken over 4096 quantiles
    and is greatest at one of 512 values of t.
    """
    normal = NormalDist()
    sizes = np.array([normal.inv_cdf(0.5 + (i + 0.5) / 8192) for i in range(4096)])
    top = 2 ** (bits - 1) - 1
    scales = np.linspace(0.1, 1.0, 512) * (top + 1)
    points = np.minimum(np.floor(scales[:, None] * sizes), top) + 0.5
    cosines = points @ sizes / np.sqrt(np.square(points).sum(axis=1) * (sizes @ sizes))
    best = int(np.argmax(cosines))
    return float(scales[best]), float(cosines[best])
