"""The inverted index: for each term the rows that have it, with a value, in ascending order of row.

A term is a 64-bit key: the hash of a word, or the number of a dimension of a sparse vector. The score of a row
is the sum, over the terms of the query, of weight times impact. The impact of a value is the value itself
(inner product of sparse vectors), or that of BM25, value / (value + norm of the row).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gingham.deadline import check
from gingham.errors import Corrupt
from gingham.index.warmup import ready_kernels
from gingham.parallel import get_threads, run_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, Any]

KERNELS = "gingham.index.inverted_kernels"
BLOCK = 128
"""Postings that share one bound; the same number stands in the kernels."""
SLACK = 1 + 1e-5
"""Covers the rounding of sums of bounds: 64 terms of float32 lose less than 1e-5."""
SLICE_POSTINGS = 1 << 24
"""Postings of one kernel call, but for a single query: about 30 ms, after which deadlines are checked."""
THREAD_POSTINGS = 1 << 18
"""Postings below which a second thread does not pay."""
MERGE_POSTINGS = 1 << 22
"""Postings merged at once: sorting them takes about 150 MB beside the result."""

DTYPES = {
    "keys": "<u8",
    "starts": "<i8",
    "rows": "<u4",
    "values": "<f4",
    "bounds": "<f4",
    "bound_starts": "<i8",
    "lengths": "<f4",
    "position_starts": "<i8",
    "positions": "<u4",
}
"""The arrays of an index and their types, as they are stored."""


@dataclass(frozen=True)
class InvertedIndex:
    """Postings of consecutive rows; immutable.

    Attributes
    ----------
    n_rows : rows covered, those without a posting included
    keys : uint64 (n_terms,), ascending
    starts : int64 (n_terms + 1,), where the postings of each term begin
    rows, values : uint32 and float32 (n_postings,), ascending rows within a term; values above 0
    bounds : float32, per block of 128 postings of a term the greatest impact, under ``average_length``
    bound_starts : int64 (n_terms,), where the bounds of each term begin
    average_length : what the bounds were made with; 0 for inner products
    lengths : float32 (n_rows,), terms of each row, NaN where a row has no text; empty for inner products
    position_starts, positions : where each posting's positions begin, and the positions; empty where not kept
    """

    n_rows: int
    keys: Array
    starts: Array
    rows: Array
    values: Array
    bounds: Array
    bound_starts: Array
    average_length: float
    lengths: Array
    position_starts: Array
    positions: Array

    @classmethod
    def empty(cls, n_rows: int) -> Self:
        """An index of rows that have nothing."""
        arrays = {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
        arrays["starts"] = np.zeros(1, np.int64)
        return cls(n_rows=n_rows, average_length=0.0, **arrays)

    def arrays(self) -> dict[str, Array]:
        """The arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name in DTYPES}

    @classmethod
    def from_arrays(cls, n_rows: int, average_length: float, arrays: Mapping[str, Array]) -> Self:
        """Invert :meth:`arrays`, without copying."""
        return cls(n_rows=n_rows, average_length=average_length, **arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def is_text(self) -> bool:
        """Whether rows have lengths."""
        return len(self.lengths) > 0

    def check(self) -> None:
        """Raise Corrupt where the arrays do not fit each other; kernels follow them without looking."""
        n = len(self.rows)
        ok = (
            len(self.starts) == len(self.keys) + 1
            and len(self.values) == n
            and self.starts[0] == 0
            and self.starts[-1] == n
            and len(self.bound_starts) == len(self.keys)
            and len(self.lengths) in (0, self.n_rows)
            and len(self.position_starts) in (0, n + 1)
        )
        if not ok:
            raise Corrupt("the arrays of an inverted index do not fit each other; run verify()")

    def spans(self, keys: Array) -> tuple[Array, Array, Array]:
        """Per key the number of its term (-1 where it has none) and where its postings begin and end."""
        terms = np.searchsorted(self.keys, keys)
        terms[terms == len(self.keys)] = 0
        known = self.keys[terms] == keys if len(self.keys) else np.zeros(len(keys), np.bool_)
        starts = np.where(known, self.starts[terms], 0)
        ends = np.where(known, self.starts[terms + 1], 0) if len(self.keys) else starts
        return np.where(known, terms, -1), starts, ends

    def rows_of(self, key: int) -> Array:
        """Ascending rows that have a term."""
        _, starts, ends = self.spans(np.array([key], np.uint64))
        return self.rows[starts[0] : ends[0]]


@dataclass(frozen=True)
class Bm25:
    """Okapi BM25 in the form of Lucene 8 and later, without the constant factor k1 + 1.

    impact = tf / (tf + k1 (1 - b + b length / average length)), weight = idf =
    ln(1 + (N - df + 0.5) / (df + 0.5)) (Robertson and Zaragoza 2009, Foundations and Trends in Information
    Retrieval 3(4), section 3.4; the idf that is never negative is that of Lucene's BM25Similarity).

    Attributes
    ----------
    k1 : saturation of the term frequency, from 0; 0.9 as in Anserini
    b : share of length normalisation, 0 to 1; 0.4 as in Anserini
    """

    k1: float = 0.9
    b: float = 0.4

    def norms(self, lengths: Array, average_length: float) -> Array:
        """Per row what stands beside the term frequency in the denominator, float32."""
        scale = self.b / average_length if average_length else 0.0
        out: Array = (self.k1 * ((1 - self.b) + scale * lengths.astype(np.float64))).astype(np.float32)
        return out

    def idf(self, rows: float, frequencies: Array) -> Array:
        """Weight of terms that occur in ``frequencies`` of ``rows`` rows, float32."""
        out: Array = np.log1p((rows - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        return out


def from_pairs(
    n_rows: int,
    keys: Array,
    terms: Array,
    rows: Array,
    *,
    values: Array | None = None,
    positions: Array | None = None,
    lengths: Array | None = None,
    bm25: Bm25 | None = None,
) -> InvertedIndex:
    """Build an index of (term, row) pairs in any order.

    Parameters
    ----------
    keys : uint64 (n_terms,), distinct, in any order
    terms : int64 (n,), which of ``keys`` each pair has
    rows : int64 (n,), below ``n_rows``
    values : float32 (n,), one for each distinct pair; None counts how often a pair occurs
    positions : uint32 (n,), ascending within a row, to be kept
    lengths : float32 (n_rows,) for text
    bm25 : the similarity that bounds are made for; None is the inner product
    """
    order = np.argsort(keys)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    combined = rank[terms] * n_rows + rows
    if values is None and positions is None:
        combined.sort()
        moved = None
    else:
        moved = np.argsort(combined, kind="stable")
        combined = combined[moved]
    first = np.flatnonzero(np.append(True, combined[1:] != combined[:-1])) if len(combined) else np.empty(0, np.int64)
    distinct = combined[first]
    counts = np.diff(np.append(first, len(combined)))
    used = np.bincount(distinct // max(n_rows, 1), minlength=len(keys))
    present = used > 0
    return _finish(
        n_rows,
        keys[order][present],
        np.concatenate([[0], np.cumsum(used[present])]).astype(np.int64),
        (distinct % max(n_rows, 1)).astype(np.uint32),
        counts.astype(np.float32) if values is None or moved is None else values[moved].astype(np.float32),
        lengths,
        bm25,
        np.append(first, len(combined)) if positions is not None else np.empty(0, np.int64),
        positions[moved] if positions is not None else np.empty(0, np.uint32),
    )


def _finish(
    n_rows: int,
    keys: Array,
    starts: Array,
    rows: Array,
    values: Array,
    lengths: Array | None,
    bm25: Bm25 | None,
    position_starts: Array,
    positions: Array,
) -> InvertedIndex:
    """Add the bounds of the blocks."""
    average = 0.0
    impacts = values
    if bm25 is not None and lengths is not None:
        present = lengths[~np.isnan(lengths)]
        average = float(present.sum(dtype=np.float64) / len(present)) if len(present) else 0.0
        impacts = values / (values + bm25.norms(lengths, average)[rows])
    firsts, bound_starts = _blocks(starts)
    bounds = np.maximum.reduceat(impacts, firsts) if len(firsts) else np.empty(0, np.float32)
    return InvertedIndex(
        n_rows=n_rows,
        keys=keys,
        starts=starts,
        rows=rows,
        values=values,
        bounds=bounds.astype(np.float32),
        bound_starts=bound_starts,
        average_length=average,
        lengths=np.empty(0, np.float32) if lengths is None else lengths,
        position_starts=position_starts.astype(np.int64),
        positions=positions.astype(np.uint32),
    )


def _blocks(starts: Array) -> tuple[Array, Array]:
    """First posting of every block, and the first block of every term: each term begins one."""
    counts = -(-np.diff(starts) // BLOCK)
    first = np.cumsum(counts) - counts
    return ranges(np.zeros(len(counts), np.int64), counts) * BLOCK + np.repeat(starts[:-1], counts), first


def merge(sources: Sequence[tuple[InvertedIndex, Array]], n_rows: int, *, bm25: Bm25 | None = None) -> InvertedIndex:
    """One index of several.

    Parameters
    ----------
    sources : indexes, each with int64 (its n_rows,): the new number of each row, -1 where it is left out
    n_rows : rows of the result
    bm25 : the similarity that bounds are made for; None is the inner product

    Notes
    -----
    Terms are merged in ranges of about 4 million postings, so that sorting takes bounded memory.
    """
    keys = np.unique(np.concatenate([s.keys for s, _ in sources])) if sources else np.empty(0, np.uint64)
    totals = np.zeros(len(keys), np.int64)
    for source, _ in sources:
        totals[np.searchsorted(keys, source.keys)] += np.diff(source.starts)
    pieces, start = [], 0
    ends = np.cumsum(totals)
    while start < len(keys):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + MERGE_POSTINGS, side="right")))
        pieces.append(_merge_terms(sources, keys[start:stop], n_rows))
        start = stop
    lengths = None
    if bm25 is not None:
        lengths = np.full(n_rows, np.nan, np.float32)
        for source, new in sources:
            if source.is_text:
                lengths[new[new >= 0]] = source.lengths[new >= 0]
    counts = np.concatenate([p[0] for p in pieces]) if pieces else np.empty(0, np.int64)
    used = counts > 0
    position_counts = np.concatenate([p[3] for p in pieces]) if pieces else np.empty(0, np.int64)
    with_positions = any(len(s.position_starts) for s, _ in sources)
    return _finish(
        n_rows,
        keys[used],
        np.concatenate([[0], np.cumsum(counts[used])]).astype(np.int64),
        _joined([p[1] for p in pieces], np.uint32),
        _joined([p[2] for p in pieces], np.float32),
        lengths,
        bm25,
        np.concatenate([[0], np.cumsum(position_counts)]) if with_positions else np.empty(0, np.int64),
        _joined([p[4] for p in pieces], np.uint32),
    )


def _joined(pieces: list[Array], dtype: Any) -> Array:
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def _merge_terms(
    sources: Sequence[tuple[InvertedIndex, Array]], keys: Array, n_rows: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Postings of some keys: count per key; rows, values, count of positions per posting; positions."""
    combined, values, origins, places = [], [], [], []
    for number, (source, new) in enumerate(sources):
        low, high = np.searchsorted(source.keys, [keys[0], keys[-1] + np.uint64(0)], side="left")
        if high < len(source.keys) and source.keys[high] == keys[-1]:
            high += 1
        begin, end = int(source.starts[low]), int(source.starts[high])
        terms = np.repeat(np.searchsorted(keys, source.keys[low:high]), np.diff(source.starts[low : high + 1]))
        rows = new[source.rows[begin:end]]
        live = np.flatnonzero(rows >= 0)
        combined.append(terms[live] * n_rows + rows[live])
        values.append(source.values[begin:end][live])
        origins.append(np.full(len(live), number))
        places.append(begin + live)
    whole = np.concatenate(combined)
    order = np.argsort(whole)
    whole = whole[order]
    counts = np.bincount(whole // max(n_rows, 1), minlength=len(keys))
    rows = (whole % max(n_rows, 1)).astype(np.uint32)
    position_counts, positions = np.empty(0, np.int64), np.empty(0, np.uint32)
    if any(len(s.position_starts) for s, _ in sources):
        position_counts, positions = _gather_positions(
            sources, np.concatenate(origins)[order], np.concatenate(places)[order]
        )
    return counts, rows, np.concatenate(values)[order], position_counts, positions


def _gather_positions(
    sources: Sequence[tuple[InvertedIndex, Array]], origins: Array, places: Array
) -> tuple[Array, Array]:
    """Positions of postings that lie in several sources, in the order given."""
    counts = np.zeros(len(places), np.int64)
    starts = np.zeros(len(places), np.int64)
    for number, (source, _) in enumerate(sources):
        mine = origins == number
        starts[mine] = source.position_starts[places[mine]]
        counts[mine] = source.position_starts[places[mine] + 1] - starts[mine]
    out = np.empty(int(counts.sum()), np.uint32)
    targets = np.cumsum(counts) - counts
    for number, (source, _) in enumerate(sources):
        mine = np.flatnonzero(origins == number)
        at = ranges(starts[mine], counts[mine])
        out[ranges(targets[mine], counts[mine])] = source.positions[at]
    return counts, out


def ranges(starts: Array, counts: Array) -> Array:
    """The numbers start, start + 1, ... of each range, one range after the other."""
    first = np.cumsum(counts) - counts
    return np.repeat(starts - first, counts) + np.arange(int(counts.sum()))


def search_inverted(
    index: InvertedIndex,
    keys: Array,
    weights: Array,
    query_starts: Array,
    k: int,
    *,
    norms: Array | None = None,
    slack: float = 1.0,
    allow: Array | None = None,
    floors: Array | None = None,
) -> tuple[Array, Array]:
    """Find the k best rows of each query among those that have one of its terms.

    Parameters
    ----------
    keys, weights : uint64 and float32 (n,), the terms of all queries, each once a query, and their weights above 0
    query_starts : int64 (n_queries + 1,), where the terms of each query begin
    k : at least 1
    norms : float32 (n_rows,) of :meth:`Bm25.norms`; None for the inner product
    slack : factor by which impacts may exceed the stored bounds
    allow : bool (n_rows,), the rows that may be found; None allows all
    floors : float32 (n_queries,), rows that score no more are not found

    Returns
    -------
    tuple : scores float32 (n_queries, k), descending, and rows int64 (n_queries, k); (-inf, -1) pads

    Notes
    -----
    Exact. Time is linear in the postings of the query's terms at most; blocks that cannot reach the k best
    are skipped.
    """
    n_queries = len(query_starts) - 1
    scores = np.full((n_queries, k), -np.inf, np.float32)
    if floors is not None:
        scores[:] = floors[:, None]
    rows = np.full((n_queries, k), -1, np.int64)
    terms, starts, ends = index.spans(keys)
    if len(index.rows) and np.any(terms >= 0):
        kernels = ready_kernels(KERNELS)
        if kernels is None:
            _search_numpy(index, starts, ends, weights, query_starts, norms, allow, scores, rows)
        else:
            weights = np.ascontiguousarray(weights, np.float32)
            bounds = index.bound_starts[terms]

            def search(queries: tuple[int, int]) -> None:
                low, high = queries
                kernels.search_postings(
                    index.rows.ctypes.data, index.values.ctypes.data, 0 if norms is None else norms.ctypes.data,
                    index.bounds.ctypes.data, 0 if allow is None else allow.ctypes.data, starts, ends,
                    bounds, weights, np.float32(slack * SLACK), query_starts[low : high + 1],
                    scores[low:high], rows[low:high],
                )  # fmt: skip
                kernels.sort_heaps(scores[low:high], rows[low:high])

            run_blocks(search, _query_blocks(ends - starts, query_starts))
    scores[rows < 0] = -np.inf
    return scores, rows


def _query_blocks(postings: Array, query_starts: Array) -> list[tuple[int, int]]:
    """Spans of queries with about equally many postings: one for each thread, and more where they would take long."""
    totals = np.concatenate([[0], np.cumsum(postings)])[query_starts]
    size = min(SLICE_POSTINGS, max(THREAD_POSTINGS, -(-int(totals[-1]) // get_threads())))
    cuts = np.searchsorted(totals, np.arange(size, totals[-1] + size, size)).clip(1, len(query_starts) - 1)
    edges = np.unique(np.concatenate([[0], cuts, [len(query_starts) - 1]]))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _search_numpy(
    index: InvertedIndex,
    starts: Array,
    ends: Array,
    weights: Array,
    query_starts: Array,
    norms: Array | None,
    allow: Array | None,
    scores: Array,
    rows: Array,
) -> None:
    """The same search while kernels are cold: term at a time into one array of scores."""
    k = scores.shape[1]
    for q in range(len(query_starts) - 1):
        check()
        total = score_all(index, starts, ends, weights, range(query_starts[q], query_starts[q + 1]), norms)
        good = total > max(0.0, scores[q, 0])
        if allow is not None:
            good &= allow
        found = np.flatnonzero(good)
        best = found[np.lexsort((found, -total[found]))[:k]]
        scores[q], rows[q] = -np.inf, -1
        scores[q, : len(best)], rows[q, : len(best)] = total[best], best


def score_all(
    index: InvertedIndex, starts: Array, ends: Array, weights: Array, terms: range, norms: Array | None
) -> Array:
    """Score of every row, 0 where it has none of the terms: float32 (n_rows,), summed in the order of the terms."""
    total = np.zeros(index.n_rows, np.float32)
    for t in terms:
        rows, values = index.rows[starts[t] : ends[t]], index.values[starts[t] : ends[t]]
        impact = values if norms is None else values / (values + norms[rows])
        total[rows] += np.float32(weights[t]) * impact
    return total
