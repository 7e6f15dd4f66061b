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
DTYPE_UNSPECIFIED: Dtype
DTYPE_FLOAT16: Dtype
DTYPE_FLOAT32: Dtype
DTYPE_FLOAT64: Dtype

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
    __slots__ = ()
    def __init__(self) -> None: ...

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
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetSchemaResponse(_message.Message):
    __slots__ = ("schema",)
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    def __init__(self, schema: _Optional[bytes] = ...) -> None: ...

class GetCollectionStatsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("collection", "rows")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    rows: bytes
    def __init__(self, collection: _Optional[str] = ..., rows: _Optional[bytes] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("collection", "batches")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    batches: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, collection: _Optional[str] = ..., batches: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    where: Filter
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., where: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "fields", "include_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    fields: Names
    include_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., include_vectors: bool = ...) -> None: ...

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
    __slots__ = ("collection", "where")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: Filter
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "texts", "k", "where", "using", "radius", "fields", "exact", "oversample", "ef_search", "nprobe", "target_recall")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
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
    collection: str
    vectors: Array
    texts: Texts
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
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., k: _Optional[int] = ..., where: _Optional[_Union[Filter, _Mapping]] = ..., using: _Optional[str] = ..., radius: _Optional[float] = ..., fields: _Optional[_Union[Names, _Mapping]] = ..., exact: bool = ..., oversample: _Optional[float] = ..., ef_search: _Optional[int] = ..., nprobe: _Optional[int] = ..., target_recall: _Optional[float] = ...) -> None: ...

class ResultSet(_message.Message):
    __slots__ = ("ids", "scores", "complete", "why")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    scores: bytes
    complete: bool
    why: str
    def __init__(self, ids: _Optional[_Iterable[bytes]] = ..., scores: _Optional[bytes] = ..., complete: bool = ..., why: _Optional[str] = ...) -> None: ...

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
