"""The backends of LangChain: its own tests, filters and hybrid search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain_core", reason="LangChain is not installed; run: make rag-check")
pytest.importorskip("langchain_tests", reason="the tests of LangChain are not installed; run: make rag-check")

from langchain_core.structured_query import Comparator, Comparison, Operation, Operator
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from gingham.clients.rag.langchain import GinghamRetriever, GinghamVectorStore
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from langchain_core.retrievers import BaseRetriever

EMBEDDING = VectorStoreIntegrationTests.get_embeddings()
TEXTS = ["red apples", "green pears", "red cherries", "blue plums"]
METADATAS = [{"n": 1, "in": ["tart"]}, {"n": 2}, {"n": 3.5, "in": ["tart", "cake"]}, {"n": "many"}]


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, target: Any) -> GinghamVectorStore:
        return GinghamVectorStore(self.get_embeddings(), target)


@pytest.fixture
def store(target: Any) -> GinghamVectorStore:
    return GinghamVectorStore.from_texts(TEXTS, EMBEDDING, METADATAS, ids=list("abcd"), target=target)


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, store: GinghamVectorStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return GinghamRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "red fruit"


def test_filters_select_before_documents_are_scored(store: GinghamVectorStore) -> None:
    def found(given: Any) -> list[str]:
        return sorted(str(d.id) for d in store.similarity_search("fruit", k=9, filter=given))

    n_above_1 = Comparison(comparator=Comparator.GT, attribute="n", value=1)
    tart = Comparison(comparator=Comparator.CONTAIN, attribute="in", value="tart")
    assert found(n_above_1) == ["b", "c"]
    assert found(Operation(operator=Operator.AND, arguments=[n_above_1, tart])) == ["c"]
    assert found({"n": {"$gt": 1}, "in": {"$contains": "cake"}}) == ["c"]
    assert found({"$not": {"n": {"$in": [1, 2]}}}) == ["c", "d"]
    assert found({}) == ["a", "b", "c", "d"]
    with pytest.raises(InvalidArgument, match="expects eq, ne"):
        found({"n": {"$regex": "x"}})
    assert store.delete(filter={"n": "many"}) is True
    assert found(None) == ["a", "b", "c"]


def test_words_and_vectors_are_searched_alone_or_fused(store: GinghamVectorStore) -> None:
    words = store.similarity_search_with_score("pears", mode="text")
    assert [d.id for d, _ in words] == ["b"]
    exact = store.similarity_search_with_score("green pears", k=1)
    assert exact[0][0].id == "b"
    assert exact[0][1] == pytest.approx(1.0, abs=1e-5)
    hybrid = GinghamRetriever(store=store, k=2, weight=0.5).invoke("green pears")
    assert hybrid[0].metadata == {"n": 2}
    assert (
        store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4}).invoke("green pears")[0].id == "b"
    )
    assert store.similarity_search_with_relevance_scores("green pears", k=1)[0][1] == pytest.approx(1.0, abs=1e-5)
