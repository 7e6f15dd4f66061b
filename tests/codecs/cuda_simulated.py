"""Run by test_cuda.py in a process where numba simulates a device: kernels there against codecs on the CPU."""

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
from numpy_as_cupy import Numpy

import gingham as gg
from gingham.codecs import cuda_kernels, cuda_products, cuda_rows, cuda_searches, cuda_staging, devices, kmeans
from gingham.codecs.spec import parse_codec
from gingham.errors import NoDevice, ResourceExhausted
from gingham.index import device_copies, exact, files, flat
from gingham.index.device_copies import Bars, DeviceCopies
from gingham.index.two_stage import search_codes
from gingham.index.warmup import warmup
from gingham.storage import codes as stored_codes
from gingham.storage import writes

# Blocks of few threads and rows, so that the simulator makes several of them.
cuda_kernels.THREADS, cuda_kernels.ROWS, cuda_kernels.STAGED = 2, 4, 32
cuda_rows.TOGETHER = (1, 2)
cuda_rows.CAPACITY, cuda_rows.SORTERS = 16, 2
cuda_staging.BUFFER_BYTES, cuda_staging.THREADS = 256, 2
cuda_searches.SPLIT, cuda_searches.DIMENSIONS = (1, 1), 8
kmeans.DEVICE_PRODUCTS = 1
N, DIM, K = 35, 21, 5


