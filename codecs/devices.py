"""Where kernels run: on the CPU, or on an NVIDIA device through numba-cuda, which is imported only when asked for."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from gingham.errors import GinghamError, InvalidArgument, MissingExtra, NoDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

T = TypeVar("T")

CAPABILITY = 7, 0
"""The least compute capability: of the first devices that add products of small integers and of all since."""
_TESTED_ROWS, _TESTED_DIM = 300, 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """An NVIDIA device that passed its self-test.

    Attributes
    ----------
    number : as CUDA counts
    name : of its maker
    capability : compute capability, such as (9, 0)
    multiprocessors : of them, each with its own schedulers
    """

    number: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int

    def active(self) -> AbstractContextManager[Any]:
        """A context in which the calling thread allocates and launches there."""
        return _cuda().gpus[self.number]  # type: ignore[no-any-return]

    def free_bytes(self) -> int:
        """Memory that nobody holds."""
        with self.active():
            context = _cuda().current_context()
            context.deallocations.clear()  # what nobody refers to any more is freed late
            return int(context.get_memory_info()[0])


class Attempt(Protocol):
    """What runs work on a device, or gives None where the CPU is to do it."""

    def __call__(self, run: Callable[[Device], T | None], /) -> T | None:
        """The result."""
        ...


def find_device(asked: str) -> Device | None:
    """The device of a name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for the first device if one works.

    Returns
    -------
    Device : or None for the CPU

    Raises
    ------
    InvalidArgument : no such name
    MissingExtra : a device is asked for, and numba-cuda is not installed
    NoDevice : a device is asked for that is not there, is too old, or fails its self-test

    Notes
    -----
    ``"auto"`` raises nothing: why a device cannot be used is logged once; that numba-cuda is not installed is not.
    """
    named = re.fullmatch(r"cuda(?::(\d+))?", asked) if isinstance(asked, str) else None
    if asked == "cpu":
        return None
    if asked == "auto":
        return _first()
    if named is None:
        raise InvalidArgument(f"device= expects 'auto', 'cpu', 'cuda' or 'cuda:N', found {asked!r}")
    return _opened(int(named[1] or 0))


@cache
def _first() -> Device | None:
    if find_spec("numba_cuda") is None:
        return None
    try:
        return _opened(0)
    except GinghamError as error:
        _log.warning("device='auto' takes the CPU: %s", error)
        return None


@cache
def _opened(number: int) -> Device:
    if find_spec("numba_cuda") is None:
        raise MissingExtra("device='cuda' needs numba-cuda; run: pip install 'gingham[gpu]'")
    try:
        cuda = _cuda()
        available = cuda.is_available()
        count = len(cuda.gpus) if available else 0
    except Exception as error:
        raise NoDevice(f"device='cuda' expects an NVIDIA driver, found none that works: {error}") from error
    if number >= count:
        raise NoDevice(f"device='cuda:{number}' expects that device, found {count}; use device='cpu'")
    try:
        with cuda.gpus[number]:
            handle = cuda.get_current_device()
            capability = tuple(handle.compute_capability)
            found = Device(number, _text(handle.name), capability, int(handle.MULTIPROCESSOR_COUNT))
            if capability < CAPABILITY:
                raise NoDevice(
                    f"device='cuda:{number}' expects compute capability {CAPABILITY}, found {capability} "
                    f"({found.name}); use device='cpu'"
                )
            _test(found)
    except GinghamError:
        raise
    except Exception as error:
        raise NoDevice(f"device='cuda:{number}' failed its self-test: {error}; use device='cpu'") from error
    return found


def _test(device: Device) -> None:
    """Scan a few rows there and here."""
    from gingham.codecs.cuda_rows import CudaRows
    from gingham.codecs.lvq import LVQ

    vectors = np.random.default_rng(0).standard_normal((_TESTED_ROWS, _TESTED_DIM), np.float32)
    codec = LVQ(_TESTED_DIM, "dot").train(vectors)
    codes, prepared = codec.encode(vectors), codec.prepare(vectors[:2])
    listed = np.tile(np.arange(_TESTED_ROWS), (2, 1))
    expected = np.empty(listed.shape, np.float32)
    codec.score(prepared, codes, listed, expected)
    rows = codec.row_scores(prepared, codes)
    scores, found = CudaRows(rows, _TESTED_ROWS, device).scan(rows, np.full(2, -np.inf, np.float32), 8, None)
    best = np.argsort(-expected, axis=1, kind="stable")[:, :8]
    if not (np.array_equal(found, best) and np.array_equal(scores, np.take_along_axis(expected, best, 1))):
        raise NoDevice(
            f"device='cuda:{device.number}' ({device.name}) finds other rows than the CPU; use device='cpu' and "
            "update the driver"
        )


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


@cache
def _cuda() -> Any:
    from numba import cuda

    return cuda
