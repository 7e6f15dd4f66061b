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
from gingham.parallel import one_blas_thread, run_blocks

if TYPE_CHECKING:
    from gingham.codecs.token_products import TokenProducts
    from gingham.codecs.token_residuals import TokenResiduals

    Array = np.ndarray[Any, Any]

NPROBE, CANDIDATES, PER_K = 32, 512, 8
"""Centroids whose documents a query token looks at, and documents that codes score: 8 k, 512 at least
(bench/late.py)."""
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
    """

    residuals: TokenResiduals | TokenProducts
    ids: Array
    codes: Array
    starts: Array
    lists: tuple[Array, Array] | None = None

    def run(
        self,
        query: QueryTokens,
        k: int,
        *,
        nprobe: int | None = None,
        candidates: int | None = None,
        allow: Array | None = None,
        exact: bool = False,
    ) -> tuple[Array, Array]:
        """Find the k best documents of a query, best first, ties by ascending number.

        Parameters
        ----------
        nprobe : centroids of each query token whose documents are looked at; None takes 32
        candidates : documents that codes score, those whose centroids score best; None takes 8 k, 512 at least
        allow : bool (documents,), those that may be found; None allows all that have tokens
        exact : score all of them by their codes

        Returns
        -------
        tuple : scores float32 and numbers int64, fewer than k where fewer documents may be found
        """
        query = self.residuals.turned(query)
        with one_blas_thread():
            centroid_scores = query.centroid_scores(self.residuals.centroids)
        wanted = max(PER_K * k, CANDIDATES) if candidates is None else max(k, candidates)
        listed = self._allowed(allow)
        if not exact and len(listed) > wanted:
            listed = self._near(query, centroid_scores, NPROBE if nprobe is None else nprobe, listed, wanted)
        scores = self._scored(listed, lambda part: self._precise(query, centroid_scores, part))
        order = np.lexsort((listed, -scores))[:k]
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
