"""Measures agree with ir-measures."""

from __future__ import annotations

from typing import Any

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham import evaluate
from gingham.errors import InvalidArgument

DOCS = [f"d{i}" for i in range(12)]
QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3), min_size=1),
    min_size=1,
)
RUN = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(DOCS), st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1),
)


@given(RUN, QRELS, st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_measures_are_those_of_ir_measures(
    run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]], k: int
) -> None:
    # Reciprocal rank has another tie rule there than the measures of trec_eval, so it is compared without ties.
    untied = {q: {d: score + int(d[1:]) * 1e-3 for d, score in found.items()} for q, found in run.items()}
    same(run, qrels, {f"nDCG@{k}": ir_measures.nDCG @ k, f"recall@{k}": ir_measures.R @ k}, k)
    same(untied, qrels, {f"MRR@{k}": ir_measures.RR @ k}, k)


def same(run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]], measures: dict[str, Any], k: int) -> None:
    ours = evaluate(run, qrels, k=[k])
    theirs = {
        (metric.query_id, str(metric.measure)): metric.value
        for metric in ir_measures.iter_calc(list(measures.values()), qrels, run)
    }
    for name, measure in measures.items():
        for query in qrels:
            assert ours.per_query[name][query] == pytest.approx(theirs.get((query, str(measure)), 0.0))


def test_a_ranking_may_be_a_list() -> None:
    result = evaluate({"q": ["b", "a"]}, {"q": {"a": 1}, "unanswered": {"a": 1}}, k=[2])
    assert result["MRR@2"] == 0.25
    assert result.queries == 2
    assert "nDCG@2" in str(result)


def test_a_cut_off_below_one_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="k="):
        evaluate({}, {}, k=[0])
