"""Processes that answer the reads of a server: where they listen together, how they start, and how they end.

Each opens the folder for reading, listens on the one public address, among which the system shares out connections, and
passes on to the process that writes what is not its own. That one listens on a socket in a folder of its own, which
other users do not reach.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gingham.errors import InvalidArgument, Unavailable
from gingham.parallel import start_thread
from gingham.server.metrics import forget_open

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = logging.getLogger("gingham.server")
MOST_READERS = 256
START_SECONDS = 60.0
"""What the first start of all readers may take."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds before a reader that has ended is replaced: at first, and at most, where each one soon ends again."""
STEADY_SECONDS = 10.0
"""A reader that has lived so long did not end of what it was started with."""
END_SECONDS = 5.0
"""What readers have to end in, once their calls have ended."""
READY = b"ready\n"
_MOST_SOCKET_CHARACTERS = 107
"""Of the path of a Unix socket (sun_path of unix(7))."""


class ReaderSetup(msgspec.Struct, frozen=True):
    """What a reader is told when it starts.

    Attributes
    ----------
    path : folder of the database
    listen : the public address
    socket : where the process that writes listens
    readers : how many there are
    device : what scans for large batches
    metrics : whether calls are counted, in the folder of ``socket``
    log : form of the log on standard error; None where nobody has set it up
    number : from 0, of this reader
    """

    path: str
    listen: str
    socket: str
    readers: int
    max_workers: int
    max_message_bytes: int
    max_hits: int
    tls: tuple[str, str, str | None] | None = None
    keys: str | None = None
    reflection: bool | None = None
    device: str = "auto"
    metrics: bool = False
    log: Literal["json", "text"] | None = None
    number: int = 0


