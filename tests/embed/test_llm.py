"""Language models: how they are asked, functions as models, and OpenAI-compatible endpoints."""

from __future__ import annotations

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
import time
import types
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, Self

import pytest

from gingham.deadline import CancelScope, within
from gingham.embed import LLM, CallableLLM, OpenAILLM
from gingham.embed import llm as llm_module
from gingham.embed.llm import ask, check_llm
from gingham.errors import Cancelled, DeadlineExceeded, GinghamError, InvalidArgument, LLMFailed, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Fake:
    """A model that answers with what it is told to, and notes what it was asked."""

    answer: Callable[[], Any]
    name: str = "fake"
    calls: list[tuple[str, int, float | None]] = field(default_factory=list)

    def complete(self, prompt: str, *, n: int, timeout: float | None) -> Any:
        self.calls.append((prompt, n, timeout))
        return self.answer()


def raises(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


# The door


def test_a_model_is_asked_once_and_its_texts_come_back_clean() -> None:
    fake = Fake(lambda: (text for text in ["  one\n", "", " \n", "tw\ud800o", "three", "four"]))
    assert ask(fake, "prompt", n=3, timeout=2.0) == ["one", "tw?o", "three"]
    assert fake.calls == [("prompt", 3, 2.0)]
    assert isinstance(fake, LLM)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda: None, "NoneType"),
        (lambda: "a text", "str"),
        (lambda: 7, "int"),
        (lambda: ["a", None], "NoneType among them"),
        (lambda: [b"a"], "bytes among them"),
        (list, "0 empty ones"),
        (lambda: ["", " "], "2 empty ones"),
        (raises(ConnectionError("no route\n to host")), "ConnectionError: no route to host"),
        (raises(MissingExtra("some package")), "MissingExtra: some package"),
    ],
)
def test_anything_but_texts_is_one_typed_error(answer: Callable[[], Any], found: str) -> None:
    with pytest.raises(LLMFailed, match=f"'fake' is expected to write a list of 2 texts, found .*{found}"):
        ask(Fake(answer), "p", n=2, timeout=None)


def test_the_cause_is_kept_and_the_error_has_a_status() -> None:
    cause = ValueError("x")
    with pytest.raises(LLMFailed) as info:
        ask(Fake(raises(cause)), "p", n=1, timeout=1.0)
    assert info.value.__cause__ is cause
    assert isinstance(info.value, GinghamError)
    assert info.value.grpc_code == "INTERNAL"


def test_an_interrupt_of_the_model_is_no_failure_of_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Fake(raises(KeyboardInterrupt())), "p", n=1, timeout=1.0)


@pytest.fixture
def stuck() -> Iterator[Fake]:
    """A model that does not keep to its time-out."""
    release = threading.Event()
    yield Fake(lambda: release.wait(20) and ["late"])
    release.set()


def test_a_model_that_hangs_is_waited_for_no_longer_than_its_time_out(stuck: Fake) -> None:
    started = time.monotonic()
    with pytest.raises(LLMFailed, match=r"within 0\.1 s, found none; raise timeout="):
        ask(stuck, "p", n=1, timeout=0.1)
    assert time.monotonic() - started < 2


def test_the_deadline_of_the_call_around_it_ends_the_wait(stuck: Fake) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), within(0.1):
        ask(stuck, "p", n=1, timeout=None)
    assert time.monotonic() - started < 2


def test_cancelling_the_call_around_it_ends_the_wait(stuck: Fake) -> None:
    with pytest.raises(Cancelled), CancelScope() as scope:
        threading.Timer(0.1, scope.cancel).start()
        ask(stuck, "p", n=1, timeout=None)


@pytest.mark.parametrize("other", [None, "gpt", print, Fake, 3, types.SimpleNamespace(name=3, complete=print)])
def test_what_is_no_model_is_refused_with_what_to_do(other: object) -> None:
    with pytest.raises(InvalidArgument, match=r"a function goes into gingham\.embed\.CallableLLM"):
        check_llm(other)


# Functions


def test_a_function_of_one_text_is_called_until_there_are_enough() -> None:
    numbers = iter(range(10))
    model = CallableLLM(lambda prompt: f"{prompt} {next(numbers)}", name="counter")
    assert model.complete("p", n=3, timeout=None) == ["p 0", "p 1", "p 2"]
    assert model.name == "counter"
    assert isinstance(model, LLM)
    assert "counter" in repr(model)


def test_a_function_of_several_texts_is_called_again_where_they_are_too_few() -> None:
    calls: list[str] = []

    def two(prompt: str) -> list[str]:
        calls.append(prompt)
        return ["a", "b"]

    assert CallableLLM(two).complete("p", n=3, timeout=None) == ["a", "b", "a"]
    assert len(calls) == 2
    assert CallableLLM(lambda prompt: []).complete("p", n=3, timeout=None) == []


