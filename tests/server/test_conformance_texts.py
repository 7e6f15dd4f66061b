"""Embedders and models of a client do over gRPC what they do embedded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import cross_encoder, errors, fuse, hyde, match, near
from gingham.embed import CallableLLM, HashingEmbedder
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS = {"title": gg.Text(), "body": gg.Text(bm25=True, positions=True), "n": gg.Int()}
VECTORS = {"dense": gg.Dense(16, source=("title", "body")), "own": gg.Dense(16, source="body", dtype="float16")}
TEXTS = ["red house", "green tree by the river", "blue river", "a red tree", "stones in a garden"]
PASSAGES = ["a house that is painted red", "red bricks"]


def embedder() -> HashingEmbedder:
    return HashingEmbedder(dim=16)


def rows() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"id": at, "title": f"t{at}", "body": text} for at, text in enumerate(TEXTS)]
    return [*made, {"id": "none", "n": 1}, {"id": "given", "body": "red", "own": np.ones(16)}]


@pytest.fixture
def pair(both: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same rows, embedded by the embedder of an open folder and by that of a client."""
    made = [
        place.create_collection(name, fields=FIELDS, vectors=VECTORS, embedder=embedder())
        for place, name in zip(both, ("here", "there"), strict=True)
    ]
    for docs in made:
        docs.upsert(rows())
    return made[0], made[1]


def test_a_client_embeds_what_it_writes(both: tuple[Any, Any], pair: tuple[Any, Any]) -> None:
    here, there = pair
    ids = [*range(len(TEXTS)), "none", "given"]
    for change in (
        None,
        [{"id": 0, "body": "a white house"}, {"id": "none", "title": "now it has one"}, {"id": 2, "n": 5}],
        [{"id": 1, "body": None}, {"id": 3, "dense": np.ones(16)}, {"id": "missing", "body": "x"}],
    ):
        if change is not None:
            one, other = (docs.update(change) for docs in pair)
            assert replace(one, version=0) == replace(other, version=0)
        assert same(here.get(ids, include_vectors=True), there.get(ids, include_vectors=True))
    assert here.schema == there.schema
    assert both[0]["there"].get(0, include_vectors=True)["dense"] is not None
    done = [docs.upsert(ids=["x"], fields={"body": ["red"]}) for docs in pair]
    assert done[0].inserted == done[1].inserted == 1


