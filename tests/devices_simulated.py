"""Run by test_devices.py in a process where numba simulates a device: what indexes and collections find there."""

import contextlib
import sys
from collections.abc import Iterator

import numpy as np

import gingham as gg
from gingham.codecs import cuda_graph_kernels, cuda_maxsim_kernels, cuda_searches, devices
from gingham.codecs.spec import parse_codec
from gingham.errors import ResourceExhausted
from gingham.index import device_graphs, flat, graph_build, graph_search, token_search
from gingham.index.device_copies import Bars, DeviceCopies
from gingham.index.two_stage import search_codes
from gingham.index.warmup import warmup
from gingham.storage import codes as stored_codes
from gingham.storage import writes

# Blocks of one thread, which the simulator runs sooner; those of several stand in cuda_searches_simulated.py.
cuda_searches.KEYS, cuda_searches.TILE, cuda_searches.BLOCKS = 512, 2, 2
cuda_searches.COMPARERS, cuda_searches.THREADS, cuda_searches.SORTERS, cuda_searches.COPIERS = 1, 1, 1, 1
cuda_searches.ROWS, cuda_searches.STAGED = 4, 2
cuda_searches.WALKERS, cuda_graph_kernels.TEAM = 1, 1
cuda_searches.LEAST_ROOM, cuda_searches.LEAST_FOUND, cuda_searches.LEAST_TABLE, cuda_searches.LEAST_WORDS = 1, 4, 1, 1
cuda_searches.TOKENS, cuda_searches.TOKEN_WORDS, cuda_maxsim_kernels.SIDE = (1, 1), 2, 4
graph_build.TOP_NODES = device_graphs.ENTRIES = 4


NAMED = {"signs": ("Flat", "Binary"), "products": ("Flat", "PQ2x8"), "graph": ("HNSW2", "LVQ8")}
"""Collections, their indexes and codecs."""


class Simulated(devices.Device):
    """A device with some memory."""

    def __init__(self, memory: int = 1 << 40) -> None:
        super().__init__(0, "simulated", (9, 0), 1)
        object.__setattr__(self, "memory", memory)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        yield

    def free_bytes(self) -> int:
        return self.memory


def copies_of(asked: str = "cuda", budget: int | None = None) -> DeviceCopies:
    """For batches of any size."""
    return DeviceCopies(asked, budget=budget, bars=Bars(1, 1, 1, 1, 0), device=Simulated())


def same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], what: str) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=what)


def check_columns() -> None:
    """Product and sign codes give the bits and rows of the CPU, with a filter and where all rows have one score."""
    rng = np.random.default_rng(5)
    rows, queries = rng.standard_normal((11, 12), np.float32), rng.standard_normal((2, 12), np.float32)
    allow = rng.random(11) < 0.7
    for spec, metric, mask in (("OPQ,PQ3x8", "dot", allow), ("RQ2x8", "l2", None), ("Binary", "dot", None)):
        codec = parse_codec(spec, 12, metric).train(rows)
        codes = codec.encode(rows)
        if spec == "Binary":
            queries[1] = codec.arrays()["mean"]
        told: list[str] = []
        found = copies_of().of("rows").telling(told).search_codes(codec, codes, queries, 4, allow=mask)
        same(search_codes(codec, codes, queries, 4, allow=mask), found, spec)
        assert told == ["cuda:0"], told
    for spec in ("PQ3x12", "PQ3x8n", "PQ6x4fs", "RaBitQ1"):
        codec = parse_codec(spec, 12, "dot").train(rows)
        same(search_codes(codec, codec.encode(rows), queries, 4), copies_of().of("rows").search_codes(
            codec, codec.encode(rows), queries, 4), spec)  # fmt: skip


