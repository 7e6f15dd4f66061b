"""Query trees as messages of gRPC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gingham.clients.convert import (
    MOST_K,
    checked_name,
    checked_text,
    effort_message,
    filter_message,
    sparse_message,
    tokens_message,
)
from gingham.embed.hyde import Written
from gingham.errors import InvalidArgument
from gingham.query import nodes, values
from gingham.query.expansion import late_interaction
from gingham.server.proto import gingham_pb2 as pb
from gingham.wire import TreeSize

if TYPE_CHECKING:
    from gingham.clients.texts import TextQueries
    from gingham.query.nodes import Fusion, Query
    from gingham.query.values import ValueNode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class QueryMessages:
    """Makes the messages of the queries of one request.

    Parameters
    ----------
    texts : makes messages of what nodes look near for

    Attributes
    ----------
    models : of the cross encoders, those below before those above
    remarks : on passages of the query that was made last
    """

    def __init__(self, texts: TextQueries) -> None:
        self._texts = texts
        self._size = TreeSize()
        self.models: list[nodes.CrossEncoder] = []
        self.remarks: list[str] = []

    def of(self, query: Query) -> pb.QueryNode:
        """A query as a message.

        Raises
        ------
        InvalidArgument : it is too deep or too large, or no query
        NotReady : a text of combine(), which cannot travel
        """
        self.remarks = []
        return self._node(query, 1)

    def _remark(self, source: object) -> None:
        if isinstance(source, Written):
            self.remarks += [remark for remark in source.remarks if remark not in self.remarks]

    def _node(self, node: Query, depth: int) -> pb.QueryNode:
        self._size.enter(depth)
        match node:
            case nodes.Near():
                matrices = self._texts.token_matrices(node.query, node.field)
                if matrices:
                    self._remark(node.query)
                    # A limit that it ends in is of the leaf, and must not pass for that of the query.
                    return self._node(nodes.Limited(late_interaction(node, matrices), None, 0), depth)
                return pb.QueryNode(near=self._near(node))
            case nodes.Match():
                self._remark(node.text)
                return pb.QueryNode(match=_match(node))
            case nodes.NearSparse():
                query = sparse_message(node.query)
                return pb.QueryNode(sparse=pb.SparseNode(field=_name(node.field), query=query, k=_most(node.k)))
            case nodes.Like():
                good, bad = pb.Ids(values=node.ids), pb.Ids(values=node.unlike)
                message = pb.LikeNode(ids=good, unlike=bad, using=_name(node.field), k=_most(node.k))
                return pb.QueryNode(like=message)
            case nodes.Fuse():
                branches = [self._node(branch, depth + 1) for branch in node.branches]
                fuse = pb.FuseNode(
                    branches=branches, remarks=[checked_text(one) for one in node.remarks], **_fusion(node.by)
                )
                return pb.QueryNode(fuse=fuse)
        return self._step(node, depth)

    def _step(self, node: Query, depth: int) -> pb.QueryNode:
        if not isinstance(node, nodes.Filtered | nodes.Boosted | nodes.Diversified | nodes.Reranked | nodes.Grouped
                          | nodes.Limited | nodes.Expanded):  # fmt: skip
            raise InvalidArgument(f"a query expects near(), match(), sparse(), like() or fuse(), found {node!r:.80}")
        child = self._node(node.child, depth + 1)
        match node:
            case nodes.Filtered():
                return pb.QueryNode(where=pb.WhereNode(child=child, where=filter_message(node.condition)))
            case nodes.Boosted():
                return pb.QueryNode(boost=pb.BoostNode(child=child, value=self._value(node.value, depth + 1)))
            case nodes.Diversified():
                using, most = _name(node.using), _most(node.candidates)
                message = pb.DiversifyNode(child=child, diversity=node.diversity, using=using, candidates=most)
                return pb.QueryNode(diversify=message)
            case nodes.Reranked():
                return pb.QueryNode(rerank=pb.RerankNode(child=child, k=_most(node.k), **self._scorer(node.by)))
            case nodes.Grouped():
                name = checked_name(node.field)
                return pb.QueryNode(group=pb.GroupNode(child=child, field=name, per=_most(node.per)))
            case nodes.Expanded():
                message = pb.ExpandNode(
                    child=child,
                    neighbours=_most(node.neighbours),
                    parent=checked_name(node.parent),
                    ordinal=checked_name(node.ordinal),
                )
                return pb.QueryNode(expand=message)
            case nodes.Limited():
                return pb.QueryNode(limit=pb.LimitNode(child=child, count=_most(node.count), skip=_most(node.skip)))

    def _near(self, node: nodes.Near) -> pb.NearNode:
        self._remark(node.query)
        query = self._texts.near(node.query, _name(node.field))
        effort = effort_message(node.effort)
        return pb.NearNode(field=node.field, k=_most(node.k), radius=node.radius, effort=effort, **query)

    def _scorer(self, by: nodes.MaxSim | nodes.CrossEncoder) -> dict[str, Any]:
        if isinstance(by, nodes.CrossEncoder):
            self.models.append(by)
            return {"cross_encoder": pb.CrossEncoder(field=checked_name(by.field), model=type(by.model).__name__)}
        name = _name(by.field)
        query = tokens_message(by.query, lambda: self._texts.schema().tokens(name)[1])
        return {"maxsim": pb.MaxSim(field=name, query=query)}

    def _value(self, node: ValueNode, depth: int) -> pb.Value:
        self._size.enter(depth)
        match node:
            case values.Number():
                return pb.Value(number=node.value)
            case values.FieldValue():
                return pb.Value(field=checked_name(node.field))
            case values.Truth():
                return pb.Value(truth=filter_message(node.node))
            case values.Log1p():
                return pb.Value(log1p=self._value(node.arg, depth + 1))
            case values.Recency():
                name = checked_name(node.field)
                origin = None if node.origin is None else (node.origin - _EPOCH) // timedelta(microseconds=1)
                return pb.Value(recency=pb.Recency(field=name, half_life=node.half_life, origin=origin))
            case values.Sum():
                return pb.Value(sum=self._joined(node, depth))
            case values.Product():
                return pb.Value(product=self._joined(node, depth))

    def _joined(self, node: values.Sum | values.Product, depth: int) -> pb.Values:
        """The terms of a chain such as ``a + b + c`` side by side, since Python nests them as deep as it is long."""
        terms: list[ValueNode] = []
        left: ValueNode = node
        while type(left) is type(node):
            terms.append(left.right)
            left = left.left
        return pb.Values(args=[self._value(term, depth + 1) for term in (left, *reversed(terms))])


def _match(node: nodes.Match) -> pb.MatchNode:
    text = node.text.words if isinstance(node.text, Written) else node.text
    assert isinstance(text, str)
    operator = pb.MatchOperator.Value(f"MATCH_OPERATOR_{node.operator.upper()}")
    return pb.MatchNode(field=_name(node.field), text=checked_text(text), operator=operator, k=_most(node.k))


def _fusion(by: Fusion) -> dict[str, Any]:
    match by:
        case nodes.RRF():
            return {"rrf": pb.Rrf(k=by.k, weights=by.weights or ())}
        case nodes.MinMax():
            return {"min_max": pb.MinMax(weights=by.weights or ())}
        case nodes.DBSF():
            return {"dbsf": pb.Dbsf(weights=by.weights or ())}


def _name(name: str | None) -> str | None:
    return None if name is None else checked_name(name)


def _most(count: int | None) -> int | None:
    return None if count is None else min(count, MOST_K)
