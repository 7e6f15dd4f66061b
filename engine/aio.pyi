# Types of the async twin, made by `.venv/bin/python tests/twin.py`; do not edit.
# mypy: disable-error-code="overload-overlap"

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import pyarrow as pa

from gingham.database import DatabaseStats
from gingham.embed import Embedder
from gingham.query.bind import Where
from gingham.query.nodes import Query
from gingham.query.recall import RecallReport
from gingham.query.stats import CollectionStats
from gingham.recode import RecodeReport
from gingham.schema import Field, Schema, Vector
from gingham.storage.session import WriteSession
from gingham.storage.verify import VerifyReport
from gingham.types import UserId, WriteResult

_T = TypeVar("_T")

class Opening(Coroutine[Any, Any, _T]):
    def __init__(self, work: Coroutine[Any, Any, _T]) -> None: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...
    async def __aenter__(self) -> _T: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class Twin:
    def __init__(self, sync: Any, executor: Executor | None = None) -> None: ...

TWINS: dict[type, type[Twin]]

def opening(opener: Callable[..., Any], *args: Any, **kwargs: Any) -> Opening[Any]: ...

class AsyncCollectionView(Twin):
    @property
    def name(self) -> str: ...
    @property
    def schema(self) -> Schema: ...
    async def count(self, *, where: Where = None) -> int: ...
    @overload
    async def get(
        self, ids: UserId, *, fields: Sequence[str] | None = None, include_vectors: bool = False
    ) -> dict[str, Any] | None: ...
    @overload
    async def get(
        self, ids: Iterable[UserId], *, fields: Sequence[str] | None = None, include_vectors: bool = False
    ) -> list[dict[str, Any] | None]: ...
    @overload
    def scan(
        self,
        *,
        where: Where = ...,
        order_by: str | None = ...,
        descending: bool = ...,
        fields: Sequence[str] | None = ...,
        include_vectors: bool = ...,
        batch_size: None = ...,
    ) -> AsyncGenerator[dict[str, Any]]: ...
    @overload
    def scan(
        self,
        *,
        where: Where = ...,
        order_by: str | None = ...,
        descending: bool = ...,
        fields: Sequence[str] | None = ...,
        include_vectors: bool = ...,
        batch_size: int,
    ) -> AsyncGenerator[pa.RecordBatch]: ...
    async def to_parquet(self, path: str | os.PathLike[str], *, where: Where = None) -> int: ...
    async def facets(
        self,
        field: str,
        *,
        where: Where = None,
        query: Query | None = None,
        limit: int | None = 10,
        timeout: float | None = None,
    ) -> dict[Any, int]: ...
    async def search(
        self,
        query: Any,
        *,
        k: int | None = 10,
        where: Where = None,
        using: str | None = None,
        radius: float | None = None,
        fields: Sequence[str] | None = None,
        exact: bool = False,
        oversample: float | None = None,
        ef_search: int | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        timeout: float | None = None,
    ) -> Any: ...
    async def query(
        self,
        query: Query | Sequence[Query],
        *,
        where: Where = None,
        fields: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Any: ...
    async def recall(
        self,
        *,
        k: int = 10,
        n: int = 100,
        where: Where = None,
        using: str | None = None,
        queries: Any = None,
        oversample: float | None = None,
        ef_search: int | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        timeout: float | None = None,
    ) -> RecallReport: ...
    async def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport: ...
    async def stats(self) -> CollectionStats: ...

class AsyncCollection(AsyncCollectionView):
    async def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult: ...
    async def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult: ...
    async def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> WriteResult: ...
    async def add_field(self, name: str, field: Field) -> None: ...
    async def add_vector(self, name: str, vector: Vector) -> None: ...
    async def drop_field(self, name: str) -> None: ...
    async def drop_vector(self, name: str) -> None: ...
    async def recode(self, name: str, codec: str | None, *, min_recall: float = 0.0) -> RecodeReport: ...
    async def reindex(
        self, name: str, *, index: str | None = "keep", codec: str | None = "keep", min_recall: float = 0.0
    ) -> RecodeReport: ...
    async def calibrate(self, queries: Any, *, using: str | None = None) -> int: ...
    async def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool: ...

class AsyncTransactionCollection(AsyncCollectionView):
    async def upsert(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None: ...
    async def update(
        self,
        rows: Any = None,
        *,
        ids: Sequence[UserId] | None = None,
        vectors: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None: ...
    async def delete(self, *, ids: Sequence[UserId] | UserId | None = None, where: Where = None) -> None: ...

class AsyncSnapshot(Twin):
    async def close(self) -> None: ...
    @property
    def version(self) -> int: ...
    async def collections(self) -> list[str]: ...
    def __getitem__(self, name: str) -> AsyncCollectionView: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class AsyncTransaction(Twin):
    def __getitem__(self, name: str) -> AsyncTransactionCollection: ...
    async def abort(self) -> None: ...
    async def add(self, change: Callable[[WriteSession], WriteResult]) -> None: ...
    result: WriteResult | None

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class AsyncDatabase(Twin):
    async def close(self) -> None: ...
    @property
    def path(self) -> Path: ...
    async def collections(self) -> list[str]: ...
    async def create_collection(
        self,
        name: str,
        *,
        fields: Mapping[str, Field] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        embedder: Embedder | None = None,
        exist_ok: bool = False,
    ) -> AsyncCollection: ...
    async def collection(self, name: str, *, embedder: Embedder | None = None) -> AsyncCollection: ...
    def __getitem__(self, name: str) -> AsyncCollection: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    async def drop_collection(self, name: str) -> None: ...
    async def rename_collection(self, old: str, new: str) -> None: ...
    def snapshot(self) -> Opening[AsyncSnapshot]: ...
    def transaction(self) -> Opening[AsyncTransaction]: ...
    async def stats(self) -> DatabaseStats: ...
    async def verify(self, *, progress: Callable[[int], None] | None = None) -> VerifyReport: ...
    async def compact(self) -> tuple[int, int]: ...
    async def backup(self, path: str | os.PathLike[str]) -> Path: ...
    async def maintain(self, *, wait: bool = True, timeout: float | None = None) -> bool: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
