"""Rows of collections on an NVIDIA device: which searches go there, and copies of rows under a budget of memory.

A device takes batches. A launch from Python costs 1 ms, in which 16 cores read some 90 MB of codes; copying rows costs
what 16 cores need to scan them for 16 queries (1M rows of 384 bytes on an H200, `bench/gpu.py`). So there are two bars:
:data:`LEAST_QUERIES`, and :data:`LEAST_BYTES` of rows times queries. Below them the CPU scans, whatever was asked for.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from gingham.codecs import cuda_products
from gingham.codecs.cuda_products import ProductRows
from gingham.codecs.devices import find_device
from gingham.codecs.protocol import Codes
from gingham.codecs.scalar import Float
from gingham.errors import GinghamError, NoDevice, ResourceExhausted
from gingham.index.device_searches import Columns, column_bytes, column_scanner, scans_columns
from gingham.index.exact import KERNELS, merge_topk, prepare_queries, score_listed, search_exact
from gingham.index.two_stage import OVERSAMPLE, SPARE, search_codes
from gingham.index.warmup import ready_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gingham.codecs.cuda_products import Products
    from gingham.codecs.cuda_rows import DeviceTiles
    from gingham.codecs.devices import Device
    from gingham.codecs.protocol import Codec
    from gingham.codecs.row_scores import RowScores
    from gingham.index.two_stage import Scanner
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]
    T = TypeVar("T")

QUERIES = 1024
"""Queries that a device scans at once."""
LEAST_QUERIES = 16
LEAST_BYTES = 128 << 20
LEAST_WALKS = 512
"""Queries of a graph that go to a device. Estimated, not measured: two launches take 2 ms, in which 16 cores walk for
about as many, with 30 to 60 us a query."""
LEAST_PRODUCTS, BYTE_PRODUCTS = 1 << 33, 1024
"""Products of numbers of tokens that go to a device, and those for each byte of scores of centroids sent with them."""
KEPT = 4096
"""Rows of so many blobs are known at most."""
UNIT = 1e-5
"""Lengths that differ from one by less make inner products of cosine similarities; the error bound knows it."""
LARGEST = float(np.finfo(np.float32).max) / 4
"""Squared lengths above which sums of float32 could be infinite."""
_log = logging.getLogger(__name__)


class OnDevice(Protocol):
    """What a device holds."""

    @property
    def nbytes(self) -> int:
        """Of its memory that it takes."""
        ...


Kept = TypeVar("Kept", bound=OnDevice)


@dataclass(frozen=True)
class Bars:
    """Least batches that go to a device.

    Attributes
    ----------
    queries, nbytes : queries, and bytes of rows times queries
    walks, products : queries of a graph, and products of numbers of tokens; four times as many for ``"auto"``
    byte_products : products for each byte that is sent with them
    """

    queries: int = LEAST_QUERIES
    nbytes: int = LEAST_BYTES
    walks: int = LEAST_WALKS
    products: int = LEAST_PRODUCTS
    byte_products: int = BYTE_PRODUCTS


class DeviceCopies:
    """A device and the rows on it.

    Parameters
    ----------
    asked : ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; ``"auto"`` looks for a device when the first batch comes
        that is large enough
    budget : bytes of all rows there; None takes what is free
    bars : which batches go there
    device : to use, in place of the one asked for
    tiles : ``least``, ``capacity`` and ``sorters`` of :class:`gingham.codecs.cuda_rows.DeviceTiles`

    Raises
    ------
    InvalidArgument, MissingExtra, NoDevice : as of :func:`gingham.codecs.devices.find_device`
    """

    def __init__(
        self,
        asked: str = "auto",
        *,
        budget: int | None = None,
        bars: Bars | None = None,
        device: Device | None = None,
        **tiles: int,
    ) -> None:
        self._asked, self._budget, self._bars, self._tiles = asked, budget, bars or Bars(), tiles
        self._must = asked not in ("auto", "cpu")
        self._device = find_device(asked) if device is None and self._must else device
        self._off, self._told = asked == "cpu", False
        self._copies: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of rows that stay on the device."""
        with self._lock:
            return sum(copy.nbytes for copy in self._copies.values())

    def of(self, key: Hashable) -> Resident:
        """Rows under a key that names their content."""
        return Resident(self, key)

    def takes(self, n_queries: int, nbytes: int) -> bool:
        """Whether a batch is large enough."""
        return not self._off and n_queries >= self._bars.queries and n_queries * nbytes >= self._bars.nbytes

    def takes_walks(self, n_queries: int) -> bool:
        """Whether there are queries enough to walk over a graph."""
        return not self._off and n_queries >= self._bars.walks * (1 if self._must else 4)

    def takes_products(self, products: int, sent: int) -> bool:
        """Whether there are products of tokens enough, for so many bytes that are sent with them."""
        least = max(self._bars.products, self._bars.byte_products * sent)
        return not self._off and products >= least * (1 if self._must else 4)

    def attempt(self, run: Callable[[Device], T | None]) -> T | None:
        """What some work gives on the device; None where the CPU is to do it.

        Raises
        ------
        NoDevice, ResourceExhausted : a device was asked for, and fails or has no room

        Notes
        -----
        ``"auto"`` logs the first failure, and uses the device no more, unless it was only memory that was missing.
        """
        if self._off:
            return None
        try:
            if self._device is None:
                self._device = find_device(self._asked)
                if self._device is None:
                    self._off = True
                    return None
            return run(self._device)
        except Exception as error:
            if isinstance(error, GinghamError) and (self._must or not isinstance(error, (NoDevice, ResourceExhausted))):
                raise
            if not self._must:
                if not self._told:
                    _log.warning("device=%r takes the CPU: %s", self._asked, error)
                self._told, self._off = True, not isinstance(error, ResourceExhausted)
                with self._lock:
                    self._copies.clear()
                return None
            raise NoDevice(f"device={self._asked!r} failed: {error}; use device='cpu'") from error

    def kept(self, key: Hashable, needed: int, make: Callable[[int | None], Kept], device: Device) -> Kept:
        """What is there under a key, or is made now; what was used longest ago makes room for it.

        Parameters
        ----------
        needed : bytes that it is to take
        make : from the bytes that are left of the budget, None without one
        """
        with self._lock:
            if key in self._copies:
                self._copies.move_to_end(key)
                there: Kept = self._copies[key]
                return there
            room = device.free_bytes() if self._budget is None else self._budget
            held = sum(copy.nbytes for copy in self._copies.values()) if self._budget is not None else 0
            while self._copies and (held + needed > room or len(self._copies) >= KEPT):
                held -= self._copies.popitem(last=False)[1].nbytes
                room = device.free_bytes() if self._budget is None else self._budget
            made = make(None if self._budget is None else max(0, self._budget - held))
            self._copies[key] = made
            return made

    def tiles(self, key: Hashable, rows: RowScores, n: int, device: Device) -> DeviceTiles:
        """Rows there."""
        from gingham.codecs.cuda_rows import DeviceTiles

        made: DeviceTiles = self.kept(
            key, n * rows.stride, lambda left: DeviceTiles(rows, n, device, budget=left, **self._tiles), device
        )
        return made


