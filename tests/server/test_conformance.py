"""A database behind gRPC does what an embedded one does: results, their types and bits."""

from __future__ import annotations

import datetime
import inspect
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, errors
from gingham.clients.remote import RemoteCollection, RemoteDatabase
from library import FIELDS, IDS, VECTORS, filled, rows
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_collections_are_made_listed_opened_and_dropped(either: Any) -> None:
    assert either.collections() == []
    made = either.create_collection("docs", fields=FIELDS, vectors=VECTORS)
    assert made.name == "docs"
    assert made.schema == either["docs"].schema
    assert made.schema.fields == FIELDS
    assert (list(either), "docs" in either, "other" in either) == (["docs"], True, False)
    either.create_collection("docs", fields=FIELDS, vectors=VECTORS, exist_ok=True)
    with pytest.raises(errors.AlreadyExists, match="exists already"):
        either.create_collection("docs")
    either.drop_collection("docs")
    assert either.collections() == []
    with pytest.raises(errors.CollectionNotFound):
        made.count()


def test_rows_come_back_as_what_they_were(docs: Any) -> None:
    given = rows()
    got = docs.get([row["id"] for row in given], include_vectors=True)
    for row, back in zip(given[:-1], got[:-1], strict=True):
        assert same({name: back[name] for name in row}, row)
    assert got[-1] == {"id": "bare", **dict.fromkeys([*FIELDS, *VECTORS])}
    assert same(docs.get("a"), {k: v for k, v in got[2].items() if k not in VECTORS})
    assert docs.get(["no", "a", "a"], fields=["year"]) == [None, {"id": "a", "year": 2022}, {"id": "a", "year": 2022}]
    assert docs.get("no") is None
    assert docs.get([]) == []
    assert docs.get(b"\x00\xff", fields=[]) == {"id": b"\x00\xff"}


