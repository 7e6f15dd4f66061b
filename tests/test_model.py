"""Any sequence of calls leaves the database as a dict and NumPy would."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gingham as gg
import reference
from gingham import F, fuse, match, near, sparse
from gingham.errors import InvalidArgument

DIM = 3
IDS = st.one_of(st.integers(0, 30), st.sampled_from(["a", "b", "0", "1"]), st.just(b"x"))
YEARS = st.one_of(st.none(), st.integers(2000, 2005))
WORDS = "the quick brown fox runs running house houses".split()
Row = tuple[Any, Any]


def text_of(seed: int) -> str | None:
    rng = np.random.default_rng(seed)
    return None if seed % 7 == 0 else " ".join(rng.choice(WORDS, seed % 9))


def weights_of(seed: int) -> dict[int, float] | None:
    rng = np.random.default_rng(seed)
    return (
        None
        if seed % 5 == 0
        else {int(d): float(np.float32(rng.uniform(0.1, 2))) for d in rng.choice(6, seed % 4, False)}
    )


def vector_of(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


class Store(RuleBasedStateMachine):
    """The database beside a dict: id -> (year, vector or None, text or None, sparse vector or None)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[Any, Row] = {}
        self.snapshot: tuple[Any, dict[Any, Row]] | None = None
        self.backups = 0
        self.db: Any = None

    @initialize(metric=st.sampled_from(["cosine", "dot", "l2"]), dtype=st.sampled_from(["float32", "float16"]))
    def create(self, metric: Any, dtype: Any) -> None:
        self.metric, self.dtype = metric, dtype
        self.path = self.folder / "db"
        self.db = gg.open(self.path)
        self.db.create_collection(
            "c",
            fields={"year": gg.Int(), "body": gg.Text(bm25=True)},
            vectors={"v": gg.Dense(DIM, metric, dtype), "s": gg.Sparse()},
        )

    def stored(self, seed: int) -> Any:
        return vector_of(seed).astype(self.dtype)

    @rule(ids=st.lists(IDS, min_size=1, max_size=25), year=YEARS, seed=st.integers(0, 1000))
    def upsert(self, ids: list[Any], year: Any, seed: int) -> None:
        vectors = np.stack([vector_of(seed + i) for i in range(len(ids))])
        texts = [text_of(seed + n) for n in range(len(ids))]
        weights = [weights_of(seed + n) for n in range(len(ids))]
        result = self.db["c"].upsert(
            ids=ids, vectors={"v": vectors, "s": weights}, fields={"year": [year] * len(ids), "body": texts}
        )
        new = {i: (year, self.stored(seed + n), texts[n], weights[n]) for n, i in enumerate(ids)}
        assert result.inserted == len(new.keys() - self.model.keys())
        assert result.updated == len(new.keys() & self.model.keys())
        self.model.update(new)

    @rule(ids=st.lists(IDS, max_size=6), year=YEARS)
    def update(self, ids: list[Any], year: Any) -> None:
        result = self.db["c"].update(ids=ids, fields={"year": [year] * len(ids)})
        known = set(ids) & self.model.keys()
        assert (result.updated, result.missing) == (len(known), len(set(ids)) - len(known))
        for i in known:
            self.model[i] = (year, *self.model[i][1:])

    @rule(ids=st.lists(IDS, min_size=1, max_size=6, unique=True), seed=st.integers(0, 1000))
    def rewrite(self, ids: list[Any], seed: int) -> None:
        self.db["c"].update(
            ids=ids, fields={"body": [text_of(seed)] * len(ids)}, vectors={"s": [weights_of(seed)] * len(ids)}
        )
        for i in set(ids) & self.model.keys():
            self.model[i] = (*self.model[i][:2], text_of(seed), weights_of(seed))

    @rule(ids=st.lists(IDS, max_size=8))
    def delete(self, ids: list[Any]) -> None:
        result = self.db["c"].delete(ids=ids)
        assert result.deleted == len(set(ids) & self.model.keys())
        for i in ids:
            self.model.pop(i, None)

    @rule(year=st.integers(2000, 2005))
    def delete_where(self, year: int) -> None:
        self.db["c"].delete(where=F.year < year)
        self.model = {i: r for i, r in self.model.items() if r[0] is None or r[0] >= year}

    @rule(ids=st.lists(IDS, min_size=1, max_size=5), seed=st.integers(0, 1000), fail=st.booleans())
    def transaction(self, ids: list[Any], seed: int, fail: bool) -> None:
        before = dict(self.model)
        try:
            with self.db.transaction() as t:
                t["c"].upsert(ids=ids, vectors={"v": np.stack([vector_of(seed)] * len(ids))})
                t["c"].delete(ids=ids[:1])
                assert t["c"].count() == len(before)
                if fail:
                    raise KeyError
        except KeyError:
            assert fail
        else:
            self.model.update({i: (None, self.stored(seed), None, None) for i in ids})
            self.model.pop(ids[0], None)

    @rule(ids=st.lists(IDS, min_size=1, max_size=5))
    def refused(self, ids: list[Any]) -> None:
        with pytest.raises(InvalidArgument):
            self.db["c"].upsert(ids=ids, vectors={"v": np.full((len(ids), DIM), np.nan)})

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = (self.db.snapshot(), dict(self.model))

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def read_snapshot(self) -> None:
        assert self.snapshot is not None
        snapshot, model = self.snapshot
        self.same(snapshot["c"], model)
        snapshot.close()
        self.snapshot = None

    @rule()
    def compact(self) -> None:
        self.db.compact()

    @rule()
    def maintain(self) -> None:
        assert self.db.maintain(timeout=30)

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = gg.open(self.path)

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def restore(self) -> None:
        self.backups += 1
        backup = self.db.backup(self.folder / f"backup{self.backups}")
        self.db.close()
        self.path = self.folder / f"restored{self.backups}"
        gg.restore(backup, self.path)
        self.db = gg.open(self.path)

    @rule()
    def second_reader(self) -> None:
        with gg.open(self.path, mode="r") as reader:
            self.same(reader["c"], self.model)

    @rule()
    def verify(self) -> None:
        assert self.db.verify().ok

    @invariant()
    def agrees(self) -> None:
        if self.db is not None:
            self.same(self.db["c"], self.model)

    def same(self, docs: Any, model: dict[Any, Row]) -> None:
        rows = {row["id"]: row for row in docs.scan(include_vectors=True)}
        assert rows.keys() == model.keys()
        assert docs.count() == len(model)
        for i, (year, vector, text, weights) in model.items():
            assert (rows[i]["year"], rows[i]["body"], rows[i]["s"]) == (year, text, weights)
            assert np.array_equal(rows[i]["v"], vector)
        assert docs.count(where="year >= 2003") == sum(1 for r in model.values() if r[0] is not None and r[0] >= 2003)
        self.same_hits(docs, model)
        self.same_queries(docs, model)

    def same_hits(self, docs: Any, model: dict[Any, Row]) -> None:
        query = vector_of(99)
        hits = docs.search(query, k=5, where="year IS NOT NULL")
        eligible = [i for i, r in model.items() if r[0] is not None]
        assert len(hits) == min(5, len(eligible))
        if eligible:
            matrix = np.stack([model[i][1] for i in eligible]).astype(np.float64)
            if self.metric == "l2":
                scores = -np.square(matrix - query).sum(axis=1)
            else:
                scores = matrix @ query.astype(np.float64)
                if self.metric == "cosine":
                    scores /= np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
            np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][:5], rtol=1e-5, atol=1e-6)

    def same_queries(self, docs: Any, model: dict[Any, Row]) -> None:
        words, weights = "running fox the house", {0: 1.0, 3: 0.5}
        texts = reference.bm25({i: r[2] for i, r in model.items()}, words)
        products = reference.product({i: r[3] for i, r in model.items()}, weights)
        branches = [match("body", words), sparse("s", weights), near("v", vector_of(99))]
        found = [docs.query(branch.limit(100), where="year >= 2002") for branch in branches]

        def kept(i: Any) -> bool:
            return model[i][0] is not None and bool(model[i][0] >= 2002)

        reference.same_ranking(found[0], reference.only(texts, kept), 100)
        reference.same_ranking(found[1], reference.only(products, kept), 100)
        lists = [dict(zip(hits.ids, hits.scores, strict=True)) for hits in found]
        fused = docs.query(fuse(*branches).limit(7), where="year >= 2002")
        reference.same_ranking(fused, reference.rrf(lists), 7)

    def teardown(self) -> None:
        if self.snapshot is not None:
            self.snapshot[0].close()
        if self.db is not None:
            self.db.close()
        shutil.rmtree(self.folder)


@pytest.mark.usefixtures("small_bounds")
class TestStore(Store.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


@pytest.mark.soak
@pytest.mark.usefixtures("small_bounds")
class TestStoreForLong(Store.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(
        max_examples=600, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )
