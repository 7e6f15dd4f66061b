"""How many candidates a target recall needs, measured on queries whose exact neighbours are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, Any]

KS = (1, 10, 100)
"""Neighbours that recall is measured of; for others the candidates lie between, in proportion to logarithms."""
EFS = (10, 14, 20, 28, 40, 80, 160, 320, 640, 1280)
"""Candidates tried, until nearly all neighbours are found; between them what is missed falls as a power of them."""
ENOUGH = (1.0, 0.998, 0.99)
"""Recalls of so many neighbours at which no more candidates are tried."""
HELD_OUT = 384
"""Rows that are linked last and searched for before. They tell recall of 0.95 within 0.006: rows that are in the graph
are found by their own links (recall of 0.98 where other queries have 0.86), and rows that are passed over leave a hole
(0.95 instead of 0.97; MiniLM and Fashion-MNIST)."""
ROUNDING = 1e-6
DEVIATIONS = 1.0
"""Standard deviations by which the recall measured has to lie above the target."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Recall by candidates.

    Attributes
    ----------
    queries : how many were searched for
    efs : int64 (n,), candidates or lists, ascending
    recalls : float64 (3, n), mean recall of 1, 10 and 100 neighbours; NaN where there are fewer candidates or rows
    """

    queries: int
    efs: Array
    recalls: Array

    def ef_for(self, target: float, k: int) -> int:
        """The fewest candidates whose recall of k neighbours is at least a target, k at least."""
        return max(self.least_for(target, k), k)

    def least_for(self, target: float, k: int) -> int:
        """The fewest of what was tried whose recall of k neighbours is at least a target; the most where none is.

        Notes
        -----
        The bound is that of Wilson (1927) for queries * k trials; neighbours of one query are not independent, so it is
        taken for a mean recall and not as a promise for each query.
        """
        needed = [self._ef_of(row, target, known) for row, known in zip(self.recalls, KS, strict=True)]
        known = [(np.log(one), np.log(ef)) for one, ef in zip(KS, needed, strict=True) if ef is not None]
        if not known:
            return int(self.efs[-1])
        ks, efs = zip(*known, strict=True)
        between = float(np.exp(np.interp(np.log(k), ks, efs)))
        more = max(1.0, k / float(np.exp(ks[-1])))
        return int(np.ceil(between * more - ROUNDING))

    def _ef_of(self, recalls: Array, target: float, k: int) -> float | None:
        usable = ~np.isnan(recalls)
        if not usable.any():
            return None
        efs = self.efs[usable].astype(np.float64)
        bounds = np.maximum.accumulate(_lower_bound(recalls[usable], self.queries * k))
        reached = np.flatnonzero(bounds >= target)
        if not len(reached):
            return float(efs[-1])
        at = reached[0]
        if at == 0:
            return float(efs[0])
        if recalls[usable][at] >= 1:  # as where all lists are read: what is missed falls to nothing, and not as a power
            return float(np.interp(target, bounds[at - 1 : at + 1], efs[at - 1 : at + 1]))
        missed = np.log(1 - np.minimum(bounds[at - 1 : at + 1], 1 - 1e-6))
        share = (missed[0] - np.log(1 - target)) / (missed[0] - missed[1])
        return float(efs[at - 1] * (efs[at] / efs[at - 1]) ** share)

    @classmethod
    def of(cls, queries: int, efs: Sequence[int], recalls: Sequence[Sequence[float]]) -> Calibration:
        """From plain values; raises Corrupt."""
        arrays = {"efs": np.array(efs), "recalls": np.array(recalls), "queries": np.array([queries])}
        return cls.from_arrays(arrays)

    def arrays(self) -> dict[str, Array]:
        """To be stored."""
        return {"efs": self.efs, "recalls": self.recalls, "queries": np.array([self.queries], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Calibration:
        """Invert :meth:`arrays`.

        Raises
        ------
        Corrupt : arrays that do not fit
        """
        try:
            efs, recalls, queries = (np.array(arrays[name]) for name in ("efs", "recalls", "queries"))
        except KeyError as error:
            raise Corrupt(f"a calibration expects an array {error}; rebuild the index") from error
        if efs.ndim != 1 or not len(efs) or recalls.shape != (len(KS), len(efs)) or queries.shape != (1,):
            raise Corrupt(
                f"a calibration expects recalls of {len(KS)} by {efs.size}, found {recalls.shape}; rebuild it"
            )
        return cls(int(queries[0]), efs.astype(np.int64), recalls.astype(np.float64))


def calibrate(
    exact: Array, search: Callable[[int, int], Array], *, among: bool = False, tried: Sequence[int] | None = None
) -> Calibration:
    """Measure recall of ever more candidates, or lists.

    Parameters
    ----------
    exact : int64 (queries, m), the nearest rows of each query, best first, -1 for none
    search : from k and what is tried to the rows found, (queries, k), best first
    among : rows found are candidates that will be scored exactly, ef of them in any order: a neighbour counts where it
        is among them
    tried : lists to try, ascending, with a search of its own for every k; None tries :data:`EFS` candidates, of which
        there are k at least
    """
    efs, columns = [], []
    m = int((exact >= 0).all(axis=0).sum())
    for ef in EFS if tried is None else tried:
        most = min(ef, m) if tried is None else m
        rows = [search(most, ef)] * len(KS) if tried is None else [search(k, ef) if k <= most else exact for k in KS]
        rows = rows if among else [one[:, :k] for one, k in zip(rows, KS, strict=True)]
        column = [_recall(exact[:, :k], one) if k <= most else np.nan for k, one in zip(KS, rows, strict=True)]
        efs.append(ef)
        columns.append(column)
        done = [np.isnan(value) or value >= enough for value, enough in zip(column, ENOUGH, strict=True)]
        if all(done[1:]) and (tried is not None or ef >= min(m, KS[-1])):
            break
    return Calibration(len(exact), np.array(efs, np.int64), np.array(columns).T.copy())


def without(rows: Array, hidden: Array) -> Array:
    """Rows (n, m) less one in each line, the last where it is not among them: (n, m - 1)."""
    others = np.argsort(rows == hidden[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(rows, others, axis=1)


def _recall(exact: Array, found: Array) -> float:
    hits = sum(len(np.intersect1d(one, other)) for one, other in zip(exact, found, strict=True))
    return hits / exact.size


def _lower_bound(share: Array, trials: int) -> Array:
    """Lower end of Wilson's interval."""
    z = DEVIATIONS**2 / trials
    spread = np.sqrt(z * share * (1 - share) + z**2 / 4)
    bound: Array = (share + z / 2 - spread) / (1 + z)
    return bound
