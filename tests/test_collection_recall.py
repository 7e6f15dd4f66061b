"""Target recall in collections: graphs measured while they are built, or with sample queries, and recall measured live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

import gingham as gg
from gingham import near
from gingham.cli import app
from gingham.errors import DimensionMismatch, InvalidArgument, SchemaMismatch
from gingham.index import graph_search
from gingham.storage import codes as stored_codes

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM, ROWS = 32, 8000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    monkeypatch.setattr(graph_search, "SCANNED", 1 / 20)


def vectors(n: int = ROWS, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)


def filled(db: gg.Database, metric: Any = "cosine", **options: Any) -> gg.Collection:
    dense = gg.Dense(DIM, metric, **{"index": "HNSW8", **options})
    docs = db.create_collection("docs", fields={"year": gg.Int()}, vectors={"v": dense})
    docs.upsert(ids=list(range(ROWS)), vectors={"v": vectors()}, fields={"year": [i % 2 for i in range(ROWS)]})
    docs.maintain()
    return docs


def found(docs: gg.Collection, queries: Array, k: int = 10, **options: Any) -> float:
    mine, truth = docs.search(queries, k=k, **options), docs.search(queries, k=k, exact=True)
    return float(np.mean([len(set(a.ids) & set(b.ids)) / k for a, b in zip(mine, truth, strict=True)]))


def effort(docs: gg.Collection, target: float, k: int = 10) -> int:
    detail = docs.search(vectors(1, 9)[0], k=k, target_recall=target).explain().root.steps[1].detail
    assert f"for a recall of {target:g}" in detail
    return int(detail.partition("ef_search ")[2].partition(" ")[0])


def calibration(docs: gg.Collection) -> Any:
    with docs._reader.session() as session:
        record = session.collection_by_id(docs._cid)
        segment = session.segment_record(docs._cid, record.segments[0].sid, record.schema_epoch)
        return segment.coded["v"].graph.calibration


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_target_recall_is_what_queries_like_the_rows_find(db: gg.Database, metric: Any) -> None:
    docs, queries = filled(db, metric), vectors(500, 2)
    for target in (0.8, 0.9, 0.95):
        assert target - 0.02 <= found(docs, queries, target_recall=target) <= target + 0.02
    assert effort(docs, 0.8) < effort(docs, 0.95)


def test_a_target_recall_survives_reopening_and_is_measured_anew_by_a_merge(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        docs = filled(db)
        known, ef = calibration(docs), effort(docs, 0.9)
        assert (known.queries, known.asked) == (384, False)
    with gg.open(tmp_path / "db") as db:
        docs = db["docs"]
        assert effort(docs, 0.9) == ef
        docs.upsert(ids=list(range(ROWS, 2 * ROWS)), vectors={"v": vectors(seed=5)}, fields={"year": [0] * ROWS})
        docs.maintain()
        assert docs.stats().segments == 1
        assert calibration(docs).recalls != known.recalls
        assert 0.88 <= found(docs, vectors(500, 2), target_recall=0.9) <= 0.92


def test_sample_queries_tell_what_harder_queries_need(db: gg.Database) -> None:
    docs = filled(db)
    # Rows lie in all directions; these queries lie where few rows do.
    queries = vectors(800, 3) * np.exp(-np.arange(DIM) / 3, dtype=np.float32)
    queries[:, 0] += 3
    before = found(docs, queries[400:], target_recall=0.95)
    assert docs.calibrate(queries[:400]) == 1
    after = found(docs, queries[400:], target_recall=0.95)
    assert calibration(docs).asked
    assert abs(after - 0.95) <= 0.02
    assert abs(after - 0.95) <= abs(before - 0.95)
    docs.upsert(ids=list(range(ROWS, 2 * ROWS)), vectors={"v": vectors(seed=5)}, fields={"year": [0] * ROWS})
    docs.maintain()
    assert calibration(docs).asked
    assert abs(found(docs, queries[400:], target_recall=0.95) - 0.95) <= 0.02
    docs.reindex("v", codec="LVQ4")
    assert calibration(docs).asked
    docs.reindex("v", index="HNSW12")
    assert calibration(docs).asked
    assert db.verify().ok


def test_sample_queries_have_to_be_vectors_of_the_field(db: gg.Database) -> None:
    docs = filled(db)
    with pytest.raises(DimensionMismatch):
        docs.calibrate(np.zeros((3, DIM + 1)))
    with pytest.raises(InvalidArgument, match="queries"):
        docs.calibrate(np.zeros((0, DIM)))
    with pytest.raises(SchemaMismatch):
        docs.calibrate(np.zeros((3, DIM)), using="nothing")
    assert not calibration(docs).asked


def test_a_collection_without_graphs_has_none_to_measure(db: gg.Database) -> None:
    docs = filled(db, index=None, codec="LVQ8")
    assert docs.calibrate(vectors(20, 2)) == 0
    assert found(docs, vectors(50, 2), target_recall=0.5) > 0.95


@pytest.mark.parametrize("target", [0, 1, -0.5, True, "0.9", float("nan")])
def test_a_target_recall_lies_between_0_and_1(docs: gg.Collection, target: Any) -> None:
    with pytest.raises(InvalidArgument, match="target_recall"):
        docs.search(np.ones(8), target_recall=target)
    with pytest.raises(InvalidArgument, match="target_recall"):
        near("dense", np.ones(8), target_recall=target)
    with pytest.raises(InvalidArgument, match="target_recall"):
        docs.recall(target_recall=target)


def test_a_target_recall_stands_in_place_of_other_efforts(docs: gg.Collection) -> None:
    for other in ({"ef_search": 10}, {"oversample": 2.0}):
        with pytest.raises(InvalidArgument, match="found both"):
            docs.search(np.ones(8), target_recall=0.9, **other)


def test_a_query_tree_takes_a_target_recall(db: gg.Database) -> None:
    docs, query = filled(db), vectors(1, 2)[0]
    tree = docs.query(near("v", query, target_recall=0.9).limit(10))
    assert tree.ids == docs.search(query, target_recall=0.9).ids


def test_recall_compares_searches_with_exact_ones(db: gg.Database) -> None:
    docs, queries = filled(db), vectors(200, 2)
    report = docs.recall(queries=queries, ef_search=20)
    assert report.recall == pytest.approx(found(docs, queries, ef_search=20))
    assert (report.k, report.queries) == (10, 200)
    assert report.low < report.recall < report.high
    assert docs.recall(queries=queries, ef_search=100).recall > report.recall
    assert report.seconds > 0
    assert report.exact_seconds > 0


def test_recall_takes_rows_for_queries_which_are_no_neighbours_of_themselves(db: gg.Database) -> None:
    docs = filled(db)
    report = docs.recall(n=50, ef_search=12)
    assert (report.queries, report.k) == (50, 10)
    assert report == docs.recall(n=50, ef_search=12) or report.recall == docs.recall(n=50, ef_search=12).recall
    assert 0.5 < report.recall < 1
    assert docs.recall(n=20, where="year = 1", k=5).recall > 0.9
    assert docs.recall(n=10, where="year = 7").recall == 1


def test_recall_of_exact_searches_is_whole(docs: gg.Collection) -> None:
    with pytest.raises(InvalidArgument, match="found none"):
        docs.recall()
    docs.upsert(ids=[1, 2], vectors={"dense": np.eye(2, 8)})
    report = docs.recall()
    assert (report.recall, report.high, report.queries) == (1.0, 1.0, 2)
    assert report.low < 0.5


def test_the_command_line_measures_recall_and_takes_a_target(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        filled(db)
    run = CliRunner().invoke(app, ["recall", str(tmp_path / "db"), "-n", "30", "--target-recall", "0.9"])
    assert run.exit_code == 0
    assert run.output.startswith("recall@10 0.")
    vector = str(vectors(1, 2)[0].tolist())
    options = ["--vector", vector, "--target-recall", "0.9", "--explain"]
    run = CliRunner().invoke(app, ["search", "--db", str(tmp_path / "db"), *options])
    assert "for a recall of 0.9" in run.output
