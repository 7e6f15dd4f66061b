"""Chunks of a text with exact character spans.

Tokens are counted, and text is cut only where one begins. The whitespace after a token belongs to it, that before the
first token to the first: so every character is in one chunk, and chunks without overlap join to the text.

No cut falls inside what a reader sees as one character. That is Unicode's grapheme cluster (UAX #29), simplified: never
between CR and LF, between the two letters of a flag, after a zero-width joiner that something follows, and never before
a mark, joiner, skin tone, tag, Hangul vowel or final consonant, or the second half of a surrogate pair.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from gingham.types import UserId

    Array = np.ndarray[Any, Any]

Tokenize = Callable[[str], Iterable[tuple[int, int]]]
"""Spans of the tokens of a text, in order. Empty ones, of special tokens, are left out."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003134f"
)
"""Thai, Lao, Burmese, Khmer, kana and Han, where no spaces stand between words: every letter is a token."""
_APOSTROPHES = "'\u2019"
_JOINER = "\u200d"
_FOLLOWERS = "\u1160-\u11ff\u200c\u200d\ud7b0-\ud7fb\udc00-\udfff\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff"
"""Characters beside marks that a grapheme never begins with."""
_LAST_MARK = 0x20000
"""Beyond it there are marks among the tags only."""

_STOPS, _WIDE_STOPS = ".!?…‼⁇⁈⁉؟۔", "。．｡！？।॥။។።፧"
_CLOSERS = "\"'’”»›)\\]}」』）】〉》〕］｝"
_LINE_BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_SENTENCE_END = re.compile(f"([{_STOPS}{_WIDE_STOPS}]+)[{_CLOSERS}]*\\s*|[{_LINE_BREAKS}]\\s*")
_LINE_BREAK = re.compile(f"[{_LINE_BREAKS}]")
_LAST_WORD = re.compile(r"(?<![\w'’\u0300-\u036f])[^\W_]+(?:\.[^\W_]+)*\Z")
_LONGEST_WORD = 16
_ABBREVIATIONS = frozenset(
    "al approx bzw ca capt cf col dr d.h ed eds e.g env evtl gen ggf hon i.e inkl lt messrs mlle mme mr mrs ms prof "
    "rev sgt sog st u.a usw vgl viz vs z.b".split()
)
"""Words whose full stop ends no sentence."""
_BEFORE_NUMBERS = frozenset(
    "abb abs apr art aug bd ch chap dec eq eqs feb fig figs jan jul jun mar no nos nov nr oct p pp sec sep sept ver vol"
    .split()
)  # fmt: skip
"""The same where a number follows."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a text.

    Attributes
    ----------
    text : ``source[start:stop]``
    start, stop : its place in the source, in characters
    ordinal : its number among the chunks of the source, from 0
    parent : id of the row or document that the source is, if given
    """

    text: str
    start: int
    stop: int
    ordinal: int
    parent: UserId | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or self.stop - self.start != len(self.text):
            raise InvalidArgument(
                f"a chunk expects a span as long as its text of {len(self.text)} characters, found {self.start} to "
                f"{self.stop}; count characters of the source, not bytes"
            )


def chunk_tokens(
    text: str, *, size: int = 256, overlap: int = 0, tokenize: Tokenize | None = None, parent: UserId | None = None
) -> list[Chunk]:
    """Cut a text into runs of tokens, between words.

    Parameters
    ----------
    text : of any length; an empty one has no chunks
    size : tokens of a chunk at most
    overlap : tokens that a chunk repeats of the one before, fewer than ``size``
    tokenize : gives the spans of all tokens, such as the offsets of a model's tokenizer; spans may share characters.
        By default those of :func:`token_spans`
    parent : kept in every chunk

    Returns
    -------
    list of Chunk : in order; joined without overlap they are the text

    Raises
    ------
    InvalidArgument : no text, a size below one, an overlap as large as the size, or spans out of order or of place

    Notes
    -----
    Tokens that share a character or a grapheme stay together, all of them counted. Such a group of more than ``size``
    tokens is a chunk of its own; none else is larger. A word of several tokens is cut only where it has more than
    ``size``; with such words the overlap is as many whole ones as have ``overlap`` tokens at most.

    Tokens are counted in the text as a whole. A model's tokenizer may find one more or less in a chunk alone, where a
    space begins or ends it, or a word was cut: leave it that room.
    """
    check_sizes(size, overlap)
    units = Units(text, tokenize)
    return units.chunks(units.runs(units.pieces(0, units.n, size), size, overlap), parent)


