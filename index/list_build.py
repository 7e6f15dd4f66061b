"""Making lists of coded rows, and measuring how many of them a recall takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.index.calibration import HELD_OUT, KS, calibrate, without
from gingham.index.coarse import Coarse, list_count, sample_positions
from gingham.index.list_balance import rebalance
from gingham.index.two_stage import OVERSAMPLE, SPARE

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.devices import Attempt
    from gingham.codecs.protocol import SpanCodec
    from gingham.index.calibration import Calibration
    from gingham.index.list_search import ListSearch

    Array = np.ndarray[Any, Any]

NPROBES = tuple(sorted({round(2 ** (step / 2)) for step in range(33)}))
"""Numbers of lists that are tried: 1, 2, 3, 4, 6, 8, 11, 16 and so on to 65,536."""
RETRAINED_CHANGES = 0.3
"""Rows that came or went since centroids were trained, over those that live, from which on they are trained anew: after
half of the rows went, from one side to the other, recall is then that of a rebuild (bench/ann/list_churn.py)."""
BLOCK_ROWS = 4096
"""Rows that choose their lists at once."""


def choose_lists(
    codec: SpanCodec,
    rows: int,
    vectors_of: Callable[[Array], Array],
    *,
    nlist: int | None = None,
    known: Coarse | None = None,
    balance: bool = True,
    seed: int = 0,
    attempt: Attempt | None = None,
) -> tuple[Coarse, Array]:
    """Centroids and the list of each row, int64 (rows,).

    Parameters
    ----------
    codec : trained
    rows : at least 1
    vectors_of : from positions int64 (m,), in any order, to vectors float32 (m, dim), of length one under cosine;
        called by several threads
    nlist : lists; None takes :func:`gingham.index.coarse.list_count`
    known : centroids to go on with in place of others trained
    balance : split lists that are large and dissolve those that are small
    attempt : of a device, to train centroids there

    Notes
    -----
    The same bytes for any number of threads. Memory: the sample that centroids are trained on.
    """
    wanted = nlist or list_count(rows)
    if known is None:
        known = Coarse.train(vectors_of(sample_positions(rows, wanted)), wanted, codec, seed, attempt)
    lists = np.empty(rows, np.int64)
    for start in range(0, rows, BLOCK_ROWS):
        deadline.check()
        part = slice(start, min(start + BLOCK_ROWS, rows))
        lists[part] = known.assign(vectors_of(np.arange(part.start, part.stop)))
    balanced = rebalance(known, lists, vectors_of, wanted, seed) if balance else None
    return (known, lists) if balanced is None else (balanced.coarse, balanced.lists)


def measure(
    search: ListSearch, queries: Array, exact: Array, hidden: Array | None, *, among: bool = False
) -> Calibration | None:
    """How many lists a recall takes.

    Parameters
    ----------
    queries : as of :meth:`gingham.index.list_search.ListSearch.run`
    exact : int64 (n_queries, m), the nearest rows of each, best first, -1 for none
    hidden : int64 (n_queries,), a row of each query that is no neighbour of itself, or None
    among : what the codes find will be scored from vectors, so that a neighbour counts where it is among them
    """
    nlist, k = len(search.lists.sizes), min(KS[-1], int((exact >= 0).all(axis=0).sum()))
    if k < 1:
        return None

    def found(k: int, nprobe: int) -> Array:
        wanted = min(OVERSAMPLE * k + SPARE if among else k, search.n - (hidden is not None))
        rows = search.run(
            queries, wanted + (hidden is not None), nprobe, oversample=1.0 if among else None, fill=False
        )[1]
        return rows if hidden is None else without(rows, hidden)

    return calibrate(exact[:, :k], found, among=among, tried=[*(n for n in NPROBES if n < nlist), nlist])


def held_out(live: Array) -> Array:
    """Rows to measure with, of ascending ones."""
    return np.unique(live[np.linspace(0, len(live) - 1, min(HELD_OUT, len(live))).astype(np.int64)])