def check_flat() -> None:
    """An index of sign codes or product codes finds the same with a device, after more rows, too; or has no room."""
    rng, found = np.random.default_rng(6), flat.find_device
    rows, queries = rng.standard_normal((9, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    for spec in ("Binary", "PQ2x8"):
        flat.find_device = lambda name: None if name == "cpu" else Simulated()
        here, there = (gg.index.Flat(8, codec=spec, device=device) for device in ("cpu", "cuda"))
        for part in (rows[:7], rows[7:]):
            here.add(part)
            there.add(part)
            same(here.search(queries, 2), there.search(queries, 2), spec)
        flat.find_device = lambda name: Simulated(0)
        full = gg.index.Flat(8, codec=spec, device="cuda")
        full.add(rows)
        try:
            full.search(queries)
        except ResourceExhausted as error:
            assert "MiB free" in str(error), error
        else:
            raise AssertionError
    flat.find_device = found


def check_graphs() -> None:
    """Walks find no fewer of the nearest than those of the CPU, over rows of any kind, and give the scores of the CPU."""
    rng = np.random.default_rng(7)
    rows, queries = rng.standard_normal((30, 16), np.float32), rng.standard_normal((2, 16), np.float32)
    for codec, metric in (("LVQ4x8", "dot"), ("F16", "l2")):
        index = gg.index.HNSW(16, m=2, metric=metric, codec=codec)
        index.add(rows)
        exact = gg.index.Flat(16, metric=metric, codec="F32")
        exact.add(rows)
        truth, told = exact.search(queries, 4)[1], []
        search, graph = index._search, index._graph
        walker = device_graphs.DeviceWalker(copies_of().of("graph").telling(told), graph)
        scores, found = search.run(queries, 4, 8, walker=walker)
        assert told == ["cuda:0"], codec
        shares = [np.isin(truth, some).mean() for some in (found, search.run(queries, 4, 8)[1])]
        assert shares[0] >= shares[1], (codec, shares)
        assert len(graph.starts) > 2
        every, listed = search.run(queries, 30, 30)
        for line, at, all_scores, all_rows in zip(scores, found, every, listed, strict=True):
            np.testing.assert_array_equal(line, [all_scores[all_rows == row][0] for row in at], err_msg=codec)


def check_tokens() -> None:
    """Late interaction finds the same documents and bits, of the documents that a device leaves."""
    rng = np.random.default_rng(8)
    documents = [rng.standard_normal((n, 8), np.float32) for n in (1, 2, 3, 1, 2, 2)]
    queries = [rng.standard_normal((tokens, 8), np.float32) for tokens in (3, 2)]
    here, there = (gg.index.LateInteraction(8, codec="RaBitQ1", metric="dot") for _ in range(2))
    for index in (here, there):
        index.add(documents)
    told: list[str] = []
    there._device, there._there = "cuda", (there._state.codes, copies_of().of("tokens").telling(told))
    token_search.RESCORED = token_search.SPARE = 1
    allow = np.arange(6) != 3
    same(here.search(queries, 1, exact=True, allow=allow), there.search(queries, 1, exact=True, allow=allow), "tokens")
    assert told == ["cuda:0"], told


def check_collection(folder: str) -> None:
    """Collections find the same on a device, which explain names, and names none where the CPU searched."""
    writes.DIRECT_ROWS = stored_codes.CODED_ROWS = 8
    graph_search.SCANNED = 1.0
    rng = np.random.default_rng(4)
    rows, queries = rng.standard_normal((24, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    with gg.open(folder, device="cpu") as database:
        for name, (index, codec) in NAMED.items():
            docs = database.create_collection(name, vectors={"v": gg.Dense(8, "l2", index=index, codec=codec)})
            docs.upsert(ids=list(range(24)), vectors={"v": rows})
            docs.maintain()
            docs.upsert(ids=[24], vectors={"v": queries[:1]})
    there = []
    for copies in (DeviceCopies("cpu"), copies_of()):
        with gg.open(folder) as database:
            database._store._copies = copies
            there.append([database[name].search(queries, k=3, exact=False, oversample=4) for name in NAMED])
            tree = database["signs"].query(gg.near("v", queries[0], k=3)).explain()
            if copies.nbytes:
                database["graph"].delete(ids=[3])
            masked = str(database["graph"].search(queries, k=3, exact=False)[0].explain())
    for (name, (_, codec)), here, other in zip(NAMED.items(), *there, strict=True):
        for a, b in zip(here, other, strict=True):
            assert (a.ids, a.scores.tolist()) == (b.ids, b.scores.tolist()), name
        assert f"{codec}, " in str(here[0].explain()), str(here[0].explain())
        assert "cuda" not in str(here[0].explain())
        assert ", 1 of them on cuda:0\n" in str(other[0].explain()), str(other[0].explain())
    assert ", 1 of them on cuda:0\n" in str(tree), str(tree)
    assert "graph HNSW2" in masked, masked
    assert "cuda" not in masked, masked


if __name__ == "__main__":
    warmup()  # cold kernels leave exact searches to NumPy
    for check in (check_columns, check_flat, check_graphs, check_tokens):
        if not sys.argv[2:] or check.__name__ in sys.argv[2:]:
            check()
    if not sys.argv[2:] or "check_collection" in sys.argv[2:]:
        check_collection(sys.argv[1])
