"""A commit that a server has pinned for a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from gingham.clients.channel import CONNECT_SECONDS
from gingham.clients.view import RemoteCollectionView
from gingham.errors import GinghamError, SnapshotExpired
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable
    from types import TracebackType

    from gingham.clients.channel import Channel
    from gingham.embed import Embedder


class RemoteSnapshot:
    """One commit, readable until it is closed or expires after the ``snapshot_timeout`` of the server.

    Parameters
    ----------
    embedder_of : checks that there is a collection in a pinned commit, and finds its embedder
    pinned : names of the snapshots that the connection still has to give up; one that is dropped stays among them
    """

    def __init__(self, channel: Channel, embedder_of: Callable[[str, str], Embedder | None], pinned: set[str]) -> None:
        self._channel = channel
        self._embedder_of = embedder_of
        answer = channel.call(channel.collections.OpenSnapshot, pb.OpenSnapshotRequest())
        self._pin: str = answer.snapshot
        self._version: int = answer.version
        self._pinned = pinned
        pinned.add(self._pin)
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the commit up; may be called twice."""
        self._open = False
        unpin(self._channel, self._pinned, [self._pin])

    @property
    def version(self) -> int:
        """Number of the commit."""
        self._check_open()
        return self._version

    def collections(self) -> list[str]:
        """Names of the collections, sorted."""
        self._check_open()
        request = pb.ListCollectionsRequest(snapshot=self._pin)
        return list(self._channel.call(self._channel.collections.ListCollections, request).names)

    def __getitem__(self, name: str) -> RemoteCollectionView:
        self._check_open()
        embedder = self._embedder_of(name, self._pin)
        return RemoteCollectionView(self._channel, name, embedder=embedder, snapshot=self._pin)

    def _check_open(self) -> None:
        if not self._open:
            raise SnapshotExpired("the snapshot is closed; take a new one")


def unpin(channel: Channel, pinned: set[str], names: list[str]) -> None:
    """Have a server give snapshots up; one that cannot be reached does so when they expire."""
    for name in names:
        if name in pinned:
            pinned.discard(name)
            try:
                request = pb.CloseSnapshotRequest(snapshot=name)
                channel.call(channel.collections.CloseSnapshot, request, CONNECT_SECONDS)
            except GinghamError:
                return


def dropped(pinned: set[str], alive: weakref.WeakSet[RemoteSnapshot]) -> list[str]:
    """Snapshots that nobody can read any more."""
    return list(pinned - {snapshot._pin for snapshot in alive})
