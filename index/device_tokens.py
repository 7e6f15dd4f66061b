"""Late interaction on an NVIDIA device, which chooses the documents that the CPU then scores by their codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gingham import deadline
from gingham.codecs import cuda_searches
from gingham.codecs.cuda_rows import check_room, told_of_memory
from gingham.codecs.maxsim import level_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.codecs.devices import Device
    from gingham.codecs.maxsim import QueryTokens
    from gingham.codecs.token_products import TokenProducts
    from gingham.codecs.token_residuals import TokenResiduals
    from gingham.index.device_copies import Resident

    Array = np.ndarray[Any, Any]

UPLOAD_TOKENS = 1 << 18
"""Tokens that are made ready for the device at once."""
CENTROID_BYTES = 128 << 20
"""Products of centroids and queries, at most, that one launch takes."""
MOST_QUERIES = 1024


class Asked(NamedTuple):
    """A query, and the documents that are to be scored.

    Attributes
    ----------
    query : as centroids and codes are
    centroid_scores : float32 (n_centroids, 16 n)
    documents : int64 (m,)
    """

    query: QueryTokens
    centroid_scores: Array
    documents: Array


@dataclass(frozen=True, eq=False)
class TokensThere:
    """Coded tokens on a device, a byte for each dimension.

    Attributes
    ----------
    words, scales, ids, starts : as of :func:`gingham.codecs.cuda_searches.maxsim_near`
    largest : of the scales
    nbytes : of all
    """

    words: Any
    scales: Any
    ids: Any
    starts: Any
    largest: float
    nbytes: int

    @classmethod
    def of(
        cls, residuals: TokenResiduals | TokenProducts, codes: Array, ids: Array, starts: Array, device: Device,
        budget: int | None = None,
    ) -> TokensThere:  # fmt: skip
        """Copy tokens; raises ResourceExhausted."""
        n, width = len(ids), _width(residuals)
        needed = token_bytes(residuals, n, len(starts))
        check_room(needed, device, budget)
        scales = np.empty(n, np.float32)
        with device.active(), told_of_memory(device):
            words = cuda_searches.room_for(n, width // 4)
            for start in range(0, n, UPLOAD_TOKENS):
                deadline.check()
                part = slice(start, min(start + UPLOAD_TOKENS, n))
                levels, scales[part] = residuals.bytes_of(codes[part])
                wide = np.pad(levels, ((0, 0), (0, width - levels.shape[1])))
                words[part].copy_to_device(np.ascontiguousarray(wide).view(np.int32))
            there = cuda_searches.on_device(ids), cuda_searches.on_device(starts)
            largest = float(np.abs(scales).max(initial=0))
            return cls(words, cuda_searches.on_device(scales), *there, largest, needed)

    def scores(self, asked: Sequence[Asked], parameters: Sequence[Array], documents: Array) -> Array:
        """Of documents, int64 (n_queries or 1, m), -1 for none: float32 (n_queries, m)."""
        tokens = max(len(one.query.tokens) for one in asked)
        width = 4 * self.words.shape[1]
        integers = np.zeros((len(asked), tokens, width), np.int8)
        factors = np.zeros((len(asked), 2, tokens), np.float32)
        centroids = np.zeros((len(asked), len(asked[0].centroid_scores), tokens), np.float32)
        for i, (one, own) in enumerate(zip(asked, parameters, strict=True)):
            count = len(one.query.tokens)
            integers[i, :count, : one.query.dim] = one.query.integers[:count]
            factors[i, :, :count], centroids[i, :, :count] = own[:, :count], one.centroid_scores[:, :count]
        return cuda_searches.maxsim_near(
            self.words, self.scales, self.ids, self.starts, documents, integers, factors, centroids
        )


def token_bytes(residuals: TokenResiduals | TokenProducts, n: int, n_starts: int) -> int:
    """Bytes of n tokens on a device."""
    return n * (_width(residuals) + 8) + 8 * n_starts


def near_documents(
    resident: Resident, residuals: TokenResiduals | TokenProducts, codes: Array, ids: Array, starts: Array,
    asked: Sequence[Asked], wanted: int,
) -> list[tuple[Array, float]] | None:  # fmt: skip
    """The documents that score best on a device, ascending, and what no other can score more than by the CPU.

    Returns
    -------
    list : for each query; None where the CPU is to score all: too little to do, or a device that fails under ``"auto"``

    Raises
    ------
    NoDevice, ResourceExhausted : a device was asked for, and fails or has no room

    Notes
    -----
    Integers there and here are the same. The floats that are made of them, and sums over query tokens, differ by
    rounding: of n numbers by about n eps times the sum of their sizes (Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2).
    """
    products = sum(len(one.query.padded) * _tokens(starts, one.documents) for one in asked) * _width(residuals)
    sent = sum(one.centroid_scores.nbytes for one in asked)
    if not resident.copies.takes_products(products, sent):
        return None

    def run(device: Device) -> list[tuple[Array, float]]:
        there = resident.copies.kept(
            resident.key, token_bytes(residuals, len(ids), len(starts)),
            lambda left: TokensThere.of(residuals, codes, ids, starts, device, left), device,
        )  # fmt: skip
        largest = max(one.centroid_scores.nbytes for one in asked)
        step, found = max(1, min(MOST_QUERIES, CENTROID_BYTES // largest)), []
        for start in range(0, len(asked), step):
            deadline.check()
            some = asked[start : start + step]
            parameters = [level_parameters(one.query, residuals.levels) for one in some]
            with device.active(), told_of_memory(device):
                scores = there.scores(some, parameters, _lines([one.documents for one in some]))
            for one, own, line in zip(some, parameters, scores, strict=True):
                error = _error(one, own, there.largest)
                found.append(_best(one.documents, line[: len(one.documents)], wanted, error))
        return found

    return resident.attempt(run)


def _best(documents: Array, scores: Array, wanted: int, error: float) -> tuple[Array, float]:
    if len(documents) <= wanted:
        return documents, -np.inf
    order = np.argpartition(scores, -wanted)
    best = order[-wanted:]
    return np.sort(documents[best]), float(scores[order[:-wanted]].max()) + error


def _error(asked: Asked, parameters: Array, largest_scale: float) -> float:
    """How far scores of a device and of the CPU may lie apart."""
    query = asked.query
    sizes = np.abs(query.integers.astype(np.int64)).sum(axis=1) * 255.0
    of_codes = np.abs(parameters[0]) * sizes + np.abs(parameters[1])
    most = np.abs(asked.centroid_scores).max(axis=0, initial=0) + largest_scale * of_codes
    return float(2 * (len(most) + 8) * np.finfo(np.float32).eps * most.sum(dtype=np.float64))


def _lines(lists: list[Array]) -> Array:
    """Lists of documents side by side, -1 after the last; one line where all are the same."""
    if all(one is lists[0] or np.array_equal(one, lists[0]) for one in lists):
        return lists[0][None]
    lines = np.full((len(lists), max(len(one) for one in lists)), -1, np.int64)
    for line, one in zip(lines, lists, strict=True):
        line[: len(one)] = one
    return lines


def _tokens(starts: Array, documents: Array) -> int:
    return int((starts[documents + 1] - starts[documents]).sum())


def _width(residuals: TokenResiduals | TokenProducts) -> int:
    return -(-int(residuals.centroids.shape[1]) // 4) * 4
