"""Messages of gRPC from and to the values that users of a collection see."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from gingham.clients.explained import token_matches
from gingham.columns import plain
from gingham.errors import InvalidArgument, NotReady
from gingham.query.combine import Combined
from gingham.query.explain import Explanation, Step
from gingham.query.highlight import Highlighter
from gingham.query.hits import BatchHits, Completeness, Hits
from gingham.query.recall import RecallReport
from gingham.query.stats import CollectionStats, VectorStats
from gingham.recode import RecodeReport
from gingham.rows import query_matrix
from gingham.schema import Field, Schema, Sparse, Tokens, Vector, check_name, check_named
from gingham.server.proto import gingham_pb2 as pb
from gingham.sparse_vectors import sparse_query
from gingham.storage.verify import Damage, VerifyReport
from gingham.token_vectors import tokens_queries, tokens_query
from gingham.types import WriteResult, decode_id, decode_ids, shown
from gingham.wire import pack_filter, unpack_rows, unpack_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.clients.explained import Again
    from gingham.query.bind import Where
    from gingham.query.effort import Effort

DTYPES = {"f2": pb.DTYPE_FLOAT16, "f4": pb.DTYPE_FLOAT32, "f8": pb.DTYPE_FLOAT64}
MOST_K = (1 << 63) - 1
JOINED_ROWS = 10_000
"""Of a row group of an exported file."""


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
    """Texts, a vector or an array of them as a field of a request.

    Parameters
    ----------
    schema : asks for the schema, which only a query that is neither needs
    """
    query = _uncombined(query)
    texts = [query] if isinstance(query, str) else query
    if isinstance(texts, Sequence) and len(texts) and all(isinstance(text, str) for text in texts):
        return {"texts": pb.Texts(values=[checked_text(text) for text in texts], single=isinstance(query, str))}
    numbers = _numbers(query)
    if numbers is None:
        known = schema()
        kind = known.vectors.get(using or "")
        if isinstance(kind, Tokens):
            return {"vectors": tokens_message(query, lambda: kind)}
        numbers, _ = query_matrix(query, known.vector(using)[1])
    return {"vectors": array_message(numbers)}


def search_message(query: Any, using: str | None, schema: Callable[[], Schema]) -> dict[str, Any]:
    """What is searched for, as a field of a request; what may be sparse or several matrices asks for the schema."""
    query = _uncombined(query)
    if _may_be_nested(query):
        known = schema()
        kind = known.vectors.get(using or "")
        if isinstance(kind, Sparse) or (kind is None and using is None and not known.dense):
            known.searchable(using, Sparse)
            single = isinstance(query, (Mapping, tuple)) or not isinstance(query, Sequence)
            several = [sparse_message(one) for one in ([query] if single else query)]
            return {"sparse": pb.SparseVectors(values=several, single=single)}
        if isinstance(kind, Tokens) and not tokens_queries(query, kind)[1]:
            return {"tokens": pb.TokenMatrices(values=[tokens_message(one, lambda: kind) for one in query])}
        return query_message(query, using, lambda: known)
    return query_message(query, using, schema)


def _uncombined(query: Any) -> Any:
    """A query, or its vector where it is one of several vectors."""
    return query.vector(_untravelled)[0] if isinstance(query, Combined) else query


def _untravelled(texts: list[str]) -> np.ndarray[Any, Any]:
    raise NotReady(
        f"the texts of combine() do not travel over gRPC yet; embed {texts[0]!r:.40} yourself and give it the vector"
    )


def _may_be_nested(query: Any) -> bool:
    """Whether a query can be anything but texts, or an array of floats of one or two axes."""
    if isinstance(query, np.ndarray):
        return query.dtype.kind != "f" or query.ndim > 2
    if isinstance(query, Sequence) and len(query) and all(isinstance(one, str) for one in query):
        return False
    return not isinstance(query, list) or not query or not all(isinstance(one, float) for one in query)


def _numbers(query: Any) -> np.ndarray[Any, Any] | None:
    """Numbers of one or two axes; None where a query is something else."""
    try:
        value = plain(query)
        numbers = np.asarray(value.to_pylist() if isinstance(value, pa.Array) else value)
    except (ValueError, TypeError, OverflowError, RecursionError, BufferError, RuntimeError, pa.ArrowException):
        return None
    return numbers if numbers.dtype.kind in "fiu" and numbers.ndim in (1, 2) else None


def sparse_message(query: Any) -> pb.SparseVector:
    """A sparse vector, checked."""
    dimensions, weights = sparse_query(query)
    return pb.SparseVector(
        dimensions=dimensions.astype("<u4").tobytes(), weights=np.ascontiguousarray(weights, "<f4").tobytes()
    )


def tokens_message(query: Any, kind: Callable[[], Tokens]) -> pb.Array:
    """Tokens of one query; ``kind`` asks what field they are for, which only numbers of no matrix need."""
    numbers = _numbers(query)
    if numbers is None:
        tokens_query(query, kind())
        numbers = np.asarray(query, np.float64)
    return array_message(numbers)


def effort_message(effort: Effort) -> pb.Effort:
    """How hard to look."""
    return pb.Effort(**asdict(effort))


def column_message(name: Any, column: Any, kind: Literal["fields", "vectors"]) -> bytes:
    """A field or a vector as the schema that has nothing else; raises InvalidArgument where it is none."""
    check_named(name)
    check_name(name, kind.removesuffix("s"))
    if not isinstance(column, Field if kind == "fields" else Vector):
        Schema.of(**{kind: {name: column}})  # says what is wrong with it
    return msgspec.msgpack.encode(Schema(**{"fields": {}, "vectors": {}, kind: {name: column}}))


def filter_message(where: Where) -> pb.Filter | None:
    """A filter as its JSON form, None where there is none."""
    text = pack_filter(where)
    return None if text is None else pb.Filter(json=text)


def checked_name(name: Any) -> str:
    """A name that a user gave; raises InvalidArgument unless it is text that a message can hold."""
    check_named(name)
    return checked_text(name)


def checked_text(text: str) -> str:
    """A text that a user gave; raises InvalidArgument where a message cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"a call over gRPC expects text that UTF-8 can hold, found {shown(text)}") from None
    return text


