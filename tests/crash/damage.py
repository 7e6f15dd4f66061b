"""Child of the damage test: open damaged copies, compare every answer with the truth, verify.

Run as ``python damage.py TRUTH FOLDER...``; prints one line per folder: ``NAME answer verify``.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import gingham as gg
from gingham.errors import GinghamError


def answers(database: Any) -> Any:
    """What a user reads of the store; errors of Gingham stand in for what they prevented."""
    out: dict[str, Any] = {}

    def ask(name: str, question: Any) -> None:
        try:
            out[name] = question()
        except GinghamError as error:
            out[name] = type(error).__name__

    query = np.arange(8, dtype=np.float32)
    ask("names", database.collections)
    for name in ("a", "b"):
        ask(f"count {name}", lambda n=name: database[n].count())
        ask(f"get {name}", lambda n=name: str(database[n].get([f"r{i}" for i in range(0, 300, 7)])))
        ask(f"hits {name}", lambda n=name: [(h.id, round(h.score, 5)) for h in database[n].search(query, k=20)])
        ask(f"year {name}", lambda n=name: database[n].count(where="year > 20"))
        ask(f"scan {name}", lambda n=name: str(list(database[n].scan(include_vectors=True))))
    return out


def classify(found: Any, truth: Any) -> str:
    """``same``, ``error`` where a question failed, ``wrong`` where an answer differs."""
    worst = "same"
    for name, answer in truth.items():
        got = found.get(name)
        if got != answer:
            if not (isinstance(got, str) and hasattr(gg.errors, got)):
                return f"wrong:{name.replace(' ', '_')}"
            worst = "error"
    return worst


def look_at(folder: str, truth: Any) -> tuple[str, str]:
    """Answer of the questions, and whether damage is reported."""
    try:
        with gg.open(folder, mode="r") as database:
            answer = classify(json.loads(json.dumps(answers(database))), truth)
            try:
                report = database.verify()
                return answer, "clean" if report.ok else "reported"
            except GinghamError:
                return answer, "reported"
    except GinghamError as error:
        return "error", "reported" if error.args else "clean"


def main() -> None:
    warnings.simplefilter("error")
    gg.warmup()
    truth = json.loads(Path(sys.argv[1]).read_text())
    for folder in sys.argv[2:]:
        print(Path(folder).name, *look_at(folder, truth), flush=True)


if __name__ == "__main__":
    main()