@dataclass(frozen=True, eq=False)
class Resident:
    """Rows that may be on a device.

    Attributes
    ----------
    copies : where
    key : of their content
    told : takes the name of the device whenever it has done something, or None
    """

    copies: DeviceCopies
    key: Hashable
    told: list[str] | None = None

    def telling(self, told: list[str]) -> Resident:
        """The same, which adds the device to a list when it has done something."""
        return Resident(self.copies, self.key, told)

    def attempt(self, run: Callable[[Device], T | None]) -> T | None:
        """As :meth:`DeviceCopies.attempt`."""

        def noted(device: Device) -> T | None:
            found = run(device)
            if found is not None and self.told is not None:
                self.told.append(f"cuda:{device.number}")
            return found

        return self.copies.attempt(noted)

    def search_codes(self, codec: Codec, codes: Codes, queries: Array, k: int, **options: Any) -> tuple[Array, Array]:
        """As :func:`gingham.index.two_stage.search_codes`, with the same bits."""

        def run(device: Device) -> tuple[Array, Array] | None:
            scanner = self._scanner(codec, codes, queries[:1], device)
            return None if scanner is None else search_codes(codec, codes, queries, k, scanner=scanner, **options)

        large = self.copies.takes(len(queries), codes.n * codec.code_size)
        found = self.attempt(run) if large else None
        return search_codes(codec, codes, queries, k, **options) if found is None else found

    def search_exact(
        self,
        queries: Array,
        vectors: Array,
        norms: Array,
        k: int,
        *,
        metric: Metric,
        allow: Array | None = None,
        base: int = 0,
        min_score: float | None = None,
    ) -> tuple[Array, Array]:
        """As :func:`gingham.index.exact.search_exact`, with the same bits.

        Notes
        -----
        The device selects candidates. A query whose candidates are closer together than the rounding of float32 sums
        is searched by the CPU, so the result is exact. Rows of cosine have length one, or the CPU searches all. Where
        PyTorch or CuPy is installed and the rows fit, candidates come from products of cuBLAS.
        """
        found = None
        if self.copies.takes(len(queries), vectors.nbytes):
            found = self.attempt(lambda device: self._exact(queries, vectors, norms, k, metric, allow, device))
        if found is None:
            return search_exact(queries, vectors, norms, k, metric=metric, allow=allow, base=base, min_score=min_score)
        scores, rows = found
        if min_score is not None:
            short = scores < np.float32(min_score)
            scores[short], rows[short] = -np.inf, -1
        rows[rows >= 0] += base
        return scores, rows

    def _scanner(self, codec: Codec, codes: Codes, query: Array, device: Device) -> Scanner | None:
        coded = codec.row_scores(codec.prepare(query), codes)
        if coded is not None:
            return _Scans(codec, codes, self.copies.tiles(self.key, coded, codes.n, device))
        if not scans_columns(codec):
            return None
        columns = self.copies.kept(self.key, column_bytes(codes), lambda left: Columns.of(codes, device, left), device)
        return column_scanner(codec, codes, columns, device)

    def _exact(
        self, queries: Array, vectors: Array, norms: Array, k: int, metric: Metric, allow: Array | None, device: Device
    ) -> tuple[Array, Array] | None:
        wide, there = min(len(vectors), OVERSAMPLE * k + SPARE), ~np.isnan(norms)
        if ready_kernels(KERNELS) is None or (metric == "cosine" and not _are_unit(norms[there])):
            return None
        prepared, mask, pieces = prepare_queries(queries, metric), there if allow is None else there & allow, []
        for start in range(0, len(queries), QUERIES):
            block = prepared[start : start + QUERIES]
            lengths, longest = _lengths(block, norms[there], metric)
            if not np.square(lengths.max() + longest) < LARGEST:
                return None
            candidates = self._candidates(block, vectors, norms, wide, metric, None if mask.all() else mask, device)
            if candidates is None:
                return None
            found, last, lost = candidates
            precise = score_listed(block, vectors, found, norms=norms, metric=metric)
            scores, rows = merge_topk([(precise, found)], k)
            error = _error(lengths, longest, vectors.shape[1], metric, lost)
            close = (found >= 0).all(axis=1) & ~(scores[:, -1] > last + error)
            for i in np.flatnonzero(close):
                own = queries[start + i : start + i + 1]
                scores[i : i + 1], rows[i : i + 1] = search_exact(own, vectors, norms, k, metric=metric, allow=allow)
            rows[np.isneginf(scores)] = -1
            pieces.append((scores, rows))
        return np.concatenate([s for s, _ in pieces]), np.concatenate([r for _, r in pieces])

    def _candidates(
        self, queries: Array, vectors: Array, norms: Array, k: int, metric: Metric, mask: Array | None, device: Device
    ) -> tuple[Array, Array, Array] | None:
        """The k best rows of each query, but for rounding: by products of a library if they fit, else by our kernels.

        Returns
        -------
        tuple : rows int64 (n_queries, k), C-contiguous, -1 pads; the least score of each query, float64; and what
            that is off by more than sums of float32 are, float64, times the length of a row. None for the CPU
        """
        products = cuda_products.find_products(device)
        if products is not None and products.usable():
            held, found = self._product_rows(products, vectors, norms, metric, device), None
            if isinstance(held, ProductRows):
                with suppress(ResourceExhausted):  # tiles of rows may need less than tiles of scores
                    found = products.best(queries, held, mask, k)
            if found is not None:
                least = found.scores.min(axis=1)
                if metric == "l2":
                    least = 2 * least - np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
                return np.ascontiguousarray(found.rows), least, found.lost
        codec = Float(vectors.shape[1], metric, "F16" if vectors.dtype == np.float16 else "F32")
        codes, prepared = Codes(len(vectors), {"vectors": vectors}), codec.prepare(queries)
        tiles = self.copies.tiles(self.key, codec.row_scores(prepared, codes), codes.n, device)
        if k > tiles.most:
            return None
        floors = np.full(len(queries), -np.inf, np.float32)
        rough, rows = _Scans(codec, codes, tiles).scan(queries, prepared, floors, k, mask)
        return np.ascontiguousarray(rows), rough[:, -1].astype(np.float64), np.zeros(len(queries))

    def _product_rows(
        self, products: Products, vectors: Array, norms: Array, metric: Metric, device: Device
    ) -> ProductRows | _NoRoom:
        """Vectors as products take them."""
        halves, absent = np.float32(0.5) * norms if metric == "l2" else None, np.isnan(norms)

        def make(left: int | None) -> ProductRows | _NoRoom:
            try:
                return products.copy(vectors, halves, absent if absent.any() else None, left)
            except ResourceExhausted:
                return _NoRoom()

        needed = vectors.nbytes + (0 if halves is None else halves.nbytes)
        return self.copies.kept((self.key, "products", metric), needed, make, device)


