"""Queries of texts where a client has the embedder: as vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gingham.clients.convert import array_message, checked_text, query_message, search_message
from gingham.embed.hyde import Written
from gingham.embed.rows import embed_queries
from gingham.query.combine import Combined
from gingham.schema import Schema, Text, Tokens
from gingham.server.proto import gingham_pb2 as pb

if TYPE_CHECKING:
    import numpy as np

    from gingham.embed import Embedder
    from gingham.schema import Dense


class TextQueries:
    """Makes the parts of requests that may be texts.

    Parameters
    ----------
    schema : asks for the schema, once
    embedder : of the client; without one texts travel, for an embedder of the server
    """

    def __init__(self, schema: Callable[[], Schema], embedder: Embedder | None) -> None:
        self._ask = schema
        self._schema: Schema | None = None
        self._embedder = embedder

    def schema(self) -> Schema:
        """The schema of the collection."""
        if self._schema is None:
            self._schema = self._ask()
        return self._schema

    def near(self, query: Any, field: str | None) -> dict[str, Any]:
        """What is looked for near, as a field of a request."""
        if self._embeds(query):
            return {"vectors": array_message(self._vectors(query, self.schema().vector(field)[1]))}
        if isinstance(query, Written):
            return {"passages": passages_message(query)}
        return query_message(query, field, self.schema)

    def token_matrices(self, query: Any, field: str | None) -> list[np.ndarray[Any, Any]]:
        """Tokens of the passages of a text, and last its own, where they are looked for in a token field."""
        if self._embedder is None or not isinstance(query, (str, Written)):
            return []
        kind = self.schema().vectors.get(field or "")
        texts = [query] if isinstance(query, str) else query
        return embed_queries(self._embedder, texts, kind) if isinstance(kind, Tokens) else []

    def search(self, query: Any, using: str | None) -> dict[str, Any]:
        """What is searched for, as a field of a request."""
        if self._embeds(query) and not isinstance(self.schema().fields.get(using or ""), Text):
            return {"vectors": array_message(self._vectors(query, self.schema().vector(using)[1]))}
        if isinstance(query, Written):
            return {"passages": passages_message(query)}
        return search_message(query, using, self.schema)

    def _embeds(self, query: Any) -> bool:
        return self._embedder is not None and (isinstance(query, (str, Written, Combined)) or _all_texts(query))

    def _vectors(self, query: Any, dense: Dense) -> np.ndarray[Any, Any]:
        """Vectors of texts, or the one of a query that is one."""
        assert self._embedder is not None
        embedder = self._embedder
        if isinstance(query, Combined):
            combined: np.ndarray[Any, Any] = query.vector(lambda texts: embed_queries(embedder, texts, dense))[0]
            return combined
        single = isinstance(query, (str, Written))
        texts = [query] if isinstance(query, str) else query if isinstance(query, Written) else list(query)
        made = embed_queries(embedder, texts, dense)
        vectors: np.ndarray[Any, Any] = made[0] if single else made
        return vectors


def passages_message(written: Written) -> pb.Passages:
    """A text and what a model wrote for it."""
    passages = [checked_text(passage) for passage in written.passages]
    return pb.Passages(text=checked_text(written.hyde.text), passages=passages, mix=written.hyde.mix)


def _all_texts(query: Any) -> bool:
    return isinstance(query, Sequence) and len(query) > 0 and all(isinstance(text, str) for text in query)
