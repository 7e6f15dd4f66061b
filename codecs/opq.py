"""Optimized product quantization: the rotation after which product quantization errs least.

Source: Ge, He, Ke and Sun, "Optimized product quantization", CVPR 2013: section 4.1.2 for the start, principal
directions dealt to sub-spaces so that their variances have equal products, and section 3.1 for the iterations, of which
each solves an orthogonal Procrustes problem between vectors and what their codes decode to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.kmeans import train_subspaces
from gingham.codecs.product import decode_with, encode_with
from gingham.codecs.projection import Projection, axes, moments
from gingham.errors import InvalidArgument
from gingham.parallel import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

ITERATIONS = 12
"""Procrustes steps; the start gives most of the gain, and more steps change the error by less than 1 %."""
STEPS, FIRST_STEPS = 2, 10
"""Steps of k-means in an iteration, from the codebooks of the one before, and in the first."""
HELD_OUT = 8
"""One row in so many is held out, to tell which rotation is best."""
SAMPLE_ROWS = 32_768
"""Rows that training takes, drawn from a larger sample."""
FLOOR = 1e-6
"""Variances count as at least this share of the greatest, so that none makes a product zero."""


@dataclass(frozen=True, eq=False)
class OPQ:
    """The rotation in front of a product quantizer.

    Attributes
    ----------
    dim : dimensions taken
    n_subspaces : sub-spaces of the quantizer that follows
    n_centroids : in each of them
    matrix : float32 (out_dim, dim) with orthonormal columns, learned

    Notes
    -----
    Lengths and inner products stay as they are. Where ``n_subspaces`` does not divide ``dim``, vectors gain the
    dimensions that are missing.
    """

    dim: int
    n_subspaces: int
    n_centroids: int = 256
    matrix: Array | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n_subspaces <= self.dim:
            raise InvalidArgument(f"OPQ expects 1 to {self.dim} sub-spaces, found {self.n_subspaces}")

    @property
    def spec(self) -> str:
        """``"OPQ"``."""
        return "OPQ"

    @property
    def out_dim(self) -> int:
        """Dimensions given: the next multiple of ``n_subspaces``."""
        return -(-self.dim // self.n_subspaces) * self.n_subspaces

    @property
    def trained(self) -> bool:
        """Whether the rotation is known."""
        return self.matrix is not None

    @property
    def _matrix(self) -> Array:
        if self.matrix is None:
            raise InvalidArgument("OPQ expects to be trained before it is used; call train() first")
        return self.matrix

    @cached_property
    def _forward(self) -> Projection:
        return Projection(self._matrix)

    @cached_property
    def _backward(self) -> Projection:
        return Projection(np.ascontiguousarray(self._matrix.T))

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> OPQ:
        """Learn the rotation."""
        if len(sample) > SAMPLE_ROWS:
            chosen = np.random.default_rng(seed).choice(len(sample), SAMPLE_ROWS, replace=False)
            sample = sample[np.sort(chosen)]
        rows = np.zeros((len(sample), self.out_dim), np.float64)
        rows[:, : self.dim] = sample
        rows -= rows.mean(axis=0)
        top = np.abs(rows).max(initial=0)
        rows = (rows / top if top > 0 else rows).astype(np.float32)
        rotation = principal_start(rows, self.n_subspaces)
        if len(rows) > self.n_centroids:
            with one_blas_thread():
                rotation = self._improved(rows, rotation, seed)
        return replace(self, matrix=np.ascontiguousarray(rotation[:, : self.dim], np.float32))

    def _improved(self, rows: Array, rotation: Array, seed: int) -> Array:
        """The best rotation of all iterations, or none, by the error of rows held out; float64 (out_dim, out_dim)."""
        held = np.arange(len(rows)) % HELD_OUT == 0
        learned, rest = rows[~held], rows[held]
        best = np.eye(self.out_dim)
        least, books = self._tried(best, learned, rest, seed, None)[0], None
        for _ in range(ITERATIONS + 1):
            deadline.check()
            error, decoded, books = self._tried(rotation, learned, rest, seed, books)
            if error < least:
                best, least = rotation, error
            left, _, right = np.linalg.svd((decoded.T @ learned).astype(np.float64))
            rotation = left @ right
        return best

    def _tried(
        self, rotation: Array, learned: Array, rest: Array, seed: int, start: Array | None
    ) -> tuple[float, Array, Array]:
        """Error of the rows held out, what the others decode to, and the codebooks learned from them."""
        turn = rotation.T.astype(np.float32)
        turned, held = learned @ turn, rest @ turn
        steps = FIRST_STEPS if start is None else STEPS
        books = train_subspaces(turned, self.n_subspaces, self.n_centroids, seed=seed, iterations=steps, start=start)
        error = float(np.square(held - decode_with(books, encode_with(books, held)), dtype=np.float64).sum())
        return error, decode_with(books, encode_with(books, turned)), books

    def apply(self, vectors: Array) -> Array:
        """Rotate rows: float32 (n, dim) to (n, out_dim); a row has the same bits alone and in a batch."""
        return self._forward.apply(vectors)

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """Rotate queries; nothing is added to their scores."""
        return self.apply(queries), np.zeros(len(queries), np.float32)

    def invert(self, vectors: Array) -> Array:
        """Rotate back: float32 (n, out_dim) to (n, dim)."""
        return self._backward.apply(vectors)

    def arrays(self) -> dict[str, Array]:
        """The rotation."""
        return {"matrix": self._matrix}

    def with_arrays(self, arrays: Mapping[str, Array]) -> OPQ:
        """A trained copy."""
        return replace(self, matrix=np.ascontiguousarray(arrays["matrix"], np.float32))


def principal_start(rows: Array, m: int) -> Array:
    """Principal directions, dealt to m sub-spaces so that the products of their variances are near each other.

    Parameters
    ----------
    rows : float32 (n, d) of mean zero; m divides d

    Returns
    -------
    Array : float64 (d, d), a direction a line, those of a sub-space together
    """
    dim = rows.shape[1]
    values, directions = axes(moments(rows, centered=False)[1])
    logs = np.log(np.maximum(values, FLOOR * max(values.max(), np.finfo(float).tiny)))
    groups: list[list[int]] = [[] for _ in range(m)]
    products = np.zeros(m)
    for direction, log in enumerate(logs - logs.min()):
        group = int(np.argmin(products))
        groups[group].append(direction)
        products[group] += log
        if len(groups[group]) == dim // m:
            products[group] = np.inf
    return np.ascontiguousarray(directions[np.concatenate(groups).astype(int)])
