"""Child of the reader tests: open a store, query once, and stay until told to go.

Run as ``python idle.py PATH``; prints ``ready``, waits for a line, prints the commit it then sees, and the
kilobytes of the data file's mapping as Rss and Pss as they were before.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gingham as gg


def mapped() -> dict[str, int]:
    """Rss and Pss of the mapped data file in kB."""
    found, inside = {"Rss": 0, "Pss": 0}, False
    smaps = Path("/proc/self/smaps")
    for line in smaps.read_text().splitlines() if smaps.exists() else []:
        name = line.split(maxsplit=1)[0]
        if not name.endswith(":"):
            inside = line.endswith("data.mdb")
        elif inside and name[:-1] in found:
            found[name[:-1]] += int(line.split()[1])
    return found


def main() -> None:
    with gg.open(sys.argv[1], mode="r") as db:
        docs = db["a"]
        docs.search(np.ones(docs.schema.vectors["v"].dim), k=1)
        print("ready", flush=True)
        sys.stdin.readline()
        sizes = mapped()
        print(docs.stats().version, sizes["Rss"], sizes["Pss"], flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
