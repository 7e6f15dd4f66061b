"""Search of an inverted index over the parts of a collection: words of a text, or a sparse vector.

Document frequencies and lengths are those of the live rows of the whole collection, so a score does not depend
on which segment a row lies in, nor on rows that were deleted. What a prefix or a fuzzy word stands for is looked up
among the words that were written; a word is forgotten with its term, when no live row has it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from gingham.deadline import check
from gingham.errors import InvalidArgument
from gingham.index.exact import merge_topk
from gingham.index.inverted import ranges, search_inverted
from gingham.query.highlight import Highlighter
from gingham.query.select import allowed
from gingham.text.analyze import analyzer
from gingham.text.postings import similarity, term_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.index.inverted import Bm25, InvertedIndex, Norm
    from gingham.query.nodes import MatchOperator
    from gingham.query.select import Candidates
    from gingham.schema import Sparse, Text
    from gingham.storage.catalog import CollectionRecord
    from gingham.storage.part import Part
    from gingham.storage.session import Session
    from gingham.text.analyze import Analyzer
    from gingham.text.postings import Postings

    Array = np.ndarray[Any, Any]

MAX_TERMS = 1024
"""Terms searched for at most; of a longer text the rarest are kept."""
MAX_FUZZY_WORDS = 32
"""Words of a query that are matched fuzzily at most; further ones are taken as they are written."""
DEEP = 1000
"""Heaps deeper than this are made only as deep as a query has postings."""
MAX_EXPANSIONS = 64
"""Words that a prefix or a fuzzy word stands for at most: the nearest, then the first in order."""


@dataclass(frozen=True)
class Clause:
    """One word of a query.

    Attributes
    ----------
    keys : the terms it stands for: one, or several for a prefix or a fuzzy word
    shares : weight of each, 1 for an exact one
    count : how often the query has the word
    position : where it stands in the query
    """

    keys: tuple[int, ...]
    shares: tuple[float, ...]
    count: int
    position: int


@dataclass(frozen=True)
class Terms:
    """What a text or sparse vector is searched by.

    Attributes
    ----------
    clauses : one for each distinct word
    sequence : key and position of each word, for a phrase
    """

    clauses: tuple[Clause, ...]
    sequence: tuple[tuple[int, int], ...] = ()

    def all_keys(self) -> frozenset[int]:
        """Every term."""
        return frozenset(key for clause in self.clauses for key in clause.keys)


@dataclass
class Source:
    """The postings of one part, or of one batch of the tail.

    Attributes
    ----------
    part : the part, ``start`` the offset of the first row in it
    allow : bool (rows,) or None
    live : bool (rows,) or None where no row is dead
    barren : no row may be found; it counts in the statistics only
    """

    part: Part
    start: int
    postings: Postings
    allow: Array | None
    live: Array | None
    row_ids: Array
    barren: bool
    statistics: tuple[int, float] = field(default=(0, 0.0))


def sources_of(
    session: Session, record: CollectionRecord, candidates: Sequence[Candidates], name: str, kind: Text | Sparse
) -> list[Source]:
    """Postings of all parts: those without candidates count in the statistics."""
    chosen = {candidate.part.key: candidate for candidate in candidates}
    out = []
    for part in session.parts(record):
        live = allowed(session, record, part, None)
        candidate = chosen.get(part.key)
        row_ids = part.row_ids
        for start, postings in part.postings(name, kind):
            rows = slice(start, start + postings.index.n_rows)
            allow = None if candidate is None or candidate.allow is None else candidate.allow[rows]
            source = Source(
                part, start, postings, allow, None if live is None else live[rows], row_ids[rows], candidate is None
            )
            source.statistics = _statistics(session, source, name)
            out.append(source)
    return out


def _statistics(session: Session, source: Source, name: str) -> tuple[int, float]:
    """Live rows with a text, and the sum of their lengths."""
    lengths = source.postings.index.lengths
    if not len(lengths):
        return 0, 0.0

    def count() -> tuple[int, float]:
        known = ~np.isnan(lengths)
        if source.live is not None:
            known &= source.live
        return int(np.count_nonzero(known)), float(lengths[known].sum(dtype=np.float64))

    key = ("text statistics", source.part.key, source.start, name, len(source.part.dead), session.scope)
    return session.kept(key, count)


def text_terms(text: str, kind: Text, operator: MatchOperator, sources: Sequence[Source]) -> Terms:
    """Analyze a query text; prefixes and fuzzy words are looked up in the words of all parts."""
    check()
    analyze = analyzer(kind.language)
    surfaces = analyze.surfaces(text)
    if operator in ("prefix", "fuzzy"):
        words = [(analyze.normal(surface), place) for place, surface in enumerate(surfaces)]
        return Terms(tuple(_expanded(words, analyze, operator, sources)))
    found = [
        (term_key(term), place)
        for place, surface in enumerate(surfaces)
        if (term := analyze.term_of(surface)) is not None
    ]
    counts = Counter(key for key, _ in found)
    first = dict(reversed(found))
    clauses = tuple(Clause((key,), (1.0,), count, first[key]) for key, count in counts.items())
    return Terms(clauses, tuple(found) if operator == "phrase" else ())


def _expanded(
    words: list[tuple[str, int]], analyze: Analyzer, operator: MatchOperator, sources: Sequence[Source]
) -> list[Clause]:
    """A clause for each distinct word, with the words it stands for: those like it, or the last one's continuations."""
    counts = Counter(word for word, _ in words)
    last = words[-1][0] if words else ""
    clauses: list[Clause] = []
    for word, place in dict(reversed(words)).items():
        check()
        term = analyze.term(word)
        if operator == "prefix":
            found = _prefixed(analyze.folded(word), sources) if word == last else {}
        else:
            found = _fuzzy(analyze.folded(word), sources) if term is not None and len(clauses) < MAX_FUZZY_WORDS else {}
        if term is not None:
            found[term_key(term)] = 1.0
        if found:
            clauses.append(Clause(tuple(found), tuple(found.values()), counts[word], place))
    return sorted(clauses, key=lambda clause: clause.position)


