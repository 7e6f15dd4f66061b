"""k-means: centroids of a sample, and the nearest centroid of each row, in one space or in many sub-spaces at once.

Rows are compared after the centre of the data is subtracted and all is divided by a power of two, so that neither an
offset nor a scale of the data costs precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gingham import deadline
from gingham.errors import InvalidArgument
from gingham.parallel import get_threads, one_blas_thread, run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

POINTS_PER_CENTROID = 256
"""Rows that a centroid is trained on at most: the default of Faiss (``max_points_per_centroid``)."""
SCHEDULE = ((0.5, 10), (1.0, 12))
"""Shares of the sample and iterations on each. The first ones move centroids far, and half of the rows tell where to:
two thirds of the work of 25 iterations on all rows (the default of Faiss), for an objective 0.1 to 0.4 % above theirs
on mixtures of Gaussians of 4 to 384 dimensions."""
FAST_SCHEDULE = ((0.25, 6), (0.5, 2), (1.0, 2))
DIRECT_DIM = 64
"""Up to so many dimensions the kernel that computes products itself beats BLAS and a second pass over its products."""
PRODUCTS = 1 << 18
"""Inner products of a block of BLAS: 1 MiB."""
BLOCK_ROWS = 4096
BLOCK_WORK = 1 << 28
"""Rows of one call of a kernel, and multiplications: about 10 ms, after which deadlines are checked."""
GROUP = 16
"""Centroids side by side in a table: see :mod:`gingham.codecs.kmeans_kernels`."""
LARGEST_SCALE = 2.0**58
"""Rows are scaled up by no more, so that products of the longest ones stay within float32."""


@dataclass(frozen=True)
class CentroidTables:
    """Centroids of m sub-spaces as the kernels take them.

    Attributes
    ----------
    center, scale : rows become (x - center) * scale; float32 (m * dim,) and a power of two
    tables : float32 (m, width / 16, dim, 16), scaled, and padded with zeros to a multiple of 16
    offsets : float32 (m, width), -|c|^2 / 2, and -inf for the padding
    """

    center: Array
    scale: np.float32
    tables: Array
    offsets: Array

    @classmethod
    def of(cls, centroids: Array) -> Self:
        """Tables of float32 (m, k, dim)."""
        m, k, _ = centroids.shape
        center = centroids.mean(axis=1, dtype=np.float64).astype(np.float32)
        centered = centroids - center[:, None]
        scale = power_of_two(centered)
        centered *= scale
        offsets = np.full((m, -(-k // GROUP) * GROUP), -np.inf, np.float32)
        offsets[:, :k] = -0.5 * np.square(centered, dtype=np.float64).sum(axis=2)
        return cls(center.ravel(), scale, interleaved(centered), offsets)

    def nearest(self, rows: Array) -> Array:
        """Nearest centroid in each sub-space: int32 (n, m) of float32 (n, m * dim), a row at a time."""
        labels = np.empty((len(rows), len(self.offsets)), np.int32)
        step = _rows_per_call(self.tables.size)
        for start in range(0, len(rows), step):
            deadline.check()
            part = slice(start, start + step)
            self.nearest_scaled((rows[part] - self.center) * self.scale, labels[part])
        return labels

    def nearest_scaled(self, rows: Array, labels: Array, tops: Array | None = None) -> None:
        """The same of rows that are centred and scaled; ``tops`` takes <x, c> - |c|^2 / 2."""
        from gingham.codecs import kmeans_kernels

        m, width = self.offsets.shape
        dim = self.tables.shape[2]
        kmeans_kernels.nearest_centroids(
            rows.ctypes.data, len(rows), m * dim, m, dim, self.tables.ctypes.data, self.offsets.ctypes.data, width,
            np.empty(4 * (width + 8), np.float32), labels, np.empty(labels.shape, np.float32) if tops is None else tops,
        )  # fmt: skip


def _rows_per_call(work: int) -> int:
    return max(64, min(BLOCK_ROWS, BLOCK_WORK // work // 64 * 64))


def interleaved(centroids: Array) -> Array:
    """Tables of :mod:`gingham.codecs.kmeans_kernels` from float32 (m, k, dim)."""
    m, k, dim = centroids.shape
    padded = np.zeros((m, -(-k // GROUP) * GROUP, dim), np.float32)
    padded[:, :k] = centroids
    return np.ascontiguousarray(padded.reshape(m, -1, GROUP, dim).swapaxes(2, 3))


def power_of_two(values: Array) -> np.float32:
    """What makes the greatest of some values about 1, within what float32 can square."""
    top = float(max(values.max(initial=0), -values.min(initial=0)))
    return np.float32(min(2.0 ** -np.frexp(top)[1], LARGEST_SCALE)) if top > 0 else np.float32(1)


def train_kmeans(
    sample: Array,
    k: int,
    *,
    seed: int = 0,
    iterations: int | None = None,
    points_per_centroid: int = POINTS_PER_CENTROID,
    fast: bool = False,
    threads: int | None = None,
) -> Array:
    """Centroids of a sample by Lloyd's iterations from k rows drawn at random.

    Parameters
    ----------
    sample : float32 (n, dim), C-contiguous and finite, at least one row
    k : centroids, at least 1
    seed : of the rows drawn
    iterations : on all rows; None takes 10 on half of them and 12 on all
    points_per_centroid : of a larger sample, rows are drawn; the memory needed is that of so many rows times k
    threads : None takes those of the process; 1 where the caller is itself a block of :func:`run_blocks`
    fast : 6 iterations on a quarter, 2 on half and 2 on all, in half the time and for about 1 to 2 % more error

    Returns
    -------
    Array : float32 (k, dim). Where the sample has no more than k rows they are repeated in order, so that some
        centroids are equal; the nearest of equal ones is the first

    Raises
    ------
    InvalidArgument : an empty sample, or k, iterations or points below 1

    Notes
    -----
    The same bytes for any number of threads. An empty cluster takes the row farthest from its centroid in the
    cluster of the greatest error. It ends early once no row changes its cluster.
    """
    if not len(sample) or min(k, points_per_centroid, 1 if iterations is None else iterations) < 1:
        raise InvalidArgument(
            f"train_kmeans() expects rows and k, iterations and points_per_centroid of at least 1, found {len(sample)} "
            f"rows, k={k}, iterations={iterations} and points_per_centroid={points_per_centroid}"
        )
    if len(sample) <= k:
        return np.resize(sample, (k, sample.shape[1])).astype(np.float32)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(sample))[: points_per_centroid * k]
    center = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = sample[chosen] - center
    scale = power_of_two(rows)
    rows *= scale
    schedule = ((1.0, iterations),) if iterations is not None else FAST_SCHEDULE if fast else SCHEDULE
    centroids = rows[:k].copy()
    for share, rounds in schedule:
        part = rows[: max(k, int(share * len(rows)))]
        _iterate(part, centroids, rounds, get_threads() if threads is None else threads)
    out: Array = centroids / scale + center
    return out


def train_many(samples: Sequence[Array], k: int, *, seed: int = 0, fast: bool = False) -> Array:
    """Centroids of several samples of one shape, as of product quantizers: float32 (m, k, dim), a thread each."""
    numbered = list(enumerate(samples))
    trained = run_blocks(lambda one: train_kmeans(one[1], k, seed=seed + one[0], fast=fast, threads=1), numbered)
    return np.stack(trained)


def assign(vectors: Array, centroids: Array) -> tuple[Array, Array]:
    """Nearest centroid of each row: int32 (n,), and its squared distance, float32 (n,).

    Parameters
    ----------
    vectors : float32 (n, dim), C-contiguous and finite
    centroids : float32 (k, dim)

    Notes
    -----
    The same for any number of threads. Above 64 dimensions BLAS works on blocks of fixed size, so a row that lies
    halfway between two centroids may go to either, depending on where it stands.
    """
    center = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    moved = centroids - center
    scale = power_of_two(moved)
    finder = _Finder(moved * scale)
    labels, tops = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)
    squares = np.empty(len(vectors), np.float32)

    def work(part: slice) -> None:
        rows = (vectors[part] - center) * scale
        finder.find(rows, labels[part], tops[part])
        squares[part] = _squares(rows, tops[part])

    with one_blas_thread():
        run_blocks(work, finder.blocks(len(vectors)))
    with np.errstate(over="ignore"):
        return labels, squares / np.float32(scale) / np.float32(scale)


class _Finder:
    """Nearest centroids of blocks of rows that are centred and scaled."""

    def __init__(self, centroids: Array) -> None:
        k, dim = centroids.shape
        self.direct = dim <= DIRECT_DIM
        offsets = -0.5 * np.square(centroids, dtype=np.float64).sum(axis=1)
        width = -(-k // GROUP) * GROUP
        self.offsets = np.full((1, width), -np.inf, np.float32)
        self.offsets[0, :k] = offsets
        if self.direct:
            zero = np.zeros(dim, np.float32)
            self.tables = CentroidTables(zero, np.float32(1), interleaved(centroids[None]), self.offsets)
        else:
            self.turned = np.zeros((dim, width), np.float32)
            self.turned[:, :k] = centroids.T
        self.rows = _rows_per_call(width * dim) if self.direct else max(64, PRODUCTS // width)

    def blocks(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.rows, n)) for start in range(0, n, self.rows)]

    def find(self, rows: Array, labels: Array, tops: Array) -> None:
        from gingham.codecs import kmeans_kernels

        if self.direct:
            self.tables.nearest_scaled(rows, labels[:, None], tops[:, None])
            return
        width = self.offsets.shape[1]
        kmeans_kernels.nearest_products(
            rows @ self.turned, self.offsets[0], np.empty(width + 8, np.float32), labels, tops
        )


def _squares(rows: Array, tops: Array) -> Array:
    """|x - c|^2 from <x, c> - |c|^2 / 2."""
    out: Array = np.maximum(np.einsum("ij,ij->i", rows, rows) - 2 * tops, 0)
    return out


def _iterate(rows: Array, centroids: Array, rounds: int, threads: int) -> None:
    """Move centroids by Lloyd's iterations, in place."""
    from gingham.codecs import kmeans_kernels

    n, k = len(rows), len(centroids)
    labels, tops, before = np.empty(n, np.int32), np.empty(n, np.float32), np.full(n, -1, np.int32)
    starts, order = np.empty(k + 1, np.int64), np.empty(n, np.int64)
    step = -(-k // (4 * threads))
    groups = [(first, min(first + step, k)) for first in range(0, k, step)]
    for _ in range(rounds):
        finder = _Finder(centroids)

        def find(part: slice, finder: _Finder = finder) -> None:
            finder.find(rows[part], labels[part], tops[part])

        with one_blas_thread():
            _run(find, finder.blocks(n), threads)
        if np.array_equal(labels, before):
            return
        before[:] = labels
        kmeans_kernels.group_rows(labels, starts, order)
        _run(lambda span: kmeans_kernels.mean_of_groups(rows, starts, order, *span, centroids), groups, threads)
        empty = np.flatnonzero(starts[1:] == starts[:-1])
        if len(empty):
            _refill(rows, centroids, empty, labels, _squares(rows, tops), starts, order)


def _run(work: Callable[[Any], None], blocks: Sequence[Any], threads: int) -> None:
    if threads > 1:
        run_blocks(work, blocks)
        return
    for block in blocks:
        deadline.check()
        work(block)


def _refill(
    rows: Array, centroids: Array, empty: Array, labels: Array, squares: Array, starts: Array, order: Array
) -> None:
    """Move each centroid without rows to the row that is farthest from its own, in the cluster of most error."""
    errors = np.bincount(labels, squares, len(centroids))
    for c in empty:
        worst = int(np.argmax(errors))
        if not errors[worst] > 0:
            return
        members = order[starts[worst] : starts[worst + 1]]
        far = members[np.argmax(squares[members])]
        centroids[c] = rows[far]
        errors[worst] = (errors[worst] - squares[far]) / 2
        squares[far] = 0
