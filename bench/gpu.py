"""A CUDA device against the CPU: whether it finds the same, and how fast, beside PyTorch where that is installed.

Rows are 1,000,000 of 384 dimensions, mixtures of Gaussians on a sphere, made from a seed; searched as ``gg.index.Flat``.
PyTorch multiplies queries with all rows in float16 or float32 and takes topk of the products. What follows are the
parts of `gpu_indexes.py`, `gpu_peers.py` and `gpu_searches.py`. The JSON is written after each part, and none is begun
after seven minutes.

Run: python bench/gpu.py --json bench/results/gpu.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_indexes
import gpu_peers
import gpu_searches
import measure
import numpy as np
from gpu_searches import best_of, made, tried

import gingham as gg
from gingham.codecs.cuda_rows import CudaRows
from gingham.codecs.devices import find_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.devices import Device

K = 10
BATCHES = (1, 16, 256, 1024)
PARITY = ("LVQ8", "LVQ4", "LVQ4x8", "SQ8", "RaBitQ2", "RaBitQ3", "RaBitQ5", "RaBitQ7", "RaBitQ8", "F32", "F16", "BF16")
SPEED = ("LVQ8", "LVQ4x8", "RaBitQ2", "F32")
LIMIT = 420.0
"""Seconds after which no part is begun."""


def parity(device: str) -> dict[str, Any]:
    """Whether rows and bits of scores are those of the CPU: of any order of rows, with and without a filter."""
    out = {}
    rng = np.random.default_rng(1)
    for metric in ("dot", "l2"):
        rows, queries = made(50_000, 100, 2), made(70, 100, 3)
        # Rows that get ever better: every pass finds more candidates than there is room for.
        rows[20_000:] = rows[20_000:][np.argsort(rows[20_000:] @ queries[0])]
        allow = rng.random(len(rows)) < 0.3
        for codec in PARITY:
            indexes = []
            for where in ("cpu", device):
                index = gg.index.Flat(100, metric=metric, codec=codec, keep=None, device=where)
                index.add(rows)
                indexes.append(index)
            same = []
            for k, mask in ((1, None), (K, allow), (500, None)):
                (s, r), (t, u) = (index.search(queries, k, allow=mask) for index in indexes)
                same += [np.array_equal(r, u), np.array_equal(s, t)]
            out[f"{codec} {metric}"] = all(same)
    return out


def peers(rows: np.ndarray, queries: np.ndarray, device: str) -> dict[str, Any]:
    """Seconds of PyTorch by precision and number of queries, and the share of true neighbours it finds."""
    try:
        import torch
    except ImportError:
        return {"torch": "not installed"}
    out: dict[str, Any] = {"version": torch.__version__}
    for name in ("float32", "float16"):
        x = torch.from_numpy(rows).to(device, getattr(torch, name))
        times = {}
        for m in BATCHES:
            part = queries[:m]

            def call(part: np.ndarray = part, x: Any = x, name: str = name) -> object:
                q = torch.from_numpy(part).to(device, getattr(torch, name))
                return [v.cpu() for v in torch.topk(q @ x.T, K)]

            times[str(m)] = best_of(call)
        out[name] = times
        del x
    return out


def speed(device: str) -> dict[str, Any]:
    """Figures of peers, and of each codec."""
    rows, queries = made(1_000_000, 384, 4), made(max(BATCHES), 384, 5)
    figures: dict[str, Any] = {
        "rows": len(rows),
        "dim": 384,
        "k": K,
        "torch": tried(lambda: peers(rows, queries, device)),
    }
    for codec in SPEED:
        figures[codec] = tried(lambda codec=codec: codec_speed(rows, queries, codec, device))
        print(codec, figures[codec], flush=True)
    return figures


def codec_speed(rows: np.ndarray, queries: np.ndarray, codec: str, device: str) -> dict[str, Any]:
    """Seconds by number of queries: of the kernels with their copies, and of a whole search there and on all cores."""
    index = gg.index.Flat(rows.shape[1], metric="dot", codec=codec, keep=None)
    started = time.perf_counter()
    index.add(rows)
    figures: dict[str, Any] = {"encode s": time.perf_counter() - started, "bytes": index.stats().code_bytes}
    trained = index.codec
    codes = trained.encode(rows)
    found = find_device(device)
    assert found is not None
    started = time.perf_counter()
    copy = CudaRows(trained.row_scores(trained.prepare(queries[:1]), codes), codes.n, found)
    figures["upload s"] = time.perf_counter() - started
    scans = {m: scan_seconds(copy, trained, codes, queries[:m]) for m in BATCHES}
    del copy
    with tempfile.TemporaryDirectory() as folder:
        index.save(f"{folder}/index")
        there = gg.index.load(f"{folder}/index", device=device)
        for m in BATCHES:
            cpu, gpu = (best_of(lambda i=i, m=m: i.search(queries[:m], K)) for i in (index, there))
            figures[str(m)] = {
                "scan s": scans[m], "search s": gpu, "cpu search s": cpu, "products/s": codes.n * rows.shape[1] * m / scans[m]
            }  # fmt: skip
    return figures


def scan_seconds(copy: CudaRows, codec: Any, codes: Any, queries: np.ndarray) -> float:
    """Of prepared queries."""
    prepared = codec.row_scores(codec.prepare(queries), codes)
    floors = np.full(len(queries), -np.inf, np.float32)
    return best_of(lambda: copy.scan(prepared, floors, K, None))


def parts(figures: dict[str, Any], device: Device, name: str, path: Path | None) -> None:
    """Add figures of all parts."""

    def searches() -> dict[str, Any]:
        with device.active():
            return gpu_searches.searches()

    works: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(name), "indexes": lambda: gpu_indexes.indexes(device, name),
        "peers": lambda: gpu_peers.peers(name, device.number), "searches": searches,
    }  # fmt: skip
    started = time.perf_counter()
    for part, work in works.items():
        begun = time.perf_counter() - started
        found = tried(work) if begun < LIMIT else {"left out": f"{begun:.0f} s have passed"}
        figures[f"{part} took s"] = found.pop("took s", None)
        figures |= found if part == "speed" else {part: found}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(figures) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parity", action="store_true", help="only that")
    options = parser.parse_args()
    device = find_device(options.device)
    assert device is not None
    figures: dict[str, Any] = {"bench": "gpu", "device": vars(device), "same as the CPU": parity(options.device)}
    print(figures, flush=True)
    if not options.parity:
        parts(figures, device, options.device, options.json)
    measure.report(figures, options.json)
    if not all(figures["same as the CPU"].values()):
        raise SystemExit("the device finds other rows or scores than the CPU")
    if not options.parity and wrong(figures):
        raise SystemExit(f"the device finds other rows than the CPU, or fails: {wrong(figures)}")


def wrong(figures: dict[str, Any]) -> list[str]:
    """Parts of ours that find other rows than the CPU, or fail; peers may."""
    bad = [codec for codec in SPEED if "left out" in figures.get(codec, {"left out": ""})]
    for part, of in (("indexes", gpu_indexes.wrong), ("searches", gpu_searches.wrong)):
        bad += [f"{part}: {figures[part]['left out']}"] if "left out" in figures[part] else of(figures[part])
    return bad


if __name__ == "__main__":
    main()
