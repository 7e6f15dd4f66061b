"""Queries of every kind against slow references, before and after rows move."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import gingham as gg
import reference
from gingham import DBSF, RRF, F, MinMax, fuse, like, match, near, sparse
from gingham.errors import InvalidArgument, NotFound, SchemaMismatch
from gingham.query.fusion import diversify
from gingham.storage.records import blob_key

WORDS = "alpha beta gamma delta epsilon zeta eta theta running runs ran house houses the of quick brown fox".split()


class Library:
    """A collection beside the dicts it was made from."""

    def __init__(self, db: gg.Database, rng: np.random.Generator, rows: int) -> None:
        self.docs = db.create_collection(
            "library",
            fields={
                "body": gg.Text(bm25=True, positions=True),
                "lang": gg.Keyword(),
                "year": gg.Int(),
                "when": gg.Timestamp(),
            },
            vectors={"dense": gg.Dense(6), "sparse": gg.Sparse()},
        )
        self.texts: dict[int, Any] = {}
        self.dense: dict[int, Any] = {}
        self.sparse: dict[int, Any] = {}
        self.lang: dict[int, Any] = {}
        self.year: dict[int, Any] = {}
        self.rng = rng
        for start in range(0, rows, 40):
            self.write(list(range(start, min(start + 40, rows))))

    def write(self, ids: list[int]) -> None:
        rng = self.rng
        for i in ids:
            self.texts[i] = " ".join(rng.choice(WORDS, rng.integers(1, 30))) if rng.random() < 0.9 else None
            self.dense[i] = rng.standard_normal(6).astype(np.float32) if rng.random() < 0.9 else None
            dims = rng.choice(30, rng.integers(1, 6), replace=False)
            self.sparse[i] = (
                {int(d): float(np.float32(rng.uniform(0.1, 3))) for d in dims} if rng.random() < 0.9 else None
            )
            self.lang[i] = str(rng.choice(["en", "de", "fr"])) if rng.random() < 0.9 else None
            self.year[i] = int(rng.integers(1990, 2026))
        self.docs.upsert(
            ids=ids,
            vectors={"dense": [self.dense[i] for i in ids], "sparse": [self.sparse[i] for i in ids]},
            fields={
                "body": [self.texts[i] for i in ids],
                "lang": [self.lang[i] for i in ids],
                "year": [self.year[i] for i in ids],
            },
        )

    def delete(self, ids: list[int]) -> None:
        self.docs.delete(ids=ids)
        for column in (self.texts, self.dense, self.sparse, self.lang, self.year):
            for i in ids:
                del column[i]

    def check(self, limit: int = 10) -> None:
        """Every kind of query gives what the references give."""
        vector, words, dims = self.rng.standard_normal(6), "running alpha the fox", {1: 1.0, 5: 0.5, 9: 2.0}
        near_scores = reference.cosine(self.dense, vector)
        match_scores = reference.bm25(self.texts, words)
        sparse_scores = reference.product(self.sparse, dims)
        query = self.docs.query
        reference.same_ranking(query(near("dense", vector).limit(limit)), near_scores, limit)
        reference.same_ranking(query(match("body", words).limit(limit)), match_scores, limit)
        reference.same_ranking(self.docs.search(words, k=limit, using="body"), match_scores, limit)
        reference.same_ranking(query(sparse("sparse", dims).limit(limit)), sparse_scores, limit)
        for year in (1990, 2010, 2025):
            where = F.year >= year

            def kept(i: int, year: int = year) -> bool:
                return bool(self.year[i] >= year)

            branches = [near("dense", vector), match("body", words), sparse("sparse", dims)]
            found = [query(branch.limit(10_000), where=where) for branch in branches]
            for hits, scores in zip(found, (near_scores, match_scores, sparse_scores), strict=True):
                reference.same_ranking(hits, reference.only(scores, kept), 10_000)
            fused = fuse(*branches)
            lists = [dict(zip(hits.ids, hits.scores, strict=True)) for hits in found]
            reference.same_ranking(query(fused.limit(limit), where=where), reference.rrf(lists), limit)
            everything = query(fused.limit(10_000), where=where)
            assert set(everything.ids) == {i for i in query(fused.limit(10_000)).ids if kept(i)}


@pytest.fixture
def library(db: gg.Database, rng: np.random.Generator, small_bounds: None) -> Library:
    return Library(db, rng, 240)


def test_queries_agree_with_the_references_wherever_rows_lie(library: Library, db: gg.Database) -> None:
    library.check()
    library.delete(list(range(0, 240, 3)))
    library.check()
    library.write(list(range(100, 130)))
    library.check()
    assert db.maintain(timeout=60)
    library.check()
    db.compact()
    library.check(limit=200)
    path = db.path
    db.close()
    with gg.open(path) as again:
        library.docs = again["library"]
        library.check()
        assert again.verify().ok


def test_a_filter_gives_the_hits_of_filtering_everything(db: gg.Database, rng: np.random.Generator) -> None:
    n = 4000
    docs = db.create_collection(
        "many", fields={"body": gg.Text(bm25=True), "rank": gg.Int()}, vectors={"dense": gg.Dense(8)}
    )
    vectors = rng.standard_normal((n, 8), dtype=np.float32)
    ranks = np.argsort(np.argsort(-vectors[:, 0]))  # the filter is correlated with the query
    texts = [" ".join(rng.choice(WORDS, 12)) for _ in range(n)]
    docs.upsert(ids=list(range(n)), vectors={"dense": vectors}, fields={"body": texts, "rank": ranks})
    query = np.eye(8, dtype=np.float32)[0]
    branches = [near("dense", query, k=n), match("body", "alpha fox running", k=n)]
    everything = [docs.query(branch.limit(n)) for branch in branches]
    for share in (0.5, 0.1, 0.01, 0.001):
        for where in (F.rank < int(share * n), F.rank >= n - int(share * n)):
            kept = set(docs.query(near("dense", query).limit(n), where=where).ids)
            assert len(kept) == int(share * n)
            lists = []
            for branch, whole in zip(branches, everything, strict=True):
                found = docs.query(branch.limit(n), where=where)
                expected = [(i, s) for i, s in zip(whole.ids, whole.scores, strict=True) if i in kept]
                assert list(zip(found.ids, found.scores, strict=True)) == expected
                lists.append(dict(expected))
            fused = docs.query(fuse(*branches).limit(10), where=where)
            reference.same_ranking(fused, reference.rrf(lists), 10)
            pushed = docs.query(fuse(*(branch.where(where) for branch in branches)).limit(10))
            assert (fused.ids, fused.scores.tolist()) == (pushed.ids, pushed.scores.tolist())


def test_scores_have_the_same_bits_before_and_after_rows_move(library: Library, db: gg.Database) -> None:
    library.delete(list(range(0, 240, 5)))
    queries = [match("body", "quick brown running"), sparse("sparse", {1: 1.0, 2: 0.3}), near("dense", np.ones(6))]
    fused = fuse(*queries, by=MinMax(weights=(1, 2, 3)))
    before = [library.docs.query(q.limit(50)) for q in [*queries, fused]]
    assert db.maintain(timeout=60)
    db.compact()
    for one, q in zip(before, [*queries, fused], strict=True):
        after = library.docs.query(q.limit(50))
        assert after.ids == one.ids
        assert np.array_equal(after.scores, one.scores)


def test_a_batch_of_queries_gives_what_each_gives(library: Library) -> None:
    texts = ["alpha beta", "the", "fox fox quick", ""]
    for hits, text in zip(library.docs.search(texts, using="body"), texts, strict=True):
        alone = library.docs.query(match("body", text))
        assert (hits.ids, hits.scores.tolist()) == (alone.ids, alone.scores.tolist())
    several = library.docs.query([match("body", "alpha").limit(3), near("dense", np.ones(6)).limit(4)])
    assert [len(h) for h in several] == [3, 4]
    vectors = [{1: 1.0}, ([2, 3], [1.0, 0.5])]
    for hits, vector in zip(library.docs.search(vectors, using="sparse"), vectors, strict=True):
        assert hits.ids == library.docs.query(sparse("sparse", vector)).ids


@pytest.fixture
def phrases(docs: gg.Collection, db: gg.Database) -> gg.Collection:
    made = db.create_collection("phrases", fields={"body": gg.Text(bm25=True, positions=True)})
    made.upsert(
        ids=["a", "b", "c", "d", "e"],
        fields={
            "body": [
                "The quick brown fox",
                "a brown, quick fox",
                "quick and brown",
                "Foxes are quickly running to the house of cards",
                None,
            ]
        },
    )
    return made


@pytest.mark.parametrize(
    ("op", "text", "expected"),
    [
        ("any", "quick house", {"a", "b", "c", "d"}),
        ("all", "quick fox", {"a", "b", "d"}),
        ("all", "quick zebra", set()),
        ("phrase", "quick brown", {"a"}),
        ("phrase", "quick the brown", {"c"}),
        ("phrase", "house of cards", {"d"}),
        ("phrase", "of", set()),
        ("prefix", "brown fo", {"a", "b", "c", "d"}),
        ("prefix", "runn", {"d"}),
        ("prefix", "qu", {"a", "b", "c", "d"}),
        ("fuzzy", "qiuck", {"a", "b", "c", "d"}),
        ("fuzzy", "hose", {"d"}),
        ("fuzzy", "zz", set()),
        ("prefix", "qu qu", {"a", "b", "c", "d"}),
    ],
)
def test_operators_find_the_rows_they_say(phrases: gg.Collection, op: Any, text: str, expected: set[str]) -> None:
    hits = phrases.query(match("body", text, op=op))
    assert set(hits.ids) == expected


def test_a_phrase_and_all_words_hold_across_segments_and_tail(library: Library, db: gg.Database) -> None:
    def with_phrase(text: str | None) -> bool:
        words = (text or "").split()
        return any(a == "quick" and b == "brown" for a, b in itertools.pairwise(words))

    expected = {i for i, text in library.texts.items() if with_phrase(text)}
    assert set(library.docs.query(match("body", "quick brown", op="phrase").limit(500)).ids) == expected
    assert db.maintain(timeout=60)
    assert set(library.docs.query(match("body", "quick brown", op="phrase").limit(500)).ids) == expected
    both = {i for i, text in library.texts.items() if text and {"quick", "fox"} <= set(text.split())}
    assert set(library.docs.query(match("body", "quick fox", op="all").limit(500)).ids) == both


def test_highlights_are_the_words_searched_for(phrases: gg.Collection) -> None:
    hits = phrases.query(match("body", "FOX running"))
    text = {h.id: h["body"] for h in hits}
    found = {
        i: [text[i][s.start : s.end] for s in spans] for i, spans in zip(hits.ids, hits.highlights("body"), strict=True)
    }
    assert found == {"a": ["fox"], "b": ["fox"], "d": ["Foxes", "running"]}
    phrase = phrases.query(match("body", "quick brown", op="phrase"))
    (span,) = phrase.highlights("body")[0]
    assert phrase[0]["body"][span.start : span.end] == "quick brown"
    with pytest.raises(InvalidArgument, match="searched"):
        hits.highlights("title")


def test_groups_limits_and_offsets_cut_the_ranking(library: Library) -> None:
    whole = library.docs.query(match("body", "alpha beta gamma").limit(500))
    assert library.docs.query(match("body", "alpha beta gamma").offset(7).limit(5)).ids == whole.ids[7:12]
    assert library.docs.query(match("body", "alpha beta gamma").limit(5).offset(7)).ids == whole.ids[7:12]
    seen: dict[Any, int] = {}
    expected = []
    for hit in whole:
        seen[hit["lang"]] = seen.get(hit["lang"], 0) + 1
        if seen[hit["lang"]] <= 2:
            expected.append(hit.id)
    assert library.docs.query(match("body", "alpha beta gamma").group("lang", per=2).limit(8)).ids == expected
    with pytest.raises(SchemaMismatch):
        library.docs.query(match("body", "alpha").group("nothing"))


@pytest.mark.parametrize(
    "reorder",
    [
        lambda q: q,
        lambda q: q.diversify(0.0),
        lambda q: q.diversify(0.0, candidates=240),
        lambda q: q.boost(0.0),
        lambda q: q.boost(0.0).limit(240),
        lambda q: fuse(q).limit(240),
        lambda q: fuse(q).offset(0).limit(240),
        lambda q: q.where("year > 0"),
    ],
)
def test_groups_are_found_however_deep_they_lie(library: Library, reorder: Any) -> None:
    many = [i for i, v in library.dense.items() if v is not None]
    library.docs.update(ids=many, fields={"lang": ["same"] * len(many)})
    query = near("dense", np.ones(6))
    last = library.docs.query(query.limit(240)).ids[-4:]
    library.docs.update(ids=last, fields={"lang": ["a", "b", "c", "d"]})
    found = library.docs.query(reorder(query).group("lang").limit(5))
    assert {h["lang"] for h in found} == {"same", "a", "b", "c", "d"}


def test_pages_of_a_reordered_query_do_not_overlap_when_its_leaf_says_how_deep(library: Library) -> None:
    for query in (
        match("body", "alpha fox", k=200).boost(0.01 * F.year),
        near("dense", np.ones(6), k=200).diversify(0.4),
    ):
        pages = [library.docs.query(query.offset(at).limit(10)).ids for at in range(0, 100, 10)]
        assert len({i for page in pages for i in page}) == sum(map(len, pages)) > 50


def test_prefixes_and_fuzzy_words_stand_for_words_of_live_rows(db: gg.Database) -> None:
    docs = db.create_collection("words", fields={"body": gg.Text(bm25=True)})
    docs.upsert(ids=list(range(400)), fields={"body": [f"ab{i:04}" for i in range(400)]})
    docs.delete(ids=list(range(100)))
    for _ in range(2):
        assert len(docs.query(match("body", "ab", op="prefix").limit(500))) == 64
        assert docs.query(match("body", "ab0001", op="fuzzy").limit(3)).complete.why == ""
        db.maintain()
        db.compact()
    docs.upsert(ids=["x"], fields={"body": ["cafétéria"]})
    assert docs.query(match("body", "cafet", op="prefix")).ids == ["x"]
    assert docs.query(match("body", "Cafét", op="prefix")).ids == ["x"]


def test_every_text_that_was_searched_is_highlighted(phrases: gg.Collection) -> None:
    hits = phrases.query(fuse(match("body", "fox"), match("body", "house of cards", op="phrase")))
    text = {h.id: h["body"] for h in hits}
    found = {
        i: [text[i][s.start : s.end] for s in spans] for i, spans in zip(hits.ids, hits.highlights("body"), strict=True)
    }
    assert found == {"a": ["fox"], "b": ["fox"], "d": ["Foxes", "house of cards"]}


def test_a_limit_far_beyond_the_rows_costs_nothing(library: Library) -> None:
    for query in (near("dense", np.ones(6)), match("body", "alpha"), sparse("sparse", {1: 1.0})):
        assert len(library.docs.query(query.limit(10**12))) <= 240
    assert len(library.docs.search(np.ones(6), using="dense", k=10**12)) <= 240


def test_boosts_add_to_the_score(library: Library) -> None:
    whole = library.docs.query(match("body", "alpha").limit(500))
    boosted = library.docs.query(
        match("body", "alpha").limit(500).boost(0.01 * F.year + (F.lang == "en") * 2 - 1).limit(500)
    )
    expected = {h.id: h.score + 0.01 * h["year"] + (2 if h["lang"] == "en" else 0) - 1 for h in whole}
    reference.same_ranking(boosted, expected, 500)
    last = library.docs.query(match("body", "alpha", k=500).boost((F.year >= 0) * 0 + 0.0).limit(1000))
    assert len(last) == len(whole)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    library.docs.update(ids=[whole.ids[3]], fields={"when": [now - timedelta(days=30)]})
    fresh = library.docs.query(
        match("body", "alpha").limit(500).boost(8 * F.when.recency(half_life=timedelta(days=30), origin=now)).limit(1)
    )
    assert fresh.ids == [whole.ids[3]]
    assert fresh.scores[0] == pytest.approx(whole.scores[3] + 4, rel=1e-5)
    for wrong in (F.lang.log1p(), F.nothing * 1, F.year.recency(half_life=timedelta(1))):
        with pytest.raises(SchemaMismatch):
            library.docs.query(match("body", "alpha").boost(wrong))


def test_like_finds_neighbours_of_rows_and_not_the_rows(library: Library) -> None:
    good = [i for i, v in library.dense.items() if v is not None][:3]
    unit = [library.dense[i] / np.linalg.norm(library.dense[i]) for i in good]
    query = 2 * (unit[0] + unit[1]) / 2 - unit[2]
    expected = reference.only(reference.cosine(library.dense, query), lambda i: i not in good)
    reference.same_ranking(library.docs.query(like(good[:2], unlike=good[2], using="dense")), expected, 10)
    with pytest.raises(NotFound, match="no_such"):
        library.docs.query(like(["no_such"]))


def test_diversity_trades_score_for_difference(library: Library) -> None:
    query = near("dense", np.ones(6))
    assert library.docs.query(query.diversify(0.0)).ids == library.docs.query(query).ids
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], np.float32)
    assert diversify(np.array([1.0, 0.99, 0.5], np.float32), vectors, 0.5, 3).tolist() == [0, 2, 1]


def test_facets_count_what_a_query_finds(library: Library) -> None:
    found = library.docs.query(match("body", "alpha").limit(500))
    expected: dict[Any, int] = {}
    for hit in found:
        if hit["lang"] is not None:
            expected[hit["lang"]] = expected.get(hit["lang"], 0) + 1
    assert library.docs.facets("lang", query=match("body", "alpha")) == expected


def test_an_explanation_is_a_tree_with_reasons(library: Library) -> None:
    query = fuse(near("dense", np.ones(6)), match("body", "alpha")).group("lang", per=2).limit(5)
    text = str(library.docs.query(query, where="year > 2000").explain())
    assert all(word in text for word in ("query", "├─", "└─", "RRF", "near", "match", "filter selects", "fetch", "ms"))


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (lambda: match("body", ""), None, "no words"),
        (lambda: match("body", "the of"), None, "no words"),
        (lambda: match("body", "x" * 1_000_000), None, "0 of"),
        (lambda: match("body", " ".join(f"w{i}" for i in range(150_000))), None, "rarest"),
        (lambda: match("nothing", "a"), SchemaMismatch, "nothing"),
        (lambda: match("lang", "a"), SchemaMismatch, "bm25"),
        (lambda: sparse("dense", {1: 1.0}), SchemaMismatch, "dense"),
        (lambda: sparse("sparse", {1: -1.0}), InvalidArgument, "above 0"),
        (lambda: sparse("sparse", {-1: 1.0}), InvalidArgument, "dimensions"),
        (lambda: sparse("sparse", ([1, 1], [1.0, 2.0])), InvalidArgument, "once"),
        (lambda: sparse("sparse", "words"), SchemaMismatch, "dict"),
        (lambda: near("dense", "words"), gg.errors.NotReady, "embedder"),
        (lambda: near("dense", np.ones((2, 6))), InvalidArgument, "one vector"),
        (lambda: near("dense", np.ones(6)).where("nothing = 1"), SchemaMismatch, "nothing"),
    ],
)
def test_a_query_that_cannot_be_run_says_why(library: Library, query: Any, error: Any, message: str) -> None:
    if error is None:
        hits = library.docs.query(query())
        assert len(hits) == 0
        assert message in hits.complete.why
    else:
        with pytest.raises(error, match=message):
            library.docs.query(query())


@pytest.mark.parametrize(
    "make",
    [
        lambda: match("body", 5),
        lambda: match("body", "a", op="some"),
        lambda: match("body", "a", k=0),
        lambda: near("dense", [1.0], radius=float("nan")),
        lambda: fuse(),
        lambda: fuse(match("body", "a"), by=RRF(weights=(1.0, 2.0))),
        lambda: fuse(match("body", "a"), "words"),
        lambda: RRF(k=-1),
        lambda: MinMax(weights=(0.0, 0.0)),
        lambda: DBSF(weights=("a",)),
        lambda: match("body", "a").limit(0),
        lambda: match("body", "a").offset(-1),
        lambda: match("body", "a").diversify(2),
        lambda: match("body", "a").group("lang", per=0),
        lambda: match("body", "a").boost("year"),
        lambda: match("body", "a").boost(float("inf")),
        lambda: like([]),
        lambda: F.when.recency(half_life=timedelta(0)),
        lambda: gg.Text(k1=-1),
        lambda: gg.Text(b=2),
        lambda: gg.Text(positions=True),
    ],
)
def test_a_query_that_cannot_be_made_is_refused_at_once(make: Any) -> None:
    with pytest.raises(InvalidArgument):
        make()


def test_queries_of_the_wrong_kind_say_so(library: Library) -> None:
    for call in (
        lambda: library.docs.query([1]),
        lambda: library.docs.query("alpha"),
        lambda: library.docs.search(["a", None], using="body"),
        lambda: library.docs.search({1: 1.0}, using="body"),
    ):
        with pytest.raises(InvalidArgument, match="expects"):
            call()
    with pytest.raises(NotFound, match="12345"):
        library.docs.query(like(12345))


def test_an_unknown_language_and_a_source_that_is_no_text_are_refused(db: gg.Database) -> None:
    with pytest.raises(InvalidArgument, match="language"):
        db.create_collection("x", fields={"body": gg.Text(bm25=True, language="klingon")})
    with pytest.raises(InvalidArgument, match="source"):
        db.create_collection("x", fields={"n": gg.Int()}, vectors={"v": gg.Dense(2, source="n")})
    assert "x" not in db


def test_sparse_vectors_come_back_as_they_were_written(db: gg.Database) -> None:
    docs = db.create_collection("s", vectors={"s": gg.Sparse()})
    docs.upsert([{"id": 1, "s": {7: 2.0, 3: 0.5}}, {"id": 2, "s": {}}, {"id": 3}, {"id": 4, "s": {9: 0.0}}])
    assert docs.get([1, 2, 3, 4], include_vectors=True) == [
        {"id": 1, "s": {3: 0.5, 7: 2.0}},
        {"id": 2, "s": {}},
        {"id": 3, "s": None},
        {"id": 4, "s": {}},
    ]
    table = next(docs.scan(include_vectors=True, batch_size=10))
    copy = db.create_collection("copy", vectors={"s": gg.Sparse()})
    copy.upsert(table)
    assert list(copy.scan(include_vectors=True)) == list(docs.scan(include_vectors=True))
    for wrong in ({1: float("nan")}, {1: -1}, {-1: 1.0}, {1 << 32: 1.0}, [1, 2, 3], "x", ([1, 2], [1.0]), {1.5: 1.0}):
        with pytest.raises(InvalidArgument):
            docs.upsert([{"id": 1, "s": wrong}])
    assert docs.count() == 4


def test_a_damaged_inverted_index_is_reported_made_again_and_replaced(
    library: Library, db: gg.Database, caplog: pytest.LogCaptureFixture
) -> None:
    assert db.maintain(timeout=60)
    before = library.docs.query(match("body", "alpha fox"))

    def damage(session: Any) -> None:
        (part, *_) = session.segments(session.collection("library"))
        ref = part.record.inverted["body"].blobs["rows"]
        value = bytearray(session.txn.get(blob_key(ref.key), db=session.env.table("blobs")))
        value[0] ^= 1
        session.txn.put(blob_key(ref.key), bytes(value), db=session.env.table("blobs"))

    db._store.write(damage)
    path = db.path
    db.close()
    with gg.open(path) as again:
        docs = again["library"]
        after = docs.query(match("body", "alpha fox"))
        assert (after.ids, after.scores.tolist()) == (before.ids, before.scores.tolist())
        assert "made again from the column" in caplog.text
        assert not again.verify().ok
        assert again.maintain(timeout=60)
        assert again.verify().ok
        assert docs.query(match("body", "alpha fox")).ids == before.ids
