"""Rows of an upsert: in one call where they are few, else in a stream that goes on when the connection breaks."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc

from gingham import deadline
from gingham.clients import convert
from gingham.errors import Cancelled, GinghamError, NotReady, ResourceExhausted, Unavailable
from gingham.parallel import start_thread
from gingham.progress import progress_bar
from gingham.server.proto import gingham_pb2 as pb
from gingham.types import WriteResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gingham.clients.channel import Channel

ONE_CALL_BYTES = 32 << 20
"""Rows that one call takes where nothing follows them."""
MESSAGE_BYTES = 4 << 20
"""Of a message of a stream; the rows of a commit are cut into as many as it takes."""
CONNECT_SECONDS = 1.0
"""How long a server may be away at the beginning."""
RESUME_SECONDS = 30.0
"""How long it may be in the middle."""
END_SECONDS = 1.0
"""What a server has to end a stream in, all of which is durable."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts."""
CHECK_SECONDS = 0.05
"""How soon a stream is given up once its deadline is over or it is cancelled."""


@dataclass(frozen=True)
class _Part:
    """Rows that are written together, and the numbers of the messages that bring them."""

    packed: bytes
    rows: int
    first: int
    last: int


class Ingest:
    """Sends the rows of an upsert, and knows how many of them are durable; its block ends when all are.

    Parameters
    ----------
    name : of the collection
    embedded : texts have been embedded

    Attributes
    ----------
    result : what durable rows did

    Notes
    -----
    An error of the block ends it too once all rows before it are durable, and is told how many they are.
    """

    def __init__(self, channel: Channel, name: str, *, embedded: bool) -> None:
        self._channel = channel
        self._name = name
        self._embedded = embedded
        self._job = secrets.token_hex(16)
        self._held: _Part | None = None
        self._sent: deque[_Part] = deque()
        self._sequence = 0
        self._durable = 0
        self._rows = 0
        self._window = 0
        self._stream: _Stream | None = None
        self._one_by_one = False
        self._bar = contextlib.ExitStack()
        self._told: Callable[[int, int], None] = lambda done, total: None
        self.result = WriteResult(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
            elif isinstance(error, Exception):
                with contextlib.suppress(GinghamError):
                    self._finish()
        except GinghamError as failure:
            self._tell(failure)
            raise
        finally:
            if self._stream is not None:
                self._stream.close()
            self._bar.close()
        if isinstance(error, Exception):
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, GinghamError):
            error.durable_rows = self._rows
        error.add_note(f"{self._rows} rows were written before")

    def add(self, packed: bytes, rows: int) -> None:
        """Send rows that are to be written together, once the server has room for them.

        Parameters
        ----------
        packed : the rows as an Arrow stream
        rows : how many they are
        """
        first = self._sequence + 1
        self._sequence += max(1, -(-len(packed) // MESSAGE_BYTES))
        part = _Part(packed, rows, first, self._sequence)
        if self._held is None and self._stream is None and not self._one_by_one:
            self._held = part
            return
        self._release()
        self._send(part)

    def _finish(self) -> None:
        if self._held is not None and len(self._held.packed) <= ONE_CALL_BYTES:
            self._one_by_one = True
        self._release()
        while self._sent:
            self._hear()
        if self._stream is not None:
            self._stream.end()

    def _release(self) -> None:
        """Send what was held back because it might have been all."""
        held, self._held = self._held, None
        if held is not None:
            self._send(held)

    def _send(self, part: _Part) -> None:
        if self._stream is None and not self._one_by_one:
            self._begin()
        if self._stream is None:
            self._write(part)
            return
        while self._sent and sum(len(one.packed) for one in self._sent) + len(part.packed) > self._window:
            self._hear()
        self._sent.append(part)
        self._stream.send(part)
        while self._hear(wait=False):
            pass

    def _write(self, part: _Part) -> None:
        request = pb.UpsertRequest(collection=self._name, rows=part.packed, embedded=self._embedded)
        self.result += convert.write_result(self._channel.write(self._channel.rows.Upsert, request).result)
        self._rows += part.rows

    def _begin(self) -> None:
        """Open a stream; where the server has no room for one, rows are written one call after the other."""
        try:
            self._connect(CONNECT_SECONDS)
        except ResourceExhausted:
            self._stream, self._one_by_one = None, True
            return
        self._told = self._bar.enter_context(progress_bar("Rows written"))

    def _connect(self, seconds: float) -> None:
        """Open a stream and go on with the job, trying for some time."""
        end, pause = time.monotonic() + seconds, FIRST_PAUSE
        while True:
            deadline.check()
            try:
                self._go_on()
                return
            except (Unavailable, Cancelled, ResourceExhausted) as error:
                if time.monotonic() + pause > end or (isinstance(error, ResourceExhausted) and not self._sent):
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _go_on(self) -> None:
        if self._stream is not None:
            self._stream.close()
        header = pb.IngestHeader(collection=self._name, job=self._job, embedded=self._embedded)
        self._stream = _Stream(self._channel, header)
        answer = self._stream.answer()
        if answer.sequence < self._durable:
            raise NotReady(
                f"the server at {self._channel.address} expected to know the job with {self._durable} batches, found "
                f"{answer.sequence}: it has been restored from a copy, or forgot the job; write all rows again"
            )
        self._take(answer)
        for part in self._sent:
            self._stream.send(part)

    def _hear(self, *, wait: bool = True) -> bool:
        """Take an answer, in another stream where this one breaks; False where there is none yet."""
        assert self._stream is not None
        try:
            answer = self._stream.answer(wait=wait)
        except (Unavailable, Cancelled):
            self._connect(RESUME_SECONDS)
            return True
        if answer is None:
            return False
        self._take(answer)
        return True

    def _take(self, answer: pb.IngestResponse) -> None:
        self._window, self._durable = answer.window, answer.sequence
        while self._sent and self._sent[0].last <= answer.sequence:
            self._rows += self._sent.popleft().rows
        self.result = convert.write_result(answer.result)
        self._told(self._rows, 0)


class _Stream:
    """One call: requests are taken from a queue, and answers put into another."""

    def __init__(self, channel: Channel, header: pb.IngestHeader) -> None:
        self._channel = channel
        self._requests: queue.SimpleQueue[pb.IngestRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests.put(pb.IngestRequest(header=header))
        self._call = channel.begin(channel.rows.Ingest, iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="gingham-ingest", daemon=True)
        start_thread(self._reader)

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
            self._answers.put(Unavailable("an ingest expects an answer to each batch, found its stream ended"))
        except grpc.RpcError as error:
            self._answers.put(self._channel.failure(error))

    def send(self, part: _Part) -> None:
        """Put the messages of a part on their way."""
        for sequence in range(part.first, part.last + 1):
            start = (sequence - part.first) * MESSAGE_BYTES
            rows = part.packed[start : start + MESSAGE_BYTES]
            self._requests.put(
                pb.IngestRequest(batch=pb.IngestBatch(sequence=sequence, rows=rows, more=sequence < part.last))
            )

    def answer(self, *, wait: bool = True) -> Any:
        """The next answer; without waiting None where there is none. Raises what ended the stream."""
        while True:
            deadline.check()
            try:
                answer = self._answers.get(timeout=CHECK_SECONDS) if wait else self._answers.get_nowait()
            except queue.Empty:
                if wait:
                    continue
                return None
            if isinstance(answer, GinghamError):
                self._answers.put(answer)
                raise answer
            return answer

    def end(self) -> None:
        """Say that nothing follows, and let the server end the call."""
        self._requests.put(None)
        self._reader.join(END_SECONDS)

    def close(self) -> None:
        """End the call at once; may be called twice."""
        self._requests.put(None)
        self._call.cancel()
