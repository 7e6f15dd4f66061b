"""Chunks that end where the topic of a text does, told by vectors of its sentences or by its words alone."""

from __future__ import annotations

import math
from collections import Counter, deque
from hashlib import shake_128
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import EmbedderFailed, InvalidArgument
from gingham.text.chunk import Chunk, Units, check_sizes, token_spans
from gingham.types import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gingham.text.chunk import Tokenize
    from gingham.types import UserId

    Array = np.ndarray[Any, Any]

DIMENSIONS = 4096
"""Of the vectors of words: two that are not related have a cosine of 0 with a deviation of 1 / 64."""
_BLOCK_WORDS = 256


def chunk_semantic(
    text: str,
    *,
    embed: Callable[[list[str]], Array],
    size: int = 256,
    percentile: float = 95,
    tokenize: Tokenize | None = None,
    parent: UserId | None = None,
) -> list[Chunk]:
    """Cut a text between neighbouring sentences that say different things.

    The distance of two neighbours is ``1 - cosine`` of their vectors, one for a vector of zeros. A topic ends where it
    is above the given percentile of all distances of the text (Kamradt, "5 levels of text splitting", 2023). Topics
    larger than ``size`` are cut between sentences, and sentences between tokens.

    Parameters
    ----------
    text, size, tokenize, parent : as in :func:`gingham.text.chunk.chunk_tokens`
    embed : makes an array (n, dim) of n sentences, which have no whitespace around them; not called for fewer than two
    percentile : 0 to 100; 95 ends a topic at one of 20 sentences, 100 at none

    Returns
    -------
    list of Chunk : in order; joined they are the text

    Raises
    ------
    InvalidArgument : as in :func:`gingham.text.chunk.chunk_tokens`, or a percentile out of range
    EmbedderFailed : ``embed`` made something else than n finite vectors
    """
    check_sizes(size, 0)
    if isinstance(percentile, bool) or not isinstance(percentile, int | float) or not 0 <= percentile <= 100:
        raise InvalidArgument(f"percentile= expects a number from 0 to 100, found {percentile!r:.40}; use 95")
    units = Units(text, tokenize)
    edges = units.sentences()
    cuts: list[int] = []
    if len(edges) > 2:
        vectors = unit_vectors([units.text_of(*pair).strip() for pair in pairwise(edges)], embed, "sentences")
        distances = 1 - np.einsum("ij,ij->i", vectors[:-1], vectors[1:])
        cuts = [edges[place + 1] for place in np.flatnonzero(distances > np.percentile(distances, percentile))]
    return units.chunks(units.topics(edges, cuts, size), parent)


def chunk_hyperdimensional(
    text: str,
    *,
    size: int = 256,
    window: int = 3,
    tokenize: Tokenize | None = None,
    parent: UserId | None = None,
) -> list[Chunk]:
    """Cut a text where its words change, without a model.

    Every word has a random vector of 4,096 components of plus and minus one, made from its letters, and so the same
    everywhere; sentences are the sums of the vectors of their words. A gap between two sentences is judged by the
    cosine of what stands before and after it, and a topic ends in valleys that are deeper than most. Topics larger
    than ``size`` are cut between sentences, and sentences between tokens.

    Parameters
    ----------
    text, size, tokenize, parent : as in :func:`gingham.text.chunk.chunk_tokens`
    window : sentences before and after a gap that it is judged by

    Returns
    -------
    list of Chunk : in order; joined they are the text

    Raises
    ------
    InvalidArgument : as in :func:`gingham.text.chunk.chunk_tokens`, or a window below one

    Notes
    -----
    Random vectors for words and their sums for sentences are those of HyperSeg (Park, Seo and Lee 2023,
    arXiv:2308.10464). The rest differs: a word counts ``ln(sentences / sentences with it)``, so that no list of stop
    words is needed, and a valley is deep whose depth score exceeds the mean of all by half a deviation less
    (Hearst 1997, "TextTiling", Computational Linguistics 23(1)). Time O(words), memory O(window) beside the text and
    its counts.

    No better than sentences filled to a size: on chunk_eval with all-MiniLM-L6-v2 (``bench/topics.py``) the best 1, 5
    and 10 chunks, of 74 tokens on average, hold 0.409, 0.707 and 0.800 of the answers; those of
    :func:`gingham.text.chunk.chunk_sentences` of 65 tokens 0.388, 0.672 and 0.791, of 80 tokens 0.376, 0.706 and 0.817.
    What it gives are ends of topics.
    """
    check_sizes(size, 0)
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 1:
        raise InvalidArgument(f"window= expects a whole number of sentences of at least 1, found {window!r:.40}; use 3")
    units = Units(text, tokenize)
    edges = units.sentences()
    cuts: list[int] = []
    if len(edges) > 2:
        sentences = [units.text_of(*pair) for pair in pairwise(edges)]
        cuts = [edges[gap + 1] for gap in _valleys(_cohesion(sentences, int(window)))]
    return units.chunks(units.topics(edges, cuts, size), parent)


