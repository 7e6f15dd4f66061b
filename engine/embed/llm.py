"""Language models: what one is, how it is asked, and adapters of functions and of OpenAI-compatible endpoints."""

from __future__ import annotations

import contextvars
import importlib.util
import threading
import time
import uuid
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from gingham.deadline import check
from gingham.embed.protocol import described
from gingham.errors import InvalidArgument, LLMFailed, MissingExtra
from gingham.types import finite, shown, whole

if TYPE_CHECKING:
    from collections.abc import Callable

_SLICE_SECONDS = 0.05
"""How long a call that waits for a model takes to notice that it was cancelled."""
_BACKOFF_SECONDS = 0.5
_PASSING_STATUS = frozenset({408, 409, 425, 429})
"""Answers of an endpoint, beside those from 500 on, after which the same request may succeed."""
_REFUSED_STATUS = frozenset({400, 422})


@runtime_checkable
class LLM(Protocol):
    """Writes texts; a plain attribute does for the name."""

    @property
    def name(self) -> str:
        """What tells this model, and the way it is asked, from others: answers are cached under it."""
        ...

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> list[str]:
        """Up to n texts for a prompt, made within ``timeout`` seconds where that is not None."""
        ...


def check_llm(obj: object) -> None:
    """Raise InvalidArgument unless ``obj`` has what an :class:`LLM` needs."""
    named = isinstance(getattr(obj, "name", None), str) and not isinstance(obj, type)
    if not named or not callable(getattr(obj, "complete", None)):
        raise InvalidArgument(
            f"llm= expects an object with a name and a method complete(prompt, *, n, timeout), found {shown(obj)}; "
            "a function goes into gingham.embed.CallableLLM(function, name=...)"
        )


def ask(llm: LLM, prompt: str, *, n: int, timeout: float | None) -> list[str]:
    """Let a model write; everything that asks one comes through here.

    Parameters
    ----------
    llm : called once, in a thread of its own
    n : texts asked for; further ones are dropped, and so are empty ones
    timeout : seconds after which the model is waited for no longer; None waits

    Returns
    -------
    list of str : 1 to n texts without space around them, of characters that UTF-8 can hold

    Raises
    ------
    LLMFailed : the model raised, took longer, or wrote something else than a list of texts, or none
    DeadlineExceeded, Cancelled : the call around this one has ended

    Notes
    -----
    A thread cannot be stopped: a model that does not keep to its time-out goes on, unheard.
    """
    expected = f"the language model {llm.name!r} is expected to write a list of {n} texts"
    made = _answer(llm, prompt, n, timeout, expected)
    if isinstance(made, (str, bytes)) or not isinstance(made, Iterable):
        raise LLMFailed(f"{expected}, found {type(made).__name__}; correct its complete()")
    texts = list(made)
    for text in texts:
        if not isinstance(text, str):
            raise LLMFailed(f"{expected}, found {type(text).__name__} among them; correct its complete()")
    kept = [clean for text in texts if (clean := text.encode("utf-8", "replace").decode().strip())][:n]
    if not kept:
        raise LLMFailed(f"{expected}, found {len(texts)} empty ones; check the model and the prompt")
    return kept


def _answer(llm: LLM, prompt: str, n: int, timeout: float | None, expected: str) -> Any:
    answers: list[Any] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(llm.complete(prompt, n=n, timeout=timeout))
        except BaseException as error:  # raised again by the thread that waits
            raised.append(error)
        finally:
            done.set()

    end = None if timeout is None else time.monotonic() + timeout
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="gingham-llm", daemon=True)
    thread.start()
    while not done.wait(_SLICE_SECONDS if end is None else max(0.0, min(_SLICE_SECONDS, end - time.monotonic()))):
        check()
        if end is not None and time.monotonic() >= end:
            raise LLMFailed(f"{expected} within {timeout:g} s, found none; raise timeout= or take a faster model")
    check()
    if raised and isinstance(raised[0], LLMFailed):
        raise raised[0]
    if raised and isinstance(raised[0], Exception):
        raise LLMFailed(f"{expected}, found {described(raised[0])}; correct or restart it") from raised[0]
    if raised:
        raise raised[0]
    return answers[0]


class CallableLLM:
    """A function as a language model.

    Parameters
    ----------
    function : takes a prompt, and returns one text or a list of them; called until there are enough
    name : what tells its answers in a cache from those of others; None makes one that no other adapter has, so that
        answers kept on disk are not found again by another process

    Raises
    ------
    InvalidArgument : ``function`` cannot be called, or ``name`` is no text
    """

    def __init__(self, function: Callable[[str], str | list[str]], *, name: str | None = None) -> None:
        if not callable(function):
            raise InvalidArgument(f"CallableLLM() expects a function of a prompt, found {shown(function)}")
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidArgument(f"CallableLLM(name=) expects a text, found {shown(name)}")
        self._function = function
        self._name = f"callable-{uuid.uuid4().hex}" if name is None else name

    def __repr__(self) -> str:
        return f"CallableLLM({shown(self._function)}, name={self._name!r})"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._name

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> list[str]:
        """Up to n texts; raises LLMFailed where the function takes longer, or returns something else than texts."""
        end = None if timeout is None else time.monotonic() + timeout
        texts: list[str] = []
        for _ in range(n):
            check()
            if end is not None and time.monotonic() >= end:
                raise LLMFailed(
                    f"{self._name!r} is expected to write {n} texts within {timeout:g} s, found {len(texts)}; raise "
                    "timeout= or ask for fewer"
                )
            made: object = self._function(prompt)
            if not isinstance(made, (str, list, tuple)):
                raise LLMFailed(
                    f"the function of {self._name!r} is expected to return a text or a list of texts, found "
                    f"{type(made).__name__}; correct it"
                )
            texts.extend([made] if isinstance(made, str) else made)
            if len(texts) >= n or not made:
                break
        return texts[:n]


