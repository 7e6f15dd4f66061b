"""Messages of gRPC from and to the values that users of a collection see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa

from gingham.columns import plain
from gingham.errors import InvalidArgument, NotReady
from gingham.query.explain import Explanation, Step
from gingham.query.hits import BatchHits, Completeness, Hits
from gingham.query.stats import CollectionStats, VectorStats
from gingham.rows import query_matrix
from gingham.schema import Sparse, Tokens, check_named
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import WriteResult, decode_id, shown
from gingham.wire import pack_filter, unpack_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.query.bind import Where
    from gingham.schema import Schema

DTYPES = {"f2": pb.DTYPE_FLOAT16, "f4": pb.DTYPE_FLOAT32, "f8": pb.DTYPE_FLOAT64}
MOST_K = (1 << 63) - 1


def array_message(numbers: np.ndarray[Any, Any]) -> pb.Array:
    """Floats of one or two axes; integers travel as the float32 that the server would make of them."""
    if numbers.dtype.kind != "f":
        numbers = numbers.astype(np.float32)
    elif numbers.dtype.itemsize > 8:
        numbers = numbers.astype(np.float64)
    kind = f"f{numbers.dtype.itemsize}"
    data = np.ascontiguousarray(numbers, f"<{kind}").tobytes()
    return pb.Array(data=data, dtype=DTYPES[kind], shape=numbers.shape)


def query_message(query: Any, using: str | None, schema: Callable[[], Schema]) -> dict[str, Any]:
    """What is searched for, as a field of a request.

    Parameters
    ----------
    schema : asks for the schema, which only a query that cannot be sent needs
    """
    texts = [query] if isinstance(query, str) else query
    if isinstance(texts, Sequence) and len(texts) and all(isinstance(text, str) for text in texts):
        return {"texts": pb.Texts(values=texts, single=isinstance(query, str))}
    try:
        value = plain(query)
        numbers = np.asarray(value.to_pylist() if isinstance(value, pa.Array) else value)
    except (ValueError, TypeError, OverflowError, RecursionError, BufferError, RuntimeError, pa.ArrowException):
        numbers = np.empty(0, object)
    if numbers.dtype.kind in "fiu" and numbers.ndim in (1, 2):
        return {"vectors": array_message(numbers)}
    known = schema()
    kind = known.vectors.get(using or "")
    if isinstance(kind, (Sparse, Tokens)) or (using is None and not known.dense):
        raise NotReady("a search over gRPC expects vectors or texts, found sparse vectors or several token matrices, "
                       "which it does not take yet; search them where the folder is")  # fmt: skip
    query_matrix(query, known.vector(using)[1])
    raise InvalidArgument(f"a query expects numbers of one or two axes, found {shown(query)}")


def filter_message(where: Where) -> pb.Filter | None:
    """A filter as its JSON form, None where there is none."""
    text = pack_filter(where)
    return None if text is None else pb.Filter(json=text)


def names_message(fields: Any) -> pb.Names | None:
    """Names of payload to read, None for all; raises InvalidArgument where they are no list of texts."""
    if fields is None:
        return None
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Iterable):
        raise InvalidArgument(f"fields= expects a list of names, such as fields=['title'], found {shown(fields)}")
    names = list(fields)
    for name in names:
        check_named(name)
    return pb.Names(values=names)


def write_result(message: pb.WriteResult) -> WriteResult:
    """What a write did."""
    return WriteResult(message.version, message.inserted, message.updated, message.deleted, message.missing)


def collection_stats(message: pb.GetCollectionStatsResponse) -> CollectionStats:
    """Figures of a collection."""
    figures = {name: getattr(message, name) for name in CollectionStats.__dataclass_fields__ if name != "vectors"}
    vectors = {name: _vector_stats(message.vectors[name]) for name in sorted(message.vectors)}
    return CollectionStats(**figures, vectors=vectors)


def _vector_stats(message: pb.VectorStats) -> VectorStats:
    figures = {name: getattr(message, name) for name in VectorStats.__dataclass_fields__}
    for name in ("index", "codec"):
        figures[name] = figures[name] if message.HasField(name) else None
    return VectorStats(**figures)


def search_results(message: pb.SearchResponse) -> Hits | BatchHits:
    """What a search found."""
    payload = unpack_table(message.payload) if message.payload else pa.table({})
    explanation = Explanation(_step(message.explanation))
    highlighters: Mapping[str, Any] = dict.fromkeys(message.matched_fields, _no_highlights)
    out, start = [], 0
    for one in message.results:
        stop = start + len(one.ids)
        table = payload.slice(start, stop - start) if message.payload else payload
        # Copied, since an array over the bytes of a message is read-only and that of an embedded search is not.
        scores = np.frombuffer(one.scores, "<f4").astype(np.float32)
        why = Completeness(one.complete, one.why)
        ids = [decode_id(i) for i in one.ids]
        out.append(Hits(ids, scores, table, why, explanation, highlighters, list(message.json_fields)))
        start = stop
    return out[0] if message.single else BatchHits(out)


def _no_highlights(text: str) -> NoReturn:
    del text
    raise NotReady("highlights() expects hits of an embedded search, found some that came over gRPC; search with the "
                   "folder open, or mark the words in your own code")  # fmt: skip


def _step(message: pb.Step) -> Step:
    return Step(message.name, message.detail, message.seconds, message.rows, [_step(one) for one in message.steps])
