"""Which tokens met, asked for when someone wants to know: the query is run again and says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gingham.errors import NotReady
from gingham.query.token_matches import TokenMatches
from gingham.server.proto import gingham_pb2 as pb

Again = Callable[[int], pb.ResultSet]
"""Runs the query of a number again, and has its hits explained."""


def token_matches(again: Again, number: int, ids: Sequence[bytes]) -> list[TokenMatches]:
    """Which tokens of a query met which of each hit; raises NotReady where it would find other hits now."""
    answer = again(number)
    if list(answer.ids) != list(ids):
        raise NotReady(
            "explain_tokens() expects the rows that were searched, found that they have changed since; search again, "
            "or in a snapshot"
        )
    arrays = answer.token_products
    return [TokenMatches(np.frombuffer(one.data, "<f4").astype(np.float32).reshape(one.shape)) for one in arrays]


def explaining_search(request: pb.SearchRequest, number: int) -> pb.SearchRequest:
    """One query of a search, to be explained and to return no payload."""
    asked = pb.SearchRequest()
    asked.CopyFrom(request)
    if request.WhichOneof("query") == "tokens":
        asked.tokens.CopyFrom(pb.TokenMatrices(values=[request.tokens.values[number]]))
    elif request.WhichOneof("query") == "texts":
        asked.texts.CopyFrom(pb.Texts(values=[request.texts.values[number]], single=True))
    asked.fields.CopyFrom(pb.Names())
    asked.explain_tokens = True
    return asked


def explaining_query(request: pb.QueryRequest, number: int) -> pb.QueryRequest:
    """One tree of several, to be explained and to return no payload."""
    asked = pb.QueryRequest()
    asked.CopyFrom(request)
    del asked.queries[:]
    asked.queries.append(request.queries[number])
    asked.fields.CopyFrom(pb.Names())
    asked.explain_tokens = True
    return asked
