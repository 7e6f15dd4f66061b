"""Messages of gRPC from and to the values of the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from gingham.embed.hyde import Hyde, Written
from gingham.errors import InvalidArgument, ResourceExhausted
from gingham.query.bind import filter_node
from gingham.query.highlight import Highlighter
from gingham.query.hits import BatchHits
from gingham.schema import Schema
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import encode_id
from gingham.wire import pack_table, unpack_filter

if TYPE_CHECKING:
    from gingham import types
    from gingham.query.explain import Step
    from gingham.query.hits import Hits
    from gingham.query.stats import CollectionStats

DTYPES = {pb.DTYPE_FLOAT16: "<f2", pb.DTYPE_FLOAT32: "<f4", pb.DTYPE_FLOAT64: "<f8"}
EXPLAINED_BYTES = 32 << 20
"""Products of tokens of one search that an answer may hold."""


def array_of(message: pb.Array) -> np.ndarray[Any, Any]:
    """Numbers of a message; raises InvalidArgument where bytes, type and shape do not fit each other."""
    if message.dtype not in DTYPES or len(message.shape) not in (1, 2):
        raise InvalidArgument(
            "an array expects a dtype from 1 to 3 and a shape of one or two axes, found "
            f"{message.dtype} and {len(message.shape)} axes"
        )
    shape = tuple(message.shape)
    dtype = np.dtype(DTYPES[message.dtype])
    size = dtype.itemsize
    for axis in shape:
        size *= axis
    if size != len(message.data):
        raise InvalidArgument(f"an array of shape {shape} and {dtype} expects {size} bytes, found {len(message.data)}")
    return np.frombuffer(message.data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def filter_of(message: pb.Filter) -> Any:
    """A filter for ``where=``; an empty message is no filter."""
    form = message.WhichOneof("form")
    if form is None:
        return None
    if form == "json":
        return unpack_filter(message.json)
    try:
        return filter_node(message.expression)
    except RecursionError:
        raise InvalidArgument("a filter expects fewer nested conditions; use IN for many values") from None


def schema_of(packed: bytes) -> Schema:
    """A schema of msgpack; raises InvalidArgument where it is none."""
    try:
        return msgspec.msgpack.decode(packed, type=Schema)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"a schema expects a msgpack map of fields and vectors, found another: {error}") from None


def column_of(packed: bytes, kind: Literal["fields", "vectors"]) -> tuple[str, Any]:
    """Name and type of the only field, or the only vector, of a schema."""
    schema = schema_of(packed)
    columns: dict[str, Any] = dict(getattr(schema, kind))
    if len(columns) != 1 or len(schema.fields) + len(schema.vectors) != 1:
        raise InvalidArgument(
            f"a schema expects one of {kind} alone, found {len(schema.fields)} fields and {len(schema.vectors)} vectors"
        )
    return next(iter(columns.items()))


def names_of(message: Any) -> list[str] | None:
    """Names of the optional ``fields`` of a request, None where they are absent."""
    return list(message.fields.values) if message.HasField("fields") else None


def written(result: types.WriteResult) -> pb.WriteResult:
    """What a write did."""
    return pb.WriteResult(**asdict(result))


def stats_message(stats: CollectionStats) -> pb.GetCollectionStatsResponse:
    """Figures of a collection."""
    figures = asdict(stats)
    vectors = {name: pb.VectorStats(**one) for name, one in figures.pop("vectors").items()}
    return pb.GetCollectionStatsResponse(**figures, vectors=vectors)


def query_of(request: pb.SearchRequest) -> Any:
    """What is searched for."""
    kind = request.WhichOneof("query")
    if kind is None:
        raise InvalidArgument("a search expects vectors, texts, passages, sparse vectors or tokens, found none")
    if kind == "vectors":
        return array_of(request.vectors)
    if kind == "texts":
        return texts_of(request.texts)
    if kind == "passages":
        return passages_of(request.passages)
    if kind == "tokens":
        return [array_of(one) for one in request.tokens.values]
    several = [sparse_of(one) for one in request.sparse.values]
    return several[0] if request.sparse.single and len(several) == 1 else several


def texts_of(message: pb.Texts) -> Any:
    """One text, or a list of them."""
    texts = list(message.values)
    return texts[0] if message.single and len(texts) == 1 else texts


class _ElsewhereLLM:
    """Stands for the language model of a client, which has written its passages."""

    name = "elsewhere"


def passages_of(message: pb.Passages) -> Written:
    """A text and what was written for it; raises InvalidArgument where its share is none."""
    mix = message.mix if message.HasField("mix") else None
    if mix is not None and not 0 <= mix <= 1:
        raise InvalidArgument(f"passages expect a share of the text from 0 to 1, found {mix!r}")
    texts = tuple(message.passages)
    if not message.text or not all(texts):
        raise InvalidArgument("passages expect a text and passages that are not empty, found an empty one")
    llm: Any = _ElsewhereLLM()
    return Written(Hyde(message.text, llm, len(texts), "", mix, None, {}), texts, ())


def sparse_of(message: pb.SparseVector) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Dimensions and weights of a sparse vector; raises InvalidArgument where they are not as many of each."""
    if len(message.dimensions) != len(message.weights) or len(message.weights) % 4:
        raise InvalidArgument(
            "a sparse vector expects 4 bytes for each dimension and for each weight, found "
            f"{len(message.dimensions)} and {len(message.weights)}"
        )
    return np.frombuffer(message.dimensions, "<u4"), np.frombuffer(message.weights, "<f4")


