"""Recall of lists whose rows came and went, beside lists made anew, for the codes that both scan.

Half of the rows is indexed. In steps of a twentieth of these, the oldest go and as many new ones come, until all are new;
rows come in random order, or in the order of their first principal component, so that they drift from one end to the
other.

Run: python bench/ann/list_churn.py --data minilm --json bench/results/ann/list-churn-minilm.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from shared import datasets, measure

import gingham as gg

K, STEPS = 10, 20
NPROBES = (2, 4, 8, 16, 32, 64)


def orders(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Orders in which rows come."""
    some = rows[:5000] - rows.mean(axis=0)
    direction = np.linalg.svd(some, full_matrices=False)[2][0]
    return {
        "random": np.random.default_rng(0).permutation(len(rows)), "drift": np.argsort(rows @ direction, kind="stable"),
    }  # fmt: skip


def points(index: gg.index.IVF, first: int, data: datasets.Dataset, truth: np.ndarray) -> list[dict[str, float]]:
    """Recall, and codes scanned for a query, by lists probed."""
    out, state = [], index._state
    for nprobe in NPROBES:
        found = index.search(data.queries, K, nprobe=nprobe)[1] - first
        probes = state.coarse.probe(data.queries, nprobe)  # type: ignore[union-attr]
        rows = float(state.lists.sizes[probes].sum(axis=1).mean())  # type: ignore[union-attr]
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
        out.append({"nprobe": nprobe, "recall": round(recall, 4), "scanned": round(rows)})
    return out


def at_scanned(known: list[dict[str, float]], scanned: float) -> float:
    """Recall for so many codes scanned."""
    return float(np.interp(np.log(scanned), [np.log(p["scanned"]) for p in known], [p["recall"] for p in known]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="minilm", choices=datasets.NAMES)
    parser.add_argument("--codec", default="LVQ8")
    parser.add_argument("--soar", action="store_true", help="two lists for each row")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = datasets.load(options.data)
    if data is None:
        raise SystemExit(f"the data set {options.data} is not installed; bench/datasets.py says how")
    gg.warmup()
    half = len(data.rows) // 2
    step = half // STEPS
    figures: dict[str, Any] = {}
    for name, order in orders(data.rows).items():
        rows = data.rows[order]
        churned, anew = (
            gg.index.IVF(rows.shape[1], metric=data.metric, codec=options.codec, soar=options.soar) for _ in range(2)
        )
        churned.add(rows[:half])
        for at in range(0, STEPS * step, step):
            churned.delete(np.arange(at, at + step))
            churned.add(rows[half + at : half + at + step])
        live = slice(STEPS * step, half + STEPS * step)
        anew.add(rows[live])
        truth = datasets.Dataset(data.name, data.metric, rows[live], data.queries).nearest(K)
        a, b = points(churned, live.start, data, truth), points(anew, 0, data, truth)
        less = [round(at_scanned(b, p["scanned"]) - p["recall"], 4) for p in a if p["scanned"] <= b[-1]["scanned"]]
        figures[name] = {"churned": a, "anew": b, "recall less for the same codes scanned": less}
    about = {"bench": "ann list churn", "data": data.name, "codec": options.codec, "soar": options.soar, "rows": half}
    measure.report({**about, "orders": figures}, options.json)


if __name__ == "__main__":
    main()
