"""Deadlines and cancellation: they nest, reach the pool, stop exact search between slices, and change no result."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham import deadline, errors
from gingham.deadline import CancelScope, check, within
from gingham.index import exact
from gingham.parallel import get_threads, run_blocks, set_threads


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Any:
    before = get_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


def over() -> bool:
    try:
        check()
    except errors.DeadlineExceeded:
        return True
    return False


def test_time_is_over_after_the_timeout_and_not_before() -> None:
    check()
    with within(0.05):
        assert not over()
        time.sleep(0.06)
        with pytest.raises(errors.DeadlineExceeded, match=r"timeout=0\.05 s.*raise timeout="):
            check()
    check()


def test_of_nested_deadlines_the_earlier_end_holds() -> None:
    with within(0.05), within(30), within(None):
        time.sleep(0.06)
        with pytest.raises(errors.DeadlineExceeded, match=r"0\.05"):
            check()
    with within(30):
        with within(0.01):
            time.sleep(0.02)
            assert over()
        assert not over()


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, True, "3", [1], 10**400])
def test_a_timeout_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="timeout= expects"), within(timeout):
        pass
    with within(np.float32(5)):
        check()


def test_the_errors_are_those_callers_know() -> None:
    assert issubclass(errors.DeadlineExceeded, (gg.GinghamError, TimeoutError))
    assert (errors.DeadlineExceeded.grpc_code, errors.Cancelled.grpc_code) == ("DEADLINE_EXCEEDED", "CANCELLED")


def test_a_scope_is_cancelled_from_another_thread_and_only_inside() -> None:
    with CancelScope() as outer, within(30), CancelScope() as inner:
        check()
        thread = threading.Thread(target=outer.cancel)
        thread.start()
        thread.join()
        with pytest.raises(errors.Cancelled):
            check()
        assert not inner.cancelled
    check()


def test_a_thread_has_no_deadline_but_what_is_carried_into_it() -> None:
    seen: list[bool] = []
    with within(0.001):
        time.sleep(0.002)
        thread = threading.Thread(target=lambda: seen.append(over()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_checking_costs_nothing_to_speak_of() -> None:
    def cost() -> float:
        started = time.perf_counter()
        for _ in range(10_000):
            check()
        return (time.perf_counter() - started) / 10_000

    assert min(cost() for _ in range(20)) < 0.5e-6


def test_blocks_see_the_deadline_and_those_left_are_not_started(threads: int) -> None:
    started: list[int] = []

    def work(block: int) -> None:
        started.append(block)
        time.sleep(0.03)

    with within(0.05), pytest.raises(errors.DeadlineExceeded):
        run_blocks(work, list(range(50)))
    assert 1 <= len(started) <= 3 * threads


def test_the_first_error_of_a_block_is_raised_when_no_block_runs_any_more() -> None:
    before = get_threads()
    set_threads(2)
    running = []

    def work(block: int) -> None:
        if block == 1:
            time.sleep(0.02)
            raise ValueError("block one")
        running.append(block)
        try:
            for _ in range(400):
                time.sleep(0.005)
                check()
        finally:
            running.remove(block)

    started = time.monotonic()
    with pytest.raises(ValueError, match="block one"):
        run_blocks(work, [0, 1, 2, 3])
    set_threads(before)
    assert running == []
    assert time.monotonic() - started < 1
    assert run_blocks(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_slices_change_no_bit(
    rng: np.random.Generator, metric: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.standard_normal((3000, 24)).astype(dtype)
    vectors[7] = np.nan
    close = (vectors[:1] + rng.standard_normal((3000, 24)) * 1e-4).astype(dtype)
    allow = rng.random(3000) < 0.05
    for rows in (vectors, close):
        norms = exact.row_norms(rows, metric)
        queries = rng.standard_normal((70, 24)).astype(np.float32)
        calls = [
            lambda q=queries[:1], r=rows, n=norms: exact.search_exact(q, r, n, 10, metric=metric),
            lambda q=queries, r=rows, n=norms: exact.search_exact(q, r, n, 900, metric=metric),
            lambda q=queries, r=rows, n=norms: exact.search_exact(q, r, n, 10, metric=metric, allow=allow),
            lambda q=queries[0], r=rows, n=norms: exact.range_exact(q, r, n, metric=metric, min_score=-math.inf),
        ]
        whole = [call() for call in calls]
        for nbytes in (1, 5000, 100_000):
            monkeypatch.setattr(exact, "SLICE_BYTES", nbytes)
            for call, (scores, found) in zip(calls, whole, strict=True):
                again = call()
                assert again[0].tobytes() == scores.tobytes()
                assert again[1].tobytes() == found.tobytes()
        monkeypatch.undo()


class _Countdown:
    """Stands in for a deadline that ends at its n-th check."""

    def __init__(self, checks: int) -> None:
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise errors.DeadlineExceeded("over")


@pytest.mark.parametrize("n_queries", [1, 40])
@pytest.mark.parametrize("cold", [False, True])
def test_every_way_to_search_checks_again_and_again(
    n_queries: int, cold: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.standard_normal((5000, 16)).astype(np.float32)
    queries = rng.standard_normal((n_queries, 16)).astype(np.float32)
    norms = exact.row_norms(vectors, "dot")
    rows = rng.integers(0, 5000, 5000)
    monkeypatch.setattr(exact, "SLICE_BYTES", 1600)
    monkeypatch.setattr(exact, "NUMPY_VALUES", 1600)
    if cold:
        monkeypatch.setattr(exact, "ready_kernels", lambda name: None)
    ways = [
        lambda: exact.search_exact(queries, vectors, norms, 5, metric="dot"),
        lambda: exact.search_exact(queries, vectors, norms, 5, metric="dot", allow=rows < 400),
        lambda: exact.score_rows(queries[0], vectors, norms, rows, metric="dot"),
    ]
    for way in ways:
        token = deadline._current.set(_Countdown(4))  # type: ignore[arg-type]
        try:
            with pytest.raises(errors.DeadlineExceeded):
                way()
        finally:
            deadline._current.reset(token)
        way()


@pytest.mark.parametrize("n_queries", [1, 300])
def test_a_search_past_its_deadline_ends_soon_and_the_database_goes_on(
    db: gg.Database, rng: np.random.Generator, n_queries: int, threads: int
) -> None:
    docs = db.create_collection("wide", vectors={"v": gg.Dense(256, "dot")})
    vectors = rng.standard_normal((40_000, 256), dtype=np.float32)
    docs.upsert(ids=list(range(40_000)), vectors={"v": vectors})
    queries = rng.standard_normal((n_queries, 256), dtype=np.float32)
    truth = docs.search(queries)
    started = time.monotonic()
    with within(0.0005), pytest.raises(errors.DeadlineExceeded):
        for _ in range(1000):
            docs.search(queries)
    assert time.monotonic() - started < 1
    again = docs.search(queries)
    assert [h.ids for h in again] == [h.ids for h in truth]
    docs.delete(ids=[0])
    assert docs.count() == 39_999
    assert db.verify().damage == []
