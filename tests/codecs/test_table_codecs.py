"""What holds for every codec that is scored by tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.codecs.product import ProductQuantizer
from gingham.codecs.protocol import Codes
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.protocol import Codec

Array = np.ndarray[Any, Any]
DIM, ROWS = 40, 600
MAKERS: dict[str, Callable[[int, Any], Any]] = {
    "PQ8x8": lambda dim, metric: ProductQuantizer(dim, metric, 8),
    "PQ13x8": lambda dim, metric: ProductQuantizer(dim, metric, 13),
    "PQ7x12": lambda dim, metric: ProductQuantizer(dim, metric, 7, 12),
    "PQ5x16": lambda dim, metric: ProductQuantizer(dim, metric, 5, 16),
    "PQ10x8n": lambda dim, metric: ProductQuantizer(dim, metric, 10, norm_split=True),
}
CASES = [
    (spec, metric) for spec in MAKERS for metric in ("dot", "cosine", "l2") if not (spec[-1] == "n" and metric == "l2")
]
every_case = pytest.mark.parametrize(("spec", "metric"), CASES)
_kept: dict[tuple[str, str], tuple[Any, Codes, Array]] = {}


def vectors(n: int, metric: str, seed: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, DIM), np.float32) * np.exp(-np.arange(DIM, dtype=np.float32) / 20) + 0.1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


def trained(spec: str, metric: str) -> tuple[Codec, Codes, Array]:
    if (spec, metric) not in _kept:
        rows = vectors(ROWS, metric)
        codec = MAKERS[spec](DIM, metric).train(rows, seed=3)
        _kept[spec, metric] = codec, codec.encode(rows), vectors(6, metric, 9)
    return _kept[spec, metric]


def scanned(codec: Codec, codes: Codes, queries: Array, k: int, allow: Array | None = None) -> tuple[Array, Array]:
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
    codec.scan(codec.prepare(queries), codes, 0, codes.n, 0 if allow is None else allow.ctypes.data, scores, rows)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def scored(codec: Codec, codes: Codes, queries: Array, bias: Array | None = None) -> Array:
    out = np.empty((len(queries), codes.n), np.float32)
    codec.refine(codec.prepare(queries, bias), codes, np.tile(np.arange(codes.n), (len(queries), 1)), out)
    return out


def exact(queries: Array, rows: Array, metric: str) -> Array:
    if metric == "l2":
        return -np.square(queries[:, None].astype(np.float64) - rows).sum(axis=2)
    return queries.astype(np.float64) @ rows.T


@every_case
def test_a_scan_finds_the_best_of_listed_scores_bit_for_bit(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    listed = scored(codec, codes, queries)
    order = np.lexsort((np.broadcast_to(np.arange(ROWS), listed.shape), -listed), axis=1)[:, :20]
    scores, rows = scanned(codec, codes, queries, 20)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(listed, order, 1))


@every_case
def test_a_query_scores_the_same_alone_and_in_a_batch(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    for i, row in enumerate(scored(codec, codes, queries)):
        np.testing.assert_array_equal(scored(codec, codes, queries[i : i + 1].copy())[0], row)


@every_case
def test_the_score_of_a_row_is_that_of_its_decoded_vector(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    bias = np.arange(6, dtype=np.float32)
    truth = exact(queries, codec.decode(codes), metric)
    size = np.abs(truth).max()
    np.testing.assert_allclose(scored(codec, codes, queries), truth, rtol=1e-4, atol=1e-5 * size)
    np.testing.assert_allclose(scored(codec, codes, queries, bias), truth + bias[:, None], rtol=1e-4, atol=1e-5 * size)


@every_case
def test_decoded_vectors_are_near_the_rows(spec: str, metric: str) -> None:
    codec, codes, _ = trained(spec, metric)
    rows = vectors(ROWS, metric)
    assert np.square(codec.decode(codes) - rows).sum() < 0.35 * np.square(rows - rows.mean(axis=0)).sum()


@every_case
def test_only_allowed_rows_are_found(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    allow = np.random.default_rng(1).random(ROWS) < 0.1
    _, rows = scanned(codec, codes, queries, 90, allow)
    assert allow[rows[rows >= 0]].all()
    assert (rows >= 0).sum() == len(queries) * min(90, allow.sum())


@every_case
def test_a_missing_row_scores_minus_infinity(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    out = np.empty((6, 3), np.float32)
    codec.score(codec.prepare(queries), codes, np.tile([0, -1, ROWS - 1], (6, 1)), out)
    np.testing.assert_array_equal(np.isneginf(out), np.tile([False, True, False], (6, 1)))
    assert codec.bound(codec.prepare(queries), codes, np.zeros((6, 1), np.int64)) is None


@every_case
def test_codes_made_in_parts_and_joined_are_those_made_at_once(spec: str, metric: str) -> None:
    codec, codes, _ = trained(spec, metric)
    rows = vectors(ROWS, metric)
    joined = codec.join([codec.encode(rows[part]) for part in (slice(0, 64), slice(64, 96), slice(96, 600))])
    assert joined.n == codes.n
    for name, array in codes.arrays.items():
        np.testing.assert_array_equal(joined.arrays[name], array)


@every_case
def test_what_was_learned_makes_the_codec_again(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    again = MAKERS[spec](DIM, metric).with_arrays(codec.arrays())
    assert again.spec == codec.spec == spec
    assert again.trained
    assert sum(array.nbytes for array in codes.arrays.values()) == ROWS * again.code_size
    for name, array in again.encode(vectors(ROWS, metric)).arrays.items():
        np.testing.assert_array_equal(array, codes.arrays[name])
    np.testing.assert_array_equal(scored(again, codes, queries), scored(codec, codes, queries))


@every_case
def test_codes_are_read_where_they_lie_read_only(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    moved = {}
    for name, array in codes.arrays.items():
        place = np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:]
        moved[name] = place.view(array.dtype).reshape(array.shape)
    np.testing.assert_array_equal(scored(codec, Codes(codes.n, moved), queries), scored(codec, codes, queries))


@every_case
@pytest.mark.parametrize("case", ["zeros", "constant", "one row", "equal rows", "huge", "tiny", "offset"])
def test_odd_vectors_are_encoded_as_well_as_others(spec: str, metric: str, case: str) -> None:
    if spec == "PQ5x16":
        pytest.skip("the same code as with fewer bits")
    some = vectors(60, metric)
    rows = {
        "zeros": np.zeros_like(some), "constant": np.ones_like(some), "one row": some[:1],
        "equal rows": np.tile(some[:1], (60, 1)), "huge": some * np.float32(1e17), "tiny": some * np.float32(1e-17),
        "offset": some + np.float32(300),
    }[case]  # fmt: skip
    codec = MAKERS[spec](DIM, metric).train(rows, seed=1)
    codes = codec.encode(rows)
    # Fewer rows than centroids: each is its own.
    assert np.abs(codec.decode(codes) - rows).max() <= 0.02 * np.abs(rows).max()
    assert np.isfinite(scored(codec, codes, rows[:3].copy())).all()


@pytest.mark.parametrize("spec", MAKERS)
def test_a_codec_that_has_learned_nothing_says_so(spec: str) -> None:
    codec = MAKERS[spec](DIM, "dot")
    assert not codec.trained
    with pytest.raises(InvalidArgument, match="trained"):
        codec.encode(vectors(3, "dot"))
    with pytest.raises(InvalidArgument, match="trained"):
        codec.arrays()
