"""Errors of a database behind gRPC are those of an embedded one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

import gingham as gg
from gingham import F, errors
from library import filled
from likeness import raised, same, same_hits

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


def test_errors_are_the_same_class_with_the_same_sentence(both: tuple[Any, Any]) -> None:
    filled(both[0])
    for name, call in CALLS.items():
        one, other = (raised(lambda database=database, call=call: call(database)) for database in both)
        assert (type(one), str(one), vars(one)) == (type(other), str(other), vars(other)), name


def test_over_tls_with_a_key_hits_rows_and_errors_are_the_same(db: gg.Database, secured: Any) -> None:
    docs, there = filled(db), secured["docs"]
    for query in (np.ones(8), np.eye(8)):
        same_hits(docs.search(query, using="dense"), there.search(query, using="dense"))
    same_hits(docs.search(["words", "row 2"], using="title"), there.search(["words", "row 2"], using="title"))
    assert same(list(docs.scan(include_vectors=True)), list(there.scan(include_vectors=True)))
    with pickle.loads(pickle.dumps(secured)) as again:
        assert again["docs"].count() == 7
    for name, call in CALLS.items():
        one, other = (raised(lambda database=database, call=call: call(database)) for database in (db, secured))
        assert (type(one), str(one), vars(one)) == (type(other), str(other), vars(other)), name


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
