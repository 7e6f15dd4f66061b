"""Where the words that were searched for stand in a text."""

from __future__ import annotations

from dataclasses import dataclass

from gingham.query.hits import Span
from gingham.text.analyze import analyzer
from gingham.text.postings import term_key


@dataclass(frozen=True)
class Highlighter:
    """Finds words and phrases in a text, which it calls for.

    Attributes
    ----------
    language : of the words
    keys : of the terms that are searched for
    phrases : of each the key and the position of every word
    """

    language: str
    keys: frozenset[int]
    phrases: tuple[tuple[tuple[int, int], ...], ...] = ()

    def __call__(self, text: str) -> list[Span]:
        """Places of the words, and of the phrases, ascending."""
        analyze = analyzer(self.language)
        words = list(analyze.words(text))
        known = [None if (t := analyze.term_of(word.surface)) is None else term_key(t) for word in words]
        spans = {(w.start, w.end) for w, key in zip(words, known, strict=True) if key in self.keys}
        for phrase in self.phrases:
            origin = phrase[0][1]
            for place in range(len(words) - (phrase[-1][1] - origin)):
                if all(known[place + at - origin] == key for key, at in phrase):
                    spans.add((words[place].start, words[place + phrase[-1][1] - origin].end))
        return [Span(start, end) for start, end in sorted(spans)]
