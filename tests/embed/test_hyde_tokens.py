"""Texts and HyDE on token fields: lists of the text and of its passages by late interaction, joined by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham import fuse, hyde, near
from gingham.embed import HashingEmbedder
from gingham.embed.tokens import TextTokens
from gingham.errors import DimensionMismatch, EmbedderFailed, InvalidArgument, NotReady
from language_models import EMBEDDER, GOLD, QUESTIONS, SUBJECTS, Fake, knowing, raises, says


class WordEmbedder(HashingEmbedder):
    """A vector for each word."""

    def embed_tokens(self, texts: Any) -> Any:
        return [EMBEDDER.embed_documents(text.split()) for text in texts]


WORDS = WordEmbedder(dim=256)


@pytest.fixture
def docs(db: gg.Database) -> gg.Collection:
    made = db.create_collection(
        "texts",
        fields={"body": gg.Text()},
        vectors={"dense": gg.Dense(256), "tokens": gg.Tokens(256)},
        embedder=WORDS,
    )
    texts = list(SUBJECTS.values())
    made.upsert(ids=list(SUBJECTS), fields={"body": texts}, vectors={"tokens": WORDS.embed_tokens(texts)})
    return made


def matrix(text: str) -> Any:
    return WORDS.embed_tokens([text])[0]


def test_a_text_is_searched_for_by_its_tokens(docs: gg.Collection) -> None:
    hits, given = docs.query(near("tokens", "wild yeast")), docs.query(near("tokens", matrix("wild yeast")))
    assert hits.ids == given.ids
    assert hits.ids[0] == "sourdough"
    assert hits.scores.tobytes() == given.scores.tobytes()


def test_a_model_that_knows_the_passage_brings_its_row_to_the_top(docs: gg.Collection) -> None:
    llm = knowing()
    found = [docs.query(near("tokens", hyde(question, llm=llm)).limit(1)).ids[0] for question in QUESTIONS]
    assert found == list(SUBJECTS)
    assert [docs.query(near("tokens", question).limit(1)).ids[0] for question in QUESTIONS] != found


@pytest.mark.parametrize(
    ("mix", "weights"), [(None, (1, 1, 1)), (0.5, (0.25, 0.25, 0.5)), (1.0, (0, 0, 1)), (0.0, (0.5, 0.5, 0))]
)
def test_lists_of_passages_and_text_are_joined_by_rank(docs: gg.Collection, mix: Any, weights: Any) -> None:
    passages = [SUBJECTS["comet"], SUBJECTS["orchid"]]
    asked = hyde("wild yeast", llm=says(*passages), n=2, mix=mix)
    branches = [near("tokens", matrix(text)) for text in (*passages, "wild yeast")]
    plain = docs.query(fuse(*branches, by=gg.RRF(weights=weights)).limit(12))
    hits = docs.query(near("tokens", asked).limit(12))
    assert hits.ids == plain.ids
    np.testing.assert_allclose(hits.scores, plain.scores, rtol=1e-6)
    assert docs.query(near("tokens", asked, k=3)).ids == plain.ids[:3]


def test_tokens_of_the_text_are_explained_and_not_those_of_a_passage(docs: gg.Collection) -> None:
    asked = hyde("wild yeast", llm=says(*[SUBJECTS["comet"]] * 2), n=2)
    hits = docs.query(near("tokens", asked).limit(12))
    plain = docs.query(near("tokens", "wild yeast").limit(12))
    for name in ("comet", "sourdough"):
        one, other = (found.explain_tokens()[found.ids.index(name)].products for found in (hits, plain))
        np.testing.assert_array_equal(one, other)


def test_a_model_that_fails_leaves_the_plain_results_and_a_remark(docs: gg.Collection) -> None:
    hits = docs.query(near("tokens", hyde("wild yeast", llm=raises(RuntimeError("down")))))
    plain = docs.query(near("tokens", "wild yeast"))
    assert hits.ids == plain.ids
    assert hits.scores.tobytes() == plain.scores.tobytes()
    assert hits.complete.why.startswith("hyde() searched for the text alone")
    assert plain.complete.why == ""


def test_a_second_run_asks_no_model_and_gives_the_same_bits(docs: gg.Collection) -> None:
    llm = Fake(lambda prompt, n: [*GOLD.values()][:n])
    first = docs.query(near("tokens", hyde("strings", llm=llm)))
    again = docs.query(near("tokens", hyde("strings", llm=llm)))
    assert again.ids == first.ids
    assert again.scores.tobytes() == first.scores.tobytes()
    assert llm.calls == 1


def test_token_vectors_may_come_with_their_spans() -> None:
    from gingham.embed.tokens import embed_tokens

    class Spans(HashingEmbedder):
        def embed_tokens(self, texts: Any) -> Any:
            return (TextTokens(np.ones((2, 256), np.float32), np.zeros((2, 2), np.int64)) for _ in texts)

    assert [one.shape for one in embed_tokens(Spans(dim=256), ["a", "b"])] == [(2, 256)] * 2


@pytest.mark.parametrize(
    ("made", "error", "found"),
    [
        (lambda texts: [], EmbedderFailed, "of 1 texts, found 0"),
        (lambda texts: 1 / 0, EmbedderFailed, "ZeroDivisionError"),
        (lambda texts: ["words"], EmbedderFailed, r"found shape \(\) of <U5"),
        (lambda texts: [np.full((2, 256), np.nan)], EmbedderFailed, "as text 0; give"),
        (lambda texts: [np.ones((0, 256))], EmbedderFailed, "a token at least"),
        (lambda texts: [np.ones((1, 25))], DimensionMismatch, "width 256, found 25"),
    ],
)
def test_what_an_embedder_does_wrong_is_one_typed_error(
    docs: gg.Collection, monkeypatch: pytest.MonkeyPatch, made: Any, error: type[Exception], found: str
) -> None:
    monkeypatch.setattr(WORDS, "embed_tokens", made)
    with pytest.raises(error, match=found):
        docs.query(near("tokens", "text"))


def test_it_needs_an_embedder_of_tokens_and_no_radius(docs: gg.Collection, db: gg.Database) -> None:
    with pytest.raises(InvalidArgument, match="expects no radius, found 1; lists"):
        docs.query(near("tokens", hyde("text", llm=says("passage")), radius=1.0))
    other = db.create_collection(
        "other",
        fields={"body": gg.Text()},
        vectors={"dense": gg.Dense(256), "tokens": gg.Tokens(256)},
        embedder=EMBEDDER,
    )
    with pytest.raises(
        InvalidArgument, match=r"expects an embedder with a method embed_tokens\(texts\), found 'hashing"
    ):
        other.query(near("tokens", "text"))
    bare = db.create_collection("bare", vectors={"tokens": gg.Tokens(4)})
    with pytest.raises(NotReady):
        bare.query(near("tokens", "text"))
