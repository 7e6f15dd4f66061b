"""The console: its JSON is the same of both kinds of databases, safe, and drawn by a browser."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

import gingham as gg
from gingham.cli import app
from gingham.clients.console.app import STATUSES, console_app
from gingham.clients.console.plane import principal_plane
from gingham.embed import HashingEmbedder
from gingham.errors import MissingExtra, Unavailable
from gingham.server.keys import create_key
from gingham.server.main import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "<img src=x onerror=\"document.title='bad'\">"
LARGE = (1 << 60) + 1


def fill(database: gg.Database) -> None:
    rng = np.random.default_rng(5)
    docs = database.create_collection(
        "docs",
        fields={"body": gg.Text(bm25=True), "lang": gg.Keyword(), "year": gg.Int(), "extra": gg.Json()},
        vectors={"dense": gg.Dense(16)},
    )
    ids: list[Any] = [HOSTILE, LARGE, uuid.UUID(int=5), b"\x00\xff", *(f"d{i}" for i in range(60)), "7", 7]
    docs.upsert([
        {"id": user_id, "body": f"word{at} {HOSTILE} shared", "lang": ["en", "de", HOSTILE, None][at % 4],
         "year": LARGE if at == 1 else at, "extra": {"n": [at]}, "dense": rng.standard_normal(16)}
        for at, user_id in enumerate(ids)
    ])  # fmt: skip
    docs.upsert([{"id": "no vector", "body": "long " * 1000}])
    database.create_collection("empty")


def client(database: Any, **settings: Any) -> TestClient:
    return TestClient(console_app(database, name="library", **settings), base_url="http://127.0.0.1:7444")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("console") / "db"
    with gg.open(path) as database:
        fill(database)
    return path


@pytest.fixture
def filled(folder: Path) -> Iterator[gg.Database]:
    with gg.open(folder, mode="r") as database:
        yield database


@pytest.fixture
def page(filled: gg.Database) -> TestClient:
    return client(filled)


def asked(page: TestClient, path: str, status: int = 200, **question: Any) -> Any:
    answer = page.post(f"/api/{path}", json={"collection": "docs", **question})
    assert answer.status_code == status, answer.text
    return answer.json()


def timeless(answer: Any) -> Any:
    """An answer without what a clock said."""
    if isinstance(answer, dict):
        times = ("milliseconds", "seconds", "exact_seconds", "median", "p99", "slowest")
        return {key: timeless(value) for key, value in answer.items() if key not in times}
    return [timeless(one) for one in answer] if isinstance(answer, list) else answer


def test_an_embedded_database_and_a_served_one_give_the_same_json(filled: gg.Database, page: TestClient) -> None:
    questions: list[tuple[str, dict[str, Any]]] = [
        ("search", {"text": "word3 shared", "using": "body", "where": "year < 50", "k": 7}),
        ("search", {"like": {"text": str(LARGE), "kind": "int"}, "using": "dense"}),
        ("map", {"colour": "lang", "n": 20}),
        ("map", {"where": "year < 9"}),
        ("recall", {"n": 20, "k": 5}),
        ("latency", {"n": 5}),
        ("search", {"text": "x", "where": "yaer > 1"}),
        ("search", {"like": {"text": "absent"}}),
        ("map", {"collection": "empty"}),
        ("recall", {"collection": "absent"}),
    ]
    with Server(filled, listen="127.0.0.1:0", max_workers=2) as server, gg.open(server.url, mode="r") as remote:
        other = client(remote)
        assert page.get("/api/collections").json() == other.get("/api/collections").json()
        for path, question in questions:
            one, two = (each.post(f"/api/{path}", json={"collection": "docs", **question}) for each in (page, other))
            assert one.status_code == two.status_code
            assert timeless(one.json()) == timeless(two.json())


def test_the_overview_says_what_a_collection_can_be_asked(page: TestClient, filled: gg.Database) -> None:
    overview = page.get("/api/collections").json()
    docs, empty = overview["collections"]
    assert (overview["name"], overview["version"]) == ("library", gg.__version__)
    assert (docs["rows"], docs["figures"]["rows"], docs["colours"]) == (67, 67, ["lang", "year"])
    assert docs["ways"] == [{"by": "words", "using": "body"}, {"by": "like", "using": "dense"}]
    assert empty["ways"] == []
    embedding = client(filled, embedder=HashingEmbedder(dim=16))
    assert {"by": "meaning", "using": "dense"} in embedding.get("/api/collections").json()["collections"][0]["ways"]
    hits = asked(embedding, "search", text="word3", using="dense", k=3)["hits"]
    wanted = filled.collection("docs", embedder=HashingEmbedder(dim=16)).search("word3", using="dense", k=3)
    assert [hit["score"] for hit in hits] == wanted.scores.tolist()


def test_hits_are_those_of_the_library_in_what_javascript_can_hold(filled: gg.Database, page: TestClient) -> None:
    answer = asked(page, "search", text="word1 shared", using="body", k=100)
    wanted = filled["docs"].search("word1 shared", using="body", k=100)
    assert [hit["score"] for hit in answer["hits"]] == wanted.scores.tolist()
    first = answer["hits"][0]
    assert first["id"] == {"text": str(LARGE), "kind": "int"}
    assert (first["fields"]["year"], first["fields"]["extra"]) == (str(LARGE), '{"n":[1]}')
    assert [step["label"] for step in answer["steps"]] == [label for label, _ in wanted.explain().root.lines()]
    assert answer["why"] == wanted.complete.why
    cut = asked(page, "search", text="long", using="body")["hits"][0]["fields"]["body"]
    assert (len(cut), cut[-1]) == (2001, "…")


@pytest.mark.parametrize("kind", ["str", "int", "uuid", "bytes", None])
def test_rows_are_found_by_likeness_to_an_id_of_any_kind(
    filled: gg.Database, page: TestClient, kind: str | None
) -> None:
    stored: dict[Any, tuple[Any, str]] = {
        "str": ("7", "7"), "int": (7, "7"), "uuid": (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        "bytes": (b"\x00\xff", "00ff"), None: (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    }  # fmt: skip
    user_id, text = stored[kind]
    hits = asked(page, "search", like={"text": text, "kind": kind}, k=5)["hits"]
    assert [hit["score"] for hit in hits] == filled["docs"].query(gg.like(user_id).limit(5)).scores.tolist()


def test_a_map_shows_rows_that_have_a_vector_in_the_plane_of_a_singular_value_decomposition(
    filled: gg.Database, page: TestClient
) -> None:
    answer = asked(page, "map", colour="year")
    assert (answer["rows"], answer["first"], len(answer["ids"])) == (67, 67, 66)
    rows = [row for row in filled["docs"].scan(include_vectors=True) if row["dense"] is not None]
    assert answer["values"] == [row["year"] if row["year"] != LARGE else str(LARGE) for row in rows]
    vectors = np.array([row["dense"] / np.linalg.norm(row["dense"]) for row in rows], np.float64)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    found = np.abs(np.column_stack([answer["x"], answer["y"]]))
    np.testing.assert_allclose(found, np.abs(left[:, :2] * values[:2]), atol=1e-4)
    np.testing.assert_allclose(answer["shares"], (values**2 / (values**2).sum())[:2], atol=1e-4)
    assert len(asked(page, "map", n=10, where="year < 30")["ids"]) == 10


@pytest.mark.parametrize(("n", "dim"), [(1, 3), (5, 1), (4, 9), (9, 4), (3, 2)])
def test_the_plane_keeps_as_much_variance_as_it_says(n: int, dim: int) -> None:
    vectors = np.random.default_rng(n).standard_normal((n, dim))
    points, shares = principal_plane(vectors)
    assert points.shape == (n, 2)
    total = np.square(vectors - vectors.mean(axis=0)).sum()
    np.testing.assert_allclose(np.square(points).sum(axis=0), shares * total, atol=1e-9)
    assert shares[0] >= shares[1] >= 0
    assert shares.sum() <= 1 + 1e-9
    if min(n - 1, dim) == 2:
        assert math.isclose(shares.sum(), 1)


def test_errors_are_messages_with_a_status_and_never_a_path(filled: gg.Database, page: TestClient) -> None:
    wrong: list[tuple[int, str, dict[str, Any]]] = [
        (400, "search", {}),
        (400, "search", {"text": "x", "like": {"text": "d1"}}),
        (400, "search", {"text": "x", "k": 101}),
        (400, "search", {"text": "x", "k": "many"}),
        (400, "search", {"text": "x", "ef": 3}),
        (400, "search", {"text": "x", "where": "year >"}),
        (400, "search", {"like": {"text": "x", "kind": "int"}}),
        (400, "search", {"like": {"text": ""}}),
        (404, "search", {"like": {"text": "absent"}}),
        (404, "map", {"collection": "absent"}),
        (400, "map", {"colour": "absent"}),
        (400, "map", {"using": "body"}),
        (400, "map", {"n": 3001}),
        (400, "map", {"where": "year = 10000"}),
        (400, "latency", {"collection": "empty"}),
        (400, "recall", {"n": 1001}),
        (400, "search", {"text": "\ud800", "using": "body"}),
        (409, "search", {"text": "x", "using": "dense"}),
    ]
    for status, path, question in wrong:
        answer = page.post(
            f"/api/{path}",
            content=json.dumps({"collection": "docs", **question}),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == status, (question, answer.text)
        assert answer.json()["error"]
        assert "Traceback" not in answer.text
    filled.close()
    told = asked(page, "search", 409, text="x", using="body")
    assert told["kind"] == "Closed"
    assert "the database" in told["error"]
    assert str(filled.path) not in told["error"]


def test_every_error_of_gingham_has_a_status() -> None:
    kinds, found = [gg.GinghamError], []
    while kinds:
        kind = kinds.pop()
        found.append(kind)
        kinds += kind.__subclasses__()
    assert {kind.grpc_code for kind in found} <= set(STATUSES)


def test_a_failure_that_nobody_foresaw_is_logged_and_not_told(
    page: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(gg.Collection, "recall", fail)
    with caplog.at_level(logging.ERROR, "gingham.console"):
        answer = asked(page, "recall", 500)
    assert "secret" not in str(answer)
    assert "secret" in caplog.text


def test_other_sites_cannot_ask(page: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:7444", "", "localhost@evil.example", "10.0.0.1"):
        for path in ("/", "/api/collections"):
            assert page.get(path, headers={"Host": host}).status_code == 400
    assert page.get("/api/collections", headers={"Host": "localhost:7444"}).status_code == 200
    body = json.dumps({"collection": "docs", "text": "word1"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert page.post("/api/search", content=body, headers={"Content-Type": kind}).status_code == 415
    assert page.get("/api/search").status_code == 405
    assert asked(page, "search", 413, text="x" * (1 << 20))["error"]


def test_every_response_tells_browsers_to_run_nothing_else(page: TestClient) -> None:
    for path in ("/", "/page.css", "/page.js", "/api/collections", "/absent"):
        headers = page.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
    script = page.get("/page.js").text
    assert not any(markup in script for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"))
    for path in ("/", "/page.css", "/page.js"):
        text = page.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "gingham.clients.console.app")
    with pytest.raises(MissingExtra, match=r"pip install 'gingham\[console\]'$"):
        __import__("gingham.clients.console.app")


def test_a_key_with_a_filter_shows_its_rows_and_no_figures(filled: gg.Database, tmp_path: Path) -> None:
    token, _ = create_key(tmp_path / "keys.jsonl", scope="read", collections=("docs",), filter="lang = 'en'")
    with (
        Server(filled, listen="127.0.0.1:0", max_workers=2, keys=tmp_path / "keys.jsonl") as server,
        gg.open(server.url, mode="r", token=token) as remote,
    ):
        page = client(remote)
        (docs,) = page.get("/api/collections").json()["collections"]
        rows = filled["docs"].count(where="lang = 'en'")
        assert (docs["name"], docs["rows"], docs["figures"]) == ("docs", rows, None)
        found = asked(page, "map", colour="lang")
        assert (found["rows"], set(found["values"])) == (rows, {"en"})
        assert asked(page, "latency", n=3)["queries"] == 3
        assert asked(page, "recall")["queries"] == rows
        assert asked(page, "search", 403, collection="empty", text="x")["kind"] == "PermissionDenied"


def test_the_command_says_where_the_page_is_and_ends_when_told(folder: Path) -> None:
    command = [sys.executable, "-c", "from gingham.cli import main; main()", "console", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, url = re.fullmatch(r"showing (\S+) at (http://127\.0\.0\.1:\d+)\n", process.stdout.readline()).groups()  # type: ignore[union-attr]
        try:
            with urllib.request.urlopen(f"{url}/api/collections") as answer:
                assert json.load(answer)["name"] == name == folder.name
            taken = CliRunner().invoke(app, ["console", str(folder), "--port", url.rpartition(":")[2]])
            assert isinstance(taken.exception, Unavailable)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.communicate() == ("", "")


@pytest.fixture
def address(filled: gg.Database) -> Iterator[str]:
    config = uvicorn.Config(console_app(filled, name="library"), port=0, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_a_browser_searches_draws_and_measures(address: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed, such as by: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.get_by_label("Words").fill("word0")
        page.get_by_label("Explain").check()
        page.get_by_role("button", name="Search").click()
        row = page.locator("#hits tbody tr").first
        assert HOSTILE in row.inner_text()
        assert "match" in page.locator("#steps").inner_text()
        page.get_by_label("Colour by").select_option("lang")
        page.get_by_role("button", name="Draw").click()
        page.locator("#plot circle").first.wait_for()
        assert page.locator("#plot circle").count() == 66
        assert page.locator("#plot circle.hit").count() == 1
        page.locator("#plot circle.hit").hover()
        assert page.locator("#hovered").inner_text().startswith(HOSTILE)
        assert HOSTILE in page.locator("#legend").inner_text()
        row.get_by_role("button").click()
        page.get_by_text("10 hits in").wait_for()
        assert page.get_by_label("Id of a row").input_value() == HOSTILE
        for form in ("recall", "latency"):
            page.locator(f"#{form} button").click()
            page.locator(f"#{form}-figures dd").first.wait_for()
        assert "100.0 %" in page.locator("#recall-figures").inner_text()
        assert "2" in page.locator("#own-figures").inner_text()
        assert page.title() == "Gingham console"
        assert said == []
        page.get_by_label("Filter").fill("yaer > 1")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("did you mean").or_(page.locator("#search-status.bad")).first.wait_for()
        assert "yaer" in page.locator("#search-status").inner_text()
        page.get_by_role("button", name="empty").click()
        assert page.locator("#search").is_hidden()
        browser.close()
