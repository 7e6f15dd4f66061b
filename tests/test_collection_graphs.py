"""Graphs inside a collection: built by maintenance, searched, filtered, merged, damaged, changed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np
import pytest

import gingham as gg
from gingham.errors import InvalidArgument
from gingham.index import graph_search
from gingham.storage import codes as stored_codes
from gingham.storage import recode as coding
from gingham.storage import rewrite, writes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM, ROWS = 48, 6000
EF = 24
"""So few that a filter is applied by walks down to a tenth of the rows."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    monkeypatch.setattr(graph_search, "FILTERED", 1.2)
    monkeypatch.setattr(graph_search, "SCANNED", 1 / 54)


def vectors(n: int = ROWS, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, DIM)) * np.exp(-np.arange(DIM) / 12) + 0.1).astype(np.float32)


def filled(db: gg.Database, *, rows: int = ROWS, name: str = "docs", **options: Any) -> gg.Collection:
    dense = gg.Dense(DIM, **{"index": "HNSW8", **options})
    docs = db.create_collection(name, fields={"year": gg.Int(), "near": gg.Bool()}, vectors={"v": dense})
    given = vectors(rows)
    near = (given[:, 0] > 1).tolist()
    docs.upsert(
        ids=list(range(rows)), vectors={"v": given}, fields={"year": [i % 1000 for i in range(rows)], "near": near}
    )
    docs.maintain()
    return docs


def detail(docs: gg.Collection, **options: Any) -> str:
    return docs.search(vectors(1, 3)[0], **options).explain().root.steps[1].detail


def recall(docs: gg.Collection, k: int = 10, **options: Any) -> float:
    queries = vectors(60, 2)
    exact = {name: value for name, value in options.items() if name != "ef_search"}
    found, truth = docs.search(queries, k=k, **options), docs.search(queries, k=k, exact=True, **exact)
    assert [len(f.ids) for f in found] == [len(t.ids) for t in truth]
    return float(np.mean([len(set(f.ids) & set(t.ids)) / len(t.ids) for f, t in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("options", [{}, {"codec": "RaBitQ4", "dtype": "float16"}], ids=["default", "rabitq, float16"])
def test_a_graph_finds_what_vectors_find_with_the_same_scores(db: gg.Database, metric: Any, options: Any) -> None:
    docs = filled(db, metric=metric, **options)
    assert "graph HNSW8" in detail(docs)
    assert recall(docs) > (0.94 if metric == "dot" else 0.97)
    query = vectors(1, 3)[0]
    found, exact = docs.search(query, k=5), docs.search(query, k=5, exact=True)
    scores = dict(zip(exact.ids, exact.scores, strict=True))
    assert all(score == scores[i] for i, score in zip(found.ids, found.scores, strict=True) if i in scores)


@pytest.mark.parametrize("share", ["year < 500", "year < 100", "year < 10", "year < 1", "near = true", "near = false"])
def test_a_filter_of_any_share_finds_as_many_rows_as_it_allows(db: gg.Database, share: str) -> None:
    docs = filled(db)
    assert recall(docs, where=share, ef_search=EF) > 0.95
    assert recall(docs, where=share, ef_search=EF, k=200) > 0.95


def test_explain_says_how_each_part_is_searched_and_why(db: gg.Database) -> None:
    docs = filled(db)
    assert detail(docs).startswith("graph HNSW8 of LVQ8, ef_search 64, on 'v'")
    assert "ef_search 24, 50.00% of rows allowed: a walk over allowed rows" in detail(
        docs, ef_search=EF, where="year < 500"
    )
    assert "90.00% of rows allowed: what is not allowed is walked through" in detail(docs, where="year < 900")
    assert "1.00% of rows allowed: so few that their codes are scanned" in detail(docs, where="year < 10")
    assert detail(docs, exact=True).startswith("exact")
    assert detail(docs, k=4000).startswith(("codes", "exact"))
    docs.upsert(ids=["new"], vectors={"v": vectors(1, 9)})
    assert ": 1 by graph HNSW8" in detail(docs)
    assert "1 by exact" in detail(docs)


def test_deleted_and_updated_rows_are_found_as_they_are_now(db: gg.Database) -> None:
    docs = filled(db)
    query = vectors(1, 3)[0]
    best = docs.search(query).ids
    docs.delete(ids=best[:5])
    docs.update(ids=best[5:7], vectors={"v": -vectors(2, 4)})
    assert not set(best[:5]) & set(docs.search(query, k=50).ids)
    assert docs.search(query).ids == docs.search(query, exact=True).ids
    assert docs.search(-vectors(2, 4)[0], k=1).ids == [best[5]]
    docs.delete(where="year >= 4")
    assert docs.count() < 30
    assert recall(docs, k=30) == 1


def test_rows_without_a_vector_are_never_found_and_take_no_place(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, "l2", index="HNSW8"), "w": gg.Dense(2)})
    far = vectors() + 5
    rows = [{"id": i, "v": far[i], "w": [1, 0]} if i % 3 == 0 else {"id": i, "w": [1, 0]} for i in range(ROWS)]
    docs.upsert(rows)
    docs.maintain()
    hits = docs.search(np.zeros(DIM), using="v", k=50)
    assert "graph" in hits.explain().root.steps[1].detail
    assert len(hits.ids) == 50
    assert all(i % 3 == 0 for i in hits.ids)
    assert recall(docs, using="v", k=50, ef_search=100) > 0.97
    everything = docs.search(np.zeros(DIM), using="v", k=ROWS)
    assert len(everything.ids) == ROWS // 3
    assert "without a vector" in everything.complete.why


def test_equal_vectors_are_all_found(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(8, "l2", index="HNSW4")})
    docs.upsert(ids=list(range(3000)), vectors={"v": np.ones((3000, 8))})
    docs.maintain()
    hits = docs.search(np.ones(8), k=100, ef_search=10)
    assert len(set(hits.ids)) == 100
    assert len(docs.search(np.zeros(8), k=5).ids) == 5


