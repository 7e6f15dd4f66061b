"""The folder of a store: CURRENT names a generation folder; compaction makes the next one.

Protocol of a switch, each step with the write gate held and safe to crash after:

1. copy into ``generation-N+1.new``, flush, rename to ``generation-N+1``
2. commit ``superseded = generation-N+1`` as the last transaction of generation N
3. write a file of a name of its own, flush, rename over CURRENT, flush the folder
4. rename generation N to ``generation-N.new`` and remove that; processes that still map it keep reading until
   their next transaction

So the oldest generation that is not superseded is the one in use, and CURRENT only makes finding it quick. Opening
a store changes nothing on disk; where CURRENT names another generation, the next writer repeats step 3.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from gingham.errors import InvalidArgument, NotAStore, NotFound
from gingham.storage.environment import DATA_FILE, sync_folder, translated

CURRENT = "CURRENT"
WRITE_LOCK = "write.lock"
MAINTENANCE_LOCK = "maintenance.lock"
FIRST = "generation-000001"
_GENERATION = re.compile(r"generation-\d{6}\Z")
_OURS = re.compile(r"(generation-\d{6}(\.new)?|CURRENT(\..*)?|write\.lock|maintenance\.lock)\Z")


def store_folder(path: str | os.PathLike[str]) -> Path:
    """Absolute path of a store; raises InvalidArgument where no file can have it."""
    try:
        return Path(path).expanduser().resolve()
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise InvalidArgument(f"expected the path of a folder, found {path!r} ({error}); choose another") from error


def named_generation(root: Path) -> str:
    """What CURRENT says: the name of a generation folder, or whatever it holds; empty where it is missing."""
    try:
        with translated(root / CURRENT):
            return (root / CURRENT).read_text("ascii", "replace").strip()
    except NotFound:
        return ""


def generations(root: Path, *, first: str | None = None) -> list[str]:
    """Names of the generation folders with a data file, ``first`` where it is one and then the oldest first."""
    with translated(root):
        names = sorted(p.name for p in root.iterdir() if _GENERATION.match(p.name) and (p / DATA_FILE).is_file())
    return sorted(names, key=lambda name: name != first)


def set_current(root: Path, name: str) -> None:
    """Make CURRENT name another generation, atomically and durably; called with the write gate held."""
    new = root / f"{CURRENT}.{os.getpid()}.new"
    with translated(root):
        try:
            with open(new, "w", encoding="ascii") as file:
                file.write(name + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.rename(root / CURRENT)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_folder(root)


def next_generation(name: str) -> str:
    """Name of the generation after this one."""
    return f"generation-{int(name.removeprefix('generation-')) + 1:06d}"


def is_store(root: Path) -> bool:
    """Whether the folder holds a store; False where one can be created; raises NotAStore otherwise."""
    with translated(root):
        if not stat_mode(root):
            return False
        if not root.is_dir():
            raise NotAStore(f"{root} is expected to be a folder and is a file; choose another path")
        if stat_mode(root / CURRENT):
            return True
        names = sorted(entry.name for entry in root.iterdir())
    foreign = [name for name in names if not _OURS.match(name)]
    if foreign:
        raise NotAStore(
            f"{root} is not a Gingham database: it holds {foreign[0]!r} and no CURRENT; choose an empty folder"
        )
    return bool(generations(root))


def stat_mode(path: Path) -> int:
    """Type and permission bits of a file; 0 where there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def remove_generation(root: Path, name: str) -> None:
    """Remove a generation folder; its path is gone at once, so that nobody opens it half removed."""
    trash = root / (name + ".new")
    shutil.rmtree(trash, ignore_errors=True)
    try:
        (root / name).rename(trash)
    except OSError:
        return
    shutil.rmtree(trash, ignore_errors=True)


def sweep_generations(root: Path, keep: str) -> None:
    """Remove what a crash left beside the generation ``keep``; called with the write gate held."""
    for folder in root.glob("generation-*"):
        if folder.name != keep and _GENERATION.match(folder.name):
            remove_generation(root, folder.name)
    for path in [*root.glob("generation-*.new"), *root.glob(CURRENT + ".*new")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
