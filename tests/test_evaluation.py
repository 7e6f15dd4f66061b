"""Measures agree with ir-measures."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham import compare, evaluate
from gingham.errors import InvalidArgument
from gingham.files import read_run, write_run

if TYPE_CHECKING:
    from pathlib import Path

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
    for wrong in (0, [0], [], "10", None, 10.0, [True]):
        with pytest.raises(InvalidArgument, match="k="):
            evaluate({}, {}, k=wrong)  # type: ignore[arg-type]


def test_one_cut_off_needs_no_list() -> None:
    for one in (10, np.int64(10), [10], np.array([10])):
        assert list(evaluate({}, QREL, k=one).means) == ["nDCG@10", "recall@10", "MRR@10"]  # type: ignore[arg-type]


QREL = {"q": {"a": 1}}
U, V = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.mark.parametrize(
    ("query", "first", "second"),
    [("q", "a", "b"), (1, 10, 9), (U, U, V), (b"q", b"a", b"b"), ("q", U, "a"), (1, "a", 2)],
)
def test_ids_of_any_type_are_compared_as_they_are(query: Any, first: Any, second: Any) -> None:
    qrels = {query: {first: 2, second: 1}}
    for run in (
        {query: [first, second]},
        {query: {second: 0.5, first: 0.7}},
        {query: np.array([first, second], object)},
    ):
        assert evaluate(run, qrels, k=2).means == {"nDCG@2": 1.0, "recall@2": 1.0, "MRR@2": 1.0}
    swapped = evaluate({query: [second, first]}, qrels, k=1)
    assert swapped["nDCG@1"] == 0.5
    assert swapped.per_query["nDCG@1"] == {query: 0.5}
    assert evaluate({query: {second: 0.5, first: 0.5}}, qrels, k=2)["recall@2"] == 1.0
    outcome = compare({query: [first, second]}, {query: [second, first]}, qrels)
    assert {move.document for move in outcome.lost[0].moved} == {first, second}
    assert str(query) in str(outcome)


def test_integers_of_numpy_are_integers() -> None:
    assert evaluate({np.int64(1): np.array([5, 6])}, {1: {5: 1}}, k=1)["MRR@1"] == 1.0


def test_hits_are_a_ranking(db: gg.Database, rng: np.random.Generator) -> None:
    docs = db.create_collection("c", vectors={"v": gg.Dense(3)})
    vectors = rng.standard_normal((20, 3))
    docs.upsert(ids=list(range(20)), vectors={"v": vectors})
    hits = docs.search(vectors)
    qrels = {number: {number: 1, int(rng.integers(20)): 1} for number in range(20)}
    run: dict[Any, Any] = dict(enumerate(hits))
    lists = {number: found.ids for number, found in run.items()}
    assert evaluate(run, qrels, k=5).per_query == evaluate(lists, qrels, k=5).per_query
    assert evaluate({n: found[:3] for n, found in run.items()}, qrels, k=3).means == evaluate(lists, qrels, k=3).means
    assert evaluate(run, qrels)["MRR@10"] == 1.0


@pytest.mark.parametrize(
    ("run", "qrels", "said"),
    [
        ({"q": {"1": 1.0}}, {"q": {1: 1}}, "documents of the type in qrels, int, found str"),
        ({"q": [1]}, {"q": {"1": 1}}, "documents of the type in qrels, str, found int"),
        ({1: ["a"]}, {"1": {"a": 1}}, "queries of the type in qrels, str, found int"),
        ({"q": [str(U)]}, {"q": {U: 1}}, "documents of the type in qrels, UUID, found str"),
        ([["a"]], QREL, "expects a dict of queries, found list"),
        ({"q": "abc"}, QREL, "expects scores by document, ids or hits, found 'abc' at query 'q'"),
        ({"q": 3}, QREL, "expects scores by document, ids or hits, found 3"),
        ({"q": {"a"}}, QREL, "expects scores by document, ids or hits"),
        ({"q": {"a": "x"}}, QREL, "expects scores by document, ids or hits"),
        ({"q": {"a": float("nan"), "b": 1.0}}, QREL, "expects scores by document, ids or hits"),
        ({"q": [["a"]]}, QREL, "expects ids as documents, found list"),
        ({}, [1], "expects a dict of queries, found list"),
        ({}, {"q": ["a"]}, "expects a dict of grades by document"),
        ({}, {"q": {"a": "1"}}, "expects numbers as grades, found '1' at query 'q'"),
        ({}, {"q": {"a": float("nan")}}, "expects numbers as grades"),
    ],
)
def test_what_could_only_count_zero_is_refused(run: Any, qrels: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        evaluate(run, qrels)
    with pytest.raises(InvalidArgument, match=said):
        compare(run, run, qrels)


def test_a_run_of_ids_of_any_type_is_written_as_text(tmp_path: Path) -> None:
    run = {1: {10: 0.5, 9: 0.25}, 2: [U, V]}
    for name in ("run.trec", "run.json"):
        write_run(tmp_path / name, run)
        assert read_run(tmp_path / name) == {"1": {"10": 0.5, "9": 0.25}, "2": {str(U): 2.0, str(V): 1.0}}
