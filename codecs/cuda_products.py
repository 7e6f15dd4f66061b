"""Products of matrices on an NVIDIA device by cuBLAS, through PyTorch or CuPy, where one of them is installed.

A tile of scores is ``queries @ rows.T``, and for l2 plus ``-|x|^2 / 2``; the library selects the best of each line, and
the best of tiles are merged. Rows lie in memory of numba-cuda, which the library reads in place, so that they count
and are freed as all others. What is found are candidates: :attr:`Candidates.lost` bounds how far their scores are off.

Rows of float16 stay so. PyTorch multiplies them on tensor cores, adding in float32, by queries that are the sum of two
float16; where that is not to be had, tiles of rows are widened first.

Roofline: 1024 queries by 1M rows of 384 dimensions are 0.79 Tflop: 40 ms at the 19.5 Tflop/s float32 of an A100, 12 ms
at the 67 of an H100 (SXM); of float16 twice the products, 5 ms at 312 and 1.6 ms at 989. Scores are 4.1 GB, written
once and read by the selection, twice at least: 6 ms and 3.7 ms of memory at 2 and 3.35 TB/s, which is what bounds
float16; widened rows are bound as float32. Not measured on a device yet.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gingham import deadline
from gingham.codecs.cuda_libraries import Cupy, Torch
from gingham.errors import GinghamError, NoDevice, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.cuda_libraries import Library
    from gingham.codecs.devices import Device

    Array = np.ndarray[Any, Any]

SCORE_BYTES = 128 << 20
"""Of a tile of scores, with what the library needs to select from it."""
LEAST_COLUMNS = 1024
"""Rows of a tile below which it is not made smaller."""
TOGETHER = 16
"""Tiles whose best are merged at once."""
HALF_EXPONENT = 14
"""Queries are scaled until the greatest magnitude is at most two to this, for float16, which ends at two to the 16."""
EPS = float(np.finfo(np.float32).eps)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ProductRows:
    """Rows on a device, of :meth:`Products.copy`.

    Attributes
    ----------
    nbytes : of the device's memory that they take
    n, dim : rows and dimensions
    values, halves : the library's, float32 or float16 (n, dim), and float32 (n,) or None
    narrow : whether the values are float16
    held : memory of numba-cuda that the library reads in place
    """

    nbytes: int
    n: int
    dim: int
    values: Any
    halves: Any | None
    narrow: bool
    held: Any


@dataclass(frozen=True, eq=False)
class Candidates:
    """What products find.

    Attributes
    ----------
    scores : ``<q, x> - half``, float64 (n_queries, k), in any order; -inf pads
    rows : int64 (n_queries, k); -1 pads
    lost : float64 (n_queries,): times the length of a row, by how much more its product is off than those of float32
        are
    """

    scores: Array
    rows: Array
    lost: Array


class Products(Protocol):
    """Products of matrices on a device, as of :class:`DeviceProducts`."""

    def usable(self) -> bool:
        """Whether products are of float32 now."""
        ...

    def copy(
        self, rows: Array, halves: Array | None = None, absent: Array | None = None, budget: int | None = None
    ) -> ProductRows:
        """Rows there."""
        ...

    def best(self, queries: Array, rows: ProductRows, mask: Array | None, k: int) -> Candidates | None:
        """Candidates for the k best rows of each query."""
        ...

    def nearest(self, vectors: Any, centroids: Array) -> tuple[Array, Array] | None:
        """The nearest centroid of each vector."""
        ...


class DeviceProducts:
    """Products by a library, as :class:`Products`.

    Parameters
    ----------
    library : of arrays
    device : that they are on
    score_bytes, least : of a tile of scores, and rows of the smallest one
    """

    def __init__(
        self, library: Library, device: Device, *, score_bytes: int = SCORE_BYTES, least: int = LEAST_COLUMNS
    ) -> None:
        self._library, self._device, self._least = library, device, least
        self._score_bytes, self._failed, self._wide = score_bytes, False, False
        self.name = library.name

    def usable(self) -> bool:
        """Whether products are of float32 now: a process may have allowed TF32. Not once the library has failed."""
        return not self._failed and self._library.precise()

    def copy(
        self, rows: Array, halves: Array | None = None, absent: Array | None = None, budget: int | None = None
    ) -> ProductRows:
        """Copy rows to the device.

        Parameters
        ----------
        rows : float32 or float16 (n, dim), C-contiguous
        halves : float32 (n,), taken from their products, or None
        absent : bool (n,), rows that :meth:`best` is never to find, whatever they hold, or None
        budget : bytes that they may take; None takes what is free

        Raises
        ------
        ResourceExhausted : they do not fit
        """
        import numba.cuda

        from gingham.codecs.cuda_rows import check_room, told_of_memory
        from gingham.codecs.cuda_staging import Staging

        cuda: Any = numba.cuda
        n, dim = rows.shape
        needed = rows.nbytes + (0 if halves is None else halves.nbytes)
        check_room(needed, self._device, budget)

        def read(first: int, last: int, out: Array) -> None:
            out[:] = rows[first:last]
            if absent is not None:
                out[absent[first:last]] = 0  # NaN would stay NaN whatever is added

        with self._device.active(), told_of_memory(self._device), self._library.active():
            held = cuda.device_array(rows.shape, rows.dtype)
            Staging(n, dim, rows.dtype).send_rows(n, read, held)
            shown = halves if halves is None or absent is None else np.where(absent, np.float32(0), halves)
            taken = None if shown is None else self._library.there(cuda.to_device(-shown))
            cuda.synchronize()
            return ProductRows(needed, n, dim, self._library.there(held), taken, rows.dtype == np.float16, held)

    def best(self, queries: Array, rows: ProductRows, mask: Array | None, k: int) -> Candidates | None:
        """Candidates for the k best rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim)
        rows : of :meth:`copy`
        mask : bool (n,), rows that may be found; None allows all
        k : from 1 to the number of rows

        Returns
        -------
        Candidates : or None where the library has failed, which is logged once, or computes with fewer bits now

        Raises
        ------
        ResourceExhausted : not even the smallest tile of scores fits
        """
        parts, scale, lost = self._split(queries, rows)

        def run(columns: int) -> tuple[Array, Array] | None:
            sent = [self._library.there(part) for part in parts]
            bias = rows.halves
            if mask is not None:
                bias = self._library.biases(bias, self._library.there(np.ascontiguousarray(mask)))
            return self._tiles(sent, rows, None if bias is None else bias * scale, k, columns)

        found = self._attempt(run, len(queries), rows.n)
        if found is None:
            return None
        scores = found[0].astype(np.float64) / scale
        return Candidates(scores, np.where(np.isneginf(scores), -1, found[1]).astype(np.int64), lost)

    def nearest(self, vectors: Any, centroids: Array) -> tuple[Array, Array] | None:
        """The nearest centroid of each vector.

        Parameters
        ----------
        vectors : float32 (n, dim), of NumPy or of numba-cuda
        centroids : float32 (k, dim)

        Returns
        -------
        tuple : their numbers, int32 (n,), and ``<x, c> - |c|^2 / 2``, float32 (n,), of which a centroid may be as
            near as the rounding of float32 sums allows, and any one of equals; None as of :meth:`best`
        """
        halves = (-0.5 * np.square(centroids, dtype=np.float64).sum(axis=1)).astype(np.float32)
        nearest, best = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)

        def run(rows: int) -> tuple[Array, Array] | None:
            values, chosen, biases = (self._library.there(array) for array in (vectors, centroids, halves))
            for first in range(0, len(best), rows):
                deadline.check()
                scores = self._library.product(values[first : first + rows], chosen, biases)
                if not self.usable():
                    return None
                found = self._library.greatest(scores)
                best[first : first + rows], nearest[first : first + rows] = (self._library.here(one) for one in found)
            return nearest, best

        return self._attempt(run, len(centroids), len(best))

    def _split(self, queries: Array, rows: ProductRows) -> tuple[list[Array], float, Array]:
        """Queries as what is multiplied, whose sum over the scale they are but for what is lost."""
        if not (rows.narrow and not self._wide and self._library.mixed()):
            return [queries], 1.0, np.zeros(len(queries))
        _, exponent = np.frexp(float(np.abs(queries).max(initial=0)))
        # Within limits, so that halves neither overflow nor vanish; what they cost is in what is lost.
        scale = float(np.ldexp(1.0, int(np.clip(HALF_EXPONENT - exponent, -120, 20))))
        wide = queries.astype(np.float64) * scale
        high = wide.astype(np.float16)
        low = (wide - high).astype(np.float16)
        rest = np.linalg.norm(wide - high - low, axis=1) / scale
        # Sums of tensor cores are cut off, not rounded, and there are two of them.
        added = 2 * EPS * (rows.dim + 4) * np.linalg.norm(wide, axis=1) / scale
        return [high, low], scale, rest + added

    def _tiles(
        self, parts: list[Any], rows: ProductRows, bias: Any | None, k: int, columns: int
    ) -> tuple[Array, Array] | None:
        """Scores and rows of the best of all tiles; None if products were of fewer bits."""
        library, scores, places = self._library, [], []
        for first in range(0, rows.n, columns):
            deadline.check()
            tile = rows.values[first : first + columns]
            product = library.product(parts[0], tile, None if bias is None else bias[first : first + columns])
            for part in parts[1:]:
                product += library.product(part, tile, None)
            if not self.usable() or (len(parts) > 1 and not library.mixed()):
                return None
            values, at = library.best(product, min(k, len(tile)))
            del product
            scores.append(values)
            places.append(at + first)
            if len(scores) == TOGETHER or first + columns >= rows.n:
                held = sum(values.shape[1] for values in scores)
                merged = library.merged(scores, places, min(k, held))
                scores, places = [merged[0]], [merged[1]]
        return library.here(scores[0]), library.here(places[0])

    def _attempt(
        self, run: Callable[[int], tuple[Array, Array] | None], wide: int, n: int
    ) -> tuple[Array, Array] | None:
        """What a call finds in tiles of ``wide`` scores by as many as there is memory for."""
        step = min(max(1, n), max(self._least, self._score_bytes // (self._library.score_bytes * max(1, wide))))
        while True:
            try:
                if not self.usable():
                    return None
                with self._device.active(), self._library.active():
                    return run(step)
            except GinghamError:
                raise
            except Exception as error:
                if not isinstance(error, self._library.out_of_memory):
                    self._failed = True
                    _log.warning("device='cuda:%d' uses %s no more: %s", self._device.number, self.name, error)
                    return None
                if step <= self._least:
                    raise ResourceExhausted(
                        f"device='cuda:{self._device.number}' expects room for {step} scores of {wide} vectors, "
                        f"found less: {error}; use device='cpu'"
                    ) from error
            step = max(self._least, step // 2)
            self._score_bytes = step * self._library.score_bytes * max(1, wide)

    def test(self) -> None:
        """Find the best of a few rows; raise NoDevice if they are others, or scores are off by more than they may."""
        if not self._library.precise():
            raise NoDevice(f"products of float32 expect {self.name} not to allow TF32, found it allowed; forbid it")
        rng = np.random.default_rng(0)
        queries, rows = rng.standard_normal((8, 64), np.float32), rng.standard_normal((300, 64), np.float32)
        for values in (rows, rows.astype(np.float16)):
            right = self._true(queries, values)
            if not right and values.dtype == np.float16:
                self._wide = True
                right = self._true(queries, values)
            if not right:
                raise NoDevice(
                    f"products expect {self.name} to find the rows that NumPy finds, found others on "
                    f"cuda:{self._device.number}; update it"
                )

    def _true(self, queries: Array, rows: Array) -> bool:
        """Whether the best 8 rows are found, and their scores are right."""
        halves = np.linspace(0, 8, len(rows), dtype=np.float32)
        found = self.best(queries, self.copy(rows, halves), None, 8)
        if found is None:
            return False
        expected = queries.astype(np.float64) @ rows.T.astype(np.float64) - halves
        lengths, longest = np.linalg.norm(queries, axis=1), np.linalg.norm(rows.astype(np.float64), axis=1).max()
        allowed = EPS * (rows.shape[1] + 4) * (lengths * longest + 8) + found.lost * longest
        off = np.abs(np.take_along_axis(expected, found.rows, 1) - found.scores).max(axis=1)
        least = np.sort(expected, axis=1)[:, -8] - 2 * allowed
        return bool((off <= allowed).all() and (found.scores.min(axis=1) >= least).all())


@cache
def find_products(device: Device) -> Products | None:
    """Products by PyTorch if the process has it already, else by CuPy, else by PyTorch; None where none works.

    Notes
    -----
    A library that fails its test is logged once. One that is missing, or is made for computers without a device, is
    not. Neither is imported where a test of kernels simulates a device.
    """
    import numba.core.config

    settings: Any = numba.core.config
    if settings.ENABLE_CUDASIM:
        return None
    makers: dict[str, Callable[[], Library]] = {
        "torch": lambda: Torch(f"cuda:{device.number}"), "cupy": lambda: Cupy(device.number)
    }  # fmt: skip
    for name in ("torch", "cupy") if "torch" in sys.modules else ("cupy", "torch"):
        if find_spec(name) is None:
            continue
        try:
            products = DeviceProducts(makers[name](), device)
        except Exception as error:
            _log.info("device='cuda:%d' does not use %s: %s", device.number, name, error)
            continue
        try:
            products.test()
        except Exception as error:
            _log.warning("device='cuda:%d' does not use %s: %s", device.number, name, error)
            continue
        return products
    return None
