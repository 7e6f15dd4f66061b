"""Indexes that go to faiss and come home find the same, with what was trained on either side."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from faiss_rows import DIM, METRICS, ROWS, asked, by_row, clustered, same, theirs
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.errors import InvalidArgument, NotReady

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]


def of_decoded(codec: Any, codes: Any, queries: Array, metric: str) -> Array:
    """Scores of what codes stand for."""
    rows, queries = codec.decode(codes), asked(queries, metric)
    return -np.square(queries[:, None] - rows).sum(axis=2) if metric == "l2" else queries @ rows.T


def lists_of(faiss: Any, index: Any) -> list[set[int]]:
    lists = faiss.extract_index_ivf(index).invlists
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    return [set(faiss.rev_swig_ptr(lists.get_ids(i), n).tolist()) if n else set() for i, n in enumerate(sizes)]


# Flat


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 40), st.sampled_from(METRICS), st.sampled_from(("F32", "F16", "BF16")), st.integers(0, 90), st.data()
)
def test_floats_go_and_come_home(faiss: Any, dim: int, metric: Any, codec: str, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(dim + n)
    rows, queries = rng.standard_normal((n, dim), dtype=np.float32), rng.standard_normal((5, dim), dtype=np.float32)
    ids = data.draw(st.none() | st.lists(st.integers(0, 2**62), min_size=n, max_size=n, unique=True))
    index = gg.index.Flat(dim, metric=metric, codec=codec)
    index.add(rows)
    there = gg.index.to_faiss(index, ids=None if ids is None else np.array(ids, np.int64))
    assert there.ntotal == n
    assert type(there).__name__ == ("IndexFlat" if ids is None else "IndexIDMap2")
    home, labels = gg.index.from_faiss(there, metric=metric)
    np.testing.assert_array_equal(labels, np.arange(n) if ids is None else ids)
    assert home.codec.spec == "F32"
    if n:
        expected = by_row(*index.search(queries, n), n)
        same(by_row(*home.search(queries, n), n), expected)
        found = there.search(asked(queries, metric), n)
        numbers = np.argsort(labels)[np.searchsorted(np.sort(labels), found[1])]
        same(by_row(-found[0] if metric == "l2" else found[0], numbers, n), expected)
        if ids is not None:
            np.testing.assert_allclose(there.reconstruct(ids[0]), home._rows.decoded(slice(0, 1))[0], rtol=0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "codec", ["PQ6x8", "PQ5x8", "PQ3x12", "PQ4x16", "PQ6x4fs", "PQ24x4fs", "OPQ,PQ6x8", "OPQ,PQ5x8", "OPQ,PQ8x4fs"]
)
def test_product_codes_of_flat_indexes_go_and_come_home(faiss: Any, codec: str, metric: Any) -> None:
    rows, queries = clustered(ROWS, 1), clustered(9, 2)
    index = gg.index.Flat(DIM, metric=metric, codec=codec, keep=None)
    index.add(rows[:500])
    index.add(rows[500:])
    there = gg.index.to_faiss(index, ids=np.arange(ROWS) + 7)
    gc.collect()
    expected = of_decoded(index.codec, index._rows.joined()[0], queries, metric)
    found = by_row(*there.search(asked(queries, metric), ROWS), ROWS + 7)[:, 7:]
    same(-found if metric == "l2" else found, expected)
    home, labels = gg.index.from_faiss(there, metric=metric)
    assert isinstance(home, gg.index.Flat)
    np.testing.assert_array_equal(labels, np.arange(ROWS) + 7)
    assert home.codec.spec == codec
    np.testing.assert_array_equal(home.search(queries, 20)[0], index.search(queries, 20)[0])
    for name, array in index._rows.joined()[0].arrays.items():
        np.testing.assert_array_equal(home._rows.joined()[0].arrays[name], array)
    assert home.add(rows[:3]) == range(ROWS, ROWS + 3)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 33), st.data(), st.sampled_from(("dot", "l2")), st.sampled_from((4, 8)), st.booleans())
def test_codebooks_that_faiss_trained_come_home(
    faiss: Any, m: int, data: st.DataObject, metric: Any, bits: int, turned: bool
) -> None:
    dim = m * data.draw(st.integers(2, 3))
    rng = np.random.default_rng(dim)
    rows, queries = rng.standard_normal((300, dim), dtype=np.float32), rng.standard_normal((4, dim), dtype=np.float32)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    peer = faiss.IndexPQ(dim, m, bits, kind)
    peer.pq.cp.min_points_per_centroid, peer.pq.cp.niter = 1, 2
    if turned:
        peer = faiss.IndexPreTransform(faiss.RandomRotationMatrix(dim, dim), peer)
    peer.train(rows)
    empty, none = gg.index.from_faiss(peer)
    peer.add(rows)
    home, labels = gg.index.from_faiss(peer)
    assert home.codec.spec == ("OPQ," if turned else "") + f"PQ{m}x{'4fs' if bits == 4 else 8}"
    assert len(empty) == len(none) == 0
    np.testing.assert_array_equal(labels, np.arange(300))
    assert isinstance(home, gg.index.Flat)
    same(of_decoded(home.codec, home._rows.joined()[0], queries, metric), theirs(peer, queries, metric, 300))
    if bits == 8:
        same(by_row(*home.search(queries, 300), 300), theirs(peer, queries, metric, 300))
    empty.add(rows)
    codes, expected = (next(iter(one._rows.joined()[0].arrays.values())) for one in (empty, home))  # type: ignore[union-attr]
    assert (codes == expected).mean() > 0.97  # but for centroids as near as the rounding of distances


@pytest.mark.parametrize("factory", ["OPQ4_12,PQ4np", "PCA12,PQ4x8np", "OPQ6,PQ6x8np", "PCAR24,PQ3x8np"])
def test_transforms_that_faiss_trained_come_home_in_front_of_codes(faiss: Any, factory: str) -> None:
    rows, queries = clustered(ROWS, 1) + 2, clustered(9, 2) + 2
    peer = faiss.index_factory(DIM, factory)
    quantizer = faiss.downcast_index(peer.index)
    quantizer.pq.cp.min_points_per_centroid, quantizer.pq.cp.niter = 1, 2
    peer.train(rows)
    peer.add(rows)
    home = gg.index.from_faiss(peer)[0]
    assert home.codec.spec.endswith(("PQ4x8", "PQ6x8", "PQ3x8"))
    found, expected = by_row(*home.search(queries, ROWS), ROWS), theirs(peer, queries, "l2", ROWS)
    # What a projection drops of a query counts against all rows alike.
    same(found - found.max(axis=1, keepdims=True), expected - expected.max(axis=1, keepdims=True))


def test_scalar_codes_come_home_as_what_they_stand_for(faiss: Any) -> None:
    rows, queries = clustered(ROWS, 1), clustered(9, 2)
    peer = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    peer.train(rows)
    peer.add(rows)
    home = gg.index.from_faiss(peer)[0]
    same(by_row(*home.search(queries, ROWS), ROWS), theirs(peer, queries, "dot", ROWS))
    coded = gg.index.from_faiss(peer, codec="LVQ8", keep="f32")[0]
    assert coded.stats().codec == "LVQ8"
    assert np.isin(coded.search(queries, 5)[1], home.search(queries, 6)[1]).mean() > 0.95


# Lists


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("codec", ["F32", "PQ6x4fs", "OPQ,PQ5x4fs"])
def test_lists_go_and_come_home(faiss: Any, codec: str, metric: Any) -> None:
    rows, queries = clustered(ROWS, 1), clustered(40, 2)
    index = gg.index.IVF(DIM, metric=metric, codec=codec, keep=None, nlist=10)
    index.add(rows)
    index.delete([3, 699])
    there = gg.index.to_faiss(index, ids=np.arange(ROWS) * 3)
    gc.collect()
    state, lists = index._state, faiss.extract_index_ivf(there)
    assert state.lists is not None
    assert there.ntotal == lists.ntotal == ROWS - 2
    kept = [state.lists.rows[s : s + n] for s, n in zip(state.lists.starts, state.lists.sizes, strict=True)]
    assert lists_of(faiss, there) == [{3 * row for row in some.tolist()} - {9, 2097} for some in kept]
    place = np.empty(ROWS, np.int64)
    place[state.lists.rows[state.lists.rows >= 0]] = np.flatnonzero(state.lists.rows >= 0)
    expected = of_decoded(index.codec, state.lists.codes, queries, metric)[:, place]
    expected[:, [3, 699]] = np.nan
    lists.nprobe = lists.nlist
    same(theirs(there, queries, metric, 3 * ROWS, ROWS)[:, ::3], expected)
    home, labels = gg.index.from_faiss(there, metric=metric)
    assert isinstance(home, gg.index.IVF)
    np.testing.assert_array_equal(labels, 3 * np.delete(np.arange(ROWS), [3, 699]))
    assert home.codec.spec == codec
    assert home._state.calibration is not None
    for nprobe in (1, 3, 10):
        lists.nprobe = nprobe
        there_rows = there.search(asked(queries, metric), 5)[1]
        home_rows = labels[home.search(queries, 5, nprobe=nprobe)[1]]
        least = 0.98 if codec.startswith("F") else 0.6  # sums of bytes change places
        assert np.mean([np.isin(a, b).mean() for a, b in zip(home_rows, there_rows, strict=True)]) >= least
        mine = 3 * index.search(queries, 5, nprobe=nprobe)[1]
        assert np.mean([np.isin(a, b).mean() for a, b in zip(home_rows, mine, strict=True)]) >= 0.98
    assert home.add(rows[:40]) == range(ROWS - 2, ROWS + 38)
    assert home.search(rows[0], 1, nprobe=10)[1].shape == (1, 1)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 150), st.sampled_from(("dot", "l2")), st.data())
def test_lists_that_faiss_made_come_home(
    faiss: Any, dim: int, nlist: int, n: int, metric: Any, data: st.DataObject
) -> None:
    rng = np.random.default_rng(dim + n)
    rows, queries = rng.standard_normal((n, dim), dtype=np.float32), rng.standard_normal((8, dim), dtype=np.float32)
    kind, flat = (
        (faiss.METRIC_L2, faiss.IndexFlatL2) if metric == "l2" else (faiss.METRIC_INNER_PRODUCT, faiss.IndexFlatIP)
    )
    quantizer = flat(dim)
    peer = faiss.IndexIVFFlat(quantizer, dim, nlist, kind)
    peer.cp.min_points_per_centroid = 1
    peer.train(rng.standard_normal((200, dim), dtype=np.float32))
    ids = np.array(data.draw(st.lists(st.integers(-(2**62), 2**62), min_size=n, max_size=n, unique=True)), np.int64)
    if n:
        peer.add_with_ids(rows, ids)
    home, labels = gg.index.from_faiss(peer)
    assert isinstance(home, gg.index.IVF)
    np.testing.assert_array_equal(labels, np.sort(ids))
    np.testing.assert_array_equal(home._state.coarse.centroids, quantizer.reconstruct_n(0, nlist))  # type: ignore[union-attr]
    assert (home.stats().nlist, home.stats().n) == (nlist, n)
    if n:
        order = np.argsort(ids, kind="stable")
        exact = gg.index.Flat(dim, metric=metric)
        exact.add(rows[order])
        same(by_row(*home.search(queries, n, nprobe=nlist), n), by_row(*exact.search(queries, n), n))
        again = gg.index.to_faiss(home)
        assert [len(some) for some in lists_of(faiss, again)] == [len(some) for some in lists_of(faiss, peer)]
    else:
        assert home.add(np.ones((40, dim), np.float32)) == range(40)


@pytest.mark.parametrize(
    "factory",
    [
        "IVF8,PQ6x8np",
        "IVF8,PQ6x4np",
        "IVF8,SQ8",
        "OPQ6,IVF8,PQ6x8np",
        "PCA12,IVF8,Flat",
        "IVF8_HNSW4,Flat",
        "IVF1,PQ6x8np",
    ],
)
def test_residual_codes_come_home_as_what_they_stand_for(faiss: Any, factory: str, tmp_path: Path) -> None:
    rows, queries = clustered(ROWS, 1), clustered(30, 2)
    peer = faiss.index_factory(DIM, factory)
    lists = faiss.extract_index_ivf(peer)
    for part in (lists.cp, *((lists.pq.cp,) if hasattr(lists, "pq") else ())):
        part.min_points_per_centroid = 1
    peer.train(rows)
    peer.add(rows)
    faiss.write_index(peer, str(tmp_path / "index"))
    home, labels = gg.index.from_faiss(tmp_path / "index")
    gc.collect()
    assert home.codec.spec == "F32"
    lists.nprobe = lists.nlist
    found, expected = by_row(*home.search(queries, ROWS, nprobe=8), ROWS), theirs(peer, queries, "l2", ROWS)  # type: ignore[call-arg]
    same(found - found.max(axis=1, keepdims=True), expected - expected.max(axis=1, keepdims=True))
    lists.nprobe = 2
    there_rows = peer.search(queries, 5)[1]
    home_rows = labels[home.search(queries, 5, nprobe=2)[1]]  # type: ignore[call-arg]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(home_rows, there_rows, strict=True)]) >= 0.95


def test_indexes_go_from_their_files(faiss: Any, tmp_path: Path) -> None:
    rows, queries = clustered(300, 1), clustered(9, 2)
    for index in (
        gg.index.Flat(DIM, codec="PQ6x8"), gg.index.IVF(DIM, codec="PQ6x4fs", nlist=4), gg.index.IVF(DIM, codec="F32", nlist=4),
        gg.index.HNSW(DIM, codec="F32"),
    ):  # fmt: skip
        index.add(rows)
        index.save(tmp_path / "index")
        mapped = gg.index.to_faiss(gg.index.load(tmp_path / "index"))  # type: ignore[arg-type]
        for found, expected in zip(mapped.search(queries, 5), gg.index.to_faiss(index).search(queries, 5), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_any_codec_goes_as_vectors(faiss: Any) -> None:
    rows, queries = clustered(ROWS, 1), clustered(9, 2)
    for index in (
        gg.index.Flat(DIM, codec="Binary"),
        gg.index.IVF(DIM, codec="RaBitQ1", soar=True),
        gg.index.HNSW(DIM),
    ):
        index.add(rows)
        with pytest.raises(InvalidArgument, match="vectors=True"):
            gg.index.to_faiss(index)
        there = gg.index.to_faiss(index, vectors=True)
        assert there.ntotal == ROWS
        exact = gg.index.Flat(DIM, codec="F16")
        exact.add(rows)
        found = theirs(there, queries, "cosine", ROWS, 20)
        known = np.isfinite(found)
        np.testing.assert_allclose(found[known], by_row(*exact.search(queries, ROWS), ROWS)[known], rtol=0, atol=1e-3)
        assert gg.index.from_faiss(there, metric="cosine")[0].stats().n == ROWS
    decoded = gg.index.Flat(DIM, metric="dot", codec="RaBitQ1", keep=None)
    decoded.add(rows)
    expected = of_decoded(decoded.codec, decoded._rows.joined()[0], queries, "dot")
    same(theirs(gg.index.to_faiss(decoded, vectors=True), queries, "dot", ROWS), expected)


# Graphs


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 2, 40, 1500])
def test_graphs_go_and_come_home(faiss: Any, n: int, metric: Any) -> None:
    rows, queries = clustered(n, 1), clustered(60, 2)
    index = gg.index.HNSW(DIM, metric=metric, m=6, codec="F32")
    index.add(rows)
    there = gg.index.to_faiss(index, ids=np.arange(n) + 5)
    gc.collect()
    exact = gg.index.Flat(DIM, metric=metric)
    exact.add(rows)
    k = min(10, n)
    truth = exact.search(queries, k)[1]
    home, labels = gg.index.from_faiss(there, metric=metric)
    assert isinstance(home, gg.index.HNSW)
    np.testing.assert_array_equal(labels, np.arange(n) + 5)
    graph = faiss.downcast_index(there.index).hnsw

    def recall(rows: Array) -> float:
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(rows, truth, strict=True)]))

    for ef in (10, 30, 100):
        graph.efSearch = ef
        mine = recall(index.search(queries, k, ef_search=ef)[1])
        assert recall(there.search(asked(queries, metric), k)[1] - 5) >= mine - 0.02
        assert recall(home.search(queries, k, ef_search=ef)[1]) >= mine - 0.02
    assert type(there.index).__name__ == "Index"
    there.add_with_ids(asked(clustered(3, 3), metric), np.arange(3))
    assert there.ntotal == n + 3


def test_graphs_without_rows_go_and_those_with_deleted_ones_do_not(faiss: Any) -> None:
    index = gg.index.HNSW(DIM, codec="F32")
    assert gg.index.to_faiss(index).ntotal == 0
    index.add(clustered(50, 1))
    index.delete([4])
    with pytest.raises(NotReady, match="deleted"):
        gg.index.to_faiss(index)


def test_links_come_home_through_a_transform(faiss: Any) -> None:
    rows, queries = clustered(800, 1), clustered(40, 2)
    peer = faiss.IndexPreTransform(faiss.RandomRotationMatrix(DIM, 30), faiss.IndexHNSWFlat(30, 8))
    peer.train(rows)
    peer.add(rows)
    home = gg.index.from_faiss(peer)[0]
    assert home.codec.dim == DIM
    assert np.isin(home.search(queries, 1)[1], peer.search(queries, 1)[1]).mean() > 0.9
