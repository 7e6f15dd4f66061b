"""What scans of codes find, for the tests of codecs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gingham.codecs import topk_kernels


def found(codec, codes, queries, k, allow=None, cuts=(), bias=None):
    """The best of a scan of all rows, in pieces that end at ``cuts``, best first."""
    prepared = codec.prepare(queries, bias)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    edges = [0, *cuts, codes.n]
    for start, stop in pairwise(edges):
        codec.scan(prepared, codes, start, stop, 0 if allow is None else allow.ctypes.data, scores, rows)
    topk_kernels.sort_heaps(scores, rows)
    return scores, rows
