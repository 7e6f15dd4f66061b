"""Embedders: text in, vectors out."""

from __future__ import annotations

from gingham.embed.hashing import HashingEmbedder
from gingham.embed.protocol import Embedder
from gingham.embed.sentence_transformers import SentenceTransformerEmbedder

__all__ = ["Embedder", "HashingEmbedder", "SentenceTransformerEmbedder"]
