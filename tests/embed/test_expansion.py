"""Other wordings of a query and more general questions, by a language model."""

from __future__ import annotations

from typing import Any

import pytest

import gingham as gg
from gingham import fuse, fuse_queries, near, step_back
from gingham.errors import InvalidArgument
from gingham.query.nodes import Fuse
from language_models import failures, says


def test_other_wordings_are_searched_for_beside_the_query(docs: gg.Collection) -> None:
    llm = says('1. steel cables over the strait\n2) zzz\n\n- ZZZ\n* "towers and deck"\nstrange words\none more')
    node = fuse_queries("strange words", llm=llm, n=3)
    assert isinstance(node, Fuse)
    assert [branch.query for branch in node.branches] == [  # type: ignore[attr-defined]
        "strange words",
        "steel cables over the strait",
        "zzz",
        "towers and deck",
    ]
    assert node.by == gg.RRF(60, (2, 1, 1, 1))
    hits = docs.query(node)
    assert "bridge" in hits.ids[:3]
    assert hits.complete.why == ""
    assert "strange words" in llm.prompts[0]
    assert "Write 3 search queries" in llm.prompts[0]
    again = fuse_queries("strange words", llm=llm, n=3)
    assert len(again.branches) == 4
    assert llm.calls == 1


def test_a_more_general_question_is_searched_for_beside_the_question(docs: gg.Collection) -> None:
    llm = says("which proteins speed up reactions in cells?")
    node = step_back("zzz", llm=llm, field="dense")
    assert len(node.branches) == 2
    assert docs.query(node.limit(2)).ids
    assert "more general" in llm.prompts[0]


@pytest.mark.parametrize("make", [fuse_queries, step_back])
@pytest.mark.parametrize("kind", failures())
def test_without_other_wordings_the_query_is_searched_for_alone_with_a_remark(
    docs: gg.Collection, make: Any, kind: str
) -> None:
    hits = docs.query(make("wild yeast", llm=failures()[kind]))
    assert hits.ids == docs.query(fuse(near(None, "wild yeast"))).ids
    assert f"{make.__name__}() searched for the text alone" in hits.complete.why
    same = docs.query(make("wild yeast", llm=says("Wild Yeast")))
    assert "found none" in same.complete.why


def test_weights_are_those_of_the_wordings_that_are_there() -> None:
    llm = says("one\ntwo")
    assert fuse_queries("q", llm=llm, n=3, by=gg.MinMax((3, 2, 1, 1))).by == gg.MinMax((3, 2, 1))
    assert fuse_queries("q", llm=says(), n=1, by=gg.RRF(weights=(0, 1))).by == gg.RRF()
    assert fuse_queries("q", llm=llm, n=3, by=gg.DBSF()).by == gg.DBSF()
    with pytest.raises(InvalidArgument, match="3 weights"):
        fuse_queries("q", llm=llm, n=2, by=gg.RRF(weights=(1, 1)))


@pytest.mark.parametrize(
    "options", [{"text": ""}, {"llm": print}, {"n": 0}, {"timeout": -1}, {"cache": 1}, {"by": "rrf"}]
)
def test_arguments_of_other_wordings_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="expects"):
        fuse_queries(**{"text": "query", "llm": says("x"), **options})
