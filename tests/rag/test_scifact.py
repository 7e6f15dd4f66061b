"""Retrieval-augmented generation from end to end: SciFact, a retriever, a prompt, and a stub in place of a model."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="LangChain is not installed; run: make rag-check")

from langchain_core.embeddings import Embeddings
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from gingham.clients.rag.langchain import GinghamRetriever, GinghamVectorStore
from gingham.demo.dataset import load_scifact


class Stored(Embeddings):
    """Vectors that the data brings along."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[text]


def test_claims_are_answered_from_the_abstracts_that_judge_them(target: Any) -> None:
    data = load_scifact()
    rows = range(1000)
    texts = [f"{data.titles[row]}\n{data.texts[row]}" for row in rows]
    vectors = {text: data.vectors[row].tolist() for row, text in enumerate(texts)}
    claims = {c: v.tolist() for c, v in zip(data.queries, data.query_vectors, strict=True)}
    there = set(data.ids[:1000])
    asked = [(q, c) for q, c in zip(data.query_ids, data.queries, strict=True) if set(data.qrels.get(q, ())) & there][
        :30
    ]
    metadatas = [{"doc": data.ids[row]} for row in rows]
    store = GinghamVectorStore.from_texts(texts, Stored(vectors | claims), metadatas, target=target)

    prompt = PromptTemplate.from_template("Passages:\n{context}\n\nClaim: {claim}\nWhich passage judges it?")
    stub = RunnableLambda(lambda p: p.to_string().split("[")[1].split("]")[0])  # names the first passage
    joined = RunnableLambda(lambda found: "\n".join(f"[{d.metadata['doc']}] {d.page_content}" for d in found))
    retriever = GinghamRetriever(store=store, k=3)
    chain = {"context": retriever | joined, "claim": RunnablePassthrough()} | prompt | stub
    right = [chain.invoke(claim) in data.qrels[query] for query, claim in asked]
    assert len(asked) == 30
    assert sum(right) / 30 >= 0.7
