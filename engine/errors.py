"""Every error Gingham raises, one tree; the right column is the gRPC status that carries it.

::

    GinghamError
    ├ InvalidArgument (ValueError)       INVALID_ARGUMENT
    │ ├ DimensionMismatch
    │ ├ FilterSyntaxError
    │ └ SchemaMismatch
    ├ NotFound (LookupError)             NOT_FOUND
    │ └ CollectionNotFound
    ├ AlreadyExists                      ALREADY_EXISTS
    ├ NotReady                           FAILED_PRECONDITION
    │ ├ ReadOnly
    │ ├ Closed
    │ ├ NotAStore
    │ ├ SnapshotExpired
    │ └ NoDevice
    ├ PermissionDenied (PermissionError) PERMISSION_DENIED
    ├ Unauthenticated                    UNAUTHENTICATED
    ├ Corrupt                            DATA_LOSS
    │ ├ ChecksumMismatch
    │ └ FormatTooNew
    ├ Unavailable                        UNAVAILABLE
    │ └ Locked
    ├ DeadlineExceeded (TimeoutError)    DEADLINE_EXCEEDED
    ├ Cancelled                          CANCELLED
    ├ EmbedderFailed                     INTERNAL
    ├ LLMFailed                          INTERNAL
    ├ ResourceExhausted                  RESOURCE_EXHAUSTED
    │ └ StoreFull
    └ MissingExtra (ImportError)         UNIMPLEMENTED
"""

from __future__ import annotations

from typing import ClassVar


class GinghamError(Exception):
    """Base of every error raised by Gingham.

    Attributes
    ----------
    grpc_code : name of the gRPC status code that carries this error
    durable_rows : rows that a stream had written before the error
    """

    grpc_code: ClassVar[str] = "INTERNAL"
    durable_rows: int = 0


class InvalidArgument(GinghamError, ValueError):
    """A value the caller passed cannot be used."""

    grpc_code = "INVALID_ARGUMENT"


class DimensionMismatch(InvalidArgument):
    """A vector has another width than its field."""


class FilterSyntaxError(InvalidArgument):
    """A filter string is not in the grammar.

    Attributes
    ----------
    pos : offset of the offending character in the filter string
    hint : what to write instead, or an empty string
    """

    def __init__(self, message: str, *, pos: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.pos = pos
        self.hint = hint


class SchemaMismatch(InvalidArgument):
    """A field is unknown or a value has another type than its field."""


class NotFound(GinghamError, LookupError):
    """The named thing does not exist."""

    grpc_code = "NOT_FOUND"


class CollectionNotFound(NotFound):
    """No collection has this name."""


class AlreadyExists(GinghamError):
    """The name is taken."""

    grpc_code = "ALREADY_EXISTS"


class NotReady(GinghamError):
    """The object is in a state that does not allow the call."""

    grpc_code = "FAILED_PRECONDITION"


class ReadOnly(NotReady):
    """A write was asked of something opened for reading."""


class Closed(NotReady):
    """The database, snapshot or transaction has been closed."""


class NotAStore(NotReady):
    """The folder exists and is not a Gingham database."""


class SnapshotExpired(NotReady):
    """The snapshot is older than its time-out or belongs to another process."""


class NoDevice(NotReady):
    """The device asked for is not there or does not compute what it should."""


class PermissionDenied(GinghamError, PermissionError):
    """The operating system refuses access to files, or a server what the key of the caller does not allow."""

    grpc_code = "PERMISSION_DENIED"


class Unauthenticated(GinghamError):
    """A server expects a key, and got none or one that is not good."""

    grpc_code = "UNAUTHENTICATED"


class Corrupt(GinghamError):
    """Stored bytes are damaged."""

    grpc_code = "DATA_LOSS"


class ChecksumMismatch(Corrupt):
    """Stored bytes do not have the checksum that was stored with them."""


class FormatTooNew(Corrupt):
    """The file was written by a newer version of Gingham."""


class Unavailable(GinghamError):
    """The call may succeed when it is repeated later."""

    grpc_code = "UNAVAILABLE"


class Locked(Unavailable):
    """Another process holds the write lock.

    Attributes
    ----------
    pid : process id of the holder, or None where it is not known
    """

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class DeadlineExceeded(GinghamError, TimeoutError):
    """The time given to a call is over; what it had written before stays."""

    grpc_code = "DEADLINE_EXCEEDED"


class Cancelled(GinghamError):
    """The caller gave a call up while it ran."""

    grpc_code = "CANCELLED"


class EmbedderFailed(GinghamError):
    """An embedder raised, or made something else than finite vectors of its width; the cause is kept."""

    grpc_code = "INTERNAL"


class LLMFailed(GinghamError):
    """A language model raised, took too long, or wrote something else than texts; the cause is kept."""

    grpc_code = "INTERNAL"


class ResourceExhausted(GinghamError):
    """A limit was reached.

    Attributes
    ----------
    retry_after : seconds after which the same call, of which nothing was done, may find room; None where waiting is
        no help
    """

    grpc_code = "RESOURCE_EXHAUSTED"
    retry_after: float | None = None


class StoreFull(ResourceExhausted):
    """The size cap or the disk is full; nothing that was stored before is lost."""


class MissingExtra(GinghamError, ImportError):
    """An optional package is not installed; the message ends with the install line."""

    grpc_code = "UNIMPLEMENTED"