def test_like_radius_and_ef_search_go_through_the_graph_at_every_door(db: gg.Database) -> None:
    docs = filled(db)
    query = vectors(1, 3)[0]
    best = docs.search(query, k=20, exact=True)
    radius = float(best.scores[9])
    assert docs.search(query, k=20, radius=radius).ids == best.ids[:10]
    assert docs.search(query, k=None, radius=radius).ids == best.ids[:10]
    found = docs.query(gg.near("v", query, ef_search=100))
    assert "ef_search 100" in str(found.explain())
    assert found.ids == best.ids[:10]
    liked = docs.query(gg.like([7]))
    assert "graph" in str(liked.explain())
    assert 7 not in liked.ids
    for bad in (0, -1, 2.5, True, "many", 1 << 21):
        with pytest.raises(InvalidArgument, match=r"search\(ef_search=\)"):
            docs.search(query, ef_search=bad)  # type: ignore[arg-type]


def test_more_candidates_find_more(db: gg.Database) -> None:
    docs = filled(db, codec="LVQ4")
    recalls = [recall(docs, ef_search=ef) for ef in (10, 40, 150)]
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.99
    assert "ef_search 90" in detail(docs, ef_search=20, oversample=9)


@pytest.mark.parametrize("bad", ["HNSW1", "HNSW513", "HNSW08", "IVF0", "IVF65537", "", 16, "HNSW16,LVQ8"])
def test_an_index_that_does_not_parse_is_refused_at_the_door(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"Dense\(index=\) expects 'HNSW2' to 'HNSW512'"):
        gg.Dense(8, index=bad)


def test_an_index_brings_a_codec_and_refuses_one_without_rows(db: gg.Database) -> None:
    assert (gg.Dense(95, index="hnsw").index, gg.Dense(95, index="hnsw").codec) == ("HNSW16", "LVQ8")
    assert gg.Dense(96, index="HNSW32").codec == "LVQ4x8"
    for codec in ("PQ8x8", "OPQ,PQ8x8", "RaBitQ1", "Binary", "PQ8x4fs", "RQ4x8", "ITQ"):
        with pytest.raises(InvalidArgument, match="scores rows one by one"):
            db.create_collection("docs", vectors={"v": gg.Dense(64, index="HNSW8", codec=codec)})
    docs = filled(db, rows=300)
    with pytest.raises(InvalidArgument, match="scores rows one by one"):
        docs.recode("v", "PQ8x8")
    with pytest.raises(InvalidArgument, match="scores rows one by one"):
        docs.add_vector("w", gg.Dense(64, index="HNSW8", codec="Binary"))


