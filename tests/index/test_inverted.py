"""The inverted index against sums in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.index import inverted
from gingham.index.inverted import Bm25, InvertedIndex, from_pairs, merge, search_inverted

BM25 = Bm25()


def index_of(rng: np.random.Generator, n_rows: int, n_terms: int, n_tokens: int) -> tuple[InvertedIndex, Any]:
    """An index of random tokens, and the counts as a dense matrix."""
    keys = np.sort(rng.choice(1 << 40, n_terms, replace=False)).astype(np.uint64)
    shuffled = rng.permutation(keys)
    terms, rows = (rng.zipf(1.3, n_tokens) - 1) % n_terms, rng.integers(0, n_rows, n_tokens)
    lengths = np.bincount(rows, minlength=n_rows).astype(np.float32)
    counts = np.zeros((n_terms, n_rows), np.float32)
    np.add.at(counts, (np.searchsorted(keys, shuffled)[terms], rows), 1)
    return from_pairs(n_rows, shuffled, terms, rows, lengths=lengths, bm25=BM25), (keys, counts)


def reference(dense: Any, norms: Any, query: Any, weights: Any, k: int, allow: Any) -> tuple[Any, Any]:
    keys, counts = dense
    total = np.zeros(counts.shape[1], np.float32)
    for key, weight in zip(query, weights, strict=True):
        tf = counts[np.searchsorted(keys, key)]
        total += weight * (tf / (tf + norms) if norms is not None else tf)
    total[~allow] = 0
    order = np.lexsort((np.arange(len(total)), -total))[:k]
    return total[order][total[order] > 0], order[total[order] > 0]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    n_rows=st.sampled_from([1, 7, 300, 5000, 9001]),
    k=st.sampled_from([1, 10, 200]),
    kind=st.sampled_from(["bm25", "product"]),
    share=st.sampled_from([1.0, 0.3, 0.001]),
    cold=st.booleans(),
)
def test_the_best_rows_are_those_of_a_dense_sum_bit_for_bit(
    seed: int, n_rows: int, k: int, kind: str, share: float, cold: bool
) -> None:
    rng = np.random.default_rng(seed)
    index, dense = index_of(rng, n_rows, 60, int(rng.integers(1, 8 * n_rows + 2)))
    average = index.average_length * rng.uniform(0.8, 1.3)
    norms = BM25.norms(index.lengths, average) if kind == "bm25" else None
    slack = max(1.0, average / index.average_length)
    if kind == "product":
        index = merge([(index, np.arange(n_rows))], n_rows)
    queries = [rng.choice(dense[0], rng.integers(0, 12), replace=False) for _ in range(3)]
    weights = [rng.uniform(0.1, 8, len(q)).astype(np.float32) for q in queries]
    starts = np.cumsum([0, *map(len, queries)])
    allow = rng.random(n_rows) < share
    with pytest.MonkeyPatch.context() as patch:
        if cold:
            patch.setattr(inverted, "ready_kernels", lambda name: None)
        scores, rows = search_inverted(
            index, np.concatenate(queries), np.concatenate(weights), starts, k, norms=norms, slack=slack, allow=allow
        )
    for q in range(3):
        expected = reference(dense, norms, queries[q], weights[q], k, allow)
        found = rows[q] >= 0
        assert np.array_equal(rows[q][found], expected[1])
        assert np.array_equal(scores[q][found], expected[0])
        assert np.all(np.isneginf(scores[q][~found]))


@pytest.mark.parametrize("positions", [False, True])
def test_merging_pieces_gives_the_index_of_the_whole(rng: np.random.Generator, positions: bool) -> None:
    n_rows, n_tokens = 500, 6000
    keys = rng.choice(1 << 40, 80, replace=False).astype(np.uint64)
    terms, rows = rng.integers(0, 80, n_tokens), np.sort(rng.integers(0, n_rows, n_tokens))
    places = inverted.ranges(np.zeros(n_rows, np.int64), np.bincount(rows, minlength=n_rows))

    def build(mask: Any, shift: int, n: int) -> InvertedIndex:
        lengths = np.bincount(rows[mask] - shift, minlength=n).astype(np.float32)
        given_places = places[mask] if positions else None
        return from_pairs(n, keys, terms[mask], rows[mask] - shift, lengths=lengths, positions=given_places, bm25=BM25)

    kept = rng.random(n_rows) < 0.8
    new = np.where(kept, np.cumsum(kept) - 1, -1)
    order = rng.permutation(3)
    spans = [(0, 100), (100, 101), (101, n_rows)]
    sources = [
        (
            build((rows >= spans[i][0]) & (rows < spans[i][1]), spans[i][0], spans[i][1] - spans[i][0]),
            new[slice(*spans[i])],
        )
        for i in order
    ]
    merged = merge(sources, int(kept.sum()), bm25=BM25)
    alive = kept[rows]
    whole = from_pairs(
        int(kept.sum()), keys, terms[alive], new[rows[alive]],
        lengths=np.bincount(new[rows[alive]], minlength=int(kept.sum())).astype(np.float32),
        positions=places[alive] if positions else None, bm25=BM25,
    )  # fmt: skip
    for name, array in whole.arrays().items():
        assert np.array_equal(getattr(merged, name), array), name
    assert merged.average_length == whole.average_length


def test_merging_in_small_steps_changes_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = index_of(rng, 300, 50, 3000)
    whole = merge([(index, np.arange(300))], 300, bm25=BM25)
    monkeypatch.setattr(inverted, "MERGE_POSTINGS", 100)
    stepped = merge([(index, np.arange(300))], 300, bm25=BM25)
    for name, array in whole.arrays().items():
        assert np.array_equal(getattr(stepped, name), array), name


def test_an_index_of_nothing_finds_nothing() -> None:
    index = InvertedIndex.empty(5)
    scores, rows = search_inverted(index, np.array([1], np.uint64), np.ones(1, np.float32), np.array([0, 1]), 3)
    assert np.all(rows == -1)
    assert np.all(np.isneginf(scores))
