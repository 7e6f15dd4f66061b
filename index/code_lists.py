"""Coded rows list by list: the rows of a list are neighbours, and every list begins with a block of its own.

A row lies in one list, or in two where a second one was chosen for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.nibble_blocks import take
from gingham.codecs.protocol import BLOCK_ROWS, Codes
from gingham.errors import Corrupt
from gingham.index.coded_rows import under
from gingham.index.two_stage import encode_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gingham.codecs.protocol import Codec

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class CodeLists:
    """Rows in places: those of a list, and after them as many as fill its last block.

    Attributes
    ----------
    codes : of all places
    rows : int32 (places,), C-contiguous, the row that lies there, -1 for none
    starts : int64 (nlist,), the first place of each list
    sizes : int64 (nlist,), its rows
    firsts : int64 (nlist,), how many of these, the first ones, have it for their first list; None for all
    """

    codes: Codes
    rows: Array
    starts: Array
    sizes: Array
    firsts: Array | None = None

    @classmethod
    def of(
        cls, codec: Codec, vectors_of: Callable[[Array], Array], lists: Array, nlist: int, first: int = 0
    ) -> CodeLists:
        """Encode rows whose lists are given.

        Parameters
        ----------
        vectors_of : from positions int64 (m,), in any order, to vectors float32 (m, dim); called by several threads
        lists : int64 (n,), the list of each row, n at least 1
        first : number of the first row
        """
        sizes = np.bincount(lists, minlength=nlist)
        order = _places(lists, sizes)
        source = np.maximum(order, 0)
        codes = encode_rows(codec, len(order), lambda part: vectors_of(source[part]))
        return cls(codes, np.where(order < 0, -1, order + first).astype(np.int32), _starts(sizes), sizes)

    def with_lists(self, lists: Array, nlist: int, second: Array | None = None) -> CodeLists:
        """The same codes in other lists.

        Parameters
        ----------
        lists : int64 (places,), the first list of the row in each place, -1 for one that is left out
        second : int64 (places,), the second one, -1 for none; None for none of all
        """
        kept = np.flatnonzero((self.rows >= 0) & (lists >= 0))
        listed, firsts = lists[kept], None
        if second is not None:
            firsts = np.bincount(listed, minlength=nlist)
            twice = kept[second[kept] >= 0]
            kept, listed = np.concatenate([kept, twice]), np.concatenate([listed, second[twice]])
        sizes = np.bincount(listed, minlength=nlist)
        order = _places(listed, sizes)
        deadline.check()
        codes = take(self.codes, kept[np.maximum(order, 0)])
        rows = np.where(order < 0, -1, self.rows[kept][order]).astype(np.int32)
        return CodeLists(codes, rows, _starts(sizes), sizes, firsts)

    def followed_by(self, codec: Codec, others: CodeLists) -> CodeLists:
        """These places and then others, as twice as many lists, of which the second half are those of the others."""
        spilled = self.firsts is not None or others.firsts is not None
        both = [one.sizes if one.firsts is None else one.firsts for one in (self, others)]
        return CodeLists(
            codec.join([self.codes, others.codes]),
            np.concatenate([self.rows, others.rows]),
            np.concatenate([self.starts, others.starts + len(self.rows)]),
            np.concatenate([self.sizes, others.sizes]),
            np.concatenate(both) if spilled else None,
        )

    @property
    def lists(self) -> tuple[Array, Array]:
        """First and second list of the row in each place, int64 (places,), -1 for none and no row.

        Of a row with two lists, both stand at its first place, and none at the other.
        """
        first, second = np.where(self.rows < 0, -1, self._list_of_places), np.full(len(self.rows), -1, np.int64)
        if self.firsts is not None:
            within = np.arange(len(self.rows)) - self.starts[self._list_of_places]
            again = np.flatnonzero((self.rows >= 0) & (within >= self.firsts[self._list_of_places]))
            of_rows = np.full(int(self.rows.max(initial=-1)) + 1, -1, np.int64)
            of_rows[self.rows[again]] = first[again]
            first[again] = -1
            at = np.flatnonzero(first >= 0)
            second[at] = of_rows[self.rows[at]]
        return first, second

    @property
    def _list_of_places(self) -> Array:
        return np.repeat(np.arange(len(self.sizes)), _whole(self.sizes))

    def spans(self, probes: Array, most: int) -> Iterable[Array]:
        """What queries scan that probe these lists, int64 (n_queries, nprobe), -1 for none.

        Yields
        ------
        spans int64 (m, 3), query, start, stop, of at most ``most`` rows together, about
        """
        from gingham.index import list_kernels

        spans = np.empty((probes.size, 3), np.int64)
        if list_kernels.order_spans(probes, self.starts, self.sizes, spans) <= most:
            return (spans,)
        return _cut(spans, most)

    def rows_at(self, places: Array) -> Array:
        """The rows in some places int64 (n, m), -1 for none."""
        from gingham.index import list_kernels

        rows = np.empty(places.shape, np.int64)
        list_kernels.rows_at(places, self.rows.ctypes.data, rows)
        return rows

    def drop_repeated(self, scores: Array, places: Array) -> Array:
        """Move places int64 (n, m) of rows that were not met before to the front; returns how many, int64 (n,)."""
        from gingham.index import list_kernels

        counts = np.empty(len(places), np.int64)
        list_kernels.drop_repeated(scores, places, self.rows.ctypes.data, counts)
        return counts

    @property
    def imbalance(self) -> float:
        """Rows that a query meets in a list, over those it would if all lists were equal (faiss: imbalance factor)."""
        return float(len(self.sizes) * np.square(self.sizes, dtype=np.float64).sum() / self.sizes.sum() ** 2)

    def arrays(self) -> dict[str, Array]:
        """To be stored."""
        named = {f"codes.{name}": array for name, array in self.codes.arrays.items()}
        named |= {"places": self.rows, "sizes": self.sizes}
        return named if self.firsts is None else named | {"firsts": self.firsts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], n: int, nlist: int) -> CodeLists:
        """Invert :meth:`arrays`.

        Raises
        ------
        Corrupt : arrays that do not fit each other
        """
        try:
            rows, sizes = arrays["places"], arrays["sizes"]
        except KeyError as error:
            raise Corrupt(f"lists expect an array {error}; rebuild the index") from error
        sizes, firsts = np.array(sizes), arrays.get("firsts")
        fit = sizes.shape == (nlist,) and sizes.dtype == np.int64 and bool((sizes >= 0).all())
        fit = fit and rows.ndim == 1 and rows.dtype == np.int32 and len(rows) == int(_whole(sizes).sum())
        if firsts is not None:
            fit = fit and firsts.shape == (nlist,) and firsts.dtype == np.int64
            fit = fit and bool(((firsts >= 0) & (firsts <= sizes)).all())
        fit = fit and _each_listed(rows, sizes, firsts, n)
        if not fit:
            raise Corrupt(
                f"lists expect rows below {n} in {nlist} lists, found arrays that do not fit; rebuild the index"
            )
        codes = Codes(len(rows), under("codes.", arrays))
        if not codes.arrays or any(len(a) not in (len(rows), len(rows) // BLOCK_ROWS) for a in codes.arrays.values()):
            raise Corrupt(f"lists expect codes of {len(rows)} places, found others; rebuild the index")
        return cls(codes, rows, _starts(sizes), sizes, firsts)


def _each_listed(rows: Array, sizes: Array, firsts: Array | None, n: int) -> bool:
    """Whether places hold rows below n, each once as a first one and at most once as another."""
    first, again, expected = rows >= 0, np.zeros(len(rows), np.bool_), sizes if firsts is None else firsts
    if rows.max(initial=-1) >= n or np.count_nonzero(first) != sizes.sum():
        return False
    if firsts is not None:
        ends = np.repeat(_starts(sizes) + firsts, _whole(sizes))
        again = first & (np.arange(len(rows)) >= ends)
        first &= ~again
    known = np.bincount(rows[first], minlength=n)
    once = known.max(initial=0) <= 1 and known.sum() == expected.sum()
    return bool(once and (firsts is None or (np.bincount(rows[again], minlength=n) <= known).all()))


def _whole(sizes: Array) -> Array:
    """Sizes rounded up to whole blocks."""
    return -(-sizes // BLOCK_ROWS) * BLOCK_ROWS


def _starts(sizes: Array) -> Array:
    whole = _whole(sizes)
    starts: Array = np.cumsum(whole) - whole
    return starts


def _places(lists: Array, sizes: Array) -> Array:
    """Positions of rows in the order of places, -1 where none lies: lists int64 (n,), and how many rows each has."""
    starts, order = _starts(sizes), np.argsort(lists, kind="stable")
    out = np.full(int((starts + _whole(sizes))[-1]), -1, np.int64)
    out[np.repeat(starts, sizes) + np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = order
    return out


def _cut(spans: Array, most: int) -> Iterator[Array]:
    """Spans of at most so many rows together, longer ones cut at whole blocks."""
    piece = max(1, most // BLOCK_ROWS) * BLOCK_ROWS
    counts = np.maximum(1, -(-(spans[:, 2] - spans[:, 1]) // piece))
    cut = np.repeat(spans, counts, axis=0)
    within = np.arange(len(cut)) - np.repeat(np.cumsum(counts) - counts, counts)
    cut[:, 1] += within * piece
    cut[:, 2] = np.minimum(cut[:, 2], cut[:, 1] + piece)
    ends = np.cumsum(cut[:, 2] - cut[:, 1]) // piece
    for part in np.split(cut, np.flatnonzero(np.diff(ends)) + 1):
        yield np.ascontiguousarray(part)
