"""FSQ, residual and gain-shape quantization: what their scores and errors are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.codecs.kmeans import train_levels
from gingham.codecs.mixed_radix import MixedRadix, share_levels
from gingham.codecs.residual import BEAM, ResidualQuantizer
from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument

Array = np.ndarray[Any, Any]


def decaying(n: int, dim: int, scale: float, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, dim)) * np.exp(-np.arange(dim) / scale / 2) + 0.2).astype(np.float32)


def relative_error(spec: str, sample: Array, held_out: Array) -> float:
    codec = parse_codec(spec, sample.shape[1], "l2").train(sample)
    rest = held_out - codec.decode(codec.encode(held_out))
    return float(np.square(rest).sum() / np.square(held_out - sample.mean(axis=0)).sum())


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("spec", ["FSQ7", "RQ5x8", "GS6x8", "GS40x8"])
@pytest.mark.parametrize("n", [1, 11])
def test_a_score_is_that_of_the_decoded_vector(metric: Any, spec: str, n: int) -> None:
    sample, queries = decaying(900, 40, 12, 0), decaying(n, 40, 12, 1)
    codec = parse_codec(spec, 40, metric).train(sample)
    codes = codec.encode(sample)
    decoded, bias = codec.decode(codes).astype(np.float64), np.arange(n, dtype=np.float32)
    out = np.empty((n, 900), np.float32)
    codec.score(codec.prepare(queries, bias), codes, np.tile(np.arange(900), (n, 1)), out)
    wanted = queries @ decoded.T if metric != "l2" else -np.square(queries[:, None] - decoded).sum(axis=2)
    wanted = wanted + bias[:, None]
    assert np.abs(out - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert codes.arrays["rows"].shape[1] == codec.code_size


def test_fsq_errs_as_published_and_less_than_product_quantization_of_what_decays() -> None:
    sample, held_out = decaying(4000, 128, 15, 2), decaying(1000, 128, 15, 3)
    found = relative_error("FSQ32", sample, held_out)
    assert found < 0.018
    assert found < 0.7 * relative_error("PQ32x8", sample, held_out)
    flat = [
        np.random.default_rng(seed).standard_normal((n, 128)).astype(np.float32) for seed, n in ((4, 4000), (5, 900))
    ]
    assert relative_error("FSQ32", *flat) < 0.125


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_levels_fit_their_bytes_and_greater_variances_have_no_fewer_of_the_first_share(
    variances: list[float], n_bytes: int
) -> None:
    values = np.sort(np.array(variances))[::-1]
    counts, places = share_levels(values, n_bytes)
    for b in range(n_bytes):
        assert np.prod(counts[(places == b) & (counts > 1)].astype(float)) <= 256
    assert counts.min() >= 1
    assert (counts[values == 0] == 1).all()
    if values[0] > 0:
        assert counts[0] > 1


def test_equal_variances_use_nearly_all_bits() -> None:
    for dim, n_bytes in ((100, 32), (128, 32), (40, 40), (64, 7)):
        counts, _ = share_levels(np.ones(dim), n_bytes)
        assert np.log2(counts).sum() > 0.93 * 8 * n_bytes


def test_a_beam_errs_less_than_the_nearest_centroid_of_each_stage() -> None:
    sample, held_out = decaying(3000, 24, 20, 6), decaying(500, 24, 20, 7)
    codec = ResidualQuantizer(24, "dot", 4).train(sample)
    books, rest = codec.arrays()["codebooks"], held_out
    for book in books:
        rest = rest - book[np.square(rest[:, None] - book).sum(axis=2).argmin(axis=1)]
    beam = held_out - codec.decode(codec.encode(held_out))
    assert BEAM > 1
    assert np.square(beam).sum() < np.square(rest).sum()


def test_stages_of_a_residual_quantizer_lower_the_error() -> None:
    sample, held_out = decaying(3000, 24, 20, 8), decaying(500, 24, 20, 9)
    errors = [relative_error(f"RQ{m}x8", sample, held_out) for m in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]


def test_gain_shape_errs_less_than_product_quantization_where_lengths_vary() -> None:
    rng = np.random.default_rng(10)
    lengths = np.exp(rng.standard_normal((5000, 1)))
    rows = (rng.standard_normal((5000, 32)) * lengths).astype(np.float32)
    assert relative_error("GS8x8", rows[:4000], rows[4000:]) < relative_error("PQ12x8", rows[:4000], rows[4000:])


def test_levels_of_a_normal_sample_are_those_of_max() -> None:
    found = train_levels(np.random.default_rng(11).standard_normal(200_000).astype(np.float32), 4, iterations=100)
    np.testing.assert_allclose(found, [-1.510, -0.4528, 0.4528, 1.510], atol=0.02)


@pytest.mark.parametrize("spec", ["FSQ41", "GS41x8", "PQ41x8"])
def test_more_parts_than_dimensions_are_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="expects 1 to 40"):
        parse_codec(spec, 40, "dot")


def test_components_without_variance_are_dropped_and_decode_to_the_mean() -> None:
    rows = np.full((50, 6), 3.0, np.float32)
    codec = MixedRadix(6, "l2", 3).train(rows)
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)), rows)
