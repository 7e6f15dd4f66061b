"""Query trees over gRPC: what they find is what embedded ones find, and what cannot travel is said to."""

from __future__ import annotations

import datetime
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham import DBSF, RRF, F, MinMax, errors, fuse, like, match, maxsim, near, sparse
from gingham.clients.queries import QueryMessages
from gingham.clients.texts import TextQueries
from gingham.server import keys as key_files
from gingham.server.keys import create_key
from gingham.server.main import Server
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.queries import QueryTrees
from gingham.wire import MOST_QUERY_DEPTH, MOST_QUERY_NODES
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gingham.query.nodes import Query

RNG = np.random.default_rng(5)
X = RNG.standard_normal((60, 8), np.float32)
HALF_LIFE = datetime.timedelta(days=3)
ORIGIN = datetime.datetime(2024, 2, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)
TOKENS = RNG.standard_normal((3, 4))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A collection and the same over gRPC."""
    path = tmp_path_factory.mktemp("queries") / "db"
    with (
        gg.open(path) as db,
        Server(db, listen="127.0.0.1:0", max_workers=2) as server,
        gg.open(f"grpc://{server.address}") as remote,
    ):
        docs = db.create_collection(
            "docs",
            fields={
                "year": gg.Int(), "views": gg.Float(), "lang": gg.Keyword(), "body": gg.Text(bm25=True, positions=True),
                "on": gg.Timestamp(), "extra": gg.Json(), "ok": gg.Bool(),
            },
            vectors={"dense": gg.Dense(8), "other": gg.Dense(4, "l2"), "splade": gg.Sparse(), "tokens": gg.Tokens(4)},
        )  # fmt: skip
        words = "red green blue house garden tree river stone".split()
        docs.upsert([
            {
                "id": at if at % 3 else f"text {at}", "year": 2000 + at % 20, "views": at / 7, "lang": "de" if at % 4 else None,
                "body": " ".join(words[(at + j * j) % 8] for j in range(4)), "ok": at % 2 == 0, "extra": [at],
                "on": ORIGIN - datetime.timedelta(hours=at), "dense": X[at], "splade": {at % 5: 1.0 + at, 9: 0.5},
                "other": X[at, :4] if at % 5 else None, "tokens": RNG.standard_normal((1 + at % 3, 4)),
            }
            for at in range(60)
        ])  # fmt: skip
        yield docs, remote["docs"]


BASE = fuse(near("dense", X[3]), match("body", "red stone"))
QUERIES: dict[str, Query] = {
    "near": near("dense", X[3]),
    "near a list": near("dense", X[3].tolist()).limit(3),
    "near integers": near("dense", [1, 0, -2, 3, 0, 0, 0, 1]),
    "near of doubles, with all options": near("dense", X[3].astype(float), k=20, radius=0.1, oversample=2, ef_search=70, nprobe=3),
    "near of a batch of one": near("dense", X[3:4], exact=True),
    "near with a target": near("dense", X[3], target_recall=0.9),
    "near several vectors": near("dense", gg.combine([(X[3], 1), (X[4].tolist(), -0.5)], away=X[5])),
    "tokens": near("tokens", TOKENS),
    "tokens of bools": near("tokens", np.ones((2, 4), bool)),
    "tokens in lists": near("tokens", [[1, 0, 0, 0], [0, 1, 0, 0.5]], k=4, radius=-1),
    "match": match("body", "red house"),
    "match all": match("body", "red house", op="all"),
    "match a phrase": match("body", "red green", op="phrase"),
    "match a prefix": match(None, "red ho", op="prefix", k=3),
    "match fuzzily": match("body", "hause", op="fuzzy"),
    "match of nothing": match("body", ""),
    "sparse": sparse("splade", {2: 1.0, 9: 0.25}),
    "sparse without a name": sparse(None, ([2, 9], [1.0, 0.25]), k=5),
    "sparse of nothing": sparse("splade", {}),
    "like": like(1, using="dense"),
    "like several and unlike one": like([1, 2, "text 3"], unlike=4, using="dense", k=7).limit(20),
    "fuse": BASE,
    "fuse by weighted ranks": fuse(near("dense", X[3]), match("body", "red"), sparse("splade", {1: 2}), by=RRF(k=10.5, weights=(1, 2, 0))),
    "fuse by scores": fuse(near("dense", X[3], k=9), match("body", "red", k=9), by=MinMax((1, 3))),
    "fuse by distributions": fuse(near("dense", X[3], k=9), match("body", "red", k=9), by=DBSF()),
    "where": BASE.where("year > 2010 AND lang = 'de'"),
    "where in a branch": fuse(near("dense", X[3]).where(F.ok == True), match("body", "red").where(None)),  # noqa: E712
    "where in JSON": BASE.where({"op": "in", "field": "year", "values": [2001, 2002]}),
    "where with an instant": BASE.where(F.on >= ORIGIN - datetime.timedelta(hours=9)),
    "boost": BASE.boost(0.1 * F.views.log1p() - F.ok * 2 + (F.year > 2010) / 3),
    "boost with recency": BASE.boost(F.on.recency(half_life=HALF_LIFE, origin=ORIGIN)),
    "boost of a long sum": BASE.boost(sum((F.views * at for at in range(1, 60)), 0.5 * F.views)),
    "boost by one number": BASE.boost(2),
    "diversify": near("dense", X[3]).diversify(0.7, using="dense", candidates=30),
    "expand": near("dense", X[3]).limit(4).expand(2, parent="lang", ordinal="year"),
    "expand in a tree": BASE.expand(1 << 70, parent="lang", ordinal="year").where("year > 2003").limit(7),
    "group": BASE.group("lang", per=2),
    "limit and offset": BASE.offset(2).limit(4),
    "offset of a limit": BASE.limit(9).offset(3),
    "limits in limits": BASE.limit(9).offset(1).limit(20).limit(3).offset(0),
    "huge counts": near("dense", X[3], k=10**30).offset(1).limit(1 << 62).offset(1 << 61),
    "more huge counts": BASE.diversify(0.5, using="dense", candidates=1 << 80).rerank(maxsim("tokens", TOKENS), k=1 << 70).group("lang", per=1 << 65),
    "rerank": BASE.rerank(maxsim("tokens", TOKENS), k=20).limit(5),
    "rerank without a name": near("dense", X[3]).rerank(maxsim(None, np.ones((1, 4), bool)), k=9),
    "all of them": fuse(BASE.boost(F.views), like(2, using="dense")).where("year > 2001").group("year").diversify(0.3, using="dense").limit(8).offset(2),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_queries_find_the_same_to_the_bit(both: tuple[Any, Any], name: str) -> None:
    here, there = both
    options: dict[str, Any]
    for options in ({}, {"where": F.year > 2003, "fields": ["extra", "body"], "timeout": 60}, {"fields": []}):
        same_hits(here.query(QUERIES[name], **options), there.query(QUERIES[name], **options))


def test_several_queries_run_on_one_commit(both: tuple[Any, Any]) -> None:
    here, there = both
    several = list(QUERIES.values())
    same_hits(here.query(several), there.query(several))
    same_hits(here.query(several[:1]), there.query(tuple(several[:1])))
    same_hits(here.query([]), there.query([]))


def test_remarks_of_a_model_travel(both: tuple[Any, Any]) -> None:
    here, there = both
    query = gg.query.nodes.Fuse((match("body", "red"),), RRF(), ("the model was away",))
    same_hits(here.query(query), there.query(query))
    assert "the model was away" in there.query(query).complete.why


NOTHING = gg.query.nodes.Query()
BAD: dict[str, Any] = {
    "no query": lambda c: c.query("red"),
    "no query in a list": lambda c: c.query([near("dense", X[0]), 3]),
    "the base class": lambda c: c.query(NOTHING),
    "unknown field": lambda c: c.query(near("dens", X[0])),
    "field name of another type": lambda c: c.query(near(3, X[0])),
    "field not named": lambda c: c.query(near(None, X[0])),
    "vector of another width": lambda c: c.query(near("dense", [1.0])),
    "a batch": lambda c: c.query(near("dense", X[:2])),
    "NaN": lambda c: c.query(near("dense", [float("nan")] * 8)),
    "three axes": lambda c: c.query(near("dense", np.zeros((1, 2, 8)))),
    "no numbers": lambda c: c.query(near("dense", object)),
    "text without an embedder": lambda c: c.query(near("dense", "red house")),
    "texts without an embedder": lambda c: c.query(near("dense", ["red", "house"])),
    "one token": lambda c: c.query(near("tokens", [1, 2, 3, 4])),
    "no tokens": lambda c: c.query(near("tokens", [])),
    "tokens of text": lambda c: c.query(near("tokens", {"a": 1})),
    "tokens of another width": lambda c: c.query(BASE.rerank(maxsim("tokens", np.ones((1, 3))))),
    "tokens that are none": lambda c: c.query(BASE.rerank(maxsim("tokens", ["a"]))),
    "no token field": lambda c: c.query(BASE.rerank(maxsim("dense", np.ones((1, 4))))),
    "match of no text field": lambda c: c.query(match("lang", "de")),
    "sparse of a dimension twice": lambda c: c.query(sparse("splade", ([1, 1], [1.0, 1.0]))),
    "sparse of no vector": lambda c: c.query(sparse("splade", 3)),
    "like of nothing": lambda c: c.query(like("none", using="dense")),
    "like without a vector": lambda c: c.query(like("text 0", using="other")),
    "like without a name": lambda c: c.query(like(1)),
    "a filter of an unknown field": lambda c: c.query(BASE.where("yeer > 1")),
    "a filter that does not parse": lambda c: c.query(BASE.where("year >")),
    "a filter of another type": lambda c: c.query(BASE.where(F.year == "x")),
    "an outer filter of another type": lambda c: c.query(BASE, where=F.year == "x"),
    "a boost of text": lambda c: c.query(BASE.boost(F.body * 2)),
    "a boost of no instant": lambda c: c.query(BASE.boost(F.year.recency(half_life=HALF_LIFE))),
    "a boost of a name that is none": lambda c: c.query(BASE.boost(F[3] * 2)),
    "a boost with a wrong filter": lambda c: c.query(BASE.boost((F.yeer > 1) * 2)),
    "expansion by an unknown field": lambda c: c.query(BASE.expand(parent="lang", ordinal="yeer")),
    "expansion by no number": lambda c: c.query(BASE.expand(parent="lang", ordinal="body")),
    "expansion by a name that is none": lambda c: c.query(BASE.expand(parent=3, ordinal="year")),
    "groups of an unknown field": lambda c: c.query(BASE.group("yeer")),
    "groups of a name that is none": lambda c: c.query(BASE.group(3)),
    "diversity by an unknown vector": lambda c: c.query(BASE.diversify(0.5, using="x")),
    "diversity by none": lambda c: c.query(BASE.diversify(0.5)),
    "unknown payload": lambda c: c.query(BASE, fields=["yeer"]),
    "no list of names": lambda c: c.query(BASE, fields="year"),
    "no time": lambda c: c.query(BASE, timeout=0),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors_of_queries_are_the_same(both: tuple[Any, Any], name: str) -> None:
    one, other = (raised(lambda docs=docs: BAD[name](docs)) for docs in both)
    assert type(one) is type(other)
    assert str(one) == str(other)


def deep(levels: int) -> Query:
    query: Query = near("dense", X[0])
    for _ in range(levels - 1):
        query = query.where("year > 2000")
    return query


def test_what_does_not_travel_says_what_to_do(both: tuple[Any, Any]) -> None:
    here, there = both
    cases: list[tuple[Any, type[Exception], str]] = [
        (near("dense", gg.combine({"red": 1})), errors.NotReady, "embed 'red' yourself"),
        (match("body", "\ud800"), errors.InvalidArgument, "UTF-8"),
        (deep(MOST_QUERY_DEPTH + 1), errors.InvalidArgument, f"at most {MOST_QUERY_DEPTH} deep"),
        ([deep(8)] * (MOST_QUERY_NODES // 8 + 1), errors.InvalidArgument, f"at most {MOST_QUERY_NODES} nodes"),
        (BASE.boost(sum((F.views for _ in range(MOST_QUERY_NODES)), 0.0)), errors.InvalidArgument, "nodes"),
    ]  # fmt: skip
    for query, kind, words in cases:
        error = raised(lambda query=query: there.query(query))
        assert type(error) is kind
        assert words in str(error)
    same_hits(here.query(deep(MOST_QUERY_DEPTH)), there.query(deep(MOST_QUERY_DEPTH)))
    same_hits(here.query([deep(8)] * (MOST_QUERY_NODES // 8)), there.query([deep(8)] * (MOST_QUERY_NODES // 8)))
    long = BASE.boost(sum((F.views for _ in range(MOST_QUERY_NODES - 9)), 0.0))
    same_hits(here.query(long), there.query(long))


def test_time_that_is_over_ends_a_query(both: tuple[Any, Any]) -> None:
    error = raised(lambda: both[1].query(BASE, timeout=1e-9))
    assert type(error) is errors.DeadlineExceeded
    assert "timeout=1e-09 s" in str(error)


def leaf() -> pb.QueryNode:
    return pb.QueryNode(match=pb.MatchNode(field="body", text="red"))


def nested(levels: int) -> pb.QueryNode:
    node = leaf()
    for _ in range(levels):
        node = pb.QueryNode(where=pb.WhereNode(child=node))
    return node


@pytest.mark.parametrize(
    "node",
    [
        pb.QueryNode(), pb.QueryNode(near=pb.NearNode(field="dense")), pb.QueryNode(limit=pb.LimitNode()),
        pb.QueryNode(near=pb.NearNode(vectors=pb.Array(data=b"12", dtype=2, shape=[1]))),
        pb.QueryNode(match=pb.MatchNode(field="body", text="red", operator=77)), nested(40),
        pb.QueryNode(sparse=pb.SparseNode(query=pb.SparseVector(dimensions=b"123"))),
        pb.QueryNode(like=pb.LikeNode()), pb.QueryNode(like=pb.LikeNode(ids=pb.Ids(values=[b"?"]))),
        pb.QueryNode(fuse=pb.FuseNode()), pb.QueryNode(fuse=pb.FuseNode(branches=[leaf()], rrf=pb.Rrf(k=-1))),
        pb.QueryNode(fuse=pb.FuseNode(branches=[leaf()], dbsf=pb.Dbsf(weights=[1, 2]))),
        pb.QueryNode(fuse=pb.FuseNode(branches=[leaf()] * 600)),
        pb.QueryNode(rerank=pb.RerankNode(child=leaf(), cross_encoder=pb.CrossEncoder(field="body", scores=b"123"), k=3)),
        pb.QueryNode(rerank=pb.RerankNode(child=leaf(), cross_encoder=pb.CrossEncoder(field="body", scores=b"1234"), k=3)),
        pb.QueryNode(rerank=pb.RerankNode(child=leaf(), cross_encoder=pb.CrossEncoder(field="body"), k=0)),
        pb.QueryNode(near=pb.NearNode(field="dense", passages=pb.Passages())),
        pb.QueryNode(near=pb.NearNode(field="dense", passages=pb.Passages(text="a", passages=["b", ""]))),
        pb.QueryNode(near=pb.NearNode(field="dense", passages=pb.Passages(text="a", passages=["b"], mix=7))),
        pb.QueryNode(where=pb.WhereNode(child=leaf(), where=pb.Filter(json="[]"))),
        pb.QueryNode(boost=pb.BoostNode(child=leaf())),
        pb.QueryNode(boost=pb.BoostNode(child=leaf(), value=pb.Value(sum=pb.Values(args=[pb.Value(number=1)])))),
        pb.QueryNode(boost=pb.BoostNode(child=leaf(), value=pb.Value(recency=pb.Recency(field="on")))),
        pb.QueryNode(boost=pb.BoostNode(child=leaf(), value=pb.Value(recency=pb.Recency(field="on", half_life=1, origin=2**62)))),
        pb.QueryNode(diversify=pb.DiversifyNode(child=leaf(), diversity=float("nan"))),
        pb.QueryNode(rerank=pb.RerankNode(child=leaf(), k=3)), pb.QueryNode(group=pb.GroupNode(child=leaf(), field="lang")),
        pb.QueryNode(rerank=pb.RerankNode(child=leaf(), maxsim=pb.MaxSim(query=pb.Array(dtype=2, shape=[1, 4]))), ),
        pb.QueryNode(limit=pb.LimitNode(child=leaf(), count=0)),
    ],
    ids=lambda node: str(node)[:60],
)  # fmt: skip
def test_malformed_trees_are_refused_with_a_reason(both: tuple[Any, Any], node: pb.QueryNode) -> None:
    request = pb.QueryRequest(collection="docs", queries=[node]).SerializeToString()
    with grpc.insecure_channel(both[1]._channel.address) as channel:
        call = channel.unary_unary("/gingham.v1.QueryService/Query", request_serializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details()


def test_a_tree_too_deep_for_protobuf_leaves_the_server_up(both: tuple[Any, Any]) -> None:
    for levels in (49, 60, 3000):
        packed = leaf().SerializeToString()
        for _ in range(levels):
            inner = pb.WhereNode().SerializeToString() + b"\x0a" + length(packed) + packed
            packed = b"\x32" + length(inner) + inner
        request = pb.QueryRequest(collection="docs").SerializeToString() + b"\x12" + length(packed) + packed
        with grpc.insecure_channel(both[1]._channel.address) as channel:
            call = channel.unary_unary("/gingham.v1.QueryService/Query", request_serializer=bytes)
            with pytest.raises(grpc.RpcError):
                call(request, timeout=20)
    assert both[1].count() == 60


def length(packed: bytes) -> bytes:
    """Length of a message as a varint."""
    number, out = len(packed), bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def alike(one: Any, other: Any) -> bool:
    """Trees of the same nodes and values; arrays in every bit."""
    if is_dataclass(one):
        return type(one) is type(other) and all(
            alike(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return same(one, other) if isinstance(one, np.ndarray) else one == other


COUNTS = st.none() | st.integers(1, 2**63 - 1)
NAMES = st.none() | st.text(max_size=5)
FLOATS = st.floats(-1e300, 1e300)
VECTORS = st.builds(
    lambda kind, rows: np.array(rows, kind),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.lists(st.floats(-100, 100), max_size=4) | st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=3),
)  # fmt: skip
FILTERS = st.sampled_from(
    [(F.a == 1).node, ((F.a > 1.5) & ~F.b.is_null() | F.c.startswith("x")).node, (F.on < ORIGIN).node, None]
)
IDS = st.integers(-9, 9) | st.text("ab", min_size=1) | st.binary(min_size=1) | st.uuids()
LEAVES = st.one_of(
    st.builds(near, NAMES, VECTORS | st.text(), k=COUNTS, radius=st.none() | FLOATS, exact=st.booleans(),
              oversample=st.none() | st.floats(1, 1e9), ef_search=st.none() | st.integers(1, 99)),
    st.builds(match, NAMES, st.text(), op=st.sampled_from(["any", "all", "phrase", "prefix", "fuzzy"]), k=COUNTS),
    st.builds(like, st.lists(IDS, min_size=1), unlike=st.lists(IDS), using=NAMES, k=COUNTS),
)  # fmt: skip
NUMBERS = st.recursive(
    st.builds(gg.query.values.Number, FLOATS) | st.builds(gg.query.values.FieldValue, st.text())
    | st.builds(gg.query.values.Truth, FILTERS.filter(bool))
    | st.builds(gg.query.values.Recency, st.text(), st.floats(1e-300, 1e300),
                st.none() | st.datetimes(timezones=st.just(datetime.UTC))),
    lambda inner: st.builds(gg.query.values.Sum, inner, inner) | st.builds(gg.query.values.Product, inner, inner)
    | st.builds(gg.query.values.Log1p, inner),
    max_leaves=8,
)  # fmt: skip


def fusions(branches: list[Query]) -> st.SearchStrategy[Query]:
    weights = st.none() | st.lists(st.floats(0.1, 10), min_size=len(branches), max_size=len(branches)).map(tuple)
    by = st.builds(RRF, st.floats(0, 1e9), weights) | st.builds(MinMax, weights) | st.builds(DBSF, weights)
    return st.builds(lambda by: fuse(*branches, by=by), by)


TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).flatmap(fusions),
        st.builds(lambda q, w: q.where(w), inner, FILTERS),
        st.builds(gg.query.nodes.Boosted, inner, NUMBERS),
        st.builds(lambda q, d, u, c: q.diversify(d, using=u, candidates=c), inner, st.floats(0, 1), NAMES, COUNTS),
        st.builds(lambda q, f, t, k: q.rerank(maxsim(f, t), k=k), inner, NAMES, VECTORS, st.integers(1, 99)),
        st.builds(lambda q, f, p: q.group(f, per=p), inner, st.text(), st.integers(1, 99)),
        st.builds(lambda q, n, f, o: q.expand(n, parent=f, ordinal=o), inner, st.integers(1, 99), st.text(), st.text()),
        st.builds(gg.query.nodes.Limited, inner, COUNTS, st.integers(0, 2**63 - 1)),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_random_trees_come_through_as_they_are(query: Query) -> None:
    messages = QueryMessages(TextQueries(lambda: pytest.fail("asked for the schema"), None))
    try:
        packed = messages.of(query).SerializeToString()
    except errors.InvalidArgument as error:
        assert "deep" in str(error)
        return
    assert alike(query, QueryTrees().of(pb.QueryNode.FromString(packed)))


RUNNABLE = st.recursive(
    st.one_of(
        st.builds(lambda at, k: near("dense", X[at], k=k), st.integers(0, 59), st.none() | st.integers(1, 70)),
        st.builds(lambda w, op: match("body", w, op=op), st.sampled_from(["red", "blue stone", "tre"]), st.sampled_from(["any", "all", "prefix", "fuzzy"])),
        st.builds(lambda d, w: sparse("splade", {d: w, 9: 0.1}), st.integers(0, 6), st.floats(0.1, 5)),
        st.builds(lambda at: like(at, using="dense"), st.sampled_from([1, 2, 4, "text 3"])),
        st.just(near("tokens", TOKENS)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: fuse(*branches)),
        st.builds(lambda q, year: q.where(F.year > year), inner, st.integers(1999, 2021)),
        st.builds(lambda q, w: q.boost(w * F.views.log1p() + (F.ok == True)), inner, st.floats(-2, 2)),  # noqa: E712
        st.builds(lambda q, d: q.diversify(d, using="dense"), inner, st.floats(0, 1)),
        st.builds(lambda q, k: q.rerank(maxsim("tokens", TOKENS), k=k), inner, st.integers(1, 30)),
        st.builds(lambda q, per: q.group("lang", per=per), inner, st.integers(1, 3)),
        st.builds(lambda q, n, skip: q.limit(n).offset(skip), inner, st.integers(1, 30), st.integers(0, 5)),
    ),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(RUNNABLE)
def test_random_trees_find_the_same(both: tuple[Any, Any], query: Query) -> None:
    here, there = both
    same_hits(here.query(query, fields=["extra"]), there.query(query, fields=["extra"]))


def test_rows_outside_a_filter_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_files, "SCRYPT_N", 1 << 8)
    near, words = gg.near("dense", [1.0, 0.5]), gg.match("body", "words of zebra")
    trees = [
        near, words, gg.like(2), gg.like(1, unlike=3), gg.fuse(near, words), gg.fuse(near, words, by=gg.MinMax()),
        words.expand(9, parent="part", ordinal="at"), near.limit(2).expand(1, parent="part", ordinal="at").limit(20),
        near.group("part", per=1), near.diversify(0.9), words.boost(gg.F.at * 2.0), near.rerank(gg.maxsim("tokens", np.ones((2, 2))), k=5),
    ]  # fmt: skip
    asked: list[Any] = [
        lambda c, tree=tree: [(hit.id, hit.score, dict(hit)) for hit in c.query(tree)] for tree in trees
    ]
    asked += [
        lambda c: c.count(), lambda c: c.count(where="at > 1 OR tenant = 'b'"), lambda c: c.facets("tenant"),
        lambda c: c.facets("part", query=words), lambda c: list(c.scan(order_by="at")), lambda c: c.get([1, 7, 8, 99]),
        lambda c: c.search([0.0, 1.0], k=None, radius=-2.0).ids, lambda c: c.search("words zebra", using="body").scores.tolist(),
        lambda c: c.recall(k=2, n=9).queries, lambda c: c.query(gg.like(7)), lambda c: c.facets("tenan"),
        lambda c: [one.products.tolist() for one in c.query(trees[-1]).explain_tokens()],
    ]  # fmt: skip
    answers = []
    for others in (0, 30):
        folder = tmp_path / str(others)
        with gg.open(folder) as db:
            rows = db.create_collection(
                "docs", fields={"tenant": gg.Keyword(), "part": gg.Keyword(), "at": gg.Int(), "body": gg.Text(bm25=True)},
                vectors={"dense": gg.Dense(2), "tokens": gg.Tokens(2)},
            )  # fmt: skip
            for at in range(1, 6 + others):
                mine = at < 6
                rows.upsert([{"id": at, "tenant": "a" if mine else "b" if at % 2 else None, "part": "p", "at": at % 5, "tokens": np.ones((1, 2)) * at,
                              "body": "words of a row" if mine else "zebra words", "dense": [1.0, at]}])  # fmt: skip
            token, _ = create_key(folder, filter="tenant = 'a'")
            with Server(db, listen="127.0.0.1:0", keys=folder) as server, gg.open(server.url, token=token) as remote:
                answers.append([outcome(ask, remote["docs"]) for ask in asked])
    for at, (alone, among) in enumerate(zip(*answers, strict=True)):
        assert repr(alone) == repr(among), at
    assert sum(isinstance(one, errors.GinghamError) for one in answers[0]) == 2


def outcome(ask: Any, collection: Any) -> Any:
    """What a call answers or raises."""
    try:
        return ask(collection)
    except errors.GinghamError as error:
        return error
