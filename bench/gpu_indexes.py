"""What indexes give a CUDA device, beside the CPU on all cores, by the size of a batch; `gpu.py` runs it.

Flat indexes of signs and product codes, exact searches of vectors by products of PyTorch or CuPy and by our kernels,
the nearest centroids both ways, copies of rows, graphs, and late interaction. Bars under which devices are left alone
(`index/device_copies.py`) are taken away; each part says from which size on the device is the faster one.

Run: python bench/gpu_indexes.py --json bench/results/gpu_indexes.json
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import measure
import numpy as np
from gpu_searches import best_of, flat, made, tried

import gingham as gg
from gingham.codecs import cuda_products, cuda_searches
from gingham.codecs.cuda_staging import Staging
from gingham.codecs.devices import find_device
from gingham.codecs.kmeans import assign
from gingham.index import device_copies
from gingham.index.exact import row_norms, search_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.devices import Device

K, DIM, WIDTH, EF = 10, 384, 128, 64
BATCHES = (1, 4, 16, 64, 256, 1024)
WALKS = (64, 128, 256, 512, 2048, 8192)
ASKED = (1, 2, 4, 8, 16, 32, 64)
"""Queries of late interaction."""
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of its documents, that may be found."""
FAULTS = 0.001
ANY = partial(device_copies.Bars, 1, 1, 1, 1, 0)


def faster_from(sizes: list[float], there: list[float], here: list[float]) -> float | None:
    """The least size from which on the device is faster than the CPU at all sizes; None where it is not at the last."""
    least = None
    for size, device, cpu in sorted(zip(sizes, there, here, strict=True), reverse=True):
        if device >= cpu:
            break
        least = size
    return least


def beside(there: Callable[[int], Any], here: Callable[[int], Any], batches: tuple[int, ...]) -> dict[str, Any]:
    """Seconds of both by number of queries, and from how many on the device is faster."""
    times = {m: (best_of(partial(there, m), 0.5), best_of(partial(here, m), 0.5)) for m in batches}
    return {
        "device faster from": faster_from(list(batches), *(list(some) for some in zip(*times.values(), strict=True))),
        **{str(m): {"device s": device, "cpu s": cpu} for m, (device, cpu) in times.items()},
    }


def same(one: np.ndarray, other: np.ndarray) -> float:
    """Share of numbers that are the same."""
    return float(np.mean(one == other))


def there_too(index: Any, name: str) -> Any:
    """An index on the device, of what one of the CPU holds."""
    with tempfile.TemporaryDirectory() as folder:
        index.save(f"{folder}/index")
        return gg.index.load(f"{folder}/index", device=name)


def scans(n: int, name: str, codec: str, batches: tuple[int, ...] = BATCHES) -> dict[str, Any]:
    """``gg.index.Flat(device=)``."""
    rows, queries = made(n, DIM, 1), made(max(batches), DIM, 2)
    here = flat(rows, codec)
    there, most = there_too(here, name), queries[: max(batches)]
    return {
        "same rows": same(there.search(most, K)[1], here.search(most, K)[1]),
        **beside(lambda m: there.search(queries[:m], K), lambda m: here.search(queries[:m], K), batches),
    }


def exact(n: int, device: Device, name: str, batches: tuple[int, ...] = BATCHES) -> dict[str, Any]:
    """Exact searches of vectors, as collections have them: by products of a library, and by our kernels."""
    rows, queries = made(n, DIM, 3), made(max(batches), DIM, 4)
    norms, library = row_norms(rows, "dot"), cuda_products.find_products(device)

    def cpu(m: int) -> np.ndarray:
        return search_exact(queries[:m], rows, norms, K, metric="dot")[1]

    right, times = cpu(max(batches)), {m: best_of(partial(cpu, m), 0.5) for m in batches}
    out: dict[str, Any] = {"library": getattr(library, "name", None), "cpu s": {str(m): s for m, s in times.items()}}
    for way, found in (("products", library), ("kernels", None)):
        if way == "products" and library is None:
            continue
        with mock.patch.object(cuda_products, "find_products", lambda _, found=found: found):
            there = device_copies.DeviceCopies(name, bars=ANY()).of("rows")

            def gpu(m: int, there: Any = there) -> np.ndarray:
                found: np.ndarray = there.search_exact(queries[:m], rows, norms, K, metric="dot")[1]
                return found

            shares, seconds = same(gpu(max(batches)), right), [best_of(partial(gpu, m), 0.5) for m in batches]
        out[way] = {
            "same rows": shares, "device faster from": faster_from(list(batches), seconds, list(times.values())),
            "seconds": dict(zip(map(str, batches), seconds, strict=True)),
        }  # fmt: skip
        del there
    return out


