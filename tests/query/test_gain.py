"""What an expansion of queries gains, measured."""

from __future__ import annotations

from typing import Any

import pytest

import gingham as gg
from gingham import fuse_queries, hyde, match, measure_gain, near
from gingham.errors import InvalidArgument
from language_models import EMBEDDER, GOLD, QUESTIONS, SUBJECTS, knowing, raises

QUERIES = {f"q{i}": question for i, question in enumerate(QUESTIONS)}
QRELS = {f"q{i}": {name: 1} for i, name in enumerate(SUBJECTS)}


@pytest.fixture
def docs(db: gg.Database) -> gg.Collection:
    made = db.create_collection(
        "texts", fields={"body": gg.Text(bm25=True)}, vectors={"dense": gg.Dense(256)}, embedder=EMBEDDER
    )
    made.upsert(ids=list(SUBJECTS), fields={"body": list(SUBJECTS.values())})
    return made


def test_a_model_that_knows_the_passages_gains_and_the_report_says_how_surely(docs: gg.Collection) -> None:
    llm = knowing()
    gain = measure_gain(docs, QUERIES, QRELS, expanded=lambda text: hyde(text, llm=llm))
    assert list(gain.comparisons) == ["nDCG@10", "MRR@10", "recall@100"]
    assert gain["MRR@10"].new == 1.0
    assert gain["nDCG@10"].difference > 0.4
    assert gain["nDCG@10"].p_value < 0.01
    assert gain.remarks == {}
    plain = {query: docs.search(text, k=100).ids for query, text in QUERIES.items()}
    assert gain["nDCG@10"].old == pytest.approx(gg.evaluate(plain, QRELS, k=10)["nDCG@10"])
    assert "nDCG@10: plain 0." in str(gain)
    assert "expanded 1.0000" in str(gain)
    assert gain.plain_seconds > 0
    assert gain.expanded_seconds > 0


def test_trees_are_searched_for_too_and_equal_ones_gain_nothing(docs: gg.Collection, db: gg.Database) -> None:
    def words(text: str) -> gg.Query:
        return match("body", GOLD[text])

    with db.snapshot() as then:
        gain = measure_gain(then["texts"], QUERIES, QRELS, plain=words, expanded=words, measures=["MRR@3"])
    assert (gain["MRR@3"].old, gain["MRR@3"].difference, gain["MRR@3"].p_value) == (1.0, 0.0, 1.0)
    few = measure_gain(
        docs, {"q3": QUESTIONS[3], "unjudged": "x"}, QRELS, expanded=lambda text: near("dense", GOLD[text])
    )
    assert few["nDCG@10"].queries == 1
    assert few["nDCG@10"].new == 1.0


@pytest.mark.parametrize(
    "build", [lambda text, llm: hyde(text, llm=llm), lambda text, llm: fuse_queries(text, llm=llm)]
)
def test_a_model_that_fails_gains_nothing_and_is_remarked(docs: gg.Collection, build: Any) -> None:
    gain = measure_gain(docs, QUERIES, QRELS, expanded=lambda text: build(text, raises(RuntimeError("down"))))
    assert all(one.difference == 0 for one in gain.comparisons.values())
    assert list(gain.remarks) == list(QUERIES)
    assert all("searched for the text alone" in remark for remark in gain.remarks.values())
    assert "remarks on 12 queries:" in str(gain)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"measures": ["MAP@10"]}, r"measures=\) expects nDCG@k"),
        ({"measures": []}, "at least one measure"),
        ({"measures": "nDCG@10"}, "a list of measures"),
        ({"measures": None}, "a list of measures"),
        ({"expanded": None}, r"expanded=\) expects a function of a text"),
        ({"plain": 5}, r"plain=\) expects a function"),
        ({"queries": ["text"]}, r"queries=\) expects a dict"),
        ({"qrels": None}, r"qrels=\) expects a dict"),
        ({"queries": {"other": "text"}}, "found none in 1 queries and 12"),
    ],
)
def test_arguments_are_checked_before_anything_is_searched_for(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidArgument, match=found):
        measure_gain(**{"docs": None, "queries": QUERIES, "qrels": QRELS, "expanded": str, **options})
