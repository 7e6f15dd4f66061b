"""Query trees from messages of gRPC."""

from __future__ import annotations

import functools
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument
from gingham.query import nodes, values
from gingham.query.ast import And
from gingham.query.bind import filter_node
from gingham.server.convert import array_of, filter_of, passages_of, sparse_of, texts_of
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import whole
from gingham.wire import DIGEST_BYTES, TreeSize, text_digest, unpack_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gingham.query.nodes import Fusion, MatchOperator, Query
    from gingham.query.values import ValueNode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EFFORT = ("oversample", "ef_search", "nprobe", "target_recall")


class QueryTrees:
    """Reads the queries of one request, which has a limit of depth and size."""

    def __init__(self) -> None:
        self._size = TreeSize()
        self._models: list[_ElsewhereModel] = []

    def unscored(self) -> list[pb.Texts]:
        """For each cross encoder the texts that were asked for and have no score; empty where there are none at all."""
        if not any(model.unscored for model in self._models):
            return []
        return [pb.Texts(values=list(model.unscored)) for model in self._models]

    def of(self, message: pb.QueryNode) -> Query:
        """A query from its message; raises InvalidArgument where it is malformed, too deep or too large."""
        return self._node(message, 1)

    def _node(self, message: pb.QueryNode, depth: int) -> Query:
        self._size.enter(depth)
        kind = message.WhichOneof("node")
        if kind is None:
            raise InvalidArgument(
                f"a query node expects one of {', '.join(pb.QueryNode.DESCRIPTOR.fields_by_name)}, found none"
            )
        node = getattr(message, kind)
        if kind in _LEAVES:
            return _LEAVES[kind](node)
        if kind == "fuse":
            branches = tuple(self._node(branch, depth + 1) for branch in node.branches)
            made = nodes.fuse(*branches, by=_fusion(node))
            return nodes.Fuse(made.branches, made.by, tuple(node.remarks))
        if kind == "where":
            self._size.enter_filter(node.where.expression)
        child = self._node(node.child, depth + 1)
        if kind == "boost":
            return nodes.Boosted(child, self._value(node.value, depth + 1))
        if kind == "rerank" and node.WhichOneof("by") == "cross_encoder":
            by = node.cross_encoder
            model = _elsewhere_model(by)
            self._models.append(model)
            return child.rerank(nodes.cross_encoder(by.field, "", model=model), k=node.k)
        return _step(kind, node, child)

    def _value(self, message: pb.Value, depth: int) -> ValueNode:
        self._size.enter(depth)
        match message.WhichOneof("kind"):
            case "number":
                return values.Number(message.number)
            case "field":
                return values.FieldValue(message.field)
            case "truth":
                self._size.enter_filter(message.truth.expression)
                node = filter_node(filter_of(message.truth))
                return values.Truth(And(()) if node is None else node)
            case "sum":
                return functools.reduce(values.Sum, self._args(message.sum, depth))
            case "product":
                return functools.reduce(values.Product, self._args(message.product, depth))
            case "log1p":
                return values.Log1p(self._value(message.log1p, depth + 1))
            case "recency":
                return _recency(message.recency)
        raise InvalidArgument(
            f"a value expects one of {', '.join(pb.Value.DESCRIPTOR.fields_by_name)}, found none of them"
        )

    def _args(self, message: pb.Values, depth: int) -> list[ValueNode]:
        if len(message.args) < 2:
            raise InvalidArgument(f"a sum or product expects at least two values, found {len(message.args)}")
        return [self._value(arg, depth + 1) for arg in message.args]


def recall_arguments(request: pb.RecallRequest) -> dict[str, Any]:
    """Keyword arguments of ``recall``."""
    kind = request.WhichOneof("queries")
    queries = None if kind is None else array_of(request.vectors) if kind == "vectors" else texts_of(request.texts)
    using, where = _optional(request, "using"), filter_of(request.where)
    given = {"k": request.k, "n": request.n, "where": where, "using": using, "queries": queries}
    return {**given, **_effort(request.effort)}