def _prefixed(prefix: str, sources: Sequence[Source]) -> dict[int, float]:
    """Terms of the first words, in order, that begin with a prefix and that a live row has."""
    found: dict[str, int] = {}
    for source in sources:
        words = source.postings.words
        low, high = _bisect(words, prefix), _bisect(words, prefix + "\U0010ffff")
        listed = words.slice(low, high - low).to_pylist()
        found.update(zip(listed, source.postings.word_keys[low:high].tolist(), strict=True))
    return {key: 1.0 for _, key in _alive(sorted(found.items()), sources)}


def _alive(words: list[tuple[str, int]], sources: Sequence[Source]) -> list[tuple[str, int]]:
    """The first ``MAX_EXPANSIONS`` words whose term a live row has."""
    out: list[tuple[str, int]] = []
    for start in range(0, len(words), MAX_EXPANSIONS):
        check()
        some = words[start : start + MAX_EXPANSIONS]
        keys = np.array([key for _, key in some], np.uint64)
        frequencies = sum((_frequencies(source, keys) for source in sources), np.zeros(len(keys), np.int64))
        out += [word for word, frequency in zip(some, frequencies, strict=True) if frequency > 0]
        if len(out) >= MAX_EXPANSIONS:
            break
    return out[:MAX_EXPANSIONS]


def _bisect(words: Any, wanted: str) -> int:
    """Place of the first word that is not before ``wanted`` in the order of UTF-8."""
    low, high = 0, len(words)
    target = wanted.encode("utf-8", "surrogatepass")
    while low < high:
        middle = (low + high) // 2
        if words[middle].as_py().encode() < target:
            low = middle + 1
        else:
            high = middle
    return low


def _fuzzy(word: str, sources: Sequence[Source]) -> dict[int, float]:
    """Terms of the nearest words within a few edits, weighted by 1 - edits / letters of the word."""
    from rapidfuzz import process
    from rapidfuzz.distance import OSA

    edits = 0 if len(word) < 3 else 1 if len(word) < 6 else 2
    if not edits:
        return {}
    found: dict[str, tuple[int, int]] = {}
    for source in sources:
        check()
        words, keys = source.postings.words, source.postings.word_keys
        lengths = pc.utf8_length(words).to_numpy(zero_copy_only=False)
        near = np.flatnonzero(np.abs(lengths - len(word)) <= edits)
        listed = words.take(near).to_pylist()
        for text, distance, place in process.extract(word, listed, scorer=OSA.distance, score_cutoff=edits, limit=None):
            found[text] = (int(distance), int(keys[near[place]]))
    best = sorted(found, key=lambda text: (found[text][0], text))
    out: dict[int, float] = {}
    for text, key in _alive([(text, found[text][1]) for text in best], sources):
        out.setdefault(key, 1.0 - found[text][0] / len(word))
    return out


