"""Late interaction in stages: centroids near a query lead to documents, which codes then score.

Source: Santhanam et al., "PLAID: an efficient engine for late interaction retrieval", CIKM 2022, sections 4.2 to 4.5,
without the pruning of centroids by a threshold; residual codes are scored without being decoded, as in Scheerer et al.,
"WARP", SIGIR 2025, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.codecs.maxsim import Levels, QueryTokens, score_centroids, score_residual
from gingham.parallel import one_blas_thread, run_blocks

if TYPE_CHECKING:
    from gingham.codecs.token_residuals import TokenResiduals

    Array = np.ndarray[Any, Any]

NPROBE, CANDIDATES, PER_K = 4, 512, 8
"""Centroids whose documents a query token looks at, and documents that codes score: 8 k, 512 at least. SciFact among
45,000 distractors: of the ten best by all codes .9987 are found, in a tenth of the time (bench/late.py)."""
SCANNED_TOKENS = 1 << 18
"""Tokens up to which all documents are scored by their centroids: that takes under 1 ms."""
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

    residuals: TokenResiduals
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
        nprobe : centroids of each query token whose documents are looked at; None takes 4
        candidates : documents that codes score, those whose centroids score best; None takes 8 k, 512 at least
        allow : bool (documents,), those that may be found; None allows all that have tokens
        exact : score all of them by their codes

        Returns
        -------
        tuple : scores float32 and numbers int64, fewer than k where fewer documents may be found
        """
        with one_blas_thread():
            centroid_scores = query.centroid_scores(self.residuals.centroids)
        wanted = max(PER_K * k, CANDIDATES) if candidates is None else max(k, candidates)
        listed = self._allowed(allow)
        if not exact and len(listed) > wanted:
            near = self._near(query, centroid_scores, NPROBE if nprobe is None else nprobe, listed, allow)
            if len(near) >= wanted:
                listed = near
            if len(listed) > wanted:
                rough = self._scored(
                    listed, lambda part: score_centroids(query, self.ids, centroid_scores, self.starts, part)
                )
                listed = np.sort(listed[np.argpartition(rough, -wanted)[-wanted:]])
        scores = self._scored(listed, lambda part: self._precise(query, centroid_scores, part))
        order = np.lexsort((listed, -scores))[:k]
        return scores[order], listed[order]

    def _precise(self, query: QueryTokens, centroid_scores: Array, documents: Array) -> Array:
        return score_residual(
            query, self.codes, self.residuals.bits, self._levels, self.ids, centroid_scores, self.starts, documents
        )

    def _allowed(self, allow: Array | None) -> Array:
        present: Array = self._present if allow is None else self._present[allow[self._present]]
        return present

    def _near(
        self, query: QueryTokens, centroid_scores: Array, nprobe: int, listed: Array, allow: Array | None
    ) -> Array:
        """Documents of the centroids nearest to each query token, ascending; all listed ones where these are few."""
        if len(self.ids) <= SCANNED_TOKENS:
            return listed
        scores = centroid_scores[:, : len(query.tokens)]
        count = min(nprobe, len(scores))
        nearest = np.unique(np.argpartition(scores, -count, axis=0)[-count:])
        seen = np.zeros(len(self.starts) - 1, np.bool_)
        begins, documents = self._lists
        for centroid in nearest:
            seen[documents[begins[centroid] : begins[centroid + 1]]] = True
        if allow is not None:
            seen &= allow
        found: Array = np.flatnonzero(seen)
        return found

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
    def _levels(self) -> Levels:
        return self.residuals.levels

    @cached_property
    def _present(self) -> Array:
        """Documents that have tokens."""
        present: Array = np.flatnonzero(np.diff(self.starts))
        return present

    @cached_property
    def _lists(self) -> tuple[Array, Array]:
        return self.lists or centroid_lists(self.ids, self.starts, len(self.residuals.centroids))


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
