"""A vector store and a retriever of LangChain on a collection."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

from gingham.clients.rag.documents import DocumentCollection, Mode, StoredDocument
from gingham.clients.rag.extras import missing_extra
from gingham.clients.rag.langchain_filters import langchain_filter
from gingham.errors import InvalidArgument

try:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise missing_extra("langchain", error) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from langchain_core.embeddings import Embeddings


class GinghamVectorStore(VectorStore):
    """Documents with their embeddings in a collection of Gingham.

    Parameters
    ----------
    embedding : embeds documents and queries
    target : database or collection of Gingham, path, or ``"grpc://HOST:PORT"``
    collection, text_field, vector_field, metric, language : as of
        :class:`gingham.clients.rag.documents.DocumentCollection`

    Raises
    ------
    InvalidArgument : ``target`` is something else

    Notes
    -----
    ``filter=`` takes what :func:`gingham.clients.rag.langchain_filters.langchain_filter` takes. Scores are those of the
    metric: greater is better. Metadata are JSON values. The methods of asyncio run the others in threads.
    """

    def __init__(self, embedding: Embeddings, target: Any, **options: Any) -> None:
        self._embedding = embedding
        self.documents = DocumentCollection(target, **options)

    @property
    def embeddings(self) -> Embeddings:
        """What embeds documents and queries."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        target: Any = None,
        **options: Any,
    ) -> GinghamVectorStore:
        """A store of texts; ``target`` and options are those of the class."""
        if target is None:
            raise InvalidArgument(
                "from_texts() expects target= with a database, a path or grpc://HOST:PORT, found none"
            )
        store = cls(embedding, target, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and store texts in one commit, replacing those of the same id; their ids, made where there are none.

        Raises
        ------
        InvalidArgument : lists of unequal length
        SchemaMismatch : metadata that JSON does not hold
        """
        texts = list(texts)
        metadatas = [{} for _ in texts] if metadatas is None else metadatas
        given: Sequence[str | None] = [None] * len(texts) if ids is None else ids
        if not len(texts) == len(metadatas) == len(given):
            raise InvalidArgument(
                f"add_texts() expects as many metadatas and ids as texts, found {len(metadatas)} and {len(given)} "
                f"of {len(texts)}"
            )
        made = [str(uuid.uuid4()) if one is None else one for one in given]
        vectors = self._embedding.embed_documents(texts) if texts else []
        rows = zip(made, texts, metadatas, vectors, strict=True)
        self.documents.write([StoredDocument(i, text, dict(meta), vector) for i, text, meta, vector in rows])
        return made

    def delete(self, ids: list[str] | None = None, *, filter: Any = None, **kwargs: Any) -> bool:  # noqa: A002
        """Remove documents by id or by a filter; unknown ids do not matter. True when it is done.

        Raises
        ------
        InvalidArgument : neither or both are given
        """
        if (ids is None) == (filter is None):
            raise InvalidArgument("delete() expects either ids or filter=, found both or neither")
        self.documents.delete(ids=ids, where=langchain_filter(filter))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id; those that are not there are left out."""
        return [_document(found) for found in self.documents.get(ids)]

    def similarity_search(self, query: str, k: int = 4, *, filter: Any = None, **kwargs: Any) -> list[Document]:  # noqa: A002
        """Documents nearest to a text."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter=filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Any = None,  # noqa: A002
        mode: Mode = "dense",
        weight: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Documents and their scores.

        Parameters
        ----------
        filter : what documents have to meet
        mode : ``"dense"`` (default), ``"text"`` by BM25, or ``"hybrid"`` of both
        weight : of the vector in hybrid mode, from 0 to 1; None fuses by ranks
        """
        vector = None if mode == "text" else self._embedding.embed_query(query)
        found = self.documents.search(
            k=k, vector=vector, text=query, mode=mode, weight=weight, where=langchain_filter(filter)
        )
        return [(_document(document), score) for document, score in found]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Any = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Documents nearest to a vector."""
        found = self.documents.search(k=k, vector=embedding, where=langchain_filter(filter))
        return [_document(document) for document, _ in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Documents near to a text and unlike each other; see :meth:`max_marginal_relevance_search_by_vector`."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Any = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Documents near to a vector and unlike each other.

        Parameters
        ----------
        fetch_k : documents to choose from
        lambda_mult : 1 looks at nearness alone, 0 at difference alone
        """
        found = self.documents.search(
            k=k,
            vector=embedding,
            where=langchain_filter(filter),
            diversity=1 - lambda_mult,
            candidates=max(k, fetch_k, 1),
        )
        return [_document(document) for document, _ in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.documents.stored_metric() == "l2":
            # LangChain's own for distances of vectors of length one; scores are negative squared distances.
            return lambda score: 1 - math.sqrt(max(0.0, -score)) / math.sqrt(2)
        return lambda score: score


class GinghamRetriever(BaseRetriever):
    """Documents for a query, by vectors, words or both.

    Attributes
    ----------
    store : where the documents are
    k : documents returned at most, default 4
    mode : ``"hybrid"`` (default) fuses vectors and BM25; ``"dense"``, ``"text"``
    weight : of the vector in hybrid mode, from 0 to 1; None (default) fuses by reciprocal ranks
    filter : what documents have to meet; given with a call it replaces this one
    """

    store: GinghamVectorStore
    k: int = 4
    mode: Mode = "hybrid"
    weight: float | None = None
    filter: Any = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: Any = None,
        k: int | None = None,
        filter: Any = None,  # noqa: A002
    ) -> list[Document]:
        return self.store.similarity_search(
            query,
            self.k if k is None else k,
            filter=self.filter if filter is None else filter,
            mode=self.mode,
            weight=self.weight,
        )


def _document(found: StoredDocument) -> Document:
    return Document(id=str(found.id), page_content=found.text or "", metadata=found.metadata)
