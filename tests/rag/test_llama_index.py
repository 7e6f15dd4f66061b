"""The backend of LlamaIndex: an index and its retriever, modes, filters and deletes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed; run: make rag-check")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from gingham.clients.rag.llama_index import GinghamVectorStore
from gingham.errors import InvalidArgument

METADATAS: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["a", "b"]}, {"year": 2021.5, "lang": "de", "tags": ["b"]},
    {"year": 2022, "lang": "", "tags": []}, {"lang": "en"}, {"year": None, "tags": ["c"], "lang": "fr"},
]  # fmt: skip


def nodes() -> list[TextNode]:
    out = []
    for at, metadata in enumerate(METADATAS):
        node = TextNode(id_=f"n{at}", text=f"words of node {at}", metadata=metadata)
        node.embedding = np.eye(5, dtype=np.float32)[at].tolist()
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{at // 2}")
        out.append(node)
    return out


@pytest.fixture
def store(target: Any) -> GinghamVectorStore:
    made = GinghamVectorStore(target)
    assert made.query(VectorStoreQuery(query_embedding=[1.0] * 5)).ids == []
    assert made.add(nodes()) == ["n0", "n1", "n2", "n3", "n4"]
    return made


def test_nodes_come_back_as_they_were(store: GinghamVectorStore) -> None:
    assert store.get_nodes(["n1"]) == nodes()[1:2]
    assert [n.node_id for n in store.get_nodes()] == ["n0", "n1", "n2", "n3", "n4"]


def test_filters_select_what_the_own_store_of_llama_index_selects(store: GinghamVectorStore) -> None:
    peer = SimpleVectorStore()
    peer.add(nodes())
    op = FilterOperator
    filters = [
        MetadataFilter(key="year", value=2020), MetadataFilter(key="year", value=2020, operator=op.NE),
        MetadataFilter(key="year", value=2020.5, operator=op.GT), MetadataFilter(key="year", value=2022, operator=op.LT),
        MetadataFilter(key="lang", value="en"), MetadataFilter(key="lang", value=["en", "de"], operator=op.IN),
        MetadataFilter(key="lang", value=["en"], operator=op.NIN), MetadataFilter(key="tags", value=None, operator=op.IS_EMPTY),
        MetadataFilter(key="lang", value=None, operator=op.IS_EMPTY), MetadataFilter(key="tags", value="b", operator=op.CONTAINS),
        MetadataFilter(key="tags", value=["a", "c"], operator=op.ANY), MetadataFilter(key="tags", value=["a", "b"], operator=op.ALL),
        MetadataFilter(key="absent", value="x", operator=op.NE), MetadataFilter(key="year", value=None),
    ]  # fmt: skip
    for condition in FilterCondition:
        for at, one in enumerate(filters):
            given = MetadataFilters(filters=[one, filters[at - 5]], condition=condition)
            query = VectorStoreQuery(query_embedding=[1.0] * 5, similarity_top_k=9, filters=given)
            assert sorted(store.query(query).ids) == sorted(peer.query(query).ids), given


def test_text_match_is_refused(store: GinghamVectorStore) -> None:
    given = MetadataFilters(filters=[MetadataFilter(key="lang", value="e", operator=FilterOperator.TEXT_MATCH)])
    with pytest.raises(InvalidArgument, match="text_search"):
        store.get_nodes(filters=given)


def test_modes_search_vectors_words_or_both(store: GinghamVectorStore) -> None:
    def found(mode: str, **settings: Any) -> list[str]:
        vector = [0.1, 0.9, 0.0, 0.0, 0.0]
        query = VectorStoreQuery(
            query_embedding=vector, query_str="3", similarity_top_k=2, mode=VectorStoreQueryMode(mode), **settings
        )
        return list(store.query(query).ids)

    assert found("default") == ["n1", "n0"]
    assert found("text_search") == ["n3"]
    assert found("hybrid")[0] == "n3"
    assert found("hybrid", alpha=1.0)[0] == "n1"
    assert found("hybrid", alpha=0.0)[0] == "n3"
    assert found("mmr", mmr_threshold=1.0) == ["n1", "n0"]
    assert found("default", node_ids=["n4", "n0"]) == ["n0", "n4"]
    assert found("default", doc_ids=["doc1"]) == ["n2", "n3"]
    with pytest.raises(InvalidArgument, match="mode"):
        found("svm")


def test_nodes_are_deleted_by_document_id_and_filter(store: GinghamVectorStore) -> None:
    store.delete("doc0")
    assert [n.node_id for n in store.get_nodes()] == ["n2", "n3", "n4"]
    store.delete_nodes(["n2", "n3"], MetadataFilters(filters=[MetadataFilter(key="lang", value="en")]))
    assert [n.node_id for n in store.get_nodes()] == ["n2", "n4"]
    store.clear()
    assert store.get_nodes() == []


def test_an_index_of_llama_index_retrieves_from_it(target: Any) -> None:
    context = StorageContext.from_defaults(vector_store=GinghamVectorStore(target))
    index = VectorStoreIndex(nodes()[:3], storage_context=context, embed_model=MockEmbedding(5))
    assert len(index.as_retriever(similarity_top_k=2).retrieve("words")) == 2
