"""What the bare indexes share: rows in memory, as codes and, where that is wanted, as vectors to rescore from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gingham.codecs.protocol import Codes
from gingham.codecs.spec import parse_codec
from gingham.errors import DimensionMismatch, InvalidArgument, NotReady
from gingham.index.exact import score_listed
from gingham.index.two_stage import encode_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from gingham.codecs.protocol import Codec
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]
    Keep = Literal["f16", "f32"] | None

BYTE_DIM = 96
"""Dimensions below which a byte for each finds under 99 % of 10 neighbours: .987 of GloVe's 50 (bench/codecs.py)."""
MOST_K = 1 << 24
"""Rows of a query at most: 192 MiB."""
SAMPLE_ROWS = 262_144
"""Rows that training looks at when :meth:`CodedRows.add` trains."""
ROW_CODECS = ("F32", "F16", "BF16", "SQ8", "LVQ", "RaBitQ")
TOLD_ROWS = 4096
"""Rows, about, that tell how vectors are kept."""
ROUNDING = 1 / 256
"""Of how far rows lie apart, what rounding them to float16 may take before they are kept as float32: float16 takes
1/8000 where numbers lie around zero, and a tenth where they lie 1,000 times as far from it as from each other."""
_KEEPS: dict[str | None, Any] = {"f16": np.float16, "f32": np.float32, None: None}


