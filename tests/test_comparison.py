"""Comparing two runs: significance against plain enumeration, the documents that moved, run files."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from typing import TYPE_CHECKING

import ir_measures
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gingham import compare, evaluate
from gingham.errors import InvalidArgument
from gingham.evaluation import Move
from gingham.files import read_run, write_run

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=9)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1)
SCORES = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.dictionaries(NAMES, st.dictionaries(NAMES, SCORES, min_size=1, max_size=5), max_size=4)


def runs(
    pairs: list[tuple[int, int]],
) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, dict[str, int]]]:
    """Runs that put the one relevant document of each query at the given places."""
    old, new = (
        {f"q{i:03}": [*(f"x{j}" for j in range(1, pair[side])), "hit"] for i, pair in enumerate(pairs)}
        for side in (0, 1)
    )
    return old, new, {query: {"hit": 1, "x1": 0} for query in old}


def enumerated(pairs: list[tuple[int, int]]) -> float:
    differences = [Fraction(1, new) - Fraction(1, old) for old, new in pairs]
    sums = [
        abs(sum((d * s for d, s in zip(differences, signs, strict=True)), Fraction(0)))
        for signs in itertools.product((1, -1), repeat=len(pairs))
    ]
    return sum(found >= abs(sum(differences)) for found in sums) / len(sums)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_few_queries_give_the_exact_p_value(pairs: list[tuple[int, int]]) -> None:
    outcome = compare(*runs(pairs), measure="MRR@10", resamples=50)
    assert outcome.p_value == pytest.approx(enumerated(pairs))
    assert outcome.difference == pytest.approx(sum(1 / new - 1 / old for old, new in pairs) / len(pairs))


def test_sampled_flips_come_close_to_all_of_them(rng: np.random.Generator) -> None:
    pairs = [(int(old), int(old) % 6 + 1) for old in rng.integers(1, 7, 14)]
    exact = enumerated(pairs)
    assert 0.01 < exact < 0.99
    sampled = compare(*runs(pairs), measure="MRR@10").p_value
    assert sampled == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5 + 1e-4)
    assert sampled != exact


def test_no_p_value_is_zero() -> None:
    outcome = compare(*runs([(6, 1)] * 30), measure="MRR@10", resamples=99)
    assert outcome.p_value == 1 / 100
    assert outcome.interval == pytest.approx((5 / 6, 5 / 6))


def test_the_interval_is_that_of_the_normal_where_queries_are_many(rng: np.random.Generator) -> None:
    pairs = [(int(old), int(new)) for old, new in rng.integers(1, 7, (400, 2))]
    differences = np.array([1 / new - 1 / old for old, new in pairs])
    half = 1.96 * differences.std() / 20
    outcome = compare(*runs(pairs), measure="MRR@10")
    assert outcome.interval == pytest.approx((differences.mean() - half, differences.mean() + half), abs=half / 15)


@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_equal_runs_have_no_difference_and_exchange_mirrors(pairs: list[tuple[int, int]]) -> None:
    old, new, qrels = runs(pairs * 2)
    same = compare(old, old, qrels, resamples=200)
    assert (same.p_value, same.difference, same.interval) == (1.0, 0.0, (0.0, 0.0))
    assert not same.won + same.lost
    assert not any(change.moved for change in same.tied)
    there, back = compare(old, new, qrels, resamples=200), compare(new, old, qrels, resamples=200)
    assert there.p_value == back.p_value
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert [change.query for change in there.won] == [change.query for change in back.lost]
    assert there.queries == len(qrels)


def test_the_order_of_the_judgements_does_not_matter_and_means_are_those_of_evaluate() -> None:
    old, new, qrels = runs([(1 + i % 5, 1 + i % 3) for i in range(40)])
    outcome = compare(old, new, qrels, measure="nDCG@3")
    assert outcome == compare(old, new, dict(reversed(qrels.items())), measure="nDCG@3")
    assert outcome.old == evaluate(old, qrels, k=[3])["nDCG@3"]
    assert outcome.new == evaluate(new, qrels, k=[3])["nDCG@3"]
    assert outcome.p_value != compare(old, new, qrels, measure="nDCG@3", seed=1).p_value


OLD = {"won": ["a", "b", "c", "d"], "lost": {"a": 2.0, "b": 1.0}, "tied": ["a", "b"], "gone": ["a"]}
NEW = {"won": ["c", "a", "b"], "lost": {"x": 2.0, "b": 3.0, "a": 1.0}, "tied": ["a", "x"]}
QRELS = {
    "won": {"c": 2, "a": 1, "b": 0, "d": 1},
    "lost": {"a": 1, "y": 3},
    "tied": {"a": 1},
    "gone": {"a": 1},
    "never": {"a": 1},
}


def test_the_documents_that_moved_are_shown() -> None:
    outcome = compare(OLD, NEW, QRELS, measure="recall@2")
    assert [change.query for change in outcome.lost] == ["gone", "lost"]
    assert [change.query for change in outcome.won] == ["won"]
    assert [change.query for change in outcome.tied] == ["never", "tied"]
    gone, lost = outcome.lost
    assert gone.moved == (Move("a", 1, 1, None),)
    assert lost.moved == (Move("a", 1, 1, 3),)
    # d also moved, from 4 to nowhere, beyond the cut-off.
    assert outcome.won[0].moved == (Move("a", 1, 1, 2), Move("c", 2, 3, 1))
    assert not any(change.moved for change in outcome.tied)
    deep = compare(OLD, NEW, QRELS, measure="recall@2", k=4)
    assert deep.won[0].moved[-1] == Move("d", 1, 4, None)
    text = str(outcome)
    assert "recall@2: old 0.5667, new 0.3333, difference -0.2333" in text
    assert "5 queries: 1 won, 2 lost, 2 tied" in text
    assert "  gone: 1.0000 -> 0.0000 (-1.0000)\n    a (grade 1): rank 1 -> not found" in text
    assert text.index("losses:") < text.index("wins:")


def test_a_report_shows_the_five_largest() -> None:
    qrels = {f"q{i}": {f"d{j}": 1 for j in range(8)} for i in range(7)}
    old = {query: list(judged) for query, judged in qrels.items()}
    new = {query: ["x", *list(judged)[: int(query[1:])]] for query, judged in qrels.items()}
    lines = str(compare(old, new, qrels)).splitlines()
    assert lines[2] == "5 largest losses of 7:"
    assert [line[2:4] for line in lines if line.startswith("  q")] == ["q0", "q1", "q2", "q3", "q4"]
    assert lines.count("    and 3 more") == 5
    assert not any("wins" in line for line in lines)


@pytest.mark.parametrize("measure", ["nDCG", "ndcg@10", "nDCG@0", "nDCG@-1", "P@10", "nDCG@10 ", "MRR@٣", 10])
def test_an_unknown_measure_is_refused(measure: str) -> None:
    with pytest.raises(InvalidArgument, match="nDCG@k"):
        compare(OLD, NEW, QRELS, measure=measure)


def test_arguments_without_meaning_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="resamples="):
        compare(OLD, NEW, QRELS, resamples=0)
    with pytest.raises(InvalidArgument, match="seed="):
        compare(OLD, NEW, QRELS, seed=-1)
    with pytest.raises(InvalidArgument, match=r"\(k=\)"):
        compare(OLD, NEW, QRELS, k=0)
    with pytest.raises(InvalidArgument, match="judged query"):
        compare(OLD, NEW, {})
    with pytest.raises(InvalidArgument, match=r"new=.*none of them"):
        compare(OLD, {"1": ["a"]}, QRELS)


@given(RUNS, st.sampled_from(["run.trec", "run.json"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_comes_back_from_its_file(tmp_path: Path, run: dict[str, dict[str, float]], name: str) -> None:
    write_run(tmp_path / name, run)
    assert read_run(tmp_path / name) == run


def test_a_run_file_has_six_columns_in_rank_order(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    write_run(path, {"q": {"a": np.float32(0.5), "b": 0.5, "c": 2}, "r": ["z", "y", "z"], "none": []}, tag="mine")
    assert path.read_text() == (
        "q Q0 c 1 2.0 mine\nq Q0 b 2 0.5 mine\nq Q0 a 3 0.5 mine\nr Q0 z 1 2.0 mine\nr Q0 y 2 1.0 mine\n"
    )
    path.write_text("q\tQ0\ta  1 1e3 x\r\n\n q 0 b 7 -2 x\n")
    assert read_run(path) == {"q": {"a": 1000.0, "b": -2.0}}


def test_ir_measures_reads_our_run_files_alike(tmp_path: Path) -> None:
    old, _, qrels = runs([(1 + i % 5, 1) for i in range(20)])
    write_run(tmp_path / "run.trec", old)
    theirs = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 3], qrels, ir_measures.read_trec_run(str(tmp_path / "run.trec"))
    )
    assert theirs[ir_measures.nDCG @ 3] == pytest.approx(evaluate(old, qrels, k=[3])["nDCG@3"])


def test_names_that_columns_cannot_hold_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("kept")
    with pytest.raises(InvalidArgument, match=r"document ids without whitespace, found 'a b'"):
        write_run(path, {"q": {"fine": 1.0, "a b": 1.0}})
    with pytest.raises(InvalidArgument, match=r"query ids without whitespace, found ''"):
        write_run(path, {"": ["a"]})
    with pytest.raises(InvalidArgument, match="a tag without whitespace"):
        write_run(path, {"q": ["a"]}, tag="my run")
    with pytest.raises(InvalidArgument, match="finite"):
        write_run(path, {"q": {"a": float("nan")}})
    assert path.read_text() == "kept"
    write_run(tmp_path / "run.json", {"q": ["a b"]})
    assert read_run(tmp_path / "run.json") == {"q": {"a b": 1.0}}
    with pytest.raises(InvalidArgument, match="can be written"):
        write_run(tmp_path / "none" / "run.trec", {"q": ["a"]})
    with pytest.raises(InvalidArgument, match="can be written"):
        write_run(path, {"q": ["\ud800"]})


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("q Q0 a b 1 2.0 x", "line 2 has 7 columns"),
        ("q Q0 a 1 high x", "line 2 has no number as its score: 'high'"),
        ("q Q0 a 1 nan x", "line 2 has no finite score"),
        ("q Q0 first 2 0.5 x", "line 2 has document 'first' a second time"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, match: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 first 1 1.0 x\n{line}\n")
    with pytest.raises(InvalidArgument, match=match):
        read_run(path)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"q": ["a"]}',
        '{"q": {"a": "1"}}',
        '{"q": {"a": true}}',
        '{"q": {"a": NaN}}',
        '{"q": ',
        "[" * 100_000,
        json.dumps({"q": {"a": 10**400}}),
    ],
    ids=range(8),
)
def test_malformed_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"run\.json"):
        read_run(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match="readable file"):
        read_run(path)
    with pytest.raises(InvalidArgument, match="readable file"):
        read_run(tmp_path / "none")
