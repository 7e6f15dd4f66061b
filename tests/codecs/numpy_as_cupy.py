"""NumPy in the place of CuPy, so that products and what is selected from them are tested where there is no device."""

import contextlib
from types import SimpleNamespace

import numpy as np

from gingham.codecs import cuda_libraries, cuda_products, devices


class NoMemory(Exception):
    """As CuPy's."""


def cupy_of_numpy() -> SimpleNamespace:
    """What is asked of CuPy."""
    names = ("asarray", "argpartition", "take_along_axis", "where", "concatenate")
    return SimpleNamespace(
        **{name: getattr(np, name) for name in names},
        asnumpy=np.asarray,
        cuda=SimpleNamespace(
            Device=lambda number: contextlib.nullcontext(), memory=SimpleNamespace(OutOfMemoryError=NoMemory)
        ),
    )


class Numpy(cuda_libraries.Cupy):
    """CuPy's class on NumPy.

    Parameters
    ----------
    mixes : whether float16 is multiplied to float32, as PyTorch does
    most : scores that there is memory for
    """

    def __init__(self, *, mixes: bool = False, most: int = 1 << 40) -> None:
        self._cupy, self._number, self.out_of_memory = cupy_of_numpy(), 0, NoMemory
        self.mixes, self.most, self.fast, self.fails, self.shapes = mixes, most, False, False, []

    def precise(self) -> bool:
        return not self.fast

    def mixed(self) -> bool:
        return self.mixes

    def product(self, left: np.ndarray, right: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        if self.fails:
            raise RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED")
        self.shapes.append((left.dtype, len(left), len(right)))
        if len(left) * len(right) > self.most:
            raise self.out_of_memory("Out of memory allocating")
        return super().product(left.astype(np.float32), right, bias)


class Nowhere(devices.Device):
    """A device that arrays of NumPy are on."""

    def __init__(self) -> None:
        super().__init__(0, "none", (9, 0), 1)

    def active(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def held(
    rows: np.ndarray, halves: np.ndarray | None = None, library: cuda_libraries.Library | None = None
) -> cuda_products.ProductRows:
    """Rows as a device holds them."""
    there = np.asarray if library is None else library.there
    taken = None if halves is None else there(-halves)
    return cuda_products.ProductRows(rows.nbytes, *rows.shape, there(rows), taken, rows.dtype == np.float16, None)