@dataclass(frozen=True)
class _NoRoom:
    """In place of rows that do not fit, so that they are not tried again."""

    nbytes: int = 0


@dataclass(frozen=True, eq=False)
class _Scans:
    """Of codes, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: Codec
    codes: Codes
    tiles: DeviceTiles
    queries: int = QUERIES

    @property
    def most(self) -> int:
        return self.tiles.most

    @property
    def exact(self) -> bool:
        return self.tiles.exact

    def scan(self, queries: Array, prepared: Any, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        coded = self.codec.row_scores(prepared, self.codes)
        assert coded is not None
        return self.tiles.scan(coded, floors, k, allow)


def _are_unit(norms: Array) -> bool:
    """Whether all lengths are one, or zero, of norms as of cosine."""
    return bool(((np.abs(norms - 1) < UNIT) | (norms == 0)).all())


def _lengths(queries: Array, norms: Array, metric: Metric) -> tuple[Array, float]:
    """Lengths of queries, float64, and of the longest row."""
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
    return lengths, 1 + UNIT if metric == "cosine" else float(np.sqrt(norms.max(initial=0), dtype=np.float64))


def _error(lengths: Array, longest: float, dim: int, metric: Metric, lost: Array) -> Array:
    """How far scores of float32 sums of any order may lie from those of the CPU, float64 (n_queries,).

    Parameters
    ----------
    lengths, longest : of :func:`_lengths`
    lost : float64 (n_queries,): times the length of a row, by how much more its product may be off

    Notes
    -----
    A sum of dim products is off by at most about dim * eps * |q| |x| (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1), on each side. A score of l2 is -|q|^2 and twice a product.
    """
    eps = (dim + 4) * float(np.finfo(np.float32).eps)
    if metric == "cosine":
        return np.asarray(2 * (eps + UNIT) * lengths + lost * longest)
    if metric == "dot":
        return np.asarray(2 * eps * lengths * longest + lost * longest)
    return np.asarray(2 * eps * np.square(lengths + longest) + 2 * lost * longest)
