"""Chunks: exact spans, nothing lost, nothing too large."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import EmbedderFailed, InvalidArgument
from gingham.text.chunk import (
    Chunk,
    chunk_recursive,
    chunk_sentences,
    chunk_tokens,
    sentence_spans,
    token_spans,
)
from gingham.text.topics import chunk_semantic

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

WORDS = (
    "word Two. e.g. Dr. 3.14 ３．１４ 1. z.B. don’t 東京 。 ！」 हिन्दी नमस्ते। ไทย 각 \u1100\u1161\u11a8 e\u0301 \u0301 "
    '👍\U0001f3fd 👨\u200d👩\u200d👧 🇫🇷🇩🇪 🇫 ❤\ufe0f \u200d \ud83d\ude00 \ude00 \ud83d \U000e0067 … ?! " ) A b ² ß '
    "\x00 \ufeff"
)
SPACES = (" ", "\n", "\r", "\r\n", "\n\n", "\t", "\u2028", "\xa0", "\x85", ". ")
PIECES = (*WORDS.split(" "), *SPACES)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
SIZES = st.integers(1, 12)


def hashed(sentences: list[str]) -> Array:
    """A vector for every sentence, zeros for some."""
    return np.array([[len(each) % 3 - 1, sum(map(ord, each)) % 5 - 2] for each in sentences], np.float32)


def characters(text: str) -> list[tuple[int, int]]:
    return [(place, place + 1) for place in range(len(text))]


def doubled(text: str) -> list[tuple[int, int]]:
    """Two tokens of every character but spaces, as byte-level tokenizers have, between special tokens."""
    spans = [(place, place + 1) for place, each in enumerate(text) if each != " " for _ in range(2)]
    return [(0, 0), *spans, (0, 0)]


def with_space_before(text: str) -> list[tuple[int, int]]:
    """Spans that begin where the token before ends."""
    stops = [stop for _, stop in token_spans(text)]
    return [(start, stop) for start, stop in pairwise([0, *stops]) if start < stop]


METHODS: dict[str, Callable[..., list[Chunk]]] = {
    "tokens": chunk_tokens,
    "sentences": chunk_sentences,
    "recursive": chunk_recursive,
    "semantic": lambda text, **options: chunk_semantic(text, embed=hashed, **{"percentile": 60, **options}),
}
every_method = pytest.mark.parametrize("chunk", METHODS.values(), ids=METHODS)
TOKENIZERS = st.sampled_from([None, characters, doubled, with_space_before])


def n_tokens(text: str) -> int:
    return len(token_spans(text))


def tokens_within(text: str, start: int, stop: int, tokenize: Any) -> int:
    return sum(start <= a < b <= stop for a, b in (tokenize or token_spans)(text))


def cuts_a_character(text: str, place: int) -> bool:
    """The rule of the module's head, from its words."""
    before, after = text[place - 1], text[place]
    flags = 0
    while flags < place and "\U0001f1e6" <= text[place - 1 - flags] <= "\U0001f1ff":
        flags += 1
    return (
        before + after == "\r\n"
        or (before == "\u200d" and not after.isspace())
        or ("\U0001f1e6" <= after <= "\U0001f1ff" and flags % 2 == 1)
        or unicodedata.category(after)[0] == "M"
        or after in "\u200c\u200d"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or "\u1160" <= after <= "\u11ff"
        or "\udc00" <= after <= "\udfff"
    )


@every_method
@settings(deadline=None, max_examples=1000)
@given(TEXTS, SIZES, TOKENIZERS)
def test_spans_are_exact_and_chunks_join_to_the_text_byte_for_byte(
    chunk: Any, text: str, size: int, tokenize: Any
) -> None:
    chunks = chunk(text, size=size, tokenize=tokenize, parent="doc")
    assert all(each.text == text[each.start : each.stop] for each in chunks)
    joined = "".join(each.text for each in chunks)
    assert joined.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert all(one.stop == other.start and other.text for one, other in pairwise(chunks))
    assert [each.ordinal for each in chunks] == list(range(len(chunks)))
    assert {each.parent for each in chunks} <= {"doc"}
    assert not any(cuts_a_character(text, each.start) for each in chunks[1:])


@every_method
@settings(deadline=None, max_examples=300)
@given(TEXTS, SIZES)
def test_no_chunk_has_more_tokens_than_its_size(chunk: Any, text: str, size: int) -> None:
    assert all(n_tokens(each.text) <= size for each in chunk(text, size=size))


