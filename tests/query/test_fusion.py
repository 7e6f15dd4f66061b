"""Fusing ranked lists: what holds for every way, and the ways by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gingham import DBSF, RRF, MinMax
from gingham.query.fusion import fuse_lists, keep_per_group


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    by=st.sampled_from([RRF(), RRF(k=2.0), MinMax(), DBSF()]),
)
def test_fusion_keeps_its_identities(sizes: list[int], seed: int, by: Any) -> None:
    rng = np.random.default_rng(seed)
    lists = [
        (-np.sort(-rng.standard_normal(n).astype(np.float32)), rng.choice(20, n, replace=False).astype(np.int64))
        for n in sizes
    ]
    scores, rows = fuse_lists(lists, by)
    assert set(rows) == {int(r) for _, mine in lists for r in mine}
    assert np.all(np.diff(scores) <= 0)
    first = type(by)(weights=(1.0, *[0.0] * (len(lists) - 1)))
    again, alone = fuse_lists(lists, first), fuse_lists(lists[:1], first_of(by))
    expected = dict(zip(alone[1].tolist(), alone[0].tolist(), strict=True))
    for score, row in zip(*again, strict=True):
        assert score == pytest.approx(expected.get(int(row), 0.0), abs=1e-6)


def first_of(by: Any) -> Any:
    return type(by)(weights=(1.0,))


def test_fusion_by_hand() -> None:
    lists = [
        (np.array([4, 2, 0], np.float32), np.array([7, 8, 9])),
        (np.array([10, 5], np.float32), np.array([9, 8])),
    ]
    assert dict(zip(*fuse_lists(lists, RRF())[::-1], strict=True)) == pytest.approx(
        {9: 1 / 63 + 1 / 61, 8: 2 / 62, 7: 1 / 61}, rel=1e-6
    )
    assert dict(zip(*fuse_lists(lists, MinMax())[::-1], strict=True)) == pytest.approx({7: 0.5, 8: 0.25, 9: 0.5})
    spread = np.sqrt(12.5)
    expected = {
        7: 0.5 * (0.5 + 2 / 12),
        8: 0.5 * (0.5 + 0.5 - 2.5 / (6 * spread)),
        9: 0.5 * (0.5 - 2 / 12 + 0.5 + 2.5 / (6 * spread)),
    }
    assert dict(zip(*fuse_lists(lists, DBSF())[::-1], strict=True)) == pytest.approx(expected, rel=1e-6)


@given(groups=st.lists(st.integers(0, 4)), per=st.integers(1, 3))
def test_groups_keep_their_first(groups: list[int], per: int) -> None:
    mask = keep_per_group(np.array(groups, np.int64), per)
    assert mask.tolist() == [groups[:n].count(g) < per for n, g in enumerate(groups)]
