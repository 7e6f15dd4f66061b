"""Residual quantization: what its scores and errors are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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
@pytest.mark.parametrize("spec", ["RQ5x8", "PQ7x8"])
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


@pytest.mark.parametrize("spec", ["PQ41x8"])
def test_more_parts_than_dimensions_are_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="expects 1 to 40"):
        parse_codec(spec, 40, "dot")
