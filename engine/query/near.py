"""Exact search of a dense vector field over the parts of a collection, merged once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.index.flat import merge_topk, range_flat, search_flat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.query.select import Candidates
    from gingham.schema import Dense
    from gingham.storage.part import Chunk

    Array = np.ndarray[Any, Any]


def search_near(
    candidates: Sequence[Candidates],
    name: str,
    dense: Dense,
    queries: Array,
    k: int | None,
    radius: float | None,
) -> list[tuple[Array, Array]]:
    """Find the nearest rows of each query.

    Parameters
    ----------
    queries : float32 (n_queries, dim)
    k : rows per query; None is all that reach ``radius``
    radius : smallest score, or None

    Returns
    -------
    list of tuple : per query float32 scores, descending, and int64 row ids, ties ascending

    Notes
    -----
    Time O(n_queries * rows * dim); rows a filter excludes are not scored.
    """
    if k is None or (radius is not None and k >= sum(candidate.eligible for candidate in candidates)):
        # A heap as deep as all rows would cost far more than the rows that reach the radius.
        return [_search_range(candidates, name, dense, query, radius) for query in queries]
    n_queries = len(queries)
    pieces = [(np.full((n_queries, 0), -np.inf, np.float32), np.full((n_queries, 0), -1, np.int64))]
    for row_ids, chunk, allow in _chunks(candidates, name):
        depth = min(k, len(chunk.vectors) if allow is None else int(np.count_nonzero(allow)))
        if not depth:
            continue
        scores, offsets = search_flat(
            queries,
            chunk.vectors,
            chunk.norms,
            depth,
            metric=dense.metric,
            allow=allow,
            base=chunk.start,
            min_score=radius,
        )
        pieces.append((scores, np.where(offsets < 0, -1, row_ids[offsets])))
    scores, rows = merge_topk(pieces, min(k, sum(s.shape[1] for s, _ in pieces)))
    return [(s[r >= 0], r[r >= 0]) for s, r in zip(scores, rows, strict=True)]


def without_vector(candidates: Sequence[Candidates], name: str) -> int:
    """How many rows that may be found have no vector in a field."""
    with_vector = 0
    for _, chunk, allow in _chunks(candidates, name):
        present = ~np.isnan(chunk.norms)
        with_vector += int(np.count_nonzero(present if allow is None else present & allow))
    return sum(candidate.eligible for candidate in candidates) - with_vector


def _chunks(candidates: Sequence[Candidates], name: str) -> Iterator[tuple[Array, Chunk, Array | None]]:
    for candidate in candidates:
        row_ids = candidate.part.row_ids.astype(np.int64)
        for chunk in candidate.part.chunks(name):
            stop = chunk.start + len(chunk.vectors)
            yield row_ids, chunk, None if candidate.allow is None else candidate.allow[chunk.start : stop]


def _search_range(
    candidates: Sequence[Candidates], name: str, dense: Dense, query: Array, radius: float | None
) -> tuple[Array, Array]:
    scores, rows = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for row_ids, chunk, allow in _chunks(candidates, name):
        found, offsets = range_flat(
            query,
            chunk.vectors,
            chunk.norms,
            metric=dense.metric,
            min_score=-np.inf if radius is None else radius,
            allow=allow,
            base=chunk.start,
        )
        scores.append(found)
        rows.append(row_ids[offsets])
    all_scores, all_rows = np.concatenate(scores), np.concatenate(rows)
    order = np.lexsort((all_rows, -all_scores))
    return all_scores[order], all_rows[order]
