"""The page checker against files that LMDB itself wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb
import numpy as np
import pytest

from gingham.storage import pages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(4))
def test_every_file_that_lmdb_writes_is_found_sound(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    env = lmdb.open(str(tmp_path), map_size=1 << 28, max_dbs=2, sync=False)
    tables = [env.open_db(name) for name in (b"small", b"large")]
    reader = env.begin()
    for number in range(700):
        with env.begin(write=True) as txn:
            for _ in range(int(rng.integers(1, 12))):
                table = int(rng.integers(2))
                key = rng.bytes(int(rng.integers(1, 60)))
                txn.put(key, rng.bytes(int(rng.integers(0, 200 if table == 0 else 30_000))), db=tables[table])
                cursor = txn.cursor(db=tables[table])
                if rng.random() < 0.4 and cursor.set_range(rng.bytes(1)):
                    cursor.delete()
        if number % 97 == 0:  # a reader that stays makes LMDB keep one free list a transaction, keyed by its number
            if rng.random() < 0.3:
                reader.abort()
                reader = env.begin()
            assert pages.check_trees(tmp_path / "data.mdb") == []
    reader.abort()
    env.close()
    assert pages.check_trees(tmp_path / "data.mdb") == []
