"""Sign codes: one bit for each coordinate of the centred vector, as it is or turned by ITQ first.

Source: Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3, for the angle from
the bits that differ; Gong and Lazebnik, "Iterative quantization", CVPR 2011, section 3, for the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.protocol import Codes, join_rows
from gingham.errors import InvalidArgument
from gingham.parallel import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

WORD = 64
TILE_BYTES = 128 << 10
"""Rows that stay in the second-level cache while all queries pass over them."""
ROUNDS = 50
"""Of ITQ, as in the paper."""
SAMPLE_ROWS = 65_536
"""Rows that ITQ learns from at most."""
OVERREAD = 3
"""Words beyond a query that the kernel may read."""


@dataclass(frozen=True)
class SignQueries:
    """Queries as signs.

    Attributes
    ----------
    words : uint64 (n_queries * words + 3,), the last three zero
    levels : float32 (n_queries, bits + 1), the score for each number of bits that differ
    """

    words: Array
    levels: Array


@dataclass(frozen=True, eq=False)
class Binary:
    """The signs of the coordinates of the vector without the mean.

    Attributes
    ----------
    dim : dimensions
    metric : what scores estimate
    bits : of a code, at most ``dim``; 0 takes one a dimension as it is, ITQ turns the coordinates first
    itq : whether a projection and rotation is learned
    mean : float32 (dim,), learned
    norms : float32 (2,), learned: the mean length of what is coded, and the mean square of |x - mean|
    rotation : float32 (dim, bits), learned by ITQ; (0, 0) without

    Notes
    -----
    With h of D bits that differ the angle of two vectors is estimated as pi h / D, so their cosine as cos(pi h /
    D). Codes keep no lengths. With R the mean length of x - mean in the sample, <q - mean, x - mean> is taken as p
    = |q - mean| R cos(pi h / D). Dot and cosine score <q, mean> + p, which leaves out <mean, x - mean>, zero in the
    mean; l2 scores 2 p - |q - mean|^2 - S, with S the mean of |x - mean|^2. So rows are ranked by the bits that
    differ under every metric, and scores are estimates that want rescoring: the root mean square error of the
    cosine is 0.043 at 768 dimensions. With ITQ, |q - mean| and R are lengths in the projection. Array of codes:
    "signs" uint64 (n, words), dimension 64 w + b in bit b of word w.
    """

    dim: int
    metric: Metric
    bits: int = 0
    itq: bool = False
    mean: Array | None = None
    norms: Array | None = None
    rotation: Array | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= self.dim or (self.bits and not self.itq):
            raise InvalidArgument(f"{self.spec} expects 1 to {self.dim} bits, as many as dimensions, found {self.bits}")

    @property
    def spec(self) -> str:
        """``"Binary"``, ``"ITQ"`` or ``"ITQ64"``."""
        return f"ITQ{self.bits or ''}" if self.itq else "Binary"

    @property
    def trained(self) -> bool:
        """Whether the mean is known."""
        return self.mean is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return 8 * self._words

    @property
    def levels(self) -> int:
        """1."""
        return 1

    @property
    def _bits(self) -> int:
        return self.bits or self.dim

    @property
    def _words(self) -> int:
        return -(-self._bits // WORD)

    def _learned(self) -> tuple[Array, Array, Array]:
        if self.mean is None or self.norms is None or self.rotation is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.mean, self.norms, self.rotation

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Binary:
        """Learn the mean and the lengths, and for ITQ the rotation.

        Notes
        -----
        ITQ takes time O(n bits^2) for each of its 50 rounds, n at most 65,536.
        """
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        rng = np.random.default_rng(seed)
        if len(sample) > SAMPLE_ROWS:
            sample = sample[np.sort(rng.choice(len(sample), SAMPLE_ROWS, replace=False))]
        centered = sample - mean
        rotation = _itq(centered, self._bits, rng) if self.itq else np.zeros((0, 0), np.float32)
        turned = _turned(centered, rotation)
        squares = np.square(centered, dtype=np.float64).sum(axis=1).mean()
        length = np.sqrt(np.square(turned, dtype=np.float64).sum(axis=1)).mean()
        return replace(self, mean=mean, norms=np.array([length, squares], np.float32), rotation=rotation)

    def encode(self, vectors: Array) -> Codes:
        """Encode rows: a bit is set where a coordinate is above zero."""
        mean, _, rotation = self._learned()
        return Codes(len(vectors), {"signs": _packed(_turned(vectors - mean, rotation), self._words)})

    def decode(self, codes: Codes) -> Array:
        """Vectors of the mean length that have the signs."""
        mean, norms, rotation = self._learned()
        signs = np.ascontiguousarray(codes.arrays["signs"]).view(np.uint8).reshape(codes.n, 8 * self._words)
        bits = np.unpackbits(signs, axis=1, bitorder="little")[:, : self._bits]
        size = norms[0] / np.sqrt(np.float32(self._bits))
        values = np.where(bits == 1, size, -size).astype(np.float32)
        return _turned(values, rotation.T) + mean

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return join_rows(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> SignQueries:
        """Signs of queries, and the score for each number of bits that differ."""
        mean, norms, rotation = self._learned()
        centered = queries - mean
        # One by one: products of matrices have other bits for other numbers of rows.
        rows = [_turned(centered[i : i + 1], rotation) for i in range(len(queries))]
        turned = np.concatenate(rows) if rows else np.empty((0, self._bits), np.float32)
        words = np.zeros(len(queries) * self._words + OVERREAD, np.uint64)
        words[: len(words) - OVERREAD] = _packed(turned, self._words).reshape(-1)
        lengths = np.sqrt(np.square(turned, dtype=np.float64).sum(axis=1)) * norms[0]
        if self.metric == "l2":
            base = -np.square(centered, dtype=np.float64).sum(axis=1) - norms[1]
            lengths = 2 * lengths
        else:
            base = (queries.astype(np.float64) * mean).sum(axis=1)
        if bias is not None:
            base = base + bias
        cosines = np.cos(np.pi * np.arange(self._bits + 1) / self._bits)
        return SignQueries(words, (base[:, None] + lengths[:, None] * cosines).astype(np.float32))

    def scan(
        self, prepared: SignQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        from gingham.codecs import hamming_kernels

        tile = max(32, TILE_BYTES // (32 * self.code_size) * 32)
        hamming_kernels.scan_signs(
            codes.arrays["signs"].ctypes.data, self._words, start, stop, tile, prepared.words.ctypes.data,
            prepared.levels, allow, scores, rows,
        )  # fmt: skip

    def score(self, prepared: SignQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        from gingham.codecs import hamming_kernels

        hamming_kernels.score_signs(
            codes.arrays["signs"].ctypes.data, self._words, prepared.words.ctypes.data, prepared.levels, rows, out
        )

    def refine(self, prepared: SignQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: SignQueries, codes: Codes) -> None:
        """None: rows are not scored by themselves."""

    def bound(self, prepared: SignQueries, codes: Codes, rows: Array) -> Array | None:
        """None: codes keep no lengths, so nothing bounds a score."""
        return None

    def optimistic(self, prepared: SignQueries) -> SignQueries | None:
        """None, as there is no bound."""
        return None

    def arrays(self) -> dict[str, Array]:
        """The mean, the lengths and the rotation."""
        mean, norms, rotation = self._learned()
        return {"mean": mean, "norms": norms, "rotation": rotation}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Binary:
        """A trained copy."""
        mean, norms, rotation = (
            np.ascontiguousarray(arrays[name], np.float32) for name in ("mean", "norms", "rotation")
        )
        return replace(self, mean=mean, norms=norms, rotation=rotation)


def _turned(rows: Array, rotation: Array) -> Array:
    """Rows times the rotation, or as they are where there is none."""
    if not rotation.size:
        return rows
    with one_blas_thread():
        turned: Array = rows @ rotation
    return turned


def _packed(values: Array, words: int) -> Array:
    """Bits of numbers above zero: float32 (n, bits) to uint64 (n, words)."""
    packed = np.zeros((len(values), 8 * words), np.uint8)
    bits = np.packbits(values > 0, axis=1, bitorder="little")
    packed[:, : bits.shape[1]] = bits
    return packed.view("<u8").astype(np.uint64, copy=False)


def _itq(centered: Array, bits: int, rng: np.random.Generator) -> Array:
    """The projection to ``bits`` principal directions and the rotation that brings it close to its signs.

    Notes
    -----
    Every round takes B = sign(V R), and the R that is closest in the sense of Procrustes: with the singular vectors
    V^T B = S O S'^T, R = S S'^T (ITQ, section 3.2). Directions have the sign that makes their largest entry positive.
    """
    with one_blas_thread():
        rows = centered.astype(np.float64)
        _, directions = np.linalg.eigh(rows.T @ rows)
        directions = directions[:, ::-1][:, :bits]
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(bits)]
        directions = directions * np.where(largest < 0, -1.0, 1.0)
        projected = (rows @ directions).astype(np.float32)
        rotation = np.linalg.qr(rng.standard_normal((bits, bits)))[0]
        for _ in range(ROUNDS):
            deadline.check()
            signs = np.where(projected @ rotation.astype(np.float32) > 0, np.float32(1), np.float32(-1))
            left, _, right = np.linalg.svd((projected.T @ signs).astype(np.float64))
            rotation = left @ right
        return np.ascontiguousarray(directions @ rotation, np.float32)
