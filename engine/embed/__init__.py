"""Embedders: text in, vectors out."""

from __future__ import annotations

from gingham.embed.hashing import HashingEmbedder
from gingham.embed.hyde import Hyde, expand
from gingham.embed.llm import LLM, CallableLLM, OpenAILLM
from gingham.embed.protocol import Embedder
from gingham.embed.sentence_transformers import SentenceTransformerEmbedder
from gingham.embed.transformers_llm import TransformersLLM

__all__ = [
    "CallableLLM",
    "Embedder",
    "HashingEmbedder",
    "Hyde",
    "LLM",
    "OpenAILLM",
    "SentenceTransformerEmbedder",
    "TransformersLLM",
    "expand",
]
