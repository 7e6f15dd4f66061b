"""Child of the memory test: fill a store, then merge and verify it while another thread reads the anonymous memory.

Run as ``python memory.py PATH BUDGET BYTES``; prints the peak above the start in bytes,
and the segments before and after.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Self

import numpy as np

import gingham as gg
from gingham.storage import rewrite


def anonymous() -> int:
    """Bytes of this process that are no mapped file."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


class Peak:
    """Largest anonymous memory while a block runs."""

    def __enter__(self) -> Self:
        self.base = self.peak = anonymous()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.is_set():
            self.peak = max(self.peak, anonymous())
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def above(self) -> int:
        return self.peak - self.base


def main() -> None:
    path, budget, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rows = 2500
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, 512)).astype(np.float32)
    texts = [rng.bytes(100).hex() * 3 for _ in range(rows)]
    per_batch = vectors.nbytes + rows * 600
    rewrite.BUSY_SEGMENTS = 10_000
    with gg.open(path, durability="none", memory_budget=budget) as db:
        docs = db.create_collection("c", fields={"t": gg.Text(), "k": gg.Keyword()}, vectors={"v": gg.Dense(512)})
        db._store.maintenance._quiet = lambda: False  # type: ignore[method-assign]
        for start in range(0, total // per_batch * rows, rows):
            docs.upsert(
                ids=list(range(start, start + rows)),
                vectors={"v": vectors},
                fields={"t": texts, "k": ["long words " * 400] * rows},
            )
        before = docs.stats().segments
        del vectors, texts
        with Peak() as merging:
            assert db.maintain(timeout=120)
        with Peak() as verifying:
            assert db.verify().ok
        print(merging.above, verifying.above, before, docs.stats().segments, docs.count())


if __name__ == "__main__":
    main()
