"""Arguments of calls: a wrong one is one clear error, and a right one of any kind is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, errors, fuse, like, match, near, sparse

Call = Callable[[Any], Any]
HUGE = 10**12


@pytest.fixture
def library(db: gg.Database, rng: np.random.Generator) -> gg.Collection:
    """300 rows with a dense and a sparse vector, and 6 rows with neither."""
    docs = db.create_collection(
        "library",
        fields={"year": gg.Int(), "body": gg.Text(bm25=True, positions=True)},
        vectors={"v": gg.Dense(4), "s": gg.Sparse()},
    )
    docs.upsert(
        {
            "id": i,
            "year": 2000 + i % 5,
            "body": f"common word{i % 7}",
            "v": rng.standard_normal(4),
            "s": {i % 9: 1.0},
        }
        for i in range(300)
    )
    docs.upsert([{"id": f"n{i}", "year": 2001} for i in range(6)])
    return docs


QUERY = [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("radius", ["x", b"1", [1], np.array([1.0]), True, 1j, float("nan"), float("inf"), 10**400])
def test_a_radius_that_is_no_finite_number_is_refused(library: gg.Collection, radius: Any) -> None:
    for call in (lambda: library.search(QUERY, radius=radius), lambda: near("v", QUERY, radius=radius)):
        with pytest.raises(errors.InvalidArgument, match=r"\(radius=\) expects a finite score, found"):
            call()


@pytest.mark.parametrize("radius", [0.5, np.float32(0.5), np.array(0.5), np.float16(0.5)])
def test_a_radius_may_be_any_number(library: gg.Collection, radius: Any) -> None:
    found = library.search(QUERY, k=None, radius=0.5).ids
    assert 0 < len(found) < 300
    assert library.search(QUERY, k=None, radius=radius).ids == found
    assert library.query(near("v", QUERY, radius=radius).limit(300)).ids == found


def test_a_radius_beyond_float32_finds_nothing_or_everything(library: gg.Collection) -> None:
    assert len(library.search(QUERY, k=None, radius=1e39)) == 0
    assert len(library.search("common", using="body", k=None, radius=1e39)) == 0
    assert len(library.search(QUERY, k=None, radius=-1e300)) == 300
    assert len(library.search({1: 1.0}, using="s", k=None, radius=-1e300)) == 34


COUNTS: dict[str, Call] = {
    "search(k=)": lambda docs: lambda n: docs.search(QUERY, k=n),
    "scan(batch_size=)": lambda docs: lambda n: docs.scan(batch_size=n),
    "facets(limit=)": lambda docs: lambda n: docs.facets("year", limit=n),
    "near(k=)": lambda docs: lambda n: near("v", QUERY, k=n),
    "match(k=)": lambda docs: lambda n: match("body", "x", k=n),
    "sparse(k=)": lambda docs: lambda n: sparse("s", {1: 1.0}, k=n),
    "like(k=)": lambda docs: lambda n: like(1, k=n),
    "limit()": lambda docs: lambda n: near("v", QUERY).limit(n),
    "offset()": lambda docs: lambda n: near("v", QUERY).offset(n),
    "group(per=)": lambda docs: lambda n: near("v", QUERY).group("year", per=n),
    "diversify(candidates=)": lambda docs: lambda n: near("v", QUERY).diversify(0.1, candidates=n),
    "evaluate(k=)": lambda docs: lambda n: gg.evaluate({}, {"q": {"a": 1}}, k=n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_no_integer_is_refused(library: gg.Collection, name: str) -> None:
    call = COUNTS[name](library)
    for wrong in ("1", 1.5, True, np.True_, -1, -(10**5000)):
        with pytest.raises(errors.InvalidArgument) as caught:
            call(wrong)
        assert str(caught.value).startswith(f"{name} expects an integer of at least ")
    for right in (3, np.int64(3), np.uint8(3), np.array(3)):
        call(right)


@pytest.mark.parametrize("using", [["v"], {"v": 1}, 3, b"v"])
@pytest.mark.parametrize("query", [QUERY, "common", {1: 1.0}])
def test_a_field_to_search_is_named_by_text(library: gg.Collection, using: Any, query: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="name of a field or vector expects text, found"):
        library.search(query, using=using)


READS: list[Call] = [
    lambda docs: lambda names: docs.search(QUERY, k=1, fields=names)[0].fields,
    lambda docs: lambda names: docs.query(near("v", QUERY).limit(1), fields=names)[0].fields,
    lambda docs: lambda names: docs.get(1, fields=names),
    lambda docs: lambda names: next(docs.scan(fields=names)),
]


@pytest.mark.parametrize("read", READS)
def test_fields_are_a_list_of_names(library: gg.Collection, read: Call) -> None:
    call = read(library)
    for wrong in (3, "year", b"year"):
        with pytest.raises(
            errors.InvalidArgument, match=r"fields= expects a list of names, such as fields=\['title'\]"
        ):
            call(wrong)
    for wrong in ([3], [["year"]]):
        with pytest.raises(errors.InvalidArgument, match="expects text"):
            call(wrong)
    with pytest.raises(errors.SchemaMismatch, match="did you mean 'year'"):
        call(["yaer"])
    for right in (["year"], ("year",), {"year"}, np.array(["year"]), iter(["year"]), ["year", "year"]):
        assert [name for name in call(right) if name != "id"] == ["year"]


def test_a_huge_k_gives_all_rows_and_costs_what_they_cost(library: gg.Collection) -> None:
    where = F.year == 2001
    for k in (HUGE, 10**30, np.int64(HUGE), np.uint64(2**64 - 1)):
        started = time.perf_counter()
        counts = {
            "search": len(library.search(QUERY, k=k)),
            "batch": len(library.search([QUERY] * 50, k=k)[49]),
            "filter": len(library.search(QUERY, k=k, where=where)),
            "radius": len(library.search(QUERY, k=k, radius=0.5)),
            "text": len(library.search("word1", using="body", k=k)),
            "sparse": len(library.search({1: 1.0}, using="s", k=k)),
            "near": len(library.query(near("v", QUERY, k=k).limit(k))),
            "match": len(library.query(match("body", "word1 word2", k=k).limit(k))),
            "phrase": len(library.query(match("body", "common word1", op="phrase", k=k).limit(k))),
            "sparse query": len(library.query(sparse("s", {1: 1.0, 2: 1.0}, k=k).limit(k))),
            "like": len(library.query(like(1, k=k).limit(k))),
            "fuse": len(library.query(fuse(near("v", QUERY, k=k), match("body", "common", k=k)).limit(k))),
            "group": len(library.query(near("v", QUERY, k=k).group("year", per=k).limit(k))),
            "offset": len(library.query(near("v", QUERY).offset(k).limit(k))),
        }
        assert time.perf_counter() - started < 5
        assert counts == {
            "search": 300, "batch": 300, "filter": 60, "radius": len(library.search(QUERY, k=300, radius=0.5)),
            "text": 43, "sparse": 34, "near": 300, "match": 86, "phrase": 43, "sparse query": 68, "like": 299,
            "fuse": 300, "group": 300, "offset": 0,
        }  # fmt: skip


def test_a_huge_k_reserves_no_room_that_no_hit_needs(db: gg.Database, rng: np.random.Generator) -> None:
    import tracemalloc

    n = 50_000
    docs = db.create_collection("c", fields={"n": gg.Int(), "t": gg.Text(bm25=True)}, vectors={"v": gg.Dense(2)})
    texts = [f"word{i % 5000}" for i in range(n)]
    docs.upsert(ids=range(n), vectors={"v": rng.standard_normal((n, 2))}, fields={"n": range(n), "t": texts})
    queries = rng.standard_normal((200, 2))
    calls: list[Callable[[], Any]] = [
        lambda: docs.search(queries, k=HUGE, where="n < 5", fields=[]),
        lambda: docs.search(queries, k=HUGE, radius=2.0, fields=[]),
        lambda: docs.search([f"word{i}" for i in range(200)], using="t", k=HUGE, fields=[]),
    ]
    tracemalloc.start()
    try:
        for call, hits in zip(calls, (1000, 0, 2000), strict=True):
            tracemalloc.reset_peak()
            assert sum(map(len, call())) == hits
            assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_result_says_which_rows_lack_the_vector(library: gg.Collection) -> None:
    library.upsert([{"id": "short", "year": 2001, "s": {1: 1.0}}])
    where = F.year == 2001
    lacking = "7 of them without a vector 'v'"
    many, some = "the collection has 307 rows", "the filter selects 67 of 307 rows"
    near_all, near_text = near("v", QUERY).limit(999), fuse(near("v", QUERY), match("body", "word1")).limit(999)
    cases: list[tuple[gg.Hits, str]] = [
        (library.search(QUERY, k=999), f"{many}, {lacking}"),
        (library.search(QUERY, k=999, where=where), f"{some}, {lacking}"),
        (library.search([QUERY, QUERY], k=999, where=where)[1], f"{some}, {lacking}"),
        (library.query(near_all), f"{many}, {lacking}"),
        (library.query(near_all, where=where), f"{some}, {lacking}"),
        (library.query(near_text, where=where), f"{some}, {lacking}"),
        (library.query(near_all.group("year"), where=where), f"{some}, {lacking}, 1 of them match"),
        (library.search("common", using="body", k=999, where=where), f"{some}, 60 of them match"),
        (library.search("common", using="body", k=999), f"{many}, 300 of them match"),
    ]
    for hits, said in cases:
        assert hits.complete
        assert hits.complete.why == f"asked for {10 if len(hits) == 1 else 999}, {said}"
    inside = library.search(QUERY, k=999, where=where, radius=0.2)
    assert (
        inside.complete.why == f"asked for 999, {some}, {lacking}, {len(inside)} of them with a score of at least 0.2"
    )
    for whole in (library.search(QUERY, k=60, where=where), library.query(near("v", QUERY).limit(60), where=where)):
        assert whole.complete.why == ""


def test_an_order_needs_a_field_to_descend_by(library: gg.Collection) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"scan\(descending=True\) expects order_by="):
        library.scan(descending=True)
    assert next(library.scan(descending=True, order_by="year"))["year"] == 2004
    assert next(library.scan(descending=False))["id"] == 0


def test_a_search_is_exact_whatever_is_asked(library: gg.Collection) -> None:
    assert library.search(QUERY, exact=False).ids == library.search(QUERY, exact=True).ids


OTHERS: list[tuple[Call, type[errors.GinghamError], str]] = [
    (lambda docs: near("v", QUERY).diversify("x"), errors.InvalidArgument, "finite number, found 'x'"),
    (lambda docs: near("v", QUERY).diversify(2), errors.InvalidArgument, "from 0 to 1, found 2"),
    (lambda docs: docs.query(match("body", "x")).highlights(["body"]), errors.InvalidArgument, "a field that match"),
    (lambda docs: docs.add_field(["x"], gg.Int()), errors.InvalidArgument, "expects text, found"),
    (lambda docs: docs.drop_field(["x"]), errors.InvalidArgument, "expects text, found"),
    (lambda docs: docs.to_parquet(3), errors.InvalidArgument, "expects a path, found 3"),
    (lambda docs: docs.maintain(timeout="x"), errors.InvalidArgument, "finite number, found 'x'"),
    (lambda docs: docs.facets(["year"]), errors.InvalidArgument, "expects text, found"),
    (lambda docs: docs.facets("year", query="x"), errors.InvalidArgument, "a query expects near"),
]


@pytest.mark.parametrize(("call", "kind", "said"), OTHERS)
def test_other_wrong_arguments_are_typed_errors_too(
    library: gg.Collection, call: Call, kind: type[errors.GinghamError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        call(library)
    assert library.count() == 306


def test_a_collection_is_named_by_text(db: gg.Database) -> None:
    calls: list[Call] = [db.collection, db.drop_collection, lambda name: db.rename_collection(name, "x")]
    for call in calls:
        with pytest.raises(errors.CollectionNotFound, match="unknown collection"):
            call(["library"])
    with pytest.raises(errors.InvalidArgument, match="finite number"):
        db.maintain(timeout="x")  # type: ignore[arg-type]
