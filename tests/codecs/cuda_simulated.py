"""Run by test_cuda.py in a process where numba simulates a device: kernels there against codecs on the CPU."""

import contextlib
import sys

import numpy as np

import gingham as gg
from gingham.codecs import cuda_kernels, cuda_rows
from gingham.codecs.spec import parse_codec
from gingham.index import files, flat

# Blocks of few threads and rows, so that the simulator makes several of them.
cuda_kernels.THREADS, cuda_kernels.ROWS, cuda_kernels.STAGED = 2, 4, 32
cuda_rows.TOGETHER = (1, 2)
cuda_rows.CAPACITY, cuda_rows.SORTERS = 16, 2
N, DIM, K = 35, 21, 5


class Simulated:
    """As :class:`gingham.codecs.devices.Device`."""

    number = 0

    def active(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def free_bytes(self) -> int:
        return 1 << 40


def check_codec(spec: str, metric: str, n_queries: int) -> None:
    """The best rows and their scores, above a floor and among those allowed, of rows that get ever better."""
    rng = np.random.default_rng(len(spec) + n_queries)
    rows, queries = rng.standard_normal((N, DIM), np.float32), rng.standard_normal((n_queries, DIM), np.float32)
    rows = rows[np.argsort(rows @ queries[0] if metric == "dot" else -np.linalg.norm(rows - queries[0], axis=1))]
    codec = parse_codec(spec, DIM, metric).train(rows)
    codes, prepared = codec.encode(rows), codec.prepare(queries)
    scores, listed = np.empty((n_queries, N), np.float32), np.tile(np.arange(N), (n_queries, 1))
    codec.score(prepared, codes, listed, scores)
    coded = codec.row_scores(prepared, codes)
    copy = cuda_rows.CudaRows(coded, N, Simulated(), capacity=16, sorters=2)
    allow = rng.random(N) < 0.7
    floors = np.sort(scores, axis=1)[:, N // 2]
    for mask, floor in ((None, np.full(n_queries, -np.inf, np.float32)), (allow, floors)):
        may = (scores > floor[:, None]) & (True if mask is None else mask)
        expected = np.lexsort((listed, np.where(may, -scores, np.inf)))[:, :K]
        there = np.take_along_axis(may, expected, 1)
        got, found = copy.scan(coded, floor, K, mask)
        np.testing.assert_array_equal(found, np.where(there, expected, -1), err_msg=f"{spec} {metric}")
        exact = np.where(there, np.take_along_axis(scores, expected, 1), floor[:, None])
        np.testing.assert_allclose(got, exact, rtol=0 if copy.exact else 1e-5, atol=0 if copy.exact else 1e-5)


def check_index() -> None:
    """An index finds the same bits with a device, after more rows and from a file, too."""
    flat.find_device = lambda name: None if name == "cpu" else Simulated()
    rng = np.random.default_rng(0)
    rows, queries = rng.standard_normal((20, 16), np.float32), rng.standard_normal((2, 16), np.float32)
    for codec in ("LVQ8", "F32"):
        here = gg.index.Flat(16, codec=codec, metric="l2")
        there = gg.index.Flat(16, codec=codec, metric="l2", device="cuda")
        for part in (rows[:15], rows[15:]):
            here.add(part)
            there.add(part)
            expected = here.search(queries, 3, oversample=2)
            for index in (there, saved(there)):
                for a, b in zip(expected, index.search(queries, 3, oversample=2), strict=True):
                    np.testing.assert_array_equal(a, b)


def saved(index: flat.Flat) -> flat.Flat:
    """From a file."""
    index.save(sys.argv[1])
    return files.load(sys.argv[1], device="cuda")


if __name__ == "__main__":
    for number, spec in enumerate(("LVQ8", "LVQ4", "RaBitQ7", "F32", "F16", "BF16")):
        for metric in ("dot", "l2") if spec in ("LVQ8", "F32") else ("dot",):
            check_codec(spec, metric, 1 + number % 3)
    check_index()
