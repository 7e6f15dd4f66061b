"""Topics by words alone: exact spans, and ends where the words change."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import InvalidArgument
from gingham.text.chunk import token_spans
from gingham.text.topics import _climbs, _cohesion, chunk_hyperdimensional

PIECES = (
    *"word Two. Dr. 3.14 ３．１４ don’t 東京 。 हिन्दी ไทย 각 e\u0301 \u0301 👍\U0001f3fd 👨\u200d👩 🇫🇷🇩🇪 🇫 \ud83d \ude00 ?! \x00".split(
        " "
    ),
    *(" ", "\n", "\r\n", "\u2028", ". ", ".\n"),
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


def talk(*topics: str, sentences: int = 8) -> list[str]:
    """For each topic so many sentences of its words."""
    rng = np.random.default_rng(0)
    return [
        "".join(" ".join(rng.permutation(words.split())[:6]).capitalize() + ". " for _ in range(sentences))
        for words in topics
    ]


ICE, BREAD, LAW = talk(
    "ice glacier valley moraine melt slope snow crevasse",
    "dough yeast oven flour bake crust loaf knead",
    "judge court verdict evidence jury appeal statute witness",
)


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.integers(1, 12), st.integers(1, 4))
def test_chunks_join_to_the_text_byte_for_byte_and_none_is_too_large(text: str, size: int, window: int) -> None:
    chunks = chunk_hyperdimensional(text, size=size, window=window, parent=7)
    assert all(each.text == text[each.start : each.stop] and each.parent == 7 for each in chunks)
    joined = "".join(each.text for each in chunks)
    assert joined.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert all(one.stop == other.start and other.text for one, other in pairwise(chunks))
    assert all(len(token_spans(each.text)) <= size for each in chunks)


def test_a_topic_ends_where_the_words_change() -> None:
    text = ICE + BREAD + LAW
    chunks = chunk_hyperdimensional(text)
    ends = {each.stop for each in chunks}
    assert {len(ICE), len(ICE + BREAD), len(text)} <= ends
    assert len(chunks) < 12  # of 24 sentences
    small = chunk_hyperdimensional(text, size=9)
    assert ends <= {each.stop for each in small}
    assert chunk_hyperdimensional(text) == chunks


def test_the_cosine_of_the_vectors_is_nearly_that_of_the_words() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(40)]
    sentences = [" ".join(rng.choice(vocabulary, 12)) for _ in range(30)]
    words = [sentence.split() for sentence in sentences]
    weights = {
        word: np.log(30 / sum(word in each for each in words)) for word in vocabulary if any(word in w for w in words)
    }
    exact = np.array([[weights.get(word, 0) * each.count(word) for word in vocabulary] for each in words])
    for gap, found in enumerate(_cohesion(sentences, 3)):
        one, other = exact[max(0, gap - 2) : gap + 1].sum(0), exact[gap + 1 : gap + 4].sum(0)
        assert found == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=5 / 64)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_a_climb_ends_where_it_first_goes_down(cohesion: list[float]) -> None:
    for gap, climb in enumerate(_climbs(np.array(cohesion))):
        at = gap
        while at and cohesion[at - 1] >= cohesion[at]:
            at -= 1
        assert climb == cohesion[at] - cohesion[gap]


@pytest.mark.parametrize("text", ["", "  \n", "One sentence.", "?! ... !", "Same. Same. Same. Same."])
def test_a_text_without_a_change_of_words_is_whole(text: str) -> None:
    assert [each.text for each in chunk_hyperdimensional(text)] == ([text] if text else [])


@pytest.mark.parametrize("window", [0, -1, 1.5, "3", True, None])
def test_a_window_that_is_no_number_of_sentences_is_refused(window: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"window= expects .*, found .*; use 3"):
        chunk_hyperdimensional("text", window=window)
    with pytest.raises(InvalidArgument, match="size= expects"):
        chunk_hyperdimensional("text", size=0)
    with pytest.raises(InvalidArgument, match="expects a text"):
        chunk_hyperdimensional(b"text")  # type: ignore[arg-type]
