from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[Dtype]
    DTYPE_FLOAT16: _ClassVar[Dtype]
    DTYPE_FLOAT32: _ClassVar[Dtype]
    DTYPE_FLOAT64: _ClassVar[Dtype]

class MatchOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATCH_OPERATOR_UNSPECIFIED: _ClassVar[MatchOperator]
    MATCH_OPERATOR_ANY: _ClassVar[MatchOperator]
    MATCH_OPERATOR_ALL: _ClassVar[MatchOperator]
    MATCH_OPERATOR_PHRASE: _ClassVar[MatchOperator]
    MATCH_OPERATOR_PREFIX: _ClassVar[MatchOperator]
    MATCH_OPERATOR_FUZZY: _ClassVar[MatchOperator]
DTYPE_UNSPECIFIED: Dtype
DTYPE_FLOAT16: Dtype
DTYPE_FLOAT32: Dtype
DTYPE_FLOAT64: Dtype
MATCH_OPERATOR_UNSPECIFIED: MatchOperator
MATCH_OPERATOR_ANY: MatchOperator
MATCH_OPERATOR_ALL: MatchOperator
MATCH_OPERATOR_PHRASE: MatchOperator
MATCH_OPERATOR_PREFIX: MatchOperator
MATCH_OPERATOR_FUZZY: MatchOperator

