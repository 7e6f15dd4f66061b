"""faiss where it is installed: its module, its files and its devices."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gingham.errors import Corrupt, InvalidArgument, MissingExtra, NotFound

if TYPE_CHECKING:
    from gingham.schema import Metric

_COPIES = ("IndexReplicas", "IndexShards", "IndexShardsIVF")
"""What faiss makes of one index for several devices."""


def load_faiss(call: str) -> Any:
    """The module, or MissingExtra that says what to install for ``call``."""
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingExtra(
            f"{call} needs faiss; run: pip install faiss-cpu, or for an NVIDIA device pip install 'gingham[faiss-gpu]'"
        ) from error


def opened(faiss: Any, source: Any) -> Any:
    """An index of the CPU, from one of the CPU or of a device, or from the path of a file.

    Raises
    ------
    NotFound, Corrupt : there is no such file, or faiss cannot read it
    InvalidArgument : faiss cannot copy it from its device
    """
    if isinstance(source, (str, os.PathLike)):
        if not Path(source).is_file():
            raise NotFound(f"from_faiss(source) expects a file, found none at {os.fspath(source)!r}")
        try:
            source = faiss.read_index(os.fspath(source))
        except RuntimeError as error:
            raise Corrupt(f"from_faiss(source) expects a file of faiss.write_index(): {error}") from error
    try:
        if type(source).__name__ == "GpuIndexCagra":
            host = faiss.IndexHNSWCagra()
            source.copyTo(host)
            return host
        return faiss.index_gpu_to_cpu(source) if _on_device(faiss, source) else source
    except RuntimeError as error:
        raise InvalidArgument(
            f"from_faiss(source) expects an index that faiss copies from its device, found {type(source).__name__}: "
            f"{error}"
        ) from error


def metrics_of(faiss: Any) -> dict[Any, Metric]:
    """Ours by those of faiss."""
    return {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "dot"}


def is_wrapper(faiss: Any, index: Any) -> bool:
    """Whether it has another index within that holds the rows."""
    return isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2, faiss.IndexPreTransform))


def _on_device(faiss: Any, index: Any) -> bool:
    """Whether an index, or the one within it, is to be moved; only a faiss with devices can."""
    while is_wrapper(faiss, index):
        index = faiss.downcast_index(index.index)
    name = type(index).__name__
    return hasattr(faiss, "index_gpu_to_cpu") and (name.startswith("GpuIndex") or name in _COPIES)
