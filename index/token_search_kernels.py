"""Documents scored by the centroids nearest to each token of a query, those that have none of these by an estimate."""

import numpy as np
from numba import float32, int64, uint64

from gingham.codecs.intrinsics import kernel, load_one_u32, load_one_u64


@kernel("void(float32[:,::1], int64, int64[:,::1])")
def nearest_centroids(scores, count, out):
    """The centroids that score best with each query token, best first, ties by ascending number.

    Parameters
    ----------
    scores : (n_centroids, width), a column for each query token; those that pad come last
    count : query tokens, at most width
    out : (count, m), written; m is at most n_centroids
    """
    m = out.shape[1]
    best = np.full((count, m), float32(-np.inf), np.float32)
    out[:, :] = -1
    for c in range(scores.shape[0]):
        for t in range(count):
            score = scores[c, t]
            if score > best[t, m - 1] or out[t, m - 1] < 0:
                at = m - 1
                while at > 0 and (out[t, at - 1] < 0 or best[t, at - 1] < score):
                    best[t, at], out[t, at] = best[t, at - 1], out[t, at - 1]
                    at -= 1
                best[t, at], out[t, at] = score, c


@kernel("void(int64[:,::1], float32[:,::1], float32[::1], uint64, uint64, float32[::1], int64[::1])")
def score_lists(nearest, scores, missing, begins, documents, totals, seen):
    """Add to each document, for each query token, how far its best listed centroid exceeds what is missing.

    Parameters
    ----------
    nearest : (n_query_tokens, m), centroids, best first
    scores : (n_centroids, width)
    missing : (n_query_tokens,), the score of a token none of whose centroids a document has
    begins : address of int64 (n_centroids + 1,), where the documents of each centroid begin
    documents : address of int32, these, each once for a centroid
    totals : (n_documents,), added to
    seen : (n_documents,), 0 at first; then 1 + the last query token that met the document
    """
    for t in range(nearest.shape[0]):
        for j in range(nearest.shape[1]):
            centroid = nearest[t, j]
            gain = scores[centroid, t] - missing[t]
            place = begins + uint64(8 * centroid)
            for p in range(int64(load_one_u64(place)), int64(load_one_u64(place + uint64(8)))):
                document = int64(load_one_u32(documents + uint64(4 * p)))
                if seen[document] != t + 1:
                    seen[document] = t + 1
                    totals[document] += gain
