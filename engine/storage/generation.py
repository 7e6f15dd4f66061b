"""The folder of a store: CURRENT names a generation folder; compaction makes the next one.

Protocol of a switch, each step safe to crash after:

1. copy into ``generation-N+1.new``, flush, rename to ``generation-N+1``
2. commit ``superseded = generation-N+1`` as the last transaction of generation N
3. write ``CURRENT.new``, flush, rename over CURRENT, flush the folder
4. remove generation N; processes that still map it keep reading until their next transaction

Whoever finds CURRENT naming a superseded generation follows the flag, and repeats step 3 when writing.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from gingham.errors import Corrupt, NotAStore, NotFound, PermissionDenied
from gingham.storage.environment import DATA_FILE, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

CURRENT = "CURRENT"
WRITE_LOCK = "write.lock"
MAINTENANCE_LOCK = "maintenance.lock"
FIRST = "generation-000001"
_GENERATION = re.compile(r"generation-\d{6}(\.new)?\Z")
_OURS = frozenset({CURRENT, CURRENT + ".new", WRITE_LOCK, MAINTENANCE_LOCK})


def current_generation(root: Path) -> str:
    """Name of the generation folder that CURRENT names."""
    try:
        name = (root / CURRENT).read_text("ascii").strip()
    except FileNotFoundError:
        raise NotFound(f"no database at {root}; check the path, or open it with create=True") from None
    except UnicodeDecodeError:
        name = "bytes that are not ASCII"
    except PermissionError as error:
        raise PermissionDenied(f"the system refuses to read {root / CURRENT}; check its permissions") from error
    if not _GENERATION.match(name) or name.endswith(".new") or not (root / name / DATA_FILE).is_file():
        found = [p.name for p in sorted(root.glob("generation-*"))]
        raise Corrupt(f"{root / CURRENT} expects the name of a generation folder, found {name!r} beside {found}")
    return name


def set_current(root: Path, name: str) -> None:
    """Make CURRENT name another generation, atomically and durably."""
    new = root / (CURRENT + ".new")
    with open(new, "w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(root / CURRENT)
    sync_folder(root)


def next_generation(name: str) -> str:
    """Name of the generation after this one."""
    return f"generation-{int(name.removeprefix('generation-')) + 1:06d}"


def is_store(root: Path) -> bool:
    """Whether the folder holds a store; False where one can be created; raises NotAStore otherwise."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise NotAStore(f"{root} is expected to be a folder and is a file; choose another path")
    try:
        names = {entry.name for entry in root.iterdir()}
    except PermissionError as error:
        raise PermissionDenied(f"the system refuses to list {root}; check its permissions") from error
    if CURRENT in names:
        return True
    foreign = sorted(n for n in names if n not in _OURS and not _GENERATION.match(n))
    if foreign:
        raise NotAStore(
            f"{root} is not a Gingham database: it holds {foreign[0]!r} and no CURRENT; choose an empty folder"
        )
    return False


def sweep_generations(root: Path, keep: str) -> None:
    """Remove generation folders other than ``keep``; called with the write gate held."""
    for folder in root.glob("generation-*"):
        if folder.name != keep and _GENERATION.match(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
