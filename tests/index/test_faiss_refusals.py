"""What lies on a device comes home from there; what does not fit is one clear error."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from faiss_rows import DIM, by_row, clustered, same, theirs

import gingham as gg
from gingham.errors import Corrupt, InvalidArgument, NotFound, NotReady

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]


# Devices, which the tests have none of


class GpuIndexCagra:
    """What this side asks of one."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows

    def copyTo(self, target: Any) -> None:
        import faiss

        made = faiss.IndexHNSWCagra(self.rows.shape[1], 8, faiss.METRIC_L2)
        made.add(self.rows)
        levels, neighbors = (faiss.vector_to_array(a) for a in (made.hnsw.levels, made.hnsw.neighbors))
        starts = faiss.vector_to_array(made.hnsw.offsets).astype(np.int64)
        for start, end in zip(starts[:-1][levels > 1] + 16, starts[1:][levels > 1], strict=True):
            neighbors[start:end] = -1  # as it leaves the levels above
        faiss.copy_array_to_vector(neighbors, made.hnsw.neighbors)
        for name in ("d", "metric_type", "ntotal", "is_trained", "own_fields", "hnsw", "storage"):
            setattr(target, name, getattr(made, name))
        target.base_level_only = True
        made.own_fields, target.referenced_objects = False, [made]


class GpuIndexIVFFlat:
    pass


def test_graphs_of_a_device_come_home(faiss: Any) -> None:
    rows = clustered(600, 1)
    for call in (gg.index.from_faiss, gg.index.HNSW.from_faiss):
        home, labels = call(GpuIndexCagra(rows))
        assert isinstance(home, gg.index.HNSW)
        assert len(labels) == 600
        assert (home.search(rows[:50], 1, ef_search=64)[1][:, 0] == np.arange(50)).mean() > 0.9


def test_what_lies_on_a_device_is_moved_first(faiss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = faiss.IndexFlatL2(3)
    host.add(np.eye(3, dtype=np.float32))
    monkeypatch.delattr(faiss, "index_gpu_to_cpu", raising=False)
    with pytest.raises(InvalidArgument, match="found GpuIndexIVFFlat"):
        gg.index.from_faiss(GpuIndexIVFFlat())
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda index: host, raising=False)
    assert len(gg.index.from_faiss(GpuIndexIVFFlat())[0]) == 3
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda index: faiss.read_index("nowhere"))
    with pytest.raises(InvalidArgument, match="copies from its device, found GpuIndexIVFFlat"):
        gg.index.from_faiss(GpuIndexIVFFlat())
    assert len(gg.index.from_faiss(host)[0]) == 3


# What does not fit


def test_a_kind_that_cannot_come_home_is_named_with_those_that_can(faiss: Any) -> None:
    refused = [
        faiss.IndexLSH(8, 8), faiss.IndexFlat(8, faiss.METRIC_L1), faiss.IndexBinaryFlat(8), faiss.IndexRefineFlat(faiss.IndexFlatL2(8)),
        faiss.IndexIDMap(faiss.IndexLSH(8, 8)), faiss.index_factory(8, "IVF2,PQ2x4fs"), 3,
    ]  # fmt: skip
    for source in refused:
        with pytest.raises(InvalidArgument, match="IndexIVFFlat") as caught:
            gg.index.from_faiss(source)
        inner = faiss.downcast_index(source.index) if isinstance(source, faiss.IndexIDMap) else source
        assert str(caught.value).endswith(f"found {type(inner).__name__}")
    with pytest.raises(InvalidArgument, match="Flat, IVF or HNSW"):
        gg.index.to_faiss(gg.index.LateInteraction(8))  # type: ignore[arg-type]


def test_what_is_not_trained_is_said_so(faiss: Any) -> None:
    for factory in ("IVF4,Flat", "PQ4x8", "SQ8", "IVF4,PQ4x8", "OPQ4,Flat", "PCA4,IVF4,Flat"):
        with pytest.raises(NotReady, match="trained"):
            gg.index.from_faiss(faiss.index_factory(8, factory))
    for index in (gg.index.IVF(8, codec="F32"), gg.index.Flat(8, codec="PQ4x8"), gg.index.IVF(8, codec="PQ4x4fs")):
        with pytest.raises(NotReady, match="trained"):
            gg.index.to_faiss(index)


