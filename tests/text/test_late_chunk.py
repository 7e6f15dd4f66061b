"""Late chunking against means computed token by token, and windows against one that holds the whole text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import InvalidArgument
from gingham.text.chunk import Chunk, chunk_sentences, chunk_tokens, token_spans
from gingham.text.late_chunk import join_windows, late_chunks, long_late_windows

Array = np.ndarray[Any, Any]

SEEDS = st.integers(0, 2**32 - 1)


def reference(vectors: Array, spans: list[tuple[int, int]], chunks: list[Chunk]) -> Array:
    out = np.zeros((len(chunks), vectors.shape[1]))
    for row, chunk in enumerate(chunks):
        inside = [at for at, (a, b) in enumerate(spans) if max(a, chunk.start) < min(b, chunk.stop)]
        if inside:
            mean = vectors[inside].astype(np.float64).mean(axis=0)
            out[row] = mean / (np.linalg.norm(mean) or 1)
    return out


@st.composite
def tokens(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Ascending spans that may share characters, leave some out, or be empty as those of special tokens."""
    starts = sorted(draw(st.lists(st.integers(0, 60), max_size=20)))
    stops = sorted(start + draw(st.integers(1, 8)) for start in starts)
    spans = list(zip(starts, stops, strict=True))
    for _ in range(draw(st.integers(0, 3))):
        spans.insert(draw(st.integers(0, len(spans))), (0, 0))
    return spans


SPANS = st.tuples(st.integers(0, 70), st.integers(0, 70)).map(sorted)
CHUNKS = st.lists(SPANS.map(lambda span: Chunk("x" * (span[1] - span[0]), span[0], span[1], 0)), max_size=8)


@settings(deadline=None, max_examples=300)
@given(tokens(), CHUNKS, st.integers(1, 5), SEEDS)
def test_a_chunk_is_the_mean_of_the_tokens_that_overlap_it(
    spans: list[tuple[int, int]], chunks: list[Chunk], dim: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(spans), dim), np.float32)
    found = late_chunks(vectors, spans, chunks)
    assert (found.dtype, found.shape) == (np.float32, (len(chunks), dim))
    np.testing.assert_allclose(found, reference(vectors, spans, chunks), atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60), st.integers(1, 9), SEEDS)
def test_chunks_of_a_text_have_length_one_and_those_without_tokens_are_zeros(text: str, size: int, seed: int) -> None:
    spans = token_spans(text)
    chunks = chunk_sentences(text, size=size, overlap=size // 3)
    vectors = np.random.default_rng(seed).standard_normal((len(spans), 4), np.float32)
    lengths = np.linalg.norm(late_chunks(vectors, np.array(spans).reshape(-1, 2), chunks), axis=1)
    np.testing.assert_allclose(lengths, [bool(chunk.text.strip()) for chunk in chunks], atol=1e-6)


def test_one_chunk_is_the_mean_of_the_whole_text() -> None:
    text = "Late interaction keeps a vector for every token."
    vectors = np.random.default_rng(0).standard_normal((len(token_spans(text)), 16), np.float32)
    mean = vectors.mean(axis=0)
    found = late_chunks(vectors, token_spans(text), chunk_tokens(text))
    np.testing.assert_allclose(found, [mean / np.linalg.norm(mean)], atol=1e-6)


def test_a_text_is_chunked_anew_from_the_same_tokens() -> None:
    text = "One two three. Four five six. Seven eight."
    vectors = np.eye(11, dtype=np.float32)
    for size in (1, 4, 11):
        found = late_chunks(vectors, token_spans(text), chunk_tokens(text, size=size))
        assert (found > 0).sum() == 11
        assert (np.nonzero(found)[1] == np.arange(11)).all()


def test_means_of_zeros_stay_zeros_and_huge_ones_are_finite() -> None:
    chunks = [Chunk("ab", 0, 2, 0), Chunk("cd", 2, 4, 1)]
    vectors = np.array([[3e38, 3e38], [3e38, 3e38], [1, 0], [-1, 0]])
    found = late_chunks(vectors, [(0, 1), (1, 2), (2, 3), (3, 4)], chunks)
    np.testing.assert_allclose(found, [[0.5**0.5] * 2, [0, 0]], atol=1e-6)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 80), st.integers(1, 20), st.data())