class ReservedPort:
    """An address that other processes of this user come to share, once they say so; nobody is answered here.

    Attributes
    ----------
    port : that of the address, or a free one for 0

    Raises
    ------
    Unavailable : it is taken
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self._sockets: list[socket.socket] = []
        reason = "no address"
        with contextlib.suppress(OSError):
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                try:
                    self._reserve(family, address)
                except OSError as error:
                    reason = error.strerror or str(error)
                    if error.errno == errno.EADDRINUSE:
                        self.close()
                        break
        if not self._sockets:
            raise Unavailable(
                f"serve() expects a free port, found {host}:{port} taken ({reason}); choose another with listen="
            )

    def _reserve(self, family: int, address: tuple[Any, ...]) -> None:
        made = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(made)
        try:
            # Connections of a server before this one may still be waiting for their end.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address[0], self.port, *address[2:]))
            # From here on: before, a server that shares the address already would have shared it with this one.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            self._sockets.remove(made)
            made.close()
            raise
        self.port = int(made.getsockname()[1])

    def close(self) -> None:
        """Give the port up; may be called twice."""
        for one in self._sockets:
            one.close()
        self._sockets.clear()


class ReaderGroup:
    """The readers of a server; those that end are replaced until it drains.

    Parameters
    ----------
    host, port : the public address
    readers : how many
    interceptors : of the server, which cannot be sent to other processes

    Attributes
    ----------
    folder : readable by this user alone
    socket : path in it, where the process that writes listens
    readers : how many there are
    port : where they listen

    Raises
    ------
    InvalidArgument : there are interceptors, or the system has no address that processes share
    Unavailable : the port is taken
    """

    def __init__(self, host: str, port: int, readers: int, interceptors: Sequence[object]) -> None:
        self.readers = readers
        python = Path(sys.executable or "").name
        found = next((told for told, there in (
            (sys.platform, not sys.platform.startswith("linux")),
            (f"the program {python!r}", getattr(sys, "frozen", False) or not python.startswith("python")),
            ("interceptors, which stay in this process", bool(interceptors)),
        ) if there), None)  # fmt: skip
        if found is not None:
            raise InvalidArgument(
                f"serve(readers=) expects Linux, Python as a program, and no interceptors, found {found}; leave it out"
            )
        self._reserved = ReservedPort(host, port)
        self.port = self._reserved.port
        self.folder = tempfile.mkdtemp(prefix="gingham-")
        self.socket = str(Path(self.folder) / "writer")
        self._slots: list[_Slot] = []
        if len(os.fsencode(self.socket)) > _MOST_SOCKET_CHARACTERS:
            self.close()
            raise InvalidArgument(
                f"serve(readers=) expects a folder of temporary files whose path is shorter, found {self.socket!r}; "
                "name another in TMPDIR"
            )

    def start(self, setup: ReaderSetup) -> None:
        """Return once all readers take calls; raises Unavailable."""
        self._slots = [_Slot(msgspec.structs.replace(setup, number=number)) for number in range(self.readers)]
        for slot in self._slots:
            slot.start()
        end = time.monotonic() + START_SECONDS
        for slot in self._slots:
            if not slot.wait_ready(end):
                raise Unavailable(
                    f"serve(readers={self.readers}) expects readers that start within {START_SECONDS:g} s, found one "
                    "that did not; its lines on standard error say why"
                )

    def drain(self, grace: float) -> None:
        """Let no reader take more calls, and wait ``grace`` seconds for those that run; may be called twice."""
        for slot in self._slots:
            slot.drain(grace)
        end = time.monotonic() + grace + END_SECONDS
        for slot in self._slots:
            slot.end(end)

    def close(self) -> None:
        """Give port and folder up; may be called twice."""
        self._reserved.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Slot:
    """The place of one reader, which a thread watches and fills again.

    Its standard input is open for as long as this process lives, by whose end it notices that.
    """

    def __init__(self, setup: ReaderSetup) -> None:
        self._setup = setup
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._state: Literal["new", "ready", "failed"] = "new"
        self._grace: float | None = None
        self._thread = threading.Thread(target=self._keep, name=f"gingham-reader-{setup.number}", daemon=True)

    def start(self) -> None:
        start_thread(self._thread)

    def wait_ready(self, end: float) -> bool:
        """Whether the first reader takes calls, once that is known, or at ``end`` of the monotonic clock."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "new", max(0.0, end - time.monotonic()))
            return self._state == "ready"

    def drain(self, grace: float) -> None:
        with self._changed:
            if self._grace is None:
                self._grace = grace
                self._tell(f"{grace}\n".encode())
            self._changed.notify_all()

    def end(self, end: float) -> None:
        """Wait for the reader to end, and kill it at ``end`` of the monotonic clock."""
        self._thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            if self._process is not None:
                LOG.warning("reader %d did not end in time and was killed", self._setup.number)
                self._process.kill()
        self._thread.join(END_SECONDS)

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            ended = self._run()
            if self._setup.metrics:
                forget_open(str(Path(self._setup.socket).parent), self._setup.number)
            with self._changed:
                if self._state == "new":
                    self._state = "failed"
                    self._changed.notify_all()
                if self._grace is not None or self._state == "failed":
                    return
                pause = FIRST_PAUSE if time.monotonic() - begun > STEADY_SECONDS else min(2 * pause, LAST_PAUSE)
                LOG.warning("reader %d ended (%s); another one follows in %.1f s", self._setup.number, ended, pause)
                self._changed.wait_for(lambda: self._grace is not None, pause)
                if self._grace is not None:
                    return

    def _run(self) -> str:
        """Run a reader to its end; how it ended."""
        with self._changed:
            if self._grace is not None:
                return "drained"
            try:
                process = self._process = _started(self._setup)
            except OSError as error:
                return str(error)
            self._tell(msgspec.json.encode(self._setup) + b"\n")
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() == READY:
            with self._changed:
                self._state = "ready"
                self._changed.notify_all()
        status = process.wait()
        with self._changed:
            self._process = None
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
        return f"status {status}" if status >= 0 else f"signal {-status}"

    def _tell(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended, which its thread sees
                self._process.stdin.write(line)
                self._process.stdin.flush()


def _started(setup: ReaderSetup) -> subprocess.Popen[bytes]:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = f"import sys; sys.path[:] = {path!r}; from gingham.server.reader import main; main()"
    environment = dict(os.environ)
    if setup.metrics:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(Path(setup.socket).parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, "gingham-reader", str(setup.number)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
    )  # fmt: skip
