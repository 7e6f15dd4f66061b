"""Tokens as a centroid and product codes of what it leaves, in the bare index and by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.codecs.token_products import TokenProducts, token_codec_of
from gingham.errors import Corrupt, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

DIM = 64
RNG = np.random.default_rng(4)
CENTRES = 2 * RNG.standard_normal((40, DIM))
SIZES, ASKED = RNG.integers(1, 16, 400), RNG.integers(4, 9, 20)


def matrices(sizes: Any) -> list[np.ndarray]:
    return [(CENTRES[RNG.integers(0, 40, n)] + RNG.standard_normal((n, DIM))).astype(np.float32) for n in sizes]


GIVEN, QUERIES = matrices(SIZES), matrices(ASKED)


def unit(tokens: np.ndarray) -> np.ndarray:
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


TRUTH = [np.argsort([-(unit(q) @ unit(one).T).max(axis=1).sum() for one in GIVEN], kind="stable")[:10] for q in QUERIES]


def share(rows: np.ndarray) -> float:
    """Of the ten best by floats."""
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, TRUTH, strict=True)]))


def test_more_parts_find_more_of_what_floats_find_and_all_more_than_as_many_bits_a_dimension() -> None:
    found = {}
    for codec in ("PQ16", "PQ32", "PQ64", "Residual2"):
        index = gg.index.LateInteraction(DIM, codec=codec)  # type: ignore[arg-type]
        index.add(GIVEN)
        found[codec] = share(index.search(QUERIES, 10, exact=True)[1])
        assert index.stats().token_bytes == 4 + {"Residual2": 16}.get(codec, int(codec[-2:]) if codec[0] == "P" else 0)
    assert found["PQ16"] > found["Residual2"]
    assert 0.6 < found["PQ16"] < found["PQ32"] < found["PQ64"]
    assert found["PQ64"] > 0.97


def test_a_saved_index_finds_the_same_in_stages_and_grows(tmp_path: Path) -> None:
    index = gg.index.LateInteraction(DIM, codec="PQ16")
    index.add(GIVEN[:250])
    index.delete([4])
    index.save(tmp_path / "index")
    loaded = gg.index.load(tmp_path / "index")
    assert isinstance(loaded, gg.index.LateInteraction)
    assert loaded.stats() == index.stats()
    for one in (index, loaded):
        assert one.add(GIVEN[250:]) == range(250, 400)
    staged = index.search(QUERIES, 10, nprobe=8, candidates=100)
    for a, b in zip(staged, loaded.search(QUERIES, 10, nprobe=8, candidates=100), strict=True):
        np.testing.assert_array_equal(a, b)
    assert share(staged[1]) > 0.5
    assert 4 not in staged[1]


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([16, 32]), st.integers(1, 3), st.integers(1, 300), st.integers(0, 99))
def test_codes_are_the_nearest_centroids_of_the_parts_of_what_the_centroid_leaves(
    parts: int, width: int, n: int, seed: int
) -> None:
    tokens = np.random.default_rng(seed).standard_normal((n, parts * width)).astype(np.float32)
    learned = TokenProducts.train(tokens[: max(1, n // 2)], parts, unit=False, seed=seed)
    ids, codes = learned.encode(tokens)
    left = (tokens - learned.centroids[ids]).reshape(n, parts, 1, width)
    far = np.square(left.transpose(1, 0, 2, 3) - learned.codebooks[:, None]).sum(axis=3)
    chosen = np.take_along_axis(far, codes.T[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen, far.min(axis=2), atol=1e-4)
    np.testing.assert_allclose(
        np.square(tokens - learned.decode(ids, codes)).sum(axis=1), chosen.sum(axis=0), rtol=1e-3, atol=1e-4
    )
    again = token_codec_of(f"PQ{parts}", learned.arrays(), parts * width)
    np.testing.assert_array_equal(again.encode(tokens)[1], codes)


def test_centroids_that_come_later_leave_shorter_residuals_and_old_codes_as_they_are() -> None:
    tokens, other = np.concatenate(GIVEN[:100]), np.concatenate(QUERIES) - 9
    learned = TokenProducts.train(tokens, 16, unit=False)
    more = learned.with_more(other, 20, unit=False)
    ids, codes = learned.encode(tokens)
    np.testing.assert_array_equal(more.decode(ids, codes), learned.decode(ids, codes))
    before, after = (one.lengths(other, one.encode(other)[0]).mean() for one in (learned, more))
    assert after < before / 2


def test_dimensions_that_the_parts_do_not_divide_and_arrays_that_do_not_fit_are_refused() -> None:
    for make in (gg.Tokens, gg.index.LateInteraction):
        with pytest.raises(InvalidArgument, match="a dim that 16 divides, found 24"):
            make(24, codec="PQ16")  # type: ignore[operator]
    with pytest.raises(InvalidArgument, match="16 divides"):
        TokenProducts.train(np.ones((3, 24), np.float32), 16, unit=False)
    good = TokenProducts.train(np.concatenate(GIVEN[:9]), 16, unit=True).arrays()
    assert token_codec_of("PQ16", good, DIM).code_bytes == 16
    for bad in (
        {"centroids": good["centroids"]},
        {**good, "codebooks": good["codebooks"][:8]},
        {**good, "centroids": good["centroids"][:, 1:]},
        {**good, "codebooks": good["codebooks"].astype(np.float64)},
    ):
        with pytest.raises(Corrupt, match="rebuild the index"):
            token_codec_of("PQ16", bad, DIM)
    with pytest.raises(Corrupt, match="PQ32"):
        token_codec_of("PQ32", good, DIM)
