"""What multiplies matrices on an NVIDIA device by cuBLAS and selects from the products: PyTorch or CuPy.

Settings of the process, such as whether float32 may be multiplied as TF32, are read and never written.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gingham.errors import NoDevice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    Array = np.ndarray[Any, Any]


class Library(Protocol):
    """What differs between libraries of arrays; arrays of a device are its own.

    Attributes
    ----------
    name : of the package
    out_of_memory : what it raises
    score_bytes : that a score takes, with what selecting needs
    """

    name: str
    out_of_memory: type[Exception]
    score_bytes: int

    def active(self) -> AbstractContextManager[Any]:
        """A context in which it computes on the device, with the types that it is given."""
        ...

    def precise(self) -> bool:
        """Whether products of float32 are those now, not of fewer bits, as a process may have allowed."""
        ...

    def mixed(self) -> bool:
        """Whether products of float16 are added in float32 now."""
        ...

    def there(self, array: Any) -> Any:
        """An array of the device: one of numba-cuda in place, one of NumPy copied."""
        ...

    def here(self, array: Any) -> Array:
        """An array of NumPy."""
        ...

    def product(self, left: Any, right: Any, bias: Any | None) -> Any:
        """``left @ right.T + bias``, float32; of float16 only if left is, too, else right is widened."""
        ...

    def best(self, scores: Any, k: int) -> tuple[Any, Any]:
        """The k greatest of each line and their columns, in any order."""
        ...

    def greatest(self, scores: Any) -> tuple[Any, Any]:
        """The greatest of each line and its column."""
        ...

    def biases(self, halves: Any | None, mask: Any) -> Any:
        """Halves, or zeros, where a bool (n,) is true, and -inf elsewhere, float32."""
        ...

    def merged(self, scores: list[Any], rows: list[Any], k: int) -> tuple[Any, Any]:
        """The k greatest of lines that lie in several arrays, and what lies there in others."""
        ...


class Torch:
    """PyTorch on a place such as ``"cuda:0"``, as a :class:`Library`."""

    name, score_bytes = "torch", 6

    def __init__(self, place: str) -> None:
        self._torch: Any = import_module("torch")
        self._place = self._torch.device(place)
        if self._place.type == "cuda" and not self._torch.cuda.is_available():
            raise NoDevice(f"torch expects CUDA, found its version {self._torch.__version__} without; install another")
        self.out_of_memory = self._torch.cuda.OutOfMemoryError
        self._mixes = self._place.type == "cuda" and self._can_mix()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Without the types of an ``autocast`` around the call."""
        with ExitStack() as stack:
            stack.enter_context(self._torch.autocast(self._place.type, enabled=False))
            if self._place.type == "cuda":
                stack.enter_context(self._torch.cuda.device(self._place))
            yield

    def precise(self) -> bool:
        """As of :class:`Library`."""
        settings = self._torch.backends.cuda.matmul
        # Asking for allow_tf32 is an error in newer versions once a process has set this.
        precision = getattr(settings, "fp32_precision", None)
        return not settings.allow_tf32 if precision is None else precision in ("ieee", "none")

    def mixed(self) -> bool:
        """As of :class:`Library`."""
        return self._mixes and not getattr(self._torch.backends.cuda.matmul, "allow_fp16_accumulation", False)

    def _can_mix(self) -> bool:
        """Whether this version multiplies float16 to float32."""
        some = self._torch.ones((16, 16), dtype=self._torch.float16, device=self._place)
        try:
            return bool((self._torch.mm(some, some, out_dtype=self._torch.float32) == 16).all())
        except (TypeError, RuntimeError):
            return False

    def there(self, array: Any) -> Any:
        """As of :class:`Library`."""
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            array = array.copy()  # a tensor of what may not be written is warned of
        return self._torch.as_tensor(array, device=self._place)

    def here(self, array: Any) -> Array:
        """As of :class:`Library`."""
        copied: Array = array.cpu().numpy()
        return copied

    def product(self, left: Any, right: Any, bias: Any | None) -> Any:
        """As of :class:`Library`."""
        if left.dtype == self._torch.float16:
            out = self._torch.mm(left, right.T, out_dtype=self._torch.float32)
            return out if bias is None else out.add_(bias)
        right = right.to(self._torch.float32)
        return self._torch.mm(left, right.T) if bias is None else self._torch.addmm(bias, left, right.T)

    def best(self, scores: Any, k: int) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        values, columns = self._torch.topk(scores, k, dim=1, sorted=False)
        return values, columns

    def greatest(self, scores: Any) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        values, columns = self._torch.max(scores, dim=1)
        return values, columns

    def biases(self, halves: Any | None, mask: Any) -> Any:
        """As of :class:`Library`."""
        shown = self._torch.zeros(len(mask), device=self._place) if halves is None else halves
        return shown.masked_fill(~mask, -np.inf)

    def merged(self, scores: list[Any], rows: list[Any], k: int) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        values, columns = self.best(self._torch.cat(scores, dim=1), k)
        return values, self._torch.cat(rows, dim=1).gather(1, columns)


class Cupy:
    """CuPy on a device, as a :class:`Library`.

    Notes
    -----
    Its selection sorts whole lines, so PyTorch is the faster one.
    """

    name, score_bytes = "cupy", 32

    def __init__(self, number: int) -> None:
        self._cupy: Any = import_module("cupy")
        self._number = number
        self.out_of_memory = self._cupy.cuda.memory.OutOfMemoryError

    def active(self) -> AbstractContextManager[Any]:
        """As of :class:`Library`."""
        device: AbstractContextManager[Any] = self._cupy.cuda.Device(self._number)
        return device

    def precise(self) -> bool:
        """As of :class:`Library`: float32 multiplied by default, pedantically or as float32."""
        compute_type = import_module("cupy._core._routines_linalg").get_compute_type
        return compute_type(np.float32) in (1, 2, 4)

    def mixed(self) -> bool:
        """No: products of float16 are float16."""
        return False

    def there(self, array: Any) -> Any:
        """As of :class:`Library`."""
        return self._cupy.asarray(array)

    def here(self, array: Any) -> Array:
        """As of :class:`Library`."""
        copied: Array = self._cupy.asnumpy(array)
        return copied

    def product(self, left: Any, right: Any, bias: Any | None) -> Any:
        """As of :class:`Library`."""
        out = left @ right.astype(np.float32, copy=False).T
        if bias is not None:
            out += bias
        return out

    def best(self, scores: Any, k: int) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        n = scores.shape[1]
        columns = self._cupy.argpartition(scores, n - k, axis=1)[:, n - k :]
        return self._cupy.take_along_axis(scores, columns, axis=1), columns

    def greatest(self, scores: Any) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        return scores.max(axis=1), scores.argmax(axis=1)

    def biases(self, halves: Any | None, mask: Any) -> Any:
        """As of :class:`Library`."""
        shown = np.float32(0) if halves is None else halves
        return self._cupy.where(mask, shown, np.float32(-np.inf))

    def merged(self, scores: list[Any], rows: list[Any], k: int) -> tuple[Any, Any]:
        """As of :class:`Library`."""
        values, columns = self.best(self._cupy.concatenate(scores, axis=1), k)
        return values, self._cupy.take_along_axis(self._cupy.concatenate(rows, axis=1), columns, axis=1)
