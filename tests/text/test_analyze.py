"""Words and terms."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gingham.errors import InvalidArgument
from gingham.text.analyze import Analyzer, analyzer, languages


def terms(text: str, language: str = "english") -> list[str | None]:
    analyze = analyzer(language)
    return [analyze.term(analyze.normal(surface)) for surface in analyze.surfaces(text)]


@given(st.text())
def test_words_stand_where_they_say(text: str) -> None:
    words = list(analyzer("english").words(text))
    assert [text[w.start : w.end] for w in words] == [w.surface for w in words] == analyzer("english").surfaces(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


@given(st.text(alphabet="abc'’ éÉİﬁ東นि𝒳_1", max_size=30), st.text(alphabet="xyz 東𝒳", max_size=5))
def test_what_surrounds_a_text_does_not_change_its_words(text: str, other: str) -> None:
    analyze = analyzer("english")
    assert analyze.surfaces(f"{text}. {other}") == analyze.surfaces(text) + analyze.surfaces(other)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("english", "The running dogs' houses", [None, "run", "dog", "hous"]),
        ("english", "Don't  stop", ["don't", "stop"]),
        ("english", "café Café CAFE", ["cafe"] * 3),
        ("german", "Die Häuser und Übungen", [None, "haus", None, "ubung"]),
        ("french", "l’été, les chevaux", ["ete", None, "cheval"]),
        ("none", "The Dogs", ["the", "dogs"]),
        ("english", "東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("english", "हिन्दी में", ["हिन्दी", "में"]),
        ("english", "ﬁne ＡＢＣ", ["fine", "abc"]),
        ("english", "naïve İstanbul", ["naiv", "istanbul"]),
        ("english", " \t…! ", []),
    ],
)
def test_terms(language: str, text: str, expected: list[str | None]) -> None:
    assert terms(text, language) == expected


def test_an_unknown_language_is_refused_with_those_known() -> None:
    with pytest.raises(InvalidArgument, match=r"english.*found 'klingon'"):
        Analyzer("klingon")


@pytest.mark.parametrize("language", languages())
def test_every_language_has_terms_for_what_is_no_stop_word(language: str) -> None:
    assert terms("gingham 42", language)[1] == "42"
