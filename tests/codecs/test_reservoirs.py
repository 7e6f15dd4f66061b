"""The best of gathered rows against sorting them all, and codes taken row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs import reservoir_kernels
from gingham.codecs.nibble_blocks import take
from gingham.codecs.reservoirs import Reservoirs
from gingham.codecs.spec import parse_codec, scans_lists
from gingham.index.chunked_rows import ChunkedRows
from gingham.index.exact import prepare_queries, row_norms

SCORES = st.sampled_from([-np.inf, -3e38, -1.0, -1e-38, 0.0, 1e-38, 0.5, 1.0, 1.0000001, 3e38])
SPAN_CODECS = (
    "F32",
    "F16",
    "SQ8",
    "LVQ4",
    "LVQ8",
    "LVQ4x8",
    "RaBitQ1",
    "RaBitQ3",
    "PQ6x4fs",
    "PCA8,LVQ8",
    "Rotate,PQ4x4fs",
)


def best(scores: np.ndarray, rows: np.ndarray, k: int) -> list[tuple[float, int]]:
    """The k best pairs, ties by row."""
    order = np.lexsort((rows, -scores.astype(np.float64)))[:k]
    return [(float(scores[i]), int(rows[i])) for i in order]


def line(scores: list[float], k: int) -> Reservoirs:
    found = Reservoirs.empty(1, k)
    n = len(scores)
    found.scores[0, :n], found.rows[0, :n], found.counts[0] = scores, np.random.default_rng(n).permutation(n), n
    return found


@settings(deadline=None, max_examples=150)
@given(st.lists(SCORES, max_size=200), st.integers(1, 40))
def test_the_best_of_a_line_are_those_of_sorting_it(scores: list[float], k: int) -> None:
    found = line(scores, k)
    expected = best(found.scores[0, : len(scores)].copy(), found.rows[0, : len(scores)].copy(), k)
    got_scores, got_rows = found.best()
    got = [(float(s), int(r)) for s, r in zip(got_scores[0], got_rows[0], strict=True)]
    assert sorted(got[: len(expected)]) == sorted(expected)
    assert got[len(expected) :] == [(-np.inf, -1)] * (k - len(expected))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200), st.integers(1, 40))
def test_room_is_made_by_what_is_not_among_the_best_and_the_floor_is_the_worst_of_these(
    scores: list[float], k: int
) -> None:
    found = line(scores, k)
    expected = best(found.scores[0, : len(scores)].copy(), found.rows[0, : len(scores)].copy(), k)
    reservoir_kernels.make_room(found.scores, found.rows, found.counts, found.floors, 0, k)
    count = int(found.counts[0])
    assert count == min(k, len(scores))
    kept = [(float(s), int(r)) for s, r in zip(found.scores[0, :count], found.rows[0, :count], strict=True)]
    assert sorted(kept) == sorted(expected)
    assert found.floors[0] == (min(s for s, _ in kept) if len(scores) > k else -np.inf)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("spec", SPAN_CODECS)
def test_spans_of_any_codec_give_the_best_of_the_rows_in_them(spec: str, metric: str) -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((3000, 24)).astype(np.float32)
    queries = rng.standard_normal((3, 24)).astype(np.float32)
    if metric == "cosine":
        rows, queries = (np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in (rows, queries))
    codec = parse_codec(spec, 24, metric).train(rows)
    codes, allow = codec.encode(rows), rng.random(3000) < 0.7
    spans = np.array(
        [(q, 32 * s, min(32 * s + w, 3000)) for q in range(3) for s, w in ((1, 70), (20, 900), (60, 1080))]
    )
    every = np.tile(np.arange(3000), (3, 1))
    scores = np.empty((3, 3000), np.float32)
    codec.score(codec.prepare(queries), codes, every, scores)
    for mask in (None, allow):
        found = Reservoirs.empty(3, 50)
        codec.scan_spans(codec.prepare(queries), codes, spans, 0 if mask is None else mask.ctypes.data, found)
        got_scores, got_rows = found.best()
        for q in range(3):
            seen = np.concatenate([np.arange(start, stop) for one, start, stop in spans if one == q])
            seen = seen if mask is None else seen[mask[seen]]
            cut = np.sort(scores[q, seen])[-50]
            assert len(set(got_rows[q])) == 50
            assert np.isin(got_rows[q], seen).all()
            np.testing.assert_allclose(np.sort(got_scores[q])[0], cut, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(got_scores[q], scores[q, got_rows[q]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 300])
@pytest.mark.parametrize("spec", SPAN_CODECS)
def test_codes_taken_row_by_row_decode_to_the_rows_taken(spec: str, n: int) -> None:
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((300, 24)).astype(np.float32)
    codec = parse_codec(spec, 24, "l2").train(rows)
    codes, at = codec.encode(rows), rng.integers(0, 300, n)
    np.testing.assert_array_equal(codec.decode(take(codes, at)), codec.decode(codes)[at])
    assert scans_lists(spec)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_nearest_in_chunks_have_the_bits_and_the_order_of_scoring_all(metric: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((500, 24)).astype(dtype)
    rows[7] = rows[300]
    norms = row_norms(rows, metric)
    chunks = [(rows[i : i + 200], norms[i : i + 200]) for i in (0, 200, 400)]
    chunked = ChunkedRows([(np.ascontiguousarray(v), np.ascontiguousarray(n)) for v, n in chunks], metric)
    queries = prepare_queries(rng.standard_normal((4, 24)), metric)
    row_at = rng.permutation(500).astype(np.int32)
    places = rng.permuted(np.tile(np.arange(500), (4, 1)), axis=1)[:, :90].copy()
    places[:, ::7] = -1
    scores, found = chunked.nearest(queries, places, row_at, 20)
    listed = np.where(places < 0, -1, row_at[places]).astype(np.int64)
    every = chunked.score(queries, listed)
    for q in range(4):
        keep = listed[q] >= 0
        assert list(zip(scores[q].tolist(), found[q].tolist(), strict=True)) == best(
            every[q, keep], listed[q, keep], 20
        )
    few = chunked.nearest(queries, places[:, :3].copy(), row_at, 20)
    assert (few[1][:, 3:] == -1).all()
    assert np.isneginf(few[0][:, 3:]).all()