def highlighter(kind: Text, searched: Sequence[Terms]) -> Highlighter:
    """Finds the words, and the phrases, that queries search for in a text."""
    keys = frozenset(key for terms in searched if not terms.sequence for key in terms.all_keys())
    return Highlighter(kind.language, keys, tuple(terms.sequence for terms in searched if terms.sequence))


def visited(sources: Sequence[Source], terms: Sequence[Terms]) -> int:
    """Postings of the terms of some queries: what a search without bounds would visit."""
    keys = np.array([key for one in terms for key in one.all_keys()], np.uint64)
    spans = [source.postings.index.spans(keys) for source in sources if not source.barren]
    return sum(int((ends - starts).sum()) for _, starts, ends in spans)


def search_terms(
    session: Session,
    sources: Sequence[Source],
    name: str,
    kind: Text | Sparse,
    terms: Sequence[Terms],
    weights: Sequence[Array] | None,
    operator: MatchOperator,
    k: int | None,
) -> list[tuple[Array, Array]]:
    """Find the best rows of each query.

    Parameters
    ----------
    weights : per query the weight of each clause of a sparse vector; None computes those of BM25
    k : rows per query; None is all rows that have a term

    Returns
    -------
    list of tuple : per query float32 scores, descending, and int64 row ids, ties ascending
    """
    bm25 = similarity(kind)
    rows = sum(s.statistics[0] for s in sources)
    average = sum(s.statistics[1] for s in sources) / rows if rows else 0.0
    keys = np.array([key for one in terms for clause in one.clauses for key in clause.keys], np.uint64)
    counts = np.array([sum(len(clause.keys) for clause in one.clauses) for one in terms], np.int64)
    if bm25 is None:
        assert weights is not None
        flat = np.concatenate(weights) if weights else np.empty(0, np.float32)
    else:
        keys, flat, counts = _bm25_weights(sources, terms, keys, counts, rows, bm25)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    n_queries = len(terms)
    pieces = [(np.full((n_queries, 0), -np.inf, np.float32), np.full((n_queries, 0), -1, np.int64))]
    for source in sources:
        check()
        index = source.postings.index
        norm, slack = None, 1.0
        if bm25 is not None:
            norm = bm25.norm(average)
            slack = max(1.0, average / index.average_length) if index.average_length else 1.0
        depth = index.n_rows if k is None else min(k, index.n_rows)
        if depth > DEEP:
            depth = min(depth, _most_postings(index, keys, starts))
        if not depth or not len(index.rows) or source.barren:
            continue
        if operator in ("all", "phrase"):
            found = [_search_restricted(source, one, operator, keys[a:b], flat[a:b], depth, norm, slack)
                     for one, a, b in zip(terms, starts[:-1], starts[1:], strict=True)]  # fmt: skip
            scores, offsets = np.concatenate([s for s, _ in found]), np.concatenate([r for _, r in found])
        else:
            scores, offsets = search_inverted(
                index, keys, flat, starts, depth, norm=norm, slack=slack, allow=source.allow
            )
        pieces.append((scores, np.where(offsets < 0, -1, source.row_ids.astype(np.int64)[offsets])))
    width = sum(s.shape[1] for s, _ in pieces)
    scores, found_rows = merge_topk(pieces, width if k is None else min(k, width))
    check()
    return [(s[r >= 0], r[r >= 0]) for s, r in zip(scores, found_rows, strict=True)]


def _most_postings(index: InvertedIndex, keys: Array, starts: Array) -> int:
    """Rows that a query can find at most: its postings."""
    _, first, last = index.spans(keys)
    sums = np.concatenate([[0], np.cumsum(last - first)])
    return int((sums[starts[1:]] - sums[starts[:-1]]).max(initial=0))


