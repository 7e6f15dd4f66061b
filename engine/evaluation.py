"""Ranking quality against relevance judgements, and the paired comparison of two runs."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from gingham.errors import InvalidArgument
from gingham.types import shown, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

Ranking = Mapping[Any, float] | Sequence[Any]
"""Documents found for a query: scores by id, ids in rank order, or hits."""
Judgements = Mapping[Any, int]

_EXACT = 12
"""Most differing queries whose sign flips are all counted: 4096 of them, fewer than the default resamples."""
_SHOWN = 5
"""Queries a printed comparison shows of each side, and documents of each query."""
_BLOCK = 1 << 20
"""Random numbers drawn at once, so that memory does not grow with the resamples."""


@dataclass(frozen=True)
class Evaluation:
    """Measures of a run.

    Attributes
    ----------
    means : per measure, such as ``"nDCG@10"``, the mean over the judged queries
    per_query : per measure the value of each query
    queries : number of judged queries
    """

    means: dict[str, float]
    per_query: dict[str, dict[Any, float]]
    queries: int

    def __getitem__(self, measure: str) -> float:
        return self.means[measure]

    def __str__(self) -> str:
        lines = [f"{measure:<12} {value:.4f}" for measure, value in self.means.items()]
        return "\n".join([*lines, f"{'queries':<12} {self.queries}"])


def evaluate(
    run: Mapping[Any, Ranking], qrels: Mapping[Any, Judgements], *, k: int | Sequence[int] = (10, 100)
) -> Evaluation:
    """Score rankings with nDCG@k, recall@k and MRR@k.

    Parameters
    ----------
    run : per query the documents found: a mapping to scores, ids in rank order, or the hits of a search
    qrels : per query the grade of judged documents; a grade above 0 is relevant
    k : cut-off, or several

    Returns
    -------
    Evaluation : means over the queries with at least one judgement; a query without a result counts 0

    Raises
    ------
    InvalidArgument : a cut-off below 1, rankings or grades of another form, or ids of ``run`` that are all of
        another type than those of ``qrels``: ids are compared as they are, and 1 is not "1"

    Notes
    -----
    nDCG is that of trec_eval: gain = grade, discount = log2(rank + 1), ideal over all judged documents
    (Järvelin and Kekäläinen 2002, ACM TOIS 20(4), with the discount of Burges et al. 2005). As in trec_eval
    equal scores are ordered by descending document id.
    """
    cuts = _cuts(k)
    _check_judgements("evaluate", qrels)
    _check_run("evaluate(run=)", run, qrels)
    return _evaluate(run, qrels, cuts)


def _evaluate(run: Mapping[Any, Ranking], qrels: Mapping[Any, Judgements], cuts: Sequence[int]) -> Evaluation:
    measures: dict[str, Callable[[list[Any], Judgements, int], float]] = {
        "nDCG": ndcg,
        "recall": recall,
        "MRR": reciprocal_rank,
    }
    ranked = {query: rank(run.get(query, ())) for query in qrels}
    per_query = {
        f"{name}@{cut}": {query: measure(ranked[query], judged, cut) for query, judged in qrels.items()}
        for name, measure in measures.items()
        for cut in cuts
    }
    means = {name: math.fsum(v.values()) / len(v) if v else 0.0 for name, v in per_query.items()}
    return Evaluation(means, per_query, len(qrels))


def _cuts(k: Any) -> tuple[int, ...]:
    several = hasattr(k, "__iter__") and not isinstance(k, (str, bytes)) and getattr(k, "ndim", 1) > 0
    cuts = tuple(whole("evaluate(k=)", cut) for cut in (k if several else [k]))
    if not cuts:
        raise InvalidArgument(f"evaluate(k=) expects cut-offs of at least 1, found {k!r}")
    return cuts


def _check_judgements(call: str, qrels: Any) -> None:
    if not isinstance(qrels, Mapping):
        raise InvalidArgument(f"{call}(qrels=) expects a dict of queries, found {type(qrels).__name__}")
    for query, judged in qrels.items():
        if not isinstance(judged, Mapping):
            raise InvalidArgument(
                f"{call}(qrels=) expects a dict of grades by document, found {shown(judged)} at query {shown(query)}"
            )
        for grade in judged.values():
            if not isinstance(grade, Real) or not math.isfinite(grade):
                raise InvalidArgument(
                    f"{call}(qrels=) expects numbers as grades, found {shown(grade)} at query {shown(query)}"
                )


def _check_run(what: str, run: Any, qrels: Mapping[Any, Judgements]) -> None:
    """Refuse a run that would count 0 for want of form and not of quality."""
    if not isinstance(run, Mapping):
        raise InvalidArgument(f"{what} expects a dict of queries, found {type(run).__name__}")
    for query, ranking in run.items():
        if not _is_ranking(ranking):
            raise InvalidArgument(
                f"{what} expects scores by document, ids or hits, found {shown(ranking)} at query {shown(query)}"
            )
    _check_kinds(what, "queries", run, qrels)
    asked = (_documents(run[query]) for query in qrels if query in run)
    _check_kinds(what, "documents", chain.from_iterable(asked), chain.from_iterable(qrels.values()))


def _is_ranking(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(issubclass(cls, Real) for cls in {type(score) for score in value.values()}) and not any(
            score != score for score in value.values()
        )
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, set, frozenset))


def _check_kinds(what: str, which: str, found: Iterable[Any], judged: Iterable[Any]) -> None:
    classes = [{type(one) for one in ids} for ids in (found, judged)]
    unusable = sorted(cls.__name__ for cls in classes[0] if not issubclass(cls, Hashable))
    if unusable:
        raise InvalidArgument(f"{what} expects ids as {which}, found {unusable[0]}")
    kinds = [sorted({_kind(cls) for cls in some}) for some in classes]
    if all(kinds) and not set(kinds[0]) & set(kinds[1]):
        raise InvalidArgument(
            f"{what} expects {which} of the type in qrels, {' or '.join(kinds[1])}, found {' and '.join(kinds[0])}; "
            "convert one of them"
        )


def _kind(cls: type) -> str:
    kinds = ((str, "str"), (bytes, "bytes"), (Integral, "int"))
    return next((name for kind, name in kinds if issubclass(cls, kind)), cls.__name__)


def _order(user_id: Any) -> tuple[str, Any]:
    """What ids of several types are sorted by."""
    return _kind(type(user_id)), user_id


def _documents(ranking: Ranking) -> Iterable[Any]:
    """Ids of a ranking, those of hits in their order."""
    if isinstance(ranking, Mapping):
        return ranking
    return [getattr(doc, "id", doc) for doc in getattr(ranking, "ids", ranking)]


def rank(ranking: Ranking) -> list[Any]:
    """Documents in rank order, each once."""
    if not isinstance(ranking, Mapping):
        return list(dict.fromkeys(_documents(ranking)))
    try:
        return sorted(ranking, key=lambda doc: (ranking[doc], doc), reverse=True)
    except TypeError:
        return sorted(ranking, key=lambda doc: (ranking[doc], _order(doc)), reverse=True)


def ndcg(ranked: list[Any], judged: Judgements, k: int) -> float:
    """Discounted gain of the first k over that of the best possible order."""
    gains = [max(judged.get(doc, 0), 0) for doc in ranked[:k]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(ranked: list[Any], judged: Judgements, k: int) -> float:
    """Share of the relevant documents among the first k."""
    relevant = {doc for doc, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: list[Any], judged: Judgements, k: int) -> float:
    """One over the place of the first relevant document among the first k, 0 where there is none."""
    return next((1 / (place + 1) for place, doc in enumerate(ranked[:k]) if judged.get(doc, 0) > 0), 0.0)


@dataclass(frozen=True)
class Move:
    """A relevant document whose place differs between two runs.

    Attributes
    ----------
    document : its id
    grade : of the judgement, above 0
    old_rank, new_rank : places from 1; None where the run does not hold the document
    """

    document: Any
    grade: int
    old_rank: int | None
    new_rank: int | None

    @property
    def best(self) -> int:
        """The better of its two places."""
        return min(place for place in (self.old_rank, self.new_rank) if place is not None)

    def __str__(self) -> str:
        old, new = (f"rank {place}" if place else "not found" for place in (self.old_rank, self.new_rank))
        return f"{self.document} (grade {self.grade}): {old} -> {new}"


@dataclass(frozen=True)
class QueryChange:
    """What became of one query.

    Attributes
    ----------
    query : its id
    old, new : value of the measure in each run
    moved : relevant documents whose place differs, the best place first
    """

    query: Any
    old: float
    new: float
    moved: tuple[Move, ...]

    @property
    def difference(self) -> float:
        """New value minus old value."""
        return self.new - self.old

    def __str__(self) -> str:
        moves = [f"    {move}" for move in self.moved[:_SHOWN]]
        more = len(self.moved) - _SHOWN
        tail = [f"    and {more} more"] if more > 0 else []
        head = f"  {self.query}: {self.old:.4f} -> {self.new:.4f} ({self.difference:+.4f})"
        return "\n".join([head, *moves, *tail])


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same judged queries; prints as a report.

    Attributes
    ----------
    measure : what was compared, such as ``"nDCG@10"``
    old, new : means over the judged queries
    difference : mean of the differences, new minus old
    interval : ends of the 95 % bootstrap interval of the difference
    p_value : of the two-sided randomisation test
    won, lost : queries the new run answers better or worse, the largest change first
    tied : queries of equal value
    """

    measure: str
    old: float
    new: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    won: tuple[QueryChange, ...]
    lost: tuple[QueryChange, ...]
    tied: tuple[QueryChange, ...]

    @property
    def queries(self) -> int:
        """Number of judged queries."""
        return len(self.won) + len(self.lost) + len(self.tied)

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"{self.measure}: old {self.old:.4f}, new {self.new:.4f}, difference {self.difference:+.4f} "
            f"(95 % from {low:+.4f} to {high:+.4f}), p = {self.p_value:.2g}",
            f"{self.queries} queries: {len(self.won)} won, {len(self.lost)} lost, {len(self.tied)} tied",
        ]
        for title, changes in (("losses", self.lost), ("wins", self.won)):
            if changes:
                many = len(changes) > _SHOWN
                lines.append(f"{_SHOWN} largest {title} of {len(changes)}:" if many else f"{title}:")
                lines += map(str, changes[:_SHOWN])
        return "\n".join(lines)