class OpenAILLM:
    """A model behind an endpoint that speaks the chat completions of OpenAI, such as vLLM, llama.cpp or Ollama.

    Parameters
    ----------
    model : name of the model at the endpoint
    base_url : address up to ``/v1``; nothing is sent anywhere else
    api_key : sent to the endpoint; None sends no key, not even that of the environment, which may be another's
    temperature : how freely the model writes; None leaves it to the endpoint
    max_tokens : longest text; None leaves it to the endpoint
    retries : further tries of a request after errors that may pass
    timeout : seconds that a call may take with all tries, where the caller gives none

    Raises
    ------
    InvalidArgument : an argument is out of range
    MissingExtra : the package ``openai`` is not installed

    Notes
    -----
    0.7 and 512 tokens are those of HyDE (Gao et al. 2023). Endpoints that refuse or ignore ``n`` are asked for one
    text after the other.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        temperature: float | None = 0.7,
        max_tokens: int | None = 512,
        retries: int = 2,
        timeout: float = 60.0,
    ) -> None:
        for what, value in (("model", model), ("base_url", base_url)):
            if not isinstance(value, str) or not value:
                raise InvalidArgument(f"OpenAILLM({what}) expects a text, found {shown(value)}")
        address = _address(base_url)
        self._options: dict[str, Any] = {}
        if temperature is not None:
            self._options["temperature"] = finite("OpenAILLM(temperature=)", temperature)
        if max_tokens is not None:
            self._options["max_tokens"] = whole("OpenAILLM(max_tokens=)", max_tokens)
        self._retries = whole("OpenAILLM(retries=)", retries, 0, 10)
        self._timeout = seconds("OpenAILLM(timeout=)", timeout)
        if importlib.util.find_spec("openai") is None:
            raise MissingExtra("OpenAILLM needs openai; run: pip install 'gingham[llm]'")
        self._model, self._base_url, self._key = model, base_url, api_key
        self._name = " ".join([f"{model} at {address}", *(f"{k}={v:g}" for k, v in self._options.items())])
        self._single = False

    def __repr__(self) -> str:
        return f"OpenAILLM({self._name!r})"

    @property
    def name(self) -> str:
        """The model, the address and the options: all that changes its answers, and no key."""
        return self._name

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> list[str]:
        """Up to n texts; raises LLMFailed where the endpoint refuses, is out of reach or takes longer."""
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        texts: list[str] = []
        openai = import_module("openai")
        # One client for each call: it holds sockets, which neither a fork nor a forgotten object should leave open.
        with openai.OpenAI(api_key=self._key or "none", base_url=self._base_url, max_retries=0) as client:
            while len(texts) < n:
                found = self._request(openai, client, prompt, n - len(texts), end)
                if not found:
                    break
                texts += found
        return texts[:n]

    def _request(self, openai: Any, client: Any, prompt: str, n: int, end: float) -> list[str]:
        """Texts of one request that the endpoint answers; bounded tries."""
        tries = 0
        while True:
            check()
            left = end - time.monotonic()
            if left <= 0:
                raise LLMFailed(f"{self._name!r} is expected to answer in time, found none; raise timeout=")
            asked = {} if self._single or n == 1 else {"n": n}
            try:
                answer = client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": "user", "content": prompt}],
                    timeout=left,
                    **asked,
                    **self._options,
                )
            except openai.OpenAIError as error:
                status = getattr(error, "status_code", None)
                if asked and status in _REFUSED_STATUS:
                    self._single = True
                    continue
                tries += 1
                wait = _BACKOFF_SECONDS * 2 ** (tries - 1)
                if tries > self._retries or not _passing(openai, error, status) or wait >= end - time.monotonic():
                    raise LLMFailed(
                        f"{self._name!r} is expected to answer, found {described(error)} at try {tries}; check the "
                        "endpoint, the model and the key"
                    ) from error
                time.sleep(wait)
            else:
                return _texts_of(self._name, answer)


def _passing(openai: Any, error: Exception, status: int | None) -> bool:
    if status is None:
        return isinstance(error, openai.APIConnectionError)
    return status >= 500 or status in _PASSING_STATUS


def _texts_of(name: str, answer: Any) -> list[str]:
    try:
        texts = [choice.message.content for choice in answer.choices]
    except (AttributeError, TypeError) as error:
        raise LLMFailed(
            f"{name!r} is expected to answer with choices, found {shown(answer)}; check that base_url= ends in /v1"
        ) from error
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _address(base_url: str) -> str:
    """Host and path of an endpoint, without a name and password that may stand before them."""
    try:
        parts = urlsplit(base_url)
        if parts.scheme in ("http", "https") and parts.hostname:
            host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
            return f"{host}{parts.path.rstrip('/')}"
    except ValueError:
        pass
    raise InvalidArgument(
        f"OpenAILLM(base_url=) expects an address such as http://127.0.0.1:8000/v1, found {base_url.split('@')[-1]!r}"
    )


def seconds(what: str, value: object) -> float:
    """A time-out that a user gave; raises InvalidArgument unless it is finite and above 0."""
    number = finite(what, value, "number of seconds")
    if number <= 0:
        raise InvalidArgument(f"{what} expects seconds above 0, found {shown(value)}")
    return number
