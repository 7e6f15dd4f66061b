"""The commands do what the library does, say it in text or JSON, and end with sensible codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gingham as gg
from gingham.files import infer_schema


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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    run("ingest", rows, "--db", db)
    for args in (
        ("ingest", rows, "--db", "/proc/x"), ("ingest", rows, "--db", "/proc/x/y"), ("backup", db, "/proc/x"),
        ("restore", db, "/proc/x"),
    ):  # fmt: skip
        said = run(*args, code=1)
        assert said.startswith("error: the system makes no folder /proc/x")
        assert said.endswith("; choose a path that can be written\n")
        assert len(said.splitlines()) == 1
    with pytest.raises(gg.errors.PermissionDenied, match="makes no folder /proc/x"):
        gg.open("/proc/x")


def test_a_query_vector_is_one_list_and_k_may_be_huge(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    run("ingest", rows, "--db", db)
    np.save(tmp_path / "two.npy", np.ones((2, 4)))
    for vector in ("[[1,0,0,0],[0,1,0,0]]", "[[1,2],[3]]", '"text"', f"@{tmp_path / 'two.npy'}"):
        said = run("search", "--db", db, "--vector", vector, code=1)
        assert said.startswith("error: --vector expects a JSON array or @FILE, found ")
        assert len(said.splitlines()) == 1
    assert len(json.loads(run("search", "--db", db, "--vector", "[1,0,0,0]", "-k", 10**30, "--json"))) == 30
    assert "expects an integer of at least 1" in run("search", "--db", db, "--vector", "[1,0,0,0]", "-k", 0, code=1)


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lists_of_integers_are_vectors_where_nothing_else_is(tmp_path: Path) -> None:
    ints = write_lines(tmp_path / "ints.jsonl", {"id": 1, "v": [1, 0, 0], "n": 5}, {"id": 2, "v": [0, 1, 0], "n": 6})
    run("ingest", ints, "--db", tmp_path / "ints")
    hits = json.loads(run("search", "--db", tmp_path / "ints", "--vector", "[0,1,0]", "-k", 1, "--json"))
    assert hits == [{"id": 2, "score": 1.0, "n": 6}]
    floats = write_lines(tmp_path / "floats.jsonl", {"id": 3, "v": [0.5, 0, 1.5], "n": 5}, {"id": 4, "v": [1, 1, 1]})
    assert json.loads(run("ingest", floats, "--db", tmp_path / "ints", "--json"))["count"] == 4
    both = write_lines(
        tmp_path / "both.jsonl", {"id": 1, "v": [1.5, 0], "tags": [1, 2]}, {"id": 2, "v": [1, 0], "tags": [3, 4]}
    )
    schema = infer_schema(both, "cosine")
    assert (schema.fields, schema.vectors) == ({"tags": gg.Int(many=True)}, {"v": gg.Dense(2)})


def test_the_columns_of_vectors_may_be_named(tmp_path: Path) -> None:
    several = write_lines(
        tmp_path / "rows.jsonl",
        {"id": 1, "a": [1.5, 0], "b": [0.5, 1.0, 2.0], "c": [1, 2], "d": "x"},
        {"id": 2, "a": [0.5, 0], "b": [0.5, 1.0, 3.0], "c": [3, 4], "d": "y"},
    )
    db = tmp_path / "db"
    run("ingest", several, "--db", db, "-c", "two", "--vector", "b", "--vector", "c", "--metric", "l2")
    run("ingest", several, "--db", db, "-c", "all")
    info = json.loads(run("info", db, "--json"))
    assert {name: info[name]["vectors"].keys() for name in info} == {"two": {"b", "c"}, "all": {"a", "b"}}
    with gg.open(db, mode="r") as library:
        assert library["two"].schema.vectors == {"b": gg.Dense(3, "l2"), "c": gg.Dense(2, "l2")}
        assert library["two"].search([3, 4], using="c", k=1).ids == [2]
        assert library["all"].schema.fields["c"] == gg.Int(many=True)
    for wrong, said in (("d", "'d' expects lists of numbers of one length, found string"), ("bb", "did you mean 'b'")):
        assert said in run("ingest", several, "--db", tmp_path / "new", "--vector", wrong, code=1)
    assert not (tmp_path / "new").exists()


def test_one_collection_is_verified(tmp_path: Path, rows: Path) -> None:
    db = tmp_path / "db"
    for name in ("one", "two"):
        run("ingest", rows, "--db", db, "-c", name)
    whole, one = (json.loads(run("verify", db, *only, "--json")) for only in ((), ("-c", "one")))
    assert one["ok"]
    assert 0 < one["records"] < whole["records"]
    assert "unknown collection" in run("verify", db, "-c", "three", code=1)


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
