"""Building in turns, each in a new process: seconds by the clock and of the processor, peak and saved bytes.

Run: python bench/ann/build.py --data minilm --json bench/results/ann/build-minilm.json
"""

from __future__ import annotations

from statistics import median
from typing import Any

from contest import Refused, arguments, built, settings, start
from runners import CONTESTANTS
from shared import measure


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    task = start(options)
    records: dict[str, list[dict[str, Any]]] = {}
    refused = {}
    for _ in range(options.rounds):
        for name in options.contestants:
            try:
                records.setdefault(name, []).append(built(task, name, options.core, again=not options.reuse))
            except Refused as refusal:
                refused[name] = {"refused": str(refusal)}
    found = {
        name: {key: median(one[key] for one in of) if isinstance(of[0][key], float) else of[-1][key] for key in of[0]}
        for name, of in records.items()
        if of
    }
    ratios = {
        ours: {
            peer: round(found[peer]["cpu seconds"] / found[ours]["cpu seconds"], 3)
            for peer in found
            if not CONTESTANTS[peer].ours
        }
        for ours in found
        if CONTESTANTS[ours].ours
    }
    result = {"bench": "ann build", **settings(task, options), "rounds": options.rounds}
    measure.report({**result, "contestants": {**found, **refused}, "cpu seconds, peer over ours": ratios}, options.json)


if __name__ == "__main__":
    main()