def _bm25_weights(
    sources: Sequence[Source], terms: Sequence[Terms], keys: Array, counts: Array, rows: int, bm25: Bm25
) -> tuple[Array, Array, Array]:
    """Keys, weights and their number per query; the words that one clause stands for share one idf.

    Terms that no row has are left out, and so are the commonest ones of a query with too many.
    """
    if not len(keys) or not rows:
        return np.empty(0, np.uint64), np.empty(0, np.float32), np.zeros(len(terms), np.int64)
    frequencies = np.zeros(len(keys), np.int64)
    for source in sources:
        frequencies += _frequencies(source, keys)
    sizes = np.array([len(clause.keys) for one in terms for clause in one.clauses])
    highest = np.repeat(np.maximum.reduceat(frequencies, np.cumsum(sizes) - sizes), sizes)
    shares = np.array([share * c.count for one in terms for c in one.clauses for share in c.shares], np.float32)
    weights = bm25.idf(rows, highest.astype(np.float64)) * shares
    owner = np.repeat(np.arange(len(terms)), counts)
    used = frequencies > 0
    keys, weights, owner = keys[used], weights[used], owner[used]
    if np.any(sizes > 1):
        keys, weights, owner = _strongest_once(keys, weights, owner)
    counts = np.bincount(owner, minlength=len(terms))
    if np.any(counts > MAX_TERMS):
        order = np.lexsort((np.arange(len(keys)), -weights, owner))
        rank = ranges(np.zeros(len(terms), np.int64), counts)
        kept = np.sort(order[rank < MAX_TERMS])
        keys, weights, counts = keys[kept], weights[kept], np.minimum(counts, MAX_TERMS)
    return keys, weights, counts


def _strongest_once(keys: Array, weights: Array, owner: Array) -> tuple[Array, Array, Array]:
    """Each term once a query, with its greatest weight: two fuzzy words may stand for one term."""
    order = np.lexsort((-weights, keys, owner))
    first = np.append(True, (keys[order][1:] != keys[order][:-1]) | (owner[order][1:] != owner[order][:-1]))
    kept = np.sort(order[first]) if len(order) else order
    return keys[kept], weights[kept], owner[kept]


def _frequencies(source: Source, keys: Array) -> Array:
    """How many live rows have each term."""
    _, starts, ends = source.postings.index.spans(keys)
    if source.live is None:
        out: Array = ends - starts
        return out
    rows, live = source.postings.index.rows, source.live
    return np.array([np.count_nonzero(live[rows[a:b]]) for a, b in zip(starts, ends, strict=True)], np.int64)


def _search_restricted(
    source: Source,
    terms: Terms,
    operator: MatchOperator,
    keys: Array,
    weights: Array,
    k: int,
    norm: Norm | None,
    slack: float,
) -> tuple[Array, Array]:
    """Search only the rows that have every word, or the phrase."""
    index = source.postings.index
    rows = _phrase_rows(source, terms) if operator == "phrase" else _rows_with_all(source, terms)
    mask = np.zeros(index.n_rows, np.bool_)
    mask[rows] = True
    if source.allow is not None:
        mask &= source.allow
    starts = np.array([0, len(keys)], np.int64)
    return search_inverted(index, keys, weights, starts, k, norm=norm, slack=slack, allow=mask)


def _rows_with_all(source: Source, terms: Terms) -> Array:
    lists = [source.postings.index.rows_of(clause.keys[0]) for clause in terms.clauses]
    if not lists:
        return np.empty(0, np.uint32)
    lists.sort(key=len)
    out: Array = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), lists)
    return out


def _phrase_rows(source: Source, terms: Terms) -> Array:
    """Rows in which the words stand beside each other as in the query."""
    index = source.postings.index
    if not terms.sequence or not len(index.position_starts):
        return np.empty(0, np.uint32)
    rows = _rows_with_all(source, terms)
    starts: Array | None = None
    for key, place in terms.sequence:
        check()
        _, low, high = index.spans(np.array([key], np.uint64))
        at = low[0] + np.flatnonzero(np.isin(index.rows[low[0] : high[0]], rows))
        counts = index.position_starts[at + 1] - index.position_starts[at]
        positions = index.positions[ranges(index.position_starts[at], counts)].astype(np.int64) - place
        marks = np.repeat(index.rows[at].astype(np.int64), counts) << 32 | (positions + (1 << 31))
        starts = marks if starts is None else np.intersect1d(starts, marks)
    assert starts is not None
    return np.unique(starts >> 32).astype(np.uint32)


def check_phrase(name: str, kind: Text) -> None:
    """Raise InvalidArgument where a field keeps no positions."""
    if not kind.positions:
        raise InvalidArgument(f"a phrase needs the positions of words; make the field {name!r} with positions=True")
