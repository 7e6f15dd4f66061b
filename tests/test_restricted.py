"""A restricted collection is what a collection of its rows alone would be, and its writes stay inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, errors, fuse, like, match, near
from gingham.restricted import RestrictedCollection

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA: dict[str, Any] = {
    "fields": {"tenant": gg.Keyword(), "body": gg.Text(bm25=True, positions=True), "n": gg.Int()},
    "vectors": {"dense": gg.Dense(4), "words": gg.Sparse(), "tokens": gg.Tokens(4)},
}
WORDS = ["red", "green", "blue", "tree", "house", "river", "rivers", "reed", "grey"]


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        {
            "id": number, "tenant": ["a", "b", None][number % 3], "body": " ".join(rng.choice(WORDS, 5)),
            "n": int(rng.integers(5)), "dense": rng.standard_normal(4, np.float32) if number % 7 else None,
            "words": {int(rng.integers(9)): 0.5, 20 + number % 4: 1.5},
            "tokens": rng.standard_normal((3, 4)).astype(np.float32),
        }
        for number in range(90)
    ]  # fmt: skip


@pytest.fixture
def pair(db: gg.Database, small_bounds: None) -> tuple[RestrictedCollection, gg.Collection, gg.Collection]:
    """Rows of tenant a through a filter, the same in a collection of their own, and the whole collection."""
    whole, own = db.create_collection("whole", **SCHEMA), db.create_collection("own", **SCHEMA)
    given = rows()
    whole.upsert(given[:30])
    whole.upsert(given[30:80])
    db.maintain()
    whole.upsert(given[80:])
    own.upsert([row for row in given if row["tenant"] == "a"])
    for collection in (whole, own):
        collection.delete(ids=[3, 4, 42])
    return RestrictedCollection(whole, "tenant = 'a'"), own, whole


def shown(hits: Any) -> Any:
    return [([hit.id for hit in one], one.scores.tobytes(), [dict(hit) for hit in one], one.complete) for one in hits]


Q = np.array([0.3, -1.0, 0.2, 0.7], np.float32)
READS: dict[str, Callable[[Any], Any]] = {
    "length": len,
    "count of a filter": lambda c: c.count(where="n >= 2 OR tenant = 'b'"),
    "rows by id": lambda c: c.get(list(range(90)), include_vectors=False),
    "facets": lambda c: (c.facets("tenant"), c.facets("n"), c.facets("n", query=match("body", "red"), where="n < 4")),
    "scan": lambda c: list(c.scan()),
    "scan in order": lambda c: [batch.to_pylist() for batch in c.scan(order_by="n", batch_size=7, where="n > 0")],
    "vectors": lambda c: shown([c.search(Q, k=200, using="dense"), c.search(Q, k=3, using="dense", where=F.n < 4)]),
    "vectors in a radius": lambda c: shown([c.search(Q, k=None, radius=0.2, using="dense")]),
    "words": lambda c: shown(c.search(["red tree", "house", "rivers of nowhere"], k=50, using="body")),
    "sparse": lambda c: shown([c.search({3: 1.0, 21: 0.5}, k=50, using="words")]),
    "tokens": lambda c: shown([c.search(np.stack([Q, -Q]), k=50, using="tokens")]),
    "prefix": lambda c: shown([c.query(match("body", "r", op="prefix").limit(50))]),
    "fuzzy": lambda c: shown([c.query(match("body", "grean rivar", op="fuzzy").limit(50))]),
    "phrase": lambda c: shown([c.query(match("body", "red house", op="phrase").limit(50))]),
    "like": lambda c: shown([c.query(like([6, 9], unlike=[12], using="dense").limit(50))]),
    "tree": lambda c: shown([c.query(
        fuse(near("dense", Q, k=20), match("body", "red"), by=gg.MinMax()).boost(0.1 * F.n).where("n != 1")
        .diversify(0.3, using="dense").group("n", per=2).limit(9)
    )]),
    "recall": lambda c: (c.recall(k=3, using="dense").recall, c.recall(k=3, using="dense").queries),
}  # fmt: skip


def test_reads_are_those_of_a_collection_of_the_rows_inside(pair: Any) -> None:
    inside, own, whole = pair
    for name, read in READS.items():
        assert read(inside) == read(own), name
        assert read(whole) != read(own) or name == "recall", name
        assert read(inside) == read(own), f"{name}: what is kept of searches of all rows is not used"


def test_examples_outside_are_as_unknown_as_those_that_are_nowhere(pair: Any) -> None:
    inside, _, _ = pair
    for query in (like(1, using="dense"), like(0, unlike=2, using="dense"), fuse(like(1, using="dense"))):
        with pytest.raises(errors.NotFound, match="ids of stored rows"):
            inside.query(query)


def test_explanations_count_no_rows(pair: Any) -> None:
    inside, _, _ = pair
    for hits in (inside.search(Q, using="dense"), inside.query(near("dense", Q).where("n > 1")),
                 inside.search([Q.tolist()], using="dense")):  # fmt: skip
        steps = [step for _, step in hits.explain().root.lines()]
        assert len(steps) > 2
        assert all(not step.rows and not step.detail for step in steps)


def test_a_write_that_leaves_or_touches_rows_outside_is_refused_and_undone(pair: Any) -> None:
    inside, _, whole = pair
    before = list(whole.scan())
    for write in (
        lambda c: c.upsert([{"id": 1, "tenant": "a"}]), lambda c: c.upsert([{"id": 2, "tenant": "a"}]),
        lambda c: c.upsert([{"id": 0, "tenant": "b"}]), lambda c: c.upsert([{"id": 500, "tenant": "b"}]),
        lambda c: c.upsert([{"id": 500}]), lambda c: c.upsert([{"id": 501, "tenant": "a"}, {"id": 500, "tenant": "b"}]),
        lambda c: c.upsert([{"id": 600 + at, "tenant": "ab"[at == 30]} for at in range(40)]),
        lambda c: c.update([{"id": 0, "tenant": "b"}]), lambda c: c.update(ids=[0, 6], fields={"tenant": ["a", None]}),
        lambda c: c.update([{"id": 0, "n": 4}, {"id": 6, "tenant": "b", "n": 1}]),
    ):  # fmt: skip
        with pytest.raises(errors.PermissionDenied, match="filter"):
            write(inside)
    assert list(whole.scan()) == before


def test_writes_inside_count_rows_outside_as_missing(pair: Any) -> None:
    inside, own, whole = pair
    others = [row for row in whole.scan() if row["tenant"] != "a"]
    for collection in (inside, own):
        assert collection.upsert([{"id": 0, "tenant": "a", "n": 3}, {"id": "new", "tenant": "a"}]).inserted == 1
        done = collection.update([{"id": 6, "n": 9}, {"id": 7, "n": 9}, {"id": "none", "n": 9}])
        assert (done.updated, done.missing) == (1, 2)
        done = collection.delete(ids=[9, 10, 10, "none"])
        assert (done.deleted, done.missing) == (1, 2)
        assert collection.delete(where=F.n >= 2).deleted > 5
        assert collection.delete(where="tenant = 'b' OR tenant IS NULL").deleted == 0
        with pytest.raises(errors.InvalidArgument, match="ids= or where="):
            collection.delete()
    assert list(inside.scan()) == list(own.scan())
    assert [row for row in whole.scan() if row["tenant"] != "a"] == others


def test_what_concerns_all_rows_is_refused(pair: Any, db: gg.Database) -> None:
    inside, _, whole = pair
    for call in (
        inside.stats, inside.verify, inside.maintain, lambda: inside.add_field("x", gg.Int()),
        lambda: inside.drop_field("n"), lambda: inside.add_vector("v", gg.Sparse()), lambda: inside.drop_vector("dense"),
        lambda: inside.recode("dense", None), lambda: inside.reindex("dense", index="Flat"), lambda: inside.calibrate([Q]),
    ):  # fmt: skip
        with pytest.raises(errors.PermissionDenied, match="all rows"):
            call()
    with pytest.raises(errors.PermissionDenied, match="its fields"):
        RestrictedCollection(whole, "team = 'a'")
    whole.drop_field("tenant")
    with pytest.raises(errors.PermissionDenied, match="its fields"):
        inside.count()
    with pytest.raises(errors.PermissionDenied, match="its fields"):
        inside.delete(ids=[0])


def test_every_public_method_was_thought_of() -> None:
    """A method that a collection gets later reads through the session, or is refused here."""
    own = {name for name in vars(RestrictedCollection) if not name.startswith("_")}
    known = {"count", "facets", "get", "name", "recall", "scan", "schema", "to_parquet", "update", "upsert"}
    assert {name for name in dir(gg.Collection) if not name.startswith("_")} - own == known
