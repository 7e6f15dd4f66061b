"""Ranking quality against relevance judgements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Ranking = Mapping[str, float] | Sequence[str]
Judgements = Mapping[str, int]


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
    per_query: dict[str, dict[str, float]]
    queries: int

    def __getitem__(self, measure: str) -> float:
        return self.means[measure]

    def __str__(self) -> str:
        lines = [f"{measure:<12} {value:.4f}" for measure, value in self.means.items()]
        return "\n".join([*lines, f"{'queries':<12} {self.queries}"])


def evaluate(
    run: Mapping[str, Ranking], qrels: Mapping[str, Judgements], *, k: Sequence[int] = (10, 100)
) -> Evaluation:
    """Score rankings with nDCG@k, recall@k and MRR@k.

    Parameters
    ----------
    run : per query the documents found: a mapping to scores, or ids in rank order
    qrels : per query the grade of judged documents; a grade above 0 is relevant
    k : cut-offs

    Returns
    -------
    Evaluation : means over the queries with at least one judgement; a query without a result counts 0

    Notes
    -----
    nDCG is that of trec_eval: gain = grade, discount = log2(rank + 1), ideal over all judged documents
    (Järvelin and Kekäläinen 2002, ACM TOIS 20(4), with the discount of Burges et al. 2005). As in trec_eval
    equal scores are ordered by descending document id.
    """
    if not k or any(isinstance(cut, bool) or not isinstance(cut, int) or cut < 1 for cut in k):
        raise InvalidArgument(f"evaluate(k=) expects cut-offs of at least 1, found {k!r}")
    measures: dict[str, Callable[[list[str], Judgements, int], float]] = {
        "nDCG": ndcg,
        "recall": recall,
        "MRR": reciprocal_rank,
    }
    ranked = {query: rank(run.get(query, ())) for query in qrels}
    per_query = {
        f"{name}@{cut}": {query: measure(ranked[query], judged, cut) for query, judged in qrels.items()}
        for name, measure in measures.items()
        for cut in k
    }
    means = {name: math.fsum(v.values()) / len(v) if v else 0.0 for name, v in per_query.items()}
    return Evaluation(means, per_query, len(qrels))


def rank(ranking: Ranking) -> list[str]:
    """Documents in rank order, each once."""
    if isinstance(ranking, Mapping):
        return sorted(ranking, key=lambda doc: (ranking[doc], doc), reverse=True)
    seen: dict[Hashable, None] = dict.fromkeys(ranking)
    return [str(doc) for doc in seen]


def ndcg(ranked: list[str], judged: Judgements, k: int) -> float:
    """Discounted gain of the first k over that of the best possible order."""
    gains = [max(judged.get(doc, 0), 0) for doc in ranked[:k]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(ranked: list[str], judged: Judgements, k: int) -> float:
    """Share of the relevant documents among the first k."""
    relevant = {doc for doc, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: list[str], judged: Judgements, k: int) -> float:
    """One over the place of the first relevant document among the first k, 0 where there is none."""
    return next((1 / (place + 1) for place, doc in enumerate(ranked[:k]) if judged.get(doc, 0) > 0), 0.0)
