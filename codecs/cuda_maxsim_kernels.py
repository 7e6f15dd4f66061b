"""MaxSim of documents of 8-bit tokens on an NVIDIA device.

A block scores one document for one query: the sum over query tokens of the greatest inner product with any token of the
document. Tokens are ``scale levels + offset`` and query tokens integers, as :mod:`gingham.codecs.maxsim_kernels` has
them. Both pass through shared memory as words of four dimensions; a thread adds four by four products at a time.

Scores are those of the CPU within 1e-5 of their size: the integers are the same, the sums of floats have another order.

Roofline: an instruction adds four products, at 64 a cycle and multiprocessor. A document of 120 tokens of 128
dimensions (16 KB) and 32 query tokens take 131,072 of them, 2,048 cycles: an A100 (108 multiprocessors, 1.41 GHz)
scores 74M documents a second, for which it reads 1.2 of its 1.56 TB/s; an H100 (132, 1.7 GHz) 110M, for 1.8 of 3.35
TB/s. Adding bounds; a thread loads 8 words for 16 of these instructions, which takes as many cycles as they do.
"""

import numpy as np
from numba import cuda, float32, int32, int64

from gingham.codecs.cuda_intrinsics import add, add_quads, multiply

SIDE = 4
"""Query tokens and document tokens of a thread."""
LEAST = float32(-np.inf)


def _staging(staged: int, threads: int):
    """The function that copies some words of some tokens to shared memory, as columns."""

    @cuda.jit(device=True, inline=True)
    def stage(words, first, stop, start, rows, thread, out):
        """Copy words from ``start`` on of tokens first to stop, zeros where there are none."""
        for place in range(thread, rows * staged, threads):
            token, w = place // staged, place % staged
            inside = first + token < stop and start + w < words.shape[1]
            out[w, token] = words[first + token, start + w] if inside else int32(0)

    return stage


def _finishing(near: bool):
    """The function that adds to a product what a token has beside its levels."""

    @cuda.jit(device=True, inline=True)
    def finish(s, token, i, own, offsets, parameters, centroids):
        if near:
            return add(s, centroids[i, offsets[token], own])
        return add(s, multiply(offsets[token], parameters[i, 2, own]))

    return finish


def maxsim_kernel(across: int, down: int, staged: int, near: bool = False):
    """The kernel of ``across * down`` threads; grid (documents, n_queries).

    Parameters
    ----------
    across, down : threads beside each other over query tokens and document tokens
    staged : words of each token that lie in shared memory at once
    near : tokens are ``scale levels`` and a centroid, in place of an offset

    Notes
    -----
    ``maxsim(words, scales, offsets, starts, documents, prepared, parameters, centroids, scores)`` writes a score for
    each query and document. words int32 (n_tokens, width); scales, offsets float32 (n_tokens,), with centroids their
    numbers int32 in place of offsets; starts int64 (n_documents + 1,); documents int64 (n_queries or 1, m), -1 for
    none; prepared int32 (n_queries, query tokens, width); parameters float32 (n_queries, 3, query tokens), of which the
    third is of offsets; centroids float32 (n_queries, n_centroids, query tokens), their inner products, or of any other
    shape where there are none; scores float32 (n_queries, m), -inf of documents without tokens.
    """
    wide, high, threads = SIDE * across, SIDE * down, across * down
    # An odd pitch lets 32 threads write words of one token to 32 banks.
    query_pitch, token_pitch = wide + 1, high + 1
    stage, finish = _staging(staged, threads), _finishing(near)

    @cuda.jit
    def maxsim(words, scales, offsets, starts, documents, prepared, parameters, centroids, scores):
        query = cuda.shared.array((staged, query_pitch), int32)
        tokens = cuda.shared.array((staged, token_pitch), int32)
        maxima = cuda.shared.array((down, wide), float32)
        products = cuda.local.array((SIDE, SIDE), int32)
        best = cuda.local.array(SIDE, float32)
        thread, i = cuda.threadIdx.x, cuda.blockIdx.y
        x, y = thread % across, thread // across
        document = documents[i % documents.shape[0], cuda.blockIdx.x]
        begin = starts[document] if document >= 0 else int64(0)
        end = starts[document + 1] if document >= 0 else int64(0)
        width, n_query, sum_ = words.shape[1], prepared.shape[1], float32(0.0)
        for q in range(0, n_query, wide):
            for a in range(SIDE):
                best[a] = LEAST
            for t in range(begin, end, high):
                for a in range(SIDE):
                    for b in range(SIDE):
                        products[a, b] = 0
                for start in range(0, width, staged):
                    cuda.syncthreads()
                    if width > staged or t == begin:
                        stage(prepared[i], q, n_query, start, wide, thread, query)
                    stage(words, t, end, start, high, thread, tokens)
                    cuda.syncthreads()
                    for w in range(min(staged, width - start)):
                        for b in range(SIDE):
                            word = tokens[w, y + down * b]
                            for a in range(SIDE):
                                products[a, b] = add_quads(query[w, x + across * a], word, products[a, b])
                for a in range(SIDE):
                    own = min(q + x + across * a, n_query - 1)
                    for b in range(SIDE):
                        token = t + y + down * b
                        if token < end:
                            s = add(multiply(float32(products[a, b]), parameters[i, 0, own]), parameters[i, 1, own])
                            s = finish(multiply(scales[token], s), token, i, own, offsets, parameters, centroids)
                            best[a] = max(best[a], s)
            for a in range(SIDE):
                maxima[y, x + across * a] = best[a]
            cuda.syncthreads()
            for own in range(thread, wide, threads):
                for other in range(1, down):
                    maxima[0, own] = max(maxima[0, own], maxima[other, own])
            cuda.syncthreads()
            for own in range(min(wide, n_query - q)):
                sum_ += maxima[0, own]
            cuda.syncthreads()
        if thread == 0:
            scores[i, cuda.blockIdx.x] = sum_ if begin < end else LEAST

    return maxsim
