"""Contexts for prompts: passages under a token budget, without repetition, shortened by whole sentences."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gingham.errors import InvalidArgument
from gingham.text.analyze import analyzer
from gingham.text.chunk import Chunk, sentence_spans, token_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHINGLE_WORDS = 3
"""Words in a row that are compared at once."""
QUERY_WEIGHT = 5
"""How many times as much a word says that the query has too."""


@dataclass(frozen=True)
class Context:
    """Passages joined to one text.

    Attributes
    ----------
    text : for a prompt
    tokens : its number of tokens
    used : numbers of the passages whose text it holds, ascending
    duplicates : numbers of those left out because one of ``used`` says nearly the same
    left_out : numbers of those that did not fit in, or are blank
    """

    text: str
    tokens: int
    used: tuple[int, ...]
    duplicates: tuple[int, ...]
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """Text of one passage, or of neighbours that were merged."""

    text: str
    chunk: Chunk | None

    def merged(self, other: _Part) -> _Part | None:
        """Both as one where they touch or overlap in one parent and have the same text there, else None."""
        if self.chunk is None or other.chunk is None or self.chunk.parent is None:
            return None
        first, second = sorted((self.chunk, other.chunk), key=lambda chunk: (chunk.start, chunk.stop))
        if first.parent != second.parent or second.start > first.stop:
            return None
        shared = min(first.stop, second.stop) - second.start
        if first.text[second.start - first.start :][:shared] != second.text[:shared]:
            return None
        text = first.text + second.text[shared:]
        return _Part(text, Chunk(text, first.start, first.start + len(text), first.ordinal, first.parent))


def build_context(
    passages: Sequence[Chunk | str],
    *,
    budget: int,
    count: Callable[[str], int] | None = None,
    threshold: float = 0.9,
    separator: str = "\n\n",
) -> Context:
    """Join passages under a token budget, the first ones first.

    Parameters
    ----------
    passages : best first; chunks with a parent are merged with their neighbours, texts are taken as they are
    budget : tokens of the context at most, separators among them
    count : number of tokens of a text; by default that of :func:`gingham.text.chunk.token_spans`
    threshold : a passage is left out where its resemblance to one in the context is at least this: the share of
        their runs of three words that both have (Broder, "On the resemblance and containment of documents", 1997). 1
        leaves out those with the same runs only
    separator : between passages that do not touch, without the whitespace at the end of each

    Returns
    -------
    Context : passages in the order given. Chunks of one parent whose spans touch or overlap become one text, in the
        order of the source, in the place of the first of them. A passage that does not fit is left out, and shorter
        ones after it may still fit

    Raises
    ------
    InvalidArgument : no list of chunks and texts, a negative budget, a threshold that is not above 0 and at most 1, or
        a count that is no whole number

    Notes
    -----
    The whole context is counted for every passage, since tokens of joined texts need not add up: time grows with the
    number of passages times the budget.
    """
    _check_budget(budget)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise InvalidArgument(f"threshold= expects a number above 0 and at most 1, found {threshold!r:.40}; use 0.9")
    if not isinstance(separator, str):
        raise InvalidArgument(f"separator= expects a text, found {type(separator).__name__}; use an empty one for none")
    counted = _counter(count)
    parts: list[_Part] = []
    text, tokens = "", 0
    known: dict[int, frozenset[tuple[str, ...]]] = {}
    duplicates: list[int] = []
    left_out: list[int] = []
    for number, part in enumerate(_parts(passages)):
        if not part.text.strip():
            left_out.append(number)
            continue
        shingles = _shingles(part.text)
        if any(_resemblance(shingles, others) >= threshold for others in known.values()):
            duplicates.append(number)
            continue
        longer = _with(parts, part)
        joined = separator.join(each.text.rstrip() for each in longer)
        needed = counted(joined)
        if needed > budget:
            left_out.append(number)
            continue
        parts, text, tokens = longer, joined, needed
        known[number] = shingles
    return Context(text, tokens, tuple(known), tuple(duplicates), tuple(left_out))


def compress(
    text: str,
    query: str,
    *,
    budget: int,
    count: Callable[[str], int] | None = None,
    passages: Sequence[str] | None = None,
    language: str = "english",
) -> str:
    """Shorten a text to the sentences that say most, in their order.

    Words are weighed by how rare they are and whether the query has them, as in TCRA-LLM (Liu et al., 2023,
    arXiv:2310.15556); but sentences are left out whole, since what is left of a sentence without its small words
    is harder to understand.

    Parameters
    ----------
    text : such as that of a :class:`Context`
    query : what is asked; its words count five times
    budget : tokens of the outcome at most
    count : as in :func:`build_context`
    passages : texts that tell how rare a word is; by default the sentences of ``text``
    language : whose stems and stop words are used, see ``Text(language=)``

    Returns
    -------
    str : the text itself where it fits; else sentences of it, without whitespace at the end, and an empty string where
        none fits

    Raises
    ------
    InvalidArgument : no text or query, a negative budget, an unknown language, or a count that is no whole number

    Notes
    -----
    A sentence of n words, stop words among them, weighs ``sum(idf(w) * (5 if w in query else 1)) / sqrt(n)`` over its
    different terms w. Of N passages, df of which have w, ``idf(w) = ln(1 + (N - df + 0.5) / (df + 0.5))``, as in BM25.
    Sentences are taken by weight, equal ones in order, if what is taken still fits.
    """
    _check_budget(budget)
    for name, value in (("text", text), ("query", query)):
        if not isinstance(value, str):
            raise InvalidArgument(f"{name}= expects a text, found {type(value).__name__}; decode bytes first")
    analyzer(language)
    counted = _counter(count)
    if counted(text) <= budget:
        return text
    sentences = [text[start:stop] for start, stop in sentence_spans(text)]
    weights = _weights(sentences, query, sentences if passages is None else passages, language)
    kept: list[int] = []
    best = ""
    for place in sorted(range(len(sentences)), key=lambda place: (-weights[place], place)):
        places = sorted([*kept, place])
        shortened = "".join(sentences[each] for each in places).rstrip()
        if counted(shortened) <= budget:
            kept, best = places, shortened
    return best


def _with(parts: list[_Part], part: _Part) -> list[_Part]:
    """Parts with one more, merged into those that it touches, at the place of the first of them."""
    out: list[_Part] = []
    place: int | None = None
    for each in parts:
        merged = part.merged(each)
        if merged is None:
            out.append(each)
        else:
            part = merged
            if place is None:
                place = len(out)
    out.insert(len(out) if place is None else place, part)
    return out


def _parts(passages: Sequence[Chunk | str]) -> list[_Part]:
    if isinstance(passages, str | bytes):
        raise InvalidArgument("passages= expects a list of chunks and texts, found one text; put it into a list")
    parts = []
    for number, passage in enumerate(passages):
        if isinstance(passage, Chunk):
            parts.append(_Part(passage.text, passage))
        elif isinstance(passage, str):
            parts.append(_Part(passage, None))
        else:
            raise InvalidArgument(
                f"passages= expects chunks and texts, found {type(passage).__name__} as passage {number}; pass its text"
            )
    return parts


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words whatever their case; all words where there are fewer, the text where there are none."""
    analyze = analyzer("none")
    words = [analyze.normal(surface) for surface in analyze.surfaces(text)] or [text.strip()]
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(words[start : start + SHINGLE_WORDS]) for start in range(last))


