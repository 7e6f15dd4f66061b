"""The MCP server, asked by the client of the official SDK."""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import gingham as gg

pytest.importorskip("mcp", reason="the MCP SDK is not installed; run: make rag-check")

from mcp import Client, StdioServerParameters

from gingham.clients.rag.mcp import mcp_server

if TYPE_CHECKING:
    from pathlib import Path


def asked(database: Any, *calls: tuple[str, dict[str, Any]], writable: bool = False) -> list[Any]:
    async def run() -> list[Any]:
        async with Client(mcp_server(database, writable=writable)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            return [names, *[await client.call_tool(name, arguments) for name, arguments in calls]]

    return asyncio.run(run())


@pytest.fixture
def filled(target: Any) -> Any:
    docs = target.create_collection(
        "docs", fields={"body": gg.Text(bm25=True), "n": gg.Int()}, vectors={"dense": gg.Dense(2)}
    )
    docs.upsert(
        [{"id": "a", "body": "red apples", "n": 1, "dense": [1, 0]}, {"id": 7, "body": "pears", "dense": [0, 1]}]
    )
    docs.upsert([{"id": uuid.UUID(int=5)}])
    return target


def test_an_assistant_lists_reads_and_searches(filled: Any) -> None:
    names, listed, read, words, near, wrong = asked(
        filled,
        ("list_collections", {}),
        ("get", {"collection": "docs", "ids": ["a", 7, "absent"], "fields": ["n"]}),
        ("search", {"collection": "docs", "text": "apples", "where": "n = 1"}),
        ("search", {"collection": "docs", "vector": [0, 1], "k": 1}),
        ("search", {"collection": "docs", "text": "x", "where": "nn = 1"}),
    )
    assert names == ["list_collections", "get", "search"]
    assert listed.structured_content["result"][0]["rows"] == 3
    assert [row["id"] for row in read.structured_content["result"]] == ["a", 7]
    assert [row["body"] for row in words.structured_content["result"]] == ["red apples"]
    assert [row["id"] for row in near.structured_content["result"]] == [7]
    assert wrong.is_error
    assert "nn" in wrong.content[0].text


def test_writing_has_to_be_allowed(filled: Any) -> None:
    row = {"collection": "docs", "rows": [{"id": "b", "n": 4}]}
    (_, refused) = asked(filled, ("upsert", row))
    assert refused.is_error
    names, wrote, deleted = asked(
        filled, ("upsert", row), ("delete", {"collection": "docs", "ids": ["a", "b"]}), writable=True
    )
    assert names[-2:] == ["upsert", "delete"]
    assert wrote.structured_content["inserted"] == 1
    assert deleted.structured_content["deleted"] == 2
    assert filled["docs"].count() == 2


def test_the_command_speaks_over_standard_input_and_output(tmp_path: Path) -> None:
    with gg.open(tmp_path / "db") as db:
        db.create_collection("docs", fields={"body": gg.Text(bm25=True)}).upsert([{"id": "a", "body": "red apples"}])

    async def run() -> Any:
        command = StdioServerParameters(command=sys.executable, args=["-m", "gingham", "mcp", str(tmp_path / "db")])
        async with Client(command) as client:
            return await client.call_tool("search", {"collection": "docs", "text": "apples"})

    assert [row["id"] for row in asyncio.run(run()).structured_content["result"]] == ["a"]