class _ElsewhereModel:
    """Scores that a model of a client gave, and the texts that it has to score yet."""

    def __init__(self, scores: dict[bytes, float]) -> None:
        self._scores = scores
        self.unscored: dict[str, None] = {}

    def predict(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Scores of texts; 0 for those that wait for theirs."""
        found = [self._scores.get(text_digest(text)) for _, text in pairs]
        self.unscored |= {text: None for (_, text), score in zip(pairs, found, strict=True) if score is None}
        return [score or 0.0 for score in found]


def _elsewhere_model(message: pb.CrossEncoder) -> _ElsewhereModel:
    scores = np.frombuffer(message.scores[: len(message.scores) // 4 * 4], "<f4")
    if len(message.scores) % 4 or len(message.digests) != DIGEST_BYTES * len(scores):
        raise InvalidArgument(
            f"a cross encoder expects {DIGEST_BYTES} bytes for each text and 4 for its score, found "
            f"{len(message.digests)} and {len(message.scores)}"
        )
    digests = [message.digests[at : at + DIGEST_BYTES] for at in range(0, len(message.digests), DIGEST_BYTES)]
    # Explanations name the type of a model.
    name = message.model if message.model.isidentifier() else "model"
    model: _ElsewhereModel = type(name, (_ElsewhereModel,), {})(dict(zip(digests, scores.tolist(), strict=True)))
    return model


def _effort(message: pb.Effort) -> dict[str, Any]:
    return {name: _optional(message, name) for name in _EFFORT}


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _near(message: pb.NearNode) -> Query:
    kind = message.WhichOneof("query")
    if kind is None:
        raise InvalidArgument("near expects vectors, texts or passages, found none of them")
    if kind == "passages":
        query: Any = passages_of(message.passages)
    else:
        query = array_of(message.vectors) if kind == "vectors" else texts_of(message.texts)
    return nodes.near(
        _optional(message, "field"),
        query,
        k=_optional(message, "k"),
        radius=_optional(message, "radius"),
        exact=message.effort.exact,
        **_effort(message.effort),
    )


def _match(message: pb.MatchNode) -> Query:
    number = message.operator
    if number not in pb.MatchOperator.values():
        raise InvalidArgument(f"match expects an operator from 0 to {max(pb.MatchOperator.values())}, found {number}")
    operator: MatchOperator = nodes.MATCH_OPERATORS[max(number, 1) - 1]
    return nodes.match(_optional(message, "field"), message.text, op=operator, k=_optional(message, "k"))


def _sparse(message: pb.SparseNode) -> Query:
    return nodes.sparse(_optional(message, "field"), sparse_of(message.query), k=_optional(message, "k"))


def _like(message: pb.LikeNode) -> Query:
    good, bad = unpack_ids(message.ids.values), unpack_ids(message.unlike.values)
    return nodes.like(good, unlike=bad, using=_optional(message, "using"), k=_optional(message, "k"))


_LEAVES: dict[str, Callable[[Any], Query]] = {"near": _near, "match": _match, "sparse": _sparse, "like": _like}


def _step(kind: str, message: Any, child: Query) -> Query:
    match kind:
        case "where":
            return child.where(filter_of(message.where))
        case "diversify":
            using, candidates = _optional(message, "using"), _optional(message, "candidates")
            return child.diversify(message.diversity, using=using, candidates=candidates)
        case "rerank":
            if message.WhichOneof("by") is None:
                raise InvalidArgument("rerank expects maxsim or cross_encoder, found nothing to score rows by")
            by = nodes.maxsim(_optional(message.maxsim, "field"), array_of(message.maxsim.query))
            return child.rerank(by, k=message.k)
        case "group":
            return child.group(message.field, per=message.per)
        case "expand":
            return child.expand(message.neighbours, parent=message.parent, ordinal=message.ordinal)
    count = _optional(message, "count")
    return nodes.Limited(child, None if count is None else whole("limit()", count), message.skip)


def _fusion(message: pb.FuseNode) -> Fusion | None:
    match message.WhichOneof("by"):
        case "rrf":
            return nodes.RRF(message.rrf.k, tuple(message.rrf.weights) or None)
        case "min_max":
            return nodes.MinMax(tuple(message.min_max.weights) or None)
        case "dbsf":
            return nodes.DBSF(tuple(message.dbsf.weights) or None)
    return None


def _recency(message: pb.Recency) -> ValueNode:
    if not 0 < message.half_life < math.inf:
        raise InvalidArgument(f"recency expects a finite half-life above 0, found {message.half_life}")
    if not message.HasField("origin"):
        return values.Recency(message.field, message.half_life, None)
    try:
        origin = _EPOCH + timedelta(microseconds=message.origin)
    except OverflowError:
        raise InvalidArgument(
            f"recency expects an origin of the years 1 to 9999, found {message.origin} microseconds"
        ) from None
    return values.Recency(message.field, message.half_life, origin)
