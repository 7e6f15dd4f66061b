"""Product quantization with lengths split off: what it scores, and what the byte buys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from gingham.codecs.protocol import Codes

Array = np.ndarray[Any, Any]
DIM, ROWS = 36, 700
every_spec = pytest.mark.parametrize("spec", ["PQ12x8n", "PQ11x8n", "PQ5x12n", "OPQ,PQ9x8n"])
every_metric = pytest.mark.parametrize("metric", ["dot", "cosine"])


def rows_of(n: int, metric: str, seed: int = 0, spread: float = 0.6) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, DIM)) * np.exp(-np.arange(DIM) / 20)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if metric == "dot":
        rows *= np.exp(spread * rng.standard_normal((n, 1)))
    return rows.astype(np.float32)


def scored(codec: Any, codes: Codes, queries: Array, bias: Array | None = None) -> Array:
    out = np.empty((len(queries), codes.n), np.float32)
    codec.score(codec.prepare(queries, bias), codes, np.tile(np.arange(codes.n), (len(queries), 1)), out)
    return out


@every_spec
@every_metric
@pytest.mark.parametrize("n", [1, 3, 11])
def test_a_scan_finds_the_best_of_listed_scores_which_are_those_of_decoded_vectors(
    spec: str, metric: Any, n: int
) -> None:
    rows, queries, bias = rows_of(ROWS, metric), rows_of(n, metric, 1), np.arange(n, dtype=np.float32)
    codec = parse_codec(spec, DIM, metric).train(rows)
    codes = codec.encode(rows)
    listed = scored(codec, codes, queries, bias)
    wanted = queries.astype(np.float64) @ codec.decode(codes).T + bias[:, None]
    np.testing.assert_allclose(listed, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    scores, found = np.full((n, 20), -np.inf, np.float32), np.full((n, 20), -1)
    codec.scan(codec.prepare(queries, bias), codes, 0, ROWS, 0, scores, found)
    order = np.lexsort((np.broadcast_to(np.arange(ROWS), listed.shape), -listed), axis=1)[:, :20]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(order, axis=1))
    np.testing.assert_array_equal(np.sort(scores, axis=1), np.sort(np.take_along_axis(listed, order, 1), axis=1))
    np.testing.assert_array_equal(scored(codec, codes, queries[:1].copy(), bias[:1].copy()), listed[:1])


@every_spec
def test_parts_join_to_the_whole_and_what_was_learned_makes_the_codec_again(spec: str) -> None:
    rows = rows_of(ROWS, "dot")
    codec = parse_codec(spec, DIM, "dot").train(rows, seed=2)
    codes = codec.encode(rows)
    joined = codec.join([codec.encode(rows[:64]), codec.encode(rows[64:96]), codec.encode(rows[96:])])
    again = parse_codec(codec.spec, DIM, "dot").with_arrays(codec.arrays())
    assert again.spec == spec
    assert codes.nbytes == ROWS * again.code_size
    for other in (joined, again.encode(rows)):
        np.testing.assert_array_equal(other.arrays["rows"], codes.arrays["rows"])


@every_metric
def test_decoded_vectors_have_the_lengths_of_their_originals(metric: Any) -> None:
    rows = rows_of(ROWS, metric)
    codec = parse_codec("PQ12x8n", DIM, metric).train(rows)
    decoded = codec.decode(codec.encode(rows))
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), np.linalg.norm(rows, axis=1), rtol=0.05)


def test_recall_of_inner_products_rises_by_five_points_over_plain_codes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 64)) * np.exp(0.6 * rng.standard_normal((4000, 1)))
    rows, queries = rows.astype(np.float32), rng.standard_normal((100, 64)).astype(np.float32)
    truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    recalls = []
    for spec in ("PQ16x8", "PQ16x8n"):
        codec = parse_codec(spec, 64, "dot").train(rows)
        found = np.argsort(-scored(codec, codec.encode(rows), queries), axis=1)[:, :10]
        recalls.append(np.mean([len(np.intersect1d(f, t)) / 10 for f, t in zip(found, truth, strict=True)]))
    assert recalls[1] > recalls[0] + 0.05


@pytest.mark.parametrize("case", ["zeros", "constant", "one row", "equal rows", "huge", "tiny"])
def test_odd_vectors_come_back(case: str) -> None:
    some = rows_of(60, "dot")
    rows = {
        "zeros": np.zeros_like(some), "constant": np.ones_like(some), "one row": some[:1],
        "equal rows": np.tile(some[:1], (60, 1)), "huge": some * np.float32(1e17), "tiny": some * np.float32(1e-17),
    }[case]  # fmt: skip
    codec = parse_codec("PQ12x8n", DIM, "dot").train(rows)
    codes = codec.encode(rows)
    # Fewer rows than centroids and lengths: each has its own.
    assert np.abs(codec.decode(codes) - rows).max() <= 1e-5 * np.abs(rows).max()
    assert np.isfinite(scored(codec, codes, some[:2].copy())).all()


def test_squared_distances_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"PQ12x8n expects metric 'dot' or 'cosine'.*use PQ12x8$"):
        parse_codec("PQ12x8n", DIM, "l2")
    with pytest.raises(InvalidArgument, match="trained"):
        parse_codec("PQ12x8n", DIM, "dot").encode(rows_of(3, "dot"))
