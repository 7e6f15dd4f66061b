"""Boxes of pages: exact spans, a hard limit of tokens, and clusters by place and by what is said."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gingham.errors import EmbedderFailed, InvalidArgument
from gingham.text import layout
from gingham.text.chunk import token_spans
from gingham.text.layout import Box, _clusters, _weights, chunk_layout

WORDS = st.sampled_from(
    ["one two three", "Four. Five six.", "", " ", "東京", "\u0301", "e\u0301", "🇫🇷", "\r\n", "a\nb", "🇩"]
)
BOXES = st.lists(
    st.builds(
        lambda text, x, y, page: Box(text, x, y, x + 10, y + 5, page, 100, 200),
        st.one_of(WORDS, st.text(max_size=12)), st.floats(0, 90), st.floats(0, 190), st.integers(0, 2),
    ),
    max_size=12,
)  # fmt: skip


def lengths(texts: list[str]) -> np.ndarray[Any, Any]:
    """A vector for every text, zeros for some."""
    assert all(text == text.strip() for text in texts)
    return np.array([[len(each) % 3 - 1, sum(map(ord, each)) % 5 - 2] for each in texts], np.float32)


@settings(deadline=None, max_examples=60)
@given(BOXES, st.integers(1, 8))
def test_chunks_join_to_the_text_of_the_boxes_and_none_is_too_large(boxes: list[Box], size: int) -> None:
    text = "\n".join(box.text for box in boxes)
    chunks = chunk_layout(boxes, embed=lengths, size=size, parent="page")
    assert "".join(each.text for each in chunks) == text
    assert all(each.text == text[each.start : each.stop] and each.parent == "page" for each in chunks)
    assert all(one.stop == other.start and other.text for one, other in pairwise(chunks))
    assert all(len(token_spans(each.text)) <= size for each in chunks)
    assert chunk_layout(boxes, embed=lengths, size=size, parent="page") == chunks


def columns(width: float = 1.0, height: float = 1.0) -> list[Box]:
    """Two columns of three boxes of four words."""
    return [
        Box(f"{side} {row} a b", x * width, row / 5 * height, (x + 0.1) * width, (row / 5 + 0.1) * height, 0, width, height)
        for side, x in (("left", 0.05), ("right", 0.85))
        for row in range(3)
    ]  # fmt: skip


def same(texts: list[str]) -> np.ndarray[Any, Any]:
    return np.ones((len(texts), 2))


@pytest.mark.parametrize("scale", [(1, 1), (612, 792), (1e-3, 1e6)])
def test_boxes_that_stand_together_become_a_chunk_whatever_the_unit(scale: tuple[float, float]) -> None:
    chunks = chunk_layout(columns(*scale), embed=same, size=12)
    assert [each.text.split("\n")[0][:5].strip() for each in chunks] == ["left", "right"]


def test_boxes_on_other_pages_are_further_away() -> None:
    boxes = [Box(f"a b c d{i}", 0.4, 0.4, 0.6, 0.6, page=i // 3) for i in range(6)]
    assert [each.text.count("\n") for each in chunk_layout(boxes, embed=same, size=12)] == [3, 2]


def test_boxes_that_say_the_same_become_a_chunk() -> None:
    words = ["ice", "ice", "ice", "ice", "dough", "dough"]
    boxes = [Box(f"{word} a b c", 0.5, i / 10, 0.5, i / 10) for i, word in enumerate(words)]

    def embed(texts: list[str]) -> np.ndarray[Any, Any]:
        return np.eye(2)[[int(text.startswith("dough")) for text in texts]]

    assert [each.text.split("\n")[0] for each in chunk_layout(boxes, embed=embed, size=16)] == [
        "ice a b c",
        "dough a b c",
    ]


def test_weights_are_the_mean_of_nearness_and_cosine() -> None:
    boxes = [
        Box("a", 0, 0, 20, 20, 0, 100, 200),
        Box("b", 30, 0, 50, 20, 0, 100, 200),
        Box("c", 0, 0, 20, 20, 2, 100, 200),
    ]
    vectors = np.array([[1.0, 0], [0.6, 0.8], [-1, 0]])
    found = _weights(boxes, vectors)
    np.testing.assert_allclose(found[0], [0, (1 / 1.3 + 0.6) / 2, (1 / 3 + 0) / 2])
    np.testing.assert_allclose(found, found.T)


def test_clusters_are_the_blocks_of_a_blocked_matrix() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), [5, 9, 7, 12]))
    weights = np.where(labels[:, None] == labels, 0.9, 0.05) + rng.uniform(0, 0.04, (33, 33))
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0)
    found = _clusters(weights, 4, 0)
    assert len(set(zip(found.tolist(), labels.tolist(), strict=True))) == 4


def test_a_large_box_is_cut_between_its_sentences() -> None:
    boxes = [Box("Head", 0, 0, 1, 0), Box("One two three. Four five six. Seven eight.", 0, 0, 1, 1)]
    chunks = chunk_layout(boxes, embed=same, size=7)
    assert [each.text for each in chunks] == ["Head\n", "One two three. ", "Four five six. Seven eight."]


def test_what_fits_is_one_chunk_and_is_not_embedded() -> None:
    def refuse(_: list[str]) -> np.ndarray[Any, Any]:
        raise AssertionError

    assert [each.text for each in chunk_layout(columns(), embed=refuse)] == ["\n".join(box.text for box in columns())]
    assert chunk_layout([], embed=refuse) == []
    assert [each.text for each in chunk_layout([Box("a b c", 0, 0, 1, 1)], embed=refuse, size=2)] == ["a b ", "c"]


def test_many_boxes_are_clustered_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "GROUP_BOXES", 4)
    boxes = columns() * 2
    chunks = chunk_layout(boxes, embed=same, size=12)
    text = "\n".join(box.text for box in boxes)
    assert "".join(each.text for each in chunks) == text
    assert {each.start for each in chunks} >= {len("\n".join(box.text for box in boxes[:at])) + 1 for at in (4, 8)}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Box(b"a", 0, 0, 1, 1), "found bytes; decode"),  # type: ignore[arg-type]
        (lambda: Box("a", float("nan"), 0, 1, 1), r"Box\(left=\) expects a finite number"),
        (lambda: Box("a", 0, 0, 1, "1"), r"Box\(bottom=\) expects a finite number"),  # type: ignore[arg-type]
        (lambda: Box("a", 0, 0, 1, 1, page=-1), r"Box\(page=\) expects"),
        (lambda: Box("a", 0, 0, 1, 1, width=0), "page larger than 0, found 0 by 1"),
        (lambda: chunk_layout(["a"], embed=same), "found str as box 0"),  # type: ignore[list-item]
        (lambda: chunk_layout(5, embed=same), "list of boxes, found int"),  # type: ignore[arg-type]
        (lambda: chunk_layout([], embed=same, size=0), "size= expects"),
        (lambda: Box("a", 0, 0, 1e308, 0, width=1e-9), "in the unit of its page, found 0 to 1e\\+308"),
        (lambda: Box("a", 0, 0, 1, 1, page=10**400), r"Box\(page=\) expects"),
        (lambda: chunk_layout(columns(), embed=same, size=12, seed=-1), r"seed=\) expects"),
        (lambda: chunk_layout(columns(), embed=None, size=12), "embed= expects a function"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_box_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        made()


def test_boxes_beyond_all_measure_are_clustered_too() -> None:
    boxes = [Box("a b c d", at, at, at, at) for at in (-1e308, 1e308, 0.0, 1e200, 0.0)]
    chunks = chunk_layout(boxes, embed=lambda texts: np.zeros((len(texts), 2)), size=9)
    assert "".join(each.text for each in chunks) == "\n".join(box.text for box in boxes)


@pytest.mark.parametrize("vectors", [np.ones((5, 2)), np.full((6, 2), np.nan), np.ones(6), [[1]] * 5 + [[1, 2]]])
def test_vectors_that_do_not_fit_the_boxes_are_refused(vectors: Any) -> None:
    with pytest.raises(EmbedderFailed, match="each of 6 boxes"):
        chunk_layout(columns(), embed=lambda _: vectors, size=12)
