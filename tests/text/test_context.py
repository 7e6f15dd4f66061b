"""Contexts: under the budget, in order, nothing twice."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import InvalidArgument
from gingham.text.chunk import Chunk, chunk_sentences, chunk_tokens, sentence_spans, token_spans
from gingham.text.context import Context, build_context, compress

SOURCE = "Ada wrote programs. Bob baked bread. Cleo climbed hills. Dan drew dogs. Eve ate eggs. Finn found fish."
WORDS = st.sampled_from("alpha beta gamma delta. Epsilon Zeta! \n 東京 e\u0301 👍".split(" "))
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30)


def n_tokens(text: str) -> int:
    return len(token_spans(text))


def words(text: str) -> int:
    return len(text.split())


def resemblance(one: str, other: str) -> float:
    a, b = ({tuple(t.lower().split()[i : i + 3]) for i in range(len(t.split()) - 2)} for t in (one, other))
    return len(a & b) / len(a | b)


def sentences(parent: str = "doc", text: str = SOURCE) -> list[Chunk]:
    """A chunk of every sentence."""
    return [
        Chunk(text[start:stop], start, stop, ordinal, parent)
        for ordinal, (start, stop) in enumerate(sentence_spans(text))
    ]


@settings(deadline=None, max_examples=300)
@given(st.lists(TEXTS, max_size=8), st.integers(0, 40), st.sampled_from([None, words, len]), st.floats(0.01, 1))
def test_a_context_keeps_to_its_budget_and_says_what_became_of_each_passage(
    passages: list[str], budget: int, count: Any, threshold: float
) -> None:
    found = build_context(passages, budget=budget, count=count, threshold=threshold)
    assert found.tokens == (count or n_tokens)(found.text) <= budget
    assert sorted([*found.used, *found.duplicates, *found.left_out]) == list(range(len(passages)))
    assert all(list(kind) == sorted(kind) for kind in (found.used, found.duplicates, found.left_out))
    assert found.text == "\n\n".join(passages[number].rstrip() for number in found.used)


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.integers(1, 6), st.integers(0, 5), st.randoms())
def test_all_chunks_of_a_text_become_the_text_again_in_any_order(
    text: str, size: int, overlap: int, random: Any
) -> None:
    chunks = chunk_tokens(text, size=size, overlap=min(overlap, size - 1), parent=7)
    random.shuffle(chunks)
    # A chunk that repeats another is left out, and so is a blank one.
    if len({chunk.text.strip().lower() for chunk in chunks}) == len(chunks) and text.strip():
        found = build_context(chunks, budget=1000, threshold=1)
        if not found.duplicates:
            assert found.text == text.rstrip()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 30), st.permutations(range(6)))
def test_merged_chunks_are_pieces_of_their_source(budget: int, order: list[int]) -> None:
    chunks = sentences()
    found = build_context([chunks[at] for at in order], budget=budget, separator=" | ")
    assert found.tokens == n_tokens(found.text) <= budget
    parts = found.text.split(" | ") if found.text else []
    assert all(part in SOURCE for part in parts)
    places = sorted(order[number] for number in found.used)
    assert len(parts) == sum(place - 1 not in places for place in places)


def test_passages_that_fit_are_taken_in_order() -> None:
    passages = ["one two three", "four five six seven", "eight nine", "ten"]
    assert build_context(passages, budget=6, count=words, separator=" ") == Context(
        "one two three eight nine ten", 6, (0, 2, 3), (), (1,)
    )


def test_neighbours_of_one_parent_are_merged_in_the_place_of_the_first() -> None:
    a, b, c, d, _, f = sentences()
    found = build_context([d, f, a, c, "Other text.", b], budget=100)
    assert found.text == (
        "Ada wrote programs. Bob baked bread. Cleo climbed hills. Dan drew dogs.\n\nFinn found fish.\n\nOther text."
    )
    assert found.used == (0, 1, 2, 3, 4, 5)


def test_overlapping_chunks_are_merged_without_repetition() -> None:
    chunks = chunk_sentences(SOURCE, size=12, overlap=4, parent="doc")
    assert build_context(chunks, budget=100).text == SOURCE


def test_a_chunk_within_another_adds_nothing() -> None:
    whole = Chunk(SOURCE, 0, len(SOURCE), 0, "doc")
    for passages in ([whole, sentences()[2]], [sentences()[2], whole]):
        assert build_context(passages, budget=n_tokens(SOURCE)) == Context(SOURCE, n_tokens(SOURCE), (0, 1), (), ())


@pytest.mark.parametrize("parents", [("x", "y"), (None, None), (1, "1")])
def test_chunks_of_other_parents_or_of_none_are_not_merged(parents: tuple[Any, Any]) -> None:
    one, other = (Chunk(c.text, c.start, c.stop, c.ordinal, p) for c, p in zip(sentences(), parents, strict=False))
    assert build_context([other, one], budget=100).text == "Bob baked bread.\n\nAda wrote programs."


def test_chunks_that_disagree_about_their_source_are_not_merged() -> None:
    one, other = Chunk("old words here", 0, 14, 0, "doc"), Chunk("new end of it", 10, 23, 1, "doc")
    assert build_context([one, other], budget=100, separator="|").text == "old words here|new end of it"


def test_of_near_duplicates_the_first_stays() -> None:
    one = "the quick brown fox jumps over the lazy dog by the old river bank"
    near, far = one.replace("bank", "side"), one.replace("fox", "cat")
    for one_, other in combinations([one, near, far], 2):
        assert 0 < resemblance(one_, other) < 0.9
    assert build_context([one, near, far], budget=100, threshold=resemblance(one, near)).duplicates == (1,)
    assert build_context([one, near, far], budget=100, threshold=resemblance(one, far)).duplicates == (1, 2)
    assert build_context([one, near, far], budget=100).duplicates == ()
    assert build_context([one, one.upper() + "!", "Hm", "hm.", "?!", "?!"], budget=99, threshold=1).used == (0, 2, 4)


def test_a_passage_that_did_not_fit_makes_no_duplicate() -> None:
    passages = ["one two three four five six", "one two three four five"]
    assert build_context(passages, budget=5, threshold=0.5, count=words).used == (1,)


def test_blank_passages_are_left_out() -> None:
    assert build_context(["", " \n", "a"], budget=10) == Context("a", 1, (2,), (), (0, 1))
    assert build_context([], budget=0) == Context("", 0, (), (), ())


ARTICLE = (
    "The museum opened in 1901. It is big. Visitors like the museum a lot.\n\n"
    "The telescope on its roof was built by Clara Voss. It was sold later. The museum has a shop.\n"
    "Voss also painted comets."
)


def test_sentences_with_words_of_the_query_stay() -> None:
    assert compress(ARTICLE, "who built telescopes?", budget=11) == "The telescope on its roof was built by Clara Voss."
    assert compress(ARTICLE, "paintings of comets", budget=5) == "Voss also painted comets."
    kept = compress(ARTICLE, "telescope, comets", budget=16)
    assert kept == "The telescope on its roof was built by Clara Voss. Voss also painted comets."


def test_without_words_of_the_query_rare_words_decide() -> None:
    text = "The cat sat. The cat sat down. Zebras gallop past. The cat sat again."
    assert compress(text, "", budget=4) == "Zebras gallop past."
    assert compress(text, "", budget=4, passages=["Zebras gallop past."] * 9) != "Zebras gallop past."


def test_a_sentence_is_not_kept_for_being_long() -> None:
    text = "Pick apples, pears, plums, cherries, grapes, quinces, figs, dates, limes, melons now. Voss painted comets."
    assert compress(text, "painted comets", budget=24) == "Voss painted comets."


@settings(deadline=None, max_examples=300)
@given(TEXTS, TEXTS, st.integers(0, 20), st.sampled_from([None, words, len]))
def test_what_is_left_are_sentences_in_order_under_the_budget(text: str, query: str, budget: int, count: Any) -> None:
    found = compress(text, query, budget=budget, count=count)
    assert (count or n_tokens)(found) <= budget
    assert (found == text) == ((count or n_tokens)(text) <= budget) or found == text.rstrip()
    rests = {found}
    for start, stop in sentence_spans(text):
        piece = text[start:stop]
        rests |= {rest[len(piece) :] for rest in rests if rest.startswith(piece) or rest == piece.rstrip()}
    assert any(not rest.strip() for rest in rests)


def test_a_text_that_fits_stays_and_nothing_is_left_where_no_sentence_fits() -> None:
    assert compress("As it is.  \n", "", budget=4) == "As it is.  \n"
    assert compress("None of these fits. None of those.", "", budget=2) == ""


def test_other_languages_have_their_stems() -> None:
    text = "Das Haus ist alt. Die Gärten blühen im Mai. Der Hund schläft."
    assert compress(text, "Garten", budget=6, language="german") == "Die Gärten blühen im Mai."


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("budget", {"budget": -1}),
        ("budget", {"budget": 1.5}),
        ("budget", {"budget": True}),
        ("threshold", {"threshold": 0}),
        ("threshold", {"threshold": 1.1}),
        ("threshold", {"threshold": float("nan")}),
        ("threshold", {"threshold": "high"}),
        ("count", {"count": lambda _: 1.5}),
        ("count", {"count": lambda _: -1}),
        ("count", {"count": lambda text: text}),
        ("separator", {"separator": None}),
        ("passages", {"passages": "one text"}),
        ("passages", {"passages": ["a", b"b"]}),
    ],
)
def test_what_means_nothing_is_refused_by_name(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}= expects .*found .*; "):
        build_context(**{"passages": ["a", "b"], "budget": 10, **options})


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("budget= expects", {"budget": -1}),
        ("text= expects a text, found bytes", {"text": b"text"}),
        ("query= expects a text, found list", {"query": ["a"]}),
        ("count= expects", {"count": lambda _: None}),
        ("found 'klingon'", {"language": "klingon"}),
    ],
)
def test_a_text_that_cannot_be_compressed_is_refused(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=message):
        compress(**{"text": "text", "query": "", "budget": 10, **options})