class Simulated(devices.Device):
    """A device with some memory, of which others take what is left before its ``crowded``-th use."""

    memory, crowded, uses = 1 << 40, -1, 0

    def __init__(self) -> None:
        super().__init__(0, "simulated", (9, 0), 1)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        Simulated.uses += 1
        if Simulated.uses == Simulated.crowded:
            raise ResourceExhausted("CUDA_ERROR_OUT_OF_MEMORY")
        yield

    def free_bytes(self) -> int:
        return Simulated.memory


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
    rows, queries = rng.standard_normal((12, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    for codec in ("LVQ8", "F32"):
        here = gg.index.Flat(8, codec=codec, metric="l2")
        there = gg.index.Flat(8, codec=codec, metric="l2", device="cuda")
        for part in (rows[:8], rows[8:]):
            here.add(part)
            there.add(part)
            expected = here.search(queries, 3, oversample=2)
            for index in (there, saved(there)):
                for a, b in zip(expected, index.search(queries, 3, oversample=2), strict=True):
                    np.testing.assert_array_equal(a, b)


def copies_of(asked: str = "cuda", budget: int | None = None) -> DeviceCopies:
    """For batches of any size."""
    return DeviceCopies(
        asked, budget=budget, bars=Bars(1, 1), device=Simulated(), least=4, capacity=256, sorters=2
    )  # fmt: skip


def check_staging() -> None:
    """Rows and columns arrive as they are, through buffers that take several turns, pinned or not."""
    rng = np.random.default_rng(5)
    for n, width in ((1, 3), (9, 16), (50, 7), (3, 200)):
        rows = rng.integers(-(1 << 31), 1 << 31, (n, width), np.int64).astype(np.int32)
        for pinned in (True, False):
            staging, read = cuda_staging.Staging(n, width, np.int32, pinned=pinned), []

            def write(first: int, last: int, out: np.ndarray, rows: np.ndarray = rows, read: list = read) -> None:
                read.append(last - first)
                out[:] = rows[first:last]

            there, columns = (cuda_kernels.cuda.to_device(np.zeros(of, np.int32)) for of in (rows.shape, rows.T.shape))
            staging.send_rows(n, write, there)
            staging.send_columns(n, write, columns)
            np.testing.assert_array_equal(there.copy_to_host(), rows)
            np.testing.assert_array_equal(columns.copy_to_host(), rows.T)
            assert max(read) <= max(1, 64 // width)


def check_tiles() -> None:
    """The next tile is copied while one is scanned where two fit, else after it; what is found is the same."""
    rng = np.random.default_rng(6)
    rows, queries = rng.standard_normal((14, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    codec = parse_codec("LVQ8", 8, "dot").train(rows)
    codes, allow = codec.encode(rows), rng.random(14) < 0.7
    coded, floors = codec.row_scores(codec.prepare(queries), codes), np.full(2, -1e9, np.float32)
    expected = cuda_rows.CudaRows(coded, 14, Simulated(), capacity=16, sorters=2).scan(coded, floors, 3, allow)
    steps: list[str] = []
    kept = {name: getattr(cuda_rows.CudaRows, name) for name in ("fill", "begin", "finish")}
    for name, method in kept.items():

        def noted(*given: object, name: str = name, method: object = method) -> object:
            steps.append(name)
            return method(*given)  # type: ignore[operator]

        setattr(cuda_rows.CudaRows, name, noted)
    four = cuda_rows.device_bytes(coded, 4)
    one, two = ["begin", "finish", "fill"], ["begin", "fill", "finish"]
    for budget, order in ((2 * four, two), (2 * four - 1, one)):
        tiles = cuda_rows.DeviceTiles(coded, 14, Simulated(), capacity=16, sorters=2, budget=budget, least=4)
        assert (tiles.nbytes, steps) == (0, [])
        for a, b in zip(expected, tiles.scan(coded, floors, 3, allow), strict=True):
            np.testing.assert_array_equal(a, b)
        assert steps == ["fill", *3 * order, "begin", "finish"], steps
        steps.clear()
    for name, method in kept.items():
        setattr(cuda_rows.CudaRows, name, method)


def use(library: Numpy) -> None:
    """Have products of a library found."""
    products = cuda_products.DeviceProducts(library, Simulated(), score_bytes=3 * 40 * 32, least=8)
    cuda_products.find_products = lambda device: products


def check_products() -> None:
    """Exact searches by a library's products have the bits of the CPU, which is asked again only where scores tie."""
    rng, cpu, none = np.random.default_rng(7), exact.search_exact, cuda_products.find_products
    rows, queries = rng.standard_normal((150, 6), np.float32), rng.standard_normal((3, 6), np.float32)
    again: list[int] = []

    def counted(*given: object, **options: object) -> object:
        again.append(1)
        return cpu(*given, **options)  # type: ignore[arg-type]

    device_copies.search_exact = counted
    for number, (metric, kind, library, ties) in enumerate((
        ("dot", np.float32, Numpy(), False), ("l2", np.float32, Numpy(most=3 * 20), False),
        ("cosine", np.float32, Numpy(), False), ("l2", np.float16, Numpy(mixes=True), False),
        ("dot", np.float16, Numpy(mixes=True), True), ("l2", np.float16, Numpy(), True),
    )):  # fmt: skip
        vectors = rows.copy()
        if ties:
            vectors[:100] = (3 if metric == "dot" else 1) * queries[0]
        if metric == "cosine":
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[3] = np.nan
        vectors = vectors.astype(kind)
        allow, norms = rng.random(150) < 0.8 if number % 2 else None, exact.row_norms(vectors, metric)
        expected = cpu(queries, vectors, norms, 3, metric=metric, allow=allow)
        use(library)
        again.clear()
        copies = copies_of()
        found = copies.of("rows").search_exact(queries, vectors, norms, 3, metric=metric, allow=allow)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{metric} {kind}")
        assert library.shapes
        assert copies.nbytes == vectors.nbytes + (norms.nbytes if metric == "l2" else 0)
        assert bool(again) is ties, metric
    device_copies.search_exact = cpu
    for library, budget in ((Numpy(most=0), None), (Numpy(), 200)):
        use(library)
        few, norms = rows[:9], exact.row_norms(rows[:9], "dot")
        found = copies_of(budget=budget).of("rows").search_exact(queries, few, norms, 2, metric="dot")
        for a, b in zip(cpu(queries, few, norms, 2, metric="dot"), found, strict=True):
            np.testing.assert_array_equal(a, b)
        assert bool(library.shapes) is (budget is None)
    told = cuda_products.Candidates(np.zeros((3, 76)), np.tile(np.arange(76), (3, 1)), np.full(3, 99.0))
    cuda_products.DeviceProducts.best = lambda *given: told  # type: ignore[method-assign]
    norms = exact.row_norms(rows, "dot")
    found = copies_of().of("rows").search_exact(queries, rows, norms, 3, metric="dot")
    np.testing.assert_array_equal(cpu(queries, rows, norms, 3, metric="dot")[1], found[1])
    use(library)
    here, there = (
        kmeans.train_kmeans(rows, 3, seed=0, iterations=2, attempt=attempt) for attempt in (None, copies_of().attempt)
    )
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert library.shapes
    cuda_products.find_products = none


def check_floats() -> None:
    """Exact searches, in one piece and in tiles, of a row without a vector and of a filter."""
    rng = np.random.default_rng(1)
    rows, queries = rng.standard_normal((12, 5), np.float32), rng.standard_normal((2, 5), np.float32)
    for metric, budget, crowded, tiled in (
        ("dot", None, -1, False), ("l2", 128, -1, True), ("cosine", 240, 2, True), ("dot", None, 2, True),
    ):  # fmt: skip
        vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows.copy()
        vectors[3] = np.nan
        norms, allow = exact.row_norms(vectors, metric), rng.random(len(rows)) < 0.8
        copies, Simulated.uses, Simulated.crowded = copies_of(budget=budget), 0, crowded
        found = copies.of("rows").search_exact(queries, vectors, norms, 3, metric=metric, allow=allow, base=7)
        expected = exact.search_exact(queries, vectors, norms, 3, metric=metric, allow=allow, base=7)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=metric)
        assert (copies.nbytes == 0) is tiled, (metric, copies.nbytes)
    Simulated.crowded = -1


def check_codes() -> None:
    """Codes in one piece, and again from the copy that was kept; then others, which take its room."""
    rng = np.random.default_rng(2)
    rows, queries = rng.standard_normal((10, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    codec = parse_codec("LVQ8", 8, "l2").train(rows)
    copies, codes = copies_of(budget=600), codec.encode(rows)
    expected, held = search_codes(codec, codes, queries, 3), []
    for key in "aab":
        for a, b in zip(expected, copies.of(key).search_codes(codec, codes, queries, 3), strict=True):
            np.testing.assert_array_equal(a, b)
        held.append(copies.nbytes)
    assert held[0] == held[1] == held[2] > 0


def check_limits() -> None:
    """No room for the smallest tile is an error where a device was asked for; any device is then the CPU."""
    rows, queries = np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32)[:2]
    norms = exact.row_norms(rows, "dot")
    try:
        copies_of(budget=16).of("rows").search_exact(queries, rows, norms, 1, metric="dot")
    except ResourceExhausted as error:
        assert "of its budget" in str(error), error
    else:
        raise AssertionError
    got = copies_of("auto", budget=16).of("rows").search_exact(queries, rows, norms, 1, metric="dot")
    assert got[1].tolist() == [[0], [1]]
    Simulated.memory = cuda_rows.SPARE_BYTES
    try:
        kmeans.train_kmeans(rows, 2, seed=0, attempt=copies_of().attempt)
    except ResourceExhausted as error:
        assert "expects room" in str(error), error
    else:
        raise AssertionError
    Simulated.memory = 1 << 40
    try:
        copies_of().attempt(lambda device: [][1])
    except NoDevice as error:
        assert "index out of range" in str(error), error


def check_kmeans() -> None:
    """The same centroids, of rows that stay there and of rows that do not fit."""
    rows = np.random.default_rng(3).standard_normal((20, 6), np.float32)
    here = kmeans.train_kmeans(rows, 3, seed=0, iterations=2)
    for Simulated.memory in (1 << 40, cuda_rows.SPARE_BYTES + 4 * rows.size - 4):
        there = kmeans.train_kmeans(rows, 3, seed=0, iterations=2, attempt=copies_of().attempt)
        np.testing.assert_array_equal(here, there)
    Simulated.memory = 1 << 40


def check_collection(folder: str) -> None:
    """A collection finds the same by its vectors and by its codes, and measures recall with truth of the device."""
    writes.DIRECT_ROWS = stored_codes.CODED_ROWS = 8
    rng = np.random.default_rng(4)
    rows, queries = rng.standard_normal((10, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    with gg.open(folder, device="cpu") as database:
        docs = database.create_collection("docs", vectors={"v": gg.Dense(8, "l2", index="Flat", codec="LVQ8")})
        docs.upsert(ids=list(range(10)), vectors={"v": rows})
        ways = {"exact": True}, {"exact": False, "oversample": 2}
        here = [docs.search(queries, k=3, **way) for way in ways]
        assert "codes LVQ8" in str(here[1][0].explain())
    with gg.open(folder) as database:
        docs, copies = database["docs"], copies_of()
        database._store._copies = copies
        there, held = [], [copies.nbytes]
        for way in ways:
            there.append(docs.search(queries, k=3, **way))
            held.append(copies.nbytes)
        for one, other in zip(here, there, strict=True):
            for a, b in zip(one, other, strict=True):
                assert (a.ids, a.scores.tolist()) == (b.ids, b.scores.tolist())
        assert held[0] < held[1] < held[2], held
        docs.delete(ids=[int(there[0][0].ids[0])])
        assert there[0][0].ids[1] == docs.search(queries, k=1, exact=True)[0].ids[0]
        assert docs.recall(k=2, queries=queries).recall == 1
        assert copies.nbytes == held[2]


def saved(index: flat.Flat) -> flat.Flat:
    """From a file."""
    index.save(sys.argv[1])
    return files.load(sys.argv[1], device="cuda")


if __name__ == "__main__":
    for number, spec in enumerate(("LVQ8", "LVQ4", "RaBitQ7", "F32", "F16", "BF16")):
        for metric in ("dot", "l2") if spec in ("LVQ8", "F32") else ("dot",):
            check_codec(spec, metric, 1 + number % 3)
    check_index()
    warmup()  # cold kernels leave exact searches to NumPy
    for check in (check_staging, check_tiles, check_products, check_floats, check_codes, check_limits, check_kmeans):
        check()
    check_collection(sys.argv[1] + ".database")
