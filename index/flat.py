"""The bare flat index: all rows are scanned, as codes where a codec is given."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self

from gingham.codecs.devices import find_device
from gingham.errors import InvalidArgument, ResourceExhausted
from gingham.index.coded_rows import ROW_CODECS, CodedRows, checked_k, checked_oversample, padded
from gingham.index.container import save_arrays
from gingham.index.device_searches import COLUMN_CODECS, Columns, column_scanner, scans_columns
from gingham.index.two_stage import search_codes

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy as np

    from gingham.codecs.cuda_rows import DeviceTiles
    from gingham.codecs.devices import Device
    from gingham.codecs.protocol import Codec, Codes
    from gingham.index.coded_rows import Keep
    from gingham.index.two_stage import Scanner
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

DEVICE_QUERIES = 1024
"""Queries that a device scans at once."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _OnDevice:
    """Rows of codes and their copy on a device, as a :class:`gingham.index.two_stage.Scanner`."""

    codec: Codec
    codes: Codes
    copy: DeviceTiles
    queries: int = DEVICE_QUERIES

    @property
    def most(self) -> int:
        return self.copy.most

    @property
    def exact(self) -> bool:
        return self.copy.exact

    def scan(self, queries: Array, prepared: Any, floors: Array, k: int, allow: Array | None) -> tuple[Array, Array]:
        coded = self.codec.row_scores(prepared, self.codes)
        assert coded is not None
        return self.copy.scan(coded, floors, k, allow)


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
        default float16, or float32 where the first rows would lose by that what they differ in, but nothing where the
        codes have two levels, or 8 bits of each of at least 96 dimensions
    seed : of everything random in training
    device : what scans the codes: ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` for an NVIDIA device, which keeps a copy of
        them, or takes them tile by tile for each search where they do not fit, or ``"auto"`` for the first device
        where it works and has room, else the CPU. Scores have the same bits on each. PQ, RQ and sign codes are not
        taken in tiles, and the CPU scans them for a search that wants more candidates than 1,024 (signs: 2,048)

    Raises
    ------
    InvalidArgument : an option out of range, a codec that does not parse or does not fit, or whose rows a device does
        not score (PQ x4fs, x12, x16 and those with lengths; RaBitQ1)
    MissingExtra, NoDevice : a device is asked for and there is none

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
        device: str = "cpu",
    ) -> None:
        self._rows = CodedRows("Flat", dim, metric, codec, keep, seed)
        self._device = find_device(device)
        self._must = device != "auto"
        self._copy: tuple[Codes, Scanner] | None = None
        self._copying = Lock()
        if self._device is not None and not (self._rows.scored_singly or scans_columns(self._rows.codec)):
            if self._must:
                raise InvalidArgument(
                    f"Flat(device=) expects a codec whose rows are scored one by one, {', '.join(ROW_CODECS)} of 2 "
                    f"to 8 bits, or one of {', '.join(COLUMN_CODECS)}, found {codec!r}; use device='cpu'"
                )
            self._device = None

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._rows.codec

    def __len__(self) -> int:
        return len(self._rows)

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
        self._rows.train(sample, queries)
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
        rows = self._rows.checked(vectors, "add(vectors)")
        first = len(self)
        if not len(rows):
            return range(first, first)
        self._rows.append(*self._rows.encoded(rows))
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
        prepared, k = self._rows.checked_queries(queries), checked_k(k)
        codes, kept = self._rows.joined()
        scores, found = search_codes(
            self._rows.codec,
            codes,
            prepared,
            min(k, max(len(self), 1)),
            rescore=None if kept is None else self._rows.rescore,
            oversample=checked_oversample(oversample),
            bounded=bounded,
            allow=None if allow is None else self._rows.checked_allow(allow),
            scanner=self._scanner(codes, prepared[:1]),
        )
        return padded(scores, found, k)

    def _scanner(self, codes: Codes, query: Array) -> Scanner | None:
        """What scans the copy of the rows on the device, made anew when there are others."""
        if self._device is None or not codes.n or not len(query):
            return None
        with self._copying:
            if self._device is not None and (self._copy is None or self._copy[0] is not codes):
                self._copy = None
                try:
                    self._copy = codes, _copied(self._rows.codec, codes, query, self._device)
                except ResourceExhausted as error:
                    if self._must:
                        raise
                    _log.warning("device='auto' takes the CPU: %s", error)
                    self._device = None
            return None if self._copy is None else self._copy[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        about, arrays = self._rows.stored()
        save_arrays(path, {"kind": "Flat", **about}, arrays)

    def stats(self) -> FlatStats:
        """Rows and bytes."""
        codec = self._rows.codec
        return FlatStats(len(self), codec.dim, codec.metric, codec.spec, self._rows.code_bytes, self._rows.kept_bytes)

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array], device: str) -> Flat:
        index = cls(
            about["dim"], metric=about["metric"], codec=about["codec"], keep=about["keep"], seed=about["seed"],
            device=device,
        )  # fmt: skip
        index._rows.restore(about, arrays)
        return index


def _copied(codec: Codec, codes: Codes, query: Array, device: Device) -> Scanner:
    """What scans a copy of codes on a device; raises ResourceExhausted."""
    from gingham.codecs.cuda_rows import DeviceTiles

    coded = codec.row_scores(codec.prepare(query), codes)
    if coded is None:
        return column_scanner(codec, codes, Columns.of(codes, device), device)
    return _OnDevice(codec, codes, DeviceTiles(coded, codes.n, device))
