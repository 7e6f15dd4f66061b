"""Child of the reader test: query again and again, and check that every answer is of one commit.

Run as ``python reader.py PATH SECONDS``; prints one JSON line of what was seen.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

import gingham as gg


def main() -> None:
    path, seconds = sys.argv[1], float(sys.argv[2])
    stamp_file = os.path.join(os.path.dirname(path), "newest")
    query = np.ones(16, np.float32)
    queries, torn, stale, slowest, first, last = 0, 0, 0, 0.0, None, 0
    with gg.open(path, mode="r") as db:
        a, b = db["a"], db["b"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with open(stamp_file) as file:
                newest = int(file.read() or 0)
            started = time.monotonic()
            hits = a.search(query, k=300)
            slowest = max(slowest, time.monotonic() - started)
            stamps = {hit["stamp"] for hit in hits}
            with db.snapshot() as then:
                pair = {then["a"].search(query, k=1)[0]["stamp"], then["b"].get("last")["stamp"]}
            torn += len(stamps) != 1 or len(hits) != 200 or len(pair) != 1
            stale += max(stamps) < newest
            first = min(stamps) if first is None else first
            last = max(stamps)
            assert b.count() == 1
            queries += 1
    print(
        json.dumps({"queries": queries, "torn": torn, "stale": stale, "slowest": slowest, "first": first, "last": last})
    )


if __name__ == "__main__":
    main()
