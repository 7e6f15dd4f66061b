"""Search of a dense vector field over the parts of a collection, merged once.

A part is searched by its graph, by its lists, by its codes, or exactly; scores are those of the vectors always.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.index.device_graphs import DeviceWalker
from gingham.index.exact import merge_topk, prepare_queries, range_exact, search_exact
from gingham.index.graph_search import GraphSearch, Plan, plan_search
from gingham.index.two_stage import search_codes
from gingham.index.warmup import all_ready, load_cached
from gingham.query.effort import DEFAULT_EFFORT, Effort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.query.select import Candidates
    from gingham.schema import Dense
    from gingham.storage.part import Chunk, Coded, IndexedGraph, IndexedLists

    Array = np.ndarray[Any, Any]

MANY_VALUES = 1 << 27
"""Values that NumPy scans in the time that kernels take to load, half a second: for more the first search waits."""
EF_SEARCH = 64
"""Candidates of a graph that are scored from the vectors where the caller does not say."""
_RECALLING = Effort(target_recall=0.99)
"""What is looked for where the index was chosen by size and nothing else is said. It is measured with rows; questions,
which are unlike the passages that they find, find less: 0.97 of words and definitions, and of questions and passages
(MiniLM)."""
NPROBE = 16
"""Lists that are read of a segment where the caller does not say."""
UNMEASURED = 256
"""Those of a graph whose recall was never measured, since it was built before there were calibrations."""


def search_near(
    candidates: Sequence[Candidates],
    name: str,
    dense: Dense,
    queries: Array,
    k: int | None,
    radius: float | None,
    effort: Effort,
) -> list[tuple[Array, Array]]:
    """What :class:`NearSearch` finds."""
    return NearSearch(candidates, name, dense, k, radius, effort).run(queries)


class NearSearch:
    """A search of one field, planned part by part.

    Parameters
    ----------
    k : rows per query; None is all that reach ``radius``, found exactly
    radius : smallest score, or None
    """

    def __init__(
        self,
        candidates: Sequence[Candidates],
        name: str,
        dense: Dense,
        k: int | None,
        radius: float | None,
        effort: Effort,
    ) -> None:
        self._name = name
        self._dense = dense
        # All rows that reach the radius are wanted: a heap as deep as that would cost far more.
        ranged = k is None or (radius is not None and k >= sum(one.eligible for one in candidates))
        self._k = None if ranged else k
        self._radius = radius
        self._effort = _filled(effort, dense)
        values = sum(one.part.rows for one in candidates) * dense.dim
        scanned = self._k is None or effort.exact or not (all_ready() or (values >= MANY_VALUES and load_cached()))
        self._ways = [
            _exact(one, name) if scanned else _choose(one, name, dense, k or 0, self._effort) for one in candidates
        ]

    def run(self, queries: Array, served: Served | None = None) -> list[tuple[Array, Array]]:
        """Find the nearest rows of each query.

        Parameters
        ----------
        queries : float32 (n_queries, dim)
        served : takes note of the parts that a device has searched

        Returns
        -------
        list of tuple : per query float32 scores, descending, and int64 row ids, ties ascending

        Notes
        -----
        Time O(n_queries * rows * bytes of a vector or of a code), and with a graph that of its walk; rows a filter
        excludes are not scored.
        """
        if self._k is None:
            return [self._range(query) for query in queries]
        served = served or Served()
        pieces: list[tuple[Array, Array]] = []
        prepared: Array | None = None
        for number, way in enumerate(self._ways):
            depth, told = min(self._k, way.eligible), served.part(number)
            if way.coded is None:
                found = list(self._exact(way, queries, depth, told))
            else:
                prepared = prepare_queries(queries, self._dense.metric) if prepared is None else prepared
                found = [self._coded(way, way.coded, prepared, depth, told)]
            pieces += [(s, _taken(way.row_ids, at)) for s, at in found]
        if len(pieces) == 1 and pieces[0][0].shape[1] <= self._k:
            scores, rows = pieces[0]
        else:
            pieces.append((np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)))
            scores, rows = merge_topk(pieces, min(self._k, sum(s.shape[1] for s, _ in pieces)))
        if _is_full(rows):
            return [(scores[0], rows[0])]
        return [(s[r >= 0], r[r >= 0]) for s, r in zip(scores, rows, strict=True)]

    @cached_property
    def detail(self) -> str:
        """What is done, for ``explain``."""
        where = f"on {self._name!r} ({self._dense.metric}), {len(self._ways)} parts"
        counts = Counter(way.detail for way in self._ways)
        if len(counts) <= 1:
            return f"{next(iter(counts), _EXACT)} {where}"
        return f"{where}: " + "; ".join(f"{count} by {detail.rstrip(',')}" for detail, count in counts.items())

    def _exact(self, way: _Way, queries: Array, k: int, told: list[str]) -> Iterator[tuple[Array, Array]]:
        """Scores of vectors, and offsets in the part, of the best rows of each chunk."""
        for chunk, allow in way.chunks:
            depth = min(k, len(chunk.vectors) if allow is None else int(np.count_nonzero(allow)))
            if depth:
                search = search_exact if chunk.resident is None else chunk.resident.telling(told).search_exact
                yield search(
                    queries, chunk.vectors, chunk.norms, depth,
                    metric=self._dense.metric, allow=allow, base=chunk.start, min_score=self._radius,
                )  # fmt: skip

    def _coded(self, way: _Way, coded: Coded, queries: Array, k: int, told: list[str]) -> tuple[Array, Array]:
        """Scores of vectors, and offsets in the part, of the best rows that codes lead to."""
        if way.graph is not None:
            there, walker = coded.graph, None
            # Asked first, since a single query has no microseconds for what it does not need.
            if there is not None and there.resident is not None and there.resident.copies.takes_walks(len(queries)):
                walker = DeviceWalker(there.resident.telling(told), there.graph)
            scores, rows = way.graph.run(queries, k, way.ef, allow=way.allow, walker=walker)
        elif coded.lists is not None:
            scores, rows = coded.lists.search.run(
                queries, k, way.nprobe, oversample=self._effort.oversample, allow=way.allow
            )
        else:
            search = search_codes if coded.resident is None else coded.resident.telling(told).search_codes
            scores, rows = search(
                coded.codec, coded.codes, queries, k,
                rescore=coded.vectors.score, oversample=self._effort.oversample, allow=way.allow,
            )  # fmt: skip
        if self._radius is not None:
            short = scores < np.float32(self._radius)
            scores[short], rows[short] = -np.inf, -1
        return scores, rows

    def _range(self, query: Array) -> tuple[Array, Array]:
        scores, rows = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
        least = -np.inf if self._radius is None else self._radius
        for way in self._ways:
            for chunk, allow in way.chunks:
                found, offsets = range_exact(
                    query, chunk.vectors, chunk.norms,
                    metric=self._dense.metric, min_score=least, allow=allow, base=chunk.start,
                )  # fmt: skip
                scores.append(found)
                rows.append(way.row_ids[offsets].astype(np.int64))
        all_scores, all_rows = np.concatenate(scores), np.concatenate(rows)
        order = np.lexsort((all_rows, -all_scores))
        return all_scores[order], all_rows[order]


class Served:
    """Which parts a device has searched, in one run."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}

    def part(self, number: int) -> list[str]:
        """Of a part: takes the name of a device whenever that has done something."""
        return self._parts.setdefault(number, [])

    @property
    def detail(self) -> str:
        """For ``explain``, to stand after the rest: empty where all was done by the CPU."""
        if not any(self._parts.values()):
            return ""
        there = Counter(told[0] for told in self._parts.values() if told)
        return "".join(
            f", {'all' if count == len(self._parts) else f'{count} of them'} on {device}"
            for device, count in there.items()
        )


