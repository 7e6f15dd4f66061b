"""Rows that come in a stream: some are read and prepared while those before are committed, all that wait at once."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from gingham import deadline
from gingham.collection import check_embedder_attached
from gingham.errors import Cancelled, GinghamError, InvalidArgument, ResourceExhausted, Unavailable
from gingham.parallel import start_thread
from gingham.rows import from_columns
from gingham.server import writes
from gingham.server.access import known_by
from gingham.server.convert import written
from gingham.server.proto import gingham_pb2 as pb
from gingham.storage.receipts import JOBS
from gingham.types import WriteResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.database import Database
    from gingham.server.calls import Scans
    from gingham.storage.session import WriteSession
    from gingham.storage.writes import PreparedRows

WINDOW_BYTES = 64 << 20
"""What a client may send ahead: twice 10,000 rows of 768 float32 dimensions."""
MOST_BYTES = 512 << 20
"""Of batches that go together."""
LEAST_BYTES = 64
"""What a batch counts for at least."""
IDLE_SECONDS = 60.0
"""Without a batch, after which a stream ends and its worker is free for others; the job goes on in another stream."""
CHECK_SECONDS = 0.05
"""How soon a stream ends once its caller has gone or the server drains."""
MOST_JOB_CHARACTERS = 128


@dataclass(frozen=True)
class _Part:
    """Batches that go together, ready to be written."""

    first: int
    last: int
    rows: PreparedRows
    nbytes: int


class _Inbox:
    """Parts on their way from the thread that reads and prepares them to the one that writes them."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans
        self._changed = threading.Condition()
        self._parts: deque[_Part] = deque()
        self._nbytes = 0
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._heard = time.monotonic()

    def hear(self) -> None:
        """Note that the client has sent something."""
        self._heard = time.monotonic()

    def put(self, part: _Part) -> bool:
        """Hand a part on, once there is room; False where nobody takes it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._nbytes < WINDOW_BYTES)
            self._parts.append(part)
            self._nbytes += part.nbytes
            self._heard = time.monotonic()
            self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None = None) -> None:
        """Say that no other part comes, and why."""
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[_Part]:
        """All parts that are there, once there is one; none at the end. Raises what ended the stream."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self._ended, CHECK_SECONDS)
                if self._parts:
                    taken = list(self._parts)
                    self._parts.clear()
                    self._nbytes = 0
                    self._changed.notify_all()
                    return taken
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return []
            _check_going(self._scans, self._heard)


def _check_going(scans: Scans, heard: float) -> None:
    """Raise where a stream ends, last heard of at a time: its caller has gone or is silent, or the server drains."""
    deadline.check()
    if scans.ending:
        raise Unavailable("an ingest expects a server that goes on, found one that ends; go on once it is back")
    if time.monotonic() - heard > IDLE_SECONDS:
        raise Unavailable(
            f"an ingest expects a batch within {IDLE_SECONDS:g} s, found none; go on with the job in another stream"
        )


class _Job:
    """A job that a stream goes on with.

    Attributes
    ----------
    sequence : last batch that is written
    """

    def __init__(self, database: Database, request: pb.IngestRequest | None) -> None:
        if request is None or request.WhichOneof("part") != "header":
            raise InvalidArgument("an ingest expects a header before its batches, found none")
        header = request.header
        if not 0 < len(header.job) <= MOST_JOB_CHARACTERS:
            raise InvalidArgument(
                f"an ingest expects a job of 1 to {MOST_JOB_CHARACTERS} characters, found {len(header.job)}"
            )
        self._collection = writes.written_to(database, header)
        self._digest = known_by("job", self._collection._cid, header.job)
        with self._collection._reader.session() as session:
            receipt = JOBS.find(session, self._digest)
        self.sequence, self._result = (0, WriteResult(0)) if receipt is None else (receipt.sequence, receipt.result)

    def prepared(self, packed: bytes) -> PreparedRows:
        """Rows of batches that go together, ready to be written."""
        found = self._collection
        schema = check_embedder_attached(found._reader, found._cid, found._embedder)
        return found._prepared(from_columns(schema, **writes.columns_of(packed, schema)), schema)

    def answer(self) -> pb.IngestResponse:
        """How far the job has come."""
        return pb.IngestResponse(sequence=self.sequence, window=WINDOW_BYTES, result=written(self._result))

    def write(self, parts: list[_Part]) -> Iterator[pb.IngestResponse]:
        """Write parts in one commit; where that fails, one by one up to the one that is to blame."""
        try:
            self._write(parts)
            yield self.answer()
        except GinghamError as error:
            if len(parts) == 1:
                raise _named(error, parts[0].last) from None
            for part in parts:
                yield from self.write([part])

    def _write(self, parts: list[_Part]) -> None:
        def change(session: WriteSession) -> tuple[int, WriteResult]:
            receipt = JOBS.find(session, self._digest)
            at, result = (0, WriteResult(0)) if receipt is None else (receipt.sequence, receipt.result)
            for part in parts:
                if part.last <= at:  # by another stream, of a connection that broke
                    continue
                if part.first != at + 1:
                    raise InvalidArgument(f"a job expects batch {at + 1}, found {part.first}; ask where it stands")
                result += self._collection._upsert_prepared(session, part.rows)
                at = part.last
            JOBS.keep(session, self._digest, at, result)
            return at, result

        store = self._collection._store
        self.sequence, self._result = store.write(change)
        if any(part.rows.segments for part in parts):
            store.maintenance.make_room(self._collection._cid)


