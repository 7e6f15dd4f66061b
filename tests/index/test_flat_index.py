"""The bare flat index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham.errors import ChecksumMismatch, Corrupt, DimensionMismatch, InvalidArgument, NotFound, NotReady

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM = 96
CODED = ["SQ8", "LVQ8", "LVQ4x8", "LVQ8x8", "RaBitQ8", "F16"]
SMALL = ["LVQ4", "RaBitQ2", "RaBitQ4"]


def clustered(n: int, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, DIM))
    return (centers[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, DIM))).astype(np.float32)


def truth(rows: Array, queries: Array, metric: str, k: int) -> Array:
    if metric == "cosine":
        rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
    scores = -np.square(queries[:, None] - rows).sum(axis=2) if metric == "l2" else queries @ rows.T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall(found: Array, expected: Array) -> float:
    return float(np.mean([len(np.intersect1d(f, e)) / len(e) for f, e in zip(found, expected, strict=True)]))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("codec", [*CODED, *SMALL])
def test_it_finds_what_brute_force_finds(codec: str, metric: Any) -> None:
    rows, queries = clustered(3000), clustered(40, 2)
    index = gg.index.Flat(DIM, metric=metric, codec=codec)
    assert index.add(rows[:1000]) == range(1000)
    assert index.add(rows[1000:]) == range(1000, 3000)
    scores, found = index.search(queries, 10)
    assert recall(found, truth(rows, queries, metric, 10)) > (0.85 if codec == "RaBitQ2" else 0.95)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_candidates_find_more_and_the_bound_needs_no_number() -> None:
    rows, queries = clustered(3000), clustered(40, 2)
    index = gg.index.Flat(DIM, metric="l2", codec="RaBitQ1", keep="f32")
    index.add(rows)
    expected = truth(rows, queries, "l2", 10)
    recalls = [recall(index.search(queries, 10, oversample=o)[1], expected) for o in (1, 4, 32)]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.8
    assert recall(index.search(queries, 10, bounded=True)[1], expected) > 0.98


def test_rows_are_scored_from_what_was_kept() -> None:
    rows, queries = clustered(500), clustered(5, 2)
    index = gg.index.Flat(DIM, metric="l2", codec="RaBitQ2", keep="f32")
    index.add(rows)
    scores, found = index.search(queries, 3)
    np.testing.assert_allclose(scores, -np.square(queries[:, None] - rows[found]).sum(axis=2), rtol=1e-5)


def test_only_allowed_rows_are_found_and_missing_ones_are_padded() -> None:
    index = gg.index.Flat(DIM, codec="LVQ8")
    index.add(clustered(100))
    allow = np.zeros(100, np.bool_)
    allow[[3, 50, 99]] = True
    scores, found = index.search(clustered(2, 3), 5, allow=allow)
    assert set(found[0, :3].tolist()) == {3, 50, 99}
    assert (found[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


def test_threads_batches_and_joined_parts_change_no_bit() -> None:
    rows, queries = clustered(9000), clustered(70, 2)
    results = []
    for threads in (1, 3):
        gg.set_threads(threads)
        try:
            index = gg.index.Flat(DIM, codec="RaBitQ4", seed=4)
            index.train(rows)
            for start in range(0, 9000, 3333):
                index.add(rows[start : start + 3333])
            results += [
                index.search(queries, 20),
                tuple(np.concatenate(x) for x in zip(*(index.search(q, 20) for q in queries), strict=True)),
            ]
        finally:
            gg.set_threads(2)
    for scores, found in results[1:]:
        np.testing.assert_array_equal(scores, results[0][0])
        np.testing.assert_array_equal(found, results[0][1])


@pytest.mark.parametrize("codec", ["F32", "LVQ4x8", "RaBitQ3"])
def test_a_saved_index_is_mapped_and_finds_the_same(codec: str, tmp_path: Path) -> None:
    index = gg.index.Flat(DIM, codec=codec)
    index.add(clustered(300))
    index.save(tmp_path / "index")
    again = gg.index.load(tmp_path / "index")
    assert (len(again), again.stats()) == (300, index.stats())
    for a, b in zip(again.search(clustered(4, 2), 7), index.search(clustered(4, 2), 7), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.add(clustered(10, 5)) == range(300, 310)


def test_an_empty_index_is_saved_and_finds_nothing(tmp_path: Path) -> None:
    gg.index.Flat(DIM, codec="LVQ8").save(tmp_path / "index")
    index = gg.index.load(tmp_path / "index")
    scores, found = index.search(clustered(2), 3)
    assert (found == -1).all()
    assert np.isneginf(scores).all()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = gg.index.Flat(DIM, codec="LVQ8")
    index.add(clustered(50))
    index.save(path)
    whole = path.read_bytes()
    for position, error in ((len(whole) - 500, ChecksumMismatch), (40, ChecksumMismatch), (0, Corrupt)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(error):
            gg.index.load(path)
    for size in (0, 10, 30, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises((Corrupt, ChecksumMismatch)):
            gg.index.load(path)
    with pytest.raises(NotFound):
        gg.index.load(tmp_path / "nothing")


def test_any_array_of_numbers_is_taken() -> None:
    rows = (clustered(60) * 20).round().clip(-127, 127)
    results = []
    for given in (
        rows,
        rows.astype(np.float64),
        rows.astype(np.int8),
        rows.tolist(),
        np.asfortranarray(rows),
        np.repeat(rows, 2, axis=1)[:, ::2],
    ):
        index = gg.index.Flat(DIM, metric="l2", codec="LVQ8")
        index.add(given)
        results.append(index.search(given, 3)[1])
    for found in results[1:]:
        np.testing.assert_array_equal(found, results[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gg.index.Flat(0), InvalidArgument, "at least 1"),
        (lambda: gg.index.Flat(8, metric="hamming"), InvalidArgument, "'cosine', 'dot' or 'l2'"),
        (lambda: gg.index.Flat(8, codec="LVQ9"), InvalidArgument, "of the form LVQ4, LVQ8"),
        (lambda: gg.index.Flat(8, keep="f64"), InvalidArgument, "keep="),
        (lambda: full().add(np.ones((2, 9))), DimensionMismatch, r"\(n, 8\)"),
        (lambda: full().add("text"), InvalidArgument, "numbers"),
        (lambda: full().add(np.full((2, 8), np.nan)), InvalidArgument, "row 0"),
        (lambda: full().search(np.ones(8), 0), InvalidArgument, "at least 1"),
        (lambda: full().search(np.ones(8), oversample=0.5), InvalidArgument, "oversample"),
        (lambda: full().search(np.ones(8), allow=[True]), InvalidArgument, "3 bools"),
        (lambda: full().train(np.ones((3, 8))), NotReady, "empty index"),
        (lambda: gg.index.Flat(8).train(np.ones((0, 8))), InvalidArgument, "at least one row"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def full() -> gg.index.Flat:
    index = gg.index.Flat(8, codec="LVQ8")
    index.add(np.eye(8)[:3])
    return index


def test_more_rows_than_there_are_cost_nothing() -> None:
    scores, found = full().search(np.ones(8), 1000)
    assert found.shape == scores.shape == (1, 1000)
    assert (found[0, 3:] == -1).all()


@pytest.mark.parametrize(
    ("codec", "kept"),
    [("LVQ8", False), ("LVQ4x8", False), ("SQ8", False), ("RaBitQ8", False), ("F16", False), ("LVQ4", True),
     ("RaBitQ2", True), ("PCA4,LVQ4x8", True), ("PCA4,LVQ8", True), ("Rotate,LVQ8", False), ("PQ4x8", True)],
)  # fmt: skip
def test_vectors_are_kept_where_codes_are_not_precise_themselves(codec: str, kept: bool) -> None:
    index = gg.index.Flat(96, codec=codec)
    index.add(np.random.default_rng(3).standard_normal((400, 96)))
    assert (index.stats().kept_bytes > 0) == kept


def test_a_byte_of_each_of_few_dimensions_is_not_precise() -> None:
    index = gg.index.Flat(50, codec="LVQ8")
    index.add(np.random.default_rng(3).standard_normal((400, 50)))
    assert index.stats().kept_bytes == 400 * 50 * 2


def test_an_array_that_was_added_may_be_changed(rng: np.random.Generator) -> None:
    for metric in ("dot", "l2", "cosine"):
        rows = rng.standard_normal((50, 8)).astype(np.float32)
        index = gg.index.Flat(8, metric=metric)
        index.add(rows)
        before = index.search(np.ones(8), 5)
        rows[:] = 0
        np.testing.assert_array_equal(index.search(np.ones(8), 5), before)


@pytest.mark.parametrize("codec", ["RaBitQ1", "RaBitQ4"])
def test_a_bounded_search_of_few_rows_is_exact(codec: str) -> None:
    rows, queries = clustered(40), clustered(5, 2)
    index = gg.index.Flat(DIM, metric="l2", codec=codec, keep="f32")
    index.add(rows)
    for k in (1, 10, 40, 50):
        found = index.search(queries, k, bounded=True)[1]
        np.testing.assert_array_equal(found[:, : min(k, 40)], truth(rows, queries, "l2", k))


@pytest.mark.parametrize("codec", [*CODED, *SMALL, "RaBitQ1", "PQ24x8", "PQ24x4fs", "PQ12x8n", "ITQ", "Center,SQ8"])
def test_rows_are_added_to_a_loaded_index(codec: str, tmp_path: Path) -> None:
    rows, queries = clustered(400), clustered(5, 2)
    index = gg.index.Flat(DIM, codec=codec)
    index.add(rows[:301])
    index.save(tmp_path / "flat")
    loaded = gg.index.load(tmp_path / "flat")
    for each in (index, loaded):
        assert each.add(rows[301:]) == range(301, 400)
    for mine, other in zip(index.search(queries), loaded.search(queries), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_vectors_written_to_after_they_were_added_change_nothing(metric: Any) -> None:
    rows, queries = clustered(50), clustered(5, 2)
    index = gg.index.Flat(DIM, metric=metric)
    index.add(rows)
    before = index.search(queries)[0]
    rows[:] = 0
    np.testing.assert_array_equal(index.search(queries)[0], before)


@pytest.mark.parametrize(
    ("codec", "least"), [("LVQ4", 0.8), ("LVQ8", 0.95), ("LVQ4x8", 0.95), ("RaBitQ1", 0.2), ("RaBitQ4", 0.8)]
)
def test_queries_much_shorter_than_the_mean_row_find_as_well_as_long_ones(codec: str, least: float) -> None:
    rng = np.random.default_rng(3)
    rows = (5 * rng.standard_normal((2000, DIM)) + 10 * rng.standard_normal(DIM)).astype(np.float32)
    queries = rng.standard_normal((40, DIM)).astype(np.float32)
    index = gg.index.Flat(DIM, metric="dot", codec=codec, keep=None)
    index.add(rows)
    for scale in (1e-3, 1, 1e3):
        found = index.search(scale * queries, 10)[1]
        assert recall(found, truth(rows, queries, "dot", 10)) > least


def test_sq8_tells_rows_apart_that_are_far_from_zero() -> None:
    rng = np.random.default_rng(3)
    rows, queries = ((1000 + rng.random((n, DIM))).astype(np.float32) for n in (2000, 40))
    index = gg.index.Flat(DIM, metric="l2", codec="SQ8")
    index.add(rows)
    scores, found = index.search(queries, 10)
    assert recall(found, truth(rows, queries, "l2", 10)) > 0.95
    exact = -np.square(queries[:, None] - rows[found]).sum(axis=2)
    np.testing.assert_allclose(scores, exact, rtol=0.01)


@pytest.mark.parametrize(
    ("rows", "bytes_of_a_number"),
    [
        (clustered(200), 2),
        (np.ones((200, DIM), np.float32), 2),
        (clustered(200) + 1000, 4),
        (clustered(200) * 1e6, 4),
        (clustered(200) * 1e-9, 4),
    ],
    ids=["around zero", "equal", "far from zero", "large", "small"],
)
def test_vectors_that_float16_does_not_tell_apart_are_kept_as_float32(rows: Array, bytes_of_a_number: int) -> None:
    for index in (gg.index.Flat(DIM, metric="l2", codec="RaBitQ1"), gg.index.IVF(DIM, metric="l2", codec="RaBitQ1")):
        index.add(rows)
        assert index.stats().kept_bytes == rows.size * bytes_of_a_number
        assert index.add(clustered(10) * 100) == range(200, 210)
        assert index.stats().kept_bytes == 210 * DIM * bytes_of_a_number
