"""Inverted lists inside a collection: made by maintenance, searched, filtered, merged, damaged, changed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.test_collection_graphs import blobs_of, detail, overwrite, recall, vectors

import gingham as gg
from gingham.errors import InvalidArgument
from gingham.storage import codes as stored_codes

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM, ROWS = 48, 6000
CODECS = ["LVQ8", "RaBitQ1", "PQ12x4fs", "LVQ4x8", "PCA24,SQ8", "F16"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)


def filled(db: gg.Database, *, rows: int = ROWS, name: str = "docs", **options: Any) -> gg.Collection:
    dense = gg.Dense(DIM, **{"index": "IVF64", **options})
    docs = db.create_collection(name, fields={"year": gg.Int()}, vectors={"v": dense})
    docs.upsert(ids=list(range(rows)), vectors={"v": vectors(rows)}, fields={"year": [i % 1000 for i in range(rows)]})
    docs.maintain()
    return docs


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("codec", CODECS)
def test_all_lists_find_what_vectors_find_with_the_same_scores(db: gg.Database, metric: Any, codec: str) -> None:
    docs = filled(db, metric=metric, codec=codec)
    query = vectors(1, 3)[0]
    found, exact = docs.search(query, k=10, nprobe=64, oversample=300), docs.search(query, k=10, exact=True)
    assert f"lists IVF64 of {codec}, nprobe 64 of " in str(found.explain())
    assert found.ids == exact.ids
    assert found.scores.tolist() == exact.scores.tolist()


@pytest.mark.parametrize("where", [None, "year < 300"])
def test_rows_in_two_lists_are_found_once_and_more_of_them_in_as_many_lists(db: gg.Database, where: Any) -> None:
    queries, recalls = vectors(60, 2), []
    for name, index in (("one", "IVF64"), ("two", "IVF64,SOAR")):
        docs = filled(db, name=name, index=index)
        docs.delete(where="year < 100")
        docs.upsert(ids=[20_000], vectors={"v": queries[:1]})
        docs.maintain()
        found = docs.search(queries, where=where, nprobe=3)
        assert all(len(set(hits.ids)) == 10 for hits in found)
        assert f"lists {index} of LVQ8" in detail(docs)
        exact = docs.search(queries, where=where, exact=True)
        recalls.append(np.mean([len(set(f.ids) & set(e.ids)) for f, e in zip(found, exact, strict=True)]))
        assert docs.search(queries, where=where, nprobe=64, oversample=300)[3].ids == exact[3].ids
    assert recalls[1] > recalls[0]
    assert not db.verify().damage


def test_more_lists_find_more(db: gg.Database) -> None:
    docs = filled(db)
    queries = vectors(60, 2)
    exact = docs.search(queries, exact=True)

    def share(**options: Any) -> float:
        found = docs.search(queries, **options)
        assert all(len(hits.ids) == 10 for hits in found)
        return float(np.mean([len(set(f.ids) & set(e.ids)) / 10 for f, e in zip(found, exact, strict=True)]))

    recalls = [share(nprobe=n) for n in (1, 4, 16, 64)]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] > 0.995
    assert share() == recalls[2]
    assert share(nprobe=1000) == recalls[3]


@pytest.mark.parametrize("codec", ["LVQ8", "RaBitQ1"])
@pytest.mark.parametrize("share", ["year < 500", "year < 100", "year < 10", "year < 1"])
def test_a_filter_of_any_share_finds_as_many_rows_as_it_allows(db: gg.Database, share: str, codec: str) -> None:
    docs = filled(db, codec=codec)
    assert recall(docs, where=share) > 0.85
    assert recall(docs, where=share, k=200) > 0.85


def test_explain_says_how_each_part_is_searched_and_why(db: gg.Database) -> None:
    docs = filled(db)
    assert detail(docs).startswith("lists IVF64 of LVQ8, nprobe 16 of ")
    assert "50.00% of rows allowed, 4 k + 64 candidates scored from vectors" in detail(docs, where="year < 500")
    assert "2 k candidates" in detail(docs, oversample=2)
    assert "for a recall of 0.9" in detail(docs, target_recall=0.9)
    assert detail(docs, exact=True).startswith("exact")
    assert detail(docs, where="year < 10").startswith("exact")
    docs.upsert(ids=["new"], vectors={"v": vectors(1, 9)})
    assert ": 1 by lists IVF64" in detail(docs)
    assert "1 by exact" in detail(docs)


def test_deleted_updated_and_new_rows_are_found_as_they_are_now(db: gg.Database) -> None:
    docs = filled(db)
    query = vectors(1, 3)[0]
    best = docs.search(query).ids
    docs.delete(ids=best[:5])
    docs.update(ids=best[5:7], vectors={"v": -vectors(2, 4)})
    assert not set(best[:5]) & set(docs.search(query, k=50).ids)
    assert docs.search(query, nprobe=64).ids == docs.search(query, exact=True).ids
    assert docs.search(-vectors(2, 4)[0], k=1).ids == [best[5]]
    docs.delete(where="year >= 4")
    assert recall(docs, k=docs.count()) == 1


def test_rows_without_a_vector_are_never_found_and_take_no_place(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, "l2", index="IVF"), "w": gg.Dense(2)})
    far = vectors() + 5
    docs.upsert([{"id": i, "v": far[i], "w": [1, 0]} if i % 3 == 0 else {"id": i, "w": [1, 0]} for i in range(ROWS)])
    docs.maintain()
    hits = docs.search(np.zeros(DIM), using="v", k=50)
    assert "lists IVF" in hits.explain().root.steps[1].detail
    assert len(hits.ids) == 50
    assert all(i % 3 == 0 for i in hits.ids)
    everything = docs.search(np.zeros(DIM), using="v", k=ROWS)
    assert len(everything.ids) == ROWS // 3
    assert "without a vector" in everything.complete.why


@pytest.mark.parametrize("target", [0.8, 0.9, 0.97])
def test_a_target_recall_is_met_with_rows_and_with_sample_queries(db: gg.Database, target: float) -> None:
    docs = filled(db, index="IVF", codec="RaBitQ4")
    queries = vectors(200, 2)
    assert docs.recall(queries=queries, target_recall=target).recall == pytest.approx(target, abs=0.04)
    assert docs.calibrate(vectors(300, 8)) == 1
    assert docs.recall(queries=queries, target_recall=target).recall == pytest.approx(target, abs=0.04)


def test_nprobe_goes_through_every_door(db: gg.Database) -> None:
    docs = filled(db)
    query = vectors(1, 3)[0]
    assert "nprobe 3 of" in str(docs.query(gg.near("v", query, nprobe=3)).explain())
    assert docs.recall(nprobe=64, n=20).recall == 1
    best = docs.search(query, k=20, exact=True)
    assert docs.search(query, k=20, radius=float(best.scores[9]), nprobe=64).ids == best.ids[:10]
    assert 7 not in docs.query(gg.like([7])).ids
    for bad in (0, -1, 2.5, True, "many", 1 << 17):
        with pytest.raises(InvalidArgument, match=r"search\(nprobe=\)"):
            docs.search(query, nprobe=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="nprobe= or target_recall="):
        docs.search(query, nprobe=4, target_recall=0.9)


def test_an_index_of_lists_brings_a_codec_and_refuses_one_that_scans_no_lists(db: gg.Database) -> None:
    assert (gg.Dense(96, index="ivf").index, gg.Dense(96, index="IVF").codec) == ("IVF", "LVQ8")
    assert (gg.Dense(8, index="IVF4096").nlist, gg.Dense(8, index="IVF").nlist) == (4096, None)
    twice = gg.Dense(96, index="ivf7,soar")
    assert (twice.index, twice.nlist, twice.soar, gg.Dense(96, index="IVF7").soar) == ("IVF7,SOAR", 7, True, False)
    for index in ("HNSW16,SOAR", "Flat,SOAR", "Flat3", "IVF,", ",SOAR", "IVF0,SOAR"):
        with pytest.raises(InvalidArgument, match="IVF,SOAR"):
            gg.Dense(8, index=index)
    for codec in ("PQ8x8", "OPQ,PQ8x8", "Binary", "RQ4x8", "ITQ"):
        with pytest.raises(InvalidArgument, match="scans lists"):
            db.create_collection("docs", vectors={"v": gg.Dense(64, index="IVF", codec=codec)})


def test_lists_are_read_after_reopening_and_by_another_process(tmp_path: Path) -> None:
    query = vectors(1, 3)[0]
    with gg.open(tmp_path / "db") as db:
        expected = filled(db).search(query).ids
    code = f"""
        import numpy as np, gingham as gg
        gg.warmup()
        with gg.open({str(tmp_path / "db")!r}, mode="r") as db:
            hits = db["docs"].search(np.array({query.tolist()}, np.float32))
            print(hits.ids == {expected!r}, "lists IVF64" in str(hits.explain()))
    """
    with gg.open(tmp_path / "db") as db:
        assert db["docs"].search(query).ids == expected
        assert "lists IVF64" in detail(db["docs"])
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert done.stdout == "True True\n"


@pytest.mark.parametrize("array", ["places", "sizes", "centroids", "codes"])
def test_damaged_lists_are_reported_put_aside_and_made_again(
    tmp_path: Path, array: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, query = tmp_path / "db", vectors(1, 3)[0]
    with gg.open(path) as db:
        docs = filled(db)
        expected = docs.search(query, exact=True).ids
        blob = next(iter(blobs_of(docs, lambda coded: coded.codes).values()))
        if array != "codes":
            blob = blobs_of(docs, lambda coded: coded.lists.arrays)[array]
    overwrite(path, blob, 0, b"\xff\xff\xff\x7f\x01\x02")
    with gg.open(path) as db:
        docs = db["docs"]
        assert docs.search(query).ids == expected
        assert detail(docs).startswith("exact")
        assert "searched without codes" in caplog.text
        assert [str(one.where) for one in db.verify().damage] == [f"blob {blob.key}"]
        docs.maintain()
        assert "lists IVF64" in detail(docs)
        assert not db.verify().damage
    caplog.clear()


def test_stored_lists_have_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2):
        gg.set_threads(threads)
        try:
            with gg.open(tmp_path / str(threads)) as db:
                docs = filled(db)
                everything = blobs_of(docs, lambda coded: {**coded.learned, **coded.codes, **coded.lists.arrays})
                found.append({name: (blob.length, blob.checks) for name, blob in everything.items()})
        finally:
            gg.set_threads(2)
    assert found[0] == found[1]


def test_merged_segments_have_lists_and_centroids_serve_again_while_few_rows_changed(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gingham.storage import live

    known = []
    build = live.build_lists

    def build_and_tell(*arguments: Any) -> Any:
        known.append(None if arguments[4] is None else arguments[4].changes)
        return build(*arguments)

    monkeypatch.setattr(live, "build_lists", build_and_tell)
    docs = filled(db)
    docs.upsert(ids=list(range(ROWS, ROWS + 2100)), vectors={"v": vectors(2100, 5)})
    docs.maintain()
    assert known == [2100]
    docs.delete(ids=list(range(0, ROWS, 3)))
    docs.maintain()
    assert known[1:] == [4100]
    stats = docs.stats()
    vector = stats.vectors["v"]
    assert (stats.segments, stats.dead_rows, stats.unindexed_rows) == (1, 0, 0)
    assert (vector.index, vector.codec, vector.indexed_rows) == ("IVF64", "LVQ8", docs.count())
    assert docs.recall(queries=vectors(60, 2), nprobe=64).recall == 1
    assert docs.recall(queries=vectors(60, 2), nprobe=16).recall > 0.9
    assert not db.verify().damage


def test_reindexing_switches_between_lists_graphs_and_scans(db: gg.Database) -> None:
    docs = filled(db, index=None)
    report = docs.reindex("v", index="ivf")
    assert (report.old_index, report.new_index, report.old, report.new) == (None, "IVF", None, "LVQ8")
    assert report.new_recall > 0.9
    for change, expected in (
        ({"index": "IVF32"}, "lists IVF32 of LVQ8"),
        ({"index": "IVF32,SOAR"}, "lists IVF32,SOAR of LVQ8"),
        ({"codec": "RaBitQ1"}, "lists IVF32,SOAR of RaBitQ1"),
        ({"index": "HNSW8", "codec": "SQ8"}, "graph HNSW8 of SQ8"),
        ({"index": "IVF"}, "lists IVF of SQ8"),
        ({"index": None}, "codes SQ8"),
        ({"index": "IVF"}, "lists IVF of SQ8"),
        ({"index": None, "codec": None}, "exact"),
    ):
        assert docs.reindex("v", **change).switched  # type: ignore[arg-type]
        assert detail(docs).startswith(expected)
        assert docs.recall(queries=vectors(30, 2), nprobe=100).recall > 0.97
        assert not db.verify().damage
