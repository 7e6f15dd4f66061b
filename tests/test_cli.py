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


def test_runs_are_saved_scored_and_compared(tmp_path: Path, rows: Path) -> None:
    db, queries, qrels = tmp_path / "db", tmp_path / "q.jsonl", tmp_path / "r.tsv"
    run("ingest", rows, "--db", db)
    with queries.open("w") as file:
        for line in rows.read_text().splitlines()[:5]:
            file.write(json.dumps({"id": f"q{json.loads(line)['id']}", "vector": json.loads(line)["vector"]}) + "\n")
    qrels.write_text("query\tdoc\tgrade\n" + "".join(f"qd{i}\td{i}\t1\n" for i in range(5)))
    all_rows, later = tmp_path / "all.trec", tmp_path / "later.json"
    search = ["eval", "--db", db, "--queries", queries, "--qrels", qrels, "--json"]
    searched = json.loads(run(*search, "--save-run", all_rows))
    run(*search, "--where", "year >= 2002", "--save-run", later)
    assert all_rows.read_text().startswith("qd0 Q0 d0 1 ")
    assert json.loads(run("eval", "--run", all_rows, "--qrels", qrels, "--json")) == searched
    found = json.loads(run("eval", "--compare", all_rows, later, "--qrels", qrels, "--measure", "MRR@5", "--json"))
    assert (found["measure"], found["old"], found["new"]) == ("MRR@5", 1.0, 0.6)
    assert found["p_value"] == 0.5
    assert [change["query"] for change in found["lost"]] == ["qd0", "qd1"]
    assert found["lost"][0]["moved"] == [{"document": "d0", "grade": 1, "old_rank": 1, "new_rank": None}]
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    text = run("eval", "--compare", all_rows, later, "--qrels", qrels)
    assert text.startswith("nDCG@10: old 1.0000, new 0.6000, difference -0.4000")
    assert "d0 (grade 1): rank 1 -> not found" in text


def test_options_of_eval_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    qrels, some = tmp_path / "r.tsv", tmp_path / "some.trec"
    qrels.write_text("query\tdoc\tgrade\nq\td\t1\n")
    some.write_text("q Q0 d 1 1.0 x\n")
    base = ["eval", "--qrels", qrels]
    assert "expects --db and --queries" in run(*base, code=2)
    assert "expects --db and --queries" in run(*base, "--db", tmp_path / "db", code=2)
    assert "a search does not go with --measure" in run(*base, "--db", tmp_path, "--measure", "MRR@1", code=2)
    assert "--run does not go with --db" in run(*base, "--run", some, "--db", tmp_path / "db", code=2)
    assert "--compare does not go with --run, --save-run" in run(
        *base, "--compare", some, some, "--run", some, "--save-run", tmp_path / "new", code=2
    )
    run(*base, "--compare", some, code=2)
    assert "error: a run expects a readable file" in run(*base, "--compare", some, tmp_path / "none", code=1)
    assert "expects nDCG@k" in run(*base, "--compare", some, some, "--measure", "P@10", code=1)
    some.write_text("q Q0 d 1\n")
    said = run(*base, "--run", some, code=1)
    assert "line 1 has 4 columns" in said
    assert len(said.splitlines()) == 1


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


def test_words_are_searched_and_pipes_may_close(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    run("ingest", rows, "--db", db)
    assert len(json.loads(run("search", "--db", db, "--text", "LONG", "--using", "text", "--json"))) == 10
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "r.tsv"
    queries.write_text(json.dumps({"id": "q", "text": "long"}))
    qrels.write_text("q\td3\t1\n")
    report = json.loads(run("eval", "--db", db, "--queries", queries, "--qrels", qrels, "--using", "text", "--json"))
    assert report["queries"] == 1
    run("search", "--db", db, code=2)
    command = f"{sys.executable} -m gingham search --db {db} --text long -k 30 | true"
    assert subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stderr == ""
    assert run("--version").strip() == gg.__version__


@pytest.mark.parametrize("text", ["[1, 2]", "[{}]\n", '{"a": "s"}\n{"a": 1}\n', '{"a": 99999999999999999999}\n', "{"])
def test_a_file_that_cannot_be_read_makes_no_database(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text)
    assert "error: ingest expects" in run("ingest", file, "--db", tmp_path / "db", code=1)
    assert not (tmp_path / "db").exists()


def test_the_demo_reports_the_published_quality(tmp_path: Path) -> None:
    report = json.loads(run("demo", "--json", "--db", tmp_path / "demo"))
    assert report["documents"] == 5183
    ndcg = {method["name"]: method["ndcg_at_10"] for method in report["methods"]}
    assert ndcg["dense"] >= 0.64
    assert ndcg["BM25"] >= 0.67
    assert ndcg["hybrid"] >= 0.70
    assert all(method["recall_at_100"] >= 0.91 for method in report["methods"])
    assert "expects a path where nothing is" in run("demo", "--db", tmp_path / "demo", code=1)


def test_warmup_compiles_every_kernel() -> None:
    from gingham.codecs.jit import CACHE_FOLDER

    text = " ".join(run("warmup").split())
    assert "kernel modules ready" in text
    assert str(CACHE_FOLDER) in text
    assert json.loads(run("warmup", "--json"))["folder"] in (None, str(CACHE_FOLDER))
