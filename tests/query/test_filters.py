"""Filters: the string, the operators and JSON mean the same, and what SQL means."""

from __future__ import annotations

import functools
import operator
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham import F
from gingham.errors import FilterSyntaxError, InvalidArgument, SchemaMismatch
from gingham.query.ast import And, Compare, Contains, In, IsNull, Node, Not, Or, StartsWith, from_json, to_json, to_sql
from gingham.query.bind import bind
from gingham.query.evaluate import evaluate
from gingham.query.parse import parse

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = gg.Schema.of(
    {
        "i": gg.Int(), "f": gg.Float(), "b": gg.Bool(), "k": gg.Keyword(), "t": gg.Text(),
        "when": gg.Timestamp(), "ks": gg.Keyword(many=True), "ints": gg.Int(many=True), "j": gg.Json(),
    }
)  # fmt: skip
WORDS = ["", "a", "ab", "b'c", "d\\", "é%", "_x"]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i": st.integers(-3, 3) | st.sampled_from([2**70, -(2**70), 0.5, -1.5, 2**63 - 1]),
    "f": st.sampled_from([-1.5, 0.0, 1.0, 2.5]) | st.integers(-2, 2),
    "b": st.booleans(),
    "k": st.sampled_from(WORDS),
    "t": st.sampled_from(WORDS),
    "when": st.integers(-2, 2).map(lambda d: EPOCH + timedelta(days=d)),
    "ks": st.sampled_from(WORDS),
    "ints": st.integers(-2, 2),
}
STORED = {
    **VALUES,
    "i": st.integers(-3, 3),
    "f": st.sampled_from([-1.5, 0.0, 1.0, 2.5]),
    "ks": st.lists(st.sampled_from(WORDS), max_size=3),
    "ints": st.lists(st.integers(-2, 2), max_size=3),
}


def leaves() -> st.SearchStrategy[Node]:
    ops = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    single = ["i", "f", "k", "t", "when"]
    compare = st.sampled_from(single).flatmap(lambda n: st.builds(Compare, st.just(n), ops, VALUES[n]))
    flags = st.builds(Compare, st.just("b"), st.sampled_from(["==", "!="]), VALUES["b"])
    within = st.sampled_from([*single, "b"]).flatmap(
        lambda n: st.builds(In, st.just(n), st.lists(VALUES[n], max_size=3).map(tuple))
    )
    contains = st.sampled_from(["ks", "ints"]).flatmap(
        lambda n: st.builds(Contains, st.just(n), st.lists(VALUES[n], min_size=1, max_size=2).map(tuple))
    )
    null = st.builds(IsNull, st.sampled_from(list(VALUES)))
    like = st.builds(StartsWith, st.sampled_from(["k", "t"]), st.sampled_from(WORDS))
    return compare | flags | within | contains | null | like


NODES: st.SearchStrategy[Node] = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({n: st.none() | s for n, s in STORED.items()}), max_size=12)


