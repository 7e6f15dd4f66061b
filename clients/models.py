"""Models of the client in queries that run elsewhere: texts come back, and their scores go with the query again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.errors import Unavailable
from gingham.query.rerank import cross_encoded
from gingham.wire import text_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gingham.query.nodes import CrossEncoder
    from gingham.server.proto import gingham_pb2 as pb

MOST_ROUNDS = 32
"""Of asking for scores; one for each cross encoder that lies in another, and one for each write in between."""


def scored(ask: Callable[[], Any], trees: Sequence[pb.QueryNode], models: Sequence[CrossEncoder]) -> Any:
    """The answer to a request, once the models have scored what its queries ask them for.

    Parameters
    ----------
    ask : sends the request
    trees : the queries in the request, which scores are added to
    models : one for each cross encoder in them, in the order of :class:`gingham.clients.queries.QueryMessages`

    Raises
    ------
    EmbedderFailed : of :func:`gingham.query.rerank.cross_encoded`
    Unavailable : rows change faster than they are scored
    """
    places = [place for tree in trees for place in _cross_encoders(tree)]
    for _ in range(MOST_ROUNDS):
        answer = ask()
        if not answer.unscored:
            return answer
        for place, model, wanted in zip(places, models, answer.unscored, strict=True):
            texts = list(wanted.values)
            place.digests += b"".join(map(text_digest, texts))
            place.scores += cross_encoded(model, texts).astype("<f4").tobytes()
    raise Unavailable(
        f"cross_encoder() expects rows that stay for {MOST_ROUNDS} rounds, found new ones in each; ask again"
    )


def _cross_encoders(node: pb.QueryNode) -> Iterator[pb.CrossEncoder]:
    """Those of a tree, what is below before what is above."""
    kind = node.WhichOneof("node")
    message: Any = getattr(node, str(kind))
    for child in message.branches if kind == "fuse" else [message.child] if hasattr(message, "child") else []:
        yield from _cross_encoders(child)
    if kind == "rerank" and message.WhichOneof("by") == "cross_encoder":
        yield message.cross_encoder
