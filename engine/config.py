"""Settings of an open database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gingham.errors import InvalidArgument

Mode = Literal["w", "r"]
Durability = Literal["commit", "interval", "none"]

MIN_SIZE_BYTES = 1 << 20
DEFAULT_MEMORY_BYTES = 1 << 30
SYNC_INTERVAL_SECONDS = 1.0
"""Time between two syncs with ``durability="interval"``."""
SNAPSHOT_TIMEOUT_SECONDS = 3600.0
"""Age at which a snapshot ends, so that a forgotten one does not keep old pages for ever."""


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """How a database is opened.

    Attributes
    ----------
    mode : ``"w"`` to read and write, ``"r"`` to read
    create : make the database where there is none
    durability : ``"commit"`` syncs before a write returns, ``"interval"`` once a second, ``"none"`` at close
    max_size : cap of the file in bytes, at least 1 MiB, a part of which stays for deletes; or None
    lock_timeout : seconds a write waits for another process that writes
    memory_budget : bytes that maintenance may hold in memory at once
    snapshot_timeout : seconds after which a snapshot expires
    device : what scans vectors and codes for large batches: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``
    device_memory : bytes of rows that may stay on the device; None takes what is free
    """

    mode: Mode = "w"
    create: bool = True
    durability: Durability = "commit"
    max_size: int | None = None
    lock_timeout: float = 10.0
    memory_budget: int = DEFAULT_MEMORY_BYTES
    snapshot_timeout: float = SNAPSHOT_TIMEOUT_SECONDS
    device: str = "auto"
    device_memory: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("w", "r"):
            raise InvalidArgument(f"open(mode=) expects 'w' or 'r', found {self.mode!r}")
        if self.durability not in ("commit", "interval", "none"):
            raise InvalidArgument(
                f"open(durability=) expects 'commit', 'interval' or 'none', found {self.durability!r}"
            )
        if self.max_size is not None and not _number(self.max_size, int, MIN_SIZE_BYTES):
            raise InvalidArgument(
                f"open(max_size=) expects at least {MIN_SIZE_BYTES} bytes as an integer, found {self.max_size!r}"
            )
        if not _number(self.lock_timeout, float, 0):
            raise InvalidArgument(f"open(lock_timeout=) expects seconds from 0, found {self.lock_timeout!r}")
        if not _number(self.memory_budget, int, 1):
            raise InvalidArgument(
                f"open(memory_budget=) expects bytes above 0 as an integer, found {self.memory_budget!r}"
            )
        if not _number(self.snapshot_timeout, float, 0) or not self.snapshot_timeout:
            raise InvalidArgument(f"open(snapshot_timeout=) expects seconds above 0, found {self.snapshot_timeout!r}")
        if not isinstance(self.device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InvalidArgument(f"open(device=) expects 'auto', 'cpu', 'cuda' or 'cuda:N', found {self.device!r}")
        if self.device_memory is not None and not _number(self.device_memory, int, 1):
            raise InvalidArgument(
                f"open(device_memory=) expects bytes above 0 as an integer, or None, found {self.device_memory!r}"
            )


def _number(value: object, kind: type, least: float) -> bool:
    """Whether a setting is an integer, or a number where ``kind`` is float, of at least so much."""
    kinds = (int,) if kind is int else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= least
