"""Exact search: the kernels, their NumPy stand-in and brute force agree; scores do not depend on company."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.index import exact
from gingham.parallel import get_threads, one_blas_thread, run_blocks, set_threads

METRICS = ["dot", "cosine", "l2"]
SHAPES = st.tuples(st.integers(1, 60), st.sampled_from([1, 3, 7, 8, 9, 16, 31, 32, 40, 67]), st.integers(1, 12))


def reference(queries: Any, vectors: Any, metric: str) -> Any:
    """Scores in float64."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return -np.square(q[:, None] - x[None]).sum(axis=2)
    scores = q @ x.T
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths != 0)
    return scores


@given(SHAPES, st.sampled_from(METRICS), st.sampled_from(["float32", "float16"]), st.integers(0, 10**6), st.data())
@settings(max_examples=150, deadline=None)
def test_search_finds_what_brute_force_finds(
    shape: tuple[int, int, int], metric: Any, dtype: str, seed: int, data: st.DataObject
) -> None:
    n, dim, n_queries = shape
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim)).astype(dtype)
    vectors[rng.random(n) < 0.2] = vectors[0]
    vectors[rng.random(n) < 0.1] = 0
    missing = rng.random(n) < 0.1
    vectors[missing] = np.nan
    queries = rng.standard_normal((n_queries, dim)).astype(np.float32)
    k = data.draw(st.integers(1, n + 3))
    allow = data.draw(st.none() | st.just(rng.random(n) < data.draw(st.sampled_from([0.02, 0.5, 0.95]))))
    vectors.flags.writeable = False
    norms = exact.row_norms(vectors, metric)
    scores, rows = exact.search_exact(queries, vectors, norms, k, metric=metric, allow=allow, base=5)
    eligible = ~missing if allow is None else ~missing & allow
    truth = np.where(eligible, reference(queries, np.nan_to_num(vectors), metric), -np.inf)
    best = -np.sort(-truth, axis=1)[:, :k]
    width = best.shape[1]
    np.testing.assert_allclose(scores[:, :width], best, rtol=1e-4, atol=1e-4)
    assert np.all(np.isneginf(scores[:, width:]))
    assert np.array_equal(rows < 0, np.isneginf(scores))
    for q in range(n_queries):
        found = rows[q][rows[q] >= 0] - 5
        assert len(set(found.tolist())) == len(found)
        assert eligible[found].all()
        pairs = list(zip(-scores[q][: len(found)], found, strict=True))
        assert pairs == sorted(pairs), "best first, ties by ascending row"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_score_has_the_same_bits_alone_in_a_batch_in_a_slice_and_for_any_threads(
    rng: np.random.Generator, metric: Any, dtype: str
) -> None:
    vectors = rng.standard_normal((40_000, 19)).astype(dtype)
    queries = rng.standard_normal((40, 19)).astype(np.float32)
    norms = exact.row_norms(vectors, metric)
    before = get_threads()
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(exact.search_exact(queries, vectors, norms, 10, metric=metric))
    set_threads(before)
    for scores, rows in results:
        assert np.array_equal(scores, results[0][0])
        assert np.array_equal(rows, results[0][1])
    scores, rows = results[0]
    for q in (0, 17):
        alone = exact.search_exact(queries[q : q + 1], vectors, norms, 10, metric=metric)
        assert np.array_equal(alone[0][0], scores[q])
        assert np.array_equal(alone[1][0], rows[q])
        listed = exact.score_rows(queries[q], vectors, norms, rows[q], metric=metric)
        assert np.array_equal(listed, scores[q])
    part = slice(int(rows[0, 0]), int(rows[0, 0]) + 1)
    one = exact.search_exact(queries[:1], vectors[part], exact.row_norms(vectors[part], metric), 1, metric=metric)
    assert one[0][0, 0] == scores[0, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_rows_nearer_together_than_rounding_are_still_ranked_exactly(rng: np.random.Generator, metric: Any) -> None:
    base = rng.standard_normal(64) * 100
    vectors = (base + rng.standard_normal((3000, 64)) * 1e-3).astype(np.float32)
    queries = (base + rng.standard_normal((8, 64)) * 1e-3).astype(np.float32)
    norms = exact.row_norms(vectors, metric)
    scores, rows = exact.search_exact(queries, vectors, norms, 5, metric=metric)
    for q in range(8):
        every = exact.score_rows(queries[q], vectors, norms, np.arange(3000), metric=metric)
        order = np.lexsort((np.arange(3000), -every))[:5]
        assert np.array_equal(rows[q], order)
        assert np.array_equal(scores[q], every[order])


@pytest.mark.parametrize("metric", METRICS)
def test_numpy_answers_agree_with_the_kernels_while_they_are_cold(
    rng: np.random.Generator, metric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.standard_normal((500, 24)).astype(np.float32)
    vectors[3] = np.nan
    queries = rng.standard_normal((9, 24)).astype(np.float32)
    norms = exact.row_norms(vectors, metric)
    warm = exact.search_exact(queries, vectors, norms, 7, metric=metric)
    monkeypatch.setattr(exact, "ready_kernels", lambda name: None)
    cold = exact.search_exact(queries, vectors, norms, 7, metric=metric)
    np.testing.assert_allclose(cold[0], warm[0], rtol=1e-6, atol=1e-6)
    assert np.array_equal(cold[1], warm[1])


def test_a_radius_returns_every_row_that_reaches_it(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((400, 12)).astype(np.float32)
    query = rng.standard_normal(12).astype(np.float32)
    norms = exact.row_norms(vectors, "dot")
    scores, rows = exact.range_exact(query, vectors, norms, metric="dot", min_score=1.5, base=2)
    truth = reference(query[None], vectors, "dot")[0]
    assert set(rows.tolist()) == {int(i) + 2 for i in np.flatnonzero(truth >= 1.5)}
    assert np.all(scores[:-1] >= scores[1:])


def test_norms_do_not_depend_on_the_rows_beside() -> None:
    vectors = np.random.default_rng(0).standard_normal((9000, 33)).astype(np.float32)
    for metric in ("cosine", "l2"):
        whole = exact.row_norms(vectors, metric)
        alone = exact.row_norms(vectors[8191:8192], metric)
        assert alone[0] == whole[8191]
    zero = exact.row_norms(np.zeros((1, 4), np.float32), "cosine")
    assert zero[0] == 0


def test_merging_orders_by_score_and_then_by_row() -> None:
    left = (np.array([[3.0, 1.0]], np.float32), np.array([[7, 2]]))
    right = (np.array([[3.0, 2.0]], np.float32), np.array([[4, 9]]))
    scores, rows = exact.merge_topk([left, right], 3)
    assert rows.tolist() == [[4, 7, 9]]
    assert scores.tolist() == [[3.0, 3.0, 2.0]]


def test_a_second_process_loads_every_kernel_from_the_cache() -> None:
    code = (
        "import gingham.codecs.float_kernels as k\n"
        "found = [f for f in vars(k).values() if hasattr(f, 'stats')]\n"
        "print(sum(sum(f.stats.cache_misses.values()) for f in found if f.signatures),"
        " sum(sum(f.stats.cache_hits.values()) for f in found))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(out[0]) == 0
    assert int(out[1]) >= 4


def test_a_process_that_ends_while_kernels_compile_ends_well(tmp_path: Any) -> None:
    code = (
        "import numpy as np\nfrom gingham.index.exact import search_exact\n"
        "x = np.eye(4, dtype='f4'); s, r = search_exact(x, x, x[0], 1, metric='dot'); assert r[:, 0].tolist() == [0, 1, 2, 3]"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_blas_threads_are_restored_by_the_last_of_several_blocks() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before


def test_blocks_come_back_in_order() -> None:
    assert run_blocks(lambda x: x * x, list(range(20))) == [x * x for x in range(20)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_in_chunks_score_as_in_one_array(dtype: Any, rng: np.random.Generator) -> None:
    from gingham.index.chunked_rows import ChunkedRows, equal_chunks
    from gingham.index.exact import prepare_queries, row_norms, score_listed

    rows, queries = rng.standard_normal((100, 33)).astype(dtype), rng.standard_normal((7, 33)).astype(np.float32)
    listed = rng.integers(-1, 100, (7, 20))
    metrics: tuple[Any, ...] = ("cosine", "dot", "l2")
    for metric in metrics:
        norms, prepared = row_norms(rows, metric), prepare_queries(queries, metric)
        chunks = [(rows[at : at + 30].copy(), norms[at : at + 30].copy()) for at in range(0, 100, 30)]
        expected = score_listed(prepared, rows, listed, norms=norms, metric=metric)
        np.testing.assert_array_equal(ChunkedRows(chunks, metric).score(prepared, listed), expected)
    assert equal_chunks([30, 30, 10])
    assert not equal_chunks([30, 10, 30])
    assert not equal_chunks([])
