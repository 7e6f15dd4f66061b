"""A language model in this process, read from a folder by transformers; nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gingham.deadline import check
from gingham.embed.llm import seconds
from gingham.embed.protocol import described
from gingham.embed.weights import model_folder, weights_hash
from gingham.errors import InvalidArgument, LLMFailed, MissingExtra
from gingham.types import finite, shown, whole

if TYPE_CHECKING:
    import os

_WHAT = "TransformersLLM(model)"


class TransformersLLM:
    """A causal language model in a folder, run by the text-generation pipeline of transformers.

    Parameters
    ----------
    model : folder of the model and its tokenizer
    device : where torch computes: ``"cpu"`` (default), ``"cuda"`` or another of its names
    temperature : how freely the model writes; 0 takes the likeliest token always, and so writes one text
    max_tokens : longest text
    timeout : seconds that a call may take, where the caller gives none

    Raises
    ------
    InvalidArgument : ``model`` is no folder with weights, for instance a name on a hub; or an argument is out of range
    MissingExtra : the package ``transformers`` is not installed

    Notes
    -----
    The model is loaded when it is first asked, and used by one thread at a time. A model with a chat template gets the
    prompt as the message of a user. Writing ends with the time that is left (``max_time`` of ``generate``), so that no
    thread goes on for a caller that has gone; loading does not. 0.7 and 512 tokens are those of HyDE (Gao et al. 2023).
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        temperature: float = 0.7,
        max_tokens: int = 512,
        timeout: float = 60.0,
    ) -> None:
        self._folder = model_folder(_WHAT, model)
        if not isinstance(device, str) or not device:
            raise InvalidArgument(f"TransformersLLM(device=) expects a name such as 'cpu', found {shown(device)}")
        self._device = device
        self._temperature = finite("TransformersLLM(temperature=)", temperature)
        if self._temperature < 0:
            raise InvalidArgument(f"TransformersLLM(temperature=) expects a number from 0, found {shown(temperature)}")
        self._max_tokens = whole("TransformersLLM(max_tokens=)", max_tokens)
        self._timeout = seconds("TransformersLLM(timeout=)", timeout)
        self._name = (
            f"{self._folder.name} {weights_hash(_WHAT, self._folder)} temperature={self._temperature:g} "
            f"max_tokens={self._max_tokens}"
        )
        if importlib.util.find_spec("transformers") is None:
            raise MissingExtra("TransformersLLM needs transformers; run: pip install 'gingham[embed]'")
        self._pipeline: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TransformersLLM({str(self._folder)!r}, device={self._device!r})"

    @property
    def name(self) -> str:
        """The folder's name, a hash of the weights and the options: all that changes its answers."""
        return self._name

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> list[str]:
        """Up to n texts; raises LLMFailed where the model cannot be loaded, raises or takes longer."""
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        if not self._lock.acquire(timeout=max(0.0, end - time.monotonic())):
            raise self._late()
        try:
            if self._pipeline is None:
                self._pipeline = self._load()
            check()
            made = self._write(prompt, n, end)
        finally:
            self._lock.release()
        return _texts_of(self._name, made)

    def _write(self, prompt: str, n: int, end: float) -> Any:
        free = self._temperature > 0
        options = {"do_sample": True, "temperature": self._temperature} if free else {"do_sample": False}
        chat = getattr(getattr(self._pipeline, "tokenizer", None), "chat_template", None)
        left = end - time.monotonic()
        if left <= 0:
            raise self._late()
        try:
            made = self._pipeline(
                [{"role": "user", "content": prompt}] if chat else prompt,
                num_return_sequences=n if free else 1,
                max_new_tokens=self._max_tokens,
                max_time=left,
                return_full_text=False,
                **options,
            )
        except Exception as error:
            raise LLMFailed(
                f"{self._name!r} is expected to write, found {described(error)}; check the model"
            ) from error
        if time.monotonic() >= end:
            raise self._late()
        return made

    def _late(self) -> LLMFailed:
        return LLMFailed(
            f"{self._name!r} is expected to write in time, found nothing complete; raise timeout= or lower max_tokens="
        )

    def _load(self) -> Any:
        transformers = import_module("transformers")
        try:
            return transformers.pipeline(
                "text-generation",
                model=transformers.AutoModelForCausalLM.from_pretrained(str(self._folder), local_files_only=True),
                tokenizer=transformers.AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True),
                device=self._device,
            )
        except Exception as error:
            raise LLMFailed(
                f"{self!r} expected a causal language model, found {described(error)}; check the folder and the device"
            ) from error


def _texts_of(name: str, made: Any) -> list[str]:
    try:
        texts = [one["generated_text"] for one in made]
    except (KeyError, TypeError) as error:
        raise LLMFailed(f"{name!r} is expected to give generated_text, found {shown(made)}; check the model") from error
    return [text for text in texts if isinstance(text, str) and text.strip()]
