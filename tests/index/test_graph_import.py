"""Indexes of hnswlib and faiss are taken over with their links, and find what they found there."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham.errors import Corrupt, InvalidArgument, MissingExtra, NotFound
from gingham.index import graph_import

Array = np.ndarray[Any, Any]
STORED = Path(__file__).parents[1] / "data" / "hnswlib-l2.gz"
"""Saved by hnswlib 0.8.0: space l2, M 4, ef_construction 40; the vectors and labels below; labels 1000 and 993 deleted."""
VECTORS = np.random.default_rng(11).standard_normal((400, 8)).astype(np.float32)
LABELS = 1000 - 7 * np.arange(400) % 5003
DIM = 32


def clustered(n: int, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, DIM))
    return (centers[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, DIM))).astype(np.float32)


def recall(found: Array, expected: Array) -> float:
    return float(np.mean([len(np.intersect1d(f, e)) / len(e) for f, e in zip(found, expected, strict=True)]))


def truth(rows: Array, queries: Array, metric: Any) -> Array:
    index = gg.index.Flat(rows.shape[1], metric=metric)
    index.add(rows)
    return index.search(queries)[1]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    path.write_bytes(gzip.decompress(STORED.read_bytes()))
    return path


def test_a_file_of_hnswlib_is_taken_over(stored: Path, tmp_path: Path) -> None:
    index, labels = gg.index.HNSW.from_hnswlib(stored, metric="l2", codec="F32")
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(index._rows.decoded(slice(None)), VECTORS)
    stats = index.stats()
    assert (stats.n, stats.deleted, stats.dim, stats.m, stats.ef_construction) == (400, 2, 8, 4, 40)
    assert stats.layers >= 2
    queries = np.random.default_rng(2).standard_normal((30, 8)).astype(np.float32)
    exact = np.square(queries[:, None] - VECTORS[2:]).sum(axis=2).argsort(axis=1)[:, :10] + 2
    found = index.search(queries, 10, ef_search=100)[1]
    assert recall(found, exact) >= 0.95
    assert set(labels[index.search(VECTORS[:5], 400)[1][:, :398]].ravel().tolist()) == set(LABELS[2:].tolist())
    assert index.add(VECTORS[:2]) == range(400, 402)
    assert index.search(VECTORS[0], 1)[1] == 400
    index.save(tmp_path / "saved")
    assert gg.index.load(tmp_path / "saved").search(VECTORS[1], 1)[1] == 401


def test_links_of_level_0_stay_as_they_are(stored: Path) -> None:
    graph = gg.index.HNSW.from_hnswlib(stored, metric="l2")[0]._graph
    assert graph is not None
    data = stored.read_bytes()
    for row in (0, 17, 399):
        start = 96 + row * (4 + 8 * 4 + 8 * 4 + 8)
        count = int.from_bytes(data[start : start + 2], "little")
        assert [u for u in graph.links[row].tolist() if u < 400] == np.frombuffer(
            data, "<u4", count, start + 4
        ).tolist()


def test_layers_begin_with_the_nodes_of_the_layer_above(stored: Path) -> None:
    graph = gg.index.HNSW.from_hnswlib(stored, metric="l2")[0]._graph
    assert graph is not None
    sizes = np.diff(graph.starts).tolist()
    assert sizes == sorted(sizes)
    assert sizes[0] <= 32
    for first, size, below in zip(graph.starts, sizes, graph.starts[1:-1], strict=False):
        np.testing.assert_array_equal(graph.nodes[below : below + size], graph.nodes[first : first + size])
    # Links of a layer are near: nearer than any two of its nodes are by chance.
    last, size = int(graph.starts[-2]), sizes[-1]
    nodes, layer = graph.nodes[last:], graph.layers[last:]
    linked = [np.square(VECTORS[nodes[i]] - VECTORS[nodes[j]]).sum() for i in range(size) for j in layer[i] if j < size]
    assert np.mean(linked) < 0.7 * 2 * 8


def test_files_cut_short_or_damaged_are_corrupt(stored: Path) -> None:
    whole = stored.read_bytes()
    for size in (*range(0, 100, 9), len(whole) // 2, len(whole) - 1, len(whole) - 4, len(whole) - 40):
        stored.write_bytes(whole[:size])
        with pytest.raises(Corrupt, match="hnswlib"):
            gg.index.HNSW.from_hnswlib(stored, metric="l2")
    stored.write_bytes(whole + b"\0\0\0\0")
    with pytest.raises(Corrupt, match="hnswlib"):
        gg.index.HNSW.from_hnswlib(stored, metric="l2")


@pytest.mark.parametrize("value", [0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF])
def test_any_header_is_read_or_corrupt(stored: Path, value: int) -> None:
    whole = stored.read_bytes()
    for place in (*range(0, 48, 8), 48, 56, 64, 72, 88):
        size = 4 if place == 48 else 8
        stored.write_bytes(
            whole[:place] + (value & ((1 << 8 * size) - 1)).to_bytes(size, "little") + whole[place + size :]
        )
        try:
            index = gg.index.HNSW.from_hnswlib(stored, metric="l2")[0]
        except (Corrupt, InvalidArgument):
            continue
        assert index.stats().n in (400, 0)


def test_any_byte_is_read_or_corrupt(stored: Path) -> None:
    whole, rng = stored.read_bytes(), np.random.default_rng(3)
    for _ in range(60):
        wild = bytearray(whole)
        for place in rng.integers(96, len(whole), 5):
            wild[place] = rng.integers(0, 256)
        stored.write_bytes(wild)
        try:
            index = gg.index.HNSW.from_hnswlib(stored, metric="l2")[0]
        except (Corrupt, InvalidArgument):
            continue
        assert (index.search(VECTORS[:3], 3)[1] >= 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({}, InvalidArgument, "does not say"), ({"metric": "ip"}, InvalidArgument, "'cosine', 'dot' or 'l2'"),
     ({"metric": "l2", "dim": 9}, InvalidArgument, "dim"), ({"metric": "l2", "codec": "PQ4x8"}, InvalidArgument, "one by one")],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_clear_error(stored: Path, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        gg.index.HNSW.from_hnswlib(stored, **options)


def test_sources_of_another_kind_are_refused(tmp_path: Path) -> None:
    for call in (gg.index.HNSW.from_hnswlib, gg.index.HNSW.from_faiss):
        with pytest.raises((InvalidArgument, MissingExtra)):
            call(3)
        with pytest.raises((NotFound, InvalidArgument, MissingExtra)):
            call(tmp_path / "nothing")
    with pytest.raises(NotFound):
        gg.index.HNSW.from_hnswlib(tmp_path / "nothing", metric="l2")
    with pytest.raises(Corrupt):
        (tmp_path / "empty").touch()
        gg.index.HNSW.from_hnswlib(tmp_path / "empty", metric="l2")


def test_faiss_is_asked_for_by_its_install_line() -> None:
    code = """
