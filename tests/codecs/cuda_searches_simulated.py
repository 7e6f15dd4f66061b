"""Run by test_cuda_searches.py in a process where numba simulates a device: kernels there against NumPy."""

import sys

import numpy as np

from gingham.codecs import (
    cuda_graph_kernels,
    cuda_hamming_kernels,
    cuda_kmeans_kernels,
    cuda_maxsim_kernels,
    cuda_searches,
)
from gingham.codecs.lvq import LVQ
from gingham.codecs.maxsim import QueryTokens, score_i8
from gingham.codecs.row_scores import F32, RowScores
from gingham.index.graph import Graph

# Blocks of few threads, rows and words, so that the simulator makes several of each.
cuda_searches.KEYS, cuda_searches.TILE = 16, 2
cuda_searches.COMPARERS, cuda_searches.THREADS, cuda_searches.SORTERS = 2, 2, 2
cuda_searches.ROWS, cuda_searches.STAGED, cuda_searches.STAGED_SMALL, cuda_searches.BLOCKS = 2, 1, 1, 2
cuda_searches.SPLIT, cuda_searches.DIMENSIONS = (2, 1), 3
cuda_searches.TOKENS, cuda_searches.TOKEN_WORDS = (2, 1), 2
cuda_searches.WALKERS = 2
cuda_searches.LEAST_ROOM, cuda_searches.LEAST_FOUND, cuda_searches.LEAST_TABLE, cuda_searches.LEAST_WORDS = 1, 4, 1, 1
cuda_hamming_kernels.STAGED = 1
cuda_kmeans_kernels.SIDE = 2
cuda_maxsim_kernels.SIDE = 2
cuda_graph_kernels.TEAM = 2


