"""The bare inverted-file index: rows in lists around centroids, of which a query scans the nearest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np

from gingham.codecs.nibble_blocks import take
from gingham.codecs.spec import scans_lists
from gingham.errors import Corrupt, InvalidArgument, NotReady
from gingham.index.calibration import KS, Calibration, without
from gingham.index.chunked_rows import ChunkedRows
from gingham.index.coarse import Coarse, list_count
from gingham.index.code_lists import CodeLists
from gingham.index.coded_rows import (
    ROW_CODECS,
    CodedRows,
    checked_k,
    checked_mask,
    checked_numbers,
    checked_oversample,
    padded,
    under,
)
from gingham.index.container import save_arrays
from gingham.index.device_copies import DeviceCopies
from gingham.index.list_balance import rebalance
from gingham.index.list_build import RETRAINED_CHANGES, choose_lists, held_out, measure
from gingham.index.list_search import ListSearch
from gingham.index.second_lists import second_lists
from gingham.schema import MOST_LISTS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from gingham.codecs.protocol import Codec, SpanCodec
    from gingham.index.coded_rows import Keep
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

NPROBE = 16
"""Lists that a query scans where the caller does not say."""
CALIBRATED_GROWTH = 1 / 8
"""Share of the rows that come at once from which on it is measured anew what a target recall takes."""


@dataclass(frozen=True)
class IVFStats:
    """What an inverted-file index holds.

    Attributes
    ----------
    n, dead, dim, nlist : rows, those of them that are deleted, dimensions and lists
    metric, codec, soar : as given
    imbalance : rows that a query meets in a list, over those it would if all lists were of one size
    code_bytes, kept_bytes : of all codes, padding included, and of the vectors kept for rescoring
    """

    n: int
    dead: int
    dim: int
    nlist: int
    metric: Metric
    codec: str
    soar: bool
    imbalance: float
    code_bytes: int
    kept_bytes: int


@dataclass(frozen=True, eq=False)
class _State:
    """All that changes, replaced as a whole: a search sees the rows of one moment.

    Attributes
    ----------
    codec, coarse : trained, or as given and None
    lists : None without rows
    kept : float16 or float32 (n, dim), where vectors are kept
    n : rows
    dead : bool (n,), those that are deleted, or None
    calibration : what a target recall takes, or None
    changes : rows that came or went since centroids were trained; negative where they were trained with more than came
    """

    codec: Codec
    coarse: Coarse | None = None
    lists: CodeLists | None = None
    kept: Array | None = None
    n: int = 0
    dead: Array | None = None
    calibration: Calibration | None = None
    changes: int = 0

    @cached_property
    def live(self) -> int:
        """Rows that are not deleted."""
        return self.n if self.dead is None else self.n - int(np.count_nonzero(self.dead))

    @cached_property
    def searched(self) -> ListSearch:
        """How these are searched; there are rows."""
        assert self.coarse is not None
        assert self.lists is not None
        vectors = None
        if self.kept is not None:
            chunk = (self.kept, np.empty(0, np.float32))
            vectors = ChunkedRows([chunk], "l2" if self.codec.metric == "l2" else "dot")
        live = None if self.dead is None else ~self.dead
        return ListSearch(cast("SpanCodec", self.codec), self.coarse, self.lists, self.n, live, vectors)

    def measured(self, queries: Array | None) -> Calibration | None:
        """A calibration with queries, or with rows that are passed over; there are rows."""
        assert self.lists is not None
        search, hidden = self.searched, None
        if queries is None:
            hidden = held_out(np.arange(self.n) if self.dead is None else np.flatnonzero(~self.dead))
            if self.kept is not None:
                queries = np.ascontiguousarray(self.kept[hidden], np.float32)
            else:
                places, listed = np.empty(self.n, np.int64), np.flatnonzero(self.lists.rows >= 0)
                places[self.lists.rows[listed]] = listed
                queries = self.codec.decode(take(self.lists.codes, places[hidden]))
        k = min(KS[-1] + 1, self.live)
        exact = search.run(queries, k, len(self.lists.sizes))[1]
        return measure(search, queries, exact if hidden is None else without(exact, hidden), hidden)


class IVF:
    """Vectors in memory, in lists around centroids; a search scans the lists nearest to the query.

    Parameters
    ----------
    dim : dimensions, at least 1
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all, so l2 scores are negative
        squared distances
    nlist : lists to begin with, at most 65,536; None takes 4 sqrt(n) for n rows, but none of fewer than 32 rows in the
        mean
    codec : how vectors are stored for the scan: floats, SQ8, LVQ, RaBitQ of any bits or PQ x4fs, with any transforms
        in front
    keep : the vectors kept beside the codes to rescore candidates from, as of :class:`gingham.index.Flat`
    soar : a second list for each row, chosen so that one of the two is near a query that the row is near to: twice the
        codes, and where queries are hard fewer of them scanned for the same recall
    seed : of everything random in training
    device : what trains the centroids of large samples: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``, as of
        :class:`gingham.index.Flat`; the CPU searches

    Raises
    ------
    InvalidArgument : an option out of range, or a codec that does not parse, does not fit or does not scan lists
    MissingExtra, NoDevice : a device is asked for and there is none

    Notes
    -----
    Codes are of the vectors themselves, not of their residuals, so rows change lists without being coded again. Rows
    that come later go to the list of the nearest centroid, and lists that grow large are split; the codec stays that of
    the first rows, so train with a sample where these differ from what comes. Many threads may search while one adds.
    Of rows of equal scores the lower come first; which of them are found where more are equal than fit depends on the
    lists.

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> rows = np.random.default_rng(0).standard_normal((2000, 32), dtype=np.float32)
    >>> index = gg.index.IVF(32, metric="l2", nlist=20, codec="LVQ8")
    >>> index.add(rows)
    range(0, 2000)
    >>> index.search(rows[7], 1, nprobe=2)[1]
    array([[7]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        nlist: int | None = None,
        codec: str = "LVQ8",
        keep: Keep | Literal["auto"] = "auto",
        soar: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if not isinstance(soar, bool):
            raise InvalidArgument(f"IVF(soar=) expects True or False, found {soar!r:.60}")
        self._soar = soar
        self._rows = CodedRows("IVF", dim, metric, codec, keep, seed)
        self._asked = None if nlist is None else _count("IVF(nlist=)", nlist, MOST_LISTS)
        if not scans_lists(self._rows.codec.spec):
            raise InvalidArgument(
                f"IVF(codec=) expects one of {', '.join(ROW_CODECS)} or PQ of 4 bits (PQ16x4fs), found {codec!r}; "
                "gingham.index.Flat takes any"
            )
        self._state = _State(self._rows.codec)
        self._changing = Lock()
        self._attempt = DeviceCopies(device).attempt

    @property
    def codec(self) -> Codec:
        """The codec, trained once there are rows."""
        return self._state.codec

    def __len__(self) -> int:
        return self._state.n

    def train(self, sample: object, *, queries: object = None) -> Self:
        """Train the codec and the centroids; :meth:`add` does it by itself with its first rows.

        Parameters
        ----------
        sample : numbers (n, dim), of which there should be 32 or more a list
        queries : numbers (m, dim), queries such as those to come, for codecs that learn from them

        Raises
        ------
        NotReady : there are rows already
        InvalidArgument : not numbers of that shape, not finite, or too few rows for the codec
        """
        rows = self._rows.checked(sample, "train(sample)")
        with self._changing:
            if len(self):
                raise NotReady(f"train() expects an empty index, found {len(self)} rows; make a new IVF")
            self._rows.train(rows, queries)
            codec = cast("SpanCodec", self._rows.codec)
            nlist = self._asked or list_count(len(rows))
            self._state = _State(
                codec, Coarse.train(rows, nlist, codec, self._rows.seed, self._attempt), changes=-len(rows)
            )
        return self

    def add(self, vectors: object) -> range:
        """Append rows and return the range of their numbers.

        Parameters
        ----------
        vectors : numbers (n, dim)

        Raises
        ------
        InvalidArgument : not numbers of that shape, not finite, or too few rows for a codec that is not trained

        Notes
        -----
        Copies all codes, so many rows at once are cheaper than a few at a time; codes of deleted rows are left out, and
        lists that grew or shrank are split or dissolved. Where three tenths of the rows came or went, centroids are
        trained anew; an eighth of the rows or more at once measures anew what a target recall takes. What raises adds
        nothing.
        """
        rows = self._rows.checked(vectors, "add(vectors)")
        with self._changing:
            state = self._state
            if not len(rows):
                return range(state.n, state.n)
            kept = self._rows.kept_of(rows)
            codec = cast("SpanCodec", self._rows.trained_on(rows) if state.coarse is None else state.codec)
            coarse, lists = choose_lists(
                codec, len(rows), rows.__getitem__, nlist=self._asked, known=state.coarse,
                balance=state.lists is None, seed=self._rows.seed, attempt=self._attempt,
            )  # fmt: skip
            made = CodeLists.of(codec, rows.__getitem__, lists, len(coarse.centroids), state.n)
            n, dead = state.n + len(rows), None
            if state.dead is not None:
                dead = np.concatenate([state.dead, np.zeros(len(rows), np.bool_)])
            if kept is not None and state.kept is not None:
                kept = np.concatenate([state.kept, kept])
            changes = state.changes + len(rows)
            if state.lists is None:
                coarse, numbers = coarse.spread(lists, rows.__getitem__), np.maximum(made.rows, 0)
                if self._soar:
                    made = self._with_second(coarse, made, made.lists, lambda at: rows[numbers[at]])
                changed = _State(codec, coarse, made, kept, n, dead, changes=min(changes, 0))
            else:
                both, coarse = state.lists.followed_by(codec, made), coarse.unspread(np.unique(lists))
                changed = self._joined(_State(codec, coarse, both, kept, n, dead, state.calibration, changes))
            if len(rows) >= CALIBRATED_GROWTH * n:
                changed = replace(changed, calibration=changed.measured(None))
            self._state = changed
            return range(state.n, n)

    def _joined(self, state: _State) -> _State:
        """A state of twice as many lists as centroids with as many, without deleted rows, and balanced."""
        assert state.coarse is not None
        assert state.lists is not None
        codec, coarse, both = cast("SpanCodec", state.codec), state.coarse, state.lists
        lists, second = (np.where(one < 0, -1, one % len(coarse.centroids)) for one in both.lists)
        if state.dead is not None:
            gone = (both.rows >= 0) & state.dead[both.rows]
            coarse, lists[gone] = coarse.unspread(np.unique(lists[gone])), -1
        places, seed, changes = np.flatnonzero(lists >= 0), self._rows.seed, state.changes

        def vectors_of(positions: Array) -> Array:
            if state.kept is not None:
                return np.ascontiguousarray(state.kept[both.rows[places[positions]]], np.float32)
            return codec.decode(take(both.codes, places[positions]))

        if changes >= RETRAINED_CHANGES * len(places):
            coarse, lists[places] = choose_lists(
                codec, len(places), vectors_of, nlist=self._asked, seed=seed, attempt=self._attempt
            )
            second[:], changes = -1, 0
        else:
            wanted = self._asked or list_count(len(places))
            balanced = rebalance(coarse, lists[places], vectors_of, wanted, seed)
            if balanced is not None:
                coarse, lists[places] = balanced.coarse, balanced.lists
                second = np.where(second < 0, -1, balanced.numbers[second])
        coarse = coarse.spread(lists[places], vectors_of)
        made = self._with_second(coarse, both, (lists, second), lambda at: vectors_of(np.searchsorted(places, at)))
        return replace(state, coarse=coarse, lists=made, changes=changes)

    def _with_second(
        self, coarse: Coarse, codes: CodeLists, chosen: tuple[Array, Array], vectors_of: Callable[[Array], Array]
    ) -> CodeLists:
        """Codes in their first lists, and in second ones if there are to be any: those known, and others where none is.

        Parameters
        ----------
        chosen : int64 (places,), as of ``CodeLists.lists``
        vectors_of : from places to vectors
        """
        lists, second = chosen
        if not self._soar:
            return codes.with_lists(lists, len(coarse.centroids))
        lacking = np.flatnonzero((lists >= 0) & ((second < 0) | (second == lists)))
        second[lacking] = second_lists(coarse.centroids, lists[lacking], lambda at: vectors_of(lacking[at]))
        return codes.with_lists(lists, len(coarse.centroids), second)

    def delete(self, rows: object) -> int:
        """Delete rows, which keep their numbers; the next :meth:`add` leaves out their codes.

        Parameters
        ----------
        rows : int (m,), numbers that :meth:`add` returned; those deleted before are ignored

        Returns
        -------
        int : how many were deleted

        Raises
        ------
        InvalidArgument : not integers, or out of range
        """
        with self._changing:
            state = self._state
            numbers = checked_numbers(rows, state.n)
            dead = np.zeros(state.n, np.bool_) if state.dead is None else state.dead.copy()
            dead[numbers] = True
            gone = int(np.count_nonzero(dead)) - (state.n - state.live)
            self._state = replace(state, dead=dead, changes=state.changes + gone)
            return gone

    def calibrate(self, queries: object = None) -> None:
        """Measure how many lists a target recall takes.

        Parameters
        ----------
        queries : numbers (m, dim), queries such as those to come, some hundreds; None takes rows of the index, each of
            which is passed over while it is searched for

        Notes
        -----
        :meth:`add` does so with rows where it adds an eighth of them or more. Real queries may be harder than rows.

        Raises
        ------
        NotReady : there are no rows
        DimensionMismatch, InvalidArgument : not queries
        """
        asked = None if queries is None else self._rows.checked_queries(queries)
        with self._changing:
            if not self._state.live:
                raise NotReady("calibrate() expects rows in the index, found none; add some first")
            self._state = replace(self._state, calibration=self._state.measured(asked))

    def search(
        self,
        queries: object,
        k: int = 10,
        *,
        nprobe: int | None = None,
        target_recall: float | None = None,
        oversample: float | None = None,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best rows of each query in the lists nearest to it.

        Parameters
        ----------
        queries : numbers (n_queries, dim), or (dim,) for one
        k : rows per query, at least 1
        nprobe : lists scanned for each, 16 where nothing is said; more where ``allow`` leaves out rows, and all where
            these hold too few
        target_recall : above 0 and below 1: as many lists as reached it, in place of ``nprobe``
        oversample : as of :meth:`gingham.index.Flat.search`
        allow : bool (n,), the rows that may be found; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and row numbers int64 (n_queries, k); (-inf, -1) pads where
            fewer rows are allowed

        Raises
        ------
        DimensionMismatch : queries of another width
        InvalidArgument : an argument of another kind or out of range, or both ``nprobe`` and ``target_recall``

        Notes
        -----
        Time O(n_queries (nlist dim + nprobe n / nlist code_size)).
        """
        prepared, k = self._rows.checked_queries(queries), checked_k(k)
        oversample, state = checked_oversample(oversample), self._state
        nprobe = _nprobe(state, k, nprobe, target_recall)
        mask = None if allow is None else checked_mask(allow, state.n)
        if mask is not None and state.dead is not None:
            mask &= ~state.dead
        eligible = state.live if mask is None else int(np.count_nonzero(mask))
        if not eligible or not len(prepared):
            return padded(np.empty((len(prepared), 0), np.float32), np.empty((len(prepared), 0), np.int64), k)
        found = state.searched.run(prepared, min(k, eligible), nprobe, oversample=oversample, allow=mask)
        return padded(*found, k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        state = self._state
        about = {
            "kind": "IVF", "n": state.n, "dim": state.codec.dim, "metric": state.codec.metric,
            "codec": state.codec.spec, "keep": self._rows.keep, "trained": state.coarse is not None,
            "seed": self._rows.seed, "nlist": self._asked, "changes": state.changes,
            "soar": self._soar,
        }  # fmt: skip
        arrays: dict[str, Array] = {}
        if state.coarse is not None:
            arrays = {f"codec.{name}": np.ascontiguousarray(a) for name, a in state.codec.arrays().items()}
            arrays |= state.coarse.arrays()
        if state.lists is not None:
            arrays |= state.lists.arrays()
        if state.kept is not None:
            arrays["kept"] = state.kept
        if state.dead is not None:
            arrays["dead"] = state.dead.astype(np.uint8)
        if state.calibration is not None:
            arrays |= {f"calibration.{name}": array for name, array in state.calibration.arrays().items()}
        save_arrays(path, about, arrays)

    def stats(self) -> IVFStats:
        """Rows, lists and bytes."""
        state = self._state
        codec, lists = state.codec, state.lists
        nlist = 0 if state.coarse is None else len(state.coarse.centroids)
        return IVFStats(
            state.n, state.n - state.live, codec.dim, nlist, codec.metric, codec.spec, self._soar,
            1.0 if lists is None else lists.imbalance, 0 if lists is None else lists.codes.nbytes,
            0 if state.kept is None else int(state.kept.nbytes),
        )  # fmt: skip

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> IVF:
        index = cls(
            about["dim"], metric=about["metric"], nlist=about["nlist"], codec=about["codec"], keep=about["keep"],
            soar=about["soar"], seed=about["seed"],
        )  # fmt: skip
        if about["trained"]:
            n, kept = about["n"], arrays.get("kept")
            codec = cast("SpanCodec", index.codec.with_arrays(under("codec.", arrays)))
            coarse = Coarse.from_arrays(arrays, codec)
            if (None if kept is None else kept.shape) != ((n, codec.dim) if about["keep"] and n else None):
                raise Corrupt(f"IVF expects {n} vectors to rescore from, found others; rebuild the index")
            lists = CodeLists.from_arrays(arrays, n, len(coarse.centroids)) if n else None
            index._rows.codec, dead = codec, arrays.get("dead")
            if dead is not None and dead.shape != (n,):
                raise Corrupt(f"IVF expects a mark of each of {n} rows, found {dead.shape}; rebuild the index")
            known = under("calibration.", arrays)
            index._state = _State(
                codec, coarse, lists, kept, n, None if dead is None else dead.astype(np.bool_),
                Calibration.from_arrays(known) if known else None, about["changes"],
            )  # fmt: skip
        return index


def _nprobe(state: _State, k: int, nprobe: int | None, target: float | None) -> int:
    if target is None:
        return NPROBE if nprobe is None else _count("search(nprobe=)", nprobe, MOST_LISTS)
    if nprobe is not None:
        raise InvalidArgument("search() expects nprobe= or target_recall=, found both; leave one out")
    if isinstance(target, bool) or not isinstance(target, (float, np.floating)) or not 0 < target < 1:
        raise InvalidArgument(f"search(target_recall=) expects a number above 0 and below 1, found {target!r}")
    return NPROBE if state.calibration is None else state.calibration.least_for(float(target), k)


def _count(what: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise InvalidArgument(f"{what} expects an integer from 1 to {most}, found {value!r}")
    return int(value)
