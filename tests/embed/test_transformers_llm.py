"""Language models in folders, run by transformers, which is made up here."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import types
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import pytest

from gingham.embed import LLM, TransformersLLM
from gingham.embed.llm import ask
from gingham.errors import InvalidArgument, LLMFailed, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Transformers:
    """The part of the package ``transformers`` that is used, and what it was asked."""

    template: str | None = None
    answer: Any = None
    seconds: float = 0.0
    loaded: list[tuple[str, str, bool]] = field(default_factory=list)
    piped: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    at_once: int = 0
    most: int = 0

    def module(self) -> types.ModuleType:
        module = types.ModuleType("transformers")
        module.__spec__ = ModuleSpec("transformers", None)
        for name in ("AutoTokenizer", "AutoModelForCausalLM"):
            setattr(module, name, types.SimpleNamespace(from_pretrained=self.reader(name)))
        module.pipeline = self.pipeline  # type: ignore[attr-defined]
        return module

    def reader(self, name: str) -> Any:
        def read(folder: str, *, local_files_only: bool) -> Any:
            self.loaded.append((name, folder, local_files_only))
            return types.SimpleNamespace(chat_template=self.template)

        return read

    def pipeline(self, task: str, *, model: Any, tokenizer: Any, device: str) -> Any:
        self.piped.append((task, device))
        self.tokenizer = tokenizer
        return self

    def __call__(self, given: Any, **options: Any) -> Any:
        self.asked.append((given, options))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        time.sleep(min(self.seconds, options["max_time"]))
        self.at_once -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        return [{"generated_text": f" text {i}"} for i in range(options["num_return_sequences"])]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Transformers:
    made = Transformers()
    monkeypatch.setitem(sys.modules, "transformers", made.module())
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tiny"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def test_a_model_is_loaded_from_its_folder_when_it_is_first_asked(package: Transformers, folder: Path) -> None:
    model = TransformersLLM(folder, device="cuda")
    assert isinstance(model, LLM)
    assert package.loaded == []
    assert ask(model, "the prompt", n=3, timeout=5.0) == ["text 0", "text 1", "text 2"]
    assert model.complete("another", n=1, timeout=None) == [" text 0"]
    assert sorted(package.loaded) == [(kind, str(folder), True) for kind in ("AutoModelForCausalLM", "AutoTokenizer")]
    assert package.piped == [("text-generation", "cuda")]
    given, options = package.asked[0]
    assert given == "the prompt"
    assert 4 < options.pop("max_time") <= 5
    assert options == {
        "num_return_sequences": 3, "max_new_tokens": 512, "return_full_text": False, "do_sample": True, "temperature": 0.7,
    }  # fmt: skip


def test_a_model_of_chats_gets_a_message(package: Transformers, folder: Path) -> None:
    package.template = "{{ messages }}"
    TransformersLLM(folder).complete("the prompt", n=1, timeout=None)
    assert package.asked[0][0] == [{"role": "user", "content": "the prompt"}]


def test_without_a_temperature_one_text_is_written(package: Transformers, folder: Path) -> None:
    assert TransformersLLM(folder, temperature=0).complete("p", n=8, timeout=None) == [" text 0"]
    assert package.asked[0][1]["do_sample"] is False
    assert "temperature" not in package.asked[0][1]


def test_writing_ends_with_the_time_out(package: Transformers, folder: Path) -> None:
    package.seconds = 20
    model, started = TransformersLLM(folder), time.monotonic()
    with pytest.raises(LLMFailed, match="in time, found nothing complete; raise timeout="):
        model.complete("p", n=1, timeout=0.05)
    assert time.monotonic() - started < 5
    with pytest.raises(LLMFailed, match="in time"):
        TransformersLLM(folder, timeout=1e-9).complete("p", n=1, timeout=None)


def test_one_thread_at_a_time_writes_and_none_waits_beyond_its_time_out(package: Transformers, folder: Path) -> None:
    package.seconds = 0.1
    model, failed = TransformersLLM(folder), []

    def work(timeout: float) -> None:
        try:
            model.complete("p", n=1, timeout=timeout)
        except LLMFailed as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(timeout,)) for timeout in (5, 5, 0.02)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert package.most == 1
    assert len(failed) == 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [(RuntimeError("no memory"), "RuntimeError: no memory"), ("text", "generated_text"), ([{"text": 1}], "generated_text"), (3, "3")],
)  # fmt: skip
def test_what_the_pipeline_does_wrong_is_one_typed_error(
    package: Transformers, folder: Path, answer: Any, found: str
) -> None:
    package.answer = answer
    with pytest.raises(LLMFailed, match=found):
        TransformersLLM(folder).complete("p", n=1, timeout=None)


def test_a_folder_of_something_else_is_one_typed_error(
    package: Transformers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no config")

    monkeypatch.setattr(sys.modules["transformers"], "pipeline", refuse)
    with pytest.raises(LLMFailed, match="expected a causal language model, found OSError: no config"):
        TransformersLLM(folder).complete("p", n=1, timeout=None)


def test_the_name_tells_weights_and_options_apart(package: Transformers, folder: Path) -> None:
    names = {TransformersLLM(folder).name, TransformersLLM(folder, temperature=0).name}
    names.add(TransformersLLM(folder, max_tokens=9).name)
    (folder / "model.safetensors").write_bytes(b"others")
    names.add(TransformersLLM(folder).name)
    assert len(names) == 4
    assert all(name.startswith("tiny ") for name in names)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "gpt2"}, {"model": ""}, {"model": None}, {"device": 3}, {"device": ""}, {"temperature": -1},
        {"temperature": float("nan")}, {"max_tokens": 0}, {"timeout": 0},
    ],
)  # fmt: skip
def test_arguments_are_checked(package: Transformers, folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"TransformersLLM.* expects"):
        TransformersLLM(**{"model": folder, **options})


def test_a_folder_without_weights_is_refused(package: Transformers, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="expects weights"):
        TransformersLLM(tmp_path)


def test_without_the_package_the_error_ends_with_the_install_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find_spec(name, *rest)
    )
    with pytest.raises(MissingExtra) as info:
        TransformersLLM(folder)
    assert str(info.value).endswith("pip install 'gingham[embed]'")
