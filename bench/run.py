"""Run every benchmark and write its result beside this file in ``results/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    names = ("exact", "codecs", "fast_scan", "hamming", "rabitq", "training", "text", "ingest", "store", "startup")
    for name in names:
        subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), "--json", str(HERE / "results" / f"{name}.json")], check=True
        )


if __name__ == "__main__":
    main()
