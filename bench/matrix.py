"""The codec matrix: every codec on every data set; error, recall, speed and bytes as JSON, a table and plots.

One thread. A codec belongs into the product where it stands on a front: no other codec has fewer bytes (or a faster
scan) and a higher recall. Run: python bench/matrix.py --out bench/results/matrix
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from measure import machine
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument
from gingham.index.exact import score_listed
from gingham.index.two_stage import encode_rows, search_codes

SPECS = (
    "F32 F16 BF16 SQ8 LVQ4 LVQ8 LVQ4x4 LVQ4x8 LVQ8x4 LVQ8x8 RaBitQ1 RaBitQ2 RaBitQ3 RaBitQ4 RaBitQ5 RaBitQ6 RaBitQ7 "
    "RaBitQ8 Binary ITQ PQ{8}x8 PQ{4}x8 PQ{8}x12 OPQ,PQ{8}x8 OPQ,PQ{4}x8 PQ{4}x4fs PQ{2}x4fs OPQ,PQ{4}x4fs OPQ,PQ{2}x4fs "
    "RQ{16}x8 PCA{2},LVQ8 PCA{2},RaBitQ4 LeanVec{2},LVQ8"
).split()
"""``{n}`` stands for the greatest divisor of the dimensions that is at most an n-th of them."""
ROWS = 120_000
K = 10


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def best_of(run: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(spec: str, data: datasets.Dataset, truth: np.ndarray) -> dict[str, Any]:
    """One cell of the matrix."""
    dim = data.rows.shape[1]
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    sample = data.rows[np.sort(rng.permutation(len(data.rows))[: 1 << 16])]
    codec = parse_codec(spec, dim, data.metric).train(sample)
    trained = time.perf_counter() - started
    started = time.perf_counter()
    codes = encode_rows(codec, len(data.rows), lambda part: data.rows[part])
    encoded = time.perf_counter() - started
    some = encode_rows(codec, 4096, lambda part: data.rows[:4096][part])
    lengths = np.linalg.norm(data.rows[:4096], axis=1)
    error = np.square(codec.decode(some) - data.rows[:4096], dtype=np.float64).sum() / np.square(lengths).sum()
    norms = np.linalg.norm(data.queries[:100], axis=1)[:, None] * lengths
    found = np.empty((100, 4096), np.float32)
    listed = np.tile(np.arange(4096), (100, 1))
    codec.score(codec.prepare(data.queries[:100]), some, listed, found)
    exact = data.queries[:100].astype(np.float64) @ data.rows[:4096].T
    times = 1
    if data.metric == "l2":
        exact = 2 * exact - np.square(data.queries[:100]).sum(axis=1)[:, None] - np.square(lengths)
        times = 2
    off = (found - exact) / (times * norms)

    def rescore(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        metric = "l2" if data.metric == "l2" else "dot"
        return score_listed(queries, data.rows, rows, norms=np.empty(0, np.float32), metric=metric)

    plain = search_codes(codec, codes, data.queries, K, oversample=4)[1]
    better = search_codes(codec, codes, data.queries, K, rescore=rescore, oversample=4)[1]
    one = data.queries[:1]
    seconds = best_of(lambda: search_codes(codec, codes, one, K, rescore=rescore, oversample=4), 15)
    batch = best_of(lambda: search_codes(codec, codes, data.queries[:64], K, rescore=rescore, oversample=4), 3)
    return {
        "bytes": codec.code_size, "relative MSE": float(error), "ip error": float(np.sqrt(np.square(off).mean())),
        "ip bias": float(off.mean()), "recall@10": recall(plain, truth), "recall@10 4x": recall(better, truth),
        "train s": trained, "encode MB/s": data.rows.nbytes / encoded / 1e6, "queries/s": 1 / seconds,
        "queries/s batch": 64 / batch, "scan GB/s": codes.nbytes / seconds / 1e9,
    }  # fmt: skip


def filled(spec: str, dim: int) -> str:
    """A spec for these dimensions."""

    def part(match: re.Match[str]) -> str:
        most = max(1, dim // int(match[1]))
        return str(next(n for n in range(most, 0, -1) if dim % n == 0))

    return re.sub(r"{(\d+)}", part, spec)


def front(cells: dict[str, dict[str, Any]], cost: str, gain: str, *, less: bool) -> list[str]:
    """Codecs that no other beats in both."""
    out, best = [], -1.0
    for spec in sorted(cells, key=lambda s: ((1 if less else -1) * cells[s][cost], -cells[s][gain])):
        if cells[spec][gain] > best:
            out.append(spec)
            best = cells[spec][gain]
    return out


FRONTS = (
    ("bytes", "recall@10", True), ("bytes", "recall@10 4x", True), ("queries/s", "recall@10", False),
    ("queries/s", "recall@10 4x", False), ("queries/s batch", "recall@10 4x", False),
)  # fmt: skip


def plot(name: str, cells: dict[str, dict[str, Any]], path: Path) -> None:
    """Recall against bytes and against speed, with the fronts."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": name, "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), constrained_layout=True)
    for column, (cost, label) in enumerate(
        (("bytes", "bytes a vector"), ("queries/s", "queries a second, one at a time"))
    ):
        for row, (gain, title) in enumerate(
            (("recall@10", "from codes alone"), ("recall@10 4x", "40 candidates rescored"))
        ):
            axis = axes[row][column]
            best = front(cells, cost, gain, less=cost == "bytes")
            for spec, cell in cells.items():
                on = spec in best
                axis.plot(cell[cost], cell[gain], "o", ms=6 if on else 4, color="#1f5fa8" if on else "#b9b9b9")
                axis.annotate(
                    spec, (cell[cost], cell[gain]), xytext=(4, 3), textcoords="offset points",
                    fontsize=7, color="#1f5fa8" if on else "#8a8a8a",
                )  # fmt: skip
            axis.plot(
                [cells[s][cost] for s in best], [cells[s][gain] for s in best], "-", lw=1, color="#1f5fa8", alpha=0.5
            )
            axis.set_xscale("log")
            axis.set_xlabel(label)
            axis.set_ylabel("recall@10")
            axis.set_title(title, loc="left")
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Codecs on {name}: recall against bytes and speed; the fronts in blue", x=0.01, ha="left", fontsize=12
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def table(cells: dict[str, dict[str, Any]]) -> str:
    head = ("bytes", "relative MSE", "ip error", "ip bias", "recall@10", "recall@10 4x", "encode MB/s", "queries/s", "queries/s batch")  # fmt: skip
    lines = ["| codec | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for spec, cell in cells.items():
        lines.append(f"| {spec} | " + " | ".join(f"{cell[name]:.4g}" for name in head) + " |")
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    """The matrix as a page: fronts, and a plot and a table of each data set."""
    lines = [
        "# The codec matrix", "",
        "Made by `bench/matrix.py`, one thread; settings and versions stand in `matrix.json`. `recall@10` is that of the",
        "codes alone (two-level codecs refine 40 candidates), `recall@10 4x` that of 40 candidates scored from the vectors.",
        "`ip error` and `ip bias` are of the score divided by both lengths (and by 2 for l2). A codec stands on a front where",
        "no other has fewer bytes, or is faster, and finds more.",
        "", "| codec | fronts |", "|---|---|",
    ]  # fmt: skip
    lines += [f"| {spec} | {'; '.join(found) or 'none'} |" for spec, found in result["fronts"].items()]
    for name in datasets.NAMES:
        if name in result:
            rows, metric = result[name]["rows"], result[name]["metric"]
            lines += ["", f"## {name}: {rows[0]:,} rows of {rows[1]}, {metric}", "", f"![{name}]({name}.svg)", ""]
            lines.append(table(result[name]["codecs"]))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matrix")
    parser.add_argument("--data", nargs="*", default=list(datasets.NAMES), choices=datasets.NAMES)
    parser.add_argument("--codecs", nargs="*", default=SPECS)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    gg.set_threads(1)
    gg.warmup()
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"bench": "matrix", "threads": 1, "k": K, "queries": options.queries, "machine": machine()}
    fronts: dict[str, set[str]] = {}
    with threadpool_limits(1):
        for name in options.data:
            data = datasets.load(name, options.queries, ROWS)
            if data is None:
                print(f"{name} is not installed")
                continue
            truth, cells = data.nearest(K), {}
            for given in options.codecs:
                spec = filled(given, data.rows.shape[1])
                try:
                    cells[spec] = measure(spec, data, truth)
                except InvalidArgument as error:
                    print(f"{name} {spec}: {error}")
            for spec in cells:
                fronts.setdefault(spec, set())
            for cost, gain, less in FRONTS:
                for spec in front(cells, cost, gain, less=less):
                    fronts.setdefault(spec, set()).add(f"{name}: {gain} against {cost}")
            result[name] = {"rows": data.rows.shape, "metric": data.metric, "codecs": cells}
            plot(name, cells, options.out / f"{name}.svg")
            (options.out / "matrix.json").write_text(json.dumps(result, indent=1) + "\n")
            print(f"\n## {name} {data.rows.shape} {data.metric}\n\n{table(cells)}", flush=True)
    result["fronts"] = {spec: sorted(found) for spec, found in fronts.items()}
    print("\n".join(f"{spec}: {'; '.join(found) or 'on no front'}" for spec, found in result["fronts"].items()))
    (options.out / "matrix.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "README.md").write_text(page(result))


if __name__ == "__main__":
    main()