def test_a_graph_is_read_after_reopening_and_by_another_process(tmp_path: Path) -> None:
    query = vectors(1, 3)[0]
    with gg.open(tmp_path / "db") as db:
        expected = filled(db).search(query).ids
    code = f"""
        import numpy as np, gingham as gg
        from gingham.storage import codes
        gg.warmup()
        with gg.open({str(tmp_path / "db")!r}, mode="r") as db:
            hits = db["docs"].search(np.array({query.tolist()}, np.float32))
            print(hits.ids == {expected!r}, "graph HNSW8" in str(hits.explain()))
    """
    with gg.open(tmp_path / "db") as db:
        assert db["docs"].search(query).ids == expected
        assert "graph HNSW8" in detail(db["docs"])
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert done.stdout == "True True\n"


def blobs_of(docs: gg.Collection, column: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    with docs._reader.session() as session:
        record = session.collection_by_id(docs._cid)
        segment = session.segment_record(docs._cid, record.segments[0].sid, record.schema_epoch)
        return {name: array.blob for name, array in column(segment.coded["v"]).items()}


def overwrite(path: Path, blob: Any, at: int, data: bytes) -> None:
    generation = (path / "CURRENT").read_text().strip()
    with lmdb.open(str(path / generation), max_dbs=16, map_size=1 << 30) as env:
        table = env.open_db(b"blobs")
        with env.begin(write=True, db=table) as txn:
            key = blob.key.to_bytes(8, "big")
            whole = bytearray(txn.get(key))
            whole[at : at + len(data)] = data
            txn.put(key, bytes(whole))


@pytest.mark.parametrize("array", ["links", "nodes", "layers", "starts"])
def test_a_damaged_graph_is_reported_put_aside_and_built_again(
    tmp_path: Path, array: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, query = tmp_path / "db", vectors(1, 3)[0]
    with gg.open(path) as db:
        docs = filled(db)
        expected = docs.search(query, exact=True).ids
        blob = blobs_of(docs, lambda coded: coded.graph.arrays)[array]
    overwrite(path, blob, 0, b"\xff\xff\xff\x7f\x01\x02")
    with gg.open(path) as db:
        docs = db["docs"]
        assert docs.search(query).ids == expected
        assert detail(docs).startswith("codes LVQ8")
        assert "searched without a graph" in caplog.text
        assert [str(one.where) for one in db.verify().damage] == [f"blob {blob.key}"]
        docs.maintain()
        assert "graph HNSW8" in detail(docs)
        assert recall(docs) > 0.97
        assert not db.verify().damage
    caplog.clear()


def test_damaged_codes_under_a_graph_are_made_again_with_the_graph_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "db"
    with gg.open(path) as db:
        docs = filled(db)
        codes, links = (blobs_of(docs, column) for column in (lambda c: c.codes, lambda c: c.graph.arrays))
    overwrite(path, codes["coarse"], 1000, b"damage")
    with gg.open(path) as db:
        docs = db["docs"]
        assert recall(docs) == 1
        assert detail(docs).startswith("exact")
        docs.maintain()
        assert recall(docs) > 0.97
        assert "graph HNSW8" in detail(docs)
        assert blobs_of(docs, lambda coded: coded.graph.arrays) == links
        assert not db.verify().damage
    caplog.clear()


def test_links_out_of_range_do_not_lead_out_of_the_rows(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.storage import segment as segments

    real = segments.read_graph

    def broken(*arguments: Any) -> Any:
        found = real(*arguments)
        links = np.random.default_rng(0).integers(0, 1 << 32, found.graph.links.shape, np.uint32)
        return dataclasses.replace(found, graph=dataclasses.replace(found.graph, links=links))

    monkeypatch.setattr(segments, "read_graph", broken)
    docs = filled(db)
    assert len(docs.search(vectors(1, 3)[0], k=100).ids) == 100


def test_the_stored_graph_has_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2):
        gg.set_threads(threads)
        try:
            with gg.open(tmp_path / str(threads)) as db:
                docs = filled(db)
                everything = blobs_of(docs, lambda coded: {**coded.learned, **coded.codes, **coded.graph.arrays})
                found.append({name: (blob.length, blob.checks) for name, blob in everything.items()})
        finally:
            gg.set_threads(2)
    assert found[0] == found[1]


def test_merged_and_sealed_segments_have_graphs_and_small_ones_are_scanned(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, index="HNSW8")})
    rows = vectors(18_000)
    for start in range(0, 18_000, 2250):
        docs.upsert(ids=list(range(start, start + 2250)), vectors={"v": rows[start : start + 2250]})
    docs.upsert(ids=["tail"], vectors={"v": rows[:1]})
    docs.maintain()
    stats = docs.stats()
    assert stats.segments < 8
    assert stats.unindexed_rows == 1
    vector = stats.vectors["v"]
    assert (vector.index, vector.codec, vector.indexed_rows, vector.unreachable) == ("HNSW8", "LVQ8", 18_000, 0)
    assert (vector.vector_bytes, vector.code_bytes) == (4 * DIM, 60)
    assert 64 < vector.link_bytes < 75
    assert recall(docs) > 0.97
    docs.delete(ids=list(range(0, 18_000, 3)))
    docs.maintain()
    assert docs.stats().dead_rows == 0
    assert docs.stats().vectors["v"].indexed_rows == 12_000
    assert recall(docs) > 0.97
    assert not db.verify().damage


