"""A random rotation that costs O(d log d): signs, Walsh-Hadamard transforms, and a mix of the halves.

Source: the fast rotation of the RaBitQ library; Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform",
SIAM J. Comput. 39(1), 2009, for signs before a Hadamard transform.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

ROUNDS = 6
"""Kurtosis of rotated one-hot vectors, 3 for normal coordinates, at 384 and 1536 dimensions: 10.7 and 34.8 after two
rounds, 3.7 and 5.1 after four, 3.0 and 3.1 after six. Powers of two need three."""
STEP = 64
"""Dimensions are padded with zeros to a multiple of it, as codes are."""


@dataclass(frozen=True, eq=False)
class Rotate:
    """A random rotation of the vectors, padded with zeros.

    Attributes
    ----------
    dim : dimensions taken
    signs : int8 (rounds, out_dim) of -1 and 1, drawn from the seed of the training

    Notes
    -----
    Lengths and inner products stay as they are. Rows are rotated one by one, so a row has the same bits alone and in
    a batch.
    """

    dim: int
    signs: Array | None = None

    @property
    def spec(self) -> str:
        """``"Rotate"``."""
        return "Rotate"

    @property
    def out_dim(self) -> int:
        """Dimensions given: the next multiple of 64."""
        return -(-self.dim // STEP) * STEP

    @property
    def trained(self) -> bool:
        """Whether the signs are drawn."""
        return self.signs is not None

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Rotate:
        """Draw the signs."""
        drawn = np.random.default_rng(seed).integers(0, 2, (ROUNDS, self.out_dim), np.int8)
        return replace(self, signs=2 * drawn - 1)

    def apply(self, vectors: Array) -> Array:
        """Rotate rows: float32 (n, dim) to (n, out_dim)."""
        rows = np.zeros((len(vectors), self.out_dim), np.float32)
        rows[:, : self.dim] = vectors
        self._rotate(rows, backwards=False)
        return rows

    def apply_queries(self, queries: Array) -> tuple[Array, Array]:
        """Rotate queries; nothing is added to their scores."""
        return self.apply(queries), np.zeros(len(queries), np.float32)

    def invert(self, vectors: Array) -> Array:
        """Rotate back: float32 (n, out_dim) to (n, dim)."""
        rows = np.array(vectors, np.float32, order="C")
        self._rotate(rows, backwards=True)
        return np.ascontiguousarray(rows[:, : self.dim])

    def arrays(self) -> dict[str, Array]:
        """The signs."""
        return {"signs": self._signs}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Rotate:
        """A rotation by stored signs."""
        return replace(self, signs=np.ascontiguousarray(arrays["signs"], np.int8))

    @property
    def _signs(self) -> Array:
        if self.signs is None:
            raise InvalidArgument("Rotate expects to be trained before it is used; call train() first")
        return self.signs

    def _rotate(self, rows: Array, *, backwards: bool) -> None:
        from gingham.codecs import rotation_kernels

        width = self.out_dim
        span = 1 << (width.bit_length() - 1)
        factors = self._signs.astype(np.float32)
        scale = np.float32(1 / np.sqrt(span))
        factors[0::2, :span] *= scale
        factors[1::2, width - span :] *= scale
        rotation_kernels.rotate_rows(rows, factors, span, int(backwards))
