"""Late interaction inside a collection: token matrices written, pooled, read, searched, reranked, changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from tests.test_collection_graphs import overwrite

import gingham as gg
from gingham.errors import DimensionMismatch, EmbedderFailed, InvalidArgument, SchemaMismatch
from gingham.storage import rewrite, token_codes, writes

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
DIM = 24


def documents(n: int = 60, seed: int = 1) -> list[Array]:
    """Matrices of 1 to 40 tokens."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((int(rng.integers(1, 41)), DIM)).astype(np.float32) for _ in range(n)]


def unit(tokens: Array) -> Array:
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


def maxsim(query: Array, document: Array) -> float:
    """The reference, on tokens as they are stored."""
    return float((unit(query) @ unit(document).astype(np.float16).astype(np.float32).T).max(axis=1).sum())


def filled(db: gg.Database, tokens: list[Any] | None = None, **options: Any) -> gg.Collection:
    docs = db.create_collection(
        "docs", fields={"year": gg.Int(), "body": gg.Text(bm25=True)}, vectors={"t": gg.Tokens(DIM, **options)}
    )
    given = documents() if tokens is None else tokens
    docs.upsert(
        ids=list(range(len(given))), vectors={"t": given},
        fields={"year": [i % 10 for i in range(len(given))], "body": [f"word{i % 3}" for i in range(len(given))]},
    )  # fmt: skip
    return docs


def expected(query: Array, given: list[Array], k: int, ids: list[int] | None = None) -> list[int]:
    scores = {i: maxsim(query, given[i]) for i in (range(len(given)) if ids is None else ids)}
    return sorted(scores, key=lambda i: (-scores[i], i))[:k]


def test_rows_are_found_by_the_sum_of_the_greatest_products(db: gg.Database) -> None:
    docs, given, query = filled(db), documents(), documents(1, 5)[0]
    for _ in range(2):
        hits = docs.search(query, using="t", k=7)
        assert hits.ids == expected(query, given, 7)
        np.testing.assert_allclose(hits.scores, [maxsim(query, given[i]) for i in hits.ids], rtol=1e-3, atol=1e-3)
        docs.maintain()
    assert "MaxSim" in str(hits.explain())
    assert docs.query(gg.near("t", query, k=7)).ids == hits.ids
    best = docs.search(query, using="t", k=None, radius=float(hits.scores[3])).ids
    assert best == hits.ids[:4]
    batch = docs.search([query, documents(1, 6)[0]], using="t", k=7)
    assert batch[0].ids == hits.ids
    assert batch[0].scores.tolist() == hits.scores.tolist()
    assert len(docs.search(query, using="t", k=1000).ids) == 60


def test_filters_deletes_and_updates_are_seen(db: gg.Database) -> None:
    docs, given, query = filled(db), documents(), documents(1, 5)[0]
    few = [i for i in range(60) if i % 10 < 3]
    assert docs.search(query, using="t", k=8, where="year < 3").ids == expected(query, given, 8, few)
    best = docs.search(query, using="t", k=3).ids
    docs.delete(ids=best[:1])
    docs.update(ids=[best[1]], vectors={"t": [query]})
    hits = docs.search(query, using="t", k=3)
    assert best[0] not in hits.ids
    assert hits.ids[0] == best[1]
    assert hits.scores[0] == pytest.approx(len(query), rel=1e-3)
    docs.maintain()
    assert docs.search(query, using="t", k=3).ids == hits.ids


def test_words_find_and_tokens_order(db: gg.Database) -> None:
    docs, given, query = filled(db), documents(), documents(1, 5)[0]
    hits = docs.query(gg.match("body", "word1").rerank(gg.maxsim("t", query), k=20).limit(5))
    assert hits.ids == expected(query, given, 5, [i for i in range(60) if i % 3 == 1])
    assert "rerank" in str(hits.explain())
    fused = gg.fuse(gg.near("t", query), gg.match("body", "word1")).rerank(gg.maxsim(None, query)).limit(3)
    assert docs.query(fused).ids == expected(query, given, 3)
    with pytest.raises(InvalidArgument, match="expects maxsim"):
        gg.match("body", "x").rerank("t")  # type: ignore[arg-type]


