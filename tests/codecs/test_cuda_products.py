"""Products of a library of arrays: what is selected from tiles, how far it may be off, and which library is taken."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_as_cupy import Nowhere, Numpy, cupy_of_numpy, held

from gingham import deadline
from gingham.codecs import cuda_libraries, cuda_products
from gingham.codecs.cuda_products import EPS, DeviceProducts, find_products
from gingham.errors import Cancelled, NoDevice, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gingham.codecs.cuda_libraries import Library

torch_is_there = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not torch_is_there, reason="PyTorch is not installed; NumPy stands in for CuPy")
LIBRARIES = [
    pytest.param(lambda: Numpy(), id="numpy"),
    pytest.param(lambda: Numpy(mixes=True), id="numpy, mixed"),
    pytest.param(lambda: cuda_libraries.Torch("cpu"), id="torch", marks=needs_torch),
]


def check_best(library: Library, seed: int, n: int, k: int, tile: int, narrow: bool, far: bool, masked: bool) -> None:
    """Rows and scores are those of float64, but for what they may be off."""
    rng = np.random.default_rng(seed)
    queries, rows = rng.standard_normal((3, 7), np.float32), rng.standard_normal((n, 7), np.float32)
    queries *= np.float32(10.0) ** rng.integers(-6, 7, (3, 1)).astype(np.float32)
    rows = rows.astype(np.float16) if narrow else rows
    halves = (0.5 * np.square(rows.astype(np.float64)).sum(axis=1)).astype(np.float32) if far else None
    mask = rng.random(n) < 0.6 if masked else None
    k = min(k, n)
    products = DeviceProducts(library, Nowhere(), score_bytes=3 * tile * library.score_bytes, least=1)
    found = products.best(queries, held(rows, halves, library), mask, k)
    assert found is not None
    expected = queries.astype(np.float64) @ rows.T.astype(np.float64)
    expected -= 0 if halves is None else halves
    expected[:, np.zeros(n, bool) if mask is None else ~mask] = -np.inf
    lengths, longest = np.linalg.norm(queries, axis=1), np.linalg.norm(rows.astype(np.float64), axis=1).max()
    allowed = (EPS * 11 + found.lost / lengths) * (lengths * longest + longest**2)
    assert (found.lost <= 4 * EPS * 11 * lengths.max()).all()
    for i in range(len(queries)):
        there = found.rows[i] >= 0
        assert there.sum() == min(k, np.isfinite(expected[i]).sum()) == len(set(found.rows[i, there]))
        assert np.isneginf(found.scores[i, ~there]).all()
        true = expected[i, found.rows[i, there]]
        assert (np.abs(found.scores[i, there] - true) <= allowed[i]).all()
        assert (true >= np.sort(expected[i])[-k] - 2 * allowed[i]).all()


@pytest.mark.parametrize("library", LIBRARIES)
@given(
    st.integers(0, 99), st.integers(1, 60), st.integers(1, 12), st.integers(1, 20), st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_best_of_tiles_are_those_of_all_rows_but_for_the_rounding_that_is_told(
    library: object, seed: int, n: int, k: int, tile: int, narrow: bool, far: bool, masked: bool
) -> None:
    check_best(library(), seed, n, k, tile, narrow, far, masked)  # type: ignore[operator]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_nearest_centroids_are_those_of_numpy_and_come_in_tiles(library: object) -> None:
    rng = np.random.default_rng(0)
    rows, centroids = rng.standard_normal((50, 6), np.float32), rng.standard_normal((9, 6), np.float32)
    rows.flags.writeable = False
    found = DeviceProducts(library(), Nowhere(), score_bytes=400, least=1).nearest(rows, centroids)  # type: ignore[operator]
    assert found is not None
    scores = rows.astype(np.float64) @ centroids.T - 0.5 * np.square(centroids, dtype=np.float64).sum(axis=1)
    assert found[0].dtype == np.int32
    np.testing.assert_array_equal(found[0], scores.argmax(axis=1))
    np.testing.assert_allclose(found[1], scores.max(axis=1), atol=1e-5)


def test_rows_of_float16_stay_so_where_products_are_added_in_float32_and_queries_are_two_of_them() -> None:
    rng = np.random.default_rng(1)
    rows, queries = held(rng.standard_normal((20, 8)).astype(np.float16)), rng.standard_normal((2, 8), np.float32)
    mixing, widening = Numpy(mixes=True), Numpy()
    exact = queries.astype(np.float64) @ rows.values.T.astype(np.float64)
    for library, multiplied in ((mixing, np.float16), (widening, np.float32)):
        found = DeviceProducts(library, Nowhere()).best(queries, rows, None, 3)
        assert found is not None
        assert {kind for kind, *_ in library.shapes} == {np.dtype(multiplied)}
        np.testing.assert_allclose(found.scores, np.take_along_axis(exact, found.rows, 1), atol=1e-5)
    # Rounded once, queries would be off by more than that.
    assert np.abs(queries.astype(np.float16) @ rows.values.T - exact).max() > 1e-4


def test_memory_that_runs_out_makes_tiles_smaller_and_they_stay_so() -> None:
    rng = np.random.default_rng(2)
    rows, queries = rng.standard_normal((64, 4), np.float32), rng.standard_normal((2, 4), np.float32)
    library = Numpy(most=2 * 9)
    products = DeviceProducts(library, Nowhere(), least=2)
    for _ in range(2):
        found = products.best(queries, held(rows), None, 5)
        assert found is not None
        np.testing.assert_array_equal(np.sort(found.rows), np.sort(np.argsort(-queries @ rows.T)[:, :5]))
    assert [n for *_, n in library.shapes] == [64, 32, 16, *[8] * 16]


def test_no_room_for_the_smallest_tile_is_an_error_that_names_it() -> None:
    products = DeviceProducts(Numpy(most=0), Nowhere(), least=2)
    with pytest.raises(ResourceExhausted, match="room for 2 scores of 3 vectors"):
        products.best(np.ones((3, 4), np.float32), held(np.ones((9, 4), np.float32)), None, 1)


def test_a_library_that_fails_is_used_no_more_and_one_that_may_use_fewer_bits_not_until_it_may_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    library, queries, rows = Numpy(), np.ones((3, 4), np.float32), held(np.ones((9, 4), np.float32))
    products = DeviceProducts(library, Nowhere())
    library.fast = True
    assert not products.usable()
    assert products.best(queries, rows, None, 1) is None
    library.fast = False
    assert products.best(queries, rows, None, 1) is not None
    library.fails = True
    assert products.best(queries, rows, None, 1) is None
    library.fails = False
    assert products.nearest(queries, queries) is None
    assert [record.message for record in caplog.records] == [
        "device='cuda:0' uses cupy no more: CUBLAS_STATUS_EXECUTION_FAILED"
    ]


class Flips(Numpy):
    """May use fewer bits once it has begun."""

    def product(self, *arrays: object) -> np.ndarray:
        self.fast = True
        return super().product(*arrays)  # type: ignore[arg-type]


def test_scores_made_while_fewer_bits_were_allowed_are_thrown_away() -> None:
    queries = np.ones((3, 4), np.float32)
    assert DeviceProducts(Flips(), Nowhere()).best(queries, held(np.ones((9, 4), np.float32)), None, 1) is None
    assert DeviceProducts(Flips(), Nowhere()).nearest(queries, queries) is None


def test_a_search_that_is_cancelled_ends_between_tiles_and_leaves_the_library_in_use() -> None:
    library = Numpy()
    products = DeviceProducts(library, Nowhere(), score_bytes=1, least=1)
    scope = deadline.CancelScope()
    scope.cancel()
    with scope, pytest.raises(Cancelled):
        products.best(np.ones((3, 4), np.float32), held(np.ones((9, 4), np.float32)), None, 1)
    assert library.shapes == []
    assert products.usable()


class Rounds(Numpy):
    """Rounds what it multiplies to the 11 bits of TF32: of float32, or only where it mixes."""

    def product(self, left: np.ndarray, right: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        if self.mixes and left.dtype == np.float32:
            return super().product(left, right, bias)
        rounded = [
            (array.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFC000)).view(np.float32)
            for array in (left, right)
        ]
        return super().product(*rounded, bias)


def copied_here(products: DeviceProducts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "copy", held)


def test_a_library_whose_products_are_off_fails_its_test_and_one_that_mixes_badly_widens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library in (Numpy(), Numpy(mixes=True)):
        products = DeviceProducts(library, Nowhere())
        copied_here(products, monkeypatch)
        products.test()
    products = DeviceProducts(Rounds(), Nowhere())
    copied_here(products, monkeypatch)
    with pytest.raises(NoDevice, match="expect cupy to find the rows that NumPy finds"):
        products.test()
    library = Rounds(mixes=True)
    products = DeviceProducts(library, Nowhere())
    copied_here(products, monkeypatch)
    products.test()
    library.shapes.clear()
    narrow = held(np.ones((9, 4), np.float16))
    assert products.best(np.ones((3, 4), np.float32), narrow, None, 1) is not None
    assert {kind for kind, *_ in library.shapes} == {np.dtype(np.float32)}
    library.fast = True
    with pytest.raises(NoDevice, match="not to allow TF32"):
        products.test()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the libraries that are asked for, on a machine where both are."""
    asked: list[str] = []

    def library(name: str) -> object:
        def make(*_: object) -> Numpy:
            asked.append(name)
            made = Numpy()
            made.name = name
            return made

        return make

    monkeypatch.setattr(cuda_products, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda_products, "Torch", library("torch"))
    monkeypatch.setattr(cuda_products, "Cupy", library("cupy"))
    monkeypatch.setattr(DeviceProducts, "test", lambda self: None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    find_products.cache_clear()
    yield asked
    find_products.cache_clear()


def test_pytorch_is_taken_if_the_process_has_it_and_else_cupy(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_products(Nowhere()) is find_products(Nowhere())
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    find_products.cache_clear()
    assert find_products(Nowhere()) is not None
    assert installed == ["cupy", "torch"]


def test_a_library_without_cuda_is_passed_over_and_one_that_fails_its_test_is_logged_once(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object) -> None:
        raise NoDevice("others were found")

    def none(place: str) -> None:
        raise NoDevice("torch expects CUDA")

    monkeypatch.setattr(DeviceProducts, "test", fail)
    monkeypatch.setattr(cuda_products, "Torch", none)
    assert [find_products(Nowhere()) for _ in range(2)] == [None, None]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "device='cuda:0' does not use cupy: others were found"
    ]
    find_products.cache_clear()
    monkeypatch.setattr(cuda_products, "find_spec", lambda name: None)
    assert find_products(Nowhere()) is None
    assert installed == ["cupy"]


@pytest.mark.parametrize(("compute_type", "precise"), [(1, True), (2, True), (4, True), (3, False), (7, False)])
def test_cupy_is_asked_what_it_multiplies_float32_as(
    compute_type: int, precise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    linalg = SimpleNamespace(get_compute_type={np.float32: compute_type}.get)
    monkeypatch.setitem(sys.modules, "cupy", cupy_of_numpy())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cupy._core._routines_linalg", linalg)  # type: ignore[arg-type]
    library = cuda_libraries.Cupy(0)
    assert (library.precise(), library.mixed()) == (precise, False)


class Settings(SimpleNamespace):
    """Of products in PyTorch: newer versions raise where a process has set ``fp32_precision``."""

    @property
    def allow_tf32(self) -> bool:
        if hasattr(self, "fp32_precision"):
            raise RuntimeError("mix of the legacy and new APIs")
        return bool(self.old)


@pytest.mark.parametrize(
    ("found", "precise", "mixed"),
    [
        (Settings(old=False), True, True),
        (Settings(old=True), False, True),
        (Settings(fp32_precision="none", allow_fp16_accumulation=True), True, False),
        (Settings(fp32_precision="ieee", allow_fp16_accumulation=False), True, True),
        (Settings(fp32_precision="tf32"), False, True),
    ],
)
def test_settings_of_pytorch_are_read_in_old_and_new_versions(
    found: Settings, precise: bool, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = SimpleNamespace(
        device=lambda place: SimpleNamespace(type="cuda"),
        cuda=SimpleNamespace(is_available=lambda: True, OutOfMemoryError=MemoryError),
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=found)),
        float16=np.float16, float32=np.float32,
        ones=lambda shape, dtype, device: np.ones(shape, dtype),
        mm=lambda a, b, out_dtype: np.matmul(a, b, dtype=out_dtype),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    library = cuda_libraries.Torch("cuda:0")
    assert (library.precise(), library.mixed()) == (precise, mixed)
    torch.mm = lambda a, b: np.matmul(a, b)  # as in versions before 2.8
    assert not cuda_libraries.Torch("cuda:0").mixed()
    torch.cuda.is_available = lambda: False
    torch.__version__ = "2.10.0+cpu"
    with pytest.raises(NoDevice, match="found its version"):
        cuda_libraries.Torch("cuda:0")
