"""Files of the bare HNSW index: mapped, damaged, of another kind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hnsw_rows import DIM, METRICS, child, clustered, hnsw, same

import gingham as gg
from gingham.errors import (
    ChecksumMismatch,
    Corrupt,
    FormatTooNew,
    NotFound,
)
from gingham.index.container import load_arrays, save_arrays

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("codec", ["F32", "LVQ8", "LVQ4x8", "RaBitQ4", "PCA20,LVQ8"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_index_is_mapped_and_finds_the_same(codec: str, metric: Any, tmp_path: Path) -> None:
    rows, queries = clustered(700), clustered(20, 2)
    index = hnsw(rows[:600], metric=metric, codec=codec, seed=np.uint64(7), m=np.int32(8))
    index.add(rows[600:610])
    index.delete([3, 5])
    index.save(tmp_path / "index")
    again = gg.index.load(tmp_path / "index")
    assert isinstance(again, gg.index.HNSW)
    assert (len(again), again.stats()) == (608, index.stats())
    assert not again._graph.links.flags.writeable  # type: ignore[union-attr]
    allow = np.arange(610) % 2 == 0
    for options in ({}, {"allow": allow}, {"ef_search": 3, "allow": allow}):
        same(again.search(queries, **options), index.search(queries, **options))
    for each in (index, again):
        assert each.add(rows[610:]) == range(610, 700)
        assert each.delete(range(20)) == 18
    same(again.search(queries), index.search(queries))
    again.save(tmp_path / "index")
    same(gg.index.load(tmp_path / "index").search(queries), again.search(queries))


def test_an_index_without_rows_is_saved(tmp_path: Path) -> None:
    trained = gg.index.HNSW(DIM, codec="RaBitQ4").train(clustered(100))
    for index in (gg.index.HNSW(DIM), trained):
        index.save(tmp_path / "index")
        again = gg.index.load(tmp_path / "index")
        assert (again.search(clustered(2), 3)[1] == -1).all()
        assert again.codec.trained == index.codec.trained
        assert again.add(clustered(30)) == range(30)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = hnsw(clustered(60))
    index.save(path)
    expected = index.search(clustered(2))
    whole = path.read_bytes()
    for position in (*range(20), *range(20, len(whole), 997)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with contextlib.suppress(Corrupt, ChecksumMismatch, FormatTooNew):  # what pads may be anything
            same(gg.index.load(path).search(clustered(2)), expected)
    for size in (0, 7, 10, 30, 200, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises((Corrupt, ChecksumMismatch)):
            gg.index.load(path)
    with pytest.raises(NotFound):
        gg.index.load(tmp_path / "nothing")


def test_an_index_of_another_kind_is_too_new(tmp_path: Path) -> None:
    save_arrays(tmp_path / "index", {"kind": "Vamana"}, {})
    with pytest.raises(FormatTooNew, match="Vamana"):
        gg.index.load(tmp_path / "index")


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a.pop("graph.starts"),
        lambda a: a.update({"graph.links": a["graph.links"][:-1]}),
        lambda a: a.update({"graph.links": a["graph.links"].astype(np.int64)}),
        lambda a: a.update({"graph.nodes": a["graph.nodes"] + np.uint32(1 << 20)}),
        lambda a: a.update({"graph.nodes": a["graph.nodes"][:-1]}),
        lambda a: a.update({"graph.starts": np.int64([0])}),
        lambda a: a.update({"graph.starts": np.int64([0, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.starts": np.int64([0, 30, 31, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.starts": np.int64([0, 30, 29, len(a["graph.nodes"])])}),
        lambda a: a.update({"graph.layers": np.repeat(a["graph.layers"], 100, axis=1)}),
    ],
)
def test_graphs_that_do_not_fit_are_corrupt(damage: Any, tmp_path: Path) -> None:
    hnsw(clustered(2000), m=4).save(tmp_path / "index")
    about, arrays = load_arrays(tmp_path / "index")
    damage(arrays)
    save_arrays(tmp_path / "other", about, arrays)
    with pytest.raises(Corrupt, match="rebuild"):
        gg.index.load(tmp_path / "other")


def test_numbers_out_of_range_in_links_crash_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    hnsw(clustered(1500), m=4).save(tmp_path / "index")
    about, arrays = load_arrays(tmp_path / "index")
    links, layers = arrays["graph.links"].copy(), arrays["graph.layers"].copy()
    for array in (links, layers):
        wild = rng.random(array.shape) < 0.3
        array[wild] = rng.integers(0, 1 << 32, int(wild.sum()), np.uint32)
        array[rng.random(array.shape) < 0.1] = len(links)
    save_arrays(tmp_path / "index", about, {**arrays, "graph.links": links, "graph.layers": layers})
    out = child(
        """
        import sys, numpy as np, gingham as gg
        rng = np.random.default_rng(4)
        queries = rng.standard_normal((50, 48))
        index = gg.index.load(sys.argv[1])
        for ef in (1, 10, 1500):
            assert (index.search(queries, ef_search=ef)[1] >= 0).all()
            assert (index.search(queries, ef_search=ef, allow=rng.random(1500) < 0.5)[1] >= 0).all()
        for n in (1, 100, 2000):
            index.add(rng.standard_normal((n, 48)))
            assert (index.search(queries)[1] >= 0).all()
        index.freeze()
        print(index.stats().unreachable)
        """,
        tmp_path / "index",
    )
    assert out == "0\n"