def oracle(node: Node, row: dict[str, Any]) -> bool | None:
    """SQL's three-valued logic, row by row."""
    match node:
        case And(args):
            found = [oracle(arg, row) for arg in args]
            return False if False in found else None if None in found else True
        case Or(args):
            found = [oracle(arg, row) for arg in args]
            return True if True in found else None if None in found else False
        case Not(arg):
            inner = oracle(arg, row)
            return None if inner is None else not inner
        case IsNull(field):
            return row[field] is None
    value = row[node.field]
    if value is None:
        return None
    match node:
        case Compare(_, op, other):
            return (
                bool({"==": value == other, "!=": value != other}.get(op))
                if op in ("==", "!=")
                else bool({"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[op])
            )
        case In(_, values):
            return value in values
        case StartsWith(_, prefix):
            return bool(value.startswith(prefix))
        case Contains(_, values):
            return any(v in values for v in value)
    raise AssertionError(node)


def mask(where: Any, rows: list[dict[str, Any]], *, dictionary: bool = False) -> list[bool]:
    bound = bind(where, SCHEMA)
    assert bound is not None
    columns = {n: pa.array([r[n] for r in rows], SCHEMA.fields[n].arrow_type) for n in STORED}
    if dictionary:
        columns["k"] = columns["k"].dictionary_encode()
    found: list[bool] = evaluate(bound, columns.__getitem__, len(rows)).tolist()
    return found


@given(NODES, ROWS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_filter_selects_what_sql_selects(node: Node, rows: list[dict[str, Any]], dictionary: bool) -> None:
    assert mask(node, rows, dictionary=dictionary) == [oracle(node, row) is True for row in rows]


@given(NODES)
@settings(max_examples=300, deadline=None)
def test_a_filter_survives_its_string_and_its_json(node: Node) -> None:
    assert from_json(to_json(node)) == node
    assert bind(to_sql(node), SCHEMA) == bind(node, SCHEMA)
    assert bind(to_json(node), SCHEMA) == bind(node, SCHEMA)
    hash(bind(node, SCHEMA))


@given(NODES, NODES, ROWS)
@settings(max_examples=100, deadline=None)
def test_logically_equal_filters_select_the_same_rows(a: Node, b: Node, rows: list[dict[str, Any]]) -> None:
    assert mask(Not(And((a, b))), rows) == mask(Or((Not(a), Not(b))), rows)
    assert mask(Not(Not(a)), rows) == mask(a, rows)
    assert bind(And((a, And((b, a)))), SCHEMA) == bind(And((b, a)), SCHEMA)
    assert mask("i IN (1, 2)", rows) == mask("i = 1 OR i = 2", rows)
    assert mask("f BETWEEN -1 AND 1", rows) == mask("f >= -1 AND f <= 1", rows)


@given(st.text(max_size=40) | st.lists(
    st.sampled_from(["i", "=", "(", ")", "1", "'x'", "AND", "NOT", "IN", "LIKE", ",", "NULL", "IS", '"k"']), max_size=12
).map(" ".join))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_text_raises_anything_but_a_syntax_error(text: str) -> None:
    try:
        parse(text)
    except FilterSyntaxError as error:
        assert 0 <= error.pos <= len(text)


def test_operators_and_string_build_the_same_filter() -> None:
    built = (F.i >= 2) & F.k.is_in("en", "de") & ~F.t.startswith("x") & F.ks.contains("q") & F.f.is_not_null()
    text = "i >= 2 AND k IN ('en', 'de') AND NOT t LIKE 'x%' AND ks CONTAINS 'q' AND f IS NOT NULL"
    assert bind(built, SCHEMA) == bind(text, SCHEMA)
    assert bind(F["when"] < EPOCH, SCHEMA) == bind("when < TIMESTAMP '2024-01-01T00:00:00Z'", SCHEMA)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("i >> 2", FilterSyntaxError, "character 3"),
        ("i = 1 AN f = 2", FilterSyntaxError, "did you mean AND"),
        ("", FilterSyntaxError, "the end"),
        ("t LIKE '%x'", FilterSyntaxError, "prefix"),
        ("when > TIMESTAMP 'soon'", FilterSyntaxError, "ISO 8601"),
        ("(" * 10_000, FilterSyntaxError, "nested"),
        ("NOT " * 10_000 + "i = 1", FilterSyntaxError, "negations"),
        ("x" * 200_000, FilterSyntaxError, "characters"),
        ("yer = 1", SchemaMismatch, "unknown field 'yer'"),
        ("i = 'x'", SchemaMismatch, "'i' expects"),
        ("i = TRUE", SchemaMismatch, "'i' expects"),
        ("k = 1", SchemaMismatch, "'k' expects"),
        ("b < TRUE", SchemaMismatch, "expects = or !="),
        ("j = 'x'", SchemaMismatch, "JSON"),
        ("ks = 'x'", SchemaMismatch, "CONTAINS"),
        ("k CONTAINS 'x'", SchemaMismatch, "lists"),
        ("when > 'soon'", SchemaMismatch, "ISO 8601"),
    ],
)
def test_a_bad_filter_says_what_is_wrong(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        bind(text, SCHEMA)


def test_a_syntax_error_points_at_the_place() -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        parse("i = 1 AND ?")
    assert str(caught.value).endswith("  i = 1 AND ?\n            ^")


def test_an_expression_refuses_and_or_not_and_hash() -> None:
    with pytest.raises(InvalidArgument, match="&"):
        (F.i == 1) and (F.f == 2)
    with pytest.raises(TypeError):
        hash(F.i == 1)
    with pytest.raises(InvalidArgument, match="is_null"):
        _ = F.i == None  # noqa: E711
    with pytest.raises(InvalidArgument):
        bind(3, SCHEMA)  # type: ignore[arg-type]


def test_sliced_lists_are_read_at_their_own_offsets() -> None:
    column = pa.array([["a"], None, [], ["b", "a"], ["c"]]).slice(1)
    found = evaluate(Contains("ks", ("a",)), lambda name: column, 4)
    assert found.tolist() == [False, False, True, False]
    assert np.array_equal(found, [False, False, True, False])


@pytest.mark.parametrize("count", [150, 400, 5000])
def test_negations_too_many_to_nest_are_one_typed_error(count: int) -> None:
    text = "NOT " * count + "n = 1"
    try:
        parse(text)
    except FilterSyntaxError as error:
        assert "nested conditions" in str(error) or "negations" in str(error)
        assert count > 150


def test_a_long_chain_of_conditions_does_not_nest() -> None:
    some = functools.reduce(operator.or_, [F.year == year for year in range(3000)])
    schema = gg.Schema.of({"year": gg.Int()})
    assert len(bind(some, schema).args) == 3000
    assert bind(functools.reduce(operator.and_, [F.year != y for y in range(3000)]), schema) is not None