def centroids(n: int, k: int, device: Device) -> dict[str, Any]:
    """The nearest of k centroids, as training of lists looks for them: by products of a library, and by our kernel."""
    rows, chosen = made(n, DIM, 5), made(k, DIM, 6)
    right, library = assign(rows, chosen), cuda_products.find_products(device)
    with device.active():
        held = cuda_searches.on_device(rows)
    out = {"rows": n, "centroids": k, "cpu s": best_of(lambda: assign(rows, chosen)), "library": None}
    ways: dict[str, Callable[[], Any]] = {"kernels": lambda: cuda_searches.nearest_centroids(held, chosen)}
    if library is not None:
        ways["products"], out["library"] = lambda: library.nearest(held, chosen), getattr(library, "name", None)
    with device.active():
        for way, find in ways.items():
            found = find()
            if found is None:
                out[way] = "the library failed"
                continue
            seconds = best_of(find)
            out[way] = {"same rows": same(found[0], right), "device s": seconds, "flops": 2 * n * k * DIM / seconds}
    return out


def uploads(n: int, device: Device) -> dict[str, Any]:
    """Rows of 396 bytes on their way to columns of the device, through pinned buffers and others."""
    codes = np.random.default_rng(7).integers(0, 1 << 31, (n, 99), np.int64).astype(np.int32)
    out: dict[str, Any] = {"bytes": codes.nbytes}

    def read(first: int, last: int, here: np.ndarray) -> None:
        here[:] = codes[first:last]

    with device.active():
        columns = cuda_searches.room_for(99, n)
        for name, pinned in (("pinned", True), ("pageable", False)):
            buffers = Staging(n, 99, np.int32, pinned=pinned)
            ways: dict[str, Callable[[], None]] = {
                "with making buffers s": lambda pinned=pinned: Staging(n, 99, np.int32, pinned=pinned).send_columns(
                    n, read, columns
                ),
                "s": lambda buffers=buffers: buffers.send_columns(n, read, columns),
            }
            times = {way: best_of(send) for way, send in ways.items()}
            out[name] = {**times, "bytes/s": codes.nbytes / times["s"]}
    return out


def graph(n: int, name: str, batches: tuple[int, ...] = WALKS) -> dict[str, Any]:
    """``gg.index.HNSW(device=)``, and the share of the K nearest that both find."""
    rows, queries = made(n, DIM, 8), made(max(batches), DIM, 9)
    here = gg.index.HNSW(DIM, metric="dot", codec="LVQ8")
    here.add(rows)

    def walk(index: Any, m: int) -> Any:
        return index.search(queries[:m], K, ef_search=EF)

    asked = queries[:512]
    truth = np.argpartition(-(asked @ rows.T), K, axis=1)[:, :K]
    with mock.patch.object(device_copies, "Bars", ANY):
        there = there_too(here, name)
        found = {of: walk(index, len(asked))[1] for of, index in (("device", there), ("cpu", here))}
        return {
            **{f"{of} recall": float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, some, strict=True)]))
               for of, some in found.items()},
            "rows": n, "bar": device_copies.LEAST_WALKS,
            **beside(*(partial(walk, index) for index in (there, here)), batches),
        }  # fmt: skip


