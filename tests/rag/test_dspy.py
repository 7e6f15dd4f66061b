"""The retriever of DSPy: asked itself, and as the retrieval model of DSPy's own module."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("dspy", reason="DSPy is not installed; run: make rag-check")

import dspy

from gingham.clients.rag.documents import DocumentCollection, StoredDocument
from gingham.clients.rag.dspy import GinghamRetriever
from gingham.embed import HashingEmbedder

TEXTS = ["red apples", "green pears", "blue plums"]


def test_passages_are_found_by_words_and_vectors(target: Any) -> None:
    embed = HashingEmbedder(64).embed_queries
    rows = zip("abc", TEXTS, embed(TEXTS), strict=True)
    DocumentCollection(target).write([StoredDocument(i, text, {"n": len(text)}, v) for i, text, v in rows])
    found = GinghamRetriever(target, embed, k=2)("green pears")
    assert found.passages[0] == "green pears"
    assert found.ids[0] == "b"
    assert len(found.scores) == 2
    assert GinghamRetriever(target)("pears").passages == ["green pears"]
    assert GinghamRetriever(target, embed, filters={"n": 10})("pears").ids[0] in ("a", "c")
    with dspy.context(rm=GinghamRetriever(target, embed)):
        assert dspy.Retrieve(k=1)("blue plums").passages == ["blue plums"]
