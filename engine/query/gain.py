"""What an expansion of queries gains, on judged queries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from gingham.errors import InvalidArgument
from gingham.evaluation import Comparison, compare, cut_off
from gingham.query.nodes import Query
from gingham.types import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEASURES = ("nDCG@10", "MRR@10", "recall@100")
_SHOWN = 3


class Searchable(Protocol):
    """A collection, or a view of a snapshot."""

    def search(self, query: Any, *, k: int) -> Any:
        """The k best rows."""
        ...

    def query(self, query: Query) -> Any:
        """What a tree finds."""
        ...


@dataclass(frozen=True)
class Gain:
    """Plain and expanded searches for the same judged queries; prints as a report.

    Attributes
    ----------
    comparisons : per measure the plain run as the old one, the expanded as the new one
    plain_seconds, expanded_seconds : median time of a query, with its expansion
    remarks : per query what the hits of the expanded search say and those of the plain one do not, for instance that
        the model failed and the text alone was searched for
    """

    comparisons: dict[str, Comparison]
    plain_seconds: float
    expanded_seconds: float
    remarks: dict[Any, str]

    def __getitem__(self, measure: str) -> Comparison:
        return self.comparisons[measure]

    def __str__(self) -> str:
        lines = [
            f"{measure}: plain {one.old:.4f}, expanded {one.new:.4f}, gain {one.difference:+.4f} "
            f"(95 % from {one.interval[0]:+.4f} to {one.interval[1]:+.4f}), p = {one.p_value:.2g}; "
            f"{len(one.won)} won, {len(one.lost)} lost, {len(one.tied)} tied"
            for measure, one in self.comparisons.items()
        ]
        lines.append(f"median of a query: plain {self.plain_seconds:.3g} s, expanded {self.expanded_seconds:.3g} s")
        if self.remarks:
            lines.append(f"remarks on {len(self.remarks)} queries:")
            lines += [f"  {query}: {remark}" for query, remark in list(self.remarks.items())[:_SHOWN]]
        return "\n".join(lines)


def measure_gain(
    docs: Searchable,
    queries: Mapping[Any, str],
    qrels: Mapping[Any, Mapping[Any, int]],
    *,
    expanded: Callable[[str], Any],
    plain: Callable[[str], Any] | None = None,
    measures: Sequence[str] = MEASURES,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gain:
    """Search for judged queries plainly and expanded, and test what the expansion gains.

    Parameters
    ----------
    docs : a collection, or a view of a snapshot; its rows are found by the ids of ``qrels``
    queries : texts by id; those without a judgement are left out
    qrels : per query the grade of judged rows; a grade above 0 is relevant. Those of queries without a text are left
        out
    expanded : makes of a text what is searched for: a tree such as ``near("dense", hyde(text, llm=llm))`` or
        ``fuse_queries(text, llm=llm)``, or what ``search`` takes, such as ``hyde(text, llm=llm)``
    plain : the same without expansion; None takes the text itself
    measures : nDCG, recall or MRR with a cut-off; as many rows are looked for as the greatest
    resamples, seed : of :func:`gingham.compare`

    Returns
    -------
    Gain : with a :class:`gingham.Comparison` for each measure

    Raises
    ------
    InvalidArgument : there is no judged query with a text, a measure is unknown, or an argument is of another kind

    Notes
    -----
    A model gains most where it knows what the documents say, as it may for public test sets (Yoon et al. 2025,
    "Hypothetical documents or knowledge leakage?"): judge queries of your own documents. With several measures some
    p-value is small by chance more often than each alone; decide by the one chosen beforehand.
    """
    if isinstance(measures, str) or not isinstance(measures, Iterable):
        raise InvalidArgument(f"measure_gain(measures=) expects a list of measures, found {shown(measures)}")
    measures = list(measures)
    cuts = [cut_off("measure_gain(measures=)", measure) for measure in measures]
    if not cuts:
        raise InvalidArgument("measure_gain(measures=) expects at least one measure, found none")
    for what, build in (("expanded", expanded), ("plain", plain)):
        if not callable(build) and (build is not None or what == "expanded"):
            raise InvalidArgument(f"measure_gain({what}=) expects a function of a text, found {shown(build)}")
    for what, value in (("queries", queries), ("qrels", qrels)):
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"measure_gain({what}=) expects a dict by id of a query, found {shown(value)}")
    judged = {query: grades for query, grades in qrels.items() if query in queries}
    if not judged:
        raise InvalidArgument(
            f"measure_gain() expects judged queries with a text, found none in {len(queries)} queries and {len(qrels)} "
            "judged ones; use the same ids in both"
        )
    builders = ((lambda text: text) if plain is None else plain, expanded)
    runs: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    seconds: tuple[list[float], list[float]] = ([], [])
    remarks: dict[Any, str] = {}
    for query in judged:
        whys = []
        for build, run, spent in zip(builders, runs, seconds, strict=True):
            started = time.perf_counter()
            hits = _found(docs, build(queries[query]), max(cuts))
            spent.append(time.perf_counter() - started)
            run[query] = hits.ids
            whys.append(hits.complete.why)
        if whys[1] and whys[1] != whys[0]:
            remarks[query] = whys[1]
    comparisons = {
        measure: compare(runs[0], runs[1], judged, measure=measure, resamples=resamples, seed=seed)
        for measure in measures
    }
    return Gain(comparisons, median(seconds[0]), median(seconds[1]), remarks)


def _found(docs: Searchable, query: Any, k: int) -> Any:
    return docs.query(query.limit(k)) if isinstance(query, Query) else docs.search(query, k=k)