def _resemblance(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard's coefficient of two sets that are not both empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _weights(sentences: list[str], query: str, passages: Sequence[str], language: str) -> list[float]:
    """Weight of each sentence; see :func:`compress`."""
    words = [_terms(sentence, language) for sentence in sentences]
    found = Counter(term for passage in passages for term in {*_terms(passage, language)} if term is not None)
    asked = {*_terms(query, language)}
    weights: dict[str | None, float] = {None: 0.0}
    for term in {term for each in words for term in each if term is not None}:
        idf = math.log1p((len(passages) - found[term] + 0.5) / (found[term] + 0.5))
        weights[term] = idf * QUERY_WEIGHT if term in asked else idf
    return [math.fsum(weights[term] for term in {*each}) / math.sqrt(len(each) or 1) for each in words]


def _terms(text: str, language: str) -> list[str | None]:
    """Terms of a text; None for each stop word."""
    analyze = analyzer(language)
    return [analyze.term_of(surface) for surface in analyze.surfaces(text)]


def _counter(count: Callable[[str], int] | None) -> Callable[[str], int]:
    """The given count, its outcome checked; without one the count of words and punctuation marks."""
    if count is None:
        return lambda text: len(token_spans(text))

    def checked(text: str) -> int:
        found = count(text)
        if isinstance(found, bool) or not hasattr(found, "__index__") or found < 0:
            raise InvalidArgument(
                f"count= expects to give a whole number of tokens, found {found!r:.40}; return len(tokens)"
            )
        return int(found)

    return checked


def _check_budget(budget: int) -> None:
    if isinstance(budget, bool) or not hasattr(budget, "__index__") or budget < 0:
        raise InvalidArgument(f"budget= expects a whole number of tokens of at least 0, found {budget!r:.40}; use 1024")
