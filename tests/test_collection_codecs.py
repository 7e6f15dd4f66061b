"""Codes of a collection's vectors: searched, filtered, merged, damaged, changed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np
import pytest

import gingham as gg
from gingham import recode
from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.storage import codes as stored_codes
from gingham.storage.recode import Recoding

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM, ROWS = 48, 3000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)


def vectors(n: int = ROWS, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, DIM)) * np.exp(-np.arange(DIM) / 30) + 0.1).astype(np.float32)


def filled(db: gg.Database, codec: str | None, metric: Any = "cosine", name: str = "docs") -> gg.Collection:
    docs = db.create_collection(name, fields={"year": gg.Int()}, vectors={"v": gg.Dense(DIM, metric, codec=codec)})
    docs.upsert(ids=list(range(ROWS)), vectors={"v": vectors()}, fields={"year": [i % 100 for i in range(ROWS)]})
    return docs


def recall(docs: gg.Collection, **options: Any) -> float:
    queries = vectors(40, 2)
    found, exact = docs.search(queries, **options), docs.search(queries, **{**options, "exact": True})
    return float(
        np.mean([len(set(f.ids) & set(e.ids)) / max(len(e.ids), 1) for f, e in zip(found, exact, strict=True)])
    )


def uses_codes(docs: gg.Collection) -> bool:
    return "codes" in str(docs.search(vectors(1, 3)[0], k=3).explain())


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("codec", ["LVQ8", "LVQ4x8", "RaBitQ4", "SQ8"])
def test_codes_find_what_vectors_find_with_the_same_scores(db: gg.Database, codec: str, metric: Any) -> None:
    docs = filled(db, codec, metric)
    assert uses_codes(docs)
    assert recall(docs) > 0.97
    query = vectors(1, 3)[0]
    found, exact = docs.search(query, k=5), docs.search(query, k=5, exact=True)
    scores = dict(zip(exact.ids, exact.scores, strict=True))
    assert all(score == scores[i] for i, score in zip(found.ids, found.scores, strict=True) if i in scores)


def test_filters_and_deletes_hold_for_codes(db: gg.Database) -> None:
    docs = filled(db, "RaBitQ4")
    docs.delete(where="year < 20")
    for where in (None, "year < 60", "year = 55"):
        hits = docs.search(vectors(1, 3)[0], k=20, where=where)
        assert len(hits.ids) == 20
        assert all(h["year"] >= 20 for h in hits)
        assert recall(docs, where=where) > 0.95


def test_rows_without_a_vector_take_no_place_among_candidates(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, "l2", codec="LVQ8"), "w": gg.Dense(2)})
    far = vectors() + 5
    rows = [{"id": i, "v": far[i], "w": [1, 0]} if i % 10 == 0 else {"id": i, "w": [1, 0]} for i in range(ROWS)]
    docs.upsert(rows)
    docs.maintain()
    hits = docs.search(np.zeros(DIM), using="v", k=50)
    assert len(hits.ids) == 50
    assert all(i % 10 == 0 for i in hits.ids)
    assert recall(docs, using="v", k=50) > 0.97


def test_merged_segments_have_codes_too(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, codec="LVQ8")})
    rows = vectors(20_000)
    for start in range(0, 20_000, 2500):
        docs.upsert(ids=list(range(start, start + 2500)), vectors={"v": rows[start : start + 2500]})
    docs.maintain()
    assert docs.stats().segments < 8
    assert uses_codes(docs)
    assert recall(docs) > 0.98
    assert not db.verify().damage


def test_few_rows_are_scanned_exactly_and_a_codec_may_need_more_than_there_are(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, codec="LVQ8")})
    docs.upsert(ids=[1, 2, 3], vectors={"v": vectors(3)})
    assert not uses_codes(docs)
    assert docs.search(vectors(3)[1], k=1).ids == [2]


def test_more_candidates_find_more(db: gg.Database) -> None:
    docs = filled(db, "RaBitQ1")
    recalls = [recall(docs, oversample=o) for o in (1, 4, 30)]
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.95
    with pytest.raises(InvalidArgument, match="oversample"):
        docs.search(vectors(1)[0], oversample=0)
    with pytest.raises(InvalidArgument, match="exact"):
        docs.search(vectors(1)[0], exact="yes")
    assert docs.query(gg.near("v", vectors(1, 2)[0], exact=True)).ids == docs.search(vectors(1, 2)[0], exact=True).ids


def test_recoding_switches_compares_and_goes_back(db: gg.Database) -> None:
    docs = filled(db, "LVQ8")
    before = docs.search(vectors(1, 2)[0])
    report = docs.recode("v", "RaBitQ4")
    assert (report.old, report.new, report.switched) == ("LVQ8", "RaBitQ4", True)
    assert report.old_recall > 0.97
    assert "RaBitQ4" in str(docs.search(vectors(1, 2)[0]).explain())
    assert docs.recode("v", "rabitq1", min_recall=0.999).switched is False
    assert docs.schema.dense["v"].codec == "RaBitQ4"
    assert docs.recode("v", None).new_recall == 1.0
    assert not uses_codes(docs)
    docs.recode("v", "LVQ8")
    assert docs.search(vectors(1, 2)[0]).ids == before.ids
    assert not db.verify().damage


def test_recoding_goes_on_beside_writers_and_covers_what_they_write(db: gg.Database) -> None:
    docs = filled(db, "LVQ8")
    stop = threading.Event()

    def write() -> None:
        at = ROWS
        while not stop.is_set():
            docs.upsert(ids=list(range(at, at + 300)), vectors={"v": vectors(300, at)}, fields={"year": [1] * 300})
            at += 300

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for codec in ("RaBitQ4", "LVQ4x8", "RaBitQ2"):
            assert docs.recode("v", codec).switched
    finally:
        stop.set()
        writer.join()
    docs.maintain()
    docs.recode("v", "LVQ4x8")
    detail = str(docs.search(vectors(1, 2)[0]).explain())
    assert "LVQ4x8" in detail
    assert "RaBitQ" not in detail
    assert recall(docs) > 0.97
    assert not db.verify().damage


def test_a_codec_that_does_not_fit_is_refused_at_the_door(db: gg.Database) -> None:
    for codec in ("LVQ9", "Rotate", ""):
        with pytest.raises(InvalidArgument, match="expects"):
            db.create_collection("docs", vectors={"v": gg.Dense(8, codec=codec)})
    with pytest.raises(InvalidArgument, match="codec"):
        gg.Dense(8, codec=8)  # type: ignore[arg-type]
    docs = db.create_collection("docs", vectors={"v": gg.Dense(8)})
    with pytest.raises(InvalidArgument, match="of the form LVQ4, LVQ8"):
        docs.recode("v", "LVQ9")
    with pytest.raises(SchemaMismatch, match="unknown dense vector"):
        docs.recode("w", "LVQ8")
    with pytest.raises(InvalidArgument, match="min_recall"):
        docs.recode("v", "LVQ8", min_recall=2)
    assert docs.recode("v", "LVQ8").switched


def test_damaged_codes_are_reported_and_the_vectors_serve_until_they_are_made_again(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        docs = filled(db, "LVQ8")
        expected = docs.search(vectors(1, 2)[0], exact=True).ids
        with docs._reader.session() as session:
            record = session.collection_by_id(docs._cid)
            segment = session.segment_record(docs._cid, record.segments[0].sid, record.schema_epoch)
            blob = segment.coded["v"].codes["coarse"].blob
            assert blob is not None
    generation = (tmp_path / "db" / "CURRENT").read_text().strip()
    with lmdb.open(str(tmp_path / "db" / generation), max_dbs=16, map_size=1 << 30) as env:
        table = env.open_db(b"blobs")
        with env.begin(write=True, db=table) as txn:
            key = blob.key.to_bytes(8, "big")
            data = bytearray(txn.get(key))
            data[100] ^= 1
            txn.put(key, bytes(data))
    with gg.open(tmp_path / "db") as db:
        assert db.verify().damage
        docs = db["docs"]
        assert docs.search(vectors(1, 2)[0]).ids == expected
        assert not uses_codes(docs)
        docs.maintain()
        assert uses_codes(docs)
        assert not db.verify().damage


def test_numpy_answers_exactly_while_kernels_are_cold(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.index import exact as exact_search
    from gingham.query import near

    docs = filled(db, "RaBitQ2")
    query = vectors(1, 2)[0]
    expected = docs.search(query, exact=True)
    monkeypatch.setattr(near, "all_ready", lambda: False)
    monkeypatch.setattr(exact_search, "ready_kernels", lambda name: None)
    found = docs.search(query)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("when", ["at the commit", "after it"])
def test_an_interrupt_at_the_switch_removes_no_codes_that_are_in_use(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    docs = filled(db, "LVQ8")
    switch = Recoding.switch

    def interrupted(self: Recoding) -> None:
        switch(self)
        raise KeyboardInterrupt

    def interrupted_later(self: Recoding) -> bool:
        raise KeyboardInterrupt

    if when == "at the commit":
        monkeypatch.setattr(Recoding, "switch", interrupted)
    else:
        monkeypatch.setattr(Recoding, "pending", interrupted_later)
    with pytest.raises(KeyboardInterrupt):
        docs.recode("v", "RaBitQ4")
    assert not db.verify().damage
    assert "RaBitQ4" in str(docs.search(vectors(1, 3)[0], k=3).explain())


@pytest.mark.parametrize("again", [False, True])
def test_a_field_dropped_while_it_is_recoded_is_an_error_that_leaves_nothing_behind(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    docs = filled(db, "LVQ8")
    stage = Recoding.stage

    def dropped(self: Recoding) -> None:
        stage(self)
        docs.drop_vector("v")
        if again:
            docs.add_vector("v", gg.Dense(8, codec="LVQ8"))

    monkeypatch.setattr(Recoding, "stage", dropped)
    monkeypatch.setattr(recode, "_compare", lambda *_: (1.0, 1.0))
    with pytest.raises(SchemaMismatch, match="meanwhile"):
        docs.recode("v", "RaBitQ4")
    assert not db.verify().damage
    with db._store.read() as session:
        assert session.txn.stat(session.env.table("staged"))["entries"] == 0


def test_a_recode_of_cold_kernels_compares_codes_and_not_the_exact_search_with_itself(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gingham.index import warmup
    from gingham.query import near

    docs = filled(db, "LVQ8")
    warm = [False]
    monkeypatch.setattr(near, "all_ready", lambda: warm[0])
    monkeypatch.setattr("gingham.recode.warmup", lambda: warm.__setitem__(0, True) or warmup.warmup())
    assert not docs.recode("v", "RaBitQ1", min_recall=0.999).switched


def test_a_collection_that_was_recoded_is_still_the_one_that_is_asked_for(db: gg.Database) -> None:
    docs = filled(db, "LVQ8")
    docs.recode("v", "RaBitQ4")
    again = db.create_collection(
        "docs", fields={"year": gg.Int()}, vectors={"v": gg.Dense(DIM, codec="LVQ8")}, exist_ok=True
    )
    assert again.schema.dense["v"].codec == "RaBitQ4"


def test_any_number_of_candidates_may_be_asked_for(db: gg.Database) -> None:
    docs = filled(db, "RaBitQ1")
    query = vectors(1, 2)[0]
    assert docs.search(query, oversample=1e308).ids == docs.search(query, exact=True).ids
