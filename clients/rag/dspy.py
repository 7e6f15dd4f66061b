"""A retriever of DSPy on a collection."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gingham.clients.rag.documents import DocumentCollection, Mode
from gingham.clients.rag.extras import missing_extra
from gingham.clients.rag.langchain_filters import langchain_filter

try:
    import dspy
except ImportError as error:
    raise missing_extra("dspy", error) from error

if TYPE_CHECKING:
    from collections.abc import Callable


class GinghamRetriever(dspy.Retrieve):
    """Passages for a question, as a module of DSPy, or as ``dspy.configure(rm=...)``.

    Parameters
    ----------
    target : database or collection of Gingham, path, or ``"grpc://HOST:PORT"``
    embedder : makes vectors of a list of texts, such as ``dspy.Embedder``; None (default) searches by words alone
    k : passages returned, default 3
    mode : ``"dense"``, ``"text"`` or ``"hybrid"``; by default ``"hybrid"`` with an embedder and ``"text"`` without
    filters : dict such as ``{"year": {"$gte": 2020}}``, as of
        :func:`gingham.clients.rag.langchain_filters.langchain_filter`
    options : of :class:`gingham.clients.rag.documents.DocumentCollection`

    Notes
    -----
    A call gives a prediction of ``passages``, ``ids``, ``metadatas`` and ``scores``; as ``rm`` it is asked by
    ``dspy.Retrieve``, which takes the passages.
    """

    def __init__(
        self,
        target: Any,
        embedder: Callable[[list[str]], Any] | None = None,
        *,
        k: int = 3,
        mode: Mode | None = None,
        filters: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(k=k)
        self.documents = DocumentCollection(target, **options)
        self._embedder, self._filters = embedder, filters
        self._mode: Mode = mode or ("text" if embedder is None else "hybrid")

    def forward(self, query: str, k: int | None = None, **kwargs: Any) -> Any:
        """Passages for one question."""
        vector = None if self._embedder is None or self._mode == "text" else self._embedder([query])[0]
        found = self.documents.search(
            k=self.k if k is None else k,
            vector=vector,
            text=query,
            mode=self._mode,
            where=langchain_filter(kwargs.get("filters", self._filters)),
        )
        return Passages(
            passages=[document.text or "" for document, _ in found],
            ids=[document.id for document, _ in found],
            metadatas=[document.metadata for document, _ in found],
            scores=[score for _, score in found],
        )


class Passages(dspy.Prediction):
    """A prediction whose elements are what ``dspy.Retrieve`` asks of an ``rm``: passages with ``long_text``."""

    def __iter__(self) -> Any:
        return iter([dspy.Prediction(long_text=text) for text in self.passages])
