"""A document store and retrievers of Haystack on a collection."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Self

from gingham.clients.rag.documents import DocumentCollection, Mode, StoredDocument
from gingham.clients.rag.extras import missing_extra
from gingham.clients.rag.haystack_filters import haystack_filter
from gingham.errors import InvalidArgument, NotReady

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
    from haystack.document_stores.types.filter_policy import apply_filter_policy
    from haystack.errors import FilterError
except ImportError as error:
    raise missing_extra("haystack", error) from error

if TYPE_CHECKING:
    from gingham.query.ast import Node


class GinghamDocumentStore:
    """Documents of Haystack in a collection of Gingham.

    Parameters
    ----------
    target : database or collection of Gingham, path, or ``"grpc://HOST:PORT"``; only the last two can be serialized
    options : ``collection``, ``text_field``, ``vector_field``, ``metric``, ``language``, as of
        :class:`gingham.clients.rag.documents.DocumentCollection`

    Notes
    -----
    Filters are those of Haystack; one that has no counterpart raises its ``FilterError``. Embeddings are stored as
    float32. The methods of asyncio run the others in threads.
    """

    def __init__(self, target: Any, **options: Any) -> None:
        self._target, self._options = target, options
        self.documents = DocumentCollection(target, **options)

    def to_dict(self) -> dict[str, Any]:
        """The store as plain values; raises NotReady where it was given an open database."""
        if not isinstance(self._target, (str, os.PathLike)):
            raise NotReady("to_dict() expects a store of a path or grpc://HOST:PORT, found one of an open database")
        return dict(default_to_dict(self, target=os.fspath(self._target), **self._options))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Invert :meth:`to_dict`."""
        made: Self = default_from_dict(cls, data)
        return made

    def count_documents(self) -> int:
        """How many documents there are."""
        return self.documents.count()

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents a filter selects."""
        return self.documents.count(self._where(filters))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Documents that a filter selects, with their embeddings, by id."""
        return [_document(found) for found in self.documents.scan(self._where(filters), include_vectors=True)]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Store documents in one commit; how many were written.

        Parameters
        ----------
        policy : ``FAIL`` (also ``NONE``) raises DuplicateDocumentError where an id is there, ``SKIP`` keeps and
            ``OVERWRITE`` replaces the document that is there

        Raises
        ------
        InvalidArgument : something else than a list of documents
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise InvalidArgument(f"write_documents() expects a list of documents, found {documents!r:.80}")
        chosen: dict[str, Document] = {}
        known = set() if policy == DuplicatePolicy.OVERWRITE else self._known([one.id for one in documents])
        for one in documents:
            if policy != DuplicatePolicy.OVERWRITE and (one.id in known or one.id in chosen):
                if policy == DuplicatePolicy.SKIP:
                    continue
                raise DuplicateDocumentError(
                    f"write_documents() expects new ids, found {one.id!r} again; pass DuplicatePolicy.SKIP or OVERWRITE"
                )
            chosen[one.id] = one
        self.documents.write([_stored(one) for one in chosen.values()])
        return len(chosen)

    def _known(self, ids: list[str]) -> set[str]:
        return {found.id for found in self.documents.get(ids)}

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id; unknown ids do not matter."""
        self.documents.delete(ids=document_ids)

    def delete_all_documents(self) -> None:
        """Remove all documents; the collection stays."""
        self.documents.delete(where="TRUE")

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Remove the documents that a filter selects; how many there were."""
        return self.documents.delete(where=self._where(filters) or "TRUE")

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set keys of the metadata of the documents that a filter selects; how many there were."""
        found = self.filter_documents(filters)
        for document in found:
            document.meta.update(meta)
        self.write_documents(found, DuplicatePolicy.OVERWRITE)
        return len(found)

    def retrieve(
        self,
        *,
        top_k: int,
        embedding: list[float] | None = None,
        query: str | None = None,
        mode: Mode = "dense",
        weight: float | None = None,
        filters: dict[str, Any] | None = None,
        return_embedding: bool = False,
    ) -> list[Document]:
        """Documents for a query, best first; see :meth:`gingham.clients.rag.documents.DocumentCollection.search`."""
        found = self.documents.search(
            k=top_k,
            vector=embedding,
            text=query,
            mode=mode,
            weight=weight,
            where=self._where(filters),
            include_vectors=return_embedding,
        )
        return [_document(one, score) for one, score in found]

    async def count_documents_async(self) -> int:
        """As :meth:`count_documents`."""
        return await asyncio.to_thread(self.count_documents)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """As :meth:`count_documents_by_filter`."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """As :meth:`filter_documents`."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """As :meth:`write_documents`."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """As :meth:`delete_documents`."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self) -> None:
        """As :meth:`delete_all_documents`."""
        await asyncio.to_thread(self.delete_all_documents)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """As :meth:`delete_by_filter`."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """As :meth:`update_by_filter`."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    def _where(self, filters: dict[str, Any] | None) -> Node | None:
        try:
            return haystack_filter(filters, text_field=self.documents.text_field)
        except InvalidArgument as error:
            raise FilterError(str(error)) from error


class _Retriever:
    """What the retrievers share: their settings, and how they are serialized."""

    def __init__(
        self,
        document_store: GinghamDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, GinghamDocumentStore):
            raise InvalidArgument(f"a retriever expects a GinghamDocumentStore, found {type(document_store).__name__}")
        self.document_store, self.filters, self.top_k = document_store, filters, top_k
        self.return_embedding, self.filter_policy = return_embedding, filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The retriever as plain values."""
        settings = {
            **vars(self),
            "document_store": self.document_store.to_dict(),
            "filter_policy": str(self.filter_policy),
        }
        return dict(default_to_dict(self, **{name: one for name, one in settings.items() if not name.startswith("_")}))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Invert :meth:`to_dict`."""
        settings = dict(data["init_parameters"])
        settings["document_store"] = GinghamDocumentStore.from_dict(settings["document_store"])
        settings["filter_policy"] = FilterPolicy.from_str(settings["filter_policy"])
        return cls(**settings)

    def _found(self, filters: dict[str, Any] | None, top_k: int | None, **query: Any) -> dict[str, list[Document]]:
        found = self.document_store.retrieve(
            top_k=self.top_k if top_k is None else top_k,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            return_embedding=self.return_embedding,
            **query,
        )
        return {"documents": found}


@component
class GinghamEmbeddingRetriever(_Retriever):
    """Documents nearest to an embedding."""

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Documents, best first."""
        return self._found(filters, top_k, embedding=query_embedding)


@component
class GinghamBM25Retriever(_Retriever):
    """Documents with the words of a query."""

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Documents, best first."""
        return self._found(filters, top_k, query=query, mode="text")


@component
class GinghamHybridRetriever(_Retriever):
    """Documents by embedding and words, fused by their ranks."""

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Documents, best first."""
        return self._found(filters, top_k, query=query, embedding=query_embedding, mode="hybrid")


def _stored(document: Document) -> StoredDocument:
    values = document.to_dict(flatten=False)
    extra = {name: values[name] for name in ("blob", "sparse_embedding") if values.get(name) is not None}
    return StoredDocument(document.id, document.content, document.meta, document.embedding, extra or None)


def _document(found: StoredDocument, score: float | None = None) -> Document:
    vector = None if found.vector is None else found.vector.tolist()
    values = {"id": str(found.id), "content": found.text, "meta": found.metadata, "embedding": vector, "score": score}
    return Document.from_dict({**values, **(found.extra or {})})