def test_functions_without_a_name_do_not_share_one() -> None:
    assert CallableLLM(str).name != CallableLLM(str).name


def test_a_function_that_returns_something_else_or_is_slow_fails() -> None:
    with pytest.raises(LLMFailed, match="found int; correct it"):
        CallableLLM(lambda prompt: 7, name="seven").complete("p", n=1, timeout=None)  # type: ignore[arg-type, return-value]
    with pytest.raises(LLMFailed, match=r"3 texts within 0\.02 s, found 1"):
        CallableLLM(lambda prompt: time.sleep(0.03) or "a").complete("p", n=3, timeout=0.02)


@pytest.mark.parametrize(("function", "name"), [(None, None), ("text", None), (str, ""), (str, 3)])
def test_functions_and_names_are_checked(function: Any, name: Any) -> None:
    with pytest.raises(InvalidArgument, match="CallableLLM"):
        CallableLLM(function, name=name)


# Endpoints, with a client that is made up


class Status(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class OffLine(Exception):
    pass


@dataclass
class Client:
    """The part of the package ``openai`` that is used, and what it was asked."""

    answers: list[Any] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0

    def module(self) -> types.ModuleType:
        module = types.ModuleType("openai")
        module.__spec__ = ModuleSpec("openai", None)

        class OpenAIError(Exception):
            pass

        class APIConnectionError(OpenAIError, OffLine):
            pass

        class APIStatusError(OpenAIError, Status):
            pass

        module.OpenAIError, module.APIConnectionError = OpenAIError, APIConnectionError  # type: ignore[attr-defined]
        module.APIStatusError, module.OpenAI = APIStatusError, self.open  # type: ignore[attr-defined]
        return module

    def open(self, **options: Any) -> Any:
        self.made.append(options)
        self.chat = types.SimpleNamespace(completions=types.SimpleNamespace(create=self.create))
        return self

    def create(self, **options: Any) -> Any:
        self.asked.append(options)
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise sys.modules["openai"].APIStatusError(answer)
        if answer is OffLine:
            raise sys.modules["openai"].APIConnectionError("no route")
        if isinstance(answer, list):
            texts = (types.SimpleNamespace(message=types.SimpleNamespace(content=text)) for text in answer)
            return types.SimpleNamespace(choices=list(texts))
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setitem(sys.modules, "openai", client.module())
    monkeypatch.setattr(llm_module, "_BACKOFF_SECONDS", 0.01)
    return client


URL = "http://127.0.0.1:1/v1"


def test_an_endpoint_gets_the_prompt_and_the_options_in_one_request(client: Client) -> None:
    client.answers = [["a", "b", "c"]]
    model = OpenAILLM("small", base_url=URL, api_key="secret")
    assert model.complete("the prompt", n=3, timeout=5.0) == ["a", "b", "c"]
    assert client.made == [{"api_key": "secret", "base_url": URL, "max_retries": 0}]
    (asked,) = client.asked
    assert 4 < asked.pop("timeout") <= 5
    assert asked == {
        "model": "small",
        "messages": [{"role": "user", "content": "the prompt"}],
        "n": 3,
        "temperature": 0.7,
        "max_tokens": 512,
    }
    assert client.closed == 1


def test_no_key_of_the_environment_is_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    client.answers = [["a"]]
    OpenAILLM("small", base_url=URL, temperature=None, max_tokens=None).complete("p", n=1, timeout=None)
    assert client.made[0]["api_key"] == "none"
    assert set(client.asked[0]) == {"model", "messages", "timeout"}


def test_the_name_tells_models_addresses_and_options_apart_and_keeps_secrets(client: Client) -> None:
    url = "https://user:pass@example.org/v1/"
    names = {
        OpenAILLM("small", base_url=URL).name,
        OpenAILLM("large", base_url=URL).name,
        OpenAILLM("small", base_url=url).name,
        OpenAILLM("small", base_url=URL, temperature=0).name,
        OpenAILLM("small", base_url=URL, max_tokens=100).name,
    }
    assert len(names) == 5
    model = OpenAILLM("small", base_url=url, api_key="secret")
    assert model.name == "small at example.org/v1 temperature=0.7 max_tokens=512"
    assert "secret" not in repr(model)


def test_an_endpoint_that_ignores_n_is_asked_again(client: Client) -> None:
    client.answers = [["a"], ["b"], ["c"]]
    assert OpenAILLM("small", base_url=URL).complete("p", n=3, timeout=None) == ["a", "b", "c"]
    assert [asked.get("n") for asked in client.asked] == [3, 2, None]


def test_an_endpoint_that_refuses_n_is_asked_for_one_text_after_the_other(client: Client) -> None:
    client.answers = [400, ["a"], ["b"]]
    model = OpenAILLM("small", base_url=URL)
    assert model.complete("p", n=2, timeout=None) == ["a", "b"]
    assert ["n" in asked for asked in client.asked] == [True, False, False]


def test_an_endpoint_that_writes_nothing_is_not_asked_for_ever(client: Client) -> None:
    client.answers = [["a", None, " "], [None]]
    assert OpenAILLM("small", base_url=URL).complete("p", n=3, timeout=None) == ["a"]


@pytest.mark.parametrize("error", [OffLine, 408, 429, 500, 503])
def test_errors_that_may_pass_are_tried_again_and_not_for_ever(client: Client, error: Any) -> None:
    client.answers = [error, error, ["a"]]
    model = OpenAILLM("small", base_url=URL)
    assert model.complete("p", n=1, timeout=None) == ["a"]
    client.answers = [error] * 9
    with pytest.raises(LLMFailed, match="at try 3"):
        model.complete("p", n=1, timeout=None)
    assert len(client.answers) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_errors_that_stay_are_told_at_once(client: Client, status: int) -> None:
    client.answers = [status] * 9
    with pytest.raises(LLMFailed, match=rf"status {status} at try 1; check the endpoint"):
        OpenAILLM("small", base_url=URL).complete("p", n=1, timeout=None)
    assert len(client.answers) == 8


def test_tries_end_with_the_time_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "_BACKOFF_SECONDS", 10)
    client.answers = [503] * 9
    started = time.monotonic()
    with pytest.raises(LLMFailed, match="at try 1"):
        OpenAILLM("small", base_url=URL).complete("p", n=1, timeout=1.0)
    with pytest.raises(LLMFailed, match="in time"):
        OpenAILLM("small", base_url=URL, timeout=1e-9).complete("p", n=1, timeout=None)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("answer", ["<html>", None, types.SimpleNamespace(choices=None)])
