"""Room in a capped store: new rows leave a reserve, of which maintenance leaves a part for deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gingham.errors import StoreFull
from gingham.storage import pages

if TYPE_CHECKING:
    from gingham.storage.environment import Environment

RESERVE_BYTES = 16 << 20
SMALL_SHARE, LARGE_SHARE = 4, 16
"""The reserve is 16 MiB, at most a quarter of a small store and at least a sixteenth of a large one."""


UNBOUNDED = 1 << 62


def reserve_bytes(max_size: int) -> int:
    """Part of ``max_size`` that new rows leave alone."""
    return max(min(RESERVE_BYTES, max_size // SMALL_SHARE), max_size // LARGE_SHARE)


def room_left(env: Environment, *, maintenance: bool = False) -> int:
    """Bytes that may still be written.

    Parameters
    ----------
    maintenance : they replace others that go later, so three quarters of the reserve may be used
    """
    cap = env.max_size
    if cap is None:
        return UNBOUNDED
    reserve = reserve_bytes(cap)
    limit = cap - (reserve // 4 if maintenance else reserve) - env.used_bytes()
    return limit + pages.free_bytes(env.data_file)


def largest_segment(max_size: int | None) -> int:
    """Bytes of the largest segment that maintenance makes: a full store has room to write it anew."""
    return UNBOUNDED if max_size is None else reserve_bytes(max_size) // 2


def claim(env: Environment, needed: int, *, maintenance: bool = False) -> None:
    """Set bytes aside that a write is about to add; they count until the writer begins its next transaction.

    Parameters
    ----------
    needed : bytes, about
    maintenance : as in :func:`room_left`

    Raises
    ------
    StoreFull : they do not fit
    """
    env.claimed_bytes += needed
    if env.max_size is None or env.used_bytes() + env.claimed_bytes <= env.max_size - reserve_bytes(env.max_size):
        return
    left = room_left(env, maintenance=maintenance)
    if env.claimed_bytes > left:
        env.claimed_bytes -= needed
        raise StoreFull(
            f"{env.folder.parent} expects at most max_size={env.max_size} bytes and has room for {max(0, left)} "
            f"beside its reserve for deletes, found {needed} more to write; delete rows, or raise max_size"
        )
