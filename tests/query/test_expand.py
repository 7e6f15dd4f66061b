"""Chunks beside those found, queries of several vectors, and steps that follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, combine, cross_encoder, fuse, match, maxsim, near
from gingham.embed import HashingEmbedder
from gingham.errors import DimensionMismatch, InvalidArgument, NotReady, SchemaMismatch
from gingham.query import neighbours
from gingham.storage import codes as stored_codes

if TYPE_CHECKING:
    from gingham.query.hits import Hits

Array = np.ndarray[Any, Any]
DIM, TEXTS, CHUNKS = 8, 12, 6
RNG = np.random.default_rng(3)
X = RNG.standard_normal((TEXTS * CHUNKS, DIM), dtype=np.float32)
Q = RNG.standard_normal(DIM, dtype=np.float32)


def place(row: int) -> tuple[str, int]:
    return f"text {row // CHUNKS}", row % CHUNKS


@pytest.fixture
def chunks(db: gg.Database, small_bounds: None) -> gg.Collection:
    docs = db.create_collection(
        "chunks",
        fields={"parent": gg.Keyword(), "ordinal": gg.Int(), "body": gg.Text(bm25=True), "many": gg.Keyword(many=True)},
        vectors={"v": gg.Dense(DIM), "t": gg.Tokens(DIM)},
    )
    order = RNG.permutation(len(X))
    for some in np.array_split(order, 5):
        docs.upsert(
            [
                {"id": int(i), "parent": place(i)[0], "ordinal": place(i)[1], "v": X[i], "t": X[i : i + 2], "body": f"word{i % 5}"}
                for i in some.tolist()
            ]
        )  # fmt: skip
    return docs


def expanded(found: Hits, neighbours: int, allowed: Any = lambda row: True) -> list[tuple[int, float, int | None]]:
    """The reference: ids, scores and what brought them."""
    scores, out = dict(zip(found.ids, found.scores.tolist(), strict=True)), {}
    for hit in found.ids:
        for row in range(hit - neighbours, hit + neighbours + 1):
            if 0 <= row < len(X) and place(row)[0] == place(hit)[0] and row not in out and allowed(row):
                out[row] = (row, scores.get(row, scores[hit]), None if row in scores else hit)
    return list(out.values())


def triples(hits: Hits) -> list[tuple[Any, float, Any]]:
    assert [hit.brought_by for hit in hits] == hits.brought_by
    return list(zip(hits.ids, hits.scores.tolist(), hits.brought_by, strict=True))


@pytest.mark.parametrize("neighbours", [1, 2, 10**30])
def test_each_chunk_found_stands_among_its_neighbours_in_reading_order(chunks: gg.Collection, neighbours: int) -> None:
    for limit in (1, 4, 15, 100):
        plain = near("v", Q).limit(limit)
        assert triples(chunks.query(plain.expand(neighbours))) == expanded(chunks.query(plain), min(neighbours, CHUNKS))
    assert triples(chunks.query(near("v", Q).expand())) == expanded(chunks.query(near("v", Q)), 1)
    assert len(chunks.query(near("v", Q).expand().limit(4))) == 4
    assert chunks.query(near("v", Q)).brought_by == [None] * 10
    short = chunks.query(near("v", Q).where(F.ordinal == 2).limit(50).expand())
    assert len(short) == 3 * TEXTS
    assert "found" not in short.complete.why
    assert str(TEXTS) in short.complete.why


def test_filters_above_hold_for_neighbours_and_deleted_ones_are_gone(chunks: gg.Collection) -> None:
    chunks.delete(ids=[i for i in range(len(X)) if i % CHUNKS == 3])
    plain = near("v", Q).where(F.ordinal == 2).limit(5)
    found = chunks.query(plain)
    assert triples(chunks.query(plain.expand())) == expanded(found, 1, lambda row: row % CHUNKS != 3)
    above = chunks.query(plain.expand(2), where=F.ordinal > 1)
    assert triples(above) == expanded(found, 2, lambda row: row % CHUNKS in (2, 4))


def test_chunks_without_a_place_stay_alone_and_parents_may_be_integers(db: gg.Database) -> None:
    docs = db.create_collection("docs", fields={"doc": gg.Int(), "part": gg.Int()}, vectors={"v": gg.Dense(2)})
    rows = [(1, 1), (1, None), (None, 1), (2, 5), (2, 6), (1, 2)]
    docs.upsert([{"id": i, "doc": d, "part": p, "v": [1, i]} for i, (d, p) in enumerate(rows)])
    hits = docs.query(near("v", [1, 0]).limit(4).expand(parent="doc", ordinal="part"))
    assert hits.ids == [0, 5, 1, 2, 3, 4]
    assert hits.brought_by == [None, 0, None, None, None, 3]


@pytest.mark.parametrize("texts", [True, False])
def test_segments_in_order_have_the_neighbours_that_scans_find_and_are_put_in_order_once(
    db: gg.Database, small_bounds: None, monkeypatch: pytest.MonkeyPatch, texts: bool
) -> None:
    rng = np.random.default_rng(texts)
    kind = gg.Text() if texts else gg.Int()
    docs = db.create_collection("docs", fields={"parent": kind, "ordinal": gg.Int()}, vectors={"v": gg.Dense(DIM)})
    names = ["", "a", "a ", "é", "\U0001f600", "z", None] if texts else [-(2**63), -1, 0, 1, 2**63 - 1, 5, None]
    places = [-(2**63), 2**63 - 1, 2**63 - 2, None, *range(-3, 4)]
    vectors = rng.standard_normal((120, DIM))
    for some in np.array_split(np.arange(120), 5):
        docs.upsert([
            {"id": int(i), "parent": names[rng.integers(len(names))], "ordinal": places[rng.integers(len(places))], "v": vectors[i]}
            for i in some
        ])  # fmt: skip
    docs.delete(ids=list(range(0, 120, 7)))
    docs.maintain()
    docs.upsert([{"id": 999, "parent": names[1], "ordinal": 0, "v": vectors[0]}])
    made, ordered = [], neighbours._ordered

    def counted(*columns: Any, **options: Any) -> Any:
        made.append("among" in options)
        return ordered(*columns, **options)

    monkeypatch.setattr(neighbours, "_ordered", counted)

    def found() -> list[Any]:
        return [
            triples(docs.query(near("v", query).limit(5).expand(n), where=where))
            for query in vectors[:6]
            for n in (1, 3, 10**30)
            for where in (None, F.ordinal > -2)
        ]

    scanned = found()
    assert all(made)
    made.clear()
    monkeypatch.setattr(neighbours, "ORDERED_ROWS", 1)
    assert found() == scanned
    assert made.count(False) == docs.stats().segments


def test_fields_that_cannot_say_where_a_chunk_stands_are_refused(chunks: gg.Collection) -> None:
    for options in ({"parent": "many"}, {"ordinal": "parent"}, {"parent": "v"}, {"ordinal": "none"}):
        with pytest.raises(SchemaMismatch):
            chunks.query(near("v", Q).expand(**options))
    with pytest.raises(InvalidArgument, match="at least 1"):
        near("v", Q).expand(0)


def test_in_fusion_a_row_is_brought_only_where_no_branch_found_it(chunks: gg.Collection) -> None:
    branch = near("v", Q).limit(4).expand()
    words = match("body", "word1").limit(30)
    brought = {
        i for i, by in zip(*(lambda h: (h.ids, h.brought_by))(chunks.query(branch)), strict=True) if by is not None
    }
    hits = chunks.query(fuse(branch, words).limit(100))
    flagged = {hit.id for hit in hits if hit.brought_by is not None}
    assert flagged == brought - set(chunks.query(words).ids)
    assert flagged


def test_reranking_takes_expanded_diversified_and_grouped_rows_and_is_taken_by_them(chunks: gg.Collection) -> None:
    def model(pairs: list[tuple[str, str]]) -> list[float]:
        return [float(text[-1]) for _, text in pairs]

    base, scorers = near("v", Q, k=40), (maxsim("t", X[:2]), cross_encoder("body", "q", model=model))
    for by in scorers:
        for below in (base.diversify(0.4).limit(20), base.group("parent", per=2).limit(15), base.limit(6).expand()):
            rows = chunks.query(below.limit(1000))
            again = chunks.query(below.rerank(by, k=1000).limit(1000))
            assert set(again.ids) == set(rows.ids)
            assert (np.diff(again.scores) <= 0).all()
            assert dict(zip(again.ids, again.brought_by, strict=True)) == dict(
                zip(rows.ids, rows.brought_by, strict=True)
            )
        reranked = chunks.query(base.rerank(by, k=40).limit(40))
        kept: dict[str, int] = {}
        expected = []
        for row in reranked.ids:
            kept[place(row)[0]] = kept.get(place(row)[0], 0) + 1
            expected += [row] if kept[place(row)[0]] <= 2 else []
        assert chunks.query(base.rerank(by, k=40).group("parent", per=2).limit(40)).ids == expected
        assert chunks.query(base.rerank(by, k=40).diversify(0.0, candidates=40).limit(40)).ids == reranked.ids
        mixed = chunks.query(base.rerank(by, k=40).diversify(0.7, candidates=40).group("parent").limit(5))
        assert len({place(row)[0] for row in mixed.ids}) == 5
        assert mixed.ids[0] == reranked.ids[0]


def test_the_score_of_a_combination_is_the_weighted_sum_of_the_scores_of_its_parts(db: gg.Database) -> None:
    docs = db.create_collection("docs", vectors={"v": gg.Dense(DIM, "dot")})
    docs.upsert(ids=list(range(len(X))), vectors={"v": X})
    a, b, c = RNG.standard_normal((3, DIM))
    for normalize in (True, False):
        parts = [one / np.linalg.norm(one) if normalize else one for one in (a, b, c)]
        scores = X @ (2 * parts[0] + 0.5 * parts[1] - parts[2])
        hits = docs.search(combine([(a, 2), (b.tolist(), 0.5), (c, -1)], normalize=normalize), k=len(X))
        assert hits.ids == np.argsort(-scores, kind="stable").tolist()
        np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1], atol=1e-5)
        assert docs.query(near("v", combine([(a, 2), (b, 0.5), (c, -1)], normalize=normalize))).ids == hits.ids[:10]


def test_directions_are_taken_out_of_a_combination() -> None:
    a, b, c = RNG.standard_normal((3, DIM))

    def vector(**options: Any) -> Array:
        return combine([(a, 1), (b, 0.3)], **options).vector(lambda texts: np.empty((0, DIM)))[0]

    away = vector(away=[c, 2 * c, b])
    np.testing.assert_allclose([away @ b, away @ c], 0, atol=1e-6)
    assert vector(away=c) @ c == pytest.approx(0, abs=1e-6)
    assert abs(vector() @ c) > 1e-3
    np.testing.assert_array_equal(vector(away=np.zeros(DIM)), vector())
    with pytest.raises(InvalidArgument, match="nothing left"):
        vector(away=[a, b])
    with pytest.raises(DimensionMismatch, match="one width"):
        vector(away=np.ones(3))


def test_texts_of_a_combination_are_embedded_as_queries(db: gg.Database) -> None:
    embedder = HashingEmbedder(dim=64)
    docs = db.create_collection(
        "docs", fields={"body": gg.Text(bm25=True)}, vectors={"v": gg.Dense(64)}, embedder=embedder
    )
    texts = ["red stone", "red house", "green house"]
    docs.upsert([{"id": text, "body": text} for text in texts])
    a, b, c = embedder.embed_queries(texts)
    asked, same = combine({texts[0]: 1, texts[1]: -1, texts[2]: 1}), combine([(a, 1), (b, -1), (c, 1)])
    for query in (asked, combine([(texts[0], 1), (b, -1), (texts[2], 1)])):
        np.testing.assert_array_equal(docs.search(query).scores, docs.search(same).scores)
        assert docs.query(near("v", query)).ids == docs.search(same).ids
    with pytest.raises(SchemaMismatch):
        docs.search(asked, using="body")
    bare = db.create_collection("bare", vectors={"v": gg.Dense(64)})
    with pytest.raises(NotReady, match="embedder"):
        bare.search(asked)


@pytest.mark.parametrize(
    "given", [{}, [], "king", 3, [1], [("a", 1, 2)], {"a": "b"}, {"a": np.nan}, [(np.ones((2, 2)), 1)], [([np.inf], 1)],
              [(None, 1)], [({}, 1)]]
)  # fmt: skip
def test_what_is_no_weighted_parts_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"combine\(\)"):
        combine(given)


@pytest.mark.parametrize("away", [5, None, {"a": 1}, b"x", np.array(3.0), [1.0, 0.0], [np.full(DIM, 1e200)]])
def test_what_is_taken_out_is_a_list_of_texts_and_vectors(away: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"combine\("):
        combine([(X[0], 1)], away=away)


def test_a_sum_beyond_float32_is_refused() -> None:
    for weight, found in ((1e39, "within float32"), (1e308, "within float32"), (1e-60, "nothing left")):
        for away in ((), [X[1]]):
            with pytest.raises(InvalidArgument, match=found):
                combine([(X[0], weight), (X[2], weight)], away=away).vector(lambda texts: X)


def test_short_directions_are_taken_out_like_long_ones() -> None:
    query = combine([(X[0], 1)], away=[X[1], 1e-9 * X[2]], normalize=False).vector(lambda texts: X)[0]
    np.testing.assert_allclose(X[1:3] @ query, 0, atol=1e-5)


@pytest.mark.parametrize(("index", "codec"), [("Flat", "MRL16,F16"), ("HNSW16", "MRL16,F16"), ("IVF16", "MRL16,LVQ8")])
def test_prefix_codes_in_front_of_vectors_are_a_funnel(
    db: gg.Database, monkeypatch: pytest.MonkeyPatch, index: str, codec: str
) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    rng = np.random.default_rng(5)
    energy = np.exp(-np.arange(64) / 12)
    rows, queries = (rng.standard_normal((n, 64)) * energy for n in (3000, 50))
    docs = db.create_collection("docs", vectors={"v": gg.Dense(64, index=index, codec=codec)})
    docs.upsert(ids=list(range(3000)), vectors={"v": rows.astype(np.float32)})
    docs.maintain()
    exact = docs.search(queries, exact=True)

    def recall(**options: Any) -> float:
        found = docs.search(queries, **options)
        for one, best in zip(found, exact, strict=True):
            scores = dict(zip(best.ids, best.scores.tolist(), strict=True))
            assert all(scores.get(i, score) == score for i, score in zip(one.ids, one.scores.tolist(), strict=True))
        return float(np.mean([len(set(f.ids) & set(e.ids)) / 10 for f, e in zip(found, exact, strict=True)]))

    assert codec in str(docs.search(queries[0]).explain())
    wide = {"HNSW16": {"ef_search": 400}, "IVF16": {"nprobe": 16, "oversample": 40}}.get(index, {"oversample": 40})
    narrow = {"HNSW16": {"ef_search": 10}, "IVF16": {"nprobe": 16, "oversample": 1}}.get(index, {"oversample": 1})
    assert recall(**narrow) < 0.9 < 0.97 < recall(**wide)
    if index == "HNSW16":
        shortlists = [
            int(str(docs.search(queries[0], target_recall=r).explain()).split("ef_search ")[1].split()[0])
            for r in (0.8, 0.95)
        ]
        assert 10 <= shortlists[0] < shortlists[1] < 400
        assert recall(target_recall=0.95) > 0.92
