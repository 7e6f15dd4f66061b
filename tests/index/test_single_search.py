"""One query over lists of blocks finds what it finds among others, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.codecs.nibble_blocks import block_queries

CODECS = ("RaBitQ1", "PQ{parts}x4fs", "OPQ,PQ{parts}x4fs")


def both_ways(index: Any, query: np.ndarray, k: int, **options: Any) -> None:
    """Search alone, and with another query, which goes step by step."""
    alone, together = index.search(query, k, **options), index.search(np.stack([query, -query]), k, **options)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), n=st.integers(1, 900), dim=st.sampled_from([8, 40, 64]), nlist=st.integers(1, 40),
    codec=st.sampled_from(CODECS), metric=st.sampled_from(["cosine", "dot", "l2"]), soar=st.booleans(),
    k=st.integers(1, 40), nprobe=st.integers(1, 50), oversample=st.sampled_from([None, 1, 3.5]),
    allowed=st.sampled_from([1.0, 0.3, 0.0]),
)  # fmt: skip
def test_a_query_alone_finds_the_same_rows(
    seed: int, n: int, dim: int, nlist: int, codec: str, metric: Any, soar: bool, k: int, nprobe: int,
    oversample: float | None, allowed: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), np.float32) + rng.integers(0, 3, (n, 1))
    index = gg.index.IVF(dim, metric=metric, nlist=min(nlist, n), codec=codec.format(parts=dim // 4), soar=soar)
    index.add(rows)
    if n > 20:
        index.delete(np.arange(0, n, 7))
    allow = None if allowed == 1.0 else rng.random(n) < allowed
    both_ways(index, rng.standard_normal(dim, np.float32), k, nprobe=nprobe, oversample=oversample, allow=allow)


@pytest.mark.parametrize("codec", ["RaBitQ1", "PQ16x4fs"])
def test_a_query_alone_is_one_call_of_a_kernel(codec: str) -> None:
    rng = np.random.default_rng(1)
    index = gg.index.IVF(64, codec=codec)
    index.add(rng.standard_normal((2000, 64), np.float32))
    search = index._state.searched
    query = rng.standard_normal((1, 64), np.float32)
    prepared = search.codec.prepare(query)
    assert block_queries(prepared) is not None
    assert search._single is not None
    found = search._single.run(query, prepared, 5, 4, 40, None)
    assert found is not None
    expected = search._searched(np.concatenate([query, -query]), 5, 4, 8, None)
    np.testing.assert_array_equal(found[1][0], expected[1][0])
    few = type(search._single)(search.coarse, search.lists, search._single.vectors, 10)
    assert few.run(query, prepared, 5, 4, 40, None) is None


def test_more_candidates_than_a_kernel_may_score_at_once_go_step_by_step() -> None:
    rng = np.random.default_rng(2)
    index = gg.index.IVF(64, codec="RaBitQ1")
    index.add(rng.standard_normal((500, 64), np.float32))
    search, query = index._state.searched, rng.standard_normal((1, 64), np.float32)
    assert search._single is not None
    assert search._single.run(query, search.codec.prepare(query), 5, 4, (64 << 20) // (4 * 64) + 1, None) is None