@dataclass(frozen=True)
class _Way:
    """How a part is searched, without its session.

    Attributes
    ----------
    detail : in words
    row_ids : of the part, uint64 (rows,)
    eligible : rows that may be found
    chunks : of the vectors, each with the rows that may be found, where these are scanned
    coded : what is searched in place of the vectors, or None
    allow : bool (rows,) of those that may be found and have a vector, or None for all
    graph : over the codes, or None where these are scanned
    ef : candidates of the walk that are scored from the vectors
    nprobe : lists that are read
    """

    detail: str
    row_ids: Array
    eligible: int
    chunks: Sequence[tuple[Chunk, Array | None]] = ()
    coded: Coded | None = None
    allow: Array | None = None
    graph: GraphSearch | None = None
    ef: int = 0
    nprobe: int = 0


_EXACT = "exact"


def _filled(effort: Effort, dense: Dense) -> Effort:
    """An effort with what is looked for where neither the index nor how hard to look was said."""
    return _RECALLING if dense.by_size and effort == DEFAULT_EFFORT else effort


def _exact(candidate: Candidates, name: str, why: str = "") -> _Way:
    return _Way(_EXACT + why, candidate.part.row_ids, candidate.eligible, list(_chunks(candidate, name)))


def _choose(candidate: Candidates, name: str, dense: Dense, k: int, effort: Effort) -> _Way:
    """The index where it reads less than a scan, else codes where they take fewer bytes than the vectors."""
    coded = candidate.part.coded(name)
    if coded is None:
        return _exact(candidate, name, " by size" if dense.by_size else "")
    rows, allow, eligible = candidate.part.rows, candidate.allow, candidate.eligible
    if coded.present is not None:
        allow = coded.present if allow is None else coded.present & allow
        eligible = int(np.count_nonzero(allow))
    if k >= eligible:
        return _exact(candidate, name)
    row_ids, bytes_of_vectors = candidate.part.row_ids, eligible * dense.dim * np.dtype(dense.dtype).itemsize
    wide = "4 k + 64" if effort.oversample is None else f"{effort.oversample:g} k"
    if coded.lists is not None:
        nprobe = _lists_of(coded.lists, k, effort)
        lists = coded.lists.search.lists
        if min(1.0, nprobe / len(lists.sizes)) * len(lists.rows) * coded.codec.code_size >= bytes_of_vectors:
            return _exact(candidate, name)
        detail = f"lists {coded.lists.index} of {coded.codec.spec}, nprobe {nprobe} of {len(lists.sizes)}"
        detail += _wanted(effort) + (f", {eligible / rows:.2%} of rows allowed" if eligible < rows else "")
        detail += f", {wide} candidates scored from vectors{_why(dense)},"
        return _Way(detail, row_ids, eligible, (), coded, candidate.allow, nprobe=nprobe)
    if coded.graph is not None:
        ef = min(rows, max(k, _candidates_of(coded.graph, k, effort)))
        plan = plan_search(rows, eligible, k, ef)
        if plan.pays(rows):
            what = f"{coded.graph.index} of {coded.codec.spec}, ef_search {ef}{_wanted(effort)}"
            detail = _graph_detail(what + _why(dense), plan, rows, eligible)
            graph = GraphSearch(coded.graph.graph, coded.codec, coded.codes, coded.vectors.score)
            return _Way(detail, row_ids, candidate.eligible, (), coded, allow, graph, ef)
    if rows * coded.codec.code_size >= bytes_of_vectors:
        return _exact(candidate, name)
    detail = f"codes {coded.codec.spec}, {wide} candidates scored from vectors{_why(dense)},"
    return _Way(detail, row_ids, candidate.eligible, (), coded, allow)


