"""What holds for every codec and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.codecs.protocol import Codes
from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument
from gingham.index.flat import Flat

if TYPE_CHECKING:
    from gingham.codecs.protocol import Codec

Array = np.ndarray[Any, Any]
DIM, ROWS = 72, 500
SPECS = [
    "F32", "F16", "BF16", "SQ8", "LVQ4", "LVQ8", "LVQ4x4", "LVQ4x8", "LVQ8x4", "LVQ8x8",
    "RaBitQ2", "RaBitQ3", "RaBitQ4", "RaBitQ5", "RaBitQ6", "RaBitQ7", "RaBitQ8",
    "PQ24x8", "PQ25x8", "PQ13x12", "RQ8x8",
    "RaBitQ1", "PQ24x4fs", "PQ36x4fs", "Binary", "ITQ64", "PCA48,LVQ8", "Rotate,SQ8", "OPQ,PQ24x8", "LeanVec48,LVQ8",
    "Center,PQ24x8", "MRL64,RaBitQ4", "PCA60,Rotate,PQ32x4fs",
]  # fmt: skip
every_codec = pytest.mark.parametrize("spec", SPECS)
every_metric = pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])


def vectors(n: int, metric: str, seed: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, DIM), np.float32) * np.exp(-np.arange(DIM, dtype=np.float32) / 40) + 0.1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


def trained(spec: str, metric: Any) -> tuple[Codec, Codes, Array]:
    rows = vectors(ROWS, metric)
    codec = parse_codec(spec, DIM, metric).train(rows, seed=3)
    return codec, codec.encode(rows), vectors(6, metric, 9)


def scanned(codec: Codec, codes: Codes, queries: Array, k: int, allow: Array | None = None) -> tuple[Array, Array]:
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
    codec.scan(codec.prepare(queries), codes, 0, codes.n, 0 if allow is None else allow.ctypes.data, scores, rows)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def scored(codec: Codec, codes: Codes, queries: Array) -> Array:
    out = np.empty((len(queries), codes.n), np.float32)
    codec.score(codec.prepare(queries), codes, np.tile(np.arange(codes.n), (len(queries), 1)), out)
    return out


def exact(queries: Array, rows: Array, metric: str) -> Array:
    if metric == "l2":
        return -np.square(queries[:, None].astype(np.float64) - rows).sum(axis=2)
    return queries.astype(np.float64) @ rows.T


@every_codec
@every_metric
def test_a_scan_finds_the_best_of_listed_scores_bit_for_bit(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    listed = scored(codec, codes, queries)
    order = np.lexsort((np.broadcast_to(np.arange(ROWS), listed.shape), -listed), axis=1)[:, :20]
    scores, rows = scanned(codec, codes, queries, 20)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(listed, order, 1))


@every_codec
@every_metric
def test_a_query_scores_the_same_alone_and_in_a_batch(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    for i, (scores, rows) in enumerate(zip(*scanned(codec, codes, queries, 9), strict=True)):
        alone = scanned(codec, codes, queries[i : i + 1], 9)
        np.testing.assert_array_equal(alone[0][0], scores)
        np.testing.assert_array_equal(alone[1][0], rows)


@every_codec
@every_metric
def test_scores_are_near_those_of_the_vectors_and_of_what_is_decoded(spec: str, metric: str) -> None:
    codec, codes, queries = trained(spec, metric)
    truth = exact(queries, vectors(ROWS, metric), metric)
    found, decoded = scored(codec, codes, queries), exact(queries, codec.decode(codes), metric)
    least = {"Binary": 0.4, "ITQ64": 0.7, "PQ24x4fs": 0.85}.get(spec, 0.9)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > least
    assert np.corrcoef(decoded.ravel(), truth.ravel())[0, 1] > least


@every_codec
def test_only_allowed_rows_are_found(spec: str) -> None:
    codec, codes, queries = trained(spec, "dot")
    allow = np.random.default_rng(1).random(ROWS) < 0.1
    _, rows = scanned(codec, codes, queries, 30, allow)
    assert allow[rows[rows >= 0]].all()
    assert (rows >= 0).sum() == len(queries) * min(30, allow.sum())


@every_codec
def test_codes_made_in_parts_and_joined_are_those_made_at_once(spec: str) -> None:
    codec, codes, _ = trained(spec, "l2")
    rows = vectors(ROWS, "l2")
    joined = codec.join([codec.encode(rows[:64]), codec.encode(rows[64:75]), codec.encode(rows[75:])])
    assert joined.n == ROWS
    for name, array in codes.arrays.items():
        np.testing.assert_array_equal(joined.arrays[name], array)


@every_codec
def test_what_was_learned_makes_the_codec_again(spec: str) -> None:
    codec, codes, queries = trained(spec, "dot")
    again = parse_codec(codec.spec, DIM, "dot").with_arrays(codec.arrays())
    assert again.spec == spec
    assert again.code_size == codec.code_size
    for name, array in again.encode(vectors(ROWS, "dot")).arrays.items():
        np.testing.assert_array_equal(array, codes.arrays[name])
    np.testing.assert_array_equal(scored(again, codes, queries), scored(codec, codes, queries))


@every_codec
def test_codes_are_read_where_they_lie_read_only(spec: str) -> None:
    codec, codes, queries = trained(spec, "dot")
    moved = {}
    for name, array in codes.arrays.items():
        place = np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:]
        moved[name] = place.view(array.dtype).reshape(array.shape)
    np.testing.assert_array_equal(scored(codec, Codes(codes.n, moved), queries), scored(codec, codes, queries))


@every_codec
@every_metric
@pytest.mark.parametrize("case", ["zeros", "constant", "one row", "equal rows", "huge", "tiny", "one dimension"])
def test_odd_vectors_are_found_and_score_numbers(spec: str, metric: Any, case: str) -> None:
    rng = np.random.default_rng(2)
    some = rng.standard_normal((60, DIM)).astype(np.float32)
    rows = {
        "zeros": np.zeros((60, DIM)), "constant": np.tile(some[:, :1], DIM), "one row": some[:1],
        "equal rows": np.tile(some[:1], (60, 1)), "huge": some * np.float32(1e17), "tiny": some * np.float32(1e-17),
        "one dimension": some[:, :1],
    }[case]  # fmt: skip
    if case == "huge" and spec == "F16" and metric != "cosine":
        with pytest.raises(InvalidArgument, match="65504"):
            Flat(rows.shape[1], metric=metric, codec=spec).add(rows)
        return
    try:
        index = Flat(rows.shape[1], metric=metric, codec=spec, keep="f32")
        index.add(rows)
    except InvalidArgument as error:
        assert "expects" in str(error)
        return
    scores, found = index.search(rows[:3], 5)
    assert np.isfinite(scores[found >= 0]).all()
    assert (found >= 0).sum() == min(3, len(rows)) * min(5, len(rows))
