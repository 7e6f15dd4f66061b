"""Late interaction over the parts of a collection: MaxSim of stored tokens and those of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.maxsim import QueryTokens, score_f16
from gingham.index.exact import merge_topk
from gingham.parallel import run_blocks
from gingham.token_vectors import token_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from gingham.query.select import Candidates
    from gingham.schema import Tokens

    Array = np.ndarray[Any, Any]

BLOCK_TOKENS = 1 << 16
"""Stored tokens that a kernel call scores, about: 8 ms for a query of 32 tokens of 128 dimensions."""


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
    candidates: Sequence[Candidates], name: str, kind: Tokens, query: Array, k: int | None, radius: float | None
) -> tuple[Array, Array]:
    """Find the best rows, by scores and then by row ids: float32 and int64.

    Parameters
    ----------
    query : float32 (tokens, dim) of :func:`gingham.token_vectors.tokens_query`
    k : rows; None for all
    radius : smallest score, or None
    """
    prepared, pieces = QueryTokens(query), []
    for one in candidates:
        column = one.part.field(name, kind)
        listed = np.arange(one.part.rows) if one.allow is None else np.flatnonzero(one.allow)
        scores = maxsim_scores(column, kind, prepared, listed)
        keep = scores > -np.inf if radius is None else scores >= np.float32(radius)
        pieces.append((scores[keep][None], one.part.row_ids[listed[keep]].astype(np.int64)[None]))
    pieces.append((np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)))
    total = sum(scores.shape[1] for scores, _ in pieces)
    (scores,), (rows,) = merge_topk(pieces, total if k is None else min(k, total))
    return scores, rows
