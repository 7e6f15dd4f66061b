"""Embedding the rows of a write and the texts of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from gingham.embed.hyde import Written, expand
from gingham.embed.protocol import embed
from gingham.embed.tokens import embed_tokens
from gingham.errors import DimensionMismatch
from gingham.schema import Tokens
from gingham.types import RowBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.embed.protocol import Embedder
    from gingham.schema import Dense, Schema

    Array = np.ndarray[Any, Any]


def check_dimensions(schema: Schema, embedder: Embedder) -> None:
    """Raise DimensionMismatch where a vector that is embedded has another width than the embedder makes."""
    for name in schema.embedded:
        dim = schema.dense[name].dim
        if dim != embedder.dim:
            raise DimensionMismatch(
                f"the embedder {embedder.name!r} makes {embedder.dim} dimensions and vector {name!r} expects {dim}; "
                "choose another width or another embedder"
            )


def embed_rows(batch: RowBatch, schema: Schema, embedder: Embedder | None) -> RowBatch:
    """Rows with vectors where they have text and no vector; several texts are joined by a line break."""
    if embedder is None:
        return batch
    vectors = dict(batch.vectors)
    for name, sources in schema.embedded.items():
        dense = schema.dense[name]
        texts = _joined([batch.fields[source].to_pylist() for source in sources if source in batch.fields])
        old = vectors.get(name)
        missing = [
            row for row, text in enumerate(texts) if text is not None and (old is None or np.isnan(old[row]).all())
        ]
        if old is None or missing:
            made = np.full((len(batch), dense.dim), np.nan, dense.dtype) if old is None else old.copy()
            made[missing] = embed(embedder, [texts[row] or "" for row in missing], queries=False)
            vectors[name] = made
    return RowBatch(batch.ids, vectors, batch.fields)


def _joined(columns: Sequence[list[str | None]]) -> list[str | None]:
    """Row by row the texts that are there, joined; None where there is none."""
    out: list[str | None] = []
    for row in zip(*columns, strict=True):
        present = [text for text in row if text is not None]
        out.append("\n".join(present) if present else None)
    return out


def changed_sources(changes: RowBatch, schema: Schema, embedder: Embedder | None) -> tuple[str, ...]:
    """Text fields that the vectors depend on which an update makes stale and does not bring itself."""
    if embedder is None:
        return ()
    names: dict[str, None] = {}
    for vector, sources in schema.embedded.items():
        if vector not in changes.vectors and any(source in changes.fields for source in sources):
            names.update(dict.fromkeys(sources))
    return tuple(names)


@overload
def embed_queries(embedder: Embedder, texts: list[str] | Written, dense: Dense) -> Array: ...
@overload
def embed_queries(embedder: Embedder, texts: list[str] | Written, dense: Tokens) -> list[Array]: ...
def embed_queries(embedder: Embedder, texts: list[str] | Written, dense: Dense | Tokens) -> Array | list[Array]:
    """Vectors of query texts, float32 (n, dim); one of a text with passages.

    For a token field a list of matrices (tokens, dim): those of the passages, and last that of the text.
    """
    if isinstance(dense, Tokens):
        return embed_tokens(embedder, [*texts.passages, texts.hyde.text] if isinstance(texts, Written) else texts)
    if embedder.dim != dense.dim:
        raise DimensionMismatch(
            f"the embedder {embedder.name!r} makes {embedder.dim} dimensions, the field has {dense.dim}"
        )
    if isinstance(texts, Written):
        return expand(texts, embedder, metric=dense.metric).reshape(1, -1)
    return np.ascontiguousarray(embed(embedder, texts, queries=True), np.float32)