def chunk_sentences(
    text: str, *, size: int = 256, overlap: int = 0, tokenize: Tokenize | None = None, parent: UserId | None = None
) -> list[Chunk]:
    """Cut a text between sentences, as many of them in a chunk as its size allows.

    A sentence of more tokens than ``size`` is cut between tokens.

    Parameters
    ----------
    text, size, tokenize, parent : as in :func:`chunk_tokens`
    overlap : tokens, in whole sentences, that a chunk repeats of the one before at most; fewer than ``size``

    Returns
    -------
    list of Chunk : in order; joined without overlap they are the text

    Raises
    ------
    InvalidArgument : as in :func:`chunk_tokens`

    See Also
    --------
    sentence_spans : where sentences end
    """
    check_sizes(size, overlap)
    units = Units(text, tokenize)
    return units.chunks(units.runs(units.refined(units.sentences(), size), size, overlap), parent)


def chunk_recursive(
    text: str,
    *,
    size: int = 256,
    separators: Sequence[str] = ("\n\n", "\n", ". ", " "),
    tokenize: Tokenize | None = None,
    parent: UserId | None = None,
) -> list[Chunk]:
    """Cut a text at the first separator, what is still too large at the next, and so on; at last between tokens.

    Neighbouring pieces that one cut has made are joined again as far as the size allows.

    Parameters
    ----------
    text, size, tokenize, parent : as in :func:`chunk_tokens`
    separators : coarse ones first; each stays at the end of the piece before it, with the whitespace that follows

    Returns
    -------
    list of Chunk : in order; joined they are the text

    Raises
    ------
    InvalidArgument : as in :func:`chunk_tokens`, or separators that are no list of strings of a character or more
    """
    check_sizes(size, 0)
    if not isinstance(separators, list | tuple) or not all(isinstance(each, str) and each for each in separators):
        raise InvalidArgument(
            f"separators= expects a list of strings, none of them empty, found {separators!r:.80}; where no separator "
            "is left, text is cut between tokens"
        )
    units = Units(text, tokenize)
    spans = [(0, units.n)] if units.n else []
    for separator in separators:
        spans = [piece for span in spans for piece in units.divided(span, separator, size)]
    return units.chunks([piece for span in spans for piece in units.filled(*span, size)], parent)


def token_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the words and punctuation marks of a text, in order.

    A word is a run of letters, digits, marks and underscores, with single apostrophes inside it. Of scripts written
    without spaces every letter is a token, and so is every other character that is no whitespace, with the characters
    that belong to its grapheme.
    """
    words, _ = _patterns()
    return [(start, stop) for start, stop, _ in _grouped((m.span() for m in words.finditer(text)), _inseparable(text))]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences of a text, each with the whitespace after it; together they are the text.

    A sentence ends after a line break, after ``。`` and its like, and after ``.``, ``!``, ``?``, ``…`` where whitespace
    follows; closing quotes and brackets still belong to it. It does not end before a lower-case letter, unless the text
    has no capitals at all; nor after the full stop of a known abbreviation, of a single letter, or of a number that
    begins the sentence. Decimals have no whitespace inside and stay whole. Whitespace before the first sentence belongs
    to it.
    """
    inseparable, cased = _inseparable(text), not text.islower()
    cuts, start = [0], len(text) - len(text.lstrip())
    for match in _SENTENCE_END.finditer(text, start):
        cut = match.end()
        if cut < len(text) and cut not in inseparable and _ends_sentence(text, start, match, cased=cased):
            cuts.append(cut)
            start = cut
    return list(pairwise([*cuts, len(text)])) if text else []


def _ends_sentence(text: str, start: int, match: re.Match[str], *, cased: bool) -> bool:
    """Whether a sentence whose first word stands at ``start`` ends with this match, before the end of the text."""
    stops, following = match.group(1), text[match.end()]
    if stops is None or _LINE_BREAK.search(text, match.end(1), match.end()):
        return True
    if any(stop in _WIDE_STOPS for stop in stops):
        return not (stops == "．" and match.end() == match.end(1) and following.isdigit())
    if not text[match.end() - 1].isspace() or (cased and following.islower()):
        return False
    return stops != "." or not text[match.end(1)].isspace() or not _keeps_stop(text, start, match.start(), following)


