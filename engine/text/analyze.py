"""Words of a text, and the terms they are indexed under.

A word is a run of letters, digits, marks and underscores, with apostrophes inside it; of scripts written
without spaces every character is a word. Its term is the word in Unicode's compatibility form, lower-cased,
stemmed by the Snowball algorithm of the language, with the accents of Latin letters removed. Stop words have
no term.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import Stemmer

from gingham.errors import InvalidArgument
from gingham.text.stop_words import STOP_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: there are no spaces between words."""
_LAST_LETTER = 0x20000
"""Beyond it there are Han characters only, which stand among the unspaced."""
_APOSTROPHES = "'\u2019\u02bc\uff07"
_STRAIGHT = str.maketrans(dict.fromkeys(_APOSTROPHES[1:], "'"))

_ELISIONS = {
    "french": frozenset(["l", "d", "c", "j", "m", "n", "s", "t", "qu", "jusqu", "lorsqu", "puisqu", "quoiqu"]),
    "italian": frozenset(
        ["l", "d", "c", "m", "s", "t", "v", "un", "all", "dall", "dell", "nell", "sull", "quell", "quest"]
    ),
    "catalan": frozenset(["l", "d", "m", "n", "s", "t"]),
}
"""Words that lose their vowel before another: what stands before the apostrophe says nothing."""

_REMEMBERED = 1 << 16

NO_LANGUAGE = "none"
"""Words are lower-cased and nothing else: no stems, no stop words."""


def languages() -> list[str]:
    """Names that ``Text(language=)`` takes."""
    return [*sorted(Stemmer.algorithms()), NO_LANGUAGE]


def check_language(language: str) -> None:
    """Raise InvalidArgument unless there is a stemmer of this name, or it is ``"none"``."""
    if language not in languages():
        raise InvalidArgument(f"Text(language=) expects one of {', '.join(languages())}, found {language!r}")


@dataclass(frozen=True)
class Word:
    """One word of a text.

    Attributes
    ----------
    surface : as written
    start, end : its place in the text, in characters
    """

    surface: str
    start: int
    end: int


class Analyzer:
    """Turns texts of one language into terms; see the head of this module. Used by one thread at a time."""

    def __init__(self, language: str) -> None:
        check_language(language)
        self.language = language
        self._stem = None if language == NO_LANGUAGE else Stemmer.Stemmer(language).stemWord
        self._elisions = _ELISIONS.get(language, frozenset())
        self._known: dict[str, str | None] = {}
        self._stop_words = STOP_WORDS.get(language, frozenset())

    @property
    def stems(self) -> bool:
        """Whether a term may differ from its word."""
        return self._stem is not None

    def term_of(self, surface: str) -> str | None:
        """Term of a word as written, remembered: the words of queries and hits come again."""
        try:
            return self._known[surface]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            return self._known.setdefault(surface, self.term(self.normal(surface)))

    def surfaces(self, text: str) -> list[str]:
        """Words as written."""
        return _pattern(text).findall(text)

    def words(self, text: str) -> Iterator[Word]:
        """Words with their places."""
        for match in _pattern(text).finditer(text):
            yield Word(match.group(), match.start(), match.end())

    def normal(self, surface: str) -> str:
        """A word in the form that prefixes and fuzzy words are compared with."""
        word = unicodedata.normalize("NFKC", surface).translate(_STRAIGHT).lower()
        head, apostrophe, rest = word.partition("'")
        return rest if apostrophe and head in self._elisions else word

    def term(self, normal: str) -> str | None:
        """Term of a word in normal form; None for a stop word."""
        if normal in self._stop_words:
            return None
        stem = normal if self._stem is None else self._stem(normal)
        return _without_accents(stem)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of a character that needs the slow pattern, of a word in any other text, and of any word.

    Letters, digits and marks are read off Python's Unicode tables. A class of the first 65,536 characters
    alone is matched by a table; with others beside it, or an alternative, the search is 8 times slower.
    """
    unspaced = re.compile(f"[{_UNSPACED}]")
    letters = [
        code
        for code in range(_LAST_LETTER)
        if (chr(code).isalnum() or code == ord("_") or unicodedata.category(chr(code))[0] == "M")
        and not unspaced.match(chr(code))
    ]
    low, every = _ranges([code for code in letters if code < 0x10000]), _ranges(letters)
    run, slow_run = f"[{low}]+", f"[{every}]+"
    return (
        re.compile(f"[{_UNSPACED}\U00010000-\U0010ffff]"),
        re.compile(f"{run}(?:[{_APOSTROPHES}]{run})*"),
        re.compile(f"{slow_run}(?:[{_APOSTROPHES}]{slow_run})*|[{_UNSPACED}]"),
    )


def _pattern(text: str) -> re.Pattern[str]:
    special, plain, every = _patterns()
    return every if not text.isascii() and special.search(text) else plain


def _ranges(codes: list[int]) -> str:
    """Ascending character codes as the inside of a character class."""
    spans: list[list[int]] = []
    for code in codes:
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in spans)


def _without_accents(term: str) -> str:
    """The term without the accents of its Latin letters; other scripts keep their marks, which are letters there."""
    if term.isascii():
        return term
    out: list[str] = []
    base_is_latin = False
    for character in unicodedata.normalize("NFD", term):
        if unicodedata.combining(character):
            if not base_is_latin:
                out.append(character)
        else:
            base_is_latin = character < "\u0250" or "\u1e00" <= character < "\u1f00"
            out.append(character)
    return sys.intern(unicodedata.normalize("NFC", "".join(out)))


_local = threading.local()


def analyzer(language: str) -> Analyzer:
    """The analyzer of a language and of this thread: a stemmer must not be used by two at once."""
    known: dict[str, Analyzer] = _local.__dict__.setdefault("analyzers", {})
    if language not in known:
        known[language] = Analyzer(language)
    return known[language]
