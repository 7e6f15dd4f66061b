"""A database behind gRPC does what an embedded one does: results, their types and bits, and errors."""

from __future__ import annotations

import datetime
import inspect
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, errors
from gingham.clients.remote import RemoteCollection, RemoteDatabase
from gingham.server.main import Server
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDS: list[Any] = [1, -(1 << 70), "a", "ü" * 40, uuid.UUID(int=5), b"\x00\xff"]
FIELDS = {
    "year": gg.Int(), "rating": gg.Float(), "ok": gg.Bool(), "lang": gg.Keyword(), "tags": gg.Keyword(many=True),
    "title": gg.Text(bm25=True), "on": gg.Timestamp(), "extra": gg.Json(),
}  # fmt: skip
VECTORS = {"dense": gg.Dense(8), "half": gg.Dense(4, "l2", dtype="float16"), "splade": gg.Sparse()}


@pytest.fixture
def both(db: gg.Database) -> Iterator[tuple[Any, Any]]:
    """An embedded database and a connection to it."""
    with Server(db, listen="127.0.0.1:0", max_workers=2) as server, gg.open(f"grpc://{server.address}") as remote:
        yield db, remote


@pytest.fixture(params=["embedded", "grpc"])
def either(request: pytest.FixtureRequest, both: tuple[Any, Any]) -> Any:
    """One of the two: a test that takes it runs with each."""
    return both[request.param == "grpc"]


@pytest.fixture
def docs(either: Any) -> Any:
    return filled(either)


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    out: list[dict[str, Any]] = []
    for at, user_id in enumerate(IDS):
        out.append({
            "id": user_id, "year": 2020 + at, "rating": at / 3, "ok": at % 2 == 0, "lang": "de" if at % 2 else "en",
            "tags": ["x", f"t{at}"], "title": f"words of row {at}", "extra": {"n": [at, None, "é"]},
            "on": datetime.datetime(2024, 1, 1 + at, tzinfo=datetime.UTC), "dense": rng.standard_normal(8, np.float32),
            "half": rng.standard_normal(4).astype(np.float16), "splade": {7: 0.5, 9 + at: 1.25},
        })  # fmt: skip
    return [*out, {"id": "bare"}]


def filled(database: Any) -> Any:
    docs = database.create_collection("docs", fields=FIELDS, vectors=VECTORS)
    docs.upsert(rows())
    return docs


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