def compare(
    old: Mapping[Any, Ranking],
    new: Mapping[Any, Ranking],
    qrels: Mapping[Any, Judgements],
    *,
    measure: str = "nDCG@10",
    k: int | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Test whether two runs differ, and show the queries that changed with the documents that moved.

    Parameters
    ----------
    old, new : runs as :func:`evaluate` takes them
    qrels : per query the grade of judged documents; a grade above 0 is relevant
    measure : nDCG, recall or MRR with a cut-off
    k : a moved document is shown where one of its places is at most this; the cut-off of the measure where None
    resamples : random sign flips of the test, and bootstrap samples of the interval
    seed : of both; equal arguments give equal results

    Returns
    -------
    Comparison : over all judged queries; a query without a result counts 0

    Notes
    -----
    The test is Fisher's randomisation test on the paired differences (Smucker, Allan and Carterette 2007, CIKM,
    "A comparison of statistical significance tests for information retrieval evaluation"): the share of sign flips
    whose mean is at least as far from 0 as that observed. All flips are counted where at most 12 queries differ;
    otherwise a sample is, and the observed one is counted in, (b + 1) / (resamples + 1), since a p-value of 0 is
    never right (Phipson and Smyth 2010, SAGMB 9(1)). The interval lies between the 2.5 and 97.5 % points of the mean
    over queries drawn with replacement (Efron 1979, Annals of Statistics 7(1); for retrieval Sakai 2006, SIGIR).
    """
    import numpy as np

    name, cut = _measure("compare(measure=)", measure)
    cases = (("k", k if k is not None else cut, 1), ("resamples", resamples, 1), ("seed", seed, 0))
    for argument, value, least in cases:
        whole(f"compare({argument}=)", value, least)
    _check_judgements("compare", qrels)
    before, after = (_values(run, qrels, side, name, cut) for side, run in (("old", old), ("new", new)))
    # By name, so that neither figures nor report depend on the order of the judgements.
    changes = [
        QueryChange(query, before[query], after[query], _moves(old, new, query, qrels[query], k or cut))
        for query in sorted(qrels, key=_order)
    ]
    changes.sort(key=lambda change: -abs(change.difference))
    differences = np.array([after[query] - before[query] for query in sorted(qrels, key=_order)])
    rng = np.random.default_rng(seed)
    return Comparison(
        measure=f"{name}@{cut}",
        old=math.fsum(before.values()) / len(qrels),
        new=math.fsum(after.values()) / len(qrels),
        difference=math.fsum(differences) / len(qrels),
        p_value=_p_value(differences, resamples, rng),
        interval=_interval(differences, resamples, rng),
        won=tuple(change for change in changes if change.difference > 0),
        lost=tuple(change for change in changes if change.difference < 0),
        tied=tuple(change for change in changes if change.difference == 0),
    )


def _measure(what: str, text: str) -> tuple[str, int]:
    parts = re.fullmatch(r"(nDCG|recall|MRR)@([1-9][0-9]{0,8})", str(text))
    if parts is None:
        raise InvalidArgument(f"{what} expects nDCG@k, recall@k or MRR@k, such as nDCG@10, found {text!r}")
    return parts[1], int(parts[2])


def cut_off(what: str, measure: str) -> int:
    """The k of a measure such as nDCG@k; raises InvalidArgument for another."""
    return _measure(what, measure)[1]


def _values(
    run: Mapping[Any, Ranking], qrels: Mapping[Any, Judgements], side: str, name: str, cut: int
) -> dict[Any, float]:
    if not qrels:
        raise InvalidArgument("compare(qrels=) expects at least one judged query, found none")
    _check_run(f"compare({side}=)", run, qrels)
    if not run.keys() & qrels.keys():
        # A run of other queries would count 0 throughout and make the difference look certain.
        raise InvalidArgument(f"compare({side}=) expects a run of the judged queries, found none of them in it")
    return _evaluate(run, qrels, [cut]).per_query[f"{name}@{cut}"]


def _moves(
    old: Mapping[Any, Ranking], new: Mapping[Any, Ranking], query: Any, judged: Judgements, k: int
) -> tuple[Move, ...]:
    before, after = ({doc: place for place, doc in enumerate(rank(run.get(query, ())), 1)} for run in (old, new))
    moves = (Move(doc, grade, before.get(doc), after.get(doc)) for doc, grade in judged.items() if grade > 0)
    moved = [move for move in moves if move.old_rank != move.new_rank and move.best <= k]
    return tuple(sorted(moved, key=lambda move: (move.best, _order(move.document))))


def _p_value(differences: np.ndarray[Any, Any], resamples: int, rng: np.random.Generator) -> float:
    """Share of sign flips whose sum is at least as far from 0 as that of the differences."""
    import numpy as np

    sizes = np.abs(differences[differences != 0])
    total = sizes.sum()
    # A flip of equal sum may differ in the last bits, as its terms are added in another order.
    bound = abs(math.fsum(differences)) - 1e-12 * total
    if len(sizes) <= _EXACT:
        flips = np.arange(1 << len(sizes))[:, None] >> np.arange(len(sizes)) & 1
        return float(np.mean(np.abs(total - 2 * (flips @ sizes)) >= bound))
    reached = 0
    for count in _blocks(resamples, len(sizes)):
        flips = rng.integers(2, size=(count, len(sizes)), dtype=np.int8)
        reached += int(np.count_nonzero(np.abs(total - 2 * (flips @ sizes)) >= bound))
    return (reached + 1) / (resamples + 1)


def _interval(differences: np.ndarray[Any, Any], resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of the mean over queries drawn with replacement."""
    import numpy as np

    n = len(differences)
    means = [differences[rng.integers(n, size=(count, n))].mean(1) for count in _blocks(resamples, n)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _blocks(resamples: int, width: int) -> Iterator[int]:
    rows = max(_BLOCK // width, 1)
    return (min(rows, resamples - start) for start in range(0, resamples, rows))