def late_interaction(documents: int, name: str, asked: tuple[int, ...] = ASKED) -> dict[str, Any]:
    """``gg.index.LateInteraction(device=).search(exact=True)``: by number of queries, and of documents for the most."""
    rng = np.random.default_rng(10)
    docs = [rng.standard_normal((int(m), WIDTH)).astype(np.float32) for m in rng.integers(60, 181, documents)]
    queries = [rng.standard_normal((32, WIDTH)).astype(np.float32) for _ in range(max(asked))]
    with mock.patch.object(device_copies, "Bars", ANY):
        here, there = (gg.index.LateInteraction(WIDTH, codec="Residual4", device=where) for where in ("cpu", name))
        for index in (here, there):
            index.add(docs)

        def find(index: Any, m: int, share: float) -> Any:
            allow = None if share == 1 else np.arange(documents) < max(1, round(share * documents))
            return index.search(queries[:m], K, exact=True, allow=allow)

        most = max(asked)
        shares = same(find(there, most, 1)[1], find(here, most, 1)[1])
        by_queries = _products(lambda of, m: find(here if of == "cpu" else there, m, 1), asked)
        by_shares = _products(lambda of, share: find(here if of == "cpu" else there, most, share), SHARES)
    sizes = np.array([len(doc) for doc in docs])
    numbers, count = 32 * WIDTH, len(there._state.residuals.centroids)
    tokens = {share: int(sizes[: max(1, round(share * documents))].sum()) for share in SHARES}
    least, ratio = by_queries.pop("from"), by_shares.pop("from")
    return {
        "same rows": shares, "documents": documents, "centroids": count,
        "products of a query": numbers * tokens[1.0], "bar": device_copies.LEAST_PRODUCTS,
        "device faster from products": None if least is None else least * numbers * tokens[1.0],
        "bar for each byte sent": device_copies.BYTE_PRODUCTS,
        "device faster from products for each byte": None if ratio is None else tokens[ratio] * WIDTH / (4 * count),
        "queries": by_queries, f"documents of {most} queries": by_shares,
    }  # fmt: skip


def _products(find: Callable[[str, Any], Any], sizes: tuple[Any, ...]) -> dict[str, Any]:
    """Seconds of device and CPU by size, and from which size on the device is faster."""
    times = {size: [best_of(partial(find, of, size), 0.5) for of in ("device", "cpu")] for size in sizes}
    there, here = ([both[i] for both in times.values()] for i in range(2))
    by_size = {str(size): {"device s": device, "cpu s": cpu} for size, (device, cpu) in times.items()}
    return {"from": faster_from(list(sizes), there, here), **by_size}


def indexes(device: Device, name: str, scale: float = 1.0) -> dict[str, Any]:
    """All of them, at a share of their rows."""
    million = int(1_000_000 * scale)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "Flat Binary": lambda: scans(million, name, "Binary"),
        "Flat PQ48x8": lambda: scans(million, name, "PQ48x8"),
        "exact": lambda: exact(million, device, name),
        "centroids": lambda: centroids(int(200_000 * scale), max(1, int(4000 * scale)), device),
        "uploads": lambda: uploads(million, device),
        "HNSW": lambda: graph(int(100_000 * scale), name),
        "late interaction": lambda: late_interaction(int(4000 * scale), name),
    }
    out = {}
    for part, work in parts.items():
        out[part] = tried(work)
        print(part, out[part], flush=True)
    return out


def wrong(figures: dict[str, Any]) -> list[str]:
    """What finds other rows than the CPU, but for rounding, or fewer of the nearest, or fails."""
    bad = [part for part, found in figures.items() if "left out" in found]
    for part, found in figures.items():
        ways = [found, *(found[way] for way in ("products", "kernels") if isinstance(found.get(way), dict))]
        if any(way.get("same rows", 1) < 1 - FAULTS for way in ways):
            bad.append(part)
        if found.get("device recall", 1) < found.get("cpu recall", 0) - 0.01:
            bad.append(part)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    options = parser.parse_args()
    device = find_device(options.device)
    assert device is not None
    figures = indexes(device, options.device, options.scale)
    measure.report({"bench": "gpu indexes", "device": vars(device), **figures}, options.json)
    if wrong(figures):
        raise SystemExit(f"the device finds other rows than the CPU: {wrong(figures)}")


if __name__ == "__main__":
    main()