def _candidates_of(graph: IndexedGraph, k: int, effort: Effort) -> int:
    """The ef_search of an effort."""
    if effort.target_recall is not None:
        return UNMEASURED if graph.calibration is None else graph.calibration.ef_for(effort.target_recall, k)
    return max(effort.ef_search or EF_SEARCH, math.ceil(min(len(graph.graph), k * (effort.oversample or 1))))


def _lists_of(lists: IndexedLists, k: int, effort: Effort) -> int:
    """The nprobe of an effort, at most all lists."""
    nlist = len(lists.search.lists.sizes)
    if effort.target_recall is None:
        return min(nlist, effort.nprobe or NPROBE)
    return NPROBE if lists.calibration is None else min(nlist, lists.calibration.least_for(effort.target_recall, k))


def _why(dense: Dense) -> str:
    return ", chosen by size" if dense.by_size else ""


def _wanted(effort: Effort) -> str:
    return "" if effort.target_recall is None else f" for a recall of {effort.target_recall:g}"


def _is_full(rows: Array) -> bool:
    """Whether they are those of one query, and as many as were asked for: -1 stands at the end only."""
    return len(rows) == 1 and rows.shape[1] > 0 and bool(rows[0, -1] >= 0)


def _taken(row_ids: Array, at: Array) -> Array:
    """Row ids int64 at some offsets, -1 where an offset is."""
    if _is_full(at):
        return row_ids[at].view(np.int64)
    return np.where(at < 0, -1, row_ids[at].astype(np.int64))


_WALKS: dict[Literal["graph", "filtered", "scan"], str] = {
    "graph": "what is not allowed is walked through and dropped",
    "filtered": "a walk over allowed rows that looks through the others",
    "scan": "so few that their codes are scanned",
}


def _graph_detail(index: str, plan: Plan, rows: int, eligible: int) -> str:
    if eligible == rows:
        return f"graph {index},"
    return f"graph {index}, {eligible / rows:.2%} of rows allowed: {_WALKS[plan.way]},"


def without_vector(candidates: Sequence[Candidates], name: str) -> int:
    """How many rows that may be found have no vector in a field."""
    with_vector = 0
    for candidate in candidates:
        for chunk, allow in _chunks(candidate, name):
            present = ~np.isnan(chunk.norms)
            with_vector += int(np.count_nonzero(present if allow is None else present & allow))
    return sum(candidate.eligible for candidate in candidates) - with_vector


def _chunks(candidate: Candidates, name: str) -> Iterator[tuple[Chunk, Array | None]]:
    """Chunks of a part, and which of their rows may be found."""
    for chunk in candidate.part.chunks(name):
        stop = chunk.start + len(chunk.vectors)
        yield chunk, None if candidate.allow is None else candidate.allow[chunk.start : stop]
