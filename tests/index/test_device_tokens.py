"""Which documents a device leaves to the CPU, with NumPy in place of the device."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham.codecs import cuda_searches, devices
from gingham.codecs.maxsim import QueryTokens, level_parameters
from gingham.index import device_tokens
from gingham.index.device_copies import Bars, DeviceCopies

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
DIM = 32


class Memory(np.ndarray):  # type: ignore[type-arg]
    """As memory of a device."""

    def copy_to_device(self, array: Array) -> None:
        self[...] = array


class Device(devices.Device):
    """One whose memory is that of NumPy."""

    def __init__(self) -> None:
        super().__init__(0, "numpy", (9, 0), 1)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        yield

    def free_bytes(self) -> int:
        return 1 << 40


def maxsim_near(
    words: Array, scales: Array, ids: Array, starts: Array, documents: Array, integers: Array, parameters: Array,
    centroids: Array,
) -> Array:  # fmt: skip
    """The scores, with sums in float32 from the first query token to the last."""
    levels, out = np.asarray(words).view(np.uint8).astype(np.int64), np.empty((len(integers), documents.shape[1]))
    for i, (query, (factors, rests)) in enumerate(zip(integers.astype(np.int64), parameters, strict=True)):
        products = (levels @ query.T).astype(np.float32) * factors + rests
        tokens = products * scales[:, None] + centroids[i][ids]
        for j, document in enumerate(documents[i % len(documents)]):
            own = tokens[starts[document] : starts[document + 1]]
            out[i, j] = np.cumsum(own.max(axis=0))[-1] if document >= 0 and len(own) else -np.inf
    return out.astype(np.float32)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cuda_searches, "maxsim_near", maxsim_near)
    monkeypatch.setattr(cuda_searches, "room_for", lambda n, words: np.empty((n, words), np.int32).view(Memory))
    monkeypatch.setattr(cuda_searches, "on_device", np.array)
    monkeypatch.setattr(device_tokens, "UPLOAD_TOKENS", 100)
    return []


def index_of(codec: Any, *, dim: int = DIM, device: str = "cpu") -> gg.index.LateInteraction:
    rng = np.random.default_rng(1)
    index = gg.index.LateInteraction(dim, codec=codec, metric="dot")
    index.add([rng.standard_normal((n, dim), np.float32) for n in rng.integers(1, 9, 150)])
    index._device = device
    return index


def resident(told: list[str], *, products: int = 1, **options: Any) -> Any:
    copies = DeviceCopies("cuda", device=Device(), bars=Bars(products=products, byte_products=0), **options)
    return copies.of("tokens").telling(told)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("codec", ["Residual8", "Residual4", "Residual2", "RaBitQ1", "PQ16"])
def test_a_device_leaves_few_documents_to_the_cpu_and_results_are_the_same(
    codec: str, exact: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = index_of(codec), index_of(codec, device="cuda")
    there._there = there._state.codes, resident(told)
    rng = np.random.default_rng(2)
    queries = [rng.standard_normal((n, DIM), np.float32) for n in (3, 17, 1)]
    allow, scored = rng.random(150) < 0.9, []
    kind = type(there._state.search)
    real = kind._scored
    monkeypatch.setattr(
        kind, "_scored", lambda own, listed, score: scored.append(len(listed)) or real(own, listed, score)
    )
    found = there.search(queries, 2, exact=exact, allow=allow, candidates=100)
    few = [count for count in scored if count < 100]
    expected = here.search(queries, 2, exact=exact, allow=allow, candidates=100)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert told == ["cuda:0"]
    assert few == [36, 36, 36]


@pytest.mark.parametrize("codec", ["Residual4", "RaBitQ1", "PQ16"])
def test_scores_there_and_here_are_nearer_than_the_bound(codec: str, told: list[str]) -> None:
    state = index_of(codec)._state
    search, rng = state.search, np.random.default_rng(3)
    assert state.residuals is not None
    assert state.ids is not None
    assert state.codes is not None
    for size in (0.01, 1.0, 300.0):
        query = search.residuals.turned(QueryTokens((size * rng.standard_normal((20, DIM))).astype(np.float32)))
        centroid_scores, listed = query.centroid_scores(search.residuals.centroids), np.arange(150)
        asked = device_tokens.Asked(query, centroid_scores, listed)
        tokens = device_tokens.TokensThere.of(state.residuals, state.codes, state.ids, state.starts, Device())
        own = level_parameters(query, state.residuals.levels)
        there = tokens.scores([asked], [own], listed[None])[0]
        here = search._precise(query, centroid_scores, listed)
        error = device_tokens._error(asked, own, tokens.largest)
        assert np.abs(there - here).max() <= error
        assert error < 1e-3 * np.abs(here).max()


def test_a_search_whose_best_lie_too_close_together_is_scored_by_the_cpu(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = index_of("Residual4"), index_of("Residual4", device="cuda")
    there._there = there._state.codes, resident(told)
    monkeypatch.setattr(device_tokens, "_error", lambda *_: 1e6)
    query = np.random.default_rng(4).standard_normal((3, DIM), np.float32)
    for a, b in zip(here.search(query, 5, exact=True), there.search(query, 5, exact=True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert told == ["cuda:0"]


def test_little_to_score_stays_on_the_cpu(told: list[str]) -> None:
    index = index_of("Residual4", device="cuda")
    tokens = int(index._state.starts[-1])
    query = np.random.default_rng(5).standard_normal((3, DIM), np.float32)
    for products, expected in ((16 * DIM * tokens + 1, []), (16 * DIM * tokens, ["cuda:0"])):
        index._there = index._state.codes, resident(told, products=products)
        index.search(query, 1, exact=True)
        assert told == expected
    copies = DeviceCopies("cuda", device=Device(), bars=Bars(products=1, byte_products=10))
    assert copies.takes_products(1000, 100)
    assert not copies.takes_products(999, 100)
    many = DeviceCopies("auto", device=Device(), bars=Bars(products=1000, byte_products=0))
    assert many.takes_products(4000, 1)
    assert not many.takes_products(3999, 1)


def test_documents_that_come_are_copied_anew_and_those_that_go_are_not(told: list[str]) -> None:
    index = index_of("Residual4", device="cuda")
    index._device, copied = "auto", []
    index._there = index._state.codes, resident(told)
    copied.append(index._resident(index._state))
    index.delete([3])
    assert index._resident(index._state) is copied[0]
    index.add([np.ones((2, DIM), np.float32)])
    assert index._resident(index._state) is not copied[0]