def test_both_read_the_same_dicts(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    filled(remote)
    ids = [*IDS, "bare", "none"]
    assert same(embedded["docs"].get(ids, include_vectors=True), remote["docs"].get(ids, include_vectors=True))


def test_writes_count_what_they_did(docs: Any) -> None:
    done = docs.upsert([{"id": "a", "year": 1}, {"id": "new"}])
    assert (done.inserted, done.updated) == (1, 1)
    assert docs.get("a")["lang"] is None
    version = done.version
    done = docs.update([{"id": 1, "year": 7}, {"id": "new", "extra": [1], "dense": np.ones(8), "splade": {3: 1.0}},
                        {"id": "none", "year": 1}, {"id": "bare", "on": "2024-02-03", "tags": ["q"]}])  # fmt: skip
    assert (done.version, done.updated, done.missing) == (version + 1, 3, 1)
    new = docs.get("new", include_vectors=True)
    assert (new["extra"], new["splade"], new["dense"].tolist(), new["half"]) == ([1], {3: 1.0}, [1.0] * 8, None)
    assert docs.get(1)["title"] == "words of row 0"
    assert docs.update(ids=[1], fields={"year": [None]}, vectors={"dense": [None]}).updated == 1
    one = docs.get(1, include_vectors=True)
    assert (one["year"], one["dense"]) == (None, None)
    assert docs.delete(ids=[1, "none"]).deleted == 1
    assert docs.delete(ids="a").deleted == 1
    assert docs.delete(where=F.lang == "de").deleted == 3
    assert docs.count() == len(docs) == 3
    assert docs.upsert([]).inserted == 0


def test_a_stream_is_written_in_parts_and_an_error_says_how_many_rows_are_in(docs: Any) -> None:
    def stream() -> Iterator[dict[str, Any]]:
        for at in range(10_001):
            yield {"id": at, "year": at}
        yield {"id": "bad", "year": "text"}

    with pytest.raises(errors.SchemaMismatch, match="in row 10001") as caught:
        docs.upsert(stream())
    assert caught.value.durable_rows == 10_000
    assert docs.count(where="year < 5") == 5


def test_null_is_stored_and_nan_is_refused_with_its_row(docs: Any) -> None:
    docs.upsert(ids=["n"], fields={"rating": [None], "tags": [None]}, vectors={"dense": [None]})
    assert docs.get("n", include_vectors=True) == {"id": "n", **dict.fromkeys([*FIELDS, *VECTORS])}
    for bad in ({"rating": float("nan")}, {"dense": [float("nan")] * 8}, {"dense": [np.inf] * 8}):
        with pytest.raises(errors.InvalidArgument, match="row 1"):
            docs.upsert([{"id": "fine"}, {"id": "bad", **bad}])
    assert docs.get("fine") is None


@pytest.mark.parametrize(
    "where",
    [
        None, "year >= 2022 AND lang = 'en'", (F.year >= 2022) & F.lang.is_in("en"), F.tags.contains("t1"),
        ~F.title.is_null() & F.title.startswith("words"), F.rating < float("inf"), F.ok == True,  # noqa: E712
        {"op": "==", "field": "lang", "value": "de"}, F.on > datetime.datetime(2024, 1, 3, tzinfo=datetime.UTC),
    ],
    ids=str,
)  # fmt: skip
def test_filters_select_the_same_rows(both: tuple[Any, Any], where: Any) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    assert docs.count(where=where) == there.count(where=where) > 0
    query = np.arange(8)
    same_hits(docs.search(query, using="dense", where=where), there.search(query, using="dense", where=where))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"k": 3}, {"k": None, "radius": 0.1}, {"fields": []}, {"fields": ["extra", "tags"]}, {"exact": True},
        {"oversample": 3, "ef_search": 20, "nprobe": 4}, {"target_recall": 0.9}, {"timeout": 60},
    ],
    ids=str,
)  # fmt: skip
def test_searches_return_the_same_hits_to_the_bit(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((5, 8), np.float32)
    for query in (queries[0], queries, queries.astype(np.float64), queries[0].tolist(), queries[:0]):
        same_hits(docs.search(query, using="dense", **options), there.search(query, using="dense", **options))
    half = queries[:, :4]
    same_hits(docs.search(half, using="half", **options), there.search(half, using="half", **options))
    for text in ("words", ["row", "nothing of it"]):
        same_hits(docs.search(text, using="title", **options), there.search(text, using="title", **options))


@pytest.mark.parametrize(
    "query",
    [
        {7: 1.0, 9: 0.5}, ([9, 7], [1.0, 2.0]), [{7: 1.0}, {10: 2.0, 11: 0.25}], [([7], [1.0])], [], {},
        (np.array([7, 4_000_000_000]), np.ones(2, np.float16)), [[{"index": 7, "weight": 1.0}]], np.array([[7, 9], [1, 2]]),
    ],
    ids=str,
)  # fmt: skip
def test_sparse_vectors_find_the_same(both: tuple[Any, Any], query: Any) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    for options in ({}, {"k": 2, "where": F.year > 2021}, {"k": None, "radius": 0.1}):
        same_hits(docs.search(query, using="splade", **options), there.search(query, using="splade", **options))


def test_a_sparse_vector_needs_no_name_where_there_is_one(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    bare = embedded.create_collection("bare", vectors={"splade": gg.Sparse()})
    bare.upsert([{"id": 1, "splade": {7: 0.5}}])
    for query in ({7: 1.0}, [{7: 1.0}], ([7], [1.0])):
        same_hits(bare.search(query), remote["bare"].search(query))


def test_hits_become_the_same_tables(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    docs = embedded.create_collection("docs", fields={"extra": gg.Json()}, vectors={"dense": gg.Dense(2)})
    docs.upsert(
        ids=[uuid.UUID(int=n) for n in range(4)], vectors={"dense": np.eye(4, 2)}, fields={"extra": [1, None, {}, []]}
    )
    one, other = docs.search(np.eye(2)), remote["docs"].search(np.eye(2))
    assert one.arrow().equals(other.arrow(), check_metadata=True)
    assert other[0].scores.flags.writeable


SCANS: list[dict[str, Any]] = [
    {}, {"where": F.year > 2021}, {"order_by": "rating", "descending": True}, {"fields": []}, {"order_by": "on"},
    {"include_vectors": True}, {"fields": ["extra"], "include_vectors": True, "where": "lang = 'de'"},
]  # fmt: skip


@pytest.mark.parametrize("options", SCANS, ids=str)
def test_scans_yield_the_same_dicts(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    assert same(list(docs.scan(**options)), list(there.scan(**options)))


@pytest.mark.parametrize("options", [*SCANS, {"where": F.year < 0}], ids=str)
def test_scans_yield_the_same_batches(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    one, other = (
        raised(lambda c=c: list(c.scan(batch_size=100, **options))) if not options else None for c in (docs, there)
    )
    assert (type(one), str(one)) == (type(other), str(other)), "ids of several kinds are of no Arrow type"
    docs.delete(ids=[1, -(1 << 70), uuid.UUID(int=5), b"\x00\xff"])
    here, there = (list(c.scan(batch_size=2, **options)) for c in (docs, there))
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert type(one) is type(other)
        assert one.equals(other, check_metadata=True)


def test_a_long_scan_goes_on_in_its_commit(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    docs = embedded.create_collection("docs", fields={"year": gg.Int()}, vectors={"tokens": gg.Tokens(2)})
    docs.upsert(ids=range(2500), fields={"year": range(2500)}, vectors={"tokens": [np.ones((1, 2))] * 2500})
    there = remote["docs"]
    for options in ({}, {"include_vectors": True}):
        scan = there.scan(**options)
        first = next(scan)
        docs.delete(where=F.year >= 2000)
        docs.upsert(ids=range(2000, 2500), fields={"year": range(2000, 2500)})
        docs.add_field(f"late{len(options)}", gg.Int())
        assert [first["id"], *(row["id"] for row in scan)] == list(range(2500))
    assert there.count() == 2500


def test_scans_that_are_given_up_hold_no_worker(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    docs = embedded.create_collection("docs", fields={"title": gg.Text()})
    docs.upsert(ids=range(4000), fields={"title": ["x" * 1000] * 4000})
    there = remote["docs"]
    for _ in range(6):  # there are two workers
        scan = there.scan(batch_size=10)
        next(scan)
        scan.close()
        there.scan(batch_size=10)
    assert there.count() == 4000


@pytest.mark.parametrize("field", ["year", "rating", "ok", "lang", "tags", "title", "on", "extra"])
def test_facets_are_the_same(both: tuple[Any, Any], field: str) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    options: dict[str, Any]
    for options in (
        {}, {"limit": None}, {"limit": 0}, {"limit": 2, "where": F.year > 2021, "timeout": 60},
        {"query": gg.match("title", "words").limit(3)}, {"query": gg.near("dense", np.ones(8)), "where": "ok = TRUE"},
    ):  # fmt: skip
        one, other = docs.facets(field, **options), there.facets(field, **options)
        assert same(one, other)
        assert [*map(type, one)] == [*map(type, other)]


def test_fields_and_vectors_are_added_and_dropped(docs: Any) -> None:
    docs.add_field("pages", gg.Int())
    docs.add_field("names", gg.Keyword(many=True))
    docs.add_vector("third", gg.Dense(3, "dot", source="title"))
    docs.add_vector("words", gg.Sparse())
    docs.add_vector("tokens", gg.Tokens(4))
    assert docs.get("a", fields=["pages", "names"]) == {"id": "a", "pages": None, "names": None}
    docs.update([{"id": "a", "pages": 3, "third": [1, 2, 3]}])
    assert docs.get("a")["pages"] == 3
    assert docs.schema.vectors["third"] == gg.Dense(3, "dot", source="title")
    docs.drop_field("pages")
    docs.drop_vector("third")
    docs.drop_vector("words")
    assert "pages" not in docs.get("a")
    assert set(docs.schema.vectors) == {*VECTORS, "tokens"}


def test_maintenance_runs_when_it_is_asked_for(either: Any) -> None:
    docs = filled(either)
    for place in (docs, either):
        assert place.maintain() is True
        assert place.maintain(wait=False) is True
        assert place.maintain(timeout=60) is True
    assert either["docs"].stats().tail_rows == docs.stats().tail_rows


def test_recall_is_the_same(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    docs, there = filled(embedded), remote["docs"]
    for options in (
        {},
        {"k": 2, "n": 3, "where": F.year > 2020, "ef_search": 9},
        {"queries": np.eye(8), "timeout": 60},
    ):
        one, other = docs.recall(using="dense", **options), there.recall(using="dense", **options)
        assert type(one) is type(other)
        assert {**vars(one), "seconds": 0, "exact_seconds": 0} == {**vars(other), "seconds": 0, "exact_seconds": 0}
        assert other.seconds > 0


def test_an_embedder_of_the_server_embeds_texts_of_clients(both: tuple[Any, Any]) -> None:
    from gingham.embed import HashingEmbedder

    embedded, remote = both
    notes = embedded.create_collection(
        "notes", fields={"body": gg.Text(bm25=True)}, vectors={"dense": gg.Dense(16, source="body")},
        embedder=HashingEmbedder(dim=16),
    )  # fmt: skip
    notes.upsert(ids=[1, 2, 3], fields={"body": ["red house", "green tree", "blue river"]})
    there = remote["notes"]
    same_hits(notes.search("red tree"), there.search("red tree"))
    for query in (gg.near("dense", "red tree"), gg.fuse(gg.near(None, "river"), gg.match("body", "red"))):
        same_hits(notes.query(query), there.query(query))
    assert notes.recall(k=1, queries=["red"]).recall == there.recall(k=1, queries=["red"]).recall


def test_figures_are_those_of_the_database(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    filled(embedded)
    assert remote["docs"].stats() == embedded["docs"].stats()
    there = remote.stats()
    assert vars(there) == {**vars(embedded.stats()), "path": there.path}
    assert there.path.startswith("grpc://127.0.0.1:")


@pytest.mark.parametrize(("here", "there"), [(gg.Collection, RemoteCollection), (gg.Database, RemoteDatabase)])
def test_every_method_is_there_with_the_same_parameters(here: type, there: type) -> None:
    for name in (name for name in dir(here) if not name.startswith("_") and callable(getattr(here, name))):
        one, other = (inspect.signature(getattr(owner, name)) for owner in (here, there))
        assert [(p.name, p.kind, p.default) for p in one.parameters.values()] == [
            (p.name, p.kind, p.default) for p in other.parameters.values()
        ], name