class Array(_message.Message):
    __slots__ = ("data", "dtype", "shape")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: Dtype
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., dtype: _Optional[_Union[Dtype, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values", "single")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    single: bool
    def __init__(self, values: _Optional[_Iterable[str]] = ..., single: bool = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("expression", "json")
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    expression: str
    json: str
    def __init__(self, expression: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, values: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("version", "inserted", "updated", "deleted", "missing")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSERTED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    version: int
    inserted: int
    updated: int
    deleted: int
    missing: int
    def __init__(self, version: _Optional[int] = ..., inserted: _Optional[int] = ..., updated: _Optional[int] = ..., deleted: _Optional[int] = ..., missing: _Optional[int] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "schema", "exist_ok")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    name: str
    schema: bytes
    exist_ok: bool
    def __init__(self, name: _Optional[str] = ..., schema: _Optional[bytes] = ..., exist_ok: bool = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSchemaRequest(_message.Message):
    __slots__ = ("name", "snapshot")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    name: str
    snapshot: str
    def __init__(self, name: _Optional[str] = ..., snapshot: _Optional[str] = ...) -> None: ...

class GetSchemaResponse(_message.Message):
    __slots__ = ("schema", "embedder")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    embedder: bytes
    def __init__(self, schema: _Optional[bytes] = ..., embedder: _Optional[bytes] = ...) -> None: ...

class GetCollectionStatsRequest(_message.Message):
    __slots__ = ("name", "snapshot")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    name: str
    snapshot: str
    def __init__(self, name: _Optional[str] = ..., snapshot: _Optional[str] = ...) -> None: ...

class VectorStats(_message.Message):
    __slots__ = ("index", "codec", "indexed_rows", "coded_rows", "unindexed_rows", "unreachable", "vector_bytes", "code_bytes", "link_bytes")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    INDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    CODED_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    index: str
    codec: str
    indexed_rows: int
    coded_rows: int
    unindexed_rows: int
    unreachable: int
    vector_bytes: float
    code_bytes: float
    link_bytes: float
    def __init__(self, index: _Optional[str] = ..., codec: _Optional[str] = ..., indexed_rows: _Optional[int] = ..., coded_rows: _Optional[int] = ..., unindexed_rows: _Optional[int] = ..., unreachable: _Optional[int] = ..., vector_bytes: _Optional[float] = ..., code_bytes: _Optional[float] = ..., link_bytes: _Optional[float] = ...) -> None: ...

class GetCollectionStatsResponse(_message.Message):
    __slots__ = ("rows", "dead_rows", "segments", "tail_rows", "tail_batches", "unindexed_rows", "nbytes", "version", "vectors")
    class VectorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: VectorStats
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[VectorStats, _Mapping]] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TAIL_ROWS_FIELD_NUMBER: _ClassVar[int]
    TAIL_BATCHES_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    dead_rows: int
    segments: int
    tail_rows: int
    tail_batches: int
    unindexed_rows: int
    nbytes: int
    version: int
    vectors: _containers.MessageMap[str, VectorStats]
    def __init__(self, rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., segments: _Optional[int] = ..., tail_rows: _Optional[int] = ..., tail_batches: _Optional[int] = ..., unindexed_rows: _Optional[int] = ..., nbytes: _Optional[int] = ..., version: _Optional[int] = ..., vectors: _Optional[_Mapping[str, VectorStats]] = ...) -> None: ...

class GetDatabaseStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetDatabaseStatsResponse(_message.Message):
    __slots__ = ("store_id", "version", "collections", "rows", "file_bytes", "used_bytes")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    store_id: str
    version: int
    collections: int
    rows: int
    file_bytes: int
    used_bytes: int
    def __init__(self, store_id: _Optional[str] = ..., version: _Optional[int] = ..., collections: _Optional[int] = ..., rows: _Optional[int] = ..., file_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "rows", "embedded", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    rows: bytes
    embedded: bool
    request_id: bytes
    def __init__(self, collection: _Optional[str] = ..., rows: _Optional[bytes] = ..., embedded: bool = ..., request_id: _Optional[bytes] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("collection", "batches", "embedded", "seen", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    batches: _containers.RepeatedScalarFieldContainer[bytes]
    embedded: bool
    seen: _containers.RepeatedScalarFieldContainer[bytes]
    request_id: bytes
    def __init__(self, collection: _Optional[str] = ..., batches: _Optional[_Iterable[bytes]] = ..., embedded: bool = ..., seen: _Optional[_Iterable[bytes]] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ("result", "texts_moved")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_MOVED_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    texts_moved: bool
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ..., texts_moved: bool = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "where", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    where: Filter
    request_id: bytes
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "fields", "include_vectors", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    fields: Names
    include_vectors: bool
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., include_vectors: bool = ..., snapshot: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("found", "rows", "json_fields")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELDS_FIELD_NUMBER: _ClassVar[int]
    found: _containers.RepeatedScalarFieldContainer[bool]
    rows: bytes
    json_fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, found: _Optional[_Iterable[bool]] = ..., rows: _Optional[bytes] = ..., json_fields: _Optional[_Iterable[str]] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "where", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: Filter
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "texts", "sparse", "tokens", "passages", "k", "where", "using", "radius", "fields", "exact", "oversample", "ef_search", "nprobe", "target_recall", "snapshot", "explain_tokens")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    OVERSAMPLE_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vectors: Array
    texts: Texts
    sparse: SparseVectors
    tokens: TokenMatrices
    passages: Passages
    k: int
    where: Filter
    using: str
    radius: float
    fields: Names
    exact: bool
    oversample: float
    ef_search: int
    nprobe: int
    target_recall: float
    snapshot: str
    explain_tokens: bool
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., sparse: _Optional[_Union[SparseVectors, _Mapping]] = ..., tokens: _Optional[_Union[TokenMatrices, _Mapping]] = ..., passages: _Optional[_Union[Passages, _Mapping]] = ..., k: _Optional[int] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., using: _Optional[str] = ..., radius: _Optional[float] = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., exact: bool = ..., oversample: _Optional[float] = ..., ef_search: _Optional[int] = ..., nprobe: _Optional[int] = ..., target_recall: _Optional[float] = ..., snapshot: _Optional[str] = ..., explain_tokens: bool = ...) -> None: ...

class Phrase(_message.Message):
    __slots__ = ("terms", "places")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    terms: bytes
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, terms: _Optional[bytes] = ..., places: _Optional[_Iterable[int]] = ...) -> None: ...

class Highlighter(_message.Message):
    __slots__ = ("field", "language", "terms", "phrases")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    PHRASES_FIELD_NUMBER: _ClassVar[int]
    field: str
    language: str
    terms: bytes
    phrases: _containers.RepeatedCompositeFieldContainer[Phrase]
    def __init__(self, field: _Optional[str] = ..., language: _Optional[str] = ..., terms: _Optional[bytes] = ..., phrases: _Optional[_Iterable[_Union[Phrase, _Mapping]]] = ...) -> None: ...

class ResultSet(_message.Message):
    __slots__ = ("ids", "scores", "complete", "why", "highlighters", "by_tokens", "brought_by", "token_products")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTERS_FIELD_NUMBER: _ClassVar[int]
    BY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BROUGHT_BY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    scores: bytes
    complete: bool
    why: str
    highlighters: _containers.RepeatedCompositeFieldContainer[Highlighter]
    by_tokens: bool
    brought_by: _containers.RepeatedScalarFieldContainer[bytes]
    token_products: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, ids: _Optional[_Iterable[bytes]] = ..., scores: _Optional[bytes] = ..., complete: bool = ..., why: _Optional[str] = ..., highlighters: _Optional[_Iterable[_Union[Highlighter, _Mapping]]] = ..., by_tokens: bool = ..., brought_by: _Optional[_Iterable[bytes]] = ..., token_products: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("name", "detail", "seconds", "rows", "steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    detail: str
    seconds: float
    rows: int
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, name: _Optional[str] = ..., detail: _Optional[str] = ..., seconds: _Optional[float] = ..., rows: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results", "payload", "json_fields", "matched_fields", "single", "explanation")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELDS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ResultSet]
    payload: bytes
    json_fields: _containers.RepeatedScalarFieldContainer[str]
    matched_fields: _containers.RepeatedScalarFieldContainer[str]
    single: bool
    explanation: Step
    def __init__(self, results: _Optional[_Iterable[_Union[ResultSet, _Mapping]]] = ..., payload: _Optional[bytes] = ..., json_fields: _Optional[_Iterable[str]] = ..., matched_fields: _Optional[_Iterable[str]] = ..., single: bool = ..., explanation: _Optional[_Union[Step, _Mapping]] = ...) -> None: ...

class SparseVector(_message.Message):
    __slots__ = ("dimensions", "weights")
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    dimensions: bytes
    weights: bytes
    def __init__(self, dimensions: _Optional[bytes] = ..., weights: _Optional[bytes] = ...) -> None: ...

class SparseVectors(_message.Message):
    __slots__ = ("values", "single")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[SparseVector]
    single: bool
    def __init__(self, values: _Optional[_Iterable[_Union[SparseVector, _Mapping]]] = ..., single: bool = ...) -> None: ...

class Passages(_message.Message):
    __slots__ = ("text", "passages", "mix")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    text: str
    passages: _containers.RepeatedScalarFieldContainer[str]
    mix: float
    def __init__(self, text: _Optional[str] = ..., passages: _Optional[_Iterable[str]] = ..., mix: _Optional[float] = ...) -> None: ...

class TokenMatrices(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, values: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class Effort(_message.Message):
    __slots__ = ("exact", "oversample", "ef_search", "nprobe", "target_recall")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    OVERSAMPLE_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    exact: bool
    oversample: float
    ef_search: int
    nprobe: int
    target_recall: float
    def __init__(self, exact: bool = ..., oversample: _Optional[float] = ..., ef_search: _Optional[int] = ..., nprobe: _Optional[int] = ..., target_recall: _Optional[float] = ...) -> None: ...

class NearNode(_message.Message):
    __slots__ = ("field", "vectors", "texts", "passages", "k", "radius", "effort")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    field: str
    vectors: Array
    texts: Texts
    passages: Passages
    k: int
    radius: float
    effort: Effort
    def __init__(self, field: _Optional[str] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., passages: _Optional[_Union[Passages, _Mapping]] = ..., k: _Optional[int] = ..., radius: _Optional[float] = ..., effort: _Optional[_Union[Effort, _Mapping]] = ...) -> None: ...

class MatchNode(_message.Message):
    __slots__ = ("field", "text", "operator", "k")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    field: str
    text: str
    operator: MatchOperator
    k: int
    def __init__(self, field: _Optional[str] = ..., text: _Optional[str] = ..., operator: _Optional[_Union[MatchOperator, str]] = ..., k: _Optional[int] = ...) -> None: ...

class SparseNode(_message.Message):
    __slots__ = ("field", "query", "k")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    field: str
    query: SparseVector
    k: int
    def __init__(self, field: _Optional[str] = ..., query: _Optional[_Union[SparseVector, _Mapping]] = ..., k: _Optional[int] = ...) -> None: ...

class LikeNode(_message.Message):
    __slots__ = ("ids", "unlike", "using", "k")
    IDS_FIELD_NUMBER: _ClassVar[int]
    UNLIKE_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    ids: Ids
    unlike: Ids
    using: str
    k: int
    def __init__(self, ids: _Optional[_Union[Ids, _Mapping]] = ..., unlike: _Optional[_Union[Ids, _Mapping]] = ..., using: _Optional[str] = ..., k: _Optional[int] = ...) -> None: ...

class Rrf(_message.Message):
    __slots__ = ("k", "weights")
    K_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    k: float
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, k: _Optional[float] = ..., weights: _Optional[_Iterable[float]] = ...) -> None: ...

class MinMax(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...

class Dbsf(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...

class FuseNode(_message.Message):
    __slots__ = ("branches", "rrf", "min_max", "dbsf", "remarks")
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    RRF_FIELD_NUMBER: _ClassVar[int]
    MIN_MAX_FIELD_NUMBER: _ClassVar[int]
    DBSF_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    branches: _containers.RepeatedCompositeFieldContainer[QueryNode]
    rrf: Rrf
    min_max: MinMax
    dbsf: Dbsf
    remarks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, branches: _Optional[_Iterable[_Union[QueryNode, _Mapping]]] = ..., rrf: _Optional[_Union[Rrf, _Mapping]] = ..., min_max: _Optional[_Union[MinMax, _Mapping]] = ..., dbsf: _Optional[_Union[Dbsf, _Mapping]] = ..., remarks: _Optional[_Iterable[str]] = ...) -> None: ...

class WhereNode(_message.Message):
    __slots__ = ("child", "where")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    where: Filter
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., where: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("args",)
    ARGS_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, args: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Recency(_message.Message):
    __slots__ = ("field", "half_life", "origin")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    field: str
    half_life: float
    origin: int
    def __init__(self, field: _Optional[str] = ..., half_life: _Optional[float] = ..., origin: _Optional[int] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("number", "field", "truth", "sum", "product", "log1p", "recency")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    LOG1P_FIELD_NUMBER: _ClassVar[int]
    RECENCY_FIELD_NUMBER: _ClassVar[int]
    number: float
    field: str
    truth: Filter
    sum: Values
    product: Values
    log1p: Value
    recency: Recency
    def __init__(self, number: _Optional[float] = ..., field: _Optional[str] = ..., truth: _Optional[_Union[Filter, _Mapping]] = ..., sum: _Optional[_Union[Values, _Mapping]] = ..., product: _Optional[_Union[Values, _Mapping]] = ..., log1p: _Optional[_Union[Value, _Mapping]] = ..., recency: _Optional[_Union[Recency, _Mapping]] = ...) -> None: ...

class BoostNode(_message.Message):
    __slots__ = ("child", "value")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    value: Value
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class DiversifyNode(_message.Message):
    __slots__ = ("child", "diversity", "using", "candidates")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    diversity: float
    using: str
    candidates: int
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., diversity: _Optional[float] = ..., using: _Optional[str] = ..., candidates: _Optional[int] = ...) -> None: ...

class MaxSim(_message.Message):
    __slots__ = ("field", "query")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    field: str
    query: Array
    def __init__(self, field: _Optional[str] = ..., query: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class CrossEncoder(_message.Message):
    __slots__ = ("field", "model", "digests", "scores")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    field: str
    model: str
    digests: bytes
    scores: bytes
    def __init__(self, field: _Optional[str] = ..., model: _Optional[str] = ..., digests: _Optional[bytes] = ..., scores: _Optional[bytes] = ...) -> None: ...

class RerankNode(_message.Message):
    __slots__ = ("child", "maxsim", "cross_encoder", "k")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    MAXSIM_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENCODER_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    maxsim: MaxSim
    cross_encoder: CrossEncoder
    k: int
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., maxsim: _Optional[_Union[MaxSim, _Mapping]] = ..., cross_encoder: _Optional[_Union[CrossEncoder, _Mapping]] = ..., k: _Optional[int] = ...) -> None: ...

class GroupNode(_message.Message):
    __slots__ = ("child", "field", "per")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    field: str
    per: int
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., field: _Optional[str] = ..., per: _Optional[int] = ...) -> None: ...

class LimitNode(_message.Message):
    __slots__ = ("child", "count", "skip")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    count: int
    skip: int
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., count: _Optional[int] = ..., skip: _Optional[int] = ...) -> None: ...

class ExpandNode(_message.Message):
    __slots__ = ("child", "neighbours", "parent", "ordinal")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    child: QueryNode
    neighbours: int
    parent: str
    ordinal: str
    def __init__(self, child: _Optional[_Union[QueryNode, _Mapping]] = ..., neighbours: _Optional[int] = ..., parent: _Optional[str] = ..., ordinal: _Optional[str] = ...) -> None: ...

class QueryNode(_message.Message):
    __slots__ = ("near", "match", "sparse", "like", "fuse", "where", "boost", "diversify", "rerank", "group", "limit", "expand")
    NEAR_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    LIKE_FIELD_NUMBER: _ClassVar[int]
    FUSE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    BOOST_FIELD_NUMBER: _ClassVar[int]
    DIVERSIFY_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    EXPAND_FIELD_NUMBER: _ClassVar[int]
    near: NearNode
    match: MatchNode
    sparse: SparseNode
    like: LikeNode
    fuse: FuseNode
    where: WhereNode
    boost: BoostNode
    diversify: DiversifyNode
    rerank: RerankNode
    group: GroupNode
    limit: LimitNode
    expand: ExpandNode
    def __init__(self, near: _Optional[_Union[NearNode, _Mapping]] = ..., match: _Optional[_Union[MatchNode, _Mapping]] = ..., sparse: _Optional[_Union[SparseNode, _Mapping]] = ..., like: _Optional[_Union[LikeNode, _Mapping]] = ..., fuse: _Optional[_Union[FuseNode, _Mapping]] = ..., where: _Optional[_Union[WhereNode, _Mapping]] = ..., boost: _Optional[_Union[BoostNode, _Mapping]] = ..., diversify: _Optional[_Union[DiversifyNode, _Mapping]] = ..., rerank: _Optional[_Union[RerankNode, _Mapping]] = ..., group: _Optional[_Union[GroupNode, _Mapping]] = ..., limit: _Optional[_Union[LimitNode, _Mapping]] = ..., expand: _Optional[_Union[ExpandNode, _Mapping]] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("collection", "queries", "single", "where", "fields", "snapshot", "explain_tokens")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _containers.RepeatedCompositeFieldContainer[QueryNode]
    single: bool
    where: Filter
    fields: Names
    snapshot: str
    explain_tokens: bool
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[QueryNode, _Mapping]]] = ..., single: bool = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., snapshot: _Optional[str] = ..., explain_tokens: bool = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("results", "single", "unscored")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SearchResponse]
    single: bool
    unscored: _containers.RepeatedCompositeFieldContainer[Texts]
    def __init__(self, results: _Optional[_Iterable[_Union[SearchResponse, _Mapping]]] = ..., single: bool = ..., unscored: _Optional[_Iterable[_Union[Texts, _Mapping]]] = ...) -> None: ...

class AddFieldRequest(_message.Message):
    __slots__ = ("collection", "schema")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    collection: str
    schema: bytes
    def __init__(self, collection: _Optional[str] = ..., schema: _Optional[bytes] = ...) -> None: ...

class AddFieldResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropFieldRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DropFieldResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AddVectorRequest(_message.Message):
    __slots__ = ("collection", "schema")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    collection: str
    schema: bytes
    def __init__(self, collection: _Optional[str] = ..., schema: _Optional[bytes] = ...) -> None: ...

class AddVectorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropVectorRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DropVectorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MaintainRequest(_message.Message):
    __slots__ = ("collection", "wait", "timeout")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    wait: bool
    timeout: float
    def __init__(self, collection: _Optional[str] = ..., wait: bool = ..., timeout: _Optional[float] = ...) -> None: ...

class MaintainResponse(_message.Message):
    __slots__ = ("done",)
    DONE_FIELD_NUMBER: _ClassVar[int]
    done: bool
    def __init__(self, done: bool = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("collection", "k", "n", "where", "using", "vectors", "texts", "effort", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    k: int
    n: int
    where: Filter
    using: str
    vectors: Array
    texts: Texts
    effort: Effort
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., k: _Optional[int] = ..., n: _Optional[int] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., using: _Optional[str] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., effort: _Optional[_Union[Effort, _Mapping]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("recall", "low", "high", "k", "queries", "seconds", "exact_seconds")
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXACT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    recall: float
    low: float
    high: float
    k: int
    queries: int
    seconds: float
    exact_seconds: float
    def __init__(self, recall: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., k: _Optional[int] = ..., queries: _Optional[int] = ..., seconds: _Optional[float] = ..., exact_seconds: _Optional[float] = ...) -> None: ...

class FacetsRequest(_message.Message):
    __slots__ = ("collection", "field", "where", "query", "limit", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    where: Filter
    query: QueryNode
    limit: int
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., query: _Optional[_Union[QueryNode, _Mapping]] = ..., limit: _Optional[int] = ..., snapshot: _Optional[str] = ...) -> None: ...

class FacetsResponse(_message.Message):
    __slots__ = ("counts", "unscored")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    counts: bytes
    unscored: _containers.RepeatedCompositeFieldContainer[Texts]
    def __init__(self, counts: _Optional[bytes] = ..., unscored: _Optional[_Iterable[_Union[Texts, _Mapping]]] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("collection", "where", "order_by", "descending", "fields", "include_vectors", "batch_size", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    DESCENDING_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: Filter
    order_by: str
    descending: bool
    fields: Names
    include_vectors: bool
    batch_size: int
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., order_by: _Optional[str] = ..., descending: bool = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., include_vectors: bool = ..., batch_size: _Optional[int] = ..., snapshot: _Optional[str] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("rows", "json_fields")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELDS_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    json_fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rows: _Optional[bytes] = ..., json_fields: _Optional[_Iterable[str]] = ...) -> None: ...

class AttachEmbedderRequest(_message.Message):
    __slots__ = ("collection", "embedder")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    embedder: bytes
    def __init__(self, collection: _Optional[str] = ..., embedder: _Optional[bytes] = ...) -> None: ...

class AttachEmbedderResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenSnapshotResponse(_message.Message):
    __slots__ = ("snapshot", "version")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    version: int
    def __init__(self, snapshot: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class CloseSnapshotRequest(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    def __init__(self, snapshot: _Optional[str] = ...) -> None: ...

class CloseSnapshotResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Change(_message.Message):
    __slots__ = ("upsert", "update", "delete")
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    upsert: UpsertRequest
    update: UpdateRequest
    delete: DeleteRequest
    def __init__(self, upsert: _Optional[_Union[UpsertRequest, _Mapping]] = ..., update: _Optional[_Union[UpdateRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteRequest, _Mapping]] = ...) -> None: ...

class WriteBatchRequest(_message.Message):
    __slots__ = ("changes", "request_id")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    request_id: bytes
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class WriteBatchResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class RenameCollectionRequest(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class RenameCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReindexRequest(_message.Message):
    __slots__ = ("collection", "name", "index", "codec", "min_recall")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    MIN_RECALL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    index: str
    codec: str
    min_recall: float
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., index: _Optional[str] = ..., codec: _Optional[str] = ..., min_recall: _Optional[float] = ...) -> None: ...

class ReindexResponse(_message.Message):
    __slots__ = ("old", "new", "old_recall", "new_recall", "switched", "old_index", "new_index")
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    OLD_RECALL_FIELD_NUMBER: _ClassVar[int]
    NEW_RECALL_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_FIELD_NUMBER: _ClassVar[int]
    OLD_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEW_INDEX_FIELD_NUMBER: _ClassVar[int]
    old: str
    new: str
    old_recall: float
    new_recall: float
    switched: bool
    old_index: str
    new_index: str
    def __init__(self, old: _Optional[str] = ..., new: _Optional[str] = ..., old_recall: _Optional[float] = ..., new_recall: _Optional[float] = ..., switched: bool = ..., old_index: _Optional[str] = ..., new_index: _Optional[str] = ...) -> None: ...

class CalibrateRequest(_message.Message):
    __slots__ = ("collection", "using", "vectors", "texts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USING_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    using: str
    vectors: Array
    texts: Texts
    def __init__(self, collection: _Optional[str] = ..., using: _Optional[str] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ...) -> None: ...

class CalibrateResponse(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: int
    def __init__(self, indexes: _Optional[int] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("collection", "snapshot")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot: str
    def __init__(self, collection: _Optional[str] = ..., snapshot: _Optional[str] = ...) -> None: ...

class Damage(_message.Message):
    __slots__ = ("where", "what")
    WHERE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    where: str
    what: str
    def __init__(self, where: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("damage", "records", "blob_bytes")
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    damage: _containers.RepeatedCompositeFieldContainer[Damage]
    records: int
    blob_bytes: int
    def __init__(self, damage: _Optional[_Iterable[_Union[Damage, _Mapping]]] = ..., records: _Optional[int] = ..., blob_bytes: _Optional[int] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompactResponse(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: int
    after: int
    def __init__(self, before: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("length", "data")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    length: int
    data: bytes
    def __init__(self, length: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class IngestHeader(_message.Message):
    __slots__ = ("collection", "job", "embedded")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    job: str
    embedded: bool
    def __init__(self, collection: _Optional[str] = ..., job: _Optional[str] = ..., embedded: bool = ...) -> None: ...

class IngestBatch(_message.Message):
    __slots__ = ("sequence", "rows", "more")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    rows: bytes
    more: bool
    def __init__(self, sequence: _Optional[int] = ..., rows: _Optional[bytes] = ..., more: bool = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: IngestHeader
    batch: IngestBatch
    def __init__(self, header: _Optional[_Union[IngestHeader, _Mapping]] = ..., batch: _Optional[_Union[IngestBatch, _Mapping]] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("sequence", "window", "result")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    window: int
    result: WriteResult
    def __init__(self, sequence: _Optional[int] = ..., window: _Optional[int] = ..., result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...
