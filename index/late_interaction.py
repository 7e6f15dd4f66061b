"""The bare index of token matrices: every document scores the sum of the greatest products with a query's tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from gingham.codecs.maxsim import QueryTokens, score_f16
from gingham.codecs.token_products import token_codec_of, train_token_codec
from gingham.codecs.token_residuals import centroid_count
from gingham.errors import Corrupt, DimensionMismatch, InvalidArgument
from gingham.index.coded_rows import checked_k, checked_mask, checked_numbers, under
from gingham.index.container import save_arrays
from gingham.index.device_copies import DeviceCopies
from gingham.index.token_search import TokenSearch
from gingham.parallel import run_blocks
from gingham.vector_types import TOKEN_CODECS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from gingham.codecs.token_products import TokenProducts
    from gingham.codecs.token_residuals import TokenResiduals
    from gingham.index.device_copies import Resident
    from gingham.vector_types import TokenCodec

    Array = np.ndarray[Any, Any]

POOLED_DOCUMENTS = 16
"""Documents pooled by a thread at once."""
WATCHED, DRIFT = 4096, 1.2
"""Tokens that are looked at together for drift, and how many times further from their centroids than those trained on
they have drifted: at 1.1 tokens that come in any order get centroids of their own too (decision 12)."""


@dataclass(frozen=True)
class LateInteractionStats:
    """What an index of token matrices holds.

    Attributes
    ----------
    n, dead, tokens, dim : documents, those of them that are deleted, tokens and dimensions
    codec : as given
    n_centroids : 0 where tokens are kept as they are
    token_bytes : of a token
    """

    n: int
    dead: int
    tokens: int
    dim: int
    codec: str
    n_centroids: int
    token_bytes: float


@dataclass(frozen=True, eq=False)
class _State:
    """All that changes, replaced as a whole: a search sees the documents of one moment.

    Attributes
    ----------
    starts : int64 (n + 1,), where the tokens of each document begin and the last end
    tokens : float16 (tokens, dim), where they are kept as they are
    residuals, ids, codes : of coded tokens
    dead : bool (n,), documents that are deleted, or None
    spread : root of the mean squared distance from centroids of the tokens that these were trained on
    recent : the last tokens added, float32, not yet looked at for drift
    """

    starts: Array
    tokens: Array | None = None
    residuals: TokenResiduals | TokenProducts | None = None
    ids: Array | None = None
    codes: Array | None = None
    dead: Array | None = None
    spread: float | None = None
    recent: Array | None = None

    @property
    def n(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def search(self) -> TokenSearch:
        """Of coded tokens."""
        assert self.residuals is not None
        assert self.ids is not None
        assert self.codes is not None
        return TokenSearch(self.residuals, self.ids, self.codes, self.starts)


class LateInteraction:
    """Token matrices in memory, searched by late interaction (MaxSim).

    Parameters
    ----------
    dim : dimensions of a token, at least 1
    metric : ``"cosine"`` (default): tokens have length one; ``"dot"``: they are as they are
    codec : ``"Residual8"``, ``"Residual4"`` (default), ``"Residual2"`` or ``"RaBitQ1"``: a centroid and so many bits
        for each dimension; ``"PQ64"``, ``"PQ32"`` or ``"PQ16"``: a centroid and so many bytes, which divide
        ``dim``; ``"F16"``: floats, of which all are scored
    pool_factor : tokens of a document that become one, as of :func:`gingham.codecs.pooling.pool_tokens`
    protected : first tokens of a document that are never pooled
    seed : of everything random in training
    device : what scores coded tokens where there is much to score, as there is for ``exact=True``: ``"cpu"``,
        ``"cuda"`` or ``"cuda:1"`` for an NVIDIA device, which keeps a copy of them, a byte for each dimension, or
        ``"auto"`` for the first device where it works and has room, else the CPU. The device leaves 2 k + 32 documents
        of each query to the CPU, and results are the same. It takes 2^33 products of numbers in a search (``"auto"``:
        2^35), and 1,024 for each product of a query token with a centroid

    Raises
    ------
    InvalidArgument : an option out of range
    MissingExtra, NoDevice : a device is asked for and there is none

    Notes
    -----
    Centroids and weights are learned from the first documents added, and stay; tokens that come later and lie further
    from them get centroids of their own. Many threads may search while one adds.

    Examples
    --------
    >>> import gingham as gg, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.standard_normal((n, 32), dtype=np.float32) for n in (40, 7, 100)]
    >>> index = gg.index.LateInteraction(32, codec="F16")
    >>> index.add(documents)
    range(0, 3)
    >>> index.search(documents[1][:5], 1)[1]
    array([[1]])
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Literal["cosine", "dot"] = "cosine",
        codec: TokenCodec | Literal["F16"] = "Residual4",
        pool_factor: int | Literal["adaptive"] = 1,
        protected: int = 0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        from gingham.schema import Tokens

        if not isinstance(codec, str) or codec not in (*TOKEN_CODECS, "F16"):
            names = [*TOKEN_CODECS, "F16"]
            raise InvalidArgument(f"LateInteraction(codec=) expects one of {names}, found {codec!r:.60}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise InvalidArgument(f"LateInteraction(seed=) expects an integer from 0 to 2^64 - 1, found {seed!r:.60}")
        coded = None if codec == "F16" else codec
        self._kind = Tokens(dim, metric=metric, pool_factor=pool_factor, protected=protected, codec=coded)
        self._codec, self._seed = codec, int(seed)
        empty = np.empty((0, dim), np.float16) if codec == "F16" else None
        self._state = _State(np.zeros(1, np.int64), empty)
        self._changing = Lock()
        self._device = device
        self._there: tuple[Array, Resident] | None = None
        if device != "cpu":
            DeviceCopies(device)  # tells what is wrong with it

    def _resident(self, state: _State) -> Resident | None:
        """What has the tokens on the device, made anew when there are others."""
        if self._device == "cpu" or state.codes is None:
            return None
        with self._changing:
            if self._there is None or self._there[0] is not state.codes:
                self._there = state.codes, DeviceCopies(self._device).of("tokens")
            return self._there[1]

    def __len__(self) -> int:
        return self._state.n

    def add(self, documents: Sequence[Any]) -> range:
        """Append documents and return the range of their numbers.

        Parameters
        ----------
        documents : matrices (tokens, dim), of one token at least each

        Raises
        ------
        DimensionMismatch, InvalidArgument : not such matrices, or not finite; document and token are named
        """
        if isinstance(documents, (str, bytes)) or not hasattr(documents, "__len__"):
            raise InvalidArgument(f"add(documents) expects a sequence of matrices, found {type(documents).__name__}")
        checked = [self._checked(f"document {at}", one) for at, one in enumerate(documents)]
        if not checked:
            return range(len(self), len(self))
        blocks = [checked[at : at + POOLED_DOCUMENTS] for at in range(0, len(checked), POOLED_DOCUMENTS)]
        pooled = [one for block in run_blocks(self._pooled, blocks) for one in block]
        with self._changing:
            state = self._state
            first = state.n
            ends = state.starts[-1] + np.cumsum([len(one) for one in pooled])
            changed = replace(state, starts=np.concatenate([state.starts, ends]))
            if state.dead is not None:
                changed = replace(changed, dead=np.concatenate([state.dead, np.zeros(len(pooled), np.bool_)]))
            flat = np.concatenate(pooled)
            if self._codec == "F16":
                assert state.tokens is not None
                changed = replace(changed, tokens=np.concatenate([state.tokens, flat.astype(np.float16)]))
            else:
                changed = self._coded(changed, flat)
            self._state = changed
            return range(first, changed.n)

    def _coded(self, state: _State, flat: Array) -> _State:
        residuals = state.residuals
        if residuals is None or state.ids is None or state.codes is None:
            assert self._kind.codec is not None
            residuals = train_token_codec(self._kind.codec, flat, unit=self._unit, seed=self._seed)
            ids, codes = residuals.encode(flat)
            return replace(state, residuals=residuals, ids=ids, codes=codes, spread=_rms(residuals.lengths(flat, ids)))
        ids, codes = residuals.encode(flat)
        ids, codes = np.concatenate([state.ids, ids]), np.concatenate([state.codes, codes])
        recent = flat if state.recent is None else np.concatenate([state.recent, flat])
        state = replace(state, ids=ids, codes=codes, recent=recent)
        return state if len(recent) < WATCHED else self._followed(state, residuals, recent, ids, codes)

    def _followed(
        self, state: _State, residuals: TokenResiduals | TokenProducts, recent: Array, ids: Array, codes: Array
    ) -> _State:
        """Give centroids of their own to the last tokens where these have drifted away from those there are."""
        lengths = residuals.lengths(recent, ids[-len(recent) :])
        if state.spread is None or _rms(lengths) <= DRIFT * state.spread:
            return replace(state, recent=None)
        far = recent[lengths > state.spread]
        count = -(-len(far) * centroid_count(len(ids)) // len(ids))
        residuals = residuals.with_more(far, count, unit=self._unit, seed=self._seed)
        ids[-len(recent) :], codes[-len(recent) :] = residuals.encode(recent)
        return replace(state, residuals=residuals, recent=None)

    @property
    def _unit(self) -> bool:
        """Whether tokens have length one."""
        return self._kind.metric == "cosine"

    def delete(self, rows: object) -> int:
        """Delete documents, which keep their numbers and their memory; returns how many were not deleted before.

        Raises
        ------
        InvalidArgument : not integers, or out of range
        """
        with self._changing:
            state = self._state
            numbers = checked_numbers(rows, state.n)
            dead = np.zeros(state.n, np.bool_) if state.dead is None else state.dead.copy()
            before = int(np.count_nonzero(dead))
            dead[numbers] = True
            self._state = replace(state, dead=dead)
            return int(np.count_nonzero(dead)) - before

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        nprobe: int | None = None,
        candidates: int | None = None,
        exact: bool = False,
        allow: object = None,
    ) -> tuple[Array, Array]:
        """Find the k best documents of each query.

        Parameters
        ----------
        queries : tokens (n, dim) of one query, or a list of such
        k : documents per query, at least 1
        nprobe, candidates, exact : as of :meth:`gingham.index.token_search.TokenSearch.run`
        allow : bool (n,), the documents that may be found; None allows all

        Returns
        -------
        tuple : scores float32 (n_queries, k), descending, and numbers int64 (n_queries, k); (-inf, -1) pads where fewer
            documents may be found

        Raises
        ------
        DimensionMismatch, InvalidArgument : not such tokens, or an argument out of range
        """
        several = isinstance(queries, (list, tuple)) and len(queries) > 0 and np.ndim(queries[0]) > 1
        checked = [self._checked("a query", one) for one in (queries if several else [queries])]
        k, state = checked_k(k), self._state
        for name, value in {"nprobe": nprobe, "candidates": candidates}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
                raise InvalidArgument(f"search({name}=) expects an integer from 1, found {value!r:.60}")
        mask = None if allow is None else checked_mask(allow, state.n)
        if state.dead is not None:
            mask = ~state.dead if mask is None else mask & ~state.dead
        scores, rows = np.full((len(checked), k), -np.inf, np.float32), np.full((len(checked), k), -1, np.int64)
        asked = [QueryTokens(tokens) for tokens in checked] if state.n else []
        if state.tokens is not None:
            found = [_all_scored(state, query, k, mask) for query in asked]
        elif state.n:
            found = state.search.run(
                asked, k, nprobe=nprobe, candidates=candidates, allow=mask, exact=exact,
                resident=self._resident(state),
            )  # fmt: skip
        else:
            found = []
        for at, best in enumerate(found):
            scores[at, : len(best[0])], rows[at, : len(best[1])] = best
        return scores, rows

    def stats(self) -> LateInteractionStats:
        """Documents, tokens and bytes."""
        state = self._state
        tokens, dim = int(state.starts[-1]), self._kind.dim
        n_centroids = 0 if state.residuals is None else len(state.residuals.centroids)
        each = 2.0 * dim if state.residuals is None else 4.0 + state.residuals.code_bytes
        dead = 0 if state.dead is None else int(np.count_nonzero(state.dead))
        return LateInteractionStats(state.n, dead, tokens, dim, self._codec, n_centroids, each)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replaced whole or not at all; :func:`load` maps it."""
        state, kind = self._state, self._kind
        about = {
            "kind": "LateInteraction", "n": state.n, "dim": kind.dim, "metric": kind.metric, "codec": self._codec,
            "pool_factor": kind.pool_factor, "protected": kind.protected, "seed": self._seed,
            "spread": state.spread,
        }  # fmt: skip
        arrays: dict[str, Array] = {"starts": state.starts}
        for name, array in (("tokens", state.tokens), ("ids", state.ids), ("codes", state.codes)):
            if array is not None:
                arrays[name] = array
        if state.residuals is not None:
            arrays |= {f"residuals.{name}": array for name, array in state.residuals.arrays().items()}
        if state.dead is not None:
            arrays["dead"] = state.dead.astype(np.uint8)
        save_arrays(path, about, arrays)

    @classmethod
    def _loaded(cls, about: Mapping[str, Any], arrays: Mapping[str, Array], device: str = "cpu") -> LateInteraction:
        index = cls(
            about["dim"], metric=about["metric"], codec=about["codec"], pool_factor=about["pool_factor"],
            protected=about["protected"], seed=about["seed"],
        )  # fmt: skip
        starts, dead = np.array(arrays["starts"]), arrays.get("dead")
        sizes = {len(arrays[name]) for name in ("tokens", "ids", "codes") if name in arrays}
        if len(starts) != about["n"] + 1 or (np.diff(starts) < 0).any() or starts[0] or sizes - {int(starts[-1])}:
            raise Corrupt(f"LateInteraction expects tokens of {about['n']} documents, found others; rebuild the index")
        state = replace(index._state, starts=starts, dead=None if dead is None else dead.astype(np.bool_))
        if "tokens" in arrays:
            state = replace(state, tokens=arrays["tokens"])
        elif "ids" in arrays:
            residuals = token_codec_of(about["codec"], under("residuals.", arrays), about["dim"])
            ids = arrays["ids"]
            if ids.min() < 0 or ids.max() >= len(residuals.centroids):
                raise Corrupt("LateInteraction expects centroids of all tokens, found others; rebuild the index")
            state = replace(state, residuals=residuals, ids=ids, codes=arrays["codes"], spread=about["spread"])
        index._state = state
        return index

    def _checked(self, what: str, value: Any) -> Array:
        """Tokens float32 (n, dim), of length one under cosine."""
        try:
            tokens = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            tokens = np.empty(0, np.float32)
        if tokens.ndim != 2 or not len(tokens):
            raise InvalidArgument(f"{what} expects a matrix of one token at least, found {value!r:.60}")
        if tokens.shape[1] != self._kind.dim:
            raise DimensionMismatch(f"{what} expects tokens of width {self._kind.dim}, found {tokens.shape[1]}")
        bad = np.flatnonzero(~np.isfinite(tokens).all(axis=1))
        if len(bad):
            raise InvalidArgument(f"{what} expects finite numbers, found others in token {bad[0]}")
        if self._kind.metric == "cosine":
            lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
            tokens = np.divide(tokens, lengths, out=np.zeros_like(tokens), where=lengths > 0)
        return np.ascontiguousarray(tokens)

    def _pooled(self, documents: list[Array]) -> list[Array]:
        from gingham.codecs.pooling import pool_tokens

        kind = self._kind
        if kind.pool_factor == 1:
            return documents
        return [
            pool_tokens(one, factor=kind.pool_factor, protected=kind.protected, renormalize=self._unit)[0]
            for one in documents
        ]


def _rms(lengths: Array) -> float:
    return float(np.sqrt(np.mean(np.square(lengths, dtype=np.float64))))


def _all_scored(state: _State, query: QueryTokens, k: int, allow: Array | None) -> tuple[Array, Array]:
    listed = np.arange(state.n) if allow is None else np.flatnonzero(allow)
    scores = score_f16(query, cast("Array", state.tokens), state.starts, listed)
    order = np.lexsort((listed, -scores))[:k]
    return scores[order], listed[order]
