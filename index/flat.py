"""The bare flat index: all rows are scanned, as codes where a codec is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from gingham import deadline
from gingham.codecs.protocol import Codes
from gingham.codecs.spec import parse_codec
from gingham.errors import DimensionMismatch, InvalidArgument, NotReady
from gingham.index.container import load_arrays, save_arrays
from gingham.index.exact import row_norms, score_listed, unusable_rows
from gingham.index.two_stage import ENCODE_ROWS, encode_rows, search_codes

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from gingham.codecs.protocol import Codec
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]
    Keep = Literal["f16", "f32"] | None

BYTE_DIM = 96
"""Dimensions below which a byte for each finds under 99 % of 10 neighbours: .987 of GloVe's 50 (bench/codecs.py)."""
SAMPLE_ROWS = 262_144
"""Rows that training looks at when :meth:`Flat.add` trains."""
_KEEPS: dict[str | None, Any] = {"f16": np.float16, "f32": np.float32, None: None}


@dataclass(frozen=True)
class FlatStats:
    """What a flat index holds.

    Attributes
    ----------
    n, dim : rows and dimensions
    metric, codec : as given
    code_bytes : of all codes
    kept_bytes : of the vectors kept for rescoring
    """

    n: int
    dim: int
    metric: Metric
    codec: str
    code_bytes: int
    kept_bytes: int