def _keeps_stop(text: str, start: int, stop: int, following: str) -> bool:
    """Whether the word before a full stop at ``stop`` is an abbreviation, an initial or the number of a heading."""
    word = _LAST_WORD.search(text, max(start, stop - _LONGEST_WORD), stop)
    if word is None:
        return False
    name = word.group().lower()
    last = name.rpartition(".")[2]
    initial = len(last) == 1 and (last.islower() or last.isupper())
    numbered = word.start() == start and name.replace(".", "").isdigit()
    return initial or numbered or name in _ABBREVIATIONS or (name in _BEFORE_NUMBERS and following.isdigit())


class Units:
    """The smallest pieces of a text: a token, or tokens that cannot be parted, with the whitespace that follows.

    Attributes
    ----------
    n : number of units
    bounds : where units begin, and the length of the text
    totals : tokens before each unit, and all tokens
    words : units that do not begin inside a word, and n
    """

    def __init__(self, text: str, tokenize: Tokenize | None) -> None:
        if not isinstance(text, str):
            raise InvalidArgument(f"chunking expects a text, found {type(text).__name__}; decode bytes first")
        self.text = text
        if tokenize is None:
            groups: Iterable[tuple[int, int, int]] = ((*span, 1) for span in token_spans(text))
        else:
            groups = _grouped(_checked_spans(tokenize(text), len(text)), _inseparable(text))
        self.bounds, self._stops, self.totals = [0], list[int](), [0]
        for start, stop, count in groups:
            if self._stops:
                self.bounds.append(start)
            self._stops.append(stop)
            self.totals.append(self.totals[-1] + count)
        if text:
            self.bounds.append(len(text))
            if not self._stops:  # whitespace alone: one unit without a token
                self._stops, self.totals = [0], [0, 0]
        self.n = len(self._stops)
        self.words: Sequence[int] = range(self.n + 1)
        if tokenize is not None:
            inside = {place for span in token_spans(text) for place in range(span[0] + 1, span[1])}
            self.words = [unit for unit in self.words if self.bounds[unit] not in inside]

    def text_of(self, first: int, last: int) -> str:
        """Text of the units from ``first`` to before ``last``."""
        return self.text[self.bounds[first] : self.bounds[last]]

    def at(self, place: int) -> int:
        """The unit that begins at a place; where none does, the next after whitespace, or that of the token there."""
        unit = bisect_right(self.bounds, place, hi=self.n) - 1
        return unit if place < self._stops[unit] or place == self.bounds[unit] else unit + 1

    def sentences(self) -> list[int]:
        """Units that sentences begin with, ascending, and n; 0 alone for an empty text."""
        return sorted({0, *(self.at(start) for start, _ in sentence_spans(self.text)), self.n})

    def refined(self, edges: list[int], size: int) -> list[int]:
        """The edges, with more of them inside what has more than ``size`` tokens."""
        return [*edges[:1], *(stop for pair in pairwise(edges) for _, stop in self.filled(*pair, size))]

    def pieces(self, first: int, last: int, size: int) -> list[int]:
        """Units where words begin from ``first`` to ``last``, and more of them inside words above ``size`` tokens."""
        words = self.words[bisect_right(self.words, first) : bisect_left(self.words, last)]
        out = [first]
        for start, stop in pairwise(sorted({first, *words, last})):
            if self._fits(start, stop, size):
                out.append(stop)
            else:
                out += [start + end for _, end in _packed(self.totals[start : stop + 1], size)]
        return out

    def topics(self, edges: list[int], cuts: Iterable[int], size: int) -> list[tuple[int, int]]:
        """Runs of what lies between edges that go over no cut; edges and cuts are units, the first 0 and the last n."""
        spans: list[tuple[int, int]] = []
        for start, stop in pairwise(sorted({0, *cuts, self.n})):
            inner = edges[bisect_left(edges, start) : bisect_right(edges, stop)]
            spans += self.runs(self.refined(inner, size), size)
        return spans

    def runs(self, edges: list[int], size: int, overlap: int = 0) -> list[tuple[int, int]]:
        """What lies between edges, joined as far as it fits."""
        packed = _packed([self.totals[edge] for edge in edges], size, overlap)
        return [(edges[first], edges[last]) for first, last in packed]

    def filled(self, first: int, last: int, size: int) -> list[tuple[int, int]]:
        """Runs of words of at most ``size`` tokens."""
        return [(first, last)] if self._fits(first, last, size) else self.runs(self.pieces(first, last, size), size)

    def divided(self, span: tuple[int, int], separator: str, size: int) -> list[tuple[int, int]]:
        """A span as it is where it fits, else cut after each separator, and pieces joined as far as they fit."""
        if self._fits(*span, size):
            return [span]
        low, high = self.bounds[span[0]], self.bounds[span[1]]
        edges, place = [span[0]], self.text.find(separator, low, high)
        while place >= 0:
            place += len(separator)
            unit = self.at(place)
            if edges[-1] < unit < span[1]:
                edges.append(unit)
            place = self.text.find(separator, place, high)
        edges.append(span[1])
        return self.runs(edges, size)

    def chunks(self, spans: Iterable[tuple[int, int]], parent: UserId | None) -> list[Chunk]:
        """Runs of units as chunks."""
        return [
            Chunk(self.text_of(first, last), self.bounds[first], self.bounds[last], ordinal, parent)
            for ordinal, (first, last) in enumerate(spans)
        ]

    def _fits(self, first: int, last: int, size: int) -> bool:
        return self.totals[last] - self.totals[first] <= size