def search_arguments(request: pb.SearchRequest) -> dict[str, Any]:
    """Keyword arguments of ``search``; its defaults hold for what is absent."""
    optional = ("k", "using", "radius", "oversample", "ef_search", "nprobe", "target_recall")
    given = {name: getattr(request, name) if request.HasField(name) else None for name in optional}
    return {**given, "where": filter_of(request.where), "fields": names_of(request), "exact": request.exact}


def scan_arguments(request: pb.ScanRequest) -> dict[str, Any]:
    """Keyword arguments of ``scan``."""
    given = {name: getattr(request, name) if request.HasField(name) else None for name in ("order_by", "batch_size")}
    given |= {"descending": request.descending, "include_vectors": request.include_vectors}
    return {**given, "where": filter_of(request.where), "fields": names_of(request)}


def found(results: Hits | BatchHits, *, explain_tokens: bool = False) -> pb.SearchResponse:
    """What a search found, and where it is asked for which tokens met.

    Raises
    ------
    InvalidArgument : tokens were not searched by or reranked with, or there are more than 100 hits
    ResourceExhausted : products of tokens need more than ``EXPLAINED_BYTES``
    """
    single = not isinstance(results, BatchHits)
    each: list[Hits] = [results] if not isinstance(results, BatchHits) else list(results)
    response = pb.SearchResponse(single=single, explanation=_step(results.explain().root))
    room = EXPLAINED_BYTES
    for hits in each:
        ids, scores = [encode_id(i) for i in hits.ids], np.ascontiguousarray(hits.scores, "<f4").tobytes()
        one = response.results.add(ids=ids, scores=scores, complete=hits.complete.complete)
        one.why, one.by_tokens = hits.complete.why, hits._matches is not None
        finders = {name: find for name, find in hits._highlighters.items() if isinstance(find, Highlighter)}
        one.highlighters.extend(_highlighter(name, find) for name, find in sorted(finders.items()))
        if any(by is not None for by in hits.brought_by):
            one.brought_by.extend(b"" if by is None else encode_id(by) for by in hits.brought_by)
        if explain_tokens:
            room -= _explain_tokens(one, hits, room)
    # The payload of hits is theirs alone; their public table makes one column of ids, which may be of several kinds.
    if each and each[0]._table.num_columns:
        response.payload = pack_table(
            each[0]._table if single else pa.concat_tables([hits._table for hits in each]).combine_chunks()
        )
        response.json_fields.extend(each[0]._json)
    if each:
        response.matched_fields.extend(sorted(each[0]._highlighters))
    return response


def _explain_tokens(message: pb.ResultSet, hits: Hits, room: int) -> int:
    """Put products of tokens into a message; returns the bytes they take."""
    matches = hits.explain_tokens()
    taken = sum(one.products.nbytes for one in matches)
    if taken > room:
        raise ResourceExhausted(
            f"explain_tokens expects products of tokens of up to {EXPLAINED_BYTES >> 20} MiB, found more than that; "
            "ask for fewer hits or one query at a time"
        )
    for one in matches:
        data = np.ascontiguousarray(one.products, "<f4").tobytes()
        message.token_products.add(data=data, dtype=pb.DTYPE_FLOAT32, shape=one.products.shape)
    return taken


def _highlighter(name: str, find: Highlighter) -> pb.Highlighter:
    phrases = [
        pb.Phrase(terms=np.array([key for key, _ in phrase], "<u8").tobytes(), places=[at for _, at in phrase])
        for phrase in find.phrases
    ]
    terms = np.array(sorted(find.keys), "<u8").tobytes()
    return pb.Highlighter(field=name, language=find.language, terms=terms, phrases=phrases)


def _step(step: Step) -> pb.Step:
    steps = [_step(one) for one in step.steps]
    return pb.Step(name=step.name, detail=step.detail, seconds=step.seconds, rows=step.rows, steps=steps)
