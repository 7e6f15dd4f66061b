"""The backends of Haystack: its own tests, retrievers and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("haystack", reason="Haystack is not installed; run: make rag-check")

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as kit
from haystack.testing import document_store_async as async_kit
from haystack.utils.filters import document_matches_filter

from gingham.clients.rag.haystack import (
    GinghamBM25Retriever,
    GinghamDocumentStore,
    GinghamEmbeddingRetriever,
    GinghamHybridRetriever,
)
from gingham.errors import NotReady

if TYPE_CHECKING:
    from pathlib import Path


class Likeness:
    """Documents come back by id, embeddings as float32."""

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        def plain(documents: list[Document]) -> list[dict[str, Any]]:
            out = [document.to_dict(flatten=False) for document in sorted(documents, key=lambda d: d.id)]
            for one in out:
                one["embedding"] = None if one["embedding"] is None else np.float32(one["embedding"]).tolist()
            return out

        assert plain(received) == plain(expected)


class TestDocumentStore(Likeness, kit.DocumentStoreBaseExtendedTests, kit.CountDocumentsByFilterTest):
    @pytest.fixture
    def document_store(self, target: Any) -> GinghamDocumentStore:
        return GinghamDocumentStore(target)

    def test_write_documents(self, document_store: GinghamDocumentStore) -> None:
        assert document_store.write_documents([Document(id="1", content="text")]) == 1
        with pytest.raises(kit.DuplicateDocumentError):
            document_store.write_documents([Document(id="1", content="other")])


class TestDocumentStoreAsync(
    Likeness, async_kit.CountDocumentsAsyncTest, async_kit.WriteDocumentsAsyncTest, async_kit.DeleteDocumentsAsyncTest,
    async_kit.FilterDocumentsAsyncTest, async_kit.DeleteAllAsyncTest, async_kit.DeleteByFilterAsyncTest,
    async_kit.UpdateByFilterAsyncTest, async_kit.CountDocumentsByFilterAsyncTest,
):  # fmt: skip
    @pytest.fixture
    def document_store(self, target: Any) -> GinghamDocumentStore:
        return GinghamDocumentStore(target)

    async def test_write_documents_async(self, document_store: GinghamDocumentStore) -> None:
        assert await document_store.write_documents_async([Document(id="1", content="text")]) == 1


def test_retrievers_find_by_embedding_words_and_both(target: Any) -> None:
    store = GinghamDocumentStore(target)
    blob = ByteStream(b"\x00\xff", mime_type="image/png")
    store.write_documents([
        Document(id="a", content="red apples", meta={"n": 1}, embedding=[1.0, 0.0]),
        Document(id="b", content="green pears", meta={"n": 2}, embedding=[0.0, 1.0], blob=blob),
    ])  # fmt: skip
    pipeline = Pipeline()
    pipeline.add_component("near", GinghamEmbeddingRetriever(store, top_k=1, return_embedding=True))
    pipeline.add_component(
        "words", GinghamBM25Retriever(store, filters={"field": "meta.n", "operator": ">", "value": 0})
    )
    pipeline.add_component("both", GinghamHybridRetriever(store))
    vector = [0.1, 1.0]
    found = pipeline.run({
        "near": {"query_embedding": vector}, "words": {"query": "apples"},
        "both": {"query": "pears", "query_embedding": vector},
    })  # fmt: skip
    assert [d.id for d in found["near"]["documents"]] == ["b"]
    assert found["near"]["documents"][0].blob == blob
    assert found["near"]["documents"][0].embedding == [0.0, 1.0]
    assert [d.id for d in found["words"]["documents"]] == ["a"]
    assert [d.id for d in found["both"]["documents"]] == ["b", "a"]


@pytest.mark.parametrize("sign", ["==", "!=", ">", ">=", "<", "<=", "in", "not in"])
def test_filters_select_what_haystack_itself_selects(db: Any, metadatas: list[dict[str, Any]], sign: str) -> None:
    store = GinghamDocumentStore(db)
    documents = [Document(id=f"{at:02}", content="x", meta=meta) for at, meta in enumerate(metadatas)]
    store.write_documents(documents)
    compared = 0
    for key in ("a", "n", "a.b", "a.c.d", "absent"):
        words = () if sign[0] in "<>" else ("x", "y", "1")  # ordering by them is refused, also where no row has the key
        for one in (2, 2.5, -3, "2024-01-05", None, *words):
            filters = {"field": f"meta.{key}", "operator": sign, "value": [one, "x"] if "in" in sign else one}
            try:
                expected = [d.id for d in documents if document_matches_filter(filters, d)]
            except (FilterError, TypeError):
                continue  # values of another kind, which ours leaves out
            assert [d.id for d in store.filter_documents(filters)] == expected, filters
            compared += 1
    assert compared >= 8


def test_a_retriever_of_a_path_is_serialized_with_its_store(tmp_path: Path) -> None:
    store = GinghamDocumentStore(str(tmp_path / "docs"), collection="notes")
    store.write_documents([Document(id="a", content="red apples")], DuplicatePolicy.SKIP)
    again = GinghamBM25Retriever.from_dict(GinghamBM25Retriever(store, top_k=3).to_dict())
    assert [d.id for d in again.run("apples")["documents"]] == ["a"]
    assert again.top_k == 3
    again.document_store.documents.close()
    store.documents.close()
    with pytest.raises(NotReady, match="open database"):
        GinghamDocumentStore(store.documents._database).to_dict()
