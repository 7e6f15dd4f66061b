"""What a second list for each row would find: recall for as many codes scanned, with and without.

The second list minimises the distance and, by a weight, the part of its residual along that of the first (Sun et al.,
"SOAR: improved indexing for approximate nearest neighbor search", NeurIPS 2023, section 4). Only lists are looked at: a
neighbour counts as found where one of its lists is probed.

Run: python bench/ann/spill.py --data minilm --json bench/results/ann/spill-minilm.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from shared import datasets, measure

import gingham as gg
from gingham.codecs.spec import parse_codec
from gingham.index.coarse import Coarse, list_count

NPROBES = (2, 4, 8, 16, 32, 64, 128)
WEIGHTS = (0.0, 1.0, 1.5)
BLOCK = 4096


def second(rows: np.ndarray, centroids: np.ndarray, first: np.ndarray, weight: float) -> np.ndarray:
    """The second list of each row, int64 (n,)."""
    out, squares = np.empty(len(rows), np.int64), np.square(centroids).sum(axis=1)
    for start in range(0, len(rows), BLOCK):
        some, mine = rows[start : start + BLOCK], first[start : start + BLOCK]
        along = some - centroids[mine]
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        loss = np.square(some).sum(axis=1)[:, None] - 2 * some @ centroids.T + squares
        loss += weight * np.square((along * some).sum(axis=1)[:, None] - along @ centroids.T)
        loss[np.arange(len(some)), mine] = np.inf
        out[start : start + BLOCK] = loss.argmin(axis=1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm", choices=datasets.NAMES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    gg.warmup()
    nlist, truth = list_count(len(data.rows)), data.nearest(10)
    codec: Any = parse_codec("LVQ8", data.rows.shape[1], data.metric).train(data.rows[:20_000])
    coarse = Coarse.train(data.rows, nlist, codec, 0)
    centroids, first = coarse.centroids, coarse.assign(data.rows)
    near = 2 * data.queries @ centroids.T - (np.square(centroids).sum(axis=1) if data.metric == "l2" else 0)
    order = np.argsort(-near, axis=1)
    rank = np.argsort(order, axis=1)

    def points(assigned: list[np.ndarray]) -> list[dict[str, float]]:
        sizes = sum(np.bincount(one, minlength=nlist) for one in assigned)
        best = np.min([np.take_along_axis(rank, one[truth], axis=1) for one in assigned], axis=0)
        return [
            {"nprobe": n, "scanned": round(float(sizes[order[:, :n]].sum(axis=1).mean())), "recall": round(float((best < n).mean()), 4)}
            for n in NPROBES
        ]  # fmt: skip

    alone = points([first])
    figures: dict[str, Any] = {"one list": alone}
    for weight in WEIGHTS:
        both = points([first, second(data.rows, centroids, first, weight)])
        known = np.log([p["scanned"] for p in alone]), [p["recall"] for p in alone]
        more = [round(p["recall"] - float(np.interp(np.log(p["scanned"]), *known)), 4) for p in both[:-1]]
        figures[f"two lists, weight {weight:g}"] = {"points": both, "more for as many codes scanned": more}
    measure.report({"bench": "ann spill", "data": options.data, "nlist": nlist, "found": figures}, options.json)


if __name__ == "__main__":
    main()