def _packed(totals: Sequence[int], size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Runs of pieces, each as long as ``size`` allows and at least one piece; a run repeats what ``overlap`` allows.

    ``totals`` are the tokens before each piece, and all tokens. The overlap shrinks where the run could not grow.
    """
    runs: list[tuple[int, int]] = []
    first, n = 0, len(totals) - 1
    while first < n:
        last = max(first + 1, bisect_right(totals, totals[first] + size, first) - 1)
        runs.append((first, last))
        if last == n:
            break
        least = max(totals[last] - overlap, totals[last + 1] - size)
        first = bisect_left(totals, least, first + 1, last)
    return runs


def _grouped(spans: Iterable[tuple[int, int]], inseparable: frozenset[int]) -> Iterator[tuple[int, int, int]]:
    """Spans joined where they share characters or no cut is allowed between them, with the number joined."""
    group: tuple[int, int, int] | None = None
    for begin, stop in spans:
        floor = group[1] if group else 0
        start = begin
        while start > floor and start in inseparable:
            start -= 1
        if group and (start < floor or start in inseparable):
            group = (group[0], max(floor, stop), group[2] + 1)
        else:
            if group:
                yield group
            group = (start, stop, 1)
    if group:
        yield group


def _checked_spans(spans: Iterable[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Spans that are not empty; raises InvalidArgument for one that is no span of the text or stands out of order."""
    before = (0, 0)
    for place, span in enumerate(spans):
        try:
            start, stop = (int(each) for each in span)
        except (TypeError, ValueError):
            start, stop = -1, -1
        if start == stop >= 0:
            continue
        if not (before[0] <= start < stop <= length and before[1] <= stop):
            raise InvalidArgument(
                f"tokenize= expects ascending spans (start, stop) within {length} characters, found {span!r:.40} as "
                f"span {place}; return character offsets of the text as it was given"
            )
        before = (start, stop)
        yield before


def _inseparable(text: str) -> frozenset[int]:
    """Places where no cut may fall; see the head of this module."""
    if text.isascii() and "\r\n" not in text:
        return frozenset()
    _, joints = _patterns()
    places: set[int] = set()
    for match in joints.finditer(text):
        if match.lastgroup == "after":
            places.add(match.start() + 1)
        else:
            places.add(match.start())
            if match.group() == _JOINER and not text[match.end() : match.end() + 1].isspace():
                places.add(match.end())
    return frozenset(places)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a word or any other character but whitespace, and of what no cut may fall into."""
    marks = "".join(chr(code) for code in range(_LAST_MARK) if unicodedata.category(chr(code))[0] == "M")
    followers = f"[{marks}{_FOLLOWERS}]"
    run = f"[^\\W{_UNSPACED}]+(?:{followers}+[^\\W{_UNSPACED}]*)*"
    flag = "[\U0001f1e6-\U0001f1ff]"
    return (
        re.compile(f"{run}(?:[{_APOSTROPHES}]{run})*|\\S"),
        re.compile(f"(?P<after>\r(?=\n)|{flag}{flag})|{followers}"),
    )


def check_sizes(size: int, overlap: int) -> None:
    """Raise InvalidArgument unless chunks can have this size and overlap."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InvalidArgument(f"size= expects a whole number of tokens of at least 1, found {size!r:.40}; use 256")
    if isinstance(overlap, bool) or not isinstance(overlap, int | np.integer) or not 0 <= overlap < size:
        raise InvalidArgument(
            f"overlap= expects a whole number of tokens from 0 to {size - 1}, below size=, found {overlap!r:.40}; use "
            f"{size // 8}"
        )
