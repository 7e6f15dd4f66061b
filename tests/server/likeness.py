"""What equal means of an embedded and a served database."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gingham as gg


def same(one: Any, other: Any) -> bool:
    """Equal in type, value and, of arrays, in every bit."""
    if isinstance(one, np.ndarray):
        return type(one) is type(other) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def same_hits(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, gg.BatchHits):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same_hits(a, b)
        return
    assert same(one.ids, other.ids)
    assert same(one.scores, other.scores)
    assert same(one.brought_by, other.brought_by)
    assert one.complete == other.complete
    assert [h.fields for h in one] == [h.fields for h in other]
    assert [name for name, _ in one.explain().root.lines()] == [name for name, _ in other.explain().root.lines()]


def raised(call: Any) -> gg.GinghamError:
    with pytest.raises(gg.GinghamError) as caught:
        call()
    return caught.value
