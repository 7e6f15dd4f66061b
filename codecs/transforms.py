"""Transforms that stand in front of a codec: centring, projections on fewer dimensions, whitening.

All but :class:`Center` and :class:`MRL` are a data matrix A and a query matrix B: under dot and cosine
``q.x = q.mean + (Bq).(A(x - mean))``, exactly or as nearly as fewer dimensions allow. The vector that A(x - mean)
stands for is ``mean + B^T A(x - mean)``, so that the scores of codes are those of the vectors they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from gingham.codecs.projection import Projection, axes, moments
from gingham.errors import InvalidArgument
from gingham.parallel import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

FLOOR = 1e-6
"""Share of the greatest eigenvalue below which whitening takes an axis for noise."""
RIDGE = 1e-6
"""Share of the mean eigenvalue added to all before a matrix is inverted."""
LEARN_QUERIES = 2000
"""Queries from which on LeanVec learns from them."""


@dataclass(frozen=True, eq=False)
class Center:
    """Subtract the mean of the training sample.

    Attributes
    ----------
    dim : dimensions
    metric : under dot and cosine queries stay as they are and ``q.mean`` is added to their scores; under l2 the mean is
        subtracted from them too
    mean : float32 (dim,), learned
    """

    dim: int
    metric: Metric
    mean: Array | None = None

    @property
    def spec(self) -> str:
        """``"Center"``."""
        return "Center"

    @property
    def out_dim(self) -> int:
        """As many as are taken."""
        return self.dim

    @property
    def trained(self) -> bool:
        """Whether the mean is known."""
        return self.mean is not None

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Center:
        """Learn the mean."""
        return replace(self, mean=sample.mean(axis=0, dtype=np.float64).astype(np.float32))

    def apply(self, vectors: Array) -> Array:
        """Subtract the mean."""
        out: Array = vectors - _learned(self, self.mean)
        return out

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """Queries as the metric needs them, and what is added to their scores."""
        mean = _learned(self, self.mean)
        if self.metric == "l2":
            return queries - mean, np.zeros(len(queries), np.float32)
        return queries, _products(queries, mean)

    def invert(self, vectors: Array) -> Array:
        """Add the mean."""
        out: Array = vectors + _learned(self, self.mean)
        return out

    def arrays(self) -> dict[str, Array]:
        """The mean."""
        return {"mean": _learned(self, self.mean)}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Center:
        """A trained copy."""
        return replace(self, mean=arrays["mean"])


@dataclass(frozen=True, eq=False)
class MRL:
    """The first coordinates, for models trained so that they say most (Matryoshka representations).

    Attributes
    ----------
    dim, out_dim : dimensions taken and given
    metric : under cosine the prefix is made of length one again, and a prefix of zeros stays zero; under dot and l2 it
        is left as it is, and the other coordinates count as zeros

    Notes
    -----
    Kusupati et al., "Matryoshka representation learning", NeurIPS 2022. Other models need :class:`PCA`.
    """

    dim: int
    metric: Metric
    out_dim: int

    def __post_init__(self) -> None:
        _check_out_dim("MRL", self.out_dim, self.dim)

    @property
    def spec(self) -> str:
        """Such as ``"MRL256"``."""
        return f"MRL{self.out_dim}"

    @property
    def trained(self) -> bool:
        """True: there is nothing to learn."""
        return True

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> MRL:
        """Itself."""
        return self

    def apply(self, vectors: Array) -> Array:
        """Cut, and make of length one under cosine."""
        prefix = np.ascontiguousarray(vectors[:, : self.out_dim])
        if self.metric != "cosine":
            return prefix
        lengths = np.sqrt(_squares(prefix))[:, None]
        # In float64: the reciprocal of a tiny length is beyond float32.
        unit: Array = np.divide(prefix, lengths, out=np.zeros(prefix.shape), where=lengths > 0)
        return unit.astype(np.float32)

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """As vectors; under l2 the coordinates cut off count against the score."""
        if self.metric == "l2":
            return self.apply(queries), (-_squares(queries[:, self.out_dim :])).astype(np.float32)
        return self.apply(queries), np.zeros(len(queries), np.float32)

    def invert(self, vectors: Array) -> Array:
        """Zeros in place of what was cut off."""
        return np.pad(vectors, ((0, 0), (0, self.dim - self.out_dim)))

    def arrays(self) -> dict[str, Array]:
        """Nothing."""
        return {}

    def with_arrays(self, arrays: Mapping[str, Array]) -> MRL:
        """Itself."""
        return self


@dataclass(frozen=True, eq=False)
class _Linear:
    """A data matrix and a query matrix around a mean.

    Attributes
    ----------
    dim, out_dim : dimensions taken and given
    metric : what scores estimate
    mean : float32 (dim,), learned
    data : float32 (out_dim, dim), learned
    query : float32 (out_dim, dim), learned; None where it is that of the data, whose rows are orthonormal then
    """

    dim: int
    metric: Metric
    out_dim: int
    mean: Array | None = None
    data: Array | None = None
    query: Array | None = None

    name: ClassVar[str]

    def __post_init__(self) -> None:
        _check_out_dim(self.name, self.out_dim, self.dim)

    @property
    def spec(self) -> str:
        """The name and the dimensions given, such as ``"PCA128"``."""
        return f"{self.name}{self.out_dim}"

    @property
    def trained(self) -> bool:
        """Whether the matrices are known."""
        return self.data is not None

    @cached_property
    def _data(self) -> Projection:
        return Projection(_learned(self, self.data))

    @cached_property
    def _query(self) -> Projection:
        return self._data if self.query is None else Projection(self.query)

    @cached_property
    def _back(self) -> Projection:
        return Projection(np.ascontiguousarray(self._query.matrix.T))

    def apply(self, vectors: Array) -> Array:
        """Subtract the mean and multiply by the data matrix."""
        return self._data.apply(vectors, _learned(self, self.mean))

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """Multiply by the query matrix.

        Notes
        -----
        Added to scores is ``q.mean`` under dot and cosine; under l2, where the mean is subtracted first, minus the
        square of what the projection drops of the query.
        """
        mean = _learned(self, self.mean)
        if self.metric != "l2":
            return self._query.apply(queries), _products(queries, mean)
        out = self._query.apply(queries, mean)
        dropped = _squares(queries - mean) - _squares(out) if self.out_dim < self.dim else np.zeros(len(out))
        return out, -np.maximum(dropped, 0).astype(np.float32)

    def invert(self, vectors: Array) -> Array:
        """The mean and the transposed query matrix times the vectors."""
        out: Array = self._back.apply(vectors) + _learned(self, self.mean)
        return out

    def arrays(self) -> dict[str, Array]:
        """The mean and the matrices."""
        learned = {"mean": _learned(self, self.mean), "data": self._data.matrix}
        return learned if self.query is None else learned | {"query": self.query}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """A trained copy."""
        return replace(self, mean=arrays["mean"], data=arrays["data"], query=arrays.get("query"))

    def _with(self, mean: Array, data: Array, query: Array | None = None) -> Self:
        other = None if query is None else np.ascontiguousarray(query, np.float32)
        return replace(self, mean=mean.astype(np.float32), data=np.ascontiguousarray(data, np.float32), query=other)


@dataclass(frozen=True, eq=False)
class PCA(_Linear):
    """The axes of greatest variance around the mean of the training sample.

    Notes
    -----
    Of all projections it keeps the most of the squared length of ``x - mean``. A sample of fewer rows than dimensions
    leaves axes without variance, which are any orthonormal ones, the same for the same sample.
    """

    name: ClassVar[str] = "PCA"

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Self:
        """Learn the mean and the axes; O(n dim^2 + dim^3)."""
        mean, covariance = moments(sample, centered=True)
        return self._with(mean, axes(covariance)[1][: self.out_dim])


@dataclass(frozen=True, eq=False)
class Whiten(_Linear):
    """The axes of the training sample, each scaled to the same variance, and queries scaled the other way round.

    Notes
    -----
    Inner products stay as they are, distances do not: l2 is refused. The common variance is the mean of those of the
    axes, so that lengths keep their magnitude.

    Raises
    ------
    InvalidArgument : the metric is l2
    """

    name: ClassVar[str] = "Whiten"

    def __post_init__(self) -> None:
        if self.metric == "l2":
            raise InvalidArgument(
                "Whiten expects the metric 'dot' or 'cosine', found 'l2', which whitening would change; leave it out"
            )

    @property
    def spec(self) -> str:
        """``"Whiten"``."""
        return "Whiten"

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Self:
        """Learn the mean, the axes and their variances; O(n dim^2 + dim^3)."""
        mean, covariance = moments(sample, centered=True)
        values, rows = axes(covariance)
        if values[0] == 0:
            return self._with(mean, rows)
        scales = np.sqrt(np.maximum(values, FLOOR * values[0]) / values.mean())[:, None]
        return self._with(mean, rows / scales, rows * scales)


@dataclass(frozen=True, eq=False)
class LeanVec(_Linear):
    """The projections that keep inner products of queries with vectors best, where queries are unlike vectors.

    Notes
    -----
    From at least :data:`LEARN_QUERIES` queries, under dot and cosine, the best approximation of low rank of the
    bilinear form: with C_Q the second moment of queries, C_X the covariance of vectors and U S V^T the singular value
    decomposition of C_Q^(1/2) C_X^(1/2), A = S^(1/2) V^T C_X^(-1/2) and B = S^(1/2) U^T C_Q^(-1/2). From fewer, and
    under l2, where both have to be projected alike, it is :class:`PCA`.

    Source: Tepper et al., "LeanVec: searching vectors faster by making them fit", TMLR 2024, for the aim; the closed
    form drops their constraint that A and B have orthonormal rows.
    """

    name: ClassVar[str] = "LeanVec"

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Self:
        """Learn the mean and the matrices; O(n dim^2 + dim^3)."""
        mean, covariance = moments(sample, centered=True)
        values, rows = axes(covariance)
        plain = self._with(mean, rows[: self.out_dim])
        if queries is None or len(queries) < LEARN_QUERIES or self.metric == "l2" or values[0] == 0:
            return plain
        q_values, q_rows = axes(moments(queries, centered=False)[1])
        if q_values[0] == 0:
            return plain
        x_roots = np.sqrt(values + RIDGE * values.mean())[:, None]
        q_roots = np.sqrt(q_values + RIDGE * q_values.mean())[:, None]
        with one_blas_thread():
            left, kept, right = np.linalg.svd((q_roots * (q_rows @ rows.T)) * x_roots.T)
            d = self.out_dim
            roots = np.sqrt(kept[:d])[:, None]
            data = (roots * right[:d]) @ (rows / x_roots)
            query = (roots * left.T[:d]) @ (q_rows / q_roots)
        # Projected vectors keep the squared length of vectors, since the scale of A against B is free.
        scale = np.sqrt(values.sum() / kept[:d].sum())
        return self._with(mean, data * scale, query / scale)


def _learned(transform: Center | _Linear, array: Array | None) -> Array:
    if array is None:
        raise InvalidArgument(f"{transform.spec} expects to be trained before it is used; call train() first")
    return array


def _check_out_dim(name: str, out_dim: int, dim: int) -> None:
    if not 1 <= out_dim <= dim:
        raise InvalidArgument(f"{name} expects from 1 to {dim} dimensions, those of the vectors, found {out_dim}")


def _squares(rows: Array) -> Array:
    """Squared lengths, float64 (n,)."""
    out: Array = np.square(rows.astype(np.float64)).sum(axis=1)
    return out


def _products(rows: Array, vector: Array) -> Array:
    """Inner products of rows with a vector, float32 (n,)."""
    out: Array = (rows.astype(np.float64) * vector).sum(axis=1).astype(np.float32)
    return out