def names_message(fields: Any) -> pb.Names | None:
    """Names of payload to read, None for all; raises InvalidArgument where they are no list of texts."""
    if fields is None:
        return None
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Iterable):
        raise InvalidArgument(f"fields= expects a list of names, such as fields=['title'], found {shown(fields)}")
    names = list(fields)
    return pb.Names(values=[checked_name(name) for name in names])


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


def search_results(message: pb.SearchResponse, again: Again, remarks: Sequence[str] = ()) -> Hits | BatchHits:
    """What a search found; ``remarks`` are what the client has to say of it, ``again`` explains one of its queries."""
    several = _hits(message, again, remarks)
    return several[0] if message.single else BatchHits(several)


def _hits(message: pb.SearchResponse, again: Again, remarks: Sequence[str]) -> list[Hits]:
    payload = unpack_table(message.payload) if message.payload else pa.table({})
    explanation = Explanation(_step(message.explanation))
    json_fields = list(message.json_fields)
    ids = decode_ids([encoded for one in message.results for encoded in one.ids])
    # Copied, since an array over the bytes of a message is read-only and that of an embedded search is not.
    scores = np.frombuffer(b"".join([one.scores for one in message.results]), "<f4").astype(np.float32)
    out, start = [], 0
    for number, one in enumerate(message.results):
        stop = start + len(one.ids)
        table = payload.slice(start, stop - start) if message.payload else payload
        why = Completeness(one.complete, "; ".join([*remarks, *([one.why] if one.why else [])]))
        highlighters = {found.field: _highlighter(found) for found in one.highlighters}
        mine = ids[start:stop], scores[start:stop]
        matches = functools.partial(token_matches, again, number, list(one.ids)) if one.by_tokens else None
        hits = Hits(*mine, table, why, explanation, highlighters, json_fields, matches)
        if one.brought_by:
            hits.brought_by = [decode_id(by) if by else None for by in one.brought_by]
        out.append(hits)
        start = stop
    return out


def query_results(message: pb.QueryResponse, again: Again, remarks: Sequence[Sequence[str]]) -> Hits | BatchHits:
    """What query trees found; ``remarks`` are what the client has to say of each, ``again`` explains one of them."""
    several = [
        hits
        for number, (one, said) in enumerate(zip(message.results, remarks, strict=True))
        for hits in _hits(one, functools.partial(_of_tree, again, number), said)
    ]
    return several[0] if message.single else BatchHits(several)


def facet_counts(message: pb.FacetsResponse) -> dict[Any, int]:
    """Values of a field and how many rows have each."""
    table = unpack_table(message.counts)
    return dict(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))


def recall_report(message: pb.RecallResponse) -> RecallReport:
    """What was measured."""
    return RecallReport(**{name: getattr(message, name) for name in RecallReport.__dataclass_fields__})


def recode_report(message: pb.ReindexResponse) -> RecodeReport:
    """What was compared."""
    figures = {name: getattr(message, name) for name in RecodeReport.__dataclass_fields__}
    for name in ("old", "new", "old_index", "new_index"):
        figures[name] = figures[name] if message.HasField(name) else None
    return RecodeReport(**figures)


def spec_messages(given: Mapping[str, str | None]) -> dict[str, str]:
    """Codecs and indexes, where an empty text is none; raises InvalidArgument where one is no text, or empty."""
    for name, spec in given.items():
        if spec is not None and (not isinstance(spec, str) or not spec):
            raise InvalidArgument(f"reindex({name}=) expects a name such as 'LVQ8' or None, found {shown(spec)}")
    return {name: checked_text(spec or "") for name, spec in given.items()}


def verify_report(message: pb.VerifyResponse) -> VerifyReport:
    """What was read."""
    damage = [Damage(one.where, one.what) for one in message.damage]
    return VerifyReport(damage, message.records, message.blob_bytes)


def joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches; those of another schema begin another."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if held and (batch.schema != held[0].schema or sum(map(len, held)) >= JOINED_ROWS):
            yield _one(held)
            held = []
        held.append(batch)
    if held:
        yield _one(held)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    (whole,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A record batch of no rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def scanned(answers: Iterator[Any]) -> Iterator[Any]:
    """Rows that a scan yields; its first answer is awaited here, since it says whether the request was good."""
    first = next(answers)
    return (row for answer in answers for row in unpack_rows(answer.rows, first.json_fields))


def scanned_batches(answers: Iterator[Any]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Record batches that a scan yields, and what they look like where there is none."""
    first = unpack_table(next(answers).rows)
    return first.schema, (batch for answer in answers for batch in unpack_table(answer.rows).to_batches())


def _of_tree(again: Again, number: int, _: int) -> pb.ResultSet:
    """The answer to a query tree, which has one set of results."""
    return again(number)


def _highlighter(message: pb.Highlighter) -> Highlighter:
    phrases = [tuple(zip(np.frombuffer(one.terms, "<u8").tolist(), one.places, strict=True)) for one in message.phrases]
    keys = frozenset(np.frombuffer(message.terms, "<u8").tolist())
    return Highlighter(message.language, keys, tuple(phrases))


def _step(message: pb.Step) -> Step:
    return Step(message.name, message.detail, message.seconds, message.rows, [_step(one) for one in message.steps])
