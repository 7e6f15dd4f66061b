"""The public calls, and what each of them refuses."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gingham as gg
from gingham import F, errors
from gingham.types import decode_id, encode_id
from rows import fill

if TYPE_CHECKING:
    from pathlib import Path

ID_VALUES = st.one_of(
    st.text(min_size=1, max_size=40).filter(lambda t: not re.search(r"[\ud800-\udfff]", t)),
    st.integers(-(2**71), 2**71 - 1),
    st.uuids(),
    st.binary(min_size=1, max_size=60),
)


@given(st.lists(ID_VALUES, min_size=2, max_size=2))
def test_ids_come_back_as_what_they_were_and_sort_within_a_kind(pair: list[Any]) -> None:
    a, b = pair
    assert decode_id(encode_id(a)) == a
    assert type(decode_id(encode_id(a))) is type(a)
    if type(a) is type(b) and not isinstance(a, str):
        assert (encode_id(a) < encode_id(b)) == ((a < b) if not isinstance(a, uuid.UUID) else a.bytes < b.bytes)
    assert (encode_id(a) == encode_id(b)) == (type(a) is type(b) and a == b)


def test_every_kind_of_input_stores_the_same_rows(db: gg.Database, tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    years = [1, None, 3]
    dicts = [{"id": i, "v": v, "year": y} for i, v, y in zip(ids, vectors, years, strict=True)]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4)
    table = pa.table({"id": ids, "v": flat, "year": pa.array(years, pa.int64())})
    pq.write_table(table, tmp_path / "rows.parquet")
    frame = pd.DataFrame({"id": ids, "v": [v.tolist() for v in vectors], "year": pd.array(years, "Int64")})
    floats = pd.DataFrame({"id": ids, "v": [v.tolist() for v in vectors], "year": [1.0, float("nan"), 3.0]})
    sources: list[Any] = [
        dicts, iter(dicts), table, table.to_batches()[0], table.to_reader(), tmp_path / "rows.parquet",
        str(tmp_path / "rows.parquet"), frame, floats, pl.from_arrow(table), iter(table.to_batches()), table.to_batches(),
    ]  # fmt: skip
    expected = None
    for number, source in enumerate(sources):
        docs = db.create_collection(f"c{number}", fields={"year": gg.Int()}, vectors={"v": gg.Dense(4)})
        assert docs.upsert(source).inserted == 3
        rows = [(r["id"], r["v"].tolist(), r["year"]) for r in docs.scan(include_vectors=True)]
        expected = expected or rows
        assert rows == expected
    assert expected == [(i, v.tolist(), y) for i, v, y in zip(ids, vectors, years, strict=True)]


def test_fields_of_every_type_come_back(db: gg.Database) -> None:
    when = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC)
    docs = db.create_collection(
        "all",
        fields={
            "i": gg.Int(), "f": gg.Float(), "b": gg.Bool(), "k": gg.Keyword(), "t": gg.Text(), "w": gg.Timestamp(),
            "j": gg.Json(), "ks": gg.Keyword(many=True), "n": gg.Int(many=True),
        },
    )  # fmt: skip
    row = {
        "id": 1,
        "i": -5,
        "f": 0.5,
        "b": True,
        "k": "x",
        "t": "é" * 5000,
        "w": when,
        "j": {"a": [1, None]},
        "ks": ["p"],
        "n": [],
    }
    docs.upsert([row, {"id": 2}])
    nothing = dict.fromkeys(row) | {"id": 2}
    assert docs.get([2, 1]) == [nothing, row]
    assert docs.upsert([{"w": dt.date(2024, 1, 1)}]).inserted == 1
    assert sum(isinstance(r["id"], uuid.UUID) for r in docs.scan()) == 1


def test_a_missing_vector_is_none_and_never_found(docs: gg.Collection) -> None:
    docs.upsert([{"id": "with", "dense": np.ones(8)}, {"id": "without", "year": 1}])
    assert docs.get("without", include_vectors=True)["dense"] is None  # type: ignore[index]
    hits = docs.search(np.ones(8), k=5)
    assert hits.ids == ["with"]


def test_scan_orders_by_id_or_by_a_field(docs: gg.Collection) -> None:
    fill(docs)
    assert [r["id"] for r in docs.scan()] == [f"r{i:03d}" for i in range(40)]
    years = [r["year"] for r in docs.scan(order_by="year", descending=True, where=F.lang == "en")]
    assert years == sorted(years, reverse=True)
    assert len(years) == 20
    batches = list(docs.scan(batch_size=7, fields=["year"], include_vectors=True))
    assert [b.num_rows for b in batches] == [7] * 5 + [5]
    assert batches[0].schema.names == ["id", "year", "dense"]


def test_a_scan_sees_one_commit_whatever_is_written_meanwhile(docs: gg.Collection) -> None:
    fill(docs)
    rows = docs.scan()
    first = next(rows)
    docs.delete(where="year >= 2000")
    assert 1 + sum(1 for _ in rows) == 40
    assert first["id"] == "r000"
    assert docs.count() == 0


def test_search_says_why_there_are_fewer_hits_than_asked(docs: gg.Collection) -> None:
    vectors = fill(docs)
    hits = docs.search(vectors[4], k=100, where=F.year == 2004)
    assert hits.ids[0] == "r004"
    assert len(hits) == 4
    assert hits.complete
    assert "filter selects 4 of 40" in hits.complete.why
    assert docs.search(vectors[4], k=3).complete.why == ""
    assert hits.arrow().column_names == ["id", "score", "year", "lang", "title", "tags"]
    assert list(hits.pandas()["id"]) == hits.ids
    assert "exact" in str(hits.explain())
    assert hits[0]["year"] == 2004
    assert docs.search(vectors[:3], k=2).arrow().num_rows == 6
    near = docs.search(vectors[4], k=None, radius=0.5)
    assert all(score >= 0.5 for score in near.scores)
    assert len(docs.search(vectors[4], k=2, radius=0.99)) == 1


def test_facets_count_values_and_elements(docs: gg.Collection) -> None:
    fill(docs)
    assert docs.facets("lang") == {"de": 20, "en": 20}
    assert docs.facets("tags") == {"x": 20}
    assert docs.facets("year", where=F.lang == "en", limit=1) == {2000: 4}


def test_collections_are_renamed_and_dropped(db: gg.Database, docs: gg.Collection) -> None:
    fill(docs)
    db.rename_collection("docs", "papers")
    assert db.collections() == ["papers"]
    assert docs.name == "papers"
    assert docs.count() == 40
    with pytest.raises(errors.CollectionNotFound, match="did you mean 'papers'"):
        db["paper"]
    with pytest.raises(errors.AlreadyExists):
        db.create_collection("papers")
    db.drop_collection("papers")
    with pytest.raises(errors.CollectionNotFound):
        docs.count()
    assert db.verify().ok


def test_schema_moves_keep_the_rows(docs: gg.Collection, db: gg.Database) -> None:
    vectors = fill(docs)
    docs.add_field("score2", gg.Float())
    docs.add_vector("small", gg.Dense(2, "l2"))
    docs.update(ids=["r001"], fields={"score2": [0.5]}, vectors={"small": [[1, 2]]})
    assert docs.search([1, 2], using="small", k=3).ids == ["r001"]
    docs.drop_field("lang")
    docs.drop_vector("small")
    assert docs.get("r001") == {"id": "r001", "year": 2001, "title": None, "tags": None, "score2": 0.5}
    assert docs.search(vectors[7], k=1).ids == ["r007"]
    with pytest.raises(errors.SchemaMismatch):
        docs.drop_field("lang")
    with pytest.raises(errors.InvalidArgument):
        docs.add_field("dense", gg.Int())
    assert db.verify().ok


GOOD = {"ids": ["n"], "vectors": {"dense": [[0.0] * 8]}, "fields": {"year": [1]}}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"vectors": {"dense": [[0.0] * 7]}}, errors.DimensionMismatch, "expects 8 dimensions, found 7"),
        ({"vectors": {"dense": np.array([[0.0] * 7 + [np.nan]])}}, errors.InvalidArgument, "row 0"),
        ({"vectors": {"dense": np.array([[np.inf] * 8])}}, errors.InvalidArgument, "row 0"),
        ({"vectors": {"dense": np.array([[1e300] * 8])}}, errors.InvalidArgument, "overflow"),
        ({"vectors": {"dens": [[0.0] * 8]}}, errors.SchemaMismatch, "did you mean 'dense'"),
        ({"vectors": {"dense": [["x"] * 8]}}, errors.SchemaMismatch, "row 0"),
        ({"vectors": {"dense": [[0.0] * 8] * 2}}, errors.InvalidArgument, "expects 1 rows"),
        ({"fields": {"yaer": [1]}}, errors.SchemaMismatch, "did you mean 'year'"),
        ({"fields": {"year": ["1"]}}, errors.SchemaMismatch, "expects int, found str '1' in row 0"),
        ({"fields": {"year": [True]}}, errors.SchemaMismatch, "row 0"),
        ({"fields": {"year": [2**63]}}, errors.SchemaMismatch, "row 0"),
        ({"fields": {"lang": [5]}}, errors.SchemaMismatch, "expects keyword"),
        ({"fields": {"tags": ["x"]}}, errors.SchemaMismatch, "lists"),
        ({"fields": {"year": [1, 2]}}, errors.InvalidArgument, "expects 1 values"),
        ({"ids": ["x" * 500]}, errors.InvalidArgument, "shorten"),
        ({"ids": [""]}, errors.InvalidArgument, "row 0"),
        ({"ids": [1.5]}, errors.InvalidArgument, "expects str, int, UUID or bytes"),
        ({"ids": [True]}, errors.InvalidArgument, "bool"),
        ({"ids": "abc"}, errors.InvalidArgument, "list"),
    ],
)
def test_bad_rows_get_one_clear_error_and_change_nothing(
    docs: gg.Collection, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = docs.stats()
    with pytest.raises(error, match=re.escape(words)):
        docs.upsert(**{**GOOD, **change})
    assert docs.stats() == before


def test_bad_queries_get_one_clear_error(docs: gg.Collection, db: gg.Database) -> None:
    fill(docs)
    with pytest.raises(errors.DimensionMismatch, match="8 dimensions, found 3"):
        docs.search([1, 2, 3])
    for k in (0, -1, 1.5, True):
        with pytest.raises(errors.InvalidArgument, match="k="):
            docs.search(np.ones(8), k=k)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="query 1"):
        docs.search([[0.0] * 8, [np.nan] * 8])
    with pytest.raises(errors.FilterSyntaxError):
        docs.search(np.ones(8), where="year >")
    with pytest.raises(errors.SchemaMismatch):
        docs.search(np.ones(8), using="sparse")
    with pytest.raises(errors.SchemaMismatch):
        docs.search(np.ones(8), fields=["nope"])
    with pytest.raises(errors.InvalidArgument):
        docs.search("text")
    with pytest.raises(errors.InvalidArgument):
        docs.delete()
    with pytest.raises(errors.InvalidArgument):
        db.create_collection("bad name")
    with pytest.raises(errors.InvalidArgument):
        gg.Dense(0)


def test_of_two_rows_with_one_id_the_last_wins(docs: gg.Collection) -> None:
    result = docs.upsert(ids=["a", "b", "a"], fields={"year": [1, 2, 3]})
    assert result.inserted == 2
    assert [r["year"] for r in docs.scan()] == [3, 2]


def test_a_stream_that_fails_says_how_many_rows_are_durable(docs: gg.Collection) -> None:
    def rows() -> Any:
        for i in range(10_005):
            yield {"id": i, "year": i if i < 10_003 else "bad"}

    with pytest.raises(errors.SchemaMismatch) as caught:
        docs.upsert(rows())
    assert caught.value.durable_rows == 10_000
    assert docs.count() == 10_000


def test_an_export_that_fails_leaves_no_file(tmp_path: Path, db: gg.Database) -> None:
    mixed = db.create_collection("mixed", fields={"n": gg.Int()})
    mixed.upsert([{"id": i, "n": i} for i in range(10_000)] + [{"id": "text", "n": 1}])
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "out" / "rows.parquet", tmp_path / "missing" / "rows.parquet"):
        with pytest.raises(errors.InvalidArgument, match="to_parquet"):
            mixed.to_parquet(path)
    assert list((tmp_path / "out").iterdir()) == []
    assert mixed.to_parquet(tmp_path / "out" / "rows.parquet", where="n < 5 AND n > 1") == 3


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_lengths_that_float32_cannot_hold_are_refused_by_row(db: gg.Database, metric: Any) -> None:
    docs = db.create_collection("far", vectors={"v": gg.Dense(2, metric)})
    docs.upsert(ids=[0, 1, 2], vectors={"v": [[0, 0], [1e-15, 0], [1e15, 1e15]]})
    assert len(docs.search([1.0, 1.0])) == 3
    assert np.isfinite(docs.search([1e10, 1.0]).scores).all()
    wrong = [[3e38, 3e38], [1e25, 0.0]] + ([[1e-40, 0.0]] if metric == "cosine" else [])
    for vector in wrong:
        with pytest.raises(errors.InvalidArgument, match="row 1"):
            docs.upsert(ids=[7, 8], vectors={"v": [[1.0, 1.0], vector]})
        with pytest.raises(errors.InvalidArgument, match="query 0"):
            docs.search(vector)
    assert docs.count() == 3


def test_errors_in_a_stream_name_the_row_of_the_stream(tmp_path: Path, db: gg.Database) -> None:
    docs = db.create_collection("stream", fields={"n": gg.Int()})
    rows: list[Any] = [{"id": i, "n": i} for i in range(12_000)]
    for wrong in ({"id": 1, "n": "x"}, {"id": 1.5}, "no dict"):
        rows[11_003] = wrong
        with pytest.raises(errors.InvalidArgument, match="row 11003") as caught:
            docs.upsert(row for row in rows)
        assert caught.value.durable_rows == 10_000  # type: ignore[attr-defined]
    table = pa.table({"id": list(range(12_000)), "n": pa.array([0.0] * 11_500 + [0.5] * 500)})
    assert docs.count() == 10_000
    with pytest.raises(errors.InvalidArgument):
        docs.upsert(table.to_reader())


def test_a_frame_brings_its_ids_in_a_column_or_as_its_index(db: gg.Database) -> None:
    pandas = pytest.importorskip("pandas")
    docs = db.create_collection("frame", fields={"n": gg.Int()})
    frame = pandas.DataFrame({"id": ["a", "b"], "n": [1, 2]})
    docs.upsert(frame)
    docs.upsert(frame.set_index("id"))
    assert docs.count() == 2
    with pytest.raises(errors.SchemaMismatch, match="other"):
        docs.upsert(frame.rename(columns={"id": "other"}).set_index("other"))
    for wrong in (frame["n"], pandas.DataFrame({"id": ["a", 1], "n": [1, 2]}), pandas.DataFrame({"n": [1, "x"]})):
        with pytest.raises(errors.InvalidArgument):
            docs.upsert(wrong)
    assert docs.count() == 2


def test_hits_give_json_as_values_and_batches_as_one_table(db: gg.Database) -> None:
    docs = db.create_collection("j", fields={"j": gg.Json(), "body": gg.Text(bm25=True)})
    docs.upsert([{"id": 1, "j": {"a": [1]}, "body": "one"}, {"id": 2, "body": "two"}])
    assert docs.search("one")[0]["j"] == {"a": [1]}
    assert docs.search("two")[0]["j"] is None
    batch = docs.search(["nothing", "one", "two one"])
    table = batch.arrow()
    assert table["query"].to_pylist() == [1, 2, 2]
    assert table["id"].to_pylist() == [i for hits in batch for i in hits.ids]
    assert docs.search(["nothing"]).arrow().num_rows == 0
