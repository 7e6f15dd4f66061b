"""A vector store of LlamaIndex on a collection."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.clients.rag.documents import DOCUMENT_ID, DocumentCollection, Mode, StoredDocument
from gingham.clients.rag.extras import missing_extra
from gingham.clients.rag.llama_index_filters import llama_index_filter
from gingham.clients.rag.metadata import Key
from gingham.errors import InvalidArgument
from gingham.query.ast import And

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import MetadataMode, TextNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise missing_extra("llama-index", error) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

    from gingham.query.ast import Node

_MODES: dict[str, Mode] = {
    "default": "dense", "mmr": "dense", "sparse": "text", "text_search": "text", "hybrid": "hybrid",
    "semantic_hybrid": "hybrid",
}  # fmt: skip
_NODE = ("_node_content", "_node_type")


class GinghamVectorStore(BasePydanticVectorStore):
    """Nodes with their embeddings in a collection of Gingham.

    Parameters
    ----------
    target : database or collection of Gingham, path, or ``"grpc://HOST:PORT"``
    options : ``collection``, ``text_field``, ``vector_field``, ``metric``, ``language``, as of
        :class:`gingham.clients.rag.documents.DocumentCollection`

    Notes
    -----
    Modes of queries: ``default``; ``text_search`` and ``sparse`` by BM25; ``hybrid`` and ``semantic_hybrid`` of both,
    where ``alpha`` is the weight of the vector; ``mmr``. Filters are those of
    :func:`gingham.clients.rag.llama_index_filters.llama_index_filter`. The methods of asyncio run the others.
    """

    stores_text: bool = True
    flat_metadata: bool = False
    _documents: DocumentCollection = PrivateAttr()

    def __init__(self, target: Any, **options: Any) -> None:
        super().__init__(stores_text=True)
        self._documents = DocumentCollection(target, **options)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, as LlamaIndex serializes it."""
        return "GinghamVectorStore"

    @property
    def client(self) -> DocumentCollection:
        """The collection underneath."""
        return self._documents

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings in one commit, replacing those of the same id; their ids."""
        self._documents.write([_stored(node) for node in nodes])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a source document."""
        self._documents.delete(where=Key("ref_doc_id").equals(ref_doc_id))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes by id, by a filter, or those of the ids that the filter selects.

        Raises
        ------
        InvalidArgument : neither is given
        """
        where = _where(filters, node_ids)
        if where is None:
            raise InvalidArgument("delete_nodes() expects node_ids or filters, found neither; clear() removes all")
        self._documents.delete(where=where)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by a filter, or both; all where neither is given."""
        found = self._documents.scan(_where(filters, node_ids), include_vectors=True)
        return [_node(one) for one in found]

    def clear(self) -> None:
        """Remove all nodes; the collection stays."""
        self._documents.delete(where="TRUE")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes.

        Raises
        ------
        InvalidArgument : a mode that learns, a query without what its mode asks for, or a filter without counterpart
        """
        name = getattr(query.mode, "value", query.mode)
        if name not in _MODES:
            raise InvalidArgument(f"query(mode=) expects one of {', '.join(_MODES)}, found {name!r}")
        mode = _MODES[name]
        threshold = kwargs.get("mmr_threshold", query.mmr_threshold)
        hybrid_k = query.hybrid_top_k if mode == "hybrid" else query.sparse_top_k if mode == "text" else None
        found = self._documents.search(
            k=query.similarity_top_k if hybrid_k is None else hybrid_k,
            vector=query.query_embedding,
            text=query.query_str,
            mode=mode,
            weight=query.alpha,
            where=_where(query.filters, query.node_ids or None, query.doc_ids or None),
            diversity=None if name != "mmr" else 1 - (0.5 if threshold is None else threshold),
        )
        return VectorStoreQueryResult(
            nodes=[_node(one) for one, _ in found],
            similarities=[score for _, score in found],
            ids=[str(one.id) for one, _ in found],
        )


def _where(
    filters: MetadataFilters | None, node_ids: list[str] | None, doc_ids: list[str] | None = None
) -> Node | None:
    nodes = [] if (node := llama_index_filter(filters)) is None else [node]
    if node_ids is not None:
        nodes.append(Key("id", DOCUMENT_ID).is_in(node_ids))
    if doc_ids is not None:
        nodes.append(Key("doc_id").is_in(doc_ids))
    return And(tuple(nodes)) if nodes else None


def _stored(node: BaseNode) -> StoredDocument:
    metadata = node_to_metadata_dict(node, remove_text=True)
    extra = {name: metadata.pop(name) for name in _NODE}
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return StoredDocument(node.node_id, text, metadata, node.embedding, extra)


def _node(found: StoredDocument) -> BaseNode:
    """The node as it was; of a row that something else wrote a text node with its metadata."""
    if found.extra is not None and _NODE[0] in found.extra:
        node = metadata_dict_to_node(found.extra, text=found.text)
    else:
        node = TextNode(id_=str(found.id), text=found.text or "", metadata=found.metadata)
    node.embedding = None if found.vector is None else found.vector.tolist()
    return node