def test_a_graph_that_most_rows_come_from_is_gone_on_with(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.storage import live

    known = []
    build = live.build_graph

    def build_and_tell(dense: Any, rows: int, vectors_of: Any, coded: Any, graph: Any, queries: Any) -> Any:
        known.append(None if graph is None else (len(graph[0]), int(np.count_nonzero(graph[1] < 0))))
        return build(dense, rows, vectors_of, coded, graph, queries)

    monkeypatch.setattr(live, "build_graph", build_and_tell)
    docs = filled(db)
    docs.delete(where="year < 300")
    docs.maintain()
    assert known == [(6000, 1800)]
    docs.upsert(ids=list(range(6000, 8200)), vectors={"v": vectors(2200, 5)})
    docs.maintain()
    assert known[1:] == [(4200, 0)]
    assert docs.stats().segments == 1
    assert docs.stats().vectors["v"].unreachable == 0
    assert recall(docs) > 0.97
    docs.delete(where="year < 800")
    docs.delete(ids=list(range(6000, 7000)))
    docs.maintain()
    assert known[2:] == [None]
    assert recall(docs) > 0.97


def test_rows_that_came_in_many_writes_end_up_in_few_graphs(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "SEAL_ROWS", 400)
    monkeypatch.setattr(writes, "SEAL_ROWS", 400)
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, index="HNSW8")})
    given = vectors()
    for first in range(0, ROWS, 500):
        docs.upsert(ids=list(range(first, first + 500)), vectors={"v": given[first : first + 500]})
    docs.maintain()
    with docs._reader.session() as session:
        sizes = sorted((ref.rows for ref in session.collection_by_id(docs._cid).segments), reverse=True)
    assert all(sum(sizes[at + 1 :]) < size / 8 for at, size in enumerate(sizes[:-1]))
    assert docs.stats().vectors["v"].unindexed_rows == 0
    assert recall(docs) > 0.97


def test_reindexing_switches_compares_and_goes_back(db: gg.Database) -> None:
    docs = filled(db, index=None)
    report = docs.reindex("v", index="HNSW8")
    assert (report.old_index, report.new_index, report.old, report.new) == (None, "HNSW8", None, "LVQ8")
    assert report.new_recall > 0.97
    codes, links = (blobs_of(docs, column) for column in (lambda c: c.codes, lambda c: c.graph.arrays))
    assert docs.reindex("v", index="hnsw12").switched
    assert "graph HNSW12 of LVQ8" in detail(docs)
    assert blobs_of(docs, lambda coded: coded.codes) == codes
    docs.reindex("v", index="HNSW8", codec="SQ8")
    assert blobs_of(docs, lambda coded: coded.graph.arrays).keys() == links.keys()
    assert docs.recode("v", "RaBitQ2", min_recall=0.9999).switched is False
    assert "graph HNSW8 of SQ8" in detail(docs)
    docs.reindex("v", index=None)
    assert detail(docs).startswith("codes SQ8")
    docs.recode("v", None)
    assert detail(docs).startswith("exact")
    assert not db.verify().damage
    with pytest.raises(InvalidArgument, match="found neither"):
        docs.reindex("v")
    with pytest.raises(InvalidArgument, match="HNSW2"):
        docs.reindex("v", index="IVF-8")