class Flat:
    """Vectors in memory, found by scanning all of them.

    Parameters
    ----------
    dim : dimensions, at least 1
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all, so l2 scores are negative
        squared distances
    codec : how vectors are stored for the scan, such as ``"LVQ8"``, ``"PCA128,LVQ8"`` or ``"RaBitQ4"``; the table of
        all stands in the README
    keep : the vectors kept beside the codes to rescore candidates from: ``"f16"``, ``"f32"`` or None for none; by
        default float16, but nothing where the codes have two levels, or 8 bits of each of at least 96 dimensions
    seed : of everything random in training

    Raises
    ------
    InvalidArgument : an option out of range, a codec that does not parse or does not fit

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> index = gg.index.Flat(8, metric="l2", codec="LVQ8")
    >>> index.add(np.eye(8))
    range(0, 8)
    >>> scores, rows = index.search(np.eye(8)[3], 1)
    >>> rows
    array([[3]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        codec: str = "F32",
        keep: Keep | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
            raise InvalidArgument(f"Flat(dim) expects an integer of at least 1, found {dim!r}")
        if metric not in ("cosine", "dot", "l2"):
            raise InvalidArgument(f"Flat(metric=) expects 'cosine', 'dot' or 'l2', found {metric!r}")
        if keep != "auto" and keep not in _KEEPS:
            raise InvalidArgument(f"Flat(keep=) expects 'f16', 'f32' or None, found {keep!r}")
        self._codec: Codec = parse_codec(codec, int(dim), metric)
        self._seed = seed
        self._keep: Keep = (None if _is_precise(self._codec) else "f16") if keep == "auto" else keep
        self._codes: list[Codes] = []
        self._kept: list[Array] = []

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._codec

    def __len__(self) -> int:
        return sum(part.n for part in self._codes)

    def train(self, sample: object, *, queries: object = None) -> Self:
        """Train the codec; :meth:`add` does it by itself with its first rows.

        Parameters
        ----------
        sample : numbers (n, dim)
        queries : numbers (m, dim), queries such as those to come, for codecs that learn from them

        Raises
        ------
        NotReady : there are rows already, which only the codec they were encoded with can read
        InvalidArgument : not numbers of that shape, not finite, or too few rows for the codec
        """
        if len(self):
            raise NotReady(f"train() expects an empty index, found {len(self)} rows; make a new Flat")
        rows = self._prepared(sample, "train(sample)")
        asked = None if queries is None else self._prepared(queries, "train(queries=)")
        if not len(rows):
            raise InvalidArgument("train(sample) expects at least one row, found none")
        self._codec = self._codec.train(rows, queries=asked, seed=self._seed)
        return self

    def add(self, vectors: object) -> range:
        """Append rows and return the range of their numbers.

        Parameters
        ----------
        vectors : numbers (n, dim)

        Raises
        ------
        InvalidArgument : not numbers of that shape, not finite, or too few rows for a codec that is not trained
        """
        rows = self._prepared(vectors, "add(vectors)")
        first = len(self)
        if not len(rows):
            return range(first, first)
        if not self._codec.trained:
            self._codec = self._codec.train(_sampled(rows, SAMPLE_ROWS, self._seed), seed=self._seed)
        codes = encode_rows(self._codec, len(rows), lambda part: rows[part])
        kept = None if self._keep is None else _kept(rows, self._keep)
        self._codes.append(codes)
        if kept is not None:
            self._kept.append(kept)
        return range(first, first + len(rows))

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        oversample: float | None = None,
        bounded: bool = False,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query.

        Parameters
        ----------
        queries : numbers (n_queries, dim), or (dim,) for one
        k : rows per query, at least 1
        oversample : candidates rescored, times k, at least 1; None takes 4 k + 64
        bounded : rescore all rows that could belong to the result, by the error bound of the codec (RaBitQ), in place
            of a fixed number
        allow : bool (n,), the rows that may be found; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and row numbers int64 (n_queries, k); (-inf, -1) pads

        Raises
        ------
        DimensionMismatch : queries of another width
        InvalidArgument : an argument of another kind or out of range
        """
        asked = np.asarray(queries)
        rows = self._prepared(asked[None] if asked.ndim == 1 else asked, "search(queries)")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InvalidArgument(f"search(k) expects an integer of at least 1, found {k!r}")
        if oversample is not None and not (
            isinstance(oversample, (int, float)) and not isinstance(oversample, bool) and 1 <= oversample < np.inf
        ):
            raise InvalidArgument(f"search(oversample=) expects a number of at least 1, found {oversample!r}")
        codes, kept = self._joined()
        k_found = min(int(k), max(len(self), 1))
        scores, found = search_codes(
            self._codec,
            codes,
            rows,
            k_found,
            rescore=None if kept is None else lambda q, listed: self._rescored(kept, q, listed),
            oversample=oversample,
            bounded=bounded,
            allow=None if allow is None else self._allowed(allow),
        )
        if k_found == k:
            return scores, found
        missing = ((0, 0), (0, int(k) - k_found))
        return np.pad(scores, missing, constant_values=-np.inf), np.pad(found, missing, constant_values=-1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        codes, kept = self._joined()
        arrays = {f"codes.{name}": array for name, array in codes.arrays.items()}
        if self._codec.trained:
            arrays |= {f"codec.{name}": np.ascontiguousarray(a) for name, a in self._codec.arrays().items()}
        if kept is not None:
            arrays["kept"] = kept
        about = {
            "kind": "Flat", "n": len(self), "dim": self._codec.dim, "metric": self._codec.metric,
            "codec": self._codec.spec, "keep": self._keep, "trained": self._codec.trained, "seed": self._seed,
        }  # fmt: skip
        save_arrays(path, about, arrays)

    def stats(self) -> FlatStats:
        """Rows and bytes."""
        return FlatStats(
            len(self), self._codec.dim, self._codec.metric, self._codec.spec,
            sum(part.nbytes for part in self._codes), sum(int(part.nbytes) for part in self._kept),
        )  # fmt: skip

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> Flat:
        index = cls(about["dim"], metric=about["metric"], codec=about["codec"], keep=about["keep"], seed=about["seed"])
        if about["trained"]:
            index._codec = index._codec.with_arrays(_under("codec.", arrays))
        if about["n"]:
            index._codes = [Codes(about["n"], _under("codes.", arrays))]
            index._kept = [arrays["kept"]] if "kept" in arrays else []
        return index

    def _joined(self) -> tuple[Codes, Array | None]:
        if len(self._codes) > 1:
            self._codes = [self._codec.join(self._codes)]
            self._kept = [np.concatenate(self._kept)] if self._kept else []
        return self._codes[0] if self._codes else Codes(0, {}), self._kept[0] if self._kept else None

    def _prepared(self, values: object, what: str) -> Array:
        """Rows float32, C-contiguous and finite, of length one under cosine."""
        rows = as_rows(values, self._codec.dim, what)
        norms = row_norms(rows, self._codec.metric)
        bad = unusable_rows(norms, self._codec.metric)
        if len(bad):
            raise InvalidArgument(f"{what}: row {bad[0]} is too long or too short for float32; scale the vectors")
        return np.ascontiguousarray(rows * norms[:, None]) if self._codec.metric == "cosine" else rows

    def _rescored(self, kept: Array, queries: Array, rows: Array) -> Array:
        metric: Metric = "l2" if self._codec.metric == "l2" else "dot"
        return score_listed(queries, kept, rows, norms=np.empty(0, np.float32), metric=metric)

    def _allowed(self, allow: object) -> Array:
        mask = np.asarray(allow)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise InvalidArgument(
                f"search(allow=) expects {len(self)} bools, one a row, found {mask.dtype} of shape {mask.shape}"
            )
        return np.ascontiguousarray(mask)


def load(path: str | os.PathLike[str]) -> Flat:
    """Map an index that :meth:`Flat.save` wrote, after checking its checksums.

    Raises
    ------
    NotFound : there is no such file
    Corrupt, ChecksumMismatch, FormatTooNew : it cannot be read
    """
    about, arrays = load_arrays(path)
    return Flat._loaded(about, arrays)


def _is_precise(codec: Codec) -> bool:
    """Whether codes hold every dimension so well that candidates are rescored from them."""
    *transforms, kind = codec.spec.split(",")
    whole = not any(name.startswith(("PCA", "MRL", "LeanVec")) for name in transforms)
    if kind in ("SQ8", "LVQ8", "RaBitQ8"):
        return whole and codec.dim >= BYTE_DIM
    return whole and (codec.levels == 2 or kind in ("F32", "F16", "BF16"))


def as_rows(values: object, dim: int, what: str) -> Array:
    """Numbers as float32 (n, dim), C-contiguous and finite.

    Raises
    ------
    DimensionMismatch : of another width
    InvalidArgument : not numbers, or NaN or infinity, named by row
    """
    try:
        rows = np.asarray(values)
        if rows.dtype.kind not in "fiu":
            raise TypeError
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, np.float32)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{what} expects numbers of shape (n, {dim}), found {type(values).__name__}") from None
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise DimensionMismatch(f"{what} expects shape (n, {dim}), found {rows.shape}")
    for start in range(0, len(rows), ENCODE_ROWS):
        deadline.check()
        bad = np.flatnonzero(~np.isfinite(rows[start : start + ENCODE_ROWS]).all(axis=1))
        if len(bad):
            raise InvalidArgument(f"{what} expects finite float32 numbers, found another in row {start + bad[0]}")
    return rows


def _sampled(rows: Array, n: int, seed: int) -> Array:
    if len(rows) <= n:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), n, replace=False)
    return rows[np.sort(chosen)]


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


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