def test_an_answer_of_another_kind_is_a_typed_error(client: Client, answer: Any) -> None:
    client.answers = [answer]
    with pytest.raises(LLMFailed, match="ends in /v1"):
        OpenAILLM("small", base_url=URL).complete("p", n=1, timeout=None)


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": 3},
        {"base_url": ""},
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://host:port/v1"},
        {"base_url": None},
        {"temperature": float("nan")},
        {"max_tokens": 0},
        {"retries": -1},
        {"timeout": 0},
        {"timeout": "1"},
    ],
)
def test_arguments_of_an_endpoint_are_checked(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="expects"):
        OpenAILLM(**{"model": "small", "base_url": URL, **options})


def test_without_the_package_the_error_ends_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openai" else find_spec(name, *rest)
    )
    with pytest.raises(MissingExtra) as info:
        OpenAILLM("small", base_url=URL)
    assert str(info.value).endswith("pip install 'gingham[llm]'")


def test_the_package_is_imported_only_when_a_model_is_asked() -> None:
    code = "import sys, gingham.embed.llm, gingham.query.nodes; assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# An endpoint over loopback, with the real client


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization"), body))
        status = server.statuses.pop(0) if server.statuses else 200
        texts = [f"passage {number}" for number in range(body.get("n", 1))]
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                for i, text in enumerate(texts)
            ],
        }
        data = json.dumps(answer if status == 200 else {"error": {"message": "busy"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Any]:
    if importlib.util.find_spec("openai") is None:
        pytest.skip("the package openai is not installed: pip install 'gingham[llm]'")
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.asked, server.statuses = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_real_client_asks_a_server_and_tries_again(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "_BACKOFF_SECONDS", 0.01)
    endpoint.statuses = [503, 429]
    model = OpenAILLM("small", base_url=f"http://127.0.0.1:{endpoint.server_port}/v1", api_key="key")
    assert ask(model, "the prompt", n=2, timeout=20.0) == ["passage 0", "passage 1"]
    assert len(endpoint.asked) == 3
    path, key, body = endpoint.asked[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer key")
    assert body["messages"] == [{"role": "user", "content": "the prompt"}]
    assert (body["n"], body["temperature"], body["max_tokens"]) == (2, 0.7, 512)


def test_the_real_client_tells_of_refusals_and_of_nobody_there(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "_BACKOFF_SECONDS", 0.01)
    endpoint.statuses = [401]
    model = OpenAILLM("small", base_url=f"http://127.0.0.1:{endpoint.server_port}/v1")
    with pytest.raises(LLMFailed, match="at try 1"):
        model.complete("p", n=1, timeout=20.0)
    with pytest.raises(LLMFailed, match="at try 3"):
        OpenAILLM("small", base_url=URL).complete("p", n=1, timeout=20.0)
