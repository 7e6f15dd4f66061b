"""Hits that only a search can count: rows within a radius, rows beside those found, and the neighbours of a recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.errors import InvalidArgument
from gingham.server.limits import check_hits, has_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gingham.query.hits import Hits
    from gingham.server.proto import gingham_pb2 as pb
    from gingham.view import CollectionView


def most_in_radius(request: pb.SearchRequest, collection: CollectionView, most: int) -> int | None:
    """Hits that each query within a radius may find, one more than are allowed; None where there are no more rows."""
    kind, shape = request.WhichOneof("query"), request.vectors.shape
    queries = len(getattr(request, str(kind)).values) if kind in ("texts", "sparse", "tokens") else 1
    if len(shape) == 2 and not has_tokens(collection, request.using):
        queries = shape[0]
    return None if queries * collection.count() <= most else most // max(queries, 1) + 1


def check_found(results: Iterable[Hits], most: int) -> None:
    """Raise InvalidArgument where there are more than ``most`` hits."""
    check_hits(sum(len(hits.ids) for hits in results), most)


def check_asked(ids: int, most: int) -> None:
    """Raise InvalidArgument where more than ``most`` rows are asked for by id."""
    if ids > most:
        raise InvalidArgument(
            f"get() over gRPC expects at most {most} ids, found {ids}; read fewer at once, or serve with a larger "
            "--max-hits"
        )


def check_recall(collection: CollectionView, arguments: dict[str, Any], most: int) -> None:
    """Raise InvalidArgument where a recall compares more than ``most`` hits, counted in rows that there are."""
    queries, k = arguments["queries"], arguments["k"]
    asked = arguments["n"] if queries is None else 1 if isinstance(queries, str) else len(queries)
    if k * asked > most:
        there = collection.count()
        check_hits(min(k, there) * (min(asked, there) if queries is None else asked), most)