def best(scores: np.ndarray, allow: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k greatest scores that are allowed and their places, ties by ascending place."""
    scores = scores if allow is None else np.where(allow, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, 1)
    return found, np.where(np.isneginf(found), -1, order)


def check_signs() -> None:
    rng = np.random.default_rng(0)
    codes, queries = rng.integers(0, 1 << 63, (17, 2), np.uint64), rng.integers(0, 1 << 63, (3, 2), np.uint64)
    apart = np.unpackbits((codes ^ queries[:, None]).view(np.uint8), axis=2).sum(axis=2, dtype=np.int64)
    order = np.argsort(-apart[0], kind="stable")  # ever better rows: all offers pass the bar
    codes, apart = np.ascontiguousarray(codes[order]), apart[:, order]
    columns = cuda_searches.sign_columns(codes)
    for allow, few in ((None, 3), (np.arange(17) % 9 == 1, 2)):
        near, rows = cuda_searches.nearest_signs(columns, queries[:few], 3, allow=allow)
        scores, expected = best(-apart[:few].astype(np.float64), allow, 3)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(near, np.where(expected < 0, -1, -np.maximum(scores, -1000)))


def check_tables() -> None:
    rng = np.random.default_rng(1)
    codes, tables = rng.integers(0, 256, (19, 6), np.uint8), rng.standard_normal((2, 6, 256)).astype(np.float32)
    head, bias = rng.standard_normal(19).astype(np.float32), rng.standard_normal(2).astype(np.float32)
    scores = np.zeros((2, 19), np.float32)
    for j in range(6):
        scores += tables[:, j][:, codes[:, j]]
    order = np.argsort(scores[0], kind="stable")
    codes, scores, head = np.ascontiguousarray(codes[order]), scores[:, order], head[order]
    scales = np.stack([np.ones(2, np.float32), bias], axis=1)
    allow = rng.random(19) < 0.5
    for mask in (None, allow):
        found = cuda_searches.best_by_tables(cuda_searches.code_columns(codes), 19, tables, scales, 3, allow=mask)
        for a, b in zip(found, best(scores + bias[:, None], mask, 3), strict=True):
            np.testing.assert_array_equal(a, b)
    wide = cuda_searches.code_columns(np.concatenate([head[:, None].view(np.uint8), codes], axis=1))
    found = cuda_searches.best_by_tables(wide, 19, tables, scales, 3, header=1)
    for a, b in zip(found, best((scores + head) + bias[:, None], None, 3), strict=True):
        np.testing.assert_array_equal(a, b)
    rounded, scaling = cuda_searches.small_tables(tables)
    sums = sum(rounded[:, j][:, codes[:, j]].astype(np.int64) for j in range(6))
    exact = sums.astype(np.float32) * scaling[:, :1] + scaling[:, 1:]
    assert np.abs(exact - scores).max() <= 3.01 * scaling[:, 0].max()
    found = cuda_searches.best_by_tables(cuda_searches.code_columns(codes), 19, rounded, scaling, 3)
    for a, b in zip(found, best(exact, None, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def check_maxsim() -> None:
    rng = np.random.default_rng(2)
    starts = np.array([0, 3, 3, 8, 9])
    codes = rng.integers(0, 256, (9, 12), np.uint8)
    scales, offsets = rng.random(9, np.float32), rng.standard_normal(9, np.float32)
    queries = [QueryTokens(rng.standard_normal((5, 12), np.float32)) for _ in range(2)]
    integers = np.stack([query.integers[:6] for query in queries])
    parameters = np.stack([query.parameters[:, :6] for query in queries])
    for documents in (np.array([[2, 0, -1, 1]]), np.array([[3, 1], [0, 2]])):
        scores = cuda_searches.maxsim_scores(codes, scales, offsets, starts, documents, integers, parameters)
        for query, line, own in zip(queries, np.tile(documents, (2 // len(documents), 1)), scores, strict=True):
            expected = np.where(line < 0, -np.inf, score_i8(query, codes, scales, offsets, starts, np.maximum(line, 0)))
            np.testing.assert_allclose(own, expected, rtol=1e-5)


def check_centroids() -> None:
    rng = np.random.default_rng(3)
    for dim, n, k in ((4, 7, 9), (3, 4, 1)):
        # Products of small integers are exact, whatever is fused; two centroids are the same.
        vectors = rng.integers(-9, 9, (n, dim)).astype(np.float32)
        centroids = rng.integers(-9, 9, (k, dim)).astype(np.float32)
        centroids[-1] = vectors[0] = centroids[k // 3]
        gains = vectors @ centroids.T - np.square(centroids).sum(axis=1) / 2
        nearest, value = cuda_searches.nearest_centroids(vectors, centroids)
        np.testing.assert_array_equal(nearest, gains.argmax(axis=1))
        np.testing.assert_array_equal(value, gains.max(axis=1))


def check_graph() -> None:
    """A beam over the whole graph finds what the CPU finds, a narrow one what the same walk in Python finds."""
    rng = np.random.default_rng(4)
    n, degree, dim = 16, 4, 16
    vectors, queries = rng.standard_normal((n, dim), np.float32), rng.standard_normal((2, dim), np.float32)
    links = np.argsort(((vectors[:, None] - vectors) ** 2).sum(axis=2), axis=1)[:, 1 : degree + 1].astype(np.uint32)
    links[:, 0] = (np.arange(n) + 1) % n
    links[3, 3], links[5, 2:] = n, 0xFFFFFFFF
    codec = LVQ(dim, "dot").train(vectors)
    codes, prepared = codec.encode(vectors), codec.prepare(queries)
    exact, far = np.empty((2, n), np.float32), -((queries[:, None] - vectors) ** 2).sum(axis=2)
    codec.score(prepared, codes, np.tile(np.arange(n), (2, 1)), exact)
    packed = codec.row_scores(prepared, codes)
    bytes_, none = queries.view(np.int8), np.zeros((2, 1), np.float32)
    floats = RowScores(F32, vectors.ctypes.data, 4 * dim, 2, dim, 32, bytes_, none)
    entries = np.array([[0, 7, 0, n, -1]], np.int32)
    rows = np.ascontiguousarray(codes.arrays["coarse"])
    there = Graph(links, np.array([0, 7], np.uint32), np.array([[1], [0]], np.uint32), np.array([0, 2]))
    for coded, words, scores in ((packed, rows, exact), (floats, vectors.view(np.uint8), far)):
        shared = []
        for ef in (n, 3):
            found, nodes, visits = cuda_searches.graph_best(links, words, coded, entries, ef)
            there_scores, there_nodes = there.search(coded, ef)
            if ef == n:
                np.testing.assert_array_equal(nodes, there_nodes)
                np.testing.assert_allclose(found, there_scores, rtol=0 if coded is packed else 1e-5)
            np.testing.assert_array_equal(nodes, [walk(links, line, [0, 7], ef) for line in scores])
            shared.append([np.isin(got, best(scores, None, ef)[1]).mean() for got in (nodes, there_nodes)])
            assert (visits[:, 0] >= ef).all()
            assert (visits[:, 1] >= n).all() if ef == n else (visits[:, 1] <= 4 * n).all()
        assert all(ours >= theirs - 0.05 for ours, theirs in shared)


def walk(links: np.ndarray, scores: np.ndarray, entries: list[int], ef: int) -> list[int]:
    """Best first: look at the best node not looked at until the beam has no such."""
    seen, looked, beam = set(entries), set(), sorted(entries, key=lambda v: (-scores[v], v))
    while fresh := [v for v in beam if v not in looked]:
        looked.add(fresh[0])
        new = {int(v) for v in links[fresh[0]] if v < len(links)} - seen
        seen |= new
        beam = sorted({*beam, *new}, key=lambda v: (-scores[v], v))[:ef]
    return beam


if __name__ == "__main__":
    for check in (check_signs, check_tables, check_maxsim, check_centroids, check_graph):
        if not sys.argv[1:] or check.__name__ in sys.argv[1:]:
            check()
