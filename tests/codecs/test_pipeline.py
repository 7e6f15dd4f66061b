"""Transforms and a codec as one codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.codecs import pipeline
from gingham.codecs.spec import parse_codec
from gingham.codecs.transforms import LEARN_QUERIES
from gingham.parallel import get_threads, set_threads

if TYPE_CHECKING:
    from gingham.codecs.protocol import Codec

Array = np.ndarray[Any, Any]
DIM = 48
EXACT = ["Center,F32", "Rotate,F32", "PCA48,F32", "Center,PCA48,Rotate,F32", "LeanVec48,F32"]
every_metric = pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])


def vectors(n: int, metric: str, seed: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, DIM), np.float32) * np.exp(-np.arange(DIM, dtype=np.float32) / 12) + 0.2
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


def exact(queries: Array, rows: Array, metric: str) -> Array:
    if metric == "l2":
        return -np.square(queries[:, None].astype(np.float64) - rows).sum(axis=2)
    return queries.astype(np.float64) @ rows.T


def scored(codec: Codec, rows: Array, queries: Array, bias: Array | None = None) -> Array:
    codes = codec.encode(rows)
    out = np.empty((len(queries), len(rows)), np.float32)
    codec.refine(codec.prepare(queries, bias), codes, np.tile(np.arange(len(rows)), (len(queries), 1)), out)
    return out


@pytest.mark.parametrize("spec", [*EXACT, "Whiten,F32", "Center,Whiten,Rotate,F32"])
@every_metric
def test_exact_transforms_before_floats_score_what_the_metric_says(spec: str, metric: Any) -> None:
    if "Whiten" in spec and metric == "l2":
        pytest.skip("whitening changes distances")
    rows, queries = vectors(300, metric), vectors(5, metric, 9)
    codec = parse_codec(spec, DIM, metric).train(rows, seed=1)
    bias = np.arange(5, dtype=np.float32)
    np.testing.assert_allclose(scored(codec, rows, queries), exact(queries, rows, metric), atol=5e-5)
    np.testing.assert_allclose(scored(codec, rows, queries, bias).T, exact(queries, rows, metric).T + bias, atol=5e-5)
    np.testing.assert_allclose(codec.decode(codec.encode(rows)), rows, atol=1e-5)


@pytest.mark.parametrize("spec", ["PCA24,F32", "Center,PCA24,LVQ8", "LeanVec24,Rotate,SQ8", "PCA30,MRL24,F16"])
@every_metric
def test_scores_are_those_of_the_vectors_that_codes_stand_for(spec: str, metric: Any) -> None:
    rows, queries = vectors(300, metric), vectors(5, metric, 9)
    codec = parse_codec(spec, DIM, metric).train(rows)
    found, truth = scored(codec, rows, queries), exact(queries, codec.decode(codec.encode(rows)), metric)
    np.testing.assert_allclose(found, truth, atol=0.02 * np.abs(truth).max())


def test_a_prefix_under_cosine_scores_the_cosine_of_prefixes_and_pieces_keep_their_metric() -> None:
    rows, queries = vectors(50, "cosine"), vectors(5, "cosine", 9)
    codec = parse_codec("MRL16,F32", DIM, "cosine").train(rows)
    cut, asked = (a[:, :16] / np.linalg.norm(a[:, :16], axis=1, keepdims=True) for a in (rows, queries))
    np.testing.assert_allclose(scored(codec, rows, queries), asked @ cut.T, atol=1e-6)
    assert isinstance(codec, pipeline.Pipeline)
    assert codec.codec.metric == codec.metric == "cosine"
    assert parse_codec("Center,F32", DIM, "cosine").codec.metric == "dot"  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", ["PCA24,LVQ8", "Center,Rotate,RaBitQ4"])
def test_rows_are_transformed_in_blocks_without_changing_a_byte(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries, threads = vectors(333, "l2"), vectors(70, "l2", 2), get_threads()
    once = parse_codec(spec, DIM, "l2").train(rows, queries=queries, seed=4)
    codes = once.encode(rows)
    monkeypatch.setattr(pipeline, "BLOCK_ROWS", 32)
    try:
        set_threads(3)
        again = parse_codec(spec, DIM, "l2").train(rows, queries=queries, seed=4)
    finally:
        set_threads(threads)
    for name, array in again.encode(rows).arrays.items():
        np.testing.assert_array_equal(array, codes.arrays[name])
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(array, once.arrays()[name])


def test_names_of_what_was_learned_say_whose_it_is() -> None:
    codec = parse_codec("Center,MRL40,Rotate,SQ8", DIM, "dot").train(vectors(50, "dot"))
    assert set(codec.arrays()) == {"0.mean", "2.signs", *(f"codec.{name}" for name in codec.codec.arrays())}  # type: ignore[attr-defined]


def test_every_part_draws_from_a_seed_of_its_own() -> None:
    arrays = parse_codec("Rotate,Rotate,F32", DIM, "dot").train(vectors(5, "dot"), seed=1).arrays()
    assert not np.array_equal(arrays["0.signs"], arrays["1.signs"])


def test_queries_to_learn_from_reach_later_transforms_transformed() -> None:
    rows = vectors(500, "dot")
    queries = vectors(LEARN_QUERIES, "dot", 3)[:, ::-1].copy()
    plain = parse_codec("Rotate,LeanVec20,F32", DIM, "dot").train(rows)
    learned = parse_codec("Rotate,LeanVec20,F32", DIM, "dot").train(rows, queries=queries)
    truth = exact(queries[:50], rows, "dot")

    def error(codec: Codec) -> float:
        return float(np.linalg.norm(scored(codec, rows, queries[:50]) - truth))

    assert error(learned) < 0.8 * error(plain)


def test_there_is_a_bound_only_where_no_dimension_is_dropped() -> None:
    rows, queries = vectors(200, "dot"), vectors(4, "dot", 9)
    listed = np.tile(np.arange(200), (4, 1))
    for spec, bounded in (("Center,RaBitQ4", True), ("PCA48,RaBitQ4", True), ("PCA40,RaBitQ4", False)):
        codec = parse_codec(spec, DIM, "dot").train(rows)
        prepared, codes = codec.prepare(queries), codec.encode(rows)
        bound = codec.bound(prepared, codes, listed)
        assert (bound is not None) == (codec.optimistic(prepared) is not None) == bounded
        if bound is not None:
            scores = np.empty(listed.shape, np.float32)
            codec.score(prepared, codes, listed, scores)
            off = np.abs(scores - exact(queries, rows, "dot"))
            assert (off <= bound).mean() > 0.85


def test_no_rows_and_no_queries_are_fine() -> None:
    codec = parse_codec("Center,PCA20,LVQ8", DIM, "dot").train(
        vectors(50, "dot"), queries=np.empty((0, DIM), np.float32)
    )
    assert codec.encode(np.empty((0, DIM), np.float32)).n == 0
    assert codec.decode(codec.encode(np.empty((0, DIM), np.float32))).shape == (0, DIM)
