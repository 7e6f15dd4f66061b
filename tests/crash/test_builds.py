"""A crash while codes, graphs and lists are built, or put in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gingham as gg
from gingham.storage import codes as stored_codes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("index", ["HNSW4", "IVF"])
@pytest.mark.parametrize("point", ["staged", "index before switch", "index after switch", "merge before switch"])
def test_a_crash_around_a_build_leaves_all_rows_and_the_next_process_finishes_it(
    tmp_path: Path, point: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_codes, "CODED_ROWS", 256)
    code = f"""
        import numpy as np, gingham as gg
        from gingham.storage import codes
        codes.CODED_ROWS = 256
        gg.warmup()
        db = gg.open({str(tmp_path / "db")!r})
        docs = db.create_collection("docs", vectors={{"v": gg.Dense(8, index={index!r})}})
        rows = np.random.default_rng(0).standard_normal((18_000, 8))
        for start in range(0, 18_000, 2250):
            docs.upsert(ids=list(range(start, start + 2250)), vectors={{"v": rows[start : start + 2250]}})
            {"docs.maintain()" if "index" in point else ""}
        docs.maintain()
        print("survived")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "GINGHAM_CRASH_AT": point}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    with gg.open(tmp_path / "db") as db:
        docs = db["docs"]
        rows = docs.count()
        assert rows in (2250, 18_000)
        docs.maintain()
        assert docs.stats().vectors["v"].indexed_rows == rows
        query = np.random.default_rng(1).standard_normal(8)
        assert set(docs.search(query, nprobe=1000).ids) == set(docs.search(query, exact=True).ids)
        assert not db.verify().damage
        with db._store.read() as session:
            assert session.txn.stat(session.env.table("staged"))["entries"] == 0
