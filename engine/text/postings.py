"""Postings of one column of a segment: words of a text field, or dimensions of a sparse vector."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from gingham.index import inverted
from gingham.index.inverted import Bm25, InvertedIndex
from gingham.schema import Text
from gingham.text.analyze import Analyzer, analyzer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.schema import Sparse

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Postings:
    """An inverted index, and for text the words its terms come from.

    Attributes
    ----------
    index : the postings; a term's key is the xxh3-64 of its UTF-8, or the number of a dimension. Two terms
        with one hash would be taken as one: among a million terms that happens once in 40 million stores
    words : large_string, ascending, every word in normal form that is no stop word; empty for sparse vectors
    word_keys : uint64, the term of each word
    """

    index: InvertedIndex
    words: pa.Array
    word_keys: Array

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.index.nbytes + int(self.words.nbytes) + self.word_keys.nbytes


def term_key(term: str) -> int:
    """Key of a term of text."""
    return xxhash.xxh3_64_intdigest(term.encode("utf-8", "surrogatepass"))


def similarity(kind: Text | Sparse) -> Bm25 | None:
    """How a field scores; None is the inner product."""
    return Bm25(kind.k1, kind.b) if isinstance(kind, Text) else None


def no_postings(n_rows: int) -> Postings:
    """Postings of rows that have neither text nor vector."""
    return Postings(InvertedIndex.empty(n_rows), pa.array([], pa.large_string()), np.empty(0, np.uint64))


def make_postings(kind: Text | Sparse, column: pa.Array) -> Postings:
    """Postings of a stored column."""
    if isinstance(kind, Text):
        return _text_postings(column, analyzer(kind.language), similarity(kind), positions=kind.positions)
    return _sparse_postings(column)


class _Lexicon(dict[str, int]):
    """Surface to the number of its term, -1 for a stop word; filled as surfaces are met."""

    def __init__(self, analyze: Analyzer) -> None:
        super().__init__()
        self._analyze = analyze
        self.terms: dict[str, int] = {}
        self.words: dict[str, int] = {}

    def __missing__(self, surface: str) -> int:
        normal = self._analyze.normal(surface)
        term = self._analyze.term(normal)
        number = -1 if term is None else self.terms.setdefault(term, len(self.terms))
        if number >= 0:
            self.words[normal] = number
        self[surface] = number
        return number


def _text_postings(column: pa.Array, analyze: Analyzer, bm25: Bm25 | None, *, positions: bool) -> Postings:
    lexicon = _Lexicon(analyze)
    numbers = array("q")
    counts = np.empty(len(column), np.int64)
    for row, text in enumerate(column):
        surfaces = analyze.surfaces(text.as_py() or "")
        numbers.extend(map(lexicon.__getitem__, surfaces))
        counts[row] = len(surfaces)
    terms = np.frombuffer(numbers, np.int64) if len(numbers) else np.empty(0, np.int64)
    kept = terms >= 0
    rows = np.repeat(np.arange(len(column)), counts)[kept]
    lengths = np.bincount(rows, minlength=len(column)).astype(np.float32)
    lengths[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    keys = np.array([term_key(term) for term in lexicon.terms], np.uint64)
    index = inverted.from_pairs(
        len(column),
        keys,
        terms[kept],
        rows,
        positions=inverted.ranges(np.zeros(len(column), np.int64), counts)[kept] if positions else None,
        lengths=lengths,
        bm25=bm25,
    )
    words = pa.array(list(lexicon.words), pa.large_string())
    order = pc.sort_indices(words)
    word_keys = keys[np.fromiter(lexicon.words.values(), np.int64, len(lexicon.words))]
    return Postings(index, words.take(order), word_keys[order.to_numpy()])


def _sparse_postings(column: pa.Array) -> Postings:
    counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    entries = column.flatten()
    dimensions, terms = np.unique(entries.field("index").to_numpy().astype(np.uint64), return_inverse=True)
    index = inverted.from_pairs(
        len(column),
        dimensions,
        terms.astype(np.int64),
        np.repeat(np.arange(len(column)), counts),
        values=entries.field("weight").to_numpy(),
    )
    return Postings(index, pa.array([], pa.large_string()), np.empty(0, np.uint64))


def merge_postings(kind: Text | Sparse, sources: Sequence[tuple[Postings, Array]], n_rows: int) -> Postings:
    """One of several; each comes with the new number of its rows, -1 where a row is left out."""
    index = inverted.merge([(s.index, rows) for s, rows in sources], n_rows, bm25=similarity(kind))
    if not sources:
        return no_postings(n_rows)
    words = pa.concat_arrays([s.words for s, _ in sources])
    keys = np.concatenate([s.word_keys for s, _ in sources])
    alive = np.isin(keys, index.keys)
    words, keys = words.filter(pa.array(alive)), keys[alive]
    encoded = words.dictionary_encode()
    first = np.unique(encoded.indices.to_numpy(), return_index=True)[1]
    order = pc.sort_indices(encoded.dictionary)
    return Postings(index, encoded.dictionary.take(order), keys[first][order.to_numpy()])
