"""Targets of the backends: an embedded database, and the same behind gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gingham as gg
from gingham.server.main import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["embedded", "grpc"])
def target(request: pytest.FixtureRequest, db: gg.Database) -> Iterator[Any]:
    """A database, embedded and then remote: a test that takes it runs with each."""
    if request.param == "embedded":
        yield db
        return
    with Server(db, listen="127.0.0.1:0", max_workers=2) as server, gg.open(f"grpc://{server.address}") as remote:
        yield remote


@pytest.fixture
def metadatas() -> list[dict[str, Any]]:
    """Values of every kind under one key, other keys beside it."""
    values = [
        1, 1.0, 2.5, -3, 2**70, "x", "", "2024-01-05", "2024-01-05T00:00:00", "2024-03-01T12:00:00+02:00", True, [1, "x"],
        [], {"b": 1, "c": {"d": "y"}}, None, ["y", 0.5], "1",
    ]  # fmt: skip
    return [{"a": value, "n": at} for at, value in enumerate(values)] + [{"other key.ü": "x"}, {}]