def ingest(database: Database, requests: Iterator[pb.IngestRequest], scans: Scans) -> Iterator[pb.IngestResponse]:
    """Answers to the requests of a stream."""
    job = _Job(database, _first(requests, scans))
    yield job.answer()
    inbox = _Inbox(scans)
    frame = contextvars.copy_context()
    reader = threading.Thread(
        target=frame.run, args=(_read, job, job.sequence + 1, requests, inbox), name="gingham-ingest", daemon=True
    )
    start_thread(reader)
    try:
        while parts := inbox.take():
            yield from job.write(parts)
    finally:
        inbox.close()


def _first(requests: Iterator[pb.IngestRequest], scans: Scans) -> pb.IngestRequest | None:
    """The request that a stream begins with; as those that follow, it may take a while and no more."""
    came: queue.SimpleQueue[pb.IngestRequest | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            came.put(next(requests, None))
        except grpc.RpcError:
            came.put(Cancelled("an ingest expects a client that stays, found it gone"))
        except Exception as error:
            came.put(error)

    frame, began = contextvars.copy_context(), time.monotonic()
    start_thread(threading.Thread(target=frame.run, args=(read,), name="gingham-ingest", daemon=True))
    while True:
        try:
            found = came.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            _check_going(scans, began)
            continue
        if isinstance(found, BaseException):
            raise found
        return found


def _read(job: _Job, expected: int, requests: Iterator[pb.IngestRequest], inbox: _Inbox) -> None:
    """Hand on what comes, until it ends or is wrong."""
    error: BaseException | None = None
    try:
        _read_parts(job.prepared, expected, requests, inbox)
    except grpc.RpcError:
        error = Cancelled("an ingest expects a client that stays, found it gone")
    except Exception as other:
        error = other
    inbox.end(error)


def _read_parts(
    prepared: Callable[[bytes], PreparedRows], expected: int, requests: Iterator[pb.IngestRequest], inbox: _Inbox
) -> None:
    held: list[bytes] = []
    nbytes = 0
    for request in requests:
        inbox.hear()
        batch = request.batch
        if request.WhichOneof("part") != "batch" or batch.sequence != expected:
            found = f"batch {batch.sequence}" if request.WhichOneof("part") == "batch" else "none"
            raise InvalidArgument(f"the stream expects batch {expected}, found {found}; send each once, in its order")
        held.append(batch.rows)
        expected += 1
        nbytes += max(len(batch.rows), LEAST_BYTES)
        if nbytes > MOST_BYTES:
            raise ResourceExhausted(
                f"batches that go together expect at most {MOST_BYTES} bytes, found more; send an iterable of rows, "
                "which is written in parts"
            )
        if batch.more:
            continue
        try:
            rows = prepared(held[0] if len(held) == 1 else b"".join(held))
        except GinghamError as error:
            raise _named(error, batch.sequence) from None
        if not inbox.put(_Part(expected - len(held), batch.sequence, rows, nbytes)):
            return
        held, nbytes = [], 0
    if held:
        raise InvalidArgument(f"the stream expects batch {expected}, which the one before goes with, found its end")


def _named(error: Any, sequence: int) -> GinghamError:
    """An error that says which batch it is about."""
    error.args = (f"batch {sequence}: {error}",)
    named: GinghamError = error
    return named
