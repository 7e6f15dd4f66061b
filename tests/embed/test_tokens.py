"""Token vectors of texts and their projection."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gingham.embed.sentence_transformers import SentenceTransformerEmbedder
from gingham.embed.tokens import TokenProjection, text_tokens
from gingham.errors import EmbedderFailed, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


def test_special_tokens_and_punctuation_are_left_out_and_spans_are_those_of_the_words() -> None:
    text, offsets = "Cats, dogs!", [(0, 0), (0, 4), (4, 5), (6, 10), (10, 11), (0, 0)]
    vectors = np.arange(12).reshape(6, 2)
    found = text_tokens(text, vectors, offsets, skip_punctuation=True)
    assert [text[a:b] for a, b in found.spans] == ["Cats", "dogs"]
    assert found.vectors.tolist() == [[2, 3], [6, 7]]
    assert [text[a:b] for a, b in text_tokens(text, vectors, offsets, skip_punctuation=False).spans] == [
        "Cats", ",", "dogs", "!",
    ]  # fmt: skip
    only = text_tokens("?!", np.ones((4, 2)), [(0, 0), (0, 1), (1, 2), (0, 0)], skip_punctuation=True)
    assert len(only.vectors) == 2
    with pytest.raises(EmbedderFailed, match="6 token vectors"):
        text_tokens(text, vectors[:5], offsets, skip_punctuation=True)


def test_a_projection_keeps_the_directions_of_most_variance_and_lengths_of_one() -> None:
    rng = np.random.default_rng(0)
    tokens = (rng.standard_normal((400, 12)) * np.r_[5.0, 4, 3, np.full(9, 0.1)] + 7).astype(np.float32)
    projection = TokenProjection.fit(tokens, 3)
    found = projection(tokens)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(projection.basis.T @ projection.basis, np.eye(3), atol=1e-5)
    assert np.abs(projection.basis[:3]).max(axis=0).min() > 0.95
    again = TokenProjection.from_arrays(projection.arrays())
    np.testing.assert_array_equal(again(tokens[:5]), found[:5])
    assert not projection(projection.mean[None]).any()
    for bad, dim in ((tokens[:2], 3), (tokens, 13), (tokens, 0), (tokens[0], 1)):
        with pytest.raises(InvalidArgument, match=r"TokenProjection.fit"):
            TokenProjection.fit(bad, dim)


class _Tensor:
    """Stands for a tensor."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def cpu(self) -> _Tensor:
        return self

    float = cpu

    def numpy(self) -> Any:
        return self._array


class _Model:
    """Stands for sentence_transformers.SentenceTransformer: a token is a word, its vector the word's length."""

    max_seq_length = 4
    modalities = ("text",)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tokenizer = self._offsets

    def _offsets(self, text: str, *, max_length: int, **_: Any) -> dict[str, Any]:
        spans, at = [], 0
        for word in text.split(" "):
            spans.append((at, at + len(word)))
            at += len(word) + 1
        return {"offset_mapping": [(0, 0), *spans[: max_length - 2], (0, 0)]}

    def encode(self, texts: list[str], *, output_value: str, **_: Any) -> list[_Tensor]:
        assert output_value == "token_embeddings"
        return [_Tensor([[b - a, 1.0] for a, b in self._offsets(t, max_length=4)["offset_mapping"]]) for t in texts]


def test_a_model_gives_the_tokens_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sentence_transformers")
    module.__spec__ = ModuleSpec("sentence_transformers", None)
    module.SentenceTransformer = _Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    (tmp_path / "model.safetensors").write_bytes(bytes(10))
    embedder = SentenceTransformerEmbedder(tmp_path)
    first, second = embedder.embed_tokens(["one three five seven", "a"])
    assert first.vectors.tolist() == [[3, 1], [5, 1]]
    assert first.spans.tolist() == [[0, 3], [4, 9]]
    assert second.vectors.tolist() == [[1, 1]]
    assert embedder.embed_tokens([]) == []