def test_windows_cover_every_token_and_repeat_what_the_overlap_says(n: int, window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    windows = long_late_windows(n, window=window, overlap=overlap)
    assert sorted({token for start, stop in windows for token in range(start, stop)}) == list(range(n))
    assert all(stop - start == window for start, stop in windows[:-1])
    assert all(one[1] - other[0] == overlap for one, other in pairwise(windows))
    assert all(overlap < stop - start <= window for start, stop in windows[1:])
    assert (windows == []) == (n == 0)
    assert len(windows) == 1 or n > window or n == 0


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 12), SEEDS)
def test_windows_change_nothing_where_the_overlap_is_what_the_model_looks_back(
    n: int, context: int, more: int, seed: int
) -> None:
    def encode(inputs: Array) -> Array:
        """A model in which a token knows itself and ``context - 1`` tokens before it."""
        return np.array([inputs[max(0, at + 1 - context) : at + 1].sum(axis=0) for at in range(len(inputs))])

    inputs = np.random.default_rng(seed).integers(-9, 9, (n, 3)).astype(np.float32)
    windows = long_late_windows(n, window=context - 1 + more, overlap=context - 1)
    joined = join_windows([encode(inputs[start:stop]) for start, stop in windows], windows)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, encode(inputs))


def test_of_a_token_in_two_windows_the_earlier_vector_stays() -> None:
    windows = long_late_windows(7, window=4, overlap=2)
    assert windows == [(0, 4), (2, 6), (4, 7)]
    vectors = [np.full((stop - start, 1), number) for number, (start, stop) in enumerate(windows)]
    assert join_windows(vectors, windows).ravel().tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_no_windows_have_no_vectors() -> None:
    assert join_windows([], []).shape == (0, 0)
    assert late_chunks(np.empty((0, 3)), [], [Chunk("ab", 0, 2, 0)]).tolist() == [[0, 0, 0]]
    assert late_chunks(np.ones((1, 3)), [(0, 2)], []).shape == (0, 3)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((1, 2, 3)), r"shape \(1, 2, 3\)"),
        (np.array([[1, 2], [3, np.nan], [0, 1]]), "token 1"),
        (np.array([[1, 2], [3, 4], [1e300, 1]]), "token 2"),
        ([[1, 2], [3]], "found list"),
        ("text", "found str"),
    ],
)
def test_vectors_that_are_no_finite_matrix_are_refused(vectors: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        late_chunks(vectors, [(0, 1), (1, 2), (2, 3)], [])


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 1)], r"each of 2 tokens, found shape \(1, 2\)"),
        ([(0.0, 1.0), (1.0, 2.0)], "float64"),
        ([(0, 1), (1,)], "whole start and stop"),
        ([(2, 1), (3, 4)], r"found \(2, 1\) as span 0"),
        ([(4, 5), (1, 2)], r"found \(1, 2\) as span 1"),
        ([(0, 5), (1, 2)], r"found \(1, 2\) as span 1"),
        ([(-1, 2), (1, 2)], r"found \(-1, 2\) as span 0"),
    ],
)
def test_spans_that_do_not_fit_the_tokens_are_refused(spans: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        late_chunks(np.ones((2, 2)), spans, [])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("n_tokens", {"n_tokens": -1, "window": 8, "overlap": 0}),
        ("window", {"n_tokens": 9, "window": 0, "overlap": 0}),
        ("window", {"n_tokens": 9, "window": 2.5, "overlap": 0}),
        ("overlap", {"n_tokens": 9, "window": 8, "overlap": 8}),
        ("overlap", {"n_tokens": 9, "window": 1, "overlap": 1}),
        ("overlap", {"n_tokens": 9, "window": 8, "overlap": -1}),
        ("overlap", {"n_tokens": 9, "window": 8, "overlap": True}),
    ],
)
def test_windows_that_would_not_go_on_are_refused_by_name(name: str, options: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}= expects .*; use"):
        long_late_windows(**options)


@pytest.mark.parametrize(
    ("vectors", "windows", "message"),
    [
        ([np.ones((4, 2))], [(0, 4), (2, 5)], "vectors of 2 windows, found those of 1"),
        ([np.ones((6, 2)), np.ones((3, 2))], [(0, 4), (2, 5)], r"window 0 expects vectors of shape \(4, 2\)"),
        ([np.ones((4, 2)), np.ones((3, 3))], [(0, 4), (2, 5)], r"window 1 expects vectors of shape \(3, 2\)"),
        ([np.ones((4, 2)), np.ones((3, 2))], [(0, 4), (5, 8)], "window 1 expects to begin at token 4 or before"),
        ([np.ones((4, 2)), np.ones((2, 2))], [(0, 4), (2, 4)], "window 1 expects .* to end after it"),
    ],
)
def test_vectors_that_do_not_fit_their_windows_are_refused_by_number(vectors: Any, windows: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        join_windows(vectors, windows)
