"""What a server takes on: how many calls, how many hits of one, and nothing once it drains."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from gingham.errors import InvalidArgument, ResourceExhausted, Unavailable
from gingham.query.execute import DEFAULT_LIMIT
from gingham.schema import Tokens
from gingham.server.calls import abort
from gingham.server.health import HEALTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.errors import GinghamError
    from gingham.server.proto import gingham_pb2 as pb
    from gingham.view import CollectionView

SHORT_READS = frozenset(
    f"/gingham.v1.{name}"
    for name in ("QueryService/Search", "QueryService/Query", "RowService/Get", "RowService/Count")
)
"""Calls that compute all the time they take, and wait for no lock or disk that they can know of."""
BUSY_SECONDS = 0.2
"""After which a call that was one too many may be made again."""


class CallPool(ThreadPoolExecutor):
    """Threads that run calls.

    Parameters
    ----------
    counted : counts the calls of this pool as its own; None where this pool counts
    cores : that this process may keep at work; None for all

    Attributes
    ----------
    calls : those that run or wait, of its short reads too
    short : threads for :data:`SHORT_READS`, no more than there are cores: where more of them compute at once, each
        waits for the interpreter after every kernel
    """

    def __init__(self, workers: int, counted: CallPool | None = None, *, cores: int | None = None) -> None:
        super().__init__(workers, thread_name_prefix="gingham-grpc")
        cores = cores or os.cpu_count() or 1
        self._all = counted or self
        self._changed = threading.Condition()
        self.calls = 0
        self.short = self if counted else CallPool(min(workers, cores), self)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call once there is a thread for it."""
        future = super().submit(fn, *args, **kwargs)
        with self._all._changed:
            self._all.calls += 1
        future.add_done_callback(self._all._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        del future
        with self._changed:
            self.calls -= 1
            if not self.calls:
                self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Return once no call is left, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self.calls, timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self.short is not self:
            self.short.shutdown(wait, cancel_futures=cancel_futures)


class LimitInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls that are too many, and all where the server drains; probes of health pass.

    Parameters
    ----------
    pool : where calls run
    refusals : where those end that are refused, so that they need not wait for the others
    most : calls that may run or wait at once
    """

    def __init__(self, pool: CallPool, refusals: ThreadPoolExecutor, most: int) -> None:
        self._pool = pool
        self._most = most
        self._busy = _refusing(self._too_many, refusals)
        self._ending = _refusing(_drained, refusals)
        self.draining = False

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        if details.method.startswith(HEALTH):
            return continuation(details)
        if self.draining:
            return self._ending
        if self._pool.calls >= self._most:
            return self._busy
        handler = continuation(details)
        if details.method in SHORT_READS and handler is not None:
            handler.unary_unary.experimental_thread_pool = self._pool.short
        return handler

    def _too_many(self) -> GinghamError:
        error = ResourceExhausted(
            f"the server expected at most {self._most} calls at once, found one more; call again in a moment, or serve "
            "with more workers"
        )
        error.retry_after = BUSY_SECONDS
        return error


def _drained() -> GinghamError:
    return Unavailable("a call expects a server that goes on, found one that ends; call again once it is back")


def _refusing(made: Callable[[], GinghamError], pool: ThreadPoolExecutor) -> Any:
    """A handler for calls of every kind, which reads none of their requests."""

    def refuse(requests: Any, context: grpc.ServicerContext) -> NoReturn:
        del requests
        abort(context, made())

    refuse.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return grpc.stream_stream_rpc_method_handler(refuse)


def check_search(request: pb.SearchRequest, collection: CollectionView, most: int) -> None:
    """Raise InvalidArgument where a search asks for more than ``most`` hits, counted in rows that there are."""
    kind, shape = request.WhichOneof("query"), request.vectors.shape
    several = len(getattr(request, kind).values) if kind in ("texts", "sparse", "tokens") else 1
    queries = shape[0] if len(shape) == 2 else several
    if request.k * queries > most:
        one = len(shape) == 2 and has_tokens(collection, request.using)
        check_hits(min(request.k, collection.count()) * (1 if one else queries), most)


def has_tokens(collection: CollectionView, using: str) -> bool:
    """Whether a search looks into a field of tokens, of which one query has several vectors."""
    vectors = collection.schema.vectors
    return isinstance(vectors.get(using or next(iter(vectors), "")), Tokens)


def check_queries(request: pb.QueryRequest, collection: CollectionView, most: int) -> None:
    """The same of query trees, of which a limit at the root says how many hits there are."""
    limits = [one.limit for one in request.queries]
    asked = [limit.count if limit.HasField("count") else DEFAULT_LIMIT for limit in limits]
    if sum(asked) > most:
        there = collection.count()
        check_hits(sum(min(k, there) for k in asked), most)


def check_hits(found: int, most: int) -> None:
    """Raise InvalidArgument where there are more than ``most`` hits."""
    if found > most:
        raise InvalidArgument(
            f"a request over gRPC expects at most {most} hits, k of each of its queries, found {found}; ask for a "
            "smaller k= or send fewer queries at once, read all rows by scan(), or serve with a larger --max-hits"
        )