CALLS: dict[str, Any] = {
    "unknown collection": lambda db: db["nope"],
    "dropping what is not there": lambda db: db.drop_collection("nope"),
    "malformed name": lambda db: db.create_collection("no name"),
    "no field type": lambda db: db.create_collection("x", fields={"a": int}),
    "query of another width": lambda db: db["docs"].search([1.0, 2.0], using="dense"),
    "NaN in a query": lambda db: db["docs"].search([float("nan")] * 8, using="dense"),
    "no numbers": lambda db: db["docs"].search([None, 1], using="dense"),
    "three axes": lambda db: db["docs"].search(np.zeros((2, 2, 8)), using="dense"),
    "field not named": lambda db: db["docs"].search(np.zeros(8)),
    "unknown field": lambda db: db["docs"].search(np.zeros(8), using="dens"),
    "field name of another type": lambda db: db["docs"].search(np.zeros(8), using=3),
    "text for a field of numbers": lambda db: db["docs"].search("words", using="year"),
    "k of zero": lambda db: db["docs"].search(np.zeros(8), using="dense", k=0),
    "neither k nor radius": lambda db: db["docs"].search(np.zeros(8), using="dense", k=None),
    "two efforts": lambda db: db["docs"].search(np.zeros(8), using="dense", ef_search=9, target_recall=0.5),
    "no time": lambda db: db["docs"].search(np.zeros(8), using="dense", timeout=-1),
    "sparse query of one dimension twice": lambda db: db["docs"].search(([7, 7], [1.0, 1.0]), using="splade"),
    "sparse query of negative weight": lambda db: db["docs"].search({7: -1.0}, using="splade"),
    "dict for a dense vector": lambda db: db["docs"].search({7: 1.0}, using="dense"),
    "no sparse vector": lambda db: db["docs"].search({7: "x"}, using="splade"),
    "no list of names": lambda db: db["docs"].search(np.zeros(8), using="dense", fields="year"),
    "unknown payload": lambda db: db["docs"].get("a", fields=["yeer"]),
    "filter that does not parse": lambda db: db["docs"].count(where="year >= "),
    "filter of another type": lambda db: db["docs"].count(where=F.year == "x"),
    "no filter": lambda db: db["docs"].delete(where=3),
    "deleting all or nothing": lambda db: db["docs"].delete(),
    "unusable id": lambda db: db["docs"].get(1.5),
    "id too long": lambda db: db["docs"].upsert([{"id": "x" * 600}]),
    "vector of another width": lambda db: db["docs"].upsert([{"id": 1, "dense": [1.0]}]),
    "unknown column": lambda db: db["docs"].upsert([{"id": 1, "yeer": 1}]),
    "columns of unequal length": lambda db: db["docs"].upsert(ids=[1], fields={"year": [1, 2]}),
    "scan of no size": lambda db: db["docs"].scan(batch_size=0),
    "scan by an unknown field": lambda db: db["docs"].scan(order_by="yeer"),
    "scan by a name that is none": lambda db: db["docs"].scan(order_by=3),
    "scan by lists": lambda db: db["docs"].scan(order_by="tags"),
    "scan down from nothing": lambda db: db["docs"].scan(descending=True),
    "scan of an unknown payload": lambda db: db["docs"].scan(fields=["yeer"]),
    "scan by a wrong filter": lambda db: db["docs"].scan(where="yeer > 1"),
    "facets of an unknown field": lambda db: db["docs"].facets("yeer"),
    "facets of a name that is none": lambda db: db["docs"].facets(None),
    "facets of no limit": lambda db: db["docs"].facets("year", limit=-1),
    "facets of no query": lambda db: db["docs"].facets("year", query=3),
    "facets of a wrong query": lambda db: db["docs"].facets("year", query=gg.near("dens", [1.0])),
    "facets in no time": lambda db: db["docs"].facets("year", timeout=0),
    "recall of k of zero": lambda db: db["docs"].recall(k=0, using="dense"),
    "recall without a name": lambda db: db["docs"].recall(),
    "recall of texts": lambda db: db["docs"].recall(using="dense", queries=["words"]),
    "recall of another width": lambda db: db["docs"].recall(using="dense", queries=[[1.0]]),
    "recall of no queries": lambda db: db["docs"].recall(using="dense", queries=np.empty((0, 8))),
    "recall of two efforts": lambda db: db["docs"].recall(using="dense", nprobe=1, target_recall=0.5),
    "recall of no numbers": lambda db: db["docs"].recall(using="dense", queries=object),
    "a field that is there": lambda db: db["docs"].add_field("year", gg.Int()),
    "a field of no type": lambda db: db["docs"].add_field("new", int),
    "a vector for a field": lambda db: db["docs"].add_field("new", gg.Dense(3)),
    "a field of no name": lambda db: db["docs"].add_field(3, gg.Int()),
    "a field of a malformed name": lambda db: db["docs"].add_field("a b", gg.Int()),
    "a field of a reserved name": lambda db: db["docs"].add_field("id", gg.Int()),
    "a field of an unknown language": lambda db: db["docs"].add_field("new", gg.Text(bm25=True, language="xx")),
    "a vector that is there": lambda db: db["docs"].add_vector("dense", gg.Dense(3)),
    "a vector of no type": lambda db: db["docs"].add_vector("new", gg.Int()),
    "a vector of no text": lambda db: db["docs"].add_vector("new", gg.Dense(3, source="year")),
    "a vector of a codec that does not fit": lambda db: db["docs"].add_vector("new", gg.Dense(3, codec="PQ2")),
    "dropping no field": lambda db: db["docs"].drop_field("yeer"),
    "dropping a name that is none": lambda db: db["docs"].drop_field(3),
    "dropping a vector as a field": lambda db: db["docs"].drop_field("dense"),
    "dropping no vector": lambda db: db["docs"].drop_vector("dens"),
    "maintenance in no time": lambda db: db["docs"].maintain(timeout="x"),
    "an update of nothing": lambda db: db["docs"].update(ids=[1]),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_are_the_same_class_with_the_same_sentence(both: tuple[Any, Any], name: str) -> None:
    filled(both[0])
    one, other = (raised(lambda database=database: CALLS[name](database)) for database in both)
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert vars(one) == vars(other)


def test_text_that_no_message_holds_is_a_typed_error(both: tuple[Any, Any]) -> None:
    filled(both[0])
    remote, bad = both[1], "\ud800"
    docs = remote["docs"]
    for call in (
        lambda: remote[bad], lambda: remote.drop_collection(bad), lambda: docs.search(bad, using="title"),
        lambda: docs.search(np.zeros(8), using=bad), lambda: docs.get("a", fields=[bad]), lambda: docs.facets(bad),
        lambda: docs.scan(order_by=bad), lambda: docs.drop_field(bad), lambda: docs.add_vector(bad, gg.Sparse()),
        lambda: docs.recall(using=bad), lambda: docs.query(gg.near(bad, np.zeros(8))),
        lambda: docs.query(gg.near("dense", bad)), lambda: docs.query(gg.match("title", bad).group(bad)),
        lambda: docs.query(gg.match("title", "a").boost(F[bad] * 2)), lambda: docs.query(gg.match("title", "a").group(bad)),
    ):  # fmt: skip
        assert isinstance(raised(call), errors.InvalidArgument)


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


def test_time_that_is_over_is_the_same_error(both: tuple[Any, Any]) -> None:
    filled(both[0])
    error = raised(lambda: both[1]["docs"].search(np.zeros(8), using="dense", timeout=1e-9))
    assert type(error) is errors.DeadlineExceeded
    assert "timeout=1e-09 s" in str(error)


def test_a_handle_for_reading_writes_nothing(both: tuple[Any, Any]) -> None:
    filled(both[0])
    with gg.open(repr(both[1])[len("<RemoteDatabase ") : -1], mode="r") as reader:
        assert reader["docs"].count() == 7
        for write in (lambda: reader["docs"].upsert([{"id": 1}]), lambda: reader.drop_collection("docs"),
                      lambda: reader["docs"].delete(ids=1), lambda: reader.create_collection("x"),
                      lambda: reader["docs"].add_field("x", gg.Int()), lambda: reader["docs"].drop_vector("dense"),
                      lambda: reader["docs"].add_vector("x", gg.Sparse()), lambda: reader["docs"].drop_field("year"),
                      reader["docs"].maintain, reader.maintain):  # fmt: skip
            assert type(raised(write)) is errors.ReadOnly


def test_a_closed_handle_says_so_and_a_pickled_one_opens_anew(both: tuple[Any, Any]) -> None:
    filled(both[0])
    with pickle.loads(pickle.dumps(both[1])) as again:
        assert again["docs"].count() == 7
    again.close()
    assert type(raised(again.collections)) is errors.Closed
    assert "closed" in repr(again)


def test_figures_are_those_of_the_database(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    filled(embedded)
    assert remote["docs"].stats() == embedded["docs"].stats()
    there = remote.stats()
    assert vars(there) == {**vars(embedded.stats()), "path": there.path}
    assert there.path.startswith("grpc://127.0.0.1:")


@pytest.mark.parametrize(("here", "there"), [(gg.Collection, RemoteCollection), (gg.Database, RemoteDatabase)])
def test_every_method_is_there_or_says_that_it_is_not_yet(both: tuple[Any, Any], here: type, there: type) -> None:
    for name in (name for name in dir(here) if not name.startswith("_") and callable(getattr(here, name))):
        method = getattr(there, name)
        if "Not there over gRPC yet" in (method.__doc__ or ""):
            with pytest.raises(errors.NotReady, match="not there over gRPC yet"):
                method(None)
        else:
            assert list(inspect.signature(method).parameters) == list(inspect.signature(getattr(here, name)).parameters)


def test_what_gRPC_does_not_carry_yet_is_refused_and_not_changed(both: tuple[Any, Any], tmp_path: Path) -> None:
    from gingham.embed import HashingEmbedder

    embedded, remote = both
    filled(embedded)
    pages = embedded.create_collection("pages", fields={"body": gg.Text(bm25=True)}, vectors={"tokens": gg.Tokens(4)})
    there = remote["pages"]
    pages.upsert([{"id": 1, "tokens": np.ones((3, 4)), "body": "words"}])
    same_hits(pages.search(np.ones((2, 4)), using="tokens"), there.search(np.ones((2, 4)), using="tokens"))
    assert same(pages.get(1, include_vectors=True), there.get(1, include_vectors=True))
    for tokens in (
        [np.ones((2, 4)), np.ones((3, 4))], [np.ones((2, 4))], np.ones((2, 3, 4), np.int8), np.ones((2, 4), bool),
        [[[1, 0, 0, 0]], [[0, 1, 0, 0], [0, 0, 1.5, 0]]], [[1, 2, 3, 4]],
    ):  # fmt: skip
        same_hits(pages.search(tokens, using="tokens"), there.search(tokens, using="tokens"))
    assert there.upsert([{"id": 2, "body": "more"}]).inserted == 1
    hits = there.search("words", using="body")
    for refused in (
        lambda: there.upsert([{"id": 1, "tokens": np.ones((3, 4))}]),
        lambda: remote.create_collection("x", embedder=HashingEmbedder(dim=4)),
        lambda: remote.collection("docs", embedder=HashingEmbedder(dim=4)),
        lambda: hits.highlights("body"),
        lambda: gg.aopen("grpc://127.0.0.1:1"),
        lambda: gg.open("grpcs://127.0.0.1:1"),
    ):
        assert type(raised(refused)) is errors.NotReady
