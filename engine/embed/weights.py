"""Models in folders: nothing is ever downloaded, and other weights have another hash."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from gingham.errors import InvalidArgument

_WEIGHTS = (".safetensors", ".bin")
_MIB = 1 << 20


def model_folder(what: str, model: str | os.PathLike[str]) -> Path:
    """The folder of a model that a user gave; raises InvalidArgument for anything else, such as a name on a hub."""
    try:
        found = model != "" and Path(model).is_dir()
    except (TypeError, ValueError, OSError):
        found = False
    if not found:
        raise InvalidArgument(
            f"{what} expects the folder of a model, found {str(model)!r:.200}, which is none; nothing is downloaded: "
            "fetch the model first and pass its folder"
        )
    return Path(os.path.abspath(model))  # not resolve(): the name of a link says more than that of its target


def weights_hash(what: str, folder: Path) -> str:
    """Hash of the weights in a folder, 16 hexadecimal digits; raises InvalidArgument where there are none.

    Notes
    -----
    XXH3 of each file's place, size, first and last MiB: cheap, and another training changes these.
    """
    # Modules stand in the folder or one below; looking deeper would walk through a home folder passed by mistake.
    inside = [*folder.glob("*"), *folder.glob("*/*")]
    files = next((found for suffix in _WEIGHTS if (found := sorted(p for p in inside if p.suffix == suffix))), [])
    if not files:
        raise InvalidArgument(
            f"{what} expects weights ({' or '.join(_WEIGHTS)}) in {str(folder)!r}, found none; pass the folder of a "
            "saved model"
        )
    digest = xxhash.xxh3_64()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MIB))
            file.seek(max(size - _MIB, 0))
            digest.update(file.read(_MIB))
    return digest.hexdigest()