import sys
sys.modules["faiss"] = None
import gingham as gg
try:
    gg.index.HNSW.from_faiss("x")
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == (
        "from_faiss() needs faiss; run: pip install faiss-cpu, or for an NVIDIA device pip install 'gingham[faiss-gpu]'\n"
    )


# Beside the peers


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("m", [4, 16])
def test_an_index_of_hnswlib_finds_what_it_found_there(space: str, m: int, tmp_path: Path) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    rows, queries = clustered(2500), clustered(100, 2)
    peer = hnswlib.Index(space, DIM)
    peer.init_index(5000, M=m, ef_construction=100)
    peer.add_items(rows, np.arange(2500) * 3, num_threads=2)
    metric = {"l2": "l2", "ip": "dot", "cosine": "cosine"}[space]
    exact = 3 * truth(rows, queries, metric)
    index, labels = gg.index.HNSW.from_hnswlib(peer, codec="F32")
    peer.save_index(str(tmp_path / "index"))
    again = gg.index.HNSW.from_hnswlib(tmp_path / "index", metric=metric, dim=DIM, codec="F32")
    np.testing.assert_array_equal(labels, again[1])
    np.testing.assert_array_equal(index.search(queries)[1], again[0].search(queries)[1])
    coded = gg.index.HNSW.from_hnswlib(peer)[0]
    for ef in (10, 20, 50, 100):
        peer.set_ef(ef)
        theirs = recall(peer.knn_query(queries, 10)[0].astype(np.int64), exact)
        assert recall(labels[index.search(queries, ef_search=ef)[1]], exact) >= theirs - 0.01
        assert recall(labels[coded.search(queries, ef_search=ef)[1]], exact) >= theirs - 0.02
    wrong = "l2" if metric != "l2" else "dot"
    with pytest.raises(InvalidArgument, match="that of the index"):
        gg.index.HNSW.from_hnswlib(peer, metric=wrong)  # type: ignore[arg-type]