def test_transforms_that_change_distances_are_refused(faiss: Any) -> None:
    rows = clustered(300, 1)
    for factory, metric, message in (
        ("PCAW12,Flat", faiss.METRIC_L2, "keep distances"), ("PCA12,Flat", faiss.METRIC_INNER_PRODUCT, "moves the origin"),
        ("L2norm,Flat", faiss.METRIC_L2, "NormalizationTransform"), ("ITQ12,Flat", faiss.METRIC_L2, "ITQTransform"),
    ):  # fmt: skip
        peer = faiss.index_factory(DIM, factory, metric)
        peer.train(rows)
        with pytest.raises(InvalidArgument, match=message):
            gg.index.from_faiss(peer)
    wide = faiss.IndexPreTransform(
        faiss.RandomRotationMatrix(DIM, 32), faiss.IndexScalarQuantizer(32, faiss.ScalarQuantizer.QT_8bit)
    )
    wide.train(rows)
    wide.add(rows)
    with pytest.raises(InvalidArgument, match="24 dimensions"):
        gg.index.from_faiss(wide)


def test_inner_products_are_cosine_only_of_rows_of_length_one(faiss: Any) -> None:
    rows, queries = clustered(200, 1), clustered(9, 2)
    peer = faiss.IndexFlatIP(DIM)
    peer.add(rows)
    with pytest.raises(InvalidArgument, match="length one"):
        gg.index.from_faiss(peer, metric="cosine")
    for metric in ("l2", "manhattan"):
        with pytest.raises(InvalidArgument, match="'dot'"):
            gg.index.from_faiss(peer, metric=metric)  # type: ignore[arg-type]
    normalized = faiss.index_factory(DIM, "L2norm,Flat", faiss.METRIC_INNER_PRODUCT)
    normalized.add(rows)
    home = gg.index.from_faiss(normalized)[0]
    assert home.codec.metric == "cosine"
    same(by_row(*home.search(queries, 200), 200), theirs(normalized, queries, "dot", 200))


def test_arguments_that_do_not_fit_are_one_clear_error(faiss: Any, tmp_path: Path) -> None:
    lists = faiss.index_factory(8, "IVF2,Flat")
    lists.train(clustered(100, 1, 8))
    with pytest.raises(InvalidArgument, match="codec"):
        gg.index.from_faiss(lists, codec="PQ2x8")
    index = gg.index.Flat(8)
    index.add(np.eye(8))
    for ids in (np.arange(7), np.arange(8.0), "a"):
        with pytest.raises(InvalidArgument, match="8 integers"):
            gg.index.to_faiss(index, ids=ids)
    with pytest.raises(NotFound):
        gg.index.from_faiss(tmp_path / "nothing")
    (tmp_path / "wrong").write_bytes(b"wrong" * 50)
    with pytest.raises(Corrupt):
        gg.index.from_faiss(tmp_path / "wrong")
    peer = faiss.IndexPQ(8, 2, 4)
    peer.train(clustered(40, 1, 8))
    with pytest.raises(InvalidArgument, match="keep"):
        gg.index.from_faiss(peer, keep="f16")
    holed = faiss.IndexFlatL2(2)
    holed.add(np.array([[np.nan, 1]], np.float32))
    with pytest.raises(InvalidArgument, match="finite"):
        gg.index.from_faiss(holed)


def test_faiss_is_asked_for_by_its_install_line() -> None:
    code = """
import sys
sys.modules["faiss"] = None
import gingham as gg
for call in (lambda: gg.index.to_faiss(gg.index.Flat(2)), lambda: gg.index.from_faiss(None)):
    try:
        call()
    except gg.GinghamError as error:
        print(type(error).__name__, error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    asked = "needs faiss; run: pip install faiss-cpu, or for an NVIDIA device pip install 'gingham[faiss-gpu]'"
    assert out == f"MissingExtra to_faiss() {asked}\nMissingExtra from_faiss() {asked}\n"