@every_method
@settings(deadline=None, max_examples=300)
@given(TEXTS, SIZES, TOKENIZERS)
def test_only_tokens_that_cannot_be_parted_exceed_the_size(chunk: Any, text: str, size: int, tokenize: Any) -> None:
    smallest = {(each.start, each.stop) for each in chunk_tokens(text, size=1, tokenize=tokenize)}
    for each in chunk(text, size=size, tokenize=tokenize):
        assert tokens_within(text, each.start, each.stop, tokenize) <= size or (each.start, each.stop) in smallest


@every_method
@settings(deadline=None, max_examples=300)
@given(TEXTS, SIZES, TOKENIZERS)
def test_a_word_is_cut_only_where_it_has_more_tokens_than_a_chunk(
    chunk: Any, text: str, size: int, tokenize: Any
) -> None:
    cuts = {each.start for each in chunk(text, size=size, tokenize=tokenize)}
    for start, stop in token_spans(text):
        if any(start < cut < stop for cut in cuts):
            assert tokens_within(text, start, stop, tokenize) > size


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.data())
def test_chunks_of_tokens_overlap_by_so_many_tokens(text: str, data: st.DataObject) -> None:
    size = data.draw(SIZES)
    overlap = data.draw(st.integers(0, size - 1))
    chunks, n = chunk_tokens(text, size=size, overlap=overlap), n_tokens(text)
    assert all(each.text == text[each.start : each.stop] for each in chunks)
    assert all(n_tokens(text[other.start : one.stop]) == overlap for one, other in pairwise(chunks))
    assert all(n_tokens(each.text) == size for each in chunks[:-1])
    assert len(chunks) == (max(1, -(-(n - overlap) // (size - overlap))) if text else 0)
    starts = [*(each.start for each in chunks), len(text)]
    assert "".join(text[start:stop] for start, stop in pairwise(starts)) == text
    assert [each.ordinal for each in chunks] == list(range(len(chunks)))


@settings(deadline=None, max_examples=300)
@given(TEXTS, SIZES, st.integers(0, 11), TOKENIZERS)
def test_whole_sentences_overlap_and_every_chunk_goes_on(text: str, size: int, overlap: int, tokenize: Any) -> None:
    overlap = min(overlap, size - 1)
    plain = {each.start for each in chunk_sentences(text, size=1, tokenize=tokenize)}
    chunks = chunk_sentences(text, size=size, overlap=overlap, tokenize=tokenize)
    assert {each.start for each in chunks} <= plain
    for one, other in pairwise(chunks):
        assert one.start < other.start <= one.stop < other.stop
        assert tokens_within(text, other.start, one.stop, tokenize) <= overlap
    assert [c.start for c in chunks[:1]] + [c.stop for c in chunks[-1:]] == ([0, len(text)] if text else [])


def test_an_overlap_is_made_of_sentences() -> None:
    text = "One two three. Four. Five six. Seven eight nine ten. Eleven."
    assert [each.text for each in chunk_sentences(text, size=9, overlap=5)] == [
        "One two three. Four. Five six. ",
        "Five six. Seven eight nine ten. ",
        "Seven eight nine ten. Eleven.",
    ]


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_tokens_are_in_order_hold_every_character_but_space_and_cut_none(text: str) -> None:
    spans = token_spans(text)
    assert all(start < stop for start, stop in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    within = {place for start, stop in spans for place in range(start, stop)}
    assert all(each.isspace() for place, each in enumerate(text) if place not in within)
    assert not any(cuts_a_character(text, start) for start, _ in spans if start)


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_sentences_join_to_the_text_and_end_with_their_whitespace(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[start:stop] for start, stop in spans) == text
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    assert not any(text[start].isspace() or cuts_a_character(text, start) for start, _ in spans[1:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't  stop, you_all 3.14!", ["Don't", "stop", ",", "you_all", "3", ".", "14", "!"]),
        ("'quoted' l’été", ["'", "quoted", "'", "l’été"]),
        ("東京タワーへ go", [*"東京タワーへ", "go"]),
        ("e\u0301te\u0301 हिन्दी", ["e\u0301te\u0301", "हिन्दी"]),
        ("👨‍👩‍👧👍🏽❤️🇫🇷🇩🇪", ["👨‍👩‍👧", "👍🏽", "❤️", "🇫🇷", "🇩🇪"]),
        ("a \u0301b", ["a", " \u0301", "b"]),
        ("\u0301", ["\u0301"]),
        (" \r\n\t", []),
    ],
)
def test_tokens_are_words_and_punctuation(text: str, expected: list[str]) -> None:
    assert [text[start:stop] for start, stop in token_spans(text)] == expected


@pytest.mark.parametrize(
    "sentences",
    [
        ["One is here. ", "Two is there! ", "Is it? ", "Yes… ", "No?! ", "End"],
        ["Dr. Smith met J. P. Morgan, e.g. In Paris. ", "It cost 3.14 or 1,000.50 dollars. ", "Fine."],
        ["See Fig. 3 and Eq. 4. ", "No. 5 is best. ", "I said no. ", "Then we left etc. ", "End."],
        ["In 1969 they landed. ", "It was 1969. ", "Three came."],
        ["1. First things. ", "2.1. Second things. ", "End."],
        ["I can't. ", "You won’t. ", "Vie\u0302\u0323t. ", "End"],
        ["“Stop!” he said. ", "He left. ", '"Now." ', "(Then.) ", "End."],
        ["First line\n", "second line\r\n\r\n  ", "third\u2028", "fourth"],
        ["今日は晴れ。", "明日も「晴れ。」", "３．１４です！", "終わり"],
        ["यह है। ", "वह है॥", "अंत"],
        ["all is lower case . ", "so are these . ", "the end"],
        ["A url like a.b?c=d!e is one. ", "End."],
        ["  \n Spaces first. ", "Then none."],
        ["Wait... or not. ", "Wait... ", "Not."],
    ],
)
def test_a_text_ends_its_sentences_there(sentences: list[str]) -> None:
    text = "".join(sentences)
    assert [text[start:stop] for start, stop in sentence_spans(text)] == sentences


def test_sentences_fill_a_chunk_and_long_ones_are_cut_between_tokens() -> None:
    chunks = chunk_sentences("One two. Three four. Five six seven eight nine ten eleven. Twelve.", size=6)
    assert [each.text for each in chunks] == [
        "One two. Three four. ",
        "Five six seven eight nine ten ",
        "eleven. Twelve.",
    ]


def test_text_is_cut_at_the_coarsest_separator_that_helps() -> None:
    text = "one two\n\nthree four five. six seven\neight\n\nnine"
    assert [each.text for each in chunk_recursive(text, size=5)] == [
        "one two\n\n",
        "three four five. ",
        "six seven\n",
        "eight\n\n",
        "nine",
    ]
    chunks = chunk_recursive("a b c\n\nd e\n\nf g h i j\nk l", size=5)
    assert [each.text for each in chunks] == ["a b c\n\nd e\n\n", "f g h i j\n", "k l"]
    chunks = chunk_recursive("aa|bb cc dd|ee", size=3, separators=("|",))
    assert [each.text for each in chunks] == ["aa|", "bb cc dd", "|", "ee"]


def test_a_long_paragraph_leaves_its_neighbours_whole() -> None:
    chunks = chunk_recursive("a b\n\nc d e f g h\n\ni j", size=4)
    assert [each.text for each in chunks] == ["a b\n\n", "c d e f ", "g h\n\n", "i j"]


def topics(sentences: list[str]) -> Array:
    """The direction is the first letter of the sentence."""
    assert all(each == each.strip() for each in sentences)
    return np.eye(26)[[ord(each[0].lower()) - ord("a") for each in sentences]] * len(sentences)


def test_a_semantic_chunk_ends_where_the_topic_does() -> None:
    text = "Ants run. Ants dig. Apes climb. Bees fly. Bees hum.\n\nBirds sing. Birds nest. Crows caw."
    chunks = chunk_semantic(text, embed=topics, percentile=70)
    assert [each.text[0] for each in chunks] == ["A", "B", "C"]
    assert len(chunk_semantic(text, embed=topics, percentile=100)) == 1
    small = chunk_semantic(text, embed=topics, percentile=70, size=4)
    assert {each.start for each in chunks} <= {each.start for each in small}
    assert all(n_tokens(each.text) <= 4 for each in small)


@pytest.mark.parametrize("text", ["", "   \n", "One sentence alone."])
def test_fewer_than_two_sentences_are_not_embedded(text: str) -> None:
    def refuse(_: list[str]) -> Array:
        raise AssertionError

    assert [each.text for each in chunk_semantic(text, embed=refuse)] == ([text] if text else [])


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30, 1e300])
def test_only_the_direction_of_vectors_matters(scale: float) -> None:
    text = "Ants run. Apes climb. Bees fly. Birds sing."
    chunks = chunk_semantic(text, embed=lambda each: topics(each) * scale, percentile=70)
    assert [each.text for each in chunks] == ["Ants run. Apes climb. ", "Bees fly. Birds sing."]


@pytest.mark.parametrize(
    "made",
    [np.ones((3, 2)), np.ones(2), np.ones((2, 2)) * np.nan, np.array([["a"], ["b"]]), np.float32(1)],
)
def test_vectors_that_do_not_fit_the_sentences_are_refused(made: Array) -> None:
    with pytest.raises(EmbedderFailed, match=r"each of 2 sentences, found .*; return an array"):
        chunk_semantic("One. Two.", embed=lambda _: made)


@every_method
def test_an_empty_text_has_no_chunks_and_whitespace_is_one(chunk: Any) -> None:
    assert chunk("") == []
    assert chunk(" \r\n\r\n ", size=1) == [Chunk(" \r\n\r\n ", 0, 6, 0)]


@every_method
def test_one_token_may_be_longer_than_any_size(chunk: Any) -> None:
    word = "x" * 10_000
    assert [each.text for each in chunk(f"a {word} b", size=1)] == ["a ", f"{word} ", "b"]


def test_tokens_of_one_character_stay_together_and_count_each() -> None:
    assert [each.text for each in chunk_tokens("ab cd", size=4, tokenize=doubled)] == ["ab ", "cd"]
    assert [each.text for each in chunk_tokens("ab c", size=1, tokenize=doubled)] == ["a", "b ", "c"]
    assert [each.text for each in chunk_tokens("a🇫🇷b", size=3, tokenize=characters)] == ["a🇫🇷", "b"]


@every_method
@pytest.mark.parametrize(
    "spans",
    [[(0, 99)], [(3, 4), (1, 2)], [(-1, 2)], [(2, 1)], [(0, 3), (1, 2)], [3], [("a", "b")], [(0, 1, 2)]],
)
def test_spans_that_are_not_of_the_text_are_refused_by_place(chunk: Any, spans: list[Any]) -> None:
    with pytest.raises(InvalidArgument, match=rf"tokenize= expects .* as span {len(spans) - 1}; return"):
        chunk("some text", tokenize=lambda _: spans)


@every_method
@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True, None])
def test_a_size_that_is_no_number_of_tokens_is_refused(chunk: Any, size: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"size= expects .*, found .*; use 256"):
        chunk("text", size=size)