def test_what_was_deleted_in_hnswlib_is_deleted() -> None:
    hnswlib = pytest.importorskip("hnswlib")
    peer = hnswlib.Index("l2", DIM)
    peer.init_index(300, M=8)
    peer.add_items(clustered(300))
    for label in range(0, 300, 3):
        peer.mark_deleted(label)
    index, labels = gg.index.HNSW.from_hnswlib(peer)
    assert len(index) == 200
    assert (labels[index.search(clustered(20, 2), 10)[1]] % 3 != 0).all()


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_small_indexes_of_hnswlib_are_taken_over(n: int) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    peer = hnswlib.Index("ip", DIM)
    peer.init_index(max(n, 1), M=16)
    if n:
        peer.add_items(clustered(n))
    index, labels = gg.index.HNSW.from_hnswlib(peer)
    assert len(index) == len(labels) == n
    assert sorted(index.search(clustered(1), n + 1)[1][0].tolist()) == [-1, *range(n)]
    assert index.add(clustered(3)) == range(n, n + 3)


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("kind", ["Flat", "SQ"])
def test_an_index_of_faiss_finds_what_it_found_there(metric: Any, kind: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(2)
    rows, queries = clustered(2500), clustered(100, 2)
    given = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    peer = (
        faiss.IndexHNSWFlat(DIM, 16, given) if kind == "Flat"
        else faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 16, given)
    )  # fmt: skip
    peer.train(rows)
    peer.add(rows)
    exact = truth(rows, queries, metric)
    index, labels = gg.index.HNSW.from_faiss(peer, codec="F32")
    np.testing.assert_array_equal(labels, np.arange(2500))
    faiss.write_index(peer, str(tmp_path / "index"))
    again = gg.index.HNSW.from_faiss(tmp_path / "index", codec="F32")[0]
    np.testing.assert_array_equal(index.search(queries)[1], again.search(queries)[1])
    for ef in (10, 20, 50, 100):
        peer.hnsw.efSearch = ef
        assert (
            recall(index.search(queries, ef_search=ef)[1], exact) >= recall(peer.search(queries, 10)[1], exact) - 0.01
        )


def test_numbers_of_an_id_map_are_labels(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    peer = faiss.IndexIDMap(faiss.IndexHNSWFlat(DIM, 8))
    peer.add_with_ids(clustered(100), np.arange(100) * 5 + 2)
    index, labels = gg.index.HNSW.from_faiss(peer)
    np.testing.assert_array_equal(labels, np.arange(100) * 5 + 2)
    assert labels[index.search(clustered(100)[7], 1)[1]] == 37
    faiss.write_index(peer, str(tmp_path / "index"))
    again, read = gg.index.HNSW.from_faiss(tmp_path / "index")
    np.testing.assert_array_equal(read, labels)
    np.testing.assert_array_equal(again.search(clustered(20, 3))[1], index.search(clustered(20, 3))[1])
    assert len(gg.index.HNSW.from_faiss(faiss.IndexHNSWFlat(DIM, 8))[0]) == 0


def test_other_indexes_of_faiss_are_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    for peer in (faiss.IndexFlatL2(8), faiss.IndexHNSWFlat(8, 4, faiss.METRIC_L1)):
        with pytest.raises(InvalidArgument, match="IndexHNSW"):
            gg.index.HNSW.from_faiss(peer)
    (tmp_path / "wrong").write_bytes(b"wrong" * 50)
    with pytest.raises(Corrupt):
        gg.index.HNSW.from_faiss(tmp_path / "wrong")


def test_many_rows_of_the_highest_level_get_a_layer_above() -> None:
    hnswlib = pytest.importorskip("hnswlib")
    rows = clustered(6000)
    peer = hnswlib.Index("l2", DIM)
    peer.init_index(6000, M=120, ef_construction=120)
    peer.add_items(rows)
    index, labels = gg.index.HNSW.from_hnswlib(peer, codec="F32")
    assert index._graph is not None
    assert np.diff(index._graph.starts)[0] <= 32
    exact = truth(rows, clustered(50, 2), "l2")
    assert recall(labels[index.search(clustered(50, 2), ef_search=50)[1]], exact) > 0.95
    assert graph_import.NONE not in index._graph.nodes