def test_rows_without_tokens_are_not_found_and_come_back_as_none(db: gg.Database) -> None:
    given: list[Any] = documents()
    given[3] = None
    docs = filled(db, given)
    assert len(docs.search(documents(1, 5)[0], using="t", k=100).ids) == 59
    rows = docs.get([2, 3], include_vectors=True)
    assert rows[1]["t"] is None
    np.testing.assert_allclose(rows[0]["t"], unit(given[2]), atol=1e-3)
    assert rows[0]["t"].dtype == np.float16


def test_tokens_come_from_lists_dicts_and_arrow(db: gg.Database) -> None:
    docs, given = filled(db), documents()
    lists = [one.tolist() for one in given[:4]]
    for number, column in enumerate((lists, pa.array(lists), [np.asarray(one, np.float64) for one in given[:4]])):
        ids = [f"{number}-{i}" for i in range(4)]
        docs.upsert(ids=ids, vectors={"t": column})
        for found, one in zip(docs.get(ids, include_vectors=True), given, strict=False):
            np.testing.assert_allclose(found["t"], unit(one), atol=1e-3)
    docs.upsert([{"id": "row", "t": lists[0]}])
    assert len(docs.get("row", include_vectors=True)["t"]) == len(lists[0])


@pytest.mark.parametrize("factor", [2, 3, 4, "adaptive"])
def test_tokens_are_pooled_when_they_are_written(db: gg.Database, factor: Any) -> None:
    docs = filled(db, pool_factor=factor, protected=1)
    stored = docs.get(list(range(60)), include_vectors=True)
    for row, given in zip(stored, documents(), strict=True):
        if factor != "adaptive":
            rest = len(given) - 1
            assert len(row["t"]) == 1 + (max(1, -(-rest // factor)) if rest else 0)
        np.testing.assert_allclose(row["t"][0], unit(given)[0], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(row["t"].astype(np.float32), axis=1), 1, atol=2e-3)


def test_long_and_short_documents_and_dot_products_are_stored(db: gg.Database) -> None:
    long = np.random.default_rng(0).standard_normal((10_000, DIM)).astype(np.float32)
    docs = filled(db, [long, long[:1], 3 * long[:50]], metric="dot", max_tokens=2000)
    sizes = [len(row["t"]) for row in docs.get([0, 1, 2], include_vectors=True)]
    assert sizes == [2000, 1, 50]
    assert docs.search(long[:5], using="t", k=1).ids == [2]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([np.ones((2, DIM)), np.empty((0, DIM))], InvalidArgument, "at least one token.*row 1"),
        ([np.ones((2, DIM)), []], InvalidArgument, "at least one token.*row 1"),
        ([np.ones((2, DIM)), np.ones((2, DIM + 1))], DimensionMismatch, "width 24, found 25 in row 1"),
        ([np.ones((2, DIM)), [[1.0] * DIM, [np.nan] * DIM]], InvalidArgument, "token 1 of row 1"),
        ([np.ones((2, DIM)), np.ones(DIM)], SchemaMismatch, "row 1"),
        ([np.ones((2, DIM)), "text"], SchemaMismatch, "row 1"),
        ([np.ones((2, DIM)), [["a"]]], SchemaMismatch, "row 1"),
        ([np.ones((2, DIM)), [[1.0], [1.0, 2.0]]], SchemaMismatch, "row 1"),
        ([np.ones((2, DIM))], InvalidArgument, "expects 2 rows"),
        ("tokens", SchemaMismatch, "sequence of matrices"),
    ],
)
def test_bad_tokens_are_named_by_row_and_nothing_is_written(
    db: gg.Database, bad: Any, error: type[Exception], words: str
) -> None:
    docs = filled(db)
    with pytest.raises(error, match=words):
        docs.upsert(ids=["a", "b"], vectors={"t": bad})
    assert docs.count() == 60


def test_bad_queries_and_fields_are_typed_errors(db: gg.Database) -> None:
    docs = filled(db)
    for bad in (np.ones((2, DIM + 1)), np.full((2, DIM), np.inf), np.empty((0, DIM)), np.ones((2, 2, 2, 2))):
        with pytest.raises((InvalidArgument, DimensionMismatch, SchemaMismatch)):
            docs.search(bad, using="t")
        with pytest.raises((InvalidArgument, DimensionMismatch, SchemaMismatch)):
            docs.query(gg.near("t", bad))
    with pytest.raises(SchemaMismatch, match="token field"):
        docs.query(gg.match("body", "word1").rerank(gg.maxsim("body", np.ones((1, DIM)))))
    for options in (
        {"dim": 0},
        {"pool_factor": 0},
        {"pool_factor": 1.5},
        {"metric": "l2"},
        {"max_tokens": 0},
        {"protected": -1},
    ):
        with pytest.raises(InvalidArgument, match=r"Tokens\("):
            gg.Tokens(**{"dim": 8, **options})  # type: ignore[arg-type]


def test_tokens_survive_reopening_merging_backup_and_parquet(tmp_path: Path) -> None:
    given, query = documents(), documents(1, 5)[0]
    with gg.open(tmp_path / "db") as db:
        docs = filled(db)
        docs.maintain()
        docs.upsert(ids=[1000], vectors={"t": [query]})
        db.backup(tmp_path / "copy")
        docs.to_parquet(tmp_path / "rows.parquet")
        assert not db.verify().damage
    gg.restore(tmp_path / "copy", tmp_path / "again")
    for path in ("db", "again"):
        with gg.open(tmp_path / path) as db:
            assert db["docs"].search(query, using="t", k=4).ids == [1000, *expected(query, given, 3)]
            with db.snapshot() as then:
                db["docs"].delete(ids=[1000])
                assert then["docs"].search(query, using="t", k=1).ids == [1000]
                assert db["docs"].search(query, using="t", k=1).ids == expected(query, given, 1)
    with gg.open(tmp_path / "third") as db:
        docs = db.create_collection("docs", fields={"year": gg.Int(), "body": gg.Text()}, vectors={"t": gg.Tokens(DIM)})
        docs.upsert(tmp_path / "rows.parquet")
        assert docs.search(query, using="t", k=4).ids == [1000, *expected(query, given, 3)]


def test_hits_tell_which_tokens_met_and_print_as_a_heat_map(db: gg.Database) -> None:
    docs, given, query = filled(db), documents(), documents(1, 5)[0]
    several = docs.search([query, query[:2]], using="t", k=3)
    reranked = docs.query(gg.match("body", "word1").rerank(gg.maxsim("t", query)).limit(3))
    for hits, asked in (
        (several[0], query),
        (several[1], query[:2]),
        (docs.query(gg.near("t", query, k=3)), query),
        (reranked, query),
    ):
        explained = hits.explain_tokens()
        assert len(explained) == 3
        for user_id, score, one in zip(hits.ids, hits.scores, explained, strict=True):
            expected_products = unit(asked) @ unit(given[user_id]).T
            np.testing.assert_allclose(one.products, expected_products, atol=2e-3)
            assert one.scores.sum() == pytest.approx(float(score), abs=2e-3)
            np.testing.assert_allclose(one.products[np.arange(len(asked)), one.best], one.scores)
            lines = str(one).splitlines()
            assert len(lines) == len(asked)
            assert all(len(line) == 13 + len(given[user_id]) for line in lines)
    with pytest.raises(InvalidArgument, match="explain_tokens"):
        docs.query(gg.match("body", "word1")).explain_tokens()


def test_a_row_without_tokens_met_none(db: gg.Database) -> None:
    docs = db.create_collection("docs", fields={"body": gg.Text(bm25=True)}, vectors={"t": gg.Tokens(DIM)})
    docs.upsert(ids=["bare"], fields={"body": ["word1"]})
    query = documents(1, 5)[0]
    rows = gg.fuse(gg.match("body", "word1"), gg.near("t", query))
    (one,) = docs.query(rows).explain_tokens()
    assert (one.best.tolist(), one.scores.tolist()) == ([-1] * len(query), [0.0] * len(query))
    assert str(one) == "no tokens"


# models that read query and text ------------------------------------------------------------------------------


def test_a_cross_encoder_orders_what_was_found(db: gg.Database) -> None:
    docs = db.create_collection("docs", fields={"body": gg.Text(bm25=True), "n": gg.Int()}, vectors={"v": gg.Dense(2)})
    bodies = ["cat " * i for i in range(1, 60)]
    docs.upsert(ids=list(range(59)), fields={"body": bodies, "n": list(range(59))})
    asked: list[int] = []

    def longest(pairs: list[tuple[str, str]]) -> list[float]:
        asked.append(len(pairs))
        assert all(query == "cat" for query, _ in pairs)
        return [float(len(text)) for _, text in pairs]

    hits = docs.query(gg.match("body", "cat").rerank(gg.cross_encoder("body", "cat", model=longest), k=59).limit(3))
    assert hits.ids == [58, 57, 56]
    assert sum(asked) == 59
    assert max(asked) <= 32
    assert "rerank" in str(hits.explain())

    class Model:
        predict = staticmethod(longest)

    assert docs.query(gg.match("body", "cat").rerank(gg.cross_encoder("body", "cat", model=Model())).limit(1)).ids == [
        58
    ]
    docs.upsert(ids=["none"], vectors={"v": [[1, 1]]})
    assert docs.query(gg.near("v", [1, 1]).rerank(gg.cross_encoder("body", "cat", model=longest))).ids == []

    def raising(pairs: Any) -> Any:
        raise RuntimeError("out of memory")

    for bad in (raising, lambda pairs: [1.0], lambda pairs: [float("nan")] * len(pairs), lambda pairs: "x"):
        with pytest.raises(EmbedderFailed, match="cross_encoder"):
            docs.query(gg.match("body", "cat").rerank(gg.cross_encoder("body", "cat", model=bad)))
    with pytest.raises(SchemaMismatch, match="field of texts"):
        docs.query(gg.match("body", "cat").rerank(gg.cross_encoder("n", "cat", model=longest)))
    for wrong in ({"query": 3, "model": longest}, {"query": "x", "model": 3}):
        with pytest.raises(InvalidArgument, match="cross_encoder"):
            gg.cross_encoder("body", **wrong)  # type: ignore[arg-type]


# codes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_codes, "CODED_TOKENS", 500)
    monkeypatch.setattr(writes, "SEAL_ROWS", 100)
    monkeypatch.setattr(rewrite, "SEAL_ROWS", 100)


def how(docs: gg.Collection, query: Array, **options: Any) -> str:
    return docs.search(query, using="t", **options).explain().root.steps[1].detail


@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("codec", ["Residual4", "RaBitQ1"])
def test_codes_lead_to_rows_that_are_scored_from_their_tokens(db: gg.Database, codec: Any) -> None:
    given, queries = documents(900), documents(20, 5)
    docs = filled(db, given, codec=codec)
    before = [docs.search(query, using="t") for query in queries]
    assert f"0 of them by {codec} codes" in how(docs, queries[0])
    docs.maintain()
    assert f"1 parts, 1 of them by {codec} codes" in how(docs, queries[0])
    shares = []
    for query, exact in zip(queries, before, strict=True):
        hits = docs.search(query, using="t")
        assert len(hits.ids) == 10
        scores = dict(zip(exact.ids, exact.scores, strict=True))
        assert all(score == scores[i] for i, score in zip(hits.ids, hits.scores, strict=True) if i in scores)
        shares.append(len(set(hits.ids) & set(exact.ids)) / 10)
    assert np.mean(shares) > 0.75
    assert len(docs.search(queries[0], using="t", k=900).ids) == 900
    few = docs.search(queries[0], using="t", k=50, where="year < 1").ids
    assert few == expected(queries[0], given, 50, [i for i in range(900) if i % 10 < 1])
    best = before[0].ids[0]
    docs.delete(ids=[best])
    assert best not in docs.search(queries[0], using="t", k=50).ids
    assert not db.verify().damage


@pytest.mark.usefixtures("coded")
def test_codes_come_again_after_merges_damage_and_reopening_and_go_with_their_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, query = documents(300), documents(1, 5)[0]
    with gg.open(tmp_path / "db") as db:
        docs = filled(db, given, codec="Residual4")
        docs.maintain()
        docs.delete(ids=list(range(0, 300, 3)))
        docs.maintain()
        assert docs.stats().dead_rows == 0
        assert "1 of them by" in how(docs, query)
        with docs._reader.session() as session:
            record = session.collection_by_id(docs._cid)
            segment = session.segment_record(docs._cid, record.segments[0].sid, record.schema_epoch)
            blob = segment.coded["t"].codes["ids"].blob
        expected_ids = docs.search(query, using="t", k=3).ids
    overwrite(tmp_path / "db", blob, 0, b"\xff\xff\xff\x7f\x01\x02")
    with gg.open(tmp_path / "db") as db:
        docs = db["docs"]
        assert docs.search(query, using="t", k=3).ids == expected_ids
        assert "searched without codes" in caplog.text
        assert [str(one.where) for one in db.verify().damage] == [f"blob {blob.key}"]
        docs.maintain()
        assert "1 of them by" in how(docs, query)
        assert not db.verify().damage
        docs.drop_vector("t")
        docs.maintain()
        assert not db.verify().damage
    caplog.clear()