def unit_vectors(texts: list[str], embed: Callable[[list[str]], Array], what: str) -> Array:
    """Vectors that ``embed`` makes of texts, float64 (n, dim) of length one; zeros stay.

    Raises
    ------
    InvalidArgument : ``embed`` is no function
    EmbedderFailed : it made something else than n finite vectors
    """
    if not callable(embed):
        raise InvalidArgument(f"embed= expects a function from texts to vectors, found {shown(embed)}")
    given = embed(texts)
    try:
        made = np.asarray(given)
    except ValueError:
        made = np.empty(0)
    if made.dtype.kind not in "fiu" or made.ndim != 2 or len(made) != len(texts) or not np.isfinite(made).all():
        raise EmbedderFailed(
            f"embed= is expected to make a finite vector of each of {len(texts)} {what}, found shape "
            f"{made.shape} of {made.dtype}; return an array (n, dim) without NaN"
        )
    vectors = made.astype(np.float64)
    peaks = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    vectors /= np.where(peaks == 0, 1, peaks)  # squares neither overflow nor vanish
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    vectors /= np.where(lengths == 0, 1, lengths)
    return vectors


def _cohesion(sentences: Sequence[str], window: int) -> Array:
    """Cosines of the words before and after each gap between sentences, float64 (n - 1,); 0 where one has none."""
    words = [Counter(each[a:b].casefold() for a, b in token_spans(each) if each[a].isalnum()) for each in sentences]
    spread = Counter(word for counts in words for word in counts)
    vectors = _sentence_vectors(words, {word: math.log(len(words) / count) for word, count in spread.items()})
    before: deque[Array] = deque(maxlen=window)
    after = deque(islice(vectors, window + 1))
    out = np.zeros(len(sentences) - 1)
    for gap in range(len(out)):
        before.append(after.popleft())
        one, other = np.sum(list(before), axis=0), np.sum(list(islice(after, window)), axis=0)
        lengths = math.sqrt(float(one @ one) * float(other @ other))
        out[gap] = float(one @ other) / lengths if lengths else 0.0
        after.extend(islice(vectors, 1))
    return out


def _sentence_vectors(words: Sequence[Counter[str]], weights: dict[str, float]) -> Iterator[Array]:
    """Weighted sums of the vectors of words, float64 (DIMENSIONS,)."""
    for counts in words:
        total, some = np.zeros(DIMENSIONS), iter(counts.items())
        while block := list(islice(some, _BLOCK_WORDS)):
            letters = (word.encode("utf-8", "surrogatepass") for word, _ in block)
            bits = np.frombuffer(b"".join(shake_128(each).digest(DIMENSIONS // 8) for each in letters), np.uint8)
            signs = np.unpackbits(bits).reshape(-1, DIMENSIONS).astype(np.float64) * 2 - 1
            total += np.array([weights[word] * count for word, count in block]) @ signs
        yield total


def _valleys(cohesion: Array) -> Array:
    """Gaps that lie deeper below the peaks around them than most."""
    depths = _climbs(cohesion) + _climbs(cohesion[::-1])[::-1]
    lowest = np.r_[True, cohesion[1:] < cohesion[:-1]] & np.r_[cohesion[:-1] <= cohesion[1:], True]
    deep = lowest & (depths > depths.mean() - depths.std() / 2) & (depths > 0)
    return np.flatnonzero(deep)


def _climbs(cohesion: Array) -> Array:
    """How far one climbs from each gap leftwards until it goes down."""
    peaks = cohesion.copy()
    for gap in range(1, len(peaks)):
        if cohesion[gap - 1] >= cohesion[gap]:
            peaks[gap] = peaks[gap - 1]
    climbs: Array = peaks - cohesion
    return climbs
