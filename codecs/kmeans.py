"""k-means: training in one space or in many sub-spaces at once, and the nearest centroids of vectors.

Lloyd's iterations from sampled rows. The nearest centroid of a row has the same bits alone and in a batch, and for any
number of threads: one kernel computes all products, faster than BLAS followed by a search for the greatest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.errors import InvalidArgument, ResourceExhausted
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gingham.codecs.devices import Attempt, Device

    Array = np.ndarray[Any, Any]

ROWS_PER_CENTROID = 256
"""Rows that training takes, for each centroid: the default of FAISS (Clustering.h, max_points_per_centroid)."""
SLICE_PRODUCTS = 1 << 29
"""Multiplications of one kernel call: about 10 ms."""
CANDIDATES, START_ROWS = 8, 16
"""Rows tried for each centroid of the start, and rows for each centroid that they are drawn from."""
DEVICE_VALUES = 1 << 28
"""Values of rows that one call on a device takes: 1 GiB."""
DEVICE_PRODUCTS = 1 << 32
"""Products of rows and centroids below which a device is left alone: 10 ms of a computer of 1 Tflop/s."""
COLUMNS = 64
"""Columns that one thread sums."""
FAST_SCHEDULE = ((0.25, 6), (1.0, 2))
"""Shares of the rows and iterations on them."""
TOLERANCE = 2e-4
"""Iterations end when the sum of squared distances falls by a smaller share."""


@dataclass(frozen=True, eq=False)
class Centroids:
    """Centroids as the kernel takes them.

    Attributes
    ----------
    k, dsub, m : centroids of a sub-space, its dimensions, and sub-spaces
    shift, scale : float32 (m * dsub,): vectors and centroids are shifted to the mean centroid of a sub-space and
        scaled by a power of two before they are multiplied, so that neither a far mean nor a tiny or huge length costs
        precision
    tiles, halves : of :func:`gingham.codecs.kmeans_kernels.nearest_in_subspaces`
    """

    m: int
    k: int
    dsub: int
    shift: Array
    scale: Array
    tiles: Array
    halves: Array
    shifted: bool

    @classmethod
    def of(cls, codebooks: Array, *, shifted: bool = True) -> Centroids:
        """From float32 (m, k, dsub); without a shift and a scale where all vectors have them already."""
        m, k, dsub = codebooks.shape
        centered = codebooks.astype(np.float64)
        shift, scale = np.zeros((m, 1, dsub), np.float32), np.ones((m, 1, 1))
        if shifted:
            shift = centered.mean(axis=1, keepdims=True).astype(np.float32)
            centered -= shift
            scale = _scale(centered, (1, 2))
            centered *= scale
        width = -(-k // 16) * 16
        padded = np.zeros((m, width, dsub), np.float32)
        padded[:, :k] = centered
        halves = np.full((m, width), -np.inf, np.float32)
        halves[:, :k] = -0.5 * np.square(padded[:, :k], dtype=np.float64).sum(axis=2)
        tiles = np.ascontiguousarray(padded.reshape(m, width // 16, 16, dsub).swapaxes(2, 3))
        scales = np.broadcast_to(scale[:, :, 0], (m, dsub)).astype(np.float32)
        return cls(m, k, dsub, shift.ravel(), scales.ravel(), tiles, halves, shifted)

    def rows_per_call(self) -> int:
        """Rows that one kernel call takes."""
        return max(60, SLICE_PRODUCTS // (self.m * self.dsub * int(self.halves.shape[1])) // 60 * 60)

    def nearest(self, vectors: Array, *, out: Array, best: Array | None = None) -> None:
        """Nearest centroid of each row in each sub-space; ties go to the lower one.

        Parameters
        ----------
        vectors : float32 (n, at most m * dsub), padded with zeros
        out : uint8, uint16 or int32 (n, m), C-contiguous
        best : float32 (n, m), receives ``<x, c> - |c|^2 / 2`` of the shifted and scaled vectors
        """
        from gingham.codecs import kmeans_kernels

        n, dim = vectors.shape
        width = self.halves.shape[1]
        spare = np.empty(6 * width + 48, np.float32)
        step = self.rows_per_call()
        none = np.empty((0, 0), np.float32)
        whole = self.m * self.dsub
        block = np.zeros((min(n, step), whole if self.shifted else 0), np.float32)
        if self.shifted:
            block[:, dim:] = -self.shift[dim:] * self.scale[dim:]
        for start in range(0, n, step):
            deadline.check()
            part = vectors[start : start + step]
            if self.shifted:
                np.subtract(part, self.shift[:dim], out=block[: len(part), :dim])
                block[: len(part), :dim] *= self.scale[:dim]
                part = block[: len(part)]
            kernel_out = out[start : start + step]
            kmeans_kernels.nearest_in_subspaces(
                part.ctypes.data, len(part), self.m, self.dsub, self.tiles.ctypes.data, self.halves.ctypes.data,
                width, kernel_out.ctypes.data, out.dtype.itemsize,
                none if best is None else best[start : start + step], spare.ctypes.data,
            )  # fmt: skip


def train_kmeans(
    sample: Array,
    k: int,
    *,
    seed: int,
    iterations: int = 25,
    fast: bool = False,
    start: Array | None = None,
    spherical: bool = False,
    attempt: Attempt | None = None,
) -> Array:
    """Centroids of a sample.

    Parameters
    ----------
    sample : float32 (n, d), at least one row; of more than :data:`ROWS_PER_CENTROID` rows a centroid, so many are drawn
    k : centroids, at least 1
    seed : of the rows drawn and of the start
    iterations : of Lloyd, at most; part of them on a quarter of the rows
    fast : 8 iterations, six of them on a quarter of the rows
    start : float32 (k, d) to begin from, instead of rows far from each other
    spherical : rows have length one, and so have centroids, after every iteration (Dhillon and Modha, "Concept
        decompositions for large sparse text data", Machine Learning 42, 2001)
    attempt : of a device, which then finds the nearest centroids where these are at least :data:`DEVICE_PRODUCTS`
        products; where it gives None, the CPU does. Our kernels add in the order of the CPU and give its centroids;
        products of cuBLAS, where PyTorch or CuPy is installed, may assign a row to another centroid that is as near
        but for rounding, so centroids may differ from those of the CPU and of other versions of the library

    Returns
    -------
    Array : float32 (k, d). A sample of fewer rows than centroids gives its rows, repeated in order.

    Notes
    -----
    A cluster without rows takes the row that is farthest from its centroid. Memory: one copy of the rows drawn. Time
    O(iterations * min(n, 256 k) * k * d).
    """
    if k < 1:
        raise InvalidArgument(f"k-means expects at least 1 centroid, found {k}")
    rng = np.random.default_rng(seed)
    return _fit(
        _drawn(sample, k, rng), k, rng, _schedule(iterations, fast), run_blocks, spread=True, start=start,
        spherical=spherical, attempt=attempt,
    )  # fmt: skip


def train_subspaces(
    sample: Array, m: int, k: int, *, seed: int, iterations: int = 25, start: Array | None = None
) -> Array:
    """Centroids of each of m sub-spaces of equal dimension: float32 (m, k, dsub).

    Parameters
    ----------
    sample : float32 (n, d); where m does not divide d, the last sub-space is padded with zeros
    start : float32 (m, k, dsub) to begin from instead of sampled rows

    Notes
    -----
    As :func:`train_kmeans`, one sub-space a thread, and from any sampled rows: in few dimensions a start of rows far
    from each other gave the same error (within 0.3 %) in twice the time.
    """
    dim = sample.shape[1]
    dsub = -(-dim // m)
    rows = _drawn(sample, k, np.random.default_rng(seed))

    def one(s: int) -> Array:
        own = np.zeros((len(rows), dsub), np.float32)
        own[:, : max(0, min(dsub, dim - s * dsub))] = rows[:, s * dsub : (s + 1) * dsub]
        rng = np.random.default_rng([seed, s])
        return _fit(own, k, rng, [(1.0, iterations)], _in_turn, start=None if start is None else start[s])

    return np.stack(run_blocks(one, range(m)))


def assign(vectors: Array, centroids: Array) -> Array:
    """Nearest centroid of each row: float32 (n, d) and (k, d) to int32 (n,); ties go to the lower centroid."""
    known = Centroids.of(np.ascontiguousarray(centroids, np.float32)[None])
    out = np.empty((len(vectors), 1), np.int32)
    run_blocks(lambda part: known.nearest(vectors[part], out=out[part]), _parts(len(vectors), known.rows_per_call()))
    return out[:, 0]


def _scale(centered: Array, axis: tuple[int, ...] | None) -> Array:
    """The power of two that brings the greatest magnitude to between 1/2 and 1."""
    _, exponents = np.frexp(np.abs(centered).max(axis=axis, keepdims=True, initial=0))
    scale: Array = np.ldexp(1.0, -np.clip(exponents, -100, 120))
    return scale


def _schedule(iterations: int, fast: bool) -> list[tuple[float, int]]:
    return list(FAST_SCHEDULE) if fast else [(1.0, iterations)]


def _drawn(sample: Array, k: int, rng: np.random.Generator) -> Array:
    limit = ROWS_PER_CENTROID * k
    if len(sample) <= limit:
        return sample
    return sample[np.sort(rng.choice(len(sample), limit, replace=False))]


def _parts(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _in_turn(work: Callable[[Any], Any], blocks: Sequence[Any]) -> list[Any]:
    return [work(block) for block in blocks]


def _fit(
    sample: Array,
    k: int,
    rng: np.random.Generator,
    schedule: Sequence[tuple[float, int]],
    run: Callable[..., Any],
    *,
    spread: bool = False,
    start: Array | None = None,
    spherical: bool = False,
    attempt: Attempt | None = None,
) -> Array:
    """Centroids of all rows of a sample, which are shifted and scaled first, unless their length is one.

    Parameters
    ----------
    spread : start from rows far from each other, not from any
    start : float32 (k, d) to start from
    """
    if len(sample) <= k:
        return np.ascontiguousarray(sample[np.arange(k) % len(sample)], np.float32)
    shift = sample.mean(axis=0, dtype=np.float64).astype(np.float32) * np.float32(not spherical)
    rows = sample - shift
    scale = np.ones((1, 1)) if spherical else _scale(rows, None)
    rows *= scale.astype(np.float32)
    order = rng.permutation(len(rows))
    if start is None:
        centroids = rows[order[:k]]
        if spread:
            centroids = _spread(rows[order[: START_ROWS * k]], k, rng)
    else:
        centroids = ((start - shift) * scale).astype(np.float32)
    for share, iterations in schedule:
        some = max(int(share * len(rows)), min(len(rows), 8 * k))
        part = rows if some == len(rows) else rows[np.sort(order[:some])]
        centroids = _iterate(part, centroids, iterations, run, spherical=spherical, attempt=attempt)
    return np.ascontiguousarray(centroids / scale + shift, np.float32)


def _iterate(
    rows: Array,
    centroids: Array,
    iterations: int,
    run: Callable[..., Any],
    *,
    spherical: bool = False,
    attempt: Attempt | None = None,
) -> Array:
    """Lloyd's iterations."""
    from gingham.codecs import kmeans_kernels

    n, dim = rows.shape
    clusters, previous = np.empty((n, 1), np.int32), np.inf
    best, squares = np.empty((n, 1), np.float32), np.einsum("ij,ij->i", rows, rows)
    sums, counts = np.empty((len(centroids), dim)), np.empty(len(centroids), np.int64)
    there, try_there = None, attempt if rows.size * len(centroids) >= DEVICE_PRODUCTS else None
    if try_there is not None:
        there = try_there(lambda device: _RowsThere.of(rows, device))
    for _ in range(iterations):
        if there is None or try_there is None or not try_there(partial(there.nearest, centroids, clusters, best)):
            there, known = None, Centroids.of(centroids[None], shifted=False)
            run(
                lambda part, known=known: known.nearest(rows[part], out=clusters[part], best=best[part]),
                _parts(n, known.rows_per_call()),
            )
        distances = np.maximum(squares - 2.0 * best[:, 0], 0)
        error = float(distances.sum())
        if error >= previous * (1 - TOLERANCE):
            break
        previous = error
        sums[:], counts[:] = 0, 0
        run(
            lambda part: kmeans_kernels.add_to_clusters(
                rows.ctypes.data, n, dim, part.start, part.stop, clusters[:, 0], sums, counts
            ),
            _parts(dim, COLUMNS),
        )
        weights = np.sqrt(np.square(sums).sum(axis=1)) if spherical else counts
        centroids = (sums / np.where(weights > 0, weights, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            centroids[empty] = rows[np.argsort(-distances, kind="stable")[: len(empty)]]
    return centroids


@dataclass(frozen=True, eq=False)
class _RowsThere:
    """Rows on a device, or those of the CPU where they do not fit, in spans that one call takes."""

    spans: list[tuple[slice, Any]]

    @classmethod
    def of(cls, rows: Array, device: Device) -> _RowsThere:
        """Copy rows that fit."""
        from gingham.codecs.cuda_rows import SPARE_BYTES, told_of_memory

        dim, room = rows.shape[1], (device.free_bytes() - SPARE_BYTES) // rows.itemsize
        fit = rows.size <= room
        step = min(DEVICE_VALUES, room // 2) // dim
        if step < 1:
            raise ResourceExhausted(
                f"device='cuda:{device.number}' expects room for rows of {dim} dimensions beside "
                f"{SPARE_BYTES >> 20} MiB, found {max(room, 0)} values; use device='cpu'"
            )
        with device.active(), told_of_memory(device):
            held = _copied(rows) if fit else rows
        return cls([(part, held[part]) for part in _parts(len(rows), step)])

    def nearest(self, centroids: Array, out: Array, best: Array, device: Device) -> bool:
        """Write the nearest centroid of each row, (n, 1), and its score; True."""
        from gingham.codecs.cuda_products import find_products
        from gingham.codecs.cuda_rows import told_of_memory
        from gingham.codecs.cuda_searches import nearest_centroids

        products = find_products(device)
        with device.active(), told_of_memory(device):
            for part, rows in self.spans:
                deadline.check()
                found = None if products is None else products.nearest(rows, centroids)
                out[part, 0], best[part, 0] = nearest_centroids(rows, centroids) if found is None else found
        return True


def _copied(rows: Array) -> Any:
    """Rows on the device in use."""
    from numba import cuda

    from gingham.codecs.cuda_staging import Staging

    def read(first: int, last: int, here: Array) -> None:
        here[:] = rows[first:last]

    out = cuda.device_array(rows.shape, rows.dtype)
    n, dim = rows.shape
    Staging(n, dim, rows.dtype).send_rows(n, read, out)
    return out


def _spread(rows: Array, k: int, rng: np.random.Generator) -> Array:
    """k rows far from each other: greedy k-means++ (Arthur and Vassilvitskii 2007, section 5).

    Notes
    -----
    Of :data:`CANDIDATES` rows drawn by their squared distances, the one that lowers the sum of them most is taken.
    """
    from gingham.codecs import kmeans_kernels

    n, dim = rows.shape
    distances = np.full(n, np.inf, np.float32)
    trial, chosen = np.empty((CANDIDATES, n), np.float32), np.empty(k, np.int64)
    draws = rng.random((k, CANDIDATES))
    for part in _parts(k, max(1, SLICE_PRODUCTS // 4 // (n * CANDIDATES * (dim + 8)))):
        deadline.check()
        kmeans_kernels.draw_far(rows.ctypes.data, dim, part.start, part.stop, draws, distances, trial, chosen)
    start: Array = rows[chosen]
    return start
