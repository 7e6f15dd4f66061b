"""Centroids trained together and in groups: seconds, error, and neighbours in the nearest lists, one thread.

Run: python bench/ann/centroids.py --data late-tokens --rows 400000 --nlist 6000 --json bench/results/ann/centroids.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from shared import datasets, measure

import gingham as gg
from gingham.codecs.spec import parse_codec
from gingham.index import coarse
from gingham.index.coarse import Coarse

NPROBES = (8, 16, 32, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="late-tokens", choices=(*datasets.NAMES, "late-tokens"))
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--nlist", type=int, default=6000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data, n_rows=options.rows)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    gg.set_threads(1)
    gg.warmup()
    truth = data.nearest(10)
    codec: Any = parse_codec("LVQ8", data.rows.shape[1], data.metric).train(data.rows[:20_000])
    figures: dict[str, Any] = {}
    for name, most in (("together", options.nlist), ("in groups", 1)):
        coarse.FLAT_LISTS = most
        started = time.process_time()
        trained = Coarse.train(data.rows, options.nlist, codec, 0)
        seconds = time.process_time() - started
        lists = trained.assign(data.rows)
        sizes = np.bincount(lists, minlength=options.nlist)
        far = np.square(trained.centroids).sum(axis=1) - 2 * data.queries @ trained.centroids.T
        order = np.argsort(far, axis=1)
        rank = np.take_along_axis(np.argsort(order, axis=1), lists[truth], axis=1)
        figures[name] = {
            "cpu seconds": round(seconds, 1),
            "mean squared error": float(np.square(data.rows - trained.centroids[lists]).sum(axis=1).mean()),
            "found": [
                {"nprobe": n, "recall": round(float((rank < n).mean()), 4), "rows": round(float(sizes[order[:, :n]].sum(axis=1).mean()))}
                for n in NPROBES
            ],
        }  # fmt: skip
    about = {"bench": "ann centroids", "data": data.name, "rows": len(data.rows), "nlist": options.nlist}
    measure.report({**about, "trained": figures}, options.json)


if __name__ == "__main__":
    main()