def test_reindexing_goes_on_beside_writers_and_maintenance(db: gg.Database) -> None:
    docs = filled(db, index=None, codec="LVQ8")
    stop = threading.Event()

    def write() -> None:
        for at in range(ROWS, 2 * ROWS, 300):
            if not stop.wait(0.02):
                docs.upsert(ids=list(range(at, at + 300)), vectors={"v": vectors(300, at)})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for index in ("HNSW8", None, "HNSW4", "HNSW6"):
            assert docs.reindex("v", index=index).switched
    finally:
        stop.set()
        writer.join()
    docs.maintain()
    assert recall(docs, ef_search=128) > 0.95
    stats = docs.stats().vectors["v"]
    assert stats.index == "HNSW6"
    assert stats.indexed_rows >= ROWS
    assert not db.verify().damage


def test_a_snapshot_keeps_its_graph_while_another_is_built(db: gg.Database) -> None:
    docs = filled(db)
    query = vectors(1, 3)[0]
    with db.snapshot() as snapshot:
        before = snapshot["docs"].search(query)
        docs.reindex("v", index="HNSW4")
        docs.delete(ids=before.ids)
        after = snapshot["docs"].search(query)
        assert after.ids == before.ids
        assert "HNSW8" in str(after.explain())
    assert "HNSW4" in str(docs.search(query).explain())


def test_closing_ends_a_build_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building = threading.Event()
    build = coding.build_graph

    def started(*arguments: Any, **options: Any) -> Any:
        building.set()
        return build(*arguments, **options)

    monkeypatch.setattr(coding, "build_graph", started)
    db = gg.open(tmp_path / "db")
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, index="HNSW32")})
    docs.upsert(ids=list(range(100_000)), vectors={"v": vectors(100_000)})
    docs.maintain(wait=False)
    assert building.wait(10)
    time.sleep(0.3)
    begun = time.monotonic()
    db.close()
    assert time.monotonic() - begun < 1
    with gg.open(tmp_path / "db", mode="r") as db:
        assert db["docs"].stats().vectors["v"].indexed_rows == 0
        assert db["docs"].count() == 100_000
        assert not db.verify().damage


def test_a_small_memory_budget_makes_segments_of_fewer_rows(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db", memory_budget=5 << 18) as db:
        docs = filled(db, rows=20_000)
        stats = docs.stats()
        assert stats.segments > 1
        assert stats.vectors["v"].unindexed_rows == 0
        assert recall(docs) > 0.97


def test_a_codec_that_cannot_be_trained_leaves_the_vectors_and_lets_maintenance_end(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, index="HNSW8"), "w": gg.Dense(4)})
    docs.upsert([{"id": i, "w": [1, 0, 0, i]} for i in range(3000)])
    assert docs.maintain(timeout=20)
    assert docs.search(np.ones(DIM), using="v").ids == []
    assert docs.stats().vectors["v"].indexed_rows == 0


def test_graphs_of_small_segments_wait_until_writes_pause(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(rewrite, "code_segment", lambda *arguments: built.append(arguments) or False)
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, index="HNSW8")})
    docs.upsert(ids=list(range(3000)), vectors={"v": vectors(3000)})
    store, cid = db._store, docs._cid
    assert not rewrite.rewrite(store, cid, lambda: None, quiet=False)
    built.clear()
    rewrite.rewrite(store, cid, lambda: None, quiet=True)
    assert built


def test_numpy_answers_exactly_while_kernels_are_cold(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.index import exact as exact_search
    from gingham.query import near

    docs = filled(db)
    query = vectors(1, 2)[0]
    expected = docs.search(query, exact=True)
    monkeypatch.setattr(near, "all_ready", lambda: False)
    monkeypatch.setattr(exact_search, "ready_kernels", lambda name: None)
    found = docs.search(query)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
