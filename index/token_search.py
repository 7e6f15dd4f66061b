"""Late interaction in stages: centroids near a query lead to documents, which codes then score.

Source: Scheerer et al., "WARP: an efficient engine for multi-vector retrieval", SIGIR 2025. Documents are first scored
by the centroids of their tokens alone, those near a token of the query: where a document has none of these, the score
of the next centroid stands for what is missing, which is the most that its centroids can score (WARP takes one by
cumulative sizes of clusters). The best are then scored by residual codes, without decoding them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.maxsim import QueryTokens, score_centroids
from gingham.index.device_tokens import CENTROID_BYTES, Asked, near_documents
from gingham.parallel import one_blas_thread, run_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.codecs.token_products import TokenProducts
    from gingham.codecs.token_residuals import TokenResiduals
    from gingham.index.device_copies import Resident

    Array = np.ndarray[Any, Any]

NPROBE, CANDIDATES, PER_K = 32, 512, 8
"""Centroids whose documents a query token looks at, and documents that codes score: 8 k, 512 at least
(bench/late.py)."""
RESCORED, SPARE = 2, 32
"""Documents that a device leaves to the CPU: 2 k + 32."""
BLOCK_TOKENS = 1 << 17


@dataclass(frozen=True, eq=False)
class TokenSearch:
    """Documents of coded tokens.

    Attributes
    ----------
    residuals : what codes stand for
    ids : int32 (tokens,), the centroid of each
    codes : uint8 (tokens, bytes)
    starts : int64 (documents + 1,), where the tokens of each begin and the last end
    lists : as of :func:`centroid_lists`; None makes them when they are first looked at
    resident : what may have the tokens on a device, for whoever searches, or None
    """

    residuals: TokenResiduals | TokenProducts
    ids: Array
    codes: Array
    starts: Array
    lists: tuple[Array, Array] | None = None
    resident: Resident | None = None

    def run(
        self,
        queries: Sequence[QueryTokens],
        k: int,
        *,
        nprobe: int | None = None,
        candidates: int | None = None,
        allow: Array | None = None,
        exact: bool = False,
        resident: Resident | None = None,
    ) -> list[tuple[Array, Array]]:
        """Find the k best documents of each query, best first, ties by ascending number.

        Parameters
        ----------
        nprobe : centroids of each query token whose documents are looked at; None takes 32
        candidates : documents that codes score, those whose centroids score best; None takes 8 k, 512 at least
        allow : bool (documents,), those that may be found; None allows all that have tokens
        exact : score all of them by their codes
        resident : what may have the tokens on a device, which then leaves few of them to be scored; None for the CPU

        Returns
        -------
        list of tuple : scores float32 and numbers int64, fewer than k where fewer documents may be found; the same with
            a device and without
        """
        wanted = max(PER_K * k, CANDIDATES) if candidates is None else max(k, candidates)
        allowed, step, found = self._allowed(allow), 1, []
        if resident is not None and queries:
            tokens = max(len(query.padded) for query in queries)
            step = max(1, CENTROID_BYTES // (4 * tokens * len(self.residuals.centroids)))
        for start in range(0, len(queries), step):
            asked = [self._asked(query, wanted, nprobe, allowed, exact) for query in queries[start : start + step]]
            near = None if resident is None else self._near_there(resident, asked, k)
            found += [self._found(one, k, None if near is None else near[i]) for i, one in enumerate(asked)]
        return found

    def _asked(self, query: QueryTokens, wanted: int, nprobe: int | None, listed: Array, exact: bool) -> Asked:
        """The documents that codes are to score."""
        query = self.residuals.turned(query)
        with one_blas_thread():
            centroid_scores = query.centroid_scores(self.residuals.centroids)
        if not exact and len(listed) > wanted:
            listed = self._near(query, centroid_scores, NPROBE if nprobe is None else nprobe, listed, wanted)
        return Asked(query, centroid_scores, listed)

    def _near_there(self, resident: Resident, asked: list[Asked], k: int) -> list[tuple[Array, float]] | None:
        return near_documents(resident, self.residuals, self.codes, self.ids, self.starts, asked, RESCORED * k + SPARE)

    def _found(self, asked: Asked, k: int, near: tuple[Array, float] | None) -> tuple[Array, Array]:
        """The best by the scores of codes: of those that a device left, where no other can be among them."""
        listed = asked.documents if near is None else near[0]
        scores = self._scored(listed, lambda part: self._precise(asked.query, asked.centroid_scores, part))
        order = np.lexsort((listed, -scores))[:k]
        if near is not None and len(listed) < len(asked.documents) and not scores[order[-1]] > near[1]:
            return self._found(asked, k, None)
        return scores[order], listed[order]

    def _precise(self, query: QueryTokens, centroid_scores: Array, documents: Array) -> Array:
        return self.residuals.score(query, self.codes, self.ids, centroid_scores, self.starts, documents)

    def _allowed(self, allow: Array | None) -> Array:
        present: Array = self._present if allow is None else self._present[allow[self._present]]
        return present

    def _near(self, query: QueryTokens, centroid_scores: Array, nprobe: int, listed: Array, wanted: int) -> Array:
        """Those wanted of the listed documents that centroids score best, ascending."""
        if nprobe < len(centroid_scores):
            totals, seen = self._imputed(len(query.tokens), centroid_scores, nprobe)
            met = listed[seen[listed] > 0]
            if len(met) >= wanted:
                return _best(met, totals[met], wanted)
        scores = self._scored(listed, lambda part: score_centroids(query, self.ids, centroid_scores, self.starts, part))
        return _best(listed, scores, wanted)

    def _imputed(self, count: int, centroid_scores: Array, nprobe: int) -> tuple[Array, Array]:
        """Scores of all documents but for what all alike miss, and which were met, 0 for those that were not."""
        from gingham.index import token_search_kernels

        nearest = np.empty((count, nprobe + 1), np.int64)
        token_search_kernels.nearest_centroids(centroid_scores, count, nearest)
        missing = centroid_scores[nearest[:, -1], np.arange(count)]
        totals, seen = (np.zeros(len(self.starts) - 1, dtype) for dtype in (np.float32, np.int64))
        begins, documents = self._lists
        token_search_kernels.score_lists(
            np.ascontiguousarray(nearest[:, :-1]), centroid_scores, missing, begins.ctypes.data, documents.ctypes.data,
            totals, seen,
        )  # fmt: skip
        return totals, seen

    def _scored(self, documents: Array, score: Any) -> Array:
        """Scores of documents, in blocks of so many tokens."""
        deadline.check()
        counts = self.starts[documents + 1] - self.starts[documents]
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // BLOCK_TOKENS)) + 1
        if not len(cuts):
            scored: Array = score(documents)
            return scored
        return np.concatenate(run_blocks(score, np.split(documents, cuts)))

    @cached_property
    def _present(self) -> Array:
        """Documents that have tokens."""
        present: Array = np.flatnonzero(np.diff(self.starts))
        return present

    @cached_property
    def _lists(self) -> tuple[Array, Array]:
        return self.lists or centroid_lists(self.ids, self.starts, len(self.residuals.centroids))


def _best(documents: Array, scores: Array, wanted: int) -> Array:
    if len(documents) <= wanted:
        return documents
    best: Array = np.sort(documents[np.argpartition(scores, -wanted)[-wanted:]])
    return best


def centroid_lists(ids: Array, starts: Array, n_centroids: int) -> tuple[Array, Array]:
    """Where the documents of each centroid begin, int64 (n_centroids + 1,), and these, int32, each once for a centroid.

    Parameters
    ----------
    ids, starts : as of :class:`TokenSearch`
    """
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    pairs = np.unique(ids.astype(np.int64) * len(starts) + owners)
    centroids, documents = np.divmod(pairs, len(starts))
    return np.searchsorted(centroids, np.arange(n_centroids + 1)), documents.astype(np.int32)
