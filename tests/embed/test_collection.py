"""Collections that embed their text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, fuse, match, near
from gingham.embed import HashingEmbedder
from gingham.errors import DimensionMismatch, EmbedderFailed, NotReady, SchemaMismatch

EMBEDDER = HashingEmbedder(dim=64)
TEXTS = ["a cat sleeps on the mat", "dogs bark at the moon", "cats and kittens", None]


@pytest.fixture
def notes(db: gg.Database) -> gg.Collection:
    made = db.create_collection(
        "notes",
        fields={"body": gg.Text(bm25=True), "year": gg.Int()},
        vectors={"dense": gg.Dense(64)},
        embedder=EMBEDDER,
    )
    made.upsert(ids=[0, 1, 2, 3], fields={"body": TEXTS, "year": [1, 2, 3, 4]})
    return made


def vector(collection: Any, user_id: Any) -> Any:
    return collection.get(user_id, include_vectors=True)["dense"]


def test_text_goes_in_and_words_find_it(notes: gg.Collection) -> None:
    expected = EMBEDDER.embed_documents([t for t in TEXTS if t])
    for i in range(3):
        np.testing.assert_allclose(vector(notes, i), expected[i], atol=1e-6)
    assert vector(notes, 3) is None
    query = EMBEDDER.embed_queries(["a cat"])[0]
    assert notes.search("a cat", k=3).ids == notes.search(query, k=3).ids
    assert [h.ids for h in notes.search(["a cat", "moon"], k=1)] == [[0], [1]]
    assert notes.search("kittens", using="body").ids == [2]
    assert notes.search("a cat", using="dense", where=F.year > 1).ids[0] == 2
    fused = notes.query(fuse(near("dense", "a cat"), match("body", "kittens")))
    assert set(fused.ids) == {0, 1, 2}


def test_a_vector_that_is_given_is_kept(notes: gg.Collection) -> None:
    given = np.ones(64, np.float32)
    notes.upsert([{"id": 9, "body": "words", "dense": given}])
    np.testing.assert_array_equal(vector(notes, 9), given)


def test_an_update_of_the_text_embeds_it_again(db: gg.Database, notes: gg.Collection) -> None:
    notes.update(ids=[0, 99], fields={"body": ["new words here", "nobody"]})
    np.testing.assert_allclose(vector(notes, 0), EMBEDDER.embed_documents(["new words here"])[0], atol=1e-6)
    old = vector(notes, 1)
    notes.update(ids=[1], fields={"year": [7]})
    np.testing.assert_array_equal(vector(notes, 1), old)
    two = db.create_collection(
        "two",
        fields={"title": gg.Text(), "body": gg.Text()},
        vectors={"dense": gg.Dense(64)},
        embedder=EMBEDDER,
    )
    two.upsert([{"id": 1, "title": "Title", "body": "body"}])
    two.update(ids=[1], fields={"body": ["other"]})
    np.testing.assert_allclose(vector(two, 1), EMBEDDER.embed_documents(["Title\nother"])[0], atol=1e-6)


def test_a_transaction_and_a_snapshot_embed_too(db: gg.Database, notes: gg.Collection) -> None:
    with db.transaction() as t:
        t["notes"].upsert([{"id": 5, "body": "purple elephants"}])
        t["notes"].update(ids=[1], fields={"body": ["green elephants"]})
    with db.snapshot() as then:
        assert set(then["notes"].search("elephants", k=2).ids) == {1, 5}


def test_the_embedder_is_attached_again_and_another_is_refused(db: gg.Database, notes: gg.Collection) -> None:
    path = db.path
    db.close()
    with gg.open(path) as again:
        docs = again["notes"]
        with pytest.raises(NotReady, match="embedder="):
            docs.search("a cat")
        with pytest.raises(NotReady, match="embedder="):
            docs.upsert([{"id": 8, "body": "words"}])
        with pytest.raises(NotReady, match="embedder="):
            docs.update(ids=[0], fields={"body": ["words"]})
        assert docs.search("kittens", using="body").ids == [2]
        with pytest.raises(SchemaMismatch, match="vectors differ"):
            again.collection("notes", embedder=HashingEmbedder(dim=64, seed=1))
        with pytest.raises(SchemaMismatch, match="32 dimensions"):
            again.collection("notes", embedder=HashingEmbedder(dim=32))
        assert again.collection("notes", embedder=EMBEDDER).search("a cat", k=1).ids == [0]
        assert again["notes"].search("a cat", k=1).ids == [0]


def test_a_width_that_does_not_fit_is_refused_before_anything_is_made(db: gg.Database) -> None:
    with pytest.raises(DimensionMismatch, match="64"):
        db.create_collection("x", fields={"t": gg.Text()}, vectors={"v": gg.Dense(3)}, embedder=EMBEDDER)
    assert "x" not in db


class Broken:
    """An embedder that fails in one of several ways once ``broken`` is set."""

    name, revision, dim = "broken", "1", 8

    def __init__(self) -> None:
        self.result: Any = None

    def embed_documents(self, texts: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return np.ones((len(texts), 8), np.float32) if self.result is None else self.result

    embed_queries = embed_documents


@pytest.mark.parametrize(
    "result", [RuntimeError("no memory"), np.ones((1, 7)), np.full((1, 8), np.nan), [["a"] * 8], np.ones(8), "text"]
)
def test_an_embedder_that_fails_gives_one_error_and_changes_nothing(db: gg.Database, result: Any) -> None:
    embedder = Broken()
    docs = db.create_collection("x", fields={"t": gg.Text()}, vectors={"v": gg.Dense(8)}, embedder=embedder)
    embedder.result = result
    with pytest.raises(EmbedderFailed, match="broken"):
        docs.upsert([{"id": 1, "t": "words"}])
    with pytest.raises(EmbedderFailed, match="broken"):
        docs.search("words")
    assert docs.count() == 0
    embedder.result = None
    docs.upsert([{"id": 1, "t": "words"}])
    assert docs.count() == 1


def test_a_text_query_without_embedder_and_without_words_index_says_so(db: gg.Database) -> None:
    docs = db.create_collection("x", fields={"t": gg.Text()}, vectors={"v": gg.Dense(8)})
    with pytest.raises(gg.errors.InvalidArgument, match="embedder"):
        docs.search("words")
