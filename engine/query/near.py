"""Search of a dense vector field over the parts of a collection, merged once.

Parts whose vectors have codes are searched in two stages, the others exactly; scores are those of the vectors always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.index.exact import merge_topk, prepare_queries, range_exact, score_listed, search_exact
from gingham.index.two_stage import search_codes
from gingham.index.warmup import all_ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gingham.codecs.protocol import Codec, Codes
    from gingham.query.effort import Effort
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
    effort: Effort,
) -> list[tuple[Array, Array]]:
    """Find the nearest rows of each query.

    Parameters
    ----------
    queries : float32 (n_queries, dim)
    k : rows per query; None is all that reach ``radius``, found exactly
    radius : smallest score, or None

    Returns
    -------
    list of tuple : per query float32 scores, descending, and int64 row ids, ties ascending

    Notes
    -----
    Time O(n_queries * rows * bytes of a vector or of a code); rows a filter excludes are not scored.
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
        scores, offsets = _search_chunk(dense, queries, chunk, allow, depth, radius, effort)
        pieces.append((scores, np.where(offsets < 0, -1, row_ids[offsets])))
    scores, rows = merge_topk(pieces, min(k, sum(s.shape[1] for s, _ in pieces)))
    return [(s[r >= 0], r[r >= 0]) for s, r in zip(scores, rows, strict=True)]


def near_detail(candidates: Sequence[Candidates], name: str, dense: Dense, k: int | None, effort: Effort) -> str:
    """What :func:`search_near` does, for ``explain``."""
    where = f"on {name!r} ({dense.metric}), {len(candidates)} parts"
    codecs: set[str] = set()
    if k is not None and not effort.exact:
        found = [(chunk, allow) for _, chunk, allow in _chunks(candidates, name)]
        codecs = {c.coded[0].spec for c, allow in found if c.coded and _codes_pay(c, c.coded, allow, k)}
    if not codecs:
        return f"exact {where}"
    candidates_of = "4 k + 64" if effort.oversample is None else f"{effort.oversample:g} k"
    return f"codes {', '.join(sorted(codecs))} {where}, {candidates_of} candidates scored from vectors"


def _search_chunk(
    dense: Dense, queries: Array, chunk: Chunk, allow: Array | None, k: int, radius: float | None, effort: Effort
) -> tuple[Array, Array]:
    """Scores and offsets in the part of the best rows of a chunk."""
    metric, base = dense.metric, chunk.start
    if effort.exact or chunk.coded is None or not _codes_pay(chunk, chunk.coded, allow, k) or not all_ready():
        return search_exact(
            queries, chunk.vectors, chunk.norms, k, metric=metric, allow=allow, base=base, min_score=radius
        )
    prepared = prepare_queries(queries, metric)

    def rescore(some: Array, rows: Array) -> Array:
        return score_listed(some, chunk.vectors, rows, norms=chunk.norms, metric=metric)

    scores, rows = search_codes(
        *chunk.coded, prepared, k, rescore=rescore, oversample=effort.oversample, allow=_present(chunk, allow)
    )
    if radius is not None:
        short = scores < np.float32(radius)
        scores[short], rows[short] = -np.inf, -1
    rows[rows >= 0] += base
    return scores, rows


def _codes_pay(chunk: Chunk, coded: tuple[Codec, Codes], allow: Array | None, k: int) -> bool:
    """Whether scanning codes reads fewer bytes than scanning the vectors that may be found."""
    n = len(chunk.vectors)
    eligible = n if allow is None else int(np.count_nonzero(allow))
    vector = chunk.vectors.itemsize * chunk.vectors.shape[1]
    return k < eligible and n * coded[0].code_size < eligible * vector


def _present(chunk: Chunk, allow: Array | None) -> Array | None:
    """The allowed rows that have a vector: codes do not tell."""
    present: Array = ~np.isnan(chunk.norms)
    if present.all():
        return None if allow is None else np.ascontiguousarray(allow)
    if allow is not None:
        present &= allow
    return present


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
        found, offsets = range_exact(
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
