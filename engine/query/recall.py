"""Live recall: what searches find of what an exact search finds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument
from gingham.index.warmup import warmup
from gingham.query.effort import Effort
from gingham.query.near import search_near
from gingham.query.select import candidates
from gingham.storage.part import take_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.ast import Node
    from gingham.query.select import Candidates
    from gingham.schema import Dense
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

CONFIDENCE = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True)
class RecallReport:
    """Recall of a collection, measured now.

    Attributes
    ----------
    recall : mean share of the k nearest rows that searches found; 1 where there are none to find
    low, high : where it lies with 95 % confidence (Wilson 1927, a query as one trial, which is on the safe side)
    k, queries : neighbours of each query, and queries
    seconds, exact_seconds : of all searches, and of the exact ones they were compared with
    """

    recall: float
    low: float
    high: float
    k: int
    queries: int
    seconds: float
    exact_seconds: float


def measure_recall(
    session: Session,
    record: CollectionRecord,
    name: str,
    dense: Dense,
    where: Node | None,
    effort: Effort,
    k: int,
    asked: Array | int,
) -> RecallReport:
    """Compare searches with exact ones.

    Parameters
    ----------
    asked : queries float32 (n, dim), or how many rows to take for queries, each of which is then not its own neighbour
    """
    chosen = candidates(session, record, where)
    if isinstance(asked, int):
        queries, own = _rows(candidates(session, record, None), name, dense, asked)
    else:
        queries, own = asked, None
    if not len(queries):
        raise InvalidArgument(f"recall() expects queries or rows with a vector {name!r}, found none")
    warmup()  # while kernels are cold, searches are exact
    depth = k if own is None else k + 1
    started = time.perf_counter()
    found = search_near(chosen, name, dense, queries, depth, None, effort)
    between = time.perf_counter()
    exact = search_near(chosen, name, dense, queries, depth, None, Effort(exact=True))
    ended = time.perf_counter()
    shares = []
    for number, ((_, mine), (_, truth)) in enumerate(zip(found, exact, strict=True)):
        wanted, got = (rows if own is None else rows[rows != own[number]][:k] for rows in (truth, mine))
        shares.append(len(np.intersect1d(wanted, got)) / len(wanted) if len(wanted) else 1.0)
    recall = float(np.mean(shares))
    low, high = _interval(recall, len(shares))
    return RecallReport(recall, low, high, k, len(shares), between - started, ended - between)


def _rows(parts: Sequence[Candidates], name: str, dense: Dense, n: int) -> tuple[Array, Array]:
    """Vectors float32 of rows drawn at random, always the same, and their row ids."""
    live = [np.arange(one.part.rows) if one.allow is None else np.flatnonzero(one.allow) for one in parts]
    ends = np.cumsum([0, *map(len, live)])
    drawn = np.sort(np.random.default_rng(0).choice(ends[-1], min(n, int(ends[-1])), replace=False))
    vectors, row_ids = [np.empty((0, dense.dim), np.float32)], [np.empty(0, np.int64)]
    for one, rows, first, end in zip(parts, live, ends[:-1], ends[1:], strict=True):
        at = rows[drawn[(drawn >= first) & (drawn < end)] - first]
        vectors.append(take_vectors(one.part, name, dense, at).astype(np.float32))
        row_ids.append(one.part.row_ids[at].astype(np.int64))
    queries, own = np.concatenate(vectors), np.concatenate(row_ids)
    present = ~np.isnan(queries).any(axis=1)
    return np.ascontiguousarray(queries[present]), own[present]


def _interval(share: float, trials: int) -> tuple[float, float]:
    """Both ends of Wilson's interval."""
    z = CONFIDENCE**2 / trials
    middle = (share + z / 2) / (1 + z)
    spread = math.sqrt(z * share * (1 - share) + z**2 / 4) / (1 + z)
    return max(0.0, middle - spread), min(1.0, middle + spread)
