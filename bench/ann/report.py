"""Plots and a page of the results in ``bench/results/ann``, of which each script of this folder makes a kind.

Run: python bench/ann/report.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import curve
from runners import CONTESTANTS
from shared import datasets

RESULTS = Path(__file__).parents[1] / "results" / "ann"
TARGETS = (0.90, 0.95, 0.99)
COLOURS = {
    "gingham": "#1f5fa8", "hnswlib": "#c2571a", "faiss": "#3d8b4f", "usearch": "#8457a6", "svs": "#777777",
}  # fmt: skip
STYLES = ("-", "--", ":", "-.")

HEAD = """# Graph search against peers

Made by `bench/ann/report.py` from the JSON files beside it, which hold all settings and versions. Recall is that of 10
neighbours. Every contestant runs in a process of its own, on one core, with one thread, and they take turns. Graphs have
M = 16 (32 links in the base layer) and efConstruction = 200, ours its default of it; SVS has 32 links and a window of 200.
Faiss keeps to AVX2, as ours does; hnswlib is compiled for this processor, USearch and SVS choose their instructions, and
all three take AVX-512 where there is one. SVS refuses LVQ on processors that are not Intel's.
"""


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def ratio(found: dict[str, Any]) -> str:
    """A median with its quartiles."""
    wall = found["wall"]
    return f"**{wall['median']:.2f}** ({wall['low']:.2f}–{wall['high']:.2f})"


def duel_part(result: dict[str, Any]) -> list[str]:
    """Ratios at equal recall: one table for each of ours."""
    targets = result["targets"]
    running = [name for name, about in result["contestants"].items() if "refused" not in about]
    lines = [
        "", f"Ratios of queries a second at equal recall, medians and quartiles of {result['rounds']} rounds. \"At\"",
        "stands where one finds more than was asked for with its least effort, which is then what was timed.",
    ]  # fmt: skip
    for name in running:
        if CONTESTANTS[name].ours:
            peers = [peer for peer in running if not CONTESTANTS[peer].ours]
            rows = [[peer, *(duel_cell(found, name, peer) for found in targets.values())] for peer in peers]
            speeds = [number(t["contestants"][name].get("queries/s", {}).get("median")) for t in targets.values()]
            head = [f"{name} over", *(f"recall {target}" for target in targets)]
            lines += table(head, [*rows, ["its queries/s", *speeds]])
    return lines


def duel_cell(found: dict[str, Any], ours: str, peer: str) -> str:
    """The ratio at one recall, or why there is none."""
    both = [found["contestants"][name] for name in (ours, peer)]
    for name, one in zip((ours, peer), both, strict=True):
        if "out" in one:
            return f"{name} {one['out']}"
    floors = [f"{n} at {one['recalls'][0]:.3f}" for n, one in zip((ours, peer), both, strict=True) if one["floor"]]
    return ratio(found["ratios"][ours][peer]) + (f", {', '.join(floors)}" if floors else "")


def contestants_part(sweep: dict[str, Any]) -> list[str]:
    """Builds, bytes and speeds of all contestants."""
    rows, refused = [], []
    for name, about in sweep["contestants"].items():
        if "refused" in about:
            refused.append(f"- {name}: {about['refused']}")
            continue
        speeds = [number(curve.at(sweep["curves"][name], target)) for target in TARGETS]
        rows.append(
            [
                name,
                str(about["about"]["simd"]),
                number(about["wall seconds"]),
                number(about["cpu seconds"]),
                number(about["peak bytes"] / 1e6),
                number(about["saved bytes"] / about["rows"]),
                number(about["resident bytes"] / about["rows"]),
                *speeds,
            ]
        )
    head = [
        "contestant", "SIMD", "build s", "build CPU s", "build peak MB", "bytes/row saved", "bytes/row resident",
        *(f"queries/s at {target}" for target in TARGETS),
    ]  # fmt: skip
    return [*table(head, rows), *([""] if refused else []), *refused]


def build_part(result: dict[str, Any]) -> list[str]:
    """Processor time of building over ours."""
    lines = []
    for name, found in result["cpu seconds, peer over ours"].items():
        own = result["contestants"][name]
        rows = [
            [peer, number(result["contestants"][peer]["cpu seconds"]), f"**{times:.2f}**"]
            for peer, times in found.items()
        ]
        lines += table(["build", "CPU s", f"over {name}"], [*rows, [name, number(own["cpu seconds"]), "1"]])
    return lines


def filters_part(result: dict[str, Any]) -> list[str]:
    """Queries a second at recall 0.95 among allowed rows, or the most that was found."""
    first = next(iter(next(iter(result["cells"].values())).values()))
    names = [name for name, got in first.items() if "refused" not in got]
    rows = []
    for kind, shares in result["cells"].items():
        for share, found in shares.items():
            cells = []
            for name in names:
                got = found[name]
                speed = got["at"]["0.95"]
                most = max(point["recall"] for point in got["points"])
                cells.append(f"finds {most:.3f}" if speed is None else number(speed))
            rows.append([f"{kind}, {float(share):.1%}", *cells])
    return [
        "", "Queries a second at recall 0.95 among the rows that a filter allows, one filter for 100 queries:",
        *table(["filter", *names], rows),
    ]  # fmt: skip


def latencies_part(result: dict[str, Any]) -> list[str]:
    """Times of single queries under filters."""
    rows = [
        [
            f"{kind}, {float(share):.1%}",
            f"{got['recall']:.3f}",
            str(got["median us"]),
            f"{got['over that without']:.2f}",
        ]
        for kind, shares in result["cells"].items()
        for share, got in shares.items()
    ]
    head = ["filter", "recall", "median us", "99th percentile over that without a filter"]
    return [
        "",
        f"Processor time of single queries of ours under these filters, ef_search {result['effort']}:",
        *table(head, rows),
    ]


def churn_part(result: dict[str, Any]) -> list[str]:
    """Recall and speed before and after all rounds, and of a new index."""
    rows = []
    for name, about in result["contestants"].items():
        if "refused" in about:
            continue
        looks = about["rounds"][0], about["rounds"][-1], about["built anew"]
        recalls = [f"{look['recall']:.4f}" for look in looks]
        speeds = [number(look["queries/s"]) for look in looks]
        changes = sum(look["cpu seconds"] for look in about["rounds"][1:])
        rows.append([name, *recalls, *speeds, number(changes), number(looks[2]["cpu seconds"])])
    n_rounds = max(len(about.get("rounds", ())) for about in result["contestants"].values()) - 1
    head = [
        f"effort {result['effort']}", "recall at first", "after", "anew", "queries/s at first", "after", "anew",
        "CPU s of changes", "CPU s of building anew",
    ]  # fmt: skip
    return [
        "", f"A third of the rows, before and after {n_rounds} rounds that each replace {result['share']:.0%} of them, and an",
        "index built anew of those that live at the end:", *table(head, rows),
    ]  # fmt: skip


def layers_part(result: dict[str, Any]) -> list[str]:
    """Recall and time of walks that begin elsewhere."""
    rows = [
        [name, *(f"{at[name]['recall']:.4f}, {at[name]['time over layers']:.3f}" for at in result["efforts"].values())]
        for name in next(iter(result["efforts"].values()))
    ]
    head = ["a walk begins at", *(f"ef_search {effort}" for effort in result["efforts"])]
    return [
        "", "Recall, and time over that with layers, of walks of the base layer that begin at what the layers lead to, or at",
        "the best of so many random rows:", *table(head, rows),
    ]  # fmt: skip


def threads_part(result: dict[str, Any]) -> list[str]:
    """Speed-ups of two threads."""
    rows = [
        [name, *(f"{one[name][key]:.3f}" for key in ("speed-up", "share of loops", "cpu, two threads over one"))]
        for one, name in ((result["search"], "search"), (result["build"], "build"))
    ]
    head = ["two threads", "speed-up", "share of what two busy loops reach", "CPU time over that of one"]
    return table(head, rows)


def collection_part(result: dict[str, Any]) -> list[str]:
    """What a collection adds."""
    opened = ", ".join(f"{name} {number(value)}" for name, value in result["new process, best of 5"].items())
    return [
        "", f"In a collection, one query of ef_search {result['ef']}: {result['collection us']} us, of which the collection",
        f"adds {result['overhead us']} us to the search of the graph, which on the mapped file takes",
        f"{result['map over heap']} of its time on the heap. A new process: {opened}.",
    ]  # fmt: skip


def targets_part(result: dict[str, Any]) -> list[str]:
    """Recall that a target delivers."""
    ways = {name: found for name, found in result.items() if name.startswith(("bare", "collection"))}
    rows = [
        [name, *(f"{one['recall']:.3f}, {number(one['queries/s'])}" for one in found.values())]
        for name, found in ways.items()
    ]
    head = ["effort told by", *(f"target_recall {target}" for target in next(iter(ways.values())))]
    return [
        "", f"Recall and queries a second that `target_recall` delivers on {result['sample']:,} queries that no calibration saw:",
        *table(head, rows),
    ]  # fmt: skip


def ivf_part(result: dict[str, Any]) -> list[str]:
    """Inverted lists beside a graph: the best of each kind, by recall and calls."""
    kinds = {
        "PQ x4fs": "x4fs", "RaBitQ of one bit": "RaBitQ", "a byte a dimension (LVQ8, SQ8)": ("LVQ8", "SQ8"),
        "HNSW over LVQ4x8": "graph",
    }  # fmt: skip
    speeds, rows = result["queries/s"], []
    for kind, marks in kinds.items():
        found = [
            name for name in speeds if any(mark in name for mark in ((marks,) if isinstance(marks, str) else marks))
        ]
        if kind != "HNSW over LVQ4x8":
            found = [name for name in found if not name.startswith("graph")]
        for calls in ("single", "batch"):
            row = [kind, "one" if calls == "single" else "1,000"]
            for target in (0.9, 0.95):
                key = f"{calls} at {target}"
                ours, theirs = (
                    max((speeds[name][key] or 0 for name in found if name.startswith("faiss") is peer), default=0)
                    for peer in (False, True)
                )
                row += [number(ours or None), f"**{ours / theirs:.2f}**" if theirs else "–"]
            rows.append(row)
    seconds = result["cpu seconds of building"]
    built = ", ".join(f"{name} {value:g} s" for name, value in seconds.items() if "," not in name)
    return [
        "",
        f"Inverted lists ({result['nlist']:,}), queries a second, the best of what each tried, over faiss's best of the kind:",
        *table(["kind", "queries a call", "at 0.9", "over faiss", "at 0.95", "over faiss"], rows),
        "",
        f"Processor time of training and adding: {built}.",
    ]


def plot(sweep: dict[str, Any], path: Path) -> None:
    """Recall against queries a second."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": path.name, "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 5.5), constrained_layout=True)
    seen: dict[str, int] = {}
    for name, points in sweep["curves"].items():
        module = CONTESTANTS[name].module
        style = STYLES[seen.setdefault(module, 0) % len(STYLES)]
        seen[module] += 1
        shown = [point for point in points if point["recall"] >= 0.8]
        if shown:
            axis.plot(
                [point["recall"] for point in shown], [point["queries/s"] for point in shown], style, marker="o", ms=2.5,
                lw=2 if CONTESTANTS[name].ours else 1.2, color=COLOURS[module], label=name,
            )  # fmt: skip
    axis.set_xscale("function", functions=(_spread, _unspread))
    axis.set_xlim(0.8, 0.9995)
    axis.set_xticks([0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.minorticks_off()
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_xlabel("recall@10")
    axis.set_ylabel("queries a second, one thread")
    axis.set_title(f"{sweep['data']}: {sweep['rows']:,} rows of {sweep['dim']}, {sweep['metric']}", loc="left")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _spread(recall: Any) -> Any:
    """Stretches recalls near 1: minus the logarithm of what is missed."""
    import numpy as np

    return -np.log10(np.maximum(1 - np.asarray(recall), 1e-5))


def _unspread(value: Any) -> Any:
    import numpy as np

    return 1 - 10.0 ** -np.asarray(value)


PARTS = {
    "duel": duel_part, "build": build_part, "filters": filters_part, "latencies": latencies_part, "churn": churn_part, "targets": targets_part,
    "ivf": ivf_part, "layers": layers_part, "threads": threads_part, "collection": collection_part,
}  # fmt: skip


def page(folder: Path) -> str:
    """The page; plots are drawn beside it."""
    lines = [HEAD]
    for name in datasets.GRAPH_NAMES:
        found = {
            kind: json.loads(path.read_text())
            for kind in ("sweep", *PARTS)
            if (path := folder / f"{kind}-{name}.json").exists()
        }
        if not found:
            continue
        one = next(iter(found.values()))
        lines += [f"\n## {name}: {one['rows']:,} rows of {one['dim']}, {one.get('metric', '')}".rstrip(", ")]
        if "sweep" in found:
            plot(found["sweep"], folder / f"{name}.svg")
            lines += ["", f"![{name}]({name}.svg)", *contestants_part(found["sweep"])]
        lines += [line for kind, part in PARTS.items() if kind in found for line in part(found[kind])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    (options.out / "README.md").write_text(page(options.out))


if __name__ == "__main__":
    main()