def test_texts_that_change_while_a_client_embeds_them_are_read_again(
    both: tuple[Any, Any], pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    real, calls = type(there).get, []

    def get(self: Any, *args: Any, **given: Any) -> Any:
        found = real(self, *args, **given)
        if not calls:
            both[1]["there"].update([{"id": 0, "title": "moved", "body": "meanwhile"}])
        calls.append(args)
        return found

    monkeypatch.setattr(type(there), "get", get)
    there.update([{"id": 0, "title": "new"}])
    assert len(calls) == 2
    here.update([{"id": 0, "title": "moved", "body": "meanwhile"}])
    here.update([{"id": 0, "title": "new"}])
    monkeypatch.undo()
    assert same(here.get(0, include_vectors=True), there.get(0, include_vectors=True))


def test_a_client_embeds_what_it_searches_for(pair: tuple[Any, Any]) -> None:
    here, there = pair
    llm = CallableLLM(lambda prompt: PASSAGES, name="writes")
    asked = hyde("red house", llm=llm, n=2)
    for query in ("red tree", ["red", "blue river"], asked, gg.combine({"red": 1, "river": -0.5})):
        same_hits(here.search(query, using="dense"), there.search(query, using="dense"))
    for query in ("river", ["red", "tree"], asked):
        same_hits(here.search(query, using="body"), there.search(query, using="body"))
    for tree in (near("dense", "red"), near("own", asked), fuse(near("dense", "river"), match("body", asked))):
        same_hits(here.query(tree), there.query(tree))
    one, other = (docs.recall(k=1, using="dense", queries=["red"]) for docs in pair)
    assert one.recall == other.recall
    assert here.facets("n", query=near("dense", asked)) == there.facets("n", query=near("dense", asked))


class WordEmbedder(HashingEmbedder):
    """A vector for each word."""

    def embed_tokens(self, texts: Any) -> Any:
        return [self.embed_documents(text.split()) for text in texts]


def same_matches(one: Any, other: Any) -> None:
    assert one
    for here, there in zip(one, other, strict=True):
        np.testing.assert_array_equal(here.products, there.products)


def test_a_text_is_looked_for_by_its_tokens(both: tuple[Any, Any]) -> None:
    words = WordEmbedder(dim=16)
    made = [
        place.create_collection(name, fields={"body": gg.Text()}, vectors={"v": gg.Dense(16), "tokens": gg.Tokens(16)},
                                embedder=words)
        for place, name in zip(both, ("here", "there"), strict=True)
    ]  # fmt: skip
    for docs in made:
        docs.upsert(ids=range(5), fields={"body": TEXTS}, vectors={"tokens": words.embed_tokens(TEXTS)})
    here, there = made
    asked = hyde("red house", llm=CallableLLM(lambda prompt: PASSAGES, name="writes"), n=2)
    served = gg.open(repr(both[1]).split()[1][:-1])
    for tree in (
        near("tokens", "red tree"),
        near("tokens", asked, k=3),
        fuse(near("tokens", asked), near("v", "river")),
    ):
        same_hits(here.query(tree), there.query(tree))
        same_hits(here.query(tree), served["here"].query(tree))
        same_matches(here.query(tree).explain_tokens(), there.query(tree).explain_tokens())
    served.close()
    queries = [words.embed_tokens([text])[0] for text in ("red", "river house")]
    trees = [near("tokens", text) for text in ("river", "red tree")]
    for one, other in zip(
        [*here.search(queries, using="tokens"), *here.query(trees)],
        [*there.search(queries, using="tokens"), *there.query(trees)],
        strict=True,
    ):
        same_matches(one.explain_tokens(), other.explain_tokens())
    hits = there.query(near("tokens", "red"))
    there.upsert(ids=[0], fields={"body": ["red"]}, vectors={"tokens": words.embed_tokens(["green"])})
    assert "search again" in str(raised(hits.explain_tokens))
    assert str(raised(there.query(near("v", "red")).explain_tokens)) == str(
        raised(here.query(near("v", "red")).explain_tokens)
    )


def test_an_explanation_of_more_bytes_than_an_answer_may_hold_is_refused(both: tuple[Any, Any]) -> None:
    docs = both[1].create_collection("long", vectors={"tokens": gg.Tokens(8, max_tokens=10_000)})
    rng = np.random.default_rng(0)
    docs.upsert(ids=range(3), vectors={"tokens": [rng.standard_normal((10_000, 8), np.float32) for _ in range(3)]})
    query = rng.standard_normal((300, 8), np.float32)
    with pytest.raises(errors.ResourceExhausted, match="ask for fewer hits"):
        docs.query(near("tokens", query)).explain_tokens()
    (match,) = docs.query(near("tokens", query).limit(1)).explain_tokens()
    assert match.products.shape == (300, 10_000)


def test_an_embedder_of_the_server_is_asked_for_passages_of_a_client(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    docs = embedded.create_collection("docs", fields=FIELDS, vectors=VECTORS, embedder=embedder())
    docs.upsert(rows())
    there = remote["docs"]
    for mix in (None, 0.25):
        asked = hyde("red house", llm=CallableLLM(lambda prompt: PASSAGES, name="writes"), n=2, mix=mix)
        same_hits(docs.search(asked, using="dense"), there.search(asked, using="dense"))
        for tree in (near("dense", asked).limit(3), match("body", asked), near("own", asked)):
            same_hits(docs.query([tree]), there.query([tree]))


def test_a_model_that_fails_is_remarked_on(pair: tuple[Any, Any]) -> None:
    def fail(prompt: str) -> list[str]:
        raise RuntimeError("away")

    here, there = pair
    asked = hyde("red house", llm=CallableLLM(fail, name="fails"), n=2)
    for call in (lambda c: c.search(asked, using="dense"), lambda c: c.query(near("dense", asked)),
                 lambda c: c.query(match("body", asked))):  # fmt: skip
        one, other = call(here), call(there)
        same_hits(one, other)
        assert "away" in other.complete.why


def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [float(len(set(query.split()) & set(text.split()))) + len(text) / 100 for query, text in pairs]


def test_a_cross_encoder_of_a_client_scores_rows(pair: tuple[Any, Any]) -> None:
    here, there = pair
    by = cross_encoder("body", "red tree", model=score)
    for tree in (
        near("dense", "red").rerank(by, k=4), match("body", "red").rerank(by).limit(1),
        fuse(near("dense", "river").rerank(by), match("body", "tree").rerank(cross_encoder("body", "a", model=score))),
        near("dense", "red").rerank(by).rerank(cross_encoder("title", "t1", model=score), k=2).where("n IS NULL"),
    ):  # fmt: skip
        same_hits(here.query(tree), there.query(tree))
        same_hits(here.query([tree, near("dense", "red")]), there.query([tree, near("dense", "red")]))
        assert here.facets("title", query=tree) == there.facets("title", query=tree)
    for model in (lambda pairs: [np.nan] * len(pairs), lambda pairs: 1 / 0):
        tree = near("dense", "red").rerank(cross_encoder("body", "x", model=model))
        one, other = (raised(lambda docs=docs, tree=tree: docs.query(tree)) for docs in pair)
        assert (type(one), str(one)) == (type(other), str(other))
    wrong = near("dense", "red").rerank(cross_encoder("n", "x", model=score))
    assert str(raised(lambda: here.query(wrong))) == str(raised(lambda: there.query(wrong)))


def test_words_are_highlighted_in_the_same_places(pair: tuple[Any, Any]) -> None:
    here, there = pair
    for tree in (match("body", "red trees"), match("body", "the river", op="phrase"), match("body", "riv", op="prefix"),
                 fuse(match("body", "hause", op="fuzzy"), match("body", "blue river", op="phrase"))):  # fmt: skip
        one, other = here.query(tree), there.query(tree)
        assert one.highlights("body") == other.highlights("body")
        assert any(other.highlights("body"))
    one, other = (docs.search(["red", "river"], using="body") for docs in pair)
    assert [hits.highlights("body") for hits in one] == [hits.highlights("body") for hits in other]
    for bad in (lambda hits: hits.highlights("title"), lambda hits: hits.highlights(3)):
        errors_of = [raised(lambda hits=hits, bad=bad: bad(hits)) for hits in (one[0], other[0])]
        assert str(errors_of[0]) == str(errors_of[1])


def test_an_embedder_is_kept_for_the_connection_and_another_is_refused(
    both: tuple[Any, Any], pair: tuple[Any, Any]
) -> None:
    remote = both[1]
    assert remote["there"].search("red", using="dense").ids == pair[1].search("red", using="dense").ids
    with gg.open(repr(remote).split()[1][:-1]) as other:
        with pytest.raises(errors.NotReady, match="not attached"):
            other["there"].upsert([{"id": 1, "body": "x"}])
        with pytest.raises(errors.SchemaMismatch, match="whose vectors differ"):
            other.collection("there", embedder=HashingEmbedder(dim=16, seed=5))
        with pytest.raises(errors.DimensionMismatch):
            other.create_collection("x", fields=FIELDS, vectors=VECTORS, embedder=HashingEmbedder(dim=3))
        assert "x" not in other
        again = other.collection("there", embedder=embedder())
        assert again.upsert([{"id": 1, "body": "x"}]).updated == pair[0].upsert([{"id": 1, "body": "x"}]).updated == 1
    with both[0].snapshot() as one, remote.snapshot() as two:
        same_hits(one["here"].search("river", using="own"), two["there"].search("river", using="own", k=10))
    remote.drop_collection("there")
    remote.create_collection("there", fields=FIELDS, vectors=VECTORS)
    assert remote["there"].upsert([{"id": 1, "body": "x"}]).inserted == 1
    assert remote["there"].get(1, include_vectors=True)["dense"] is None


def test_a_transaction_embeds_what_it_writes(both: tuple[Any, Any], pair: tuple[Any, Any]) -> None:
    for place, name in zip(both, ("here", "there"), strict=True):
        with place.transaction() as changes:
            changes[name].upsert([{"id": 9, "title": "nine", "body": "red"}])
            changes[name].update([{"id": 9, "title": "ten", "body": "blue"}])
    assert same(*(docs.get(9, include_vectors=True) for docs in pair))
    one, other = (
        raised(lambda place=place, name=name: place.transaction()[name].update([{"id": 9, "title": "x"}]))
        for place, name in zip(both, ("here", "there"), strict=True)
    )
    assert (type(one), str(one)) == (type(other), str(other))
