"""The commands do what the library does, say it in text or JSON, and end with sensible codes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg

if TYPE_CHECKING:
    from pathlib import Path


def run(*args: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from gingham.cli import main; main()", *map(str, args)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code in (0, 3) else done.stderr


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for i in range(30):
            row = {"id": f"d{i}", "vector": rng.standard_normal(4).tolist(), "year": 2000 + i, "text": "long " * 30}
            file.write(json.dumps(row) + "\n")
    return path


def test_a_file_is_ingested_searched_evaluated_and_kept_safe(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    assert json.loads(run("ingest", rows, "--db", db, "--json"))["count"] == 30
    first = json.loads(rows.read_text().splitlines()[3])
    hits = json.loads(run("search", "--db", db, "--vector", json.dumps(first["vector"]), "-k", 2, "--json"))
    assert hits[0]["id"] == "d3"
    assert hits[0]["score"] == pytest.approx(1.0)
    text = run("search", "--db", db, "--vector", json.dumps(first["vector"]), "--where", "year = 2003", "--explain")
    assert "d3" in text
    assert len(text.splitlines()) == 1
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "r.tsv"
    queries.write_text(json.dumps({"id": "q", "vector": first["vector"]}))
    qrels.write_text("query\tdoc\tgrade\nq\td3\t1\n")
    assert json.loads(run("eval", "--db", db, "--queries", queries, "--qrels", qrels, "--json"))["nDCG@10"] == 1.0
    assert json.loads(run("info", db, "--json"))["docs"]["rows"] == 30
    assert json.loads(run("stats", db, "--json"))["by_collection"]["docs"]["rows"] == 30
    assert "docs: 30 rows" in run("info", db)
    assert json.loads(run("verify", db, "--json"))["ok"]
    assert json.loads(run("compact", db, "--json"))["after"] > 0
    run("backup", db, tmp_path / "backup")
    run("restore", tmp_path / "backup", tmp_path / "again")
    with gg.open(tmp_path / "again", mode="r") as again:
        assert again["docs"].count() == 30


def test_errors_are_one_line_and_code_one(tmp_path: Path, rows: Path) -> None:
    said = run("info", tmp_path / "none", code=1)
    assert said.startswith("error: no database at")
    assert len(said.splitlines()) == 1
    db = tmp_path / "db"
    run("ingest", rows, "--db", db)
    assert "did you mean" in run("search", "--db", db, "--vector", "[1,2,3,4]", "--where", "yaer = 1", code=1)
    assert "4 dimensions" in run("search", "--db", db, "--vector", "[1,2]", code=1)
    assert "JSON array" in run("search", "--db", db, "--vector", "[1,", code=1)
    assert ".parquet or .jsonl" in run("ingest", __file__, "--db", tmp_path / "new", code=1)
    run("ingest", code=2)


def test_damage_found_by_verify_is_code_three(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    run("ingest", rows, "--db", db)
    run("compact", db)
    data = next(db.glob("generation-*")) / "data.mdb"
    raw = bytearray(data.read_bytes())
    raw[raw.index(b"long long") + 3] ^= 1
    data.write_bytes(raw)
    report: Any = json.loads(run("verify", db, "--json", code=3))
    assert not report["ok"]
    assert report["damage"]


def test_the_demo_reports_the_published_quality(tmp_path: Path) -> None:
    report = json.loads(run("demo", "--json", "--db", tmp_path / "demo"))
    assert report["documents"] == 5183
    assert report["ndcg_at_10"] >= 0.64
    assert report["recall_at_100"] >= 0.92
    assert "expects a path where nothing is" in run("demo", "--db", tmp_path / "demo", code=1)


def test_warmup_compiles_every_kernel() -> None:
    assert "kernel modules ready" in run("warmup")