@pytest.mark.parametrize("chunk", [chunk_tokens, chunk_sentences])
@pytest.mark.parametrize("overlap", [-1, 8, 9, 0.5, True])
def test_an_overlap_as_large_as_the_chunk_is_refused(chunk: Any, overlap: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"overlap= expects .* from 0 to 7.*; use 1"):
        chunk("text", size=8, overlap=overlap)


@pytest.mark.parametrize("separators", ["\n", ("\n", ""), 5, (b"\n",)])
def test_separators_that_are_no_list_of_strings_are_refused(separators: Any) -> None:
    with pytest.raises(InvalidArgument, match="separators= expects"):
        chunk_recursive("text", separators=separators)


@pytest.mark.parametrize("percentile", [-1, 101, float("nan"), "95", True])
def test_a_percentile_out_of_range_is_refused(percentile: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"percentile= expects .*; use 95"):
        chunk_semantic("text", embed=topics, percentile=percentile)


@every_method
def test_bytes_are_refused(chunk: Any) -> None:
    with pytest.raises(InvalidArgument, match="expects a text, found bytes; decode"):
        chunk(b"text")


def test_a_chunk_whose_span_has_another_length_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="of 4 characters, found 0 to 5; count characters"):
        Chunk("text", 0, 5, 0)


@every_method
@pytest.mark.parametrize("piece", ["a.", ". ", "1. ", "\u0301", "🇫", "a\u200d", "'", " ", "\n", "ab "])
def test_long_texts_of_one_kind_join_too(chunk: Any, piece: str) -> None:
    text = piece * 40_000
    assert "".join(each.text for each in chunk(text, size=100)) == text