class CodedRows:
    """Rows of a bare index.

    Parameters
    ----------
    index : its name, for messages
    dim, metric, codec, keep, seed : as of :class:`gingham.index.Flat`

    Attributes
    ----------
    codec : trained once there are rows
    """

    def __init__(
        self, index: str, dim: int, metric: Metric, codec: str, keep: Keep | Literal["auto"], seed: int
    ) -> None:
        self._index = index
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
            raise InvalidArgument(f"{index}(dim) expects an integer of at least 1, found {dim!r}")
        if metric not in ("cosine", "dot", "l2"):
            raise InvalidArgument(f"{index}(metric=) expects 'cosine', 'dot' or 'l2', found {metric!r}")
        if keep is not None and not (isinstance(keep, str) and keep in ("auto", *_KEEPS)):
            raise InvalidArgument(f"{index}(keep=) expects 'f16', 'f32' or None, found {keep!r}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise InvalidArgument(f"{index}(seed=) expects an integer from 0 to 2^64 - 1, found {seed!r}")
        self.codec: Codec = parse_codec(codec, int(dim), metric)
        self._unit = int(metric == "cosine")
        self.seed = int(seed)
        self.keep: Keep = (None if _is_precise(self.codec) else "f16") if keep == "auto" else keep
        self._undecided = keep == "auto" and self.keep is not None
        self._codes: list[Codes] = []
        self._kept: list[Array] = []

    def __len__(self) -> int:
        return self._codes[0].n if len(self._codes) == 1 else sum(part.n for part in self._codes)

    @property
    def scored_singly(self) -> bool:
        """Whether rows of the codec lie one after another, and are not interleaved in blocks."""
        kind = self.codec.spec.rpartition(",")[2]
        return kind.startswith(ROW_CODECS) and kind != "RaBitQ1"

    @property
    def code_bytes(self) -> int:
        """Bytes of all codes."""
        return sum(part.nbytes for part in self._codes)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the vectors kept."""
        return sum(int(part.nbytes) for part in self._kept)

    def train(self, sample: object, queries: object) -> None:
        """See :meth:`gingham.index.Flat.train`."""
        if len(self):
            raise NotReady(f"train() expects an empty index, found {len(self)} rows; make a new {self._index}")
        rows = self.checked(sample, "train(sample)")
        asked = None if queries is None else self.checked(queries, "train(queries=)")
        if not len(rows):
            raise InvalidArgument("train(sample) expects at least one row, found none")
        self.codec = self.codec.train(rows, queries=asked, seed=self.seed)

    def encoded(self, rows: Array) -> tuple[Codes, Array | None]:
        """Codes of checked rows, at least one, and what is kept of them; the codec is trained with the first."""
        kept, codec = self.kept_of(rows), self.trained_on(rows)
        codes = encode_rows(codec, len(rows), lambda part: rows[part])
        self.codec = codec
        return codes, kept

    def kept_of(self, rows: Array) -> Array | None:
        """What is kept of checked rows; the first ones tell how."""
        if self._undecided and len(rows):
            self.keep, self._undecided = "f32" if _differ_in_little(rows) else "f16", False
        return None if self.keep is None else _kept(rows, self.keep)

    def trained_on(self, rows: Array) -> Codec:
        """The codec, trained with some rows if it is not."""
        if self.codec.trained:
            return self.codec
        return self.codec.train(_sampled(rows, SAMPLE_ROWS, self.seed), seed=self.seed)

    def append(self, codes: Codes, kept: Array | None) -> None:
        """Append what :meth:`encoded` gave."""
        self._codes.append(codes)
        if kept is not None:
            self._kept.append(kept)

    def truncate(self, n: int) -> None:
        """Keep the first n rows, of a codec whose codes are plain rows."""
        codes, kept = self.joined()
        self._codes = [Codes(n, {name: array[:n] for name, array in codes.arrays.items()})] if n else []
        self._kept = [] if kept is None or not n else [kept[:n]]

    def joined(self) -> tuple[Codes, Array | None]:
        """All codes, and all vectors kept."""
        if len(self._codes) > 1:
            # Codes last: a thread that finds them joined takes what is kept for joined, too.
            self._kept = [np.concatenate(self._kept)] if self._kept else []
            self._codes = [self.codec.join(self._codes)]
        return self._codes[0] if self._codes else Codes(0, {}), self._kept[0] if self._kept else None

    def decoded(self, part: slice) -> Array:
        """Vectors of some rows, from those kept or from the codes; of length one, or zero, under cosine."""
        codes, kept = self.joined()
        if kept is not None:
            return np.ascontiguousarray(kept[part], np.float32)
        start, stop, _ = part.indices(codes.n)
        return self.codec.decode(Codes(stop - start, {name: a[start:stop] for name, a in codes.arrays.items()}))

    def checked(self, values: object, what: str) -> Array:
        """Rows float32, C-contiguous and finite, of length one under cosine."""
        rows = as_array(values, self.codec.dim, what)
        out = np.empty(rows.shape, np.float32)
        bad = _kernels().check_rows(rows.ctypes.data, len(rows), rows.shape[1], self._unit, out)
        if bad < 0:
            return out
        if bad % 2:
            raise InvalidArgument(f"{what}: row {bad // 2} is too long or too short for float32; scale the vectors")
        if np.isfinite(rows[bad // 2]).all():
            raise InvalidArgument(f"{what}: row {bad // 2} is too long for float32; scale the vectors")
        raise InvalidArgument(f"{what} expects finite float32 numbers, found another in row {bad // 2}")

    def checked_queries(self, queries: object) -> Array:
        """As :meth:`checked`; one vector is one query."""
        try:
            asked = np.asarray(queries)
        except ValueError:
            raise InvalidArgument("search(queries) expects rows of one width, found rows of several") from None
        return self.checked(asked[None] if asked.ndim == 1 else asked, "search(queries)")

    def checked_allow(self, allow: object) -> Array:
        """Bool (n,), C-contiguous."""
        return checked_mask(allow, len(self))

    def rescore(self, queries: Array, rows: Array) -> Array:
        """Scores of listed rows from the vectors kept, which there are."""
        kept = self.joined()[1]
        assert kept is not None
        metric: Metric = "l2" if self.codec.metric == "l2" else "dot"
        return score_listed(queries, kept, rows, norms=np.empty(0, np.float32), metric=metric)

    def stored(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What a file keeps: plain values and arrays."""
        codes, kept = self.joined()
        arrays = {f"codes.{name}": array for name, array in codes.arrays.items()}
        if self.codec.trained:
            arrays |= {f"codec.{name}": np.ascontiguousarray(a) for name, a in self.codec.arrays().items()}
        if kept is not None:
            arrays["kept"] = kept
        about = {
            "n": len(self), "dim": self.codec.dim, "metric": self.codec.metric, "codec": self.codec.spec,
            "keep": self.keep, "trained": self.codec.trained, "seed": self.seed,
        }  # fmt: skip
        return about, arrays

    def restore(self, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Take what :meth:`stored` gave."""
        if about["trained"]:
            self.codec = self.codec.with_arrays(under("codec.", arrays))
        if about["n"]:
            self._codes = [Codes(about["n"], under("codes.", arrays))]
            self._kept = [arrays["kept"]] if "kept" in arrays else []


def _is_precise(codec: Codec) -> bool:
    """Whether codes hold every dimension so well that candidates are rescored from them."""
    *transforms, kind = codec.spec.split(",")
    whole = not any(name.startswith(("PCA", "MRL", "LeanVec")) for name in transforms)
    if kind in ("SQ8", "LVQ8", "RaBitQ8"):
        return whole and codec.dim >= BYTE_DIM
    return whole and (codec.levels == 2 or kind in ("F32", "F16", "BF16"))


def checked_k(k: object) -> int:
    """An integer from 1 to :data:`MOST_K`."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= MOST_K:
        raise InvalidArgument(f"search(k) expects an integer of at least 1 and at most {MOST_K}, found {k!r}")
    return int(k)


def checked_oversample(oversample: object) -> float | None:
    """A finite number of at least 1, or None."""
    if oversample is None:
        return None
    if (
        isinstance(oversample, bool)
        or not isinstance(oversample, (int, float, np.integer, np.floating))
        or not 1 <= oversample < float("inf")
    ):
        raise InvalidArgument(f"search(oversample=) expects a number of at least 1, found {oversample!r}")
    return float(oversample)


def checked_mask(allow: object, n: int) -> Array:
    """Bool (n,), C-contiguous."""
    mask = np.asarray(allow)
    if mask.dtype != np.bool_ or mask.shape != (n,):
        raise InvalidArgument(f"search(allow=) expects {n} bools, one a row, found {mask.dtype} of shape {mask.shape}")
    return np.ascontiguousarray(mask)


def checked_numbers(rows: object, n: int) -> Array:
    """Row numbers below n, int64 (m,)."""
    numbers = np.atleast_1d(np.asarray(rows))
    if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and len(numbers)):
        raise InvalidArgument(f"delete(rows) expects row numbers, found {numbers.dtype} of shape {numbers.shape}")
    bad = numbers[(numbers < 0) | (numbers >= n)]
    if len(bad):
        raise InvalidArgument(f"delete(rows) expects numbers from 0 to {n - 1}, found {bad[0]}")
    return numbers.astype(np.int64)


def padded(scores: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """Results widened to k columns by (-inf, -1)."""
    if scores.shape[1] == k:
        return scores, rows
    missing = ((0, 0), (0, k - scores.shape[1]))
    return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


def as_array(values: object, dim: int, what: str) -> Array:
    """Numbers as float32 (n, dim), C-contiguous.

    Raises
    ------
    DimensionMismatch : of another width
    InvalidArgument : not numbers
    """
    try:
        rows = np.asarray(values)
        if rows.dtype.kind not in "fiu":
            raise TypeError
        if rows.dtype != np.float32 or not rows.flags.c_contiguous:
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(rows, np.float32)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{what} expects numbers of shape (n, {dim}), found {type(values).__name__}") from None
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise DimensionMismatch(f"{what} expects shape (n, {dim}), found {rows.shape}")
    return rows


@cache
def _kernels() -> ModuleType:
    from gingham.codecs import scalar_kernels

    return scalar_kernels


def _sampled(rows: Array, n: int, seed: int) -> Array:
    if len(rows) <= n:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), n, replace=False)
    return rows[np.sort(chosen)]


def _differ_in_little(rows: Array) -> bool:
    """Whether float16 does not hold rows, or not what they differ in."""
    some = rows[:: max(1, len(rows) // TOLD_ROWS)]
    with np.errstate(over="ignore", under="ignore"):
        halves = some.astype(np.float16).astype(np.float64)
    if max(rows.max(), -rows.min()) > np.finfo(np.float16).max:
        return True
    size = float(np.sqrt(np.square(some, dtype=np.float64).mean()))
    apart = float(np.std(some - some.mean(axis=0, dtype=np.float64)))
    lost = float(np.sqrt(np.square(halves - some).mean()))
    return lost > ROUNDING * (apart if apart > ROUNDING**2 * size else size)


def _kept(rows: Array, keep: Keep) -> Array:
    if keep == "f32":
        return rows.copy()
    with np.errstate(over="ignore"):
        kept = rows.astype(np.float16)
    bad = np.flatnonzero(np.isinf(kept).any(axis=1))
    if len(bad):
        raise InvalidArgument(
            f"add(vectors): row {bad[0]} has a number beyond 65504; use keep='f32' or scale the vectors"
        )
    return kept


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
