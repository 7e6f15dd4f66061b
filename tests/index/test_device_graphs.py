"""Rows as a device walks over them, and which walks it has room for."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.codecs import cuda_searches
from gingham.codecs.packed import PackedQueries, PackedRows
from gingham.codecs.spec import parse_codec
from gingham.index.device_copies import Bars, DeviceCopies
from gingham.index.device_graphs import DeviceWalker, device_rows, row_words
from gingham.index.graph import Graph
from gingham.index.graph_search import GraphSearch

if TYPE_CHECKING:
    from gingham.codecs.row_scores import RowScores

DIM = 70


def words_of(coded: RowScores, n: int) -> np.ndarray[Any, Any]:
    held: Any = (ctypes.c_uint8 * (n * coded.stride)).from_address(coded.address)
    return row_words(coded, np.frombuffer(held, np.uint8).reshape(n, coded.stride))


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("spec", ["LVQ4x8", "LVQ8", "RaBitQ2", "RaBitQ3", "RaBitQ7", "SQ8"])
def test_unpacked_rows_have_the_scores_of_packed_ones(spec: str, metric: Any) -> None:
    rng = np.random.default_rng(1)
    rows, queries = rng.standard_normal((9, DIM), np.float32), rng.standard_normal((3, DIM), np.float32)
    codec = parse_codec(spec, DIM, metric).train(rows)
    codes, prepared = codec.encode(rows), codec.prepare(queries)
    listed, expected, found = np.tile(np.arange(9), (3, 1)), *np.empty((2, 3, 9), np.float32)
    codec.score(prepared, codes, listed, expected)
    coded = codec.row_scores(prepared, codes)
    assert coded is not None
    wide, words = device_rows(coded), words_of(coded, 9)
    assert words.shape == (9, wide.stride // 4)
    layout = PackedRows(wide.width, 8, wide.factors)
    layout.score(PackedQueries(wide.queries, wide.parameters), words.view(np.uint8), listed, found)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spec", ["F32", "F16", "BF16"])
def test_floats_of_any_width_are_float32_there(spec: str) -> None:
    rows = np.random.default_rng(2).standard_normal((5, DIM), np.float32)
    codec = parse_codec(spec, DIM, "l2").train(rows)
    codes = codec.encode(rows)
    coded = codec.row_scores(codec.prepare(rows[:1]), codes)
    assert coded is not None
    np.testing.assert_array_equal(words_of(coded, 5).view(np.float32), codec.decode(codes))
    assert device_rows(coded).stride == 4 * DIM


def test_a_walk_that_a_block_has_no_room_for_is_left_to_the_cpu() -> None:
    assert cuda_searches.walk_fits(1024, 32, 400)
    assert not cuda_searches.walk_fits(1025, 32, 400)
    assert not cuda_searches.walk_fits(64, 1024, 400)
    assert not cuda_searches.walk_fits(64, 32, 2049)


def test_a_walker_is_asked_for_large_batches_without_a_filter_only() -> None:
    asked: list[int] = []

    class Walker(DeviceWalker):
        def walk(self, coded: RowScores, ef: int) -> None:
            asked.append(len(coded.queries))

    rows = np.random.default_rng(3).standard_normal((6, 8), np.float32)
    codec = parse_codec("LVQ8", 8, "dot").train(rows)
    links = np.array([[j for j in range(6) if j != i] for i in range(6)], np.uint32)
    graph = Graph(links, np.arange(6, dtype=np.uint32), np.full((6, 2), 6, np.uint32), np.array([0, 6]))
    search = GraphSearch(graph, codec, codec.encode(rows))
    allow, hidden = np.ones(6, np.bool_), np.zeros(6, np.int64)
    for name, least in (("cuda", 4), ("auto", 1)):
        copies = DeviceCopies("auto", bars=Bars(walks=least))
        copies._must = name == "cuda"
        walker = Walker(copies.of("graph"), graph)
        for options in ({"allow": allow}, {"hidden": hidden}, {}):
            found = search.run(rows, 2, 5, walker=walker, **options)
            assert (found[1] >= 0).all()
        search.run(rows[:3], 2, 5, walker=walker)
    assert asked == [6, 6]
