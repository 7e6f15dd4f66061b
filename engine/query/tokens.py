"""Late interaction over the parts of a collection: MaxSim of stored tokens and those of a query."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.maxsim import QueryTokens, score_f16
from gingham.index.exact import merge_topk
from gingham.parallel import run_blocks
from gingham.query.fetch import fetch
from gingham.query.near import Served
from gingham.query.token_matches import TokenMatches
from gingham.token_arrays import token_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from gingham.query.select import Candidates
    from gingham.schema import Tokens
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

RESCORED, SPARE = 2, 32
"""Rows that codes lead to and that are scored from their tokens: 2 k + 32."""
MOST_EXPLAINED = 100
"""Hits whose tokens are kept to explain them."""
BLOCK_TOKENS = 1 << 16
"""Stored tokens that a kernel call scores, about: 6 ms for a query of 32 tokens of 128 dimensions (bench/maxsim.py)."""


def maxsim_scores(column: pa.Array, kind: Tokens, query: QueryTokens, listed: Array | None = None) -> Array:
    """Scores of the rows of a column, float32 (rows,), -inf where a row has no tokens.

    Parameters
    ----------
    column : of token matrices, one array
    listed : int64, ascending rows to score in place of all
    """
    tokens, starts = token_arrays(column, kind.dim)
    rows = np.arange(len(column)) if listed is None else listed
    counts = starts[rows + 1] - starts[rows]
    blocks = np.flatnonzero(np.diff(np.cumsum(counts) // BLOCK_TOKENS)) + 1
    pieces = run_blocks(lambda part: score_f16(query, tokens, starts, part), np.split(rows, blocks))
    scores: Array = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    return scores


def search_tokens(
    candidates: Sequence[Candidates],
    name: str,
    kind: Tokens,
    query: Array,
    k: int | None,
    radius: float | None,
    served: Served | None = None,
) -> tuple[Array, Array]:
    """Find the best rows, by scores and then by row ids: float32 and int64.

    Parameters
    ----------
    query : float32 (tokens, dim) of :func:`gingham.token_vectors.tokens_query`
    k : rows; None for all
    radius : smallest score, or None
    served : takes note of the parts that a device has searched
    """
    prepared, pieces, served = QueryTokens(query), [], served or Served()
    for number, one in enumerate(candidates):
        column = one.part.field(name, kind)
        listed = _listed(one, name, kind, prepared, k, radius, served.part(number))
        scores = maxsim_scores(column, kind, prepared, listed)
        keep = scores > -np.inf if radius is None else scores >= np.float32(radius)
        pieces.append((scores[keep][None], one.part.row_ids[listed[keep]].astype(np.int64)[None]))
    pieces.append((np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)))
    total = sum(scores.shape[1] for scores, _ in pieces)
    (scores,), (rows,) = merge_topk(pieces, total if k is None else min(k, total))
    return scores, rows


def _listed(
    one: Candidates, name: str, kind: Tokens, query: QueryTokens, k: int | None, radius: float | None, told: list[str]
) -> Array:
    """Rows of a part that are scored from their tokens: those that codes lead to, or all that may be found."""
    coded = None if k is None or radius is not None else one.part.token_codes(name, kind)
    if coded is None or k is None:
        return np.arange(one.part.rows) if one.allow is None else np.flatnonzero(one.allow)
    there = None if coded.resident is None else coded.resident.telling(told)
    ((_, rows),) = coded.run([query], RESCORED * k + SPARE, allow=one.allow, resident=there)
    found: Array = np.sort(rows)
    return found


def matcher(
    session: Session, record: CollectionRecord, name: str, kind: Tokens, query: Array, rows: Array
) -> Callable[[], list[TokenMatches]] | None:
    """What explains some rows, int64 row ids, by their tokens, which it copies; None for too many rows."""
    if len(rows) > MOST_EXPLAINED:
        return None
    _, table = fetch(session, record, rows.astype(np.uint64), (name,))
    tokens, starts = token_arrays(table[name].combine_chunks(), kind.dim)

    def explained() -> list[TokenMatches]:
        return [
            TokenMatches(query @ tokens[start:stop].astype(np.float32).T) for start, stop in itertools.pairwise(starts)
        ]

    return explained


def how_tokens(candidates: Sequence[Candidates], name: str, kind: Tokens) -> str:
    """How the parts are searched, for ``explain``."""
    coded = sum(one.part.token_codes(name, kind) is not None for one in candidates)
    return f"MaxSim with {name!r}, {len(candidates)} parts, {coded} of them by {kind.codec} codes"
